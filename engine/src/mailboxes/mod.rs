//! Mail for this machine's mailboxes, in processes that do not trust each other.
//!
//! ```text
//!  engine ──LMTP──▶ local (front, lmtp)        reads what the engine says; no uid but its own, no net, no files
//!                     │ who, from whom, and a descriptor
//!                     ▼
//!                   launch (launcher, pool)    root: whose is it? reads no message, opens no user's file
//!                     │ the same, and whose
//!                     ▼
//!                   deliver-as-user (worker, errand)   the user: .qmail, Maildir, programs
//! ```
//!
//! The answer goes back the same way, and the engine's log has it. What is not answered is delivered again.

pub(crate) mod errand;
pub mod front;
pub mod launcher;
mod lmtp;
mod pool;
pub(crate) mod wire;
pub(crate) mod worker;

pub use lmtp::fuzz_lmtp;
pub use wire::fuzz_packet;
