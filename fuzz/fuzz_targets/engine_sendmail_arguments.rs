//! sendmail's words, parted by NUL.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::cli::submit::fuzz_arguments(bytes));
