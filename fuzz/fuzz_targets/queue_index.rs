//! The index that a sealed segment ends in.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| queue::log::index::fuzz_index(bytes));
