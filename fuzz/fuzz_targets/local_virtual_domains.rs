//! Virtual domains and an address.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| local::virtual_domains::fuzz_virtual_domains(bytes));
