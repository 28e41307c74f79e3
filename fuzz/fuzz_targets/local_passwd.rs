//! The system's password file.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| local::users::fuzz_passwd(bytes));
