//! Forwarding instructions as setforward reads them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| local::aliases::source::fuzz_source(bytes));
