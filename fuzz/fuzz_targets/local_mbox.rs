//! A message on its way into a mailbox file.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| local::mbox::fuzz_mbox(bytes));
