//! A message on its way to a client.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pop3::fuzz_content(bytes));
