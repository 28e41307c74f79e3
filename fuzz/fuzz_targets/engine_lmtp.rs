//! What the engine says to whoever takes mail for mailboxes, in pieces.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::mailboxes::fuzz_lmtp(bytes));
