//! Whatever message is given to the DKIM signer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| message::dkim::fuzz_sign(bytes));
