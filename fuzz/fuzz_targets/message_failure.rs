//! What kind of failure a refusal is.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| message::failure::fuzz_failure(bytes));
