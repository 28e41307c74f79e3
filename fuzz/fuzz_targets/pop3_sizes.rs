//! The file of sizes in a Maildir.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pop3::fuzz_sizes(bytes));
