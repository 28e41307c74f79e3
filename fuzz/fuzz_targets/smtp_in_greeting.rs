//! A client that speaks before it is greeted, or waits.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| smtp_in::fuzz_greeting(std::time::Instant::now(), bytes));
