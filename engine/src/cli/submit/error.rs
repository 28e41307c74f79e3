//! Why a submitting program ends without what was asked of it, and with which exit code.

use crate::config::ConfigError;
use message::AddressError;
use message::compose::{HostsError, InjectError, MasqueradeError};
use message::reply::Reply;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// `sysexits(3)`.
pub(super) const EX_USAGE: u8 = 64;
pub(super) const EX_DATAERR: u8 = 65;
pub(super) const EX_NOINPUT: u8 = 66;
const EX_NOUSER: u8 = 67;
const EX_NOHOST: u8 = 68;
const EX_UNAVAILABLE: u8 = 69;
pub(super) const EX_CANTCREAT: u8 = 73;
const EX_IOERR: u8 = 74;
const EX_TEMPFAIL: u8 = 75;
pub(super) const EX_NOPERM: u8 = 77;
pub(super) const EX_CONFIG: u8 = 78;

/// What the daemon did not want.
#[derive(Debug)]
pub(super) struct Refused {
    /// A recipient, or a step of the dialogue.
    pub(super) what: String,
    pub(super) reply: Reply,
}

/// `bob@example.net: 550 5.1.1 No such user`.
impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refused { what, reply } = self;
        let enhanced = reply.enhanced.map(|code| format!(" {code}")).unwrap_or_default();
        write!(f, "{what}: {}{enhanced} {}", reply.code, reply.text())
    }
}

/// See the module.
#[derive(Debug, thiserror::Error)]
pub(super) enum SubmitError {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("[compose]: {0}")]
    Hosts(#[from] HostsError),
    #[error("[compose]: {0}")]
    Masquerade(#[from] MasqueradeError),
    #[error("{text:?} is no host for addresses without one: {reason}; see local.no_at_host")]
    NoAtHost { text: String, reason: AddressError },
    #[error("{path}: {source}", path = .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("reading the message: {0}")]
    Input(io::Error),
    #[error("writing the message: {0}")]
    Output(io::Error),
    #[error("the message is longer than {0} octets, the most that may be configured")]
    TooLong(u64),
    #[error(transparent)]
    Inject(#[from] InjectError),
    #[error(
        "{path}: {source}; nothing was sent. Is ringpost running, and does its configuration's `submit` name this \
         socket? --socket or RINGPOST_SUBMIT names another",
        path = .path.display()
    )]
    Unreachable { path: PathBuf, source: io::Error },
    #[error("the connection to ringpost broke: {0}; the message may not have been taken")]
    Broken(io::Error),
    #[error("the daemon does not offer {0}, which this message needs; nothing was sent")]
    Lacks(&'static str),
    #[error("{0}; nothing was sent")]
    Refused(Refused),
    #[error("{}nothing was sent, to no recipient", lines(.0))]
    Recipients(Vec<Refused>),
}

fn lines(refused: &[Refused]) -> String {
    refused.iter().map(|one| one.to_string() + "\n").collect()
}

impl SubmitError {
    /// For sendmail's callers: `sysexits(3)`.
    pub(super) fn sysexit(&self) -> u8 {
        match self {
            SubmitError::Usage(_) | SubmitError::Inject(InjectError::NoRecipients) => EX_USAGE,
            SubmitError::Config(_)
            | SubmitError::Hosts(_)
            | SubmitError::Masquerade(_)
            | SubmitError::NoAtHost { .. }
            | SubmitError::File { .. } => EX_CONFIG,
            SubmitError::Input(_) | SubmitError::Output(_) => EX_IOERR,
            SubmitError::TooLong(_) | SubmitError::Inject(_) => EX_DATAERR,
            SubmitError::Unreachable { .. } | SubmitError::Broken(_) => EX_TEMPFAIL,
            SubmitError::Lacks(_) => EX_UNAVAILABLE,
            SubmitError::Refused(refused) => sysexit_of(&refused.reply),
            // Nothing was sent. Trying again helps only if every refusal may pass.
            SubmitError::Recipients(refused) => {
                let permanent = refused.iter().find(|one| one.reply.is_permanent());
                permanent.map_or(EX_TEMPFAIL, |one| sysexit_of(&one.reply))
            }
        }
    }

    /// For qmail-inject's callers: 100 for good, 111 for now. What the operator can mend is for now.
    pub(super) fn qmail_exit(&self) -> u8 {
        match self.sysexit() {
            EX_TEMPFAIL | EX_CONFIG | EX_IOERR => 111,
            _ => 100,
        }
    }
}

/// RFC 3463's subjects in the words of `sysexits(3)`.
fn sysexit_of(reply: &Reply) -> u8 {
    if !reply.is_permanent() {
        return EX_TEMPFAIL;
    }
    match reply.enhanced.map(|code| (code.1, code.2)) {
        Some((1, 2)) => EX_NOHOST,
        Some((1, 0 | 1 | 3 | 6)) => EX_NOUSER,
        Some((3, 4) | (2, 3) | (6, _) | (1, 7)) => EX_DATAERR,
        Some((7, _)) => EX_NOPERM,
        _ => EX_UNAVAILABLE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16, enhanced: (u8, u16, u16)) -> Refused {
        Refused { what: "bob@example.net".into(), reply: Reply::ours(code, enhanced, "no") }
    }

    #[test]
    fn a_reply_becomes_the_code_that_callers_know() {
        let cases = [
            ((550, (5, 1, 1)), 67, 100),
            ((550, (5, 1, 2)), 68, 100),
            ((550, (5, 7, 1)), 77, 100),
            ((552, (5, 3, 4)), 65, 100),
            ((501, (5, 5, 4)), 69, 100),
            ((452, (4, 3, 1)), 75, 111),
            ((421, (4, 3, 2)), 75, 111),
        ];
        for ((code, enhanced), sysexit, qmail) in cases {
            let error = SubmitError::Refused(refused(code, enhanced));
            assert_eq!((error.sysexit(), error.qmail_exit()), (sysexit, qmail), "{code}");
        }
    }

    #[test]
    fn one_refusal_for_good_among_others_is_for_good_and_each_is_named() {
        let error = SubmitError::Recipients(vec![refused(450, (4, 2, 0)), refused(550, (5, 1, 1))]);
        assert_eq!(error.sysexit(), 67);
        assert_eq!(
            error.to_string(),
            "bob@example.net: 450 4.2.0 no\nbob@example.net: 550 5.1.1 no\nnothing was sent, to no recipient"
        );
        assert_eq!(SubmitError::Recipients(vec![refused(450, (4, 2, 0))]).sysexit(), 75);
    }
}
