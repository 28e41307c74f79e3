//! The table of assigned users.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| local::users::fuzz_assignments(bytes));
