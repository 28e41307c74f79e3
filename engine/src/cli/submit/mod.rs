//! The programs by which this machine's users send: `sendmail`, `inject`, `mailq` and `newaliases`, as `ringpost NAME` or by
//! a link of that name.
//!
//! They run as the user who calls them, make a message of what they are given, and hand it in by SMTP over the daemon's
//! Unix socket (`submit`): whatever holds for a message from the network holds for this one too, and nobody needs rights
//! that are not their own. Trusted by nobody: the daemon asks the kernel who comes. Bounds: a message of
//! [`MESSAGE_MAX`] octets, in memory twice.

mod client;
mod dsn;
mod error;
mod inject;
mod mailq;
mod newaliases;
mod onward;
mod place;
mod sendmail;
mod user;

pub use client::fuzz_reply_line;
pub(crate) use onward::{Onward, no_at_host, send};
pub use sendmail::fuzz_arguments;

use error::{EX_USAGE, SubmitError};
use message::compose::{Identity, Injected, Injector, Options, Stamp, Unique, Zone};
use place::Place;
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

/// The most that `intake.message_size_max` may be.
pub(super) const MESSAGE_MAX: u64 = 512 << 20;

/// Which of the programs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Program {
    Sendmail,
    Inject,
    Mailq,
    NewAliases,
}

impl Program {
    fn named(name: &OsStr) -> Option<Program> {
        match name.to_str()? {
            "sendmail" => Some(Program::Sendmail),
            "inject" | "qmail-inject" => Some(Program::Inject),
            "mailq" => Some(Program::Mailq),
            "newaliases" => Some(Program::NewAliases),
            _ => None,
        }
    }

    /// By the name under which we were called, else by the first word; and the words that are the program's.
    pub(crate) fn of(words: &[OsString]) -> Option<(Program, &[OsString])> {
        let (own, words) = words.split_first()?;
        let by_name = Path::new(own).file_name().and_then(Program::named);
        if let Some(program) = by_name {
            return Some((program, words));
        }
        let (first, words) = words.split_first()?;
        // `inject --list …` is no message's: it is a command of ours.
        let is_bulk = |word: &OsString| word == "--list" || word.as_encoded_bytes().starts_with(b"--list=");
        let program = Program::named(first)?;
        (program != Program::Inject || !words.iter().any(is_bulk)).then_some((program, words))
    }

    pub(crate) fn run(self, words: &[OsString]) -> ExitCode {
        let words = words.iter().map(|word| word.clone().into_string()).collect::<Result<Vec<_>, _>>();
        let Ok(words) = words else {
            let code = if self == Program::Inject { 100 } else { EX_USAGE };
            return super::complain(code, &"an argument is not text in UTF-8");
        };
        match self {
            Program::Sendmail => sendmail::run(words),
            Program::Inject => inject::run(words),
            Program::Mailq => mailq::run(words),
            Program::NewAliases => newaliases::run(words),
        }
    }
}

/// All of standard input.
fn read_message() -> Result<Vec<u8>, SubmitError> {
    let mut content = Vec::new();
    let input = std::io::stdin().lock();
    input.take(MESSAGE_MAX + 1).read_to_end(&mut content).map_err(SubmitError::Input)?;
    if content.len() as u64 > MESSAGE_MAX { Err(SubmitError::TooLong(MESSAGE_MAX)) } else { Ok(content) }
}

/// Makes the message.
fn compose(
    place: &Place,
    identity: &Identity,
    mut options: Options,
    input: &[u8],
) -> Result<Injected, SubmitError> {
    let hosts = place.compose.hosts(&place.host_name)?.with_variables(user::variable)?;
    options.masquerade = place.compose.masquerade()?;
    let now = Stamp { at: crate::clock::wall(), zone: Zone::Universal };
    let unique = Unique { process: std::process::id(), serial: RandomState::new().build_hasher().finish() };
    let injector = Injector { options: &options, identity, hosts: &hosts, now, unique };
    Ok(injector.inject(input)?)
}

/// Lists that the user is on: lines of `$QMAILMFTFILE` (Q13).
fn followup_lists() -> Result<Vec<String>, SubmitError> {
    let Some(name) = user::variable("QMAILMFTFILE") else { return Ok(Vec::new()) };
    let wrong = |source| SubmitError::File { path: name.clone().into(), source };
    let text = std::fs::read_to_string(&name).map_err(wrong)?;
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program_of(words: &[&str]) -> Option<(Program, usize)> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        Program::of(&words).map(|(program, rest)| (program, rest.len()))
    }

    #[test]
    fn a_program_goes_by_the_name_it_was_called_by_or_by_its_first_word() {
        assert_eq!(program_of(&["/usr/sbin/sendmail", "-t"]), Some((Program::Sendmail, 1)));
        assert_eq!(program_of(&["qmail-inject"]), Some((Program::Inject, 0)));
        assert_eq!(program_of(&["ringpost", "mailq"]), Some((Program::Mailq, 0)));
        assert_eq!(program_of(&["sendmail", "mailq"]), Some((Program::Sendmail, 1)));
        assert_eq!(program_of(&["ringpost", "serve"]), None);
        assert_eq!(program_of(&[]), None);
    }
}
