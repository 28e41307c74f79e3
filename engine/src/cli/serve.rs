//! `ringpost serve`.

use super::part::begin;
use super::{PartFile, complain};
use crate::confine;
use crate::daemon::{self, Ready};
use crate::parts::Part;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::process::ExitCode;

pub(super) fn run(part: PartFile) -> ExitCode {
    let (handed, config) = match begin(&part, Part::Engine) {
        Ok(begun) => begun,
        Err(code) => return code,
    };
    let is_confined = handed.is_supervised() && config.supervise.confine;
    // The files that it names, too.
    drop(config);
    let config = match part.file.load() {
        Ok(config) => config,
        Err(error) => return complain(78, &error),
    };
    let at_work = handed.clone();
    let ready = move |ready: &Ready| {
        if let Some(Err(error)) = is_confined.then(confine::refuse_more_rings) {
            complain(78, &error);
            std::process::exit(78);
        }
        announce(ready);
        if let Err(error) = at_work.ready() {
            tracing::error!(%error, "whoever started this part does not hear that it is at work");
        }
    };
    match daemon::serve(config, move || part.file.load(), ready, &handed) {
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
