//! `ringpost serve`.

use super::{ConfigFile, complain};
use crate::supervise::{self, Ready};
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::process::ExitCode;

pub(super) fn run(file: ConfigFile) -> ExitCode {
    let config = match file.load() {
        Ok(config) => config,
        Err(error) => return complain(78, &error),
    };
    start_log();
    match supervise::serve(config, move || file.load(), announce) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(error.exit_code(), &error),
    }
}

/// To standard error, `info` unless `RUST_LOG` says otherwise.
pub(super) fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let is_terminal = std::io::stderr().is_terminal();
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(is_terminal)
        .try_init();
}

/// The line that a supervisor or a test waits for.
fn announce(ready: &Ready) {
    let (listening, api) = (join(&ready.listening), join(&ready.api));
    let http = ready.http.map_or_else(|| "off".to_owned(), |address| address.to_string());
    if api.is_empty() {
        println!("listening {listening} http {http}");
    } else {
        println!("listening {listening} http {http} api {api}");
    }
    tracing::info!(cpus = ?ready.cpus, listening, http, api, "ringpost {} is up", env!("CARGO_PKG_VERSION"));
}

pub(super) fn join(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
