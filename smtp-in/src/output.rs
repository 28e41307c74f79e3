//! What a session gives the engine to do, and what the engine answers.

use crate::door::{Client, Question, Refusal};
use crate::tls::Encrypted;
use message::{ContentFacts, Envelope, MessageId};
use std::borrow::Cow;
use std::sync::Arc;

/// Names a message until its store ended. Unique in its session.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct TransactionKey(pub u32);

/// What became of a store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Stored {
    /// Durable under this id; only now `250` is true.
    Accepted(MessageId),
    Full,
    Failed,
    /// Not stored: what was found out about it is against it.
    Refused(Refusal),
}

/// What the engine has to do.
#[derive(Debug)]
pub enum Output {
    /// Make this message durable, then call [`crate::Session::handle_stored`].
    Store(Box<Submission>),
    /// Try what waits for this domain now (RFC 1985). The client was told that it begins; nothing is to be answered.
    Flush(Flush),
    /// Find this out, then call [`crate::Session::handle_answer`]. One at a time; the session reads no more until then.
    Ask(Question),
    /// The client wants the mail for these domains over this very connection (RFC 2645), in lower case; none named: for
    /// all that are its login's. As a question: answer `Turning`, `NothingWaits`, `TurnDenied` or `Unavailable`.
    Turn(Vec<Box<str>>),
    /// Instead of `Close`, once `Turning` was answered and its reply was taken: the connection is the caller's now, and
    /// octets that [`crate::Session::handle_bytes`] did not use are the other direction's. See
    /// [`crate::Session::into_tunnel`].
    HandOver,
    /// For the log. Only where [`crate::Policy::tells_rejections`]; nothing is to be answered.
    Rejected(Box<Rejection>),
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
    /// For the `Received` field: RFC 3848's and RFC 6531 §4.3's words, `SMTP` to `UTF8SMTPSA`.
    pub with: &'static str,
    /// Who sent it, as was known when its content ended.
    pub client: Arc<Client>,
    /// How its content came, if it was encrypted.
    pub encrypted: Option<Encrypted>,
}

/// What we said no to: one line of the operator's log. What the peer wrote stands in it as parsed, so without octets
/// that a terminal obeys.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rejection {
    pub stage: Stage,
    /// The reply without its line end; what was wrong, without a code, where the peer could be told nothing.
    pub reply: Cow<'static, str>,
    /// Of the open transaction, or of the MAIL that is refused.
    pub sender: Option<Box<str>>,
    /// Of the RCPT that is refused.
    pub recipient: Option<Box<str>>,
}

/// Where in a session.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Stage {
    /// Before the greeting is said.
    #[default]
    Connect,
    Handshake,
    /// Any command without a stage of its own, and what is none.
    Command,
    Auth,
    Mail,
    Rcpt,
    /// DATA, BDAT and what came by them.
    Content,
}

impl Stage {
    /// As the log has it.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Connect => "connect",
            Stage::Handshake => "handshake",
            Stage::Command => "command",
            Stage::Auth => "auth",
            Stage::Mail => "mail",
            Stage::Rcpt => "rcpt",
            Stage::Content => "content",
        }
    }
}
