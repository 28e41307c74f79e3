//! Takes mail in: the SMTP server side as a machine without I/O.
//!
//! A [`Session`] is one connection. The engine gives it bytes, the time and what became of a store; it gives back
//! replies, messages to store and the wish to close. It answers `250` to a message only after
//! [`Session::handle_stored`] said that it is safe: the promise of durability is the caller's to keep, and this
//! crate's not to make early.
//!
//! Trusts nothing that a peer sent. Bounds: see [`Limits`]; what happens at each stands there.
#![forbid(unsafe_code)]

pub mod bare;
mod command;
mod data;
pub mod door;
mod fuzz;
mod limits;
mod line;
mod output;
mod proxy;
mod replies;
mod reply_queue;
mod sasl;
mod session;
mod tls;
mod transaction;
mod xclient;
mod xtext;

pub use fuzz::{
    fuzz_auth, fuzz_greeting, fuzz_handshake, fuzz_proxied, fuzz_sealed, fuzz_session, fuzz_transaction,
    fuzz_xclient,
};
pub use limits::{Gate, Limits, Mechanism, Policy, Timeouts, TlsUse, TurnUse};
pub use output::{Flush, Output, Rejection, Stage, Stored, Submission, TransactionKey};
pub use proxy::fuzz_proxy;
pub use replies::refusal_too_busy;
pub use session::Session;
pub use tls::{Encrypted, Identity, Opened, TlsServer, TlsServerError, Tunnel};
