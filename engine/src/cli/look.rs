//! What `explain`, `sites` and `trace` have in common: a running daemon to ask, and words for times.

use super::queue::{Daemon, QueueError};
use super::{ConfigFile, complain};
use std::io;
use std::process::ExitCode;

/// Asks the daemon. Exit codes as those of `ringpost queue`; 75 too if there is no daemon: nobody else knows.
pub(super) fn run(file: &ConfigFile, ask: impl FnOnce(Daemon) -> Result<(), QueueError>) -> ExitCode {
    let config = match file.load() {
        Ok(config) => config,
        Err(error) => return complain(78, &error),
    };
    let asked = match Daemon::connect(&config.control_path()) {
        Ok(Some(daemon)) => ask(daemon),
        Ok(None) => return complain(75, &"the daemon is not running: only a running one can tell"),
        Err(error) => Err(error),
    };
    match asked {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has seen enough.
        Err(QueueError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => complain(error.exit_code(), &error),
    }
}

/// The daemon answered something else than what was asked.
pub(super) fn surprise() -> QueueError {
    QueueError::Daemon("the daemon's answer is to another question".into())
}

/// The time between, as people say it: `42 s`, `5 min 3 s`, `2 h 30 min`, `3 d 4 h`. Begun seconds count.
pub(super) fn time_until(until_ms: u64, now_ms: u64) -> String {
    secs_in_words(until_ms.saturating_sub(now_ms).div_ceil(1000))
}

/// See [`time_until`].
pub(super) fn secs_in_words(secs: u64) -> String {
    let units = [(86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")];
    let Some((unit, name, part, part_name)) = units.into_iter().find(|(unit, ..)| secs >= *unit) else {
        return format!("{secs} s");
    };
    match secs % unit / part {
        0 => format!("{} {name}", secs / unit),
        rest => format!("{} {name} {rest} {part_name}", secs / unit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_in_their_two_largest_units() {
        let cases = [
            (0, "0 s"),
            (42, "42 s"),
            (60, "1 min"),
            (303, "5 min 3 s"),
            (9000, "2 h 30 min"),
            (3605, "1 h"),
            (273_600, "3 d 4 h"),
        ];
        for (secs, words) in cases {
            assert_eq!(secs_in_words(secs), words);
        }
        assert_eq!((time_until(1001, 0), time_until(5, 9)), ("2 s".to_owned(), "0 s".to_owned()));
    }
}
