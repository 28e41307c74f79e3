//! Messages that programs bring over HTTP: put together on the API's thread, taken into the log here.
//!
//! Bound: each is a request that waits for its answer, and the API bounds those.

use crate::clock::Clock;
use crate::core::{Core, Stop};
use crate::drive::log::{Incoming, Origin};
use bytes::Bytes;
use message::MessageId;
use ring::Ring;
use slab::Slab;
use smtp_in::{Gate, Stored};
use tokio::sync::oneshot;

/// What became of a message.
pub(crate) type Outcome = Result<MessageId, Stored>;

/// A message on its way from a request into a core's log.
#[derive(Debug)]
pub struct Injected {
    pub(crate) incoming: Incoming,
    pub(crate) waiting: Waiting,
}

/// The request that waits for it. One that is dropped was not taken.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) reply: oneshot::Sender<Outcome>,
    /// Octets that we put on top of its content.
    pub(crate) fields_len: u32,
}

/// A core's requests whose message is on its way to the disk.
#[derive(Debug, Default)]
pub(crate) struct Requests(Slab<Waiting>);

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestKey(usize);

impl<R: Ring, C: Clock> Core<R, C> {
    /// Answered when the commit that it is in is durable, at once if it is not taken.
    pub(crate) fn inject(&mut self, injected: Injected) {
        let Injected { incoming, waiting } = injected;
        let key = RequestKey(self.requests.0.insert(waiting));
        if let Err(outcome) = self.take_injected(incoming, key) {
            self.answer_request(key, Err(outcome));
        }
    }

    fn take_injected(&mut self, incoming: Incoming, key: RequestKey) -> Result<(), Stored> {
        match self.gate() {
            _ if self.stop != Stop::Running => return Err(Stored::Failed),
            Gate::Broken => return Err(Stored::Failed),
            Gate::Full => return Err(Stored::Full),
            Gate::Open => {}
        }
        let letter = self.content_of_campaign(incoming.class.campaign, Bytes::clone(&incoming.content));
        self.archive(&incoming.envelope, incoming.facts, &letter)?;
        self.append(incoming, Origin::Request(key))
    }

    /// Octets on top of the content that are ours and not the client's.
    pub(crate) fn fields_len_of(&self, key: RequestKey) -> u32 {
        self.requests.0.get(key.0).map_or(0, |waiting| waiting.fields_len)
    }

    /// Nobody may be there any more to hear it.
    pub(crate) fn answer_request(&mut self, key: RequestKey, outcome: Outcome) {
        if let Some(waiting) = self.requests.0.try_remove(key.0) {
            let _ = waiting.reply.send(outcome);
        }
    }
}
