//! Replies in the order of their commands, although stores end later and in any order.
//!
//! A message's reply is a gap until its store ended; what was said after it waits behind the gap.
//! Bound: the session reads no further while `len` or `gap_count` is at its limit.

use crate::output::{Stored, TransactionKey};
use crate::replies::{self, No, Sentence};
use std::collections::VecDeque;

/// Room that is kept between two batches of replies.
const READY_KEEP_MAX: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct ReplyQueue {
    /// May be sent.
    ready: Vec<u8>,
    /// In order. The first has no outcome, or it would not be here any more.
    gaps: VecDeque<Gap>,
}

/// The place of a message's reply.
#[derive(Debug)]
struct Gap {
    transaction: TransactionKey,
    /// It asked for a higher priority than it gets.
    is_lowered: bool,
    outcome: Option<Stored>,
    /// Said after it and before the next gap.
    behind: Vec<u8>,
}

impl ReplyQueue {
    /// Where the next reply goes.
    pub(crate) fn tail(&mut self) -> &mut Vec<u8> {
        match self.gaps.back_mut() {
            Some(gap) => &mut gap.behind,
            None => &mut self.ready,
        }
    }

    pub(crate) fn say(&mut self, sentence: Sentence) {
        sentence.write(self.tail());
    }

    /// Keeps a place for the reply to a message whose store begins.
    pub(crate) fn hold(&mut self, transaction: TransactionKey, is_lowered: bool) {
        self.gaps.push_back(Gap { transaction, is_lowered, outcome: None, behind: Vec::new() });
    }

    /// Fills the gap of `transaction` and frees what waited for it. A key that waits for nothing changes nothing.
    pub(crate) fn fill(&mut self, transaction: TransactionKey, outcome: Stored) {
        let gap = self.gaps.iter_mut().find(|gap| gap.transaction == transaction && gap.outcome.is_none());
        debug_assert!(gap.is_some(), "{transaction:?} is not in flight");
        if let Some(gap) = gap {
            gap.outcome = Some(outcome);
        }
        while let Some(gap) = self.gaps.pop_front_if(|gap| gap.outcome.is_some()) {
            let Gap { outcome, is_lowered, behind, .. } = gap;
            outcome.into_iter().for_each(|outcome| outcome_reply(&outcome, is_lowered, &mut self.ready));
            self.ready.extend(behind);
        }
    }

    /// Hands over what may be sent.
    pub(crate) fn take(&mut self, put: impl FnOnce(&[u8])) {
        if !self.ready.is_empty() {
            put(&self.ready);
            self.ready.clear();
        }
        if self.ready.capacity() > READY_KEEP_MAX {
            self.ready = Vec::new();
        }
    }

    /// Gives up the room that nothing stands in.
    pub(crate) fn shrink(&mut self) {
        self.ready.shrink_to_fit();
        self.gaps.shrink_to_fit();
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.ready.capacity() + self.gaps.capacity()
    }

    /// Octets that nobody took yet.
    pub(crate) fn len(&self) -> usize {
        self.ready.len() + self.gaps.iter().map(|gap| gap.behind.len()).sum::<usize>()
    }

    /// Messages whose reply waits for their own store or for one before it.
    pub(crate) fn gap_count(&self) -> usize {
        self.gaps.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.gaps.is_empty()
    }
}

fn outcome_reply(outcome: &Stored, is_lowered: bool, out: &mut Vec<u8>) {
    match outcome {
        Stored::Accepted(id) if is_lowered => replies::queued_at_normal_priority(*id, out),
        Stored::Accepted(id) => replies::queued(*id, out),
        Stored::Refused(refusal) => No::Theirs(refusal.clone()).write(out),
        Stored::Full => replies::QUEUE_FULL.write(out),
        Stored::Failed => replies::QUEUE_BROKEN.write(out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use message::MessageId;

    fn taken(queue: &mut ReplyQueue) -> String {
        let mut out = Vec::new();
        queue.take(|plain| out.extend_from_slice(plain));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn replies_wait_for_the_store_before_them() {
        let mut queue = ReplyQueue::default();
        queue.hold(TransactionKey(0), false);
        queue.say(replies::SENDER_OK);
        queue.hold(TransactionKey(1), false);
        queue.say(replies::BYE);
        assert_eq!(taken(&mut queue), "");
        queue.fill(TransactionKey(1), Stored::Full);
        assert_eq!((taken(&mut queue).as_str(), queue.gap_count()), ("", 2));
        queue.fill(TransactionKey(0), Stored::Accepted(MessageId(10)));
        let expected = "250 2.0.0 Ok: queued as 000000000000000a\r\n250 2.1.0 Ok\r\n\
                        452 4.3.1 Queue is full, try later\r\n221 2.0.0 Bye\r\n";
        assert_eq!(taken(&mut queue), expected);
        assert!(queue.is_empty());
    }

    #[test]
    fn message_that_got_less_than_it_asked_for_hears_so_when_it_is_taken() {
        let mut queue = ReplyQueue::default();
        queue.hold(TransactionKey(0), true);
        queue.fill(TransactionKey(0), Stored::Accepted(MessageId(10)));
        assert!(taken(&mut queue).starts_with("250 2.3.6 0 "));
    }

    #[test]
    fn taken_replies_leave_little_memory_behind() {
        let mut queue = ReplyQueue::default();
        for _ in 0..1000 {
            queue.say(replies::RECIPIENT_OK);
        }
        assert_eq!(taken(&mut queue).len(), 14_000);
        assert!(queue.ready.capacity() <= READY_KEEP_MAX);
        queue.say(replies::RECIPIENT_OK);
        queue.take(|_| {});
        queue.shrink();
        assert_eq!(queue.capacity(), 0);
    }
}
