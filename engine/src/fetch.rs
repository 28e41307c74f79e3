//! Mail that a client fetches over its own connection (ATRN, RFC 2645): what cores tell each other of it.
//!
//! The *home* of a fetch is the core that has the client. What each letter leads to stands in `drive/fetch`.

use crate::access::Domains;
use crate::crossing::Chunk;
use crate::steer::order::Order;
use std::sync::Arc;

/// One fetch. No other has its number while a letter about it can be on its way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FetchId {
    pub home: usize,
    pub index: u32,
    pub generation: u32,
}

/// Whose mail is fetched.
#[derive(Debug)]
pub struct Wanted {
    pub id: FetchId,
    pub domains: Domains,
    /// Mail that may not go in plain text (RFC 8689) is wanted as well.
    pub is_encrypted: bool,
}

impl Wanted {
    /// `domain` in lower case.
    pub fn wants(&self, domain: &str, requires_tls: bool) -> bool {
        (self.is_encrypted || !requires_tls) && self.domains.contains(domain)
    }
}

/// A letter about a fetch.
#[derive(Debug)]
pub enum FetchMail {
    /// To all cores: put aside what the order wants.
    Ask(Arc<Order>),
    /// To the home: so many recipients are aside. `None`: nobody looked, too much else is asked for.
    Found { id: FetchId, core: usize, recipients: Option<u64> },
    /// From the home: lend it some of them.
    More(FetchId),
    /// To the home.
    Lent { id: FetchId, chunk: Chunk },
    /// To the home: that was some of them, or all.
    Paused { id: FetchId, core: usize, has_more: bool },
    /// From the home: what is still aside is nobody's to fetch any more.
    Over(FetchId),
}
