//! What a header says of campaign and tenant.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| message::class::fuzz_marks(bytes));
