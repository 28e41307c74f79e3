//! What the hot functions cost.
