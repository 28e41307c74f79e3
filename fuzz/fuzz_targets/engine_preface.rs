//! What a SOCKS5 server says.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::egress::fuzz_preface(bytes));
