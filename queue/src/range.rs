//! The unit of owing: some neighbouring recipients of one message, all at one domain.

use crate::store::MessageKey;

/// A domain's number in its core's table of domains.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct DomainKey(pub u32);

/// Recipients `first .. first + count` of a message, owed at one domain. A whole list at one domain is one
/// range; a single deferred recipient is one too. 24 bytes, which is all the memory that an owed recipient costs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Range {
    pub message: MessageKey,
    pub domain: DomainKey,
    /// Index of the first recipient.
    pub first: u32,
    pub count: u32,
    /// Where in the message's meta part the first recipient's name stands.
    pub name_offset: u32,
    /// Attempts that were made for all of them.
    pub attempts: u16,
    /// Why they wait: a key into their core's table of reasons, 0 if that is not known. Not on disk.
    pub reason: u16,
}

const _: () = assert!(size_of::<Range>() <= 24);
