//! `ringpost`: see `ringpost --help` and the README.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    engine::cli::run(&words)
}
