//! This machine's own mail: whose an address is, what they want done with it, and how that is done safely.
//!
//! What qmail-lspawn, qmail-getpw, qmail-local, fastforward and dot-forward know. Decisions are pure:
//! [`virtual_domains`] says which addresses are ours, [`users`] whose they are, [`instructions`] and [`aliases`] what
//! stands in files, [`delivery`] in which order it is done. What touches a disk or starts a program does it as the
//! process that calls it: nothing here changes a uid, nothing reads a clock, and no string of a sender's or
//! recipient's ever names a file or reaches a shell but as an environment variable.
#![forbid(unsafe_code)]

pub mod aliases;
pub mod delivery;
pub mod disk;
pub mod failure;
pub mod filters;
pub mod instructions;
pub mod lines;
pub mod maildir;
pub mod mbox;
pub mod program;
pub mod users;
pub mod virtual_domains;
