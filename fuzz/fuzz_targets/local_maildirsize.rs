//! A Maildir's memory of its size.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| local::maildir::quota::fuzz_maildirsize(bytes));
