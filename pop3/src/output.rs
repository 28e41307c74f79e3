//! What a session gives the caller to do, and what the caller answers.

use message::Secret;

/// What the caller has to do.
#[derive(Debug)]
pub enum Output {
    /// Find out whether this login is right, then call [`crate::Session::handle_login`].
    Check(Attempt),
    /// The user is logged in: open the maildrop, then call [`crate::Session::handle_maildrop`].
    Open(Box<str>),
    /// Read the message of this index in the maildrop: call [`crate::Session::handle_content`] with its pieces while
    /// [`crate::Session::wants_content`], then `handle_content_end`; if it cannot be read, `handle_unreadable`.
    Read(usize),
    /// Remove these messages, durably, then call [`crate::Session::handle_removed`].
    Remove(Vec<usize>),
    /// Shake hands as a TLS server; the octets that come now are TLS's. Then call [`crate::Session::handle_encrypted`].
    BeginTls,
    /// Comes once, after the last reply was taken: send what was taken, then close.
    Close,
}

/// What a client did to log in.
#[derive(Debug)]
pub enum Attempt {
    Password {
        user: Box<str>,
        password: Secret,
    },
    /// `digest`: MD5 of `stamp` and the secret behind it (RFC 1939 §7).
    Apop {
        user: Box<str>,
        stamp: Box<str>,
        digest: [u8; 16],
    },
}

/// What came of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Login {
    Right,
    Wrong,
    /// Not decided.
    Unavailable,
}

/// Why there is no maildrop.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unavailable {
    /// The user has none.
    Missing,
    /// It cannot be read now.
    Failed,
}

/// Why a message is not read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unreadable {
    /// Another session or program took it away.
    Vanished,
    Failed,
}
