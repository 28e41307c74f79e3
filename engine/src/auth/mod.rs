//! Whose password is right: a file of hashes, and a checkpassword program for users that the file does not have.
//!
//! [`Authenticator::check`] may be called on any thread and never waits. What costs time (argon2 takes tens of
//! milliseconds by design) runs on a few threads of its own; the answer comes on one of those, or at once on the
//! caller's. A user that there is none of costs as much as the others, so the time tells nothing about names.
//! A right password is known again for a minute by its HMAC, because mail programs log in for every message.
//!
//! Passwords and names are octets as the client gave them: no SASLprep (RFC 4013), which changes ASCII in nothing.
//! Bounds: [`WAITING_MAX`] checks wait for a thread, then [`Outcome::Unavailable`]; wrong answers by `guesses`; right
//! ones by `recent`; memory of a hash by `hash`; programs at a time by [`PROGRAMS_MAX`].

mod authenticator;
mod file;
mod guesses;
mod hash;
mod pool;
mod program;
mod recent;
mod scram;
mod tokens;

pub use authenticator::Authenticator;
pub use file::{Passwords, fuzz_password_file};
pub(crate) use file::{lines_of, secrets_of, with_lines};
pub(crate) use guesses::net_of;
pub use hash::Scheme;
pub(crate) use tokens::make as make_token;
pub use tokens::{Holder, Scope, Tokens, fuzz_tokens};

use message::Secret;
use smtp_in::door::ScramKeys;
use std::sync::Arc;

/// Checks that wait for a thread.
const WAITING_MAX: usize = 64;

/// Programs that run at a time.
const PROGRAMS_MAX: usize = 8;

/// Octets of a password: checkpassword's interface has no room for more, and SHA-crypt's cost grows by their square.
pub(crate) const PASSWORD_MAX: usize = 480;

/// Octets of a user's name.
pub(crate) const USER_MAX: usize = 255;

/// What a client did to log in.
#[derive(Debug)]
pub enum Attempt {
    /// PLAIN or LOGIN.
    Password { user: String, password: Secret },
    /// `digest`: HMAC-MD5 of `challenge`, keyed with the password (RFC 2195).
    CramMd5 { user: String, challenge: String, digest: [u8; 16] },
    /// `digest`: MD5 of `stamp` and the secret behind it (RFC 1939 §7). Secrets are those of `of`, kept as they are.
    Apop { user: String, stamp: String, digest: [u8; 16], of: Arc<Passwords> },
    /// SCRAM-SHA-256 begins (RFC 7677). Counts as a wrong password until [`Attempt::Prove`].
    ScramKeys { user: String },
    /// Its proof was right.
    Prove { user: String },
}

impl Attempt {
    fn user(&self) -> &str {
        match self {
            Attempt::Password { user, .. }
            | Attempt::CramMd5 { user, .. }
            | Attempt::Apop { user, .. }
            | Attempt::ScramKeys { user }
            | Attempt::Prove { user } => user,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    Accepted {
        user: Arc<str>,
    },
    Wrong,
    /// Not decided: too many wrong ones before it, no thread free, or the program did not say.
    Unavailable,
    /// For a user that there is none of: made up, always the same for a name.
    Scram(ScramKeys),
}

/// A name or password that can be passed to a program and stand in a file.
fn is_fit(user: &str, password: &[u8]) -> bool {
    (1..=USER_MAX).contains(&user.len())
        && user.chars().all(|char| !char.is_control())
        && (1..=PASSWORD_MAX).contains(&password.len())
        && !password.contains(&0)
}
