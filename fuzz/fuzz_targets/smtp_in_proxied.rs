//! A session that begins with a PROXY header, or should.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| smtp_in::fuzz_proxied(std::time::Instant::now(), bytes));
