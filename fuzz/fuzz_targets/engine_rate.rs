//! A rate as an operator writes it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::config::fuzz_rate(bytes));
