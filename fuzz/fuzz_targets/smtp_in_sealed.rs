//! A client behind its handshake: under TLS, or in plain text where TLS is due.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| smtp_in::fuzz_sealed(std::time::Instant::now(), bytes));
