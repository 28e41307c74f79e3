//! A token, and what could be one.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| message::unsubscribe::fuzz_unsubscribe(bytes));
