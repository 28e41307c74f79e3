//! A journal file, as recovery reads it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| queue::journal::fuzz_journal(bytes));
