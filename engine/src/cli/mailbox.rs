//! The programs that deliver to this machine's mailboxes, those that stand in `.qmail` files, and those that make and show
//! databases of aliases, as `ringpost NAME` or by a link of that name: arguments, variables, exit codes and words are qmail's,
//! and those of the packages fastforward and dot-forward.
//!
//! They run as the user whose mail it is. What they decide is in the crate `local`; here are the processes, files and
//! sockets. Bounds: a message of [`MESSAGE_MAX`] octets where all of it is needed.

mod databases;
mod dot_forward;
mod fastforward;
mod filters;
mod letter;
mod qmail_local;

use super::submit::MESSAGE_MAX;
use local::failure::reason;
use local::filters::Exit;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::ExitCode;

/// Which of the programs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Program {
    QmailLocal,
    Forward,
    Preline,
    Condredirect,
    Bouncesaying,
    Except,
    Qreceipt,
    Qbiff,
    Maildirmake,
    Fastforward,
    DotForward,
    Setforward,
    Printforward,
}

impl Program {
    fn named(name: &OsStr) -> Option<Program> {
        Some(match name.to_str()? {
            "qmail-local" => Program::QmailLocal,
            "forward" => Program::Forward,
            "preline" => Program::Preline,
            "condredirect" => Program::Condredirect,
            "bouncesaying" => Program::Bouncesaying,
            "except" => Program::Except,
            "qreceipt" => Program::Qreceipt,
            "qbiff" => Program::Qbiff,
            "maildirmake" => Program::Maildirmake,
            "fastforward" => Program::Fastforward,
            "dot-forward" => Program::DotForward,
            "setforward" => Program::Setforward,
            "printforward" => Program::Printforward,
            _ => return None,
        })
    }

    /// By the name under which we were called, else by the first word; and the words that are the program's.
    pub(super) fn of(words: &[OsString]) -> Option<(Program, &[OsString])> {
        let (own, words) = words.split_first()?;
        if let Some(program) = Path::new(own).file_name().and_then(Program::named) {
            return Some((program, words));
        }
        let (first, words) = words.split_first()?;
        Some((Program::named(first)?, words))
    }

    pub(super) fn run(self, words: &[OsString]) -> ExitCode {
        let words: Result<Vec<String>, OsString> =
            words.iter().map(|word| word.clone().into_string()).collect();
        let Ok(words) = words else {
            return ended(Exit::new(100, "ringpost: an argument is not text in UTF-8"));
        };
        ended(match self {
            Program::QmailLocal => qmail_local::run(&words),
            Program::Forward => filters::forward(&words),
            Program::Preline => filters::preline(&words),
            Program::Condredirect => filters::condredirect(&words),
            Program::Bouncesaying => filters::bouncesaying(&words),
            Program::Except => filters::except(&words),
            Program::Qreceipt => filters::qreceipt(&words),
            Program::Qbiff => filters::qbiff(),
            Program::Maildirmake => filters::maildirmake(&words),
            Program::Fastforward => fastforward::run(&words),
            Program::DotForward => dot_forward::run(&words),
            Program::Setforward => databases::setforward(&words),
            Program::Printforward => databases::printforward(),
        })
    }
}

fn ended(exit: Exit) -> ExitCode {
    if !exit.words.is_empty() {
        eprintln!("{}", exit.words);
    }
    ExitCode::from(exit.code)
}

/// A variable that is text.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The end that an operation came to, whichever way.
fn whichever(done: Result<Exit, Exit>) -> Exit {
    done.unwrap_or_else(|exit| exit)
}

/// `program: fatal: what: the system's words`, for now.
fn trouble(program: &str, what: &str, error: &io::Error) -> Exit {
    Exit::new(111, format!("{program}: fatal: {what}: {}", reason(error)))
}

/// Standard input, if it is a file; else a copy of it.
fn message_file() -> io::Result<File> {
    let mut file = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    if file.metadata()?.is_file() {
        file.rewind()?;
        return Ok(file);
    }
    let mut copy = tempfile::tempfile()?;
    let len = io::copy(&mut file.take(MESSAGE_MAX + 1), &mut copy)?;
    if len > MESSAGE_MAX {
        return Err(io::Error::other(format!("it has more than {MESSAGE_MAX} octets")));
    }
    copy.rewind()?;
    Ok(copy)
}

/// All of standard input.
fn read_message() -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    io::stdin().lock().take(MESSAGE_MAX + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MESSAGE_MAX {
        return Err(io::Error::other(format!("it has more than {MESSAGE_MAX} octets")));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_goes_by_the_name_it_was_called_by_or_by_its_first_word() {
        let program_of = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            Program::of(&words).map(|(program, rest)| (program, rest.len()))
        };
        assert_eq!(program_of(&["/usr/bin/except", "grep", "x"]), Some((Program::Except, 2)));
        assert_eq!(program_of(&["ringpost", "qmail-local", "-n"]), Some((Program::QmailLocal, 1)));
        assert_eq!(program_of(&["except", "forward"]), Some((Program::Except, 1)));
        assert_eq!(program_of(&["ringpost", "serve"]), None);
        assert_eq!(program_of(&["ringpost"]), None);
    }
}
