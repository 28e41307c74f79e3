//! What became of one recipient in one attempt, and how far that reaches.

use crate::reply::Reply;

/// The outcome of one attempt for one recipient. A 4xx or 5xx is what a peer may say, hence no `Err`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    Delivered(Reply),
    /// Try again later (RFC 5321 §4.2.1: 4yz).
    Deferred(Reply),
    /// Never again: the sender is told.
    Failed(Reply),
}

impl Verdict {
    pub fn reply(&self) -> &Reply {
        match self {
            Verdict::Delivered(reply) | Verdict::Deferred(reply) | Verdict::Failed(reply) => reply,
        }
    }

    /// As the delivery log names it.
    pub fn name(&self) -> &'static str {
        match self {
            Verdict::Delivered(_) => "delivered",
            Verdict::Deferred(_) => "deferred",
            Verdict::Failed(_) => "failed",
        }
    }
}

/// How far a verdict reaches: whom the schedule holds back besides this recipient.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// This recipient alone.
    Recipient,
    /// Every recipient of this message at this site.
    Message,
    /// Whatever would go to this address; another host of the site may do better.
    Host,
    /// Whatever would go to this site.
    Site,
}
