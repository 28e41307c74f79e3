//! A new message out of what a program wrote: envelope and content by qmail-inject's rules.

use super::hosts::Hosts;
use super::identity::Identity;
use super::options::Options;
use super::stamp::{Stamp, Unique};
use crate::address::AddressError;
use crate::envelope::{BodyKind, Recipients};
use crate::path::ReversePath;
use crate::verp::Verp;

/// Everything that decides what becomes of a message.
#[derive(Clone, Copy, Debug)]
pub struct Injector<'a> {
    pub options: &'a Options,
    pub identity: &'a Identity,
    pub hosts: &'a Hosts,
    pub now: Stamp,
    pub unique: Unique,
}

/// A message ready to be handed in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Injected {
    pub sender: ReversePath,
    pub verp: Option<Verp>,
    /// In the order in which they were named, each once; never empty.
    pub recipients: Recipients,
    /// Lines of the header end in CR LF; so do those of the body, but a CR alone stays.
    pub content: Vec<u8>,
    /// `EightBitMime` if the content has an octet above 127.
    pub body: BodyKind,
    /// Only SMTPUTF8 can carry the sender or a recipient (RFC 6531).
    pub smtputf8: bool,
}

/// Why no message was made. All of them are permanent: exit code 100 of inject, 65 of sendmail.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InjectError {
    /// `at` is the octet of the field where it goes wrong, counted from 0 at its name.
    #[error("{field}: octet {at}: expected {expected}")]
    Field { field: String, at: usize, expected: &'static str },
    #[error("{field}: {address}: {reason}")]
    Address { field: String, address: String, reason: AddressError },
    #[error("no recipient is named in the arguments or in the header")]
    NoRecipients,
    #[error("the sender {sender} is too long, or has octets that must be quoted, for a sender per recipient")]
    Verp { sender: String },
}

impl Injector<'_> {
    /// Makes envelope and content out of `input`, a header and a body whose lines end in LF or CR LF.
    pub fn inject(&self, input: &[u8]) -> Result<Injected, InjectError> {
        let _ = input;
        Err(InjectError::NoRecipients)
    }
}

impl Injected {
    /// The content as a local program reads it, lines ended by LF (`-n`).
    pub fn to_print(&self) -> Vec<u8> {
        self.content.clone()
    }
}
