//! Reverse-path and forward-path of MAIL and RCPT.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| message::path::fuzz_path(bytes));
