//! A password file.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::auth::fuzz_password_file(bytes));
