//! A line that asks to see something, at the control socket.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::look::ask::fuzz_look(bytes));
