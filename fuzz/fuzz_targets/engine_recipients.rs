//! A list of recipients, how it is written and how it is cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::api::recipients::fuzz_recipients(bytes));
