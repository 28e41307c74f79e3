//! A packet between the processes that deliver.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::mailboxes::fuzz_packet(bytes));
