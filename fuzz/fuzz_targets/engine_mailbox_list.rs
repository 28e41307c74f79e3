//! A mailbox as its owner's process lists it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::pop3d::fuzz_mailbox_list(bytes));
