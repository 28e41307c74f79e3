//! A client in the middle of a transaction, at each step of it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| smtp_in::fuzz_transaction(std::time::Instant::now(), bytes));
