//! Address lists of header fields, as they come and as they are written again.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| message::compose::address_list::fuzz_address_list(bytes));
