//! Replies of a host, cut anywhere.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| smtp_out::fuzz_reply(bytes));
