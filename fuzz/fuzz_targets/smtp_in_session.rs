//! A client that sends anything, cut anywhere.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| smtp_in::fuzz_session(std::time::Instant::now(), bytes));
