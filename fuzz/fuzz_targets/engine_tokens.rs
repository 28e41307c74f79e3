//! A file of tokens.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::auth::fuzz_tokens(bytes));
