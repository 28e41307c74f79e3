//! RET, ENVID, NOTIFY and ORCPT of MAIL and RCPT.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| message::notify::fuzz_notify(bytes));
