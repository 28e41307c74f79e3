//! `ringpost`: see `ringpost --help` and the README.
#![forbid(unsafe_code)]

use clap::Parser as _;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    engine::cli::Cli::parse().run()
}
