//! What follows from a verdict: a mark, another attempt, word to somebody (`notices`); the same for our own mail and for borrowed.

use crate::campaigns::Outcome;
use crate::clock::Clock;
use crate::core::Core;
use crate::domains::Routed;
use crate::drive::expiry::delay_wanted;
use crate::drive::log::Record;
use crate::drive::share::is_borrowed;
use crate::events::{About, Event};
use crate::observe::Via;
use crate::steer::reason::RETURNED;
use crate::suppression::{Screened, Who};
use message::dsn::ReportedRecipient;
use message::{FailureClass, MailboxRef, MessageId, Reply, UnixMillis, Verdict, Wanted};
use queue::Range;
use queue::fanout::{Addressee, Letter, OpenRange};
use queue::journal::{Mark, Span, Waiting};
use queue::schedule::{Next, Tried};
use ring::Ring;
use std::sync::Arc;

impl<R: Ring, C: Clock> Core<R, C> {
    /// The end of one attempt for one recipient (`range` has count 1).
    pub(crate) fn conclude(
        &mut self,
        letter: &Arc<Letter>,
        range: Range,
        to: &Addressee,
        via: Via<'_>,
        verdict: Verdict,
    ) {
        let hardened = self.harden(letter, verdict);
        let host = via.host;
        self.log_verdict(letter, &range, to.local_part(), via, &hardened);
        let verdict = hardened.verdict;
        self.tally(letter.class.campaign, outcome_of(&verdict), 1);
        match verdict {
            Verdict::Delivered(reply) => {
                self.counters.delivered.add(1);
                match via.success.filter(|_| to.asked().notify.wants_success()) {
                    None => self.settle(range),
                    Some(action) => {
                        let reported = self.reported(&range, to, host, reply);
                        self.succeed(letter, range, action, reported);
                    }
                }
            }
            Verdict::Deferred(reply) => {
                self.counters.deferred.add(1);
                let reason = self.steering.reasons.key(&reply);
                let range = Range { attempts: range.attempts.plus_one(), reason, ..range };
                let due = match self.next_attempt(letter.id, letter.arrived, &range) {
                    Next::Retry { due } => due,
                    Next::GiveUp => self.wall,
                };
                let wanted = to.asked().notify.delay();
                if !self.settings.retry.wants_warning(letter.arrived, range.attempts, self.wall, wanted) {
                    return self.defer(range, due);
                }
                let reported = self.reported(&range, to, host, reply);
                self.warn(letter, range, due, reported);
            }
            Verdict::Failed(reply) => {
                self.counters.failed.add(1);
                let unknown = if via.is_hard { self.who(to, &range) } else { None };
                self.end_failed(letter, range, to, host, unknown, reply);
            }
        }
    }

    /// The end of a connection that its client made, while the recipient was in flight on it: no attempt, it waits as it did.
    pub(crate) fn wait_on(
        &mut self,
        letter: &Letter,
        range: Range,
        to: &Addressee,
        via: Via<'_>,
        verdict: Verdict,
    ) {
        let as_it_is = Hardened { verdict, is_expired: false };
        self.log_verdict(letter, &range, to.local_part(), via, &as_it_is);
        self.counters.deferred.add(1);
        self.put_back_to_wait(range);
    }

    /// The recipient failed for good, and its sender hears of it if that is wanted.
    fn end_failed(
        &mut self,
        letter: &Arc<Letter>,
        range: Range,
        to: &Addressee,
        host: &str,
        unknown: Option<Box<Who>>,
        reply: Reply,
    ) {
        // A bounce says NEVER, which is about its sender: who looks after lost bounces is told all the same.
        let has_sender = letter.reverse_path.mailbox().is_some();
        if has_sender && !to.asked().notify.wants_failure() {
            return self.settle_unknown(range, unknown);
        }
        let reported = self.reported(&range, to, host, reply);
        self.fail(letter, range, unknown, reported);
    }

    /// What follows if the attempt that `range.attempts` counts failed softly just now.
    fn next_attempt(&self, message: MessageId, born: UnixMillis, range: &Range) -> Next {
        let tried = Tried { message, first: range.first, born, attempts: range.attempts };
        self.settings.retry.next(&tried, self.wall)
    }

    fn reported(&self, range: &Range, to: &Addressee, host: &str, reply: Reply) -> ReportedRecipient {
        let recipient = format!("{}@{}", to.local_part(), self.domains.get(range.domain).name);
        let original = to.asked().original.map(|original| original.decoded().into());
        let remote_host = (!host.is_empty()).then(|| host.to_owned());
        ReportedRecipient { recipient, original, remote_host, reply }
    }

    /// A soft failure past the lifetime is a hard one.
    fn harden(&self, letter: &Letter, verdict: Verdict) -> Hardened {
        match verdict {
            Verdict::Deferred(reply) if self.settings.retry.is_over(letter.arrived, self.wall) => {
                Hardened { verdict: Verdict::Failed(reply), is_expired: true }
            }
            verdict => Hardened { verdict, is_expired: false },
        }
    }

    /// The same verdict for a whole range: its domain or site has nobody to ask.
    pub(crate) fn conclude_range(&mut self, range: Range, verdict: Verdict) {
        // Soft, and nothing to say to anybody: the range waits as one.
        let (id, arrived) = self.origin_of(&range);
        let tried = Range { attempts: range.attempts.plus_one(), ..range };
        if let (Verdict::Deferred(reply), Next::Retry { due }) =
            (&verdict, self.next_attempt(id, arrived, &tried))
            && !self.settings.retry.wants_warning(
                arrived,
                tried.attempts,
                self.wall,
                self.delay_wanted(&range),
            )
        {
            self.counters.deferred.add(u64::from(range.count));
            let reason = self.steering.reasons.key(reply);
            self.log_range(range, &verdict);
            return self.defer(Range { reason, ..tried }, due);
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
        let goes_on = matches!(verdict, Verdict::Deferred(_))
            && !self.settings.retry.is_over(letter.arrived, self.wall);
        if letter.reverse_path.mailbox().is_none() && goes_on {
            // Nobody is to be warned, now or later: it can wait as one after all.
            let attempts = range.attempts.warned();
            return self.conclude_range(Range { attempts, ..range }, verdict.clone());
        }
        loop {
            if letter.asked.is_some()
                && goes_on
                && let Some(quiet) = self.split_unwarned(&mut open)
            {
                let attempts = quiet.attempts.warned();
                self.conclude_range(Range { attempts, ..quiet }, verdict.clone());
            }
            let Some(name) = open.next_name() else { break };
            let one = Range { first: name.index, count: 1, name_offset: name.offset, ..range };
            let local_part = name.text(open.window());
            let to = MailboxRef { local_part, domain: &self.domains.get(range.domain).name };
            if let Screened::Listed(listed) = self.suppressing.look(&self.settings.suppression, &letter, to) {
                self.end_listed(&letter, one, local_part, listed);
                continue;
            }
            self.conclude(&letter, one, &name.addressee(open.window()), Via::default(), verdict.clone());
        }
        let left = open.range();
        if left.count > 0 {
            self.conclude_range(left, verdict.clone());
        }
    }

    /// Takes off the front those of whose delay nobody is to be told: they can wait as one.
    fn split_unwarned(&self, open: &mut OpenRange) -> Option<Range> {
        let mut ahead = open.clone();
        let is_quiet = |wanted| self.settings.retry.warn_after(wanted).is_none();
        let names = std::iter::from_fn(|| ahead.next_name());
        let quiet = names.take_while(|name| is_quiet(name.asked(open.window()).notify.delay())).count();
        let part = open.split(u32::try_from(quiet).ok().filter(|count| *count > 0)?)?;
        Some(part.range())
    }

    fn delay_wanted(&self, range: &Range) -> Wanted {
        delay_wanted(&self.store, &self.shares, range)
    }

    /// The range's message, and when it came, whoever owns it.
    fn origin_of(&self, range: &Range) -> (MessageId, UnixMillis) {
        let queued = || self.store.get(range.message).map(|queued| (queued.id, queued.arrived()));
        let borrowed = self.shares.letter(range.message).map(|letter| (letter.id, letter.arrived));
        borrowed.or_else(queued).unwrap_or((MessageId(0), self.wall))
    }

    pub(crate) fn schedule_or_return(&mut self, range: Range, due: UnixMillis) {
        if is_borrowed(range.message) { self.defer(range, due) } else { self.schedule.push(range, due) }
    }

    /// One recipient is delivered, or failed with its bounce durable.
    pub(crate) fn settle(&mut self, range: Range) {
        self.settle_domain(range.domain, 1);
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
        if let Some(ended) = self.store.settle(range.message, count) {
            self.letters.remove(range.message);
            self.journal.end_record(Record::of(&ended));
        }
    }

    /// The range waits until `due`; `range.attempts` counts what was made.
    pub(crate) fn defer(&mut self, range: Range, due: UnixMillis) {
        if is_borrowed(range.message) {
            self.settle_domain(range.domain, range.count);
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

    /// An event for each name that is at hand; for the rest, which is on disk, one with `*` as its local part.
    fn log_range(&mut self, range: Range, verdict: &Verdict) {
        if !self.wants_events() {
            return;
        }
        let soft = Hardened { verdict: verdict.clone(), is_expired: false };
        let Some(mut open) = self.open_now(range) else {
            let letter = self.letters.get(range.message);
            return letter.map_or((), |letter| {
                self.log_verdict(&letter, &range, Addressee::ANY.local_part(), Via::default(), &soft);
            });
        };
        let letter = Arc::clone(open.letter());
        while let Some(name) = open.next_name() {
            let one = Range { first: name.index, count: 1, ..range };
            self.log_verdict(&letter, &one, name.text(open.window()), Via::default(), &soft);
        }
    }

    fn log_verdict(
        &mut self,
        letter: &Letter,
        range: &Range,
        local_part: &str,
        via: Via<'_>,
        hardened: &Hardened,
    ) {
        if !self.wants_events() {
            return;
        }
        let Hardened { verdict, is_expired } = hardened;
        let domain = self.domains.get(range.domain);
        let site = if let Routed::Way(way) = domain.routed { &*self.ways.get(way).site } else { "" };
        let about = About {
            letter,
            tenant_field: &self.settings.config.lanes.tenant_field,
            range,
            recipient: MailboxRef { local_part, domain: &domain.name },
            now: self.wall,
        };
        let event = Event::of_attempt(about, via, verdict);
        let class = match event.class {
            Some(_) if *is_expired => Some(FailureClass::Expired),
            Some(_) if range.reason == RETURNED => Some(FailureClass::Operator),
            class => class,
        };
        let event = Event { site, class, ..event };
        self.events.log(&event, self.wall, &self.counters);
        self.delivery_log.log(&event, self.wall, &self.counters);
        self.put_full_events();
    }

    /// No attempt was made: the recipient is on the suppression list.
    pub(crate) fn log_suppressed(&mut self, letter: &Letter, range: &Range, local_part: &str, reply: Reply) {
        self.tally(letter.class.campaign, Outcome::Suppressed, range.count);
        if !self.wants_events() {
            return;
        }
        let domain = self.domains.get(range.domain);
        let about = About {
            letter,
            tenant_field: &self.settings.config.lanes.tenant_field,
            range,
            recipient: MailboxRef { local_part, domain: &domain.name },
            now: self.wall,
        };
        let event = Event::suppressed(about, &reply);
        self.events.log(&event, self.wall, &self.counters);
        self.delivery_log.log(&event, self.wall, &self.counters);
        self.put_full_events();
    }
}

/// A verdict, and whether the lifetime alone made it one for ever.
struct Hardened {
    verdict: Verdict,
    is_expired: bool,
}

fn outcome_of(verdict: &Verdict) -> Outcome {
    match verdict {
        Verdict::Delivered(_) => Outcome::Delivered,
        Verdict::Deferred(_) => Outcome::Deferred,
        Verdict::Failed(_) => Outcome::Failed,
    }
}
