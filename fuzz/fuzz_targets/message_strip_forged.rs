//! Results that strangers wrote under our name.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| message::results::fuzz_strip_forged(bytes));
