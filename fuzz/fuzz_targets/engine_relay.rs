//! A relay of the table of routes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::routes::fuzz_relay(bytes));
