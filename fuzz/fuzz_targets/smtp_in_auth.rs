//! A client that logs in, in every step of every mechanism.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| smtp_in::fuzz_auth(std::time::Instant::now(), bytes));
