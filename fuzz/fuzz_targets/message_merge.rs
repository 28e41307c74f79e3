//! A template, and hostile values in it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| message::merge::fuzz_merge(bytes));
