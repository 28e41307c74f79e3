//! Where a line of the event log begins, behind whatever was torn.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::events::line::fuzz_head(bytes));
