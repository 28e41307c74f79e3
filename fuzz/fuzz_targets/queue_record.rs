//! A record's head and meta part, as recovery reads them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| queue::log::record::fuzz_record(bytes));
