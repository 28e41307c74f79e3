//! Messages that a local program wrote, by inject's rules, twice over; and the mending of a client's.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| message::compose::inject::fuzz_inject(bytes));
