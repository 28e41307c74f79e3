//! What follows from a verdict: a mark, another attempt, a bounce; the same for our own mail and for borrowed.

use crate::clock::Clock;
use crate::core::Core;
use crate::drive::log::{Incoming, Origin};
use crate::drive::share::is_borrowed;
use crate::observe::Line;
use bytes::Bytes;
use message::dsn::{FailedRecipient, Notification};
use message::{
    BodyKind, ContentFacts, Envelope, Mailbox, MailboxRef, RecipientIndex, Recipients, ReversePath,
    UnixMillis, Verdict,
};
use queue::Range;
use queue::bounce::{Bounce, Failure};
use queue::fanout::{Letter, OpenRange};
use queue::journal::{Mark, Span, Waiting};
use queue::log::record;
use queue::schedule::Next;
use ring::Ring;
use std::sync::Arc;

/// A failed recipient is tried for another bounce after this long, if the log could not take the first.
const BOUNCE_AGAIN_SECS: u64 = 60;

/// A recipient that failed and is owed until its bounce is durable.
#[derive(Debug)]
pub(crate) struct Failing {
    pub(crate) range: Range,
}

impl<R: Ring, C: Clock> Core<R, C> {
    /// The end of one attempt for one recipient (`range` has count 1).
    pub(crate) fn conclude(
        &mut self,
        letter: &Arc<Letter>,
        range: Range,
        local_part: &Bytes,
        host: &str,
        verdict: Verdict,
    ) {
        let verdict = self.harden(letter, &range, verdict);
        self.log_verdict(letter, &range, local_part, host, &verdict);
        match verdict {
            Verdict::Delivered(_) => {
                self.counters.delivered.add(1);
                self.settle(range);
            }
            Verdict::Deferred(reply) => {
                self.counters.deferred.add(1);
                let reason = self.steering.reasons.key(&reply);
                let attempts = range.attempts.saturating_add(1);
                let due = match self.settings.retry.next(letter.arrived, attempts, self.wall) {
                    Next::Retry { due } => due,
                    Next::GiveUp => self.wall,
                };
                self.defer(Range { attempts, reason, ..range }, due);
            }
            Verdict::Failed(reply) => {
                self.counters.failed.add(1);
                let domain = Arc::clone(&self.domains.get(range.domain).name);
                let recipient = format!("{}@{domain}", text(local_part));
                let remote_host = (!host.is_empty()).then(|| host.to_owned());
                self.fail(letter, range, &FailedRecipient { recipient, remote_host, reply });
            }
        }
    }

    /// A soft failure past the lifetime is a hard one.
    fn harden(&self, letter: &Letter, range: &Range, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::Deferred(reply)
                if self.settings.retry.next(letter.arrived, range.attempts.saturating_add(1), self.wall)
                    == Next::GiveUp =>
            {
                Verdict::Failed(reply)
            }
            verdict => verdict,
        }
    }

    /// The same verdict for a whole range: its domain or site has nobody to ask.
    pub(crate) fn conclude_range(&mut self, range: Range, verdict: Verdict) {
        // Soft, and nothing else to say about each: the range waits as one.
        let arrived = self.arrived_of(&range);
        let attempts = range.attempts.saturating_add(1);
        if let (Verdict::Deferred(reply), Next::Retry { due }) =
            (&verdict, self.settings.retry.next(arrived, attempts, self.wall))
        {
            self.counters.deferred.add(u64::from(range.count));
            let reason = self.steering.reasons.key(reply);
            self.log_range(range, &verdict);
            return self.defer(Range { attempts, reason, ..range }, due);
        }
        match self.open_now(range) {
            Some(open) => self.conclude_open(open, &verdict),
            None => self.load_to_conclude(range, verdict),
        }
    }

    /// As [`Core::conclude_range`], with the names at hand.
    pub(crate) fn conclude_open(&mut self, mut open: OpenRange, verdict: &Verdict) {
        let range = open.range();
        let letter = Arc::clone(open.letter());
        while let Some(name) = open.next_name() {
            let one = Range { first: name.index, count: 1, name_offset: name.offset, ..range };
            self.conclude(&letter, one, &name.slice(open.window()), "", verdict.clone());
        }
        let left = open.range();
        if left.count > 0 {
            self.conclude_range(left, verdict.clone());
        }
    }

    fn arrived_of(&self, range: &Range) -> UnixMillis {
        self.shares.letter(range.message).map_or_else(|| self.arrived(range.message), |letter| letter.arrived)
    }

    fn schedule_or_return(&mut self, range: Range, due: UnixMillis) {
        if is_borrowed(range.message) { self.defer(range, due) } else { self.schedule.push(range, due) }
    }

    /// One recipient is delivered, or failed with its bounce durable.
    pub(crate) fn settle(&mut self, range: Range) {
        self.domains.settle(range.domain, 1);
        if is_borrowed(range.message) {
            let id = self.shares.settle(range);
            return self.mark_settled(id, range.first);
        }
        let Some(id) = self.store.get(range.message).map(|queued| queued.id) else { return };
        self.mark_settled(id, range.first);
        self.settle_own(range, 1);
    }

    /// `count` recipients of the range's message are settled and marked.
    pub(crate) fn settle_own(&mut self, range: Range, count: u32) {
        if let Some(id) = self.store.settle(range.message, count) {
            self.letters.remove(range.message);
            self.journal.end_message(id);
        }
    }

    /// The range waits until `due`; `range.attempts` counts what was made.
    pub(crate) fn defer(&mut self, range: Range, due: UnixMillis) {
        if is_borrowed(range.message) {
            self.domains.settle(range.domain, range.count);
            let waiting = self.shares.defer(range, due);
            return self.mark(&Mark::Deferred(waiting));
        }
        if self.mark_waiting(&range, due) {
            self.schedule.push(range, due);
        }
    }

    /// Marks since when, or until when, a range of ours waits. False if its message has ended.
    pub(crate) fn mark_waiting(&mut self, range: &Range, due: UnixMillis) -> bool {
        let Some(id) = self.store.get(range.message).map(|queued| queued.id) else { return false };
        let span = Span { id, first: range.first, count: range.count };
        let Range { name_offset, attempts, .. } = *range;
        self.mark(&Mark::Deferred(Waiting { span, name_offset, attempts, due }));
        true
    }

    // ---- bounces ----

    /// Nobody is told about mail without a sender; else the sender is, and only then the recipient is settled.
    fn fail(&mut self, letter: &Arc<Letter>, range: Range, failed: &FailedRecipient) {
        if letter.reverse_path == ReversePath::Null {
            return self.settle(range);
        }
        let to = self.bounce_path(letter, range, &failed.recipient);
        let mark = self.failing.insert(Failing { range });
        self.bounces.push(self.now, letter, to, Failure { failed: failed.clone(), mark });
    }

    /// Where this recipient's bounce goes: to its own reverse-path, so that the sender knows whom it is about.
    fn bounce_path(&self, letter: &Letter, range: Range, recipient: &str) -> ReversePath {
        let (ReversePath::Mailbox(base), Some(verp)) = (&letter.reverse_path, letter.verp) else {
            return letter.reverse_path.clone();
        };
        let mut sender = Vec::new();
        if let Ok(recipient) = MailboxRef::parse(recipient) {
            let place = (letter.id, RecipientIndex(range.first));
            verp.render(base.as_ref(), recipient, place, &self.settings.verp_key, &mut sender);
        }
        let parsed = std::str::from_utf8(&sender).ok().and_then(|text| Mailbox::parse(text).ok());
        parsed.map_or_else(|| letter.reverse_path.clone(), ReversePath::Mailbox)
    }

    pub(crate) fn run_bounces(&mut self) {
        while let Some(bounce) = self.bounces.pop(self.now) {
            self.write_bounce(bounce);
        }
    }

    fn write_bounce(&mut self, bounce: Bounce<usize>) {
        let Bounce { letter, to, failures } = bounce;
        let marks: Vec<usize> = failures.iter().map(|failure| failure.mark).collect();
        let ReversePath::Mailbox(sender) = &to else { return self.settle_failing(&marks) };
        let failed: Vec<FailedRecipient> = failures.into_iter().map(|failure| failure.failed).collect();
        let serial = letter.id.0 ^ (marks.first().map_or(0, |mark| *mark as u64) << 1);
        let notification = Notification {
            reporting_host: &self.settings.config.host_name,
            to: &to,
            arrived: letter.arrived,
            now: self.wall,
            serial,
            failed: &failed,
            original: &letter.content,
        };
        let content = notification.render();
        let mut recipients = Recipients::new();
        recipients.push(sender.as_ref());
        let smtputf8 = sender.as_ref().needs_smtputf8();
        let facts = ContentFacts::of(&content);
        let body = if facts.has_eight_bit() { BodyKind::EightBitMime } else { BodyKind::SevenBit };
        let envelope = Envelope { reverse_path: ReversePath::Null, verp: None, body, smtputf8, recipients };
        let meta = Bytes::from(record::meta_of(&envelope));
        let incoming = Incoming { envelope, facts, content: Bytes::from(content), meta };
        match self.append(incoming, Origin::Bounce(marks.clone())) {
            Ok(()) => self.counters.bounces.add(1),
            Err(_) => self.retry_failing(marks),
        }
    }

    /// Their bounces are durable.
    pub(crate) fn settle_failing(&mut self, marks: &[usize]) {
        for mark in marks {
            if let Some(failing) = self.failing.try_remove(*mark) {
                self.settle(failing.range);
            }
        }
    }

    /// The log could not take the bounce: the recipients are still owed, and will fail again later.
    pub(crate) fn retry_failing(&mut self, marks: Vec<usize>) {
        let due = self.wall.plus_secs(BOUNCE_AGAIN_SECS);
        for mark in marks {
            if let Some(failing) = self.failing.try_remove(mark) {
                self.schedule_or_return(failing.range, due);
            }
        }
    }

    /// A line for each name that is at hand; for the rest, which is on disk, one line with `*` as its local part.
    fn log_range(&mut self, range: Range, verdict: &Verdict) {
        if self.delivery_log.wants_line().is_none() {
            return;
        }
        let Some(mut open) = self.open_now(range) else {
            let letter = self.letters.get(range.message);
            return letter.map_or((), |letter| {
                self.log_verdict(&letter, &range, &Bytes::from_static(b"*"), "", verdict)
            });
        };
        let letter = Arc::clone(open.letter());
        while let Some(name) = open.next_name() {
            let one = Range { first: name.index, count: 1, ..range };
            self.log_verdict(&letter, &one, &name.slice(open.window()), "", verdict);
        }
    }

    fn log_verdict(
        &mut self,
        letter: &Letter,
        range: &Range,
        local_part: &Bytes,
        host: &str,
        verdict: &Verdict,
    ) {
        match self.delivery_log.wants_line() {
            None => return,
            Some(false) => return self.counters.log_lines_dropped.add(1),
            Some(true) => {}
        }
        let line = Line {
            at: self.wall,
            msg: letter.id,
            index: range.first,
            local_part: text(local_part),
            domain: &self.domains.get(range.domain).name,
            host,
            attempt: range.attempts.saturating_add(1),
            verdict,
            arrived: letter.arrived,
        };
        line.render(&mut self.delivery_log.lines);
    }
}

fn text(local_part: &Bytes) -> &str {
    std::str::from_utf8(local_part).unwrap_or("?")
}
