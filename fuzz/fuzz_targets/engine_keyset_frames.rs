//! Logs of a set of keys, torn and damaged.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::keyset::fuzz_keyset_frames(bytes));
