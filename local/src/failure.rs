//! Why a message was not delivered: in qmail's words, which are what users and scripts know.

use message::reply::EnhancedCode;
use message::{Reply, Verdict};
use rustix::io::Errno;
use std::io;

/// Octets of a failure's words.
pub const WORDS_MAX: usize = 4 << 10;

/// Hard failures bounce; soft ones are tried again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Severity {
    Hard,
    Soft,
}

/// A delivery, or a part of one, that did not come about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    pub severity: Severity,
    /// One sentence or what a program said, its code as `(#4.2.1)` at the end. At most [`WORDS_MAX`] octets.
    pub words: String,
}

impl Failure {
    pub fn hard(words: impl Into<String>) -> Failure {
        Failure::new(Severity::Hard, words.into())
    }

    pub fn soft(words: impl Into<String>) -> Failure {
        Failure::new(Severity::Soft, words.into())
    }

    fn new(severity: Severity, mut words: String) -> Failure {
        words.truncate(words.floor_char_boundary(WORDS_MAX));
        Failure { severity, words }
    }

    /// 100 or 111.
    pub fn exit_code(&self) -> u8 {
        match self.severity {
            Severity::Hard => 100,
            Severity::Soft => 111,
        }
    }

    /// For the queue, with the code that the words end in if it fits.
    pub fn verdict(&self) -> Verdict {
        let (class, code, usual) = match self.severity {
            Severity::Hard => (5, 554, EnhancedCode(5, 3, 0)),
            Severity::Soft => (4, 451, EnhancedCode(4, 3, 0)),
        };
        let enhanced = code_in(&self.words).filter(|found| found.0 == class).unwrap_or(usual);
        let reply = Reply::new(code, Some(enhanced), self.words.as_bytes());
        match self.severity {
            Severity::Hard => Verdict::Failed(reply),
            Severity::Soft => Verdict::Deferred(reply),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.words)
    }
}

/// The last `(#x.y.z)`.
fn code_in(words: &str) -> Option<EnhancedCode> {
    let (_, behind) = words.rsplit_once("(#")?;
    let (code, _) = behind.split_once(')')?;
    let mut numbers = code.split('.');
    let found = EnhancedCode(
        numbers.next()?.parse().ok()?,
        numbers.next()?.parse().ok()?,
        numbers.next()?.parse().ok()?,
    );
    numbers.next().is_none().then_some(found)
}

/// The system's words for an error, without its number.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text[..end].to_lowercase(),
        None => text.to_lowercase(),
    }
}

/// True for what may be otherwise soon, such as a file server that does not answer.
pub fn is_passing(error: &io::Error) -> bool {
    let passing = [
        Errno::INTR,
        Errno::NOMEM,
        Errno::TXTBSY,
        Errno::IO,
        Errno::TIMEDOUT,
        Errno::AGAIN,
        Errno::NFILE,
        Errno::MFILE,
        Errno::STALE,
    ];
    passing.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_in_the_words_is_the_replys() {
        let failure = Failure::hard("Sorry, no mailbox here by that name. (#5.1.1)");
        let Verdict::Failed(reply) = failure.verdict() else { panic!() };
        assert_eq!((reply.code, reply.enhanced), (554, Some(EnhancedCode(5, 1, 1))));
        let Verdict::Deferred(reply) = Failure::soft("what it said (#5.1.1)").verdict() else { panic!() };
        assert_eq!((reply.code, reply.enhanced), (451, Some(EnhancedCode(4, 3, 0))));
        assert_eq!(code_in("(#4.2.1.1)"), None);
        assert_eq!(code_in("(#4.2"), None);
    }

    #[test]
    fn words_are_bounded() {
        assert!(Failure::soft("ü".repeat(WORDS_MAX)).words.len() <= WORDS_MAX);
    }

    #[test]
    fn reasons_are_said_as_the_system_says_them() {
        let error = io::Error::from_raw_os_error(2);
        assert_eq!(reason(&error), "no such file or directory");
    }
}
