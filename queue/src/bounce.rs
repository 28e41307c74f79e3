//! Collects recipients that failed for good, are long delayed, or were served as asked to be told, until their sender can be told.
//!
//! With VERP each recipient's notification goes to a reverse-path of its own, at once. Without, one names all that
//! met the same fate close together: it goes out when `recipients_max` have gathered or `delay` has passed since the first.
//! Of mail with the null reverse-path its sender is not told (RFC 5321 §6.1): the caller says who is instead. Bound: `recipients_max` per message at work.

use crate::fanout::Letter;
use message::dsn::{Action, ReportedRecipient};
use message::{Mailbox, MessageId};
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

/// A recipient to be told about, and the mark that is owed for it once the notification is durable.
#[derive(Clone, Debug)]
pub struct Notice<M> {
    pub reported: ReportedRecipient,
    pub mark: M,
}

/// A notification to be written: a message of our own to `to`.
#[derive(Debug)]
pub struct Bounce<M> {
    pub letter: Arc<Letter>,
    pub to: Mailbox,
    pub action: Action,
    pub notices: Vec<Notice<M>>,
}

/// See the module. `M` is what the caller needs to settle the recipient afterwards.
#[derive(Debug)]
pub struct Bounces<M> {
    config: BounceConfig,
    gathering: HashMap<(MessageId, Action), (Instant, Bounce<M>)>,
    ready: Vec<Bounce<M>>,
    /// To be written once more, at their time.
    again: Vec<(Instant, Bounce<M>)>,
}

impl<M> Bounces<M> {
    pub fn new(config: BounceConfig) -> Bounces<M> {
        Bounces { config, gathering: HashMap::new(), ready: Vec::new(), again: Vec::new() }
    }

    /// `to` is where this recipient's notification goes.
    pub fn push(
        &mut self,
        now: Instant,
        letter: &Arc<Letter>,
        to: Mailbox,
        action: Action,
        notice: Notice<M>,
    ) {
        let letter = Arc::clone(letter);
        if letter.verp.is_some() {
            self.ready.push(Bounce { letter, to, action, notices: vec![notice] });
            return;
        }
        let key = (letter.id, action);
        let due = now + self.config.delay;
        let begin = || (due, Bounce { letter, to, action, notices: Vec::new() });
        let (_, bounce) = self.gathering.entry(key).or_insert_with(begin);
        bounce.notices.push(notice);
        if bounce.notices.len() >= self.config.recipients_max {
            self.ready.extend(self.gathering.remove(&key).map(|(_, bounce)| bounce));
        }
    }

    /// It could not be written and is to be tried again at `due`. The caller bounds how many those are.
    pub fn put_back(&mut self, due: Instant, bounce: Bounce<M>) {
        self.again.push((due, bounce));
    }

    /// A bounce whose time has come.
    pub fn pop(&mut self, now: Instant) -> Option<Bounce<M>> {
        if self.ready.is_empty() {
            let due = self.gathering.extract_if(|_, (due, _)| *due <= now).map(|(_, (_, bounce))| bounce);
            self.ready.extend(due);
            self.ready.extend(self.again.extract_if(.., |(due, _)| *due <= now).map(|(_, bounce)| bounce));
            // Not in the order of a hash table: two runs from one seed must do the same.
            self.ready.sort_by_key(|bounce| std::cmp::Reverse((bounce.letter.id, bounce.action)));
        }
        self.ready.pop()
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let again = self.again.iter().map(|(due, _)| *due);
        self.gathering.values().map(|(due, _)| *due).chain(again).min()
    }

    pub fn is_empty(&self) -> bool {
        self.gathering.is_empty() && self.ready.is_empty() && self.again.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use message::{ContentFacts, Reply, ReversePath, UnixMillis, Verp};

    fn letter(verp: Option<Verp>) -> Arc<Letter> {
        let content = (Bytes::new(), ContentFacts::default());
        Arc::new(Letter::new(
            (MessageId(1), UnixMillis(0)),
            (ReversePath::Null, verp),
            content,
            crate::fanout::Handling::default(),
        ))
    }

    fn to() -> Mailbox {
        Mailbox::parse("list@example.org").unwrap()
    }

    fn notice(mark: u32) -> Notice<u32> {
        let reply = Reply::ours(550, (5, 1, 1), "no");
        let reported =
            ReportedRecipient { recipient: "a@b.test".into(), original: None, remote_host: None, reply };
        Notice { reported, mark }
    }

    #[test]
    fn verp_bounces_go_out_one_by_one_at_once() {
        let (mut bounces, now) = (Bounces::new(BounceConfig::default()), Instant::now());
        bounces.push(now, &letter(Some(Verp::DEFAULT)), to(), Action::Failed, notice(1));
        bounces.push(now, &letter(Some(Verp::DEFAULT)), to(), Action::Failed, notice(2));
        assert_eq!(
            (bounces.pop(now).unwrap().notices.len(), bounces.pop(now).unwrap().notices.len()),
            (1, 1)
        );
        assert!(bounces.is_empty());
    }

    #[test]
    fn what_could_not_be_written_comes_again_at_its_time() {
        let (mut bounces, now) = (Bounces::new(BounceConfig::default()), Instant::now());
        bounces.push(now, &letter(Some(Verp::DEFAULT)), to(), Action::Relayed, notice(1));
        let (bounce, later) = (bounces.pop(now).unwrap(), now + Duration::from_secs(60));
        bounces.put_back(later, bounce);
        assert!(bounces.pop(now).is_none() && !bounces.is_empty());
        assert_eq!(bounces.poll_timeout(), Some(later));
        assert_eq!(bounces.pop(later).unwrap().notices[0].mark, 1);
        assert!(bounces.is_empty());
    }

    #[test]
    fn other_bounces_wait_for_company() {
        let (mut bounces, now) =
            (Bounces::new(BounceConfig { recipients_max: 3, delay: Duration::from_secs(1) }), Instant::now());
        bounces.push(now, &letter(None), to(), Action::Failed, notice(1));
        assert!(bounces.pop(now).is_none());
        assert_eq!(bounces.poll_timeout(), Some(now + Duration::from_secs(1)));
        bounces.push(now, &letter(None), to(), Action::Failed, notice(2));
        bounces.push(now, &letter(None), to(), Action::Failed, notice(3));
        assert_eq!(bounces.pop(now).unwrap().notices.len(), 3);
        bounces.push(now, &letter(None), to(), Action::Failed, notice(4));
        assert_eq!(bounces.pop(now + Duration::from_secs(1)).unwrap().notices.len(), 1);
    }

    #[test]
    fn warnings_and_bounces_of_one_message_are_two_letters() {
        let (mut bounces, now) = (Bounces::new(BounceConfig::default()), Instant::now());
        let delayed = Action::Delayed { until: UnixMillis(9) };
        bounces.push(now, &letter(None), to(), Action::Failed, notice(1));
        bounces.push(now, &letter(None), to(), delayed, notice(2));
        bounces.push(now, &letter(None), to(), delayed, notice(3));
        let later = now + Duration::from_secs(1);
        let mut next = || bounces.pop(later).map(|bounce| (bounce.action, bounce.notices.len()));
        assert_eq!((next(), next(), next()), (Some((Action::Failed, 1)), Some((delayed, 2)), None));
    }
}
