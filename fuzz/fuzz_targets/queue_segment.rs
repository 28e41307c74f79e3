//! A whole segment file, as recovery reads it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| queue::log::recovery::fuzz_segment(bytes));
