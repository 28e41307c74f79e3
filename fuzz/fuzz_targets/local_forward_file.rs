//! A .forward file.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| local::aliases::forward_file::fuzz_forward_file(bytes));
