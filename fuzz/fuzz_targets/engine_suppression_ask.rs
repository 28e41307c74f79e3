//! Questions about the suppression list on the control socket.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::suppression::fuzz_suppression_ask(bytes));
