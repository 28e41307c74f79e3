//! A request to inject, and what becomes of its letter.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::api::fuzz_inject_request(bytes));
