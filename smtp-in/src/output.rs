//! What a session gives the engine to do, and what the engine answers.

use message::{ContentFacts, Envelope, MessageId};

/// Names a message until its store ended. Unique in its session.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct TransactionKey(pub u32);

/// What became of a store.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stored {
    /// Durable under this id; only now `250` is true.
    Accepted(MessageId),
    Full,
    Failed,
}

/// What the engine has to do.
#[derive(Debug)]
pub enum Output {
    /// Make this message durable, then call [`Session::handle_stored`].
    Store(Box<Submission>),
    /// Try what waits for this domain now (RFC 1985). The client was told that it begins; nothing is to be answered.
    Flush(Flush),
    /// Comes once, after the last reply was taken: send what was taken, then close.
    Close,
}

/// What ETRN asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Flush {
    /// In lower case.
    pub domain: Box<str>,
    /// And every domain below it.
    pub with_subdomains: bool,
}

/// A message as it came.
#[derive(Debug)]
pub struct Submission {
    pub transaction: TransactionKey,
    pub envelope: Envelope,
    pub content: Vec<u8>,
    pub facts: ContentFacts,
    /// What the client called itself: one printable word of at most 255 octets, perhaps not ASCII.
    pub helo: String,
    /// For the `Received` field: `SMTP`, `ESMTP` or `UTF8SMTP`.
    pub with: &'static str,
}
