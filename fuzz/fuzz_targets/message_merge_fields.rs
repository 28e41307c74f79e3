//! A recipient's values.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| message::merge::fields::fuzz_merge_fields(bytes));
