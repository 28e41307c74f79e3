//! A front server that says anything of its client.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| smtp_in::fuzz_xclient(std::time::Instant::now(), bytes));
