//! A message that may ask for a receipt.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| local::filters::fuzz_receipt(bytes));
