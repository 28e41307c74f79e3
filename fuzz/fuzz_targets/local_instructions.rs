//! A .qmail file.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| local::instructions::fuzz_instructions(bytes));
