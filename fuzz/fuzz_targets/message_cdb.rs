//! A constant database, and a key.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| message::cdb::fuzz_cdb(bytes));
