//! What is true of the whole: simulator, transcripts, real clients and servers, tidiness.
#![forbid(unsafe_code)]

pub mod names;
pub mod process;
pub mod sim;
