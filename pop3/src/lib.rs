//! Gives mail to its owner: the POP3 server side as a machine without I/O.
//!
//! A [`Session`] is one connection. The caller gives it octets, the time, what became of a login and what lies in the
//! maildrop; it gives back replies and wishes: check this login, open that user's maildrop, read a message, remove these.
//! What a Maildir's file names and our file of sizes mean is decided here too ([`maildrop`], [`sizes`]); files are read
//! and removed by the caller alone.
//!
//! Trusts nothing that a peer sent, nor what a mailbox's owner may have written. Bounds: see [`Limits`],
//! [`maildrop::MESSAGES_MAX`] and [`sizes::FILE_MAX`].
#![forbid(unsafe_code)]

mod command;
mod fuzz;
mod limits;
mod line;
pub mod maildrop;
mod output;
mod replies;
mod session;
pub mod sizes;
mod wire;

pub use fuzz::{fuzz_content, fuzz_session, fuzz_sizes};
pub use limits::{Limits, Policy, TlsUse};
pub use output::{Attempt, Login, Output, Unavailable, Unreadable};
pub use replies::refusal_too_busy;
pub use session::{Arrival, Session};
pub use wire::Count;
