//! What a server may say to a submitting program.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::cli::submit::fuzz_reply_line(bytes));
