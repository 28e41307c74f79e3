//! A client that shakes no hands.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| smtp_in::fuzz_handshake(std::time::Instant::now(), bytes));
