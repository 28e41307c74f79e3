//! `ringpost qmail-local [-nN] USER HOME LOCAL DASH EXT HOST SENDER DEFAULTDELIVERY`: one message of standard input to
//! one address of this machine, as the user who calls it. With `-n` nothing is done, and what would be is said.
//!
//! Exit codes 0, 100 and 111. What programs say goes to standard output, why a delivery failed to standard error. A
//! message that comes by a pipe is kept in a temporary file: each delivery reads it from its beginning. Programs may
//! take [`PROGRAM_MAX`].

use super::message_file;
use crate::mailboxes::errand::{Done, Errand};
use local::delivery::{self, Delivery};
use local::failure::{Failure, reason};
use local::filters::Exit;
use local::instructions::search::{Distrust, FolderHome};
use local::program::Limits;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

const USAGE: &str =
    "qmail-local: usage: qmail-local [ -nN ] user homedir local dash ext domain sender defaultdelivery";

/// As long as qmail gives a Maildir delivery: no program is meant to take a day.
const PROGRAM_MAX: Duration = Duration::from_secs(86_400);

pub(super) fn run(words: &[String]) -> Exit {
    let Some((explains, delivery)) = parse(words) else { return Exit::new(100, USAGE) };
    if let Err(error) = std::env::set_current_dir(delivery.home) {
        let words = format!("Unable to switch to {}: {}. (#4.3.0)", delivery.home, reason(&error));
        return Exit::new(111, words);
    }
    let done = if explains { explain(&delivery) } else { deliver(&delivery) };
    match done {
        Ok(()) => Exit::silent(0),
        Err(failure) => Exit::new(failure.exit_code(), failure.words),
    }
}

/// Whether to explain, and what.
fn parse(words: &[String]) -> Option<(bool, Delivery<'_>)> {
    let mut explains = false;
    let mut rest = words;
    while let [first, behind @ ..] = rest
        && let Some(letters) = first.strip_prefix('-').filter(|letters| !letters.is_empty())
    {
        rest = behind;
        if letters == "-" {
            break;
        }
        for letter in letters.chars() {
            match letter {
                'n' => explains = true,
                'N' => explains = false,
                _ => return None,
            }
        }
    }
    let [user, home, local, dash, extension, host, sender, default_delivery] = rest else { return None };
    let default_delivery = default_delivery.as_bytes();
    let delivery = Delivery { user, home, local, dash, extension, host, sender, default_delivery };
    home.starts_with('/').then_some((explains, delivery))
}

fn explain(delivery: &Delivery<'_>) -> Result<(), Failure> {
    let text = delivery::explain(&FolderHome(PathBuf::from(".")), Distrust::World, delivery)?;
    say(text.as_bytes());
    Ok(())
}

fn say(text: &[u8]) {
    // Who closed it does not want to hear.
    let _ = io::stdout().write_all(text).and_then(|()| io::stdout().flush());
}

fn deliver(delivery: &Delivery<'_>) -> Result<(), Failure> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let message = message_file()
        .map_err(|error| Failure::soft(format!("Unable to read message: {}. (#4.3.0)", reason(&error))))?;
    let limits = Limits { time: PROGRAM_MAX, memory: None };
    let errand = Errand { delivery: *delivery, message, limits, quota: None, no_at_host: None, counter: 0 };
    let Done { counts, said } = errand.run()?;
    say(&said);
    say(format!("{counts}\n").as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_qmails() {
        let words = |text: &str| text.split('|').map(str::to_owned).collect::<Vec<_>>();
        let eight = words("-n|ann|/home/ann|ann-x|-|x|example.org|bob@example.net|./Mailbox");
        let (explains, delivery) = parse(&eight).unwrap();
        assert!(explains && delivery.recipient() == "ann-x@example.org" && delivery.dash == "-");
        let empty = words("--|ann|/home/ann|ann|||example.org||./Mailbox");
        assert!(!parse(&empty).unwrap().0);
        for wrong in ["", "ann|/home/ann", "-x|a|/|a|||h|s|d", "a|home|a|||h|s|d", "a|/|a|||h|s|d|more"] {
            assert!(parse(&words(wrong)).is_none(), "{wrong}");
        }
    }
}
