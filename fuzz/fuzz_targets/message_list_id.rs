//! The list that a message's header names.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| message::list::fuzz_list_id(bytes));
