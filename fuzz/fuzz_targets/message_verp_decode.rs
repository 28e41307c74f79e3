//! A local part that a bounce came to.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| message::verp::fuzz_verp_decode(bytes));
