//! `ringpost pop3`.

use super::part::begin;
use super::serve::join;
use super::{PartFile, complain};
use crate::parts::Part;
use crate::pop3d::{self, Ready};
use std::process::ExitCode;

pub(super) fn run(part: &PartFile) -> ExitCode {
    let (handed, config) = match begin(part, Part::Pop3) {
        Ok(begun) => begun,
        Err(code) => return code,
    };
    match pop3d::serve(&config, &handed, announce) {
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
