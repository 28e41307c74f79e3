//! A host that says anything to a session with mail to send.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| smtp_out::fuzz_session(std::time::Instant::now(), bytes));
