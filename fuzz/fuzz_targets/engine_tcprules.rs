//! Rules as tcprules reads them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::config::fuzz_tcprules(bytes));
