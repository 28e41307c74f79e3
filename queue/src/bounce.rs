//! Collects recipients that failed for good until their sender can be told.
//!
//! With VERP each recipient's bounce goes to a reverse-path of its own, at once. Without, one notification names all
//! that failed close together: it goes out when `recipients_max` have gathered or `delay` has passed since the first.
//! Nobody is told about mail with the null reverse-path (RFC 5321 §6.1). Bound: `recipients_max` per message at work.

use crate::fanout::Letter;
use message::dsn::FailedRecipient;
use message::{MessageId, ReversePath};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How failures are gathered.
#[derive(Clone, Copy, Debug)]
pub struct BounceConfig {
    pub recipients_max: usize,
    pub delay: Duration,
}

impl Default for BounceConfig {
    fn default() -> BounceConfig {
        BounceConfig { recipients_max: 100, delay: Duration::from_secs(1) }
    }
}

/// A recipient that failed, and the mark that is owed for it once its bounce is durable.
#[derive(Clone, Debug)]
pub struct Failure<M> {
    pub failed: FailedRecipient,
    pub mark: M,
}

/// A bounce to be written: a message of our own to `to`.
#[derive(Debug)]
pub struct Bounce<M> {
    pub letter: Arc<Letter>,
    pub to: ReversePath,
    pub failures: Vec<Failure<M>>,
}

/// See the module. `M` is what the caller needs to settle the recipient afterwards.
#[derive(Debug)]
pub struct Bounces<M> {
    config: BounceConfig,
    gathering: HashMap<MessageId, (Instant, Bounce<M>)>,
    ready: Vec<Bounce<M>>,
}

impl<M> Bounces<M> {
    pub fn new(config: BounceConfig) -> Bounces<M> {
        Bounces { config, gathering: HashMap::new(), ready: Vec::new() }
    }

    /// `to` is where this recipient's bounce goes: its VERP reverse-path, or the message's.
    pub fn push(&mut self, now: Instant, letter: &Arc<Letter>, to: ReversePath, failure: Failure<M>) {
        let letter = Arc::clone(letter);
        if letter.verp.is_some() {
            self.ready.push(Bounce { letter, to, failures: vec![failure] });
            return;
        }
        let id = letter.id;
        let due = now + self.config.delay;
        let (_, bounce) =
            self.gathering.entry(id).or_insert_with(|| (due, Bounce { letter, to, failures: Vec::new() }));
        bounce.failures.push(failure);
        if bounce.failures.len() >= self.config.recipients_max {
            self.ready.extend(self.gathering.remove(&id).map(|(_, bounce)| bounce));
        }
    }

    /// A bounce whose time has come.
    pub fn pop(&mut self, now: Instant) -> Option<Bounce<M>> {
        if self.ready.is_empty() {
            let due = self.gathering.extract_if(|_, (due, _)| *due <= now).map(|(_, (_, bounce))| bounce);
            self.ready.extend(due);
            // Not in the order of a hash table: two runs from one seed must do the same.
            self.ready.sort_by_key(|bounce| std::cmp::Reverse(bounce.letter.id));
        }
        self.ready.pop()
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.gathering.values().map(|(due, _)| *due).min()
    }

    pub fn is_empty(&self) -> bool {
        self.gathering.is_empty() && self.ready.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use message::{ContentFacts, Reply, UnixMillis, Verp};

    fn letter(verp: Option<Verp>) -> Arc<Letter> {
        let content = (Bytes::new(), ContentFacts::default());
        Arc::new(Letter::new(
            (MessageId(1), UnixMillis(0)),
            (ReversePath::Null, verp),
            content,
            (false, message::Lane::Normal),
        ))
    }

    fn failure(mark: u32) -> Failure<u32> {
        let reply = Reply::ours(550, (5, 1, 1), "no");
        Failure { failed: FailedRecipient { recipient: "a@b.test".into(), remote_host: None, reply }, mark }
    }

    #[test]
    fn verp_bounces_go_out_one_by_one_at_once() {
        let (mut bounces, now) = (Bounces::new(BounceConfig::default()), Instant::now());
        bounces.push(now, &letter(Some(Verp::DEFAULT)), ReversePath::Null, failure(1));
        bounces.push(now, &letter(Some(Verp::DEFAULT)), ReversePath::Null, failure(2));
        assert_eq!(
            (bounces.pop(now).unwrap().failures.len(), bounces.pop(now).unwrap().failures.len()),
            (1, 1)
        );
        assert!(bounces.is_empty());
    }

    #[test]
    fn other_bounces_wait_for_company() {
        let (mut bounces, now) =
            (Bounces::new(BounceConfig { recipients_max: 3, delay: Duration::from_secs(1) }), Instant::now());
        bounces.push(now, &letter(None), ReversePath::Null, failure(1));
        assert!(bounces.pop(now).is_none());
        assert_eq!(bounces.poll_timeout(), Some(now + Duration::from_secs(1)));
        bounces.push(now, &letter(None), ReversePath::Null, failure(2));
        bounces.push(now, &letter(None), ReversePath::Null, failure(3));
        assert_eq!(bounces.pop(now).unwrap().failures.len(), 3);
        bounces.push(now, &letter(None), ReversePath::Null, failure(4));
        assert_eq!(bounces.pop(now + Duration::from_secs(1)).unwrap().failures.len(), 1);
    }
}
