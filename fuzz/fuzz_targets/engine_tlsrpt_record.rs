//! The TXT record that says where reports about TLS go.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::tlsrpt::record::fuzz_tlsrpt_record(bytes));
