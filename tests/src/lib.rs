//! What is true of the whole: simulator, transcripts, real clients and servers, tidiness.
