//! How a connection to a host must be protected.
//!
//! Decided outside, by the operator's table, by the host's TLSA records (RFC 7672) or by its domain's policy (RFC
//! 8461); carried out in the session. Two policies that are equal may share connections and resumed sessions, others
//! must not.

use std::sync::Arc;

/// See the module.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub enum TlsPolicy {
    /// Plain text, whatever the host offers.
    Never,
    /// Encrypted where the host offers it and it works, whoever the host is (RFC 7435); else plain text.
    #[default]
    May,
    /// Encrypted or not at all, whoever the host is.
    Encrypt,
    /// Its certificate leads to one of our roots and is for one of `names`; `*.` in front stands for one label.
    /// No names: for the host's own. Not `enforced`: what fails is told to the caller and the mail goes all the same.
    Verify { names: Vec<Arc<str>>, enforced: bool },
    /// Its certificate, or the public key in it, has one of these SHA-256 digests.
    Fingerprint { sha256: Vec<[u8; 32]> },
    /// One of its TLSA records matches (RFC 7672 §3). None of them usable: encrypted, whoever the host is (§2.2).
    /// `names`: what a certificate under a trust anchor (usage 2) may be for.
    Dane { records: Vec<Tlsa>, names: Vec<Arc<str>> },
}

/// A TLSA record (RFC 6698 §2.1), as the name server gave it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Tlsa {
    pub usage: u8,
    pub selector: u8,
    pub matching: u8,
    pub data: Vec<u8>,
}

impl TlsPolicy {
    /// Mail may go in plain text.
    pub fn allows_plain(&self) -> bool {
        matches!(self, TlsPolicy::Never | TlsPolicy::May | TlsPolicy::Verify { enforced: false, .. })
    }
}
