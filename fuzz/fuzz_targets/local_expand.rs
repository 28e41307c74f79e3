//! Members and lists as a database has them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| local::aliases::database::fuzz_expand(bytes));
