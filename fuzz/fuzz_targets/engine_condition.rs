//! A condition of an operator's order.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::steer::condition::fuzz_condition(bytes));
