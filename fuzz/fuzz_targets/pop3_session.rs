//! A client that fetches its mail, logged in or not.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pop3::fuzz_session(std::time::Instant::now(), bytes));
