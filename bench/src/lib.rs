//! What the hot functions cost: see `benches/hot/` and README.md.
#![forbid(unsafe_code)]
