//! A line that comes in at the control socket.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::steer::wire::fuzz_request(bytes));
