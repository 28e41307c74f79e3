//! What an ident service or a list says.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::control::lookups::fuzz_ident(bytes));
