//! A body that says it is gzip.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::api::recipients::fuzz_gunzip(bytes));
