//! An MTA-STS policy, and the TXT record that announces it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::control::sts::policy::fuzz_sts_policy(bytes));
