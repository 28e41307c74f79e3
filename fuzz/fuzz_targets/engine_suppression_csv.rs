//! Files that are imported into the suppression list.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::suppression::fuzz_suppression_csv(bytes));
