//! A message that came to a return address.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| message::report::fuzz_report(bytes));
