//! The marks of several journals, folded.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| queue::journal::fold::fuzz_fold(bytes));
