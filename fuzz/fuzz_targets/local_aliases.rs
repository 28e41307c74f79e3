//! A table of aliases.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| local::aliases::fuzz_aliases(bytes));
