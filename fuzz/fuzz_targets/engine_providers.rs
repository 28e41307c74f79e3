//! A file of provider rules.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::providers::fuzz_providers(bytes));
