//! `ringpost mailq` and `sendmail -bp`: the queue as mail programs show it, to those who may see it (root, the daemon's
//! user). Anybody else is told so, with EX_NOPERM: whose mail waits is not everybody's business.

use super::error::{EX_CONFIG, EX_NOPERM, EX_USAGE};
use super::place::Pointers;
use crate::cli::complain;
use crate::cli::queue::{QueueError, mailq};
use crate::config::{self, ConfigError};
use std::io;
use std::process::ExitCode;

const FORBIDDEN: &str = "the queue is shown to root and to the daemon's user alone";

pub(super) fn run(words: Vec<String>) -> ExitCode {
    let mut pointers = Pointers::default();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        match pointers.take(&word, &mut words) {
            Ok(true) => {}
            // -v and what else programs say: there is one way to show it.
            Ok(false) if word.starts_with('-') && !word.starts_with("--") => {}
            Ok(false) => {
                let why = "mailq shows the whole queue; `ringpost queue list` chooses";
                return complain(EX_USAGE, &format_args!("{word:?}: {why}"));
            }
            Err(error) => return complain(error.sysexit(), &error),
        }
    }
    show(&pointers)
}

pub(super) fn show(pointers: &Pointers) -> ExitCode {
    let config = match config::load(pointers.config_file()) {
        Ok(config) => config,
        Err(ConfigError::Read { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
            return complain(EX_NOPERM, &FORBIDDEN);
        }
        Err(error) => return complain(EX_CONFIG, &error),
    };
    let seen = std::fs::read_dir(&config.queue).map_err(QueueError::Io).and_then(|_| mailq::print(&config));
    match seen {
        Ok(()) => ExitCode::SUCCESS,
        Err(QueueError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(QueueError::Io(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
            complain(EX_NOPERM, &FORBIDDEN)
        }
        Err(QueueError::Forbidden(_)) => complain(EX_NOPERM, &FORBIDDEN),
        Err(error) => complain(error.exit_code(), &error),
    }
}
