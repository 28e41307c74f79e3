//! `ringpost pop3`.

use super::serve::{join, start_log};
use super::{ConfigFile, complain};
use crate::config::load_alone;
use crate::pop3d::{self, Ready};
use std::process::ExitCode;

pub(super) fn run(file: &ConfigFile) -> ExitCode {
    let config = match load_alone(&file.config) {
        Ok(config) => config,
        Err(error) => return complain(78, &error),
    };
    start_log();
    match pop3d::serve(&config, announce) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(error.exit_code(), &error),
    }
}

/// The line that a supervisor or a test waits for.
fn announce(ready: &Ready) {
    let none_or = |list: String| if list.is_empty() { "none".to_owned() } else { list };
    let (plain, tls) = (none_or(join(&ready.plain)), none_or(join(&ready.tls)));
    println!("pop3 {plain} pop3s {tls}");
    tracing::info!(plain, tls, "ringpost {} gives out mail", env!("CARGO_PKG_VERSION"));
}
