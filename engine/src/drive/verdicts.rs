//! What follows from a verdict: a mark, another attempt, a bounce; the same for our own mail and for borrowed.

use crate::clock::Clock;
use crate::core::{Core, Stop};
use crate::drive::expiry::delay_wanted;
use crate::drive::log::{Incoming, Origin, Record};
use crate::drive::share::is_borrowed;
use crate::observe::{Line, Via};
use crate::steer::reason::RETURNED;
use crate::suppression::{Screened, Who};
use bytes::Bytes;
use message::dsn::{Action, Notification, ReportedRecipient};
use message::{
    BodyKind, Class, ContentFacts, Envelope, Lane, MailAsked, Mailbox, MailboxRef, MessageId, Notify,
    RecipientAsked, RecipientIndex, Recipients, Reply, ReversePath, UnixMillis, Verdict, Wanted,
};
use queue::Range;
use queue::bounce::{Bounce, Notice};
use queue::fanout::{Addressee, Letter, OpenRange};
use queue::journal::{Mark, Span, Waiting};
use queue::log::record;
use queue::schedule::{Next, Tried};
use ring::Ring;
use std::sync::Arc;
use std::time::Duration;

/// A failed recipient is tried for another bounce after this long, if the log could not take the first.
const BOUNCE_AGAIN_SECS: u64 = 60;

/// Recipients that may wait for a letter to their senders while a report of success waits for the log to take it. Past
/// that, and once we stop, those who got their mail are settled without one: mail is not sent twice for a report's sake.
const REPORTS_HELD_MAX: usize = 10_000;

/// A recipient that waits for a letter to its sender to be durable.
#[derive(Debug)]
pub(crate) struct Failing {
    pub(crate) range: Range,
    then: Then,
}

/// What becomes of it afterwards.
#[derive(Debug)]
enum Then {
    /// It failed, and is owed until its bounce is durable; and, if there is no such recipient, until it is on the
    /// suppression list.
    Settle { unknown: Option<Box<Who>> },
    /// It has its mail, and is owed until the report of that is durable.
    Report(Box<Report>),
    /// It is late: it waits on, and the mark that says so also says that the sender knows.
    Wait { due: UnixMillis },
}

/// A report of success, kept in case that the log cannot take it.
#[derive(Debug)]
struct Report {
    letter: Arc<Letter>,
    action: Action,
    reported: ReportedRecipient,
}

impl Failing {
    /// When it is to be tried again if we die now; 0 is at once.
    pub(crate) fn due(&self) -> UnixMillis {
        match self.then {
            Then::Settle { .. } | Then::Report(_) => UnixMillis(0),
            Then::Wait { due } => due,
        }
    }
}

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
        let verdict = self.harden(letter, verdict);
        let host = via.host;
        self.log_verdict(letter, &range, to.local_part(), via, &verdict);
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
                if !to.asked().notify.wants_failure() {
                    return self.settle_unknown(range, unknown);
                }
                let reported = self.reported(&range, to, host, reply);
                self.fail(letter, range, unknown, reported);
            }
        }
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
    fn harden(&self, letter: &Letter, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::Deferred(reply) if self.settings.retry.is_over(letter.arrived, self.wall) => {
                Verdict::Failed(reply)
            }
            verdict => verdict,
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
        if letter.reverse_path == ReversePath::Null && goes_on {
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

    // ---- bounces and warnings ----

    /// Nobody is told about mail without a sender; else the sender is, and only then the recipient is settled.
    fn fail(
        &mut self,
        letter: &Arc<Letter>,
        range: Range,
        unknown: Option<Box<Who>>,
        reported: ReportedRecipient,
    ) {
        if letter.reverse_path == ReversePath::Null {
            return self.settle_unknown(range, unknown);
        }
        self.tell(letter, Failing { range, then: Then::Settle { unknown } }, Action::Failed, reported);
    }

    /// Tells the sender that the recipient is late. The mark that it was told waits until the warning is durable: a
    /// crash before that repeats the warning. The wait itself is marked at once, as any other.
    fn warn(&mut self, letter: &Arc<Letter>, range: Range, due: UnixMillis, reported: ReportedRecipient) {
        if letter.reverse_path == ReversePath::Null {
            return self.defer(Range { attempts: range.attempts.warned(), ..range }, due);
        }
        let span = Span { id: letter.id, first: range.first, count: range.count };
        let Range { name_offset, attempts, .. } = range;
        self.mark(&Mark::Deferred(Waiting { span, name_offset, attempts, due }));
        let action = Action::Delayed { until: self.settings.retry.expiry(letter.arrived) };
        self.tell(letter, Failing { range, then: Then::Wait { due } }, action, reported);
    }

    /// Tells the sender that the recipient has its mail, as it asked.
    fn succeed(&mut self, letter: &Arc<Letter>, range: Range, action: Action, reported: ReportedRecipient) {
        if letter.reverse_path == ReversePath::Null {
            return self.settle(range);
        }
        let report = Report { letter: Arc::clone(letter), action, reported: reported.clone() };
        self.tell(letter, Failing { range, then: Then::Report(Box::new(report)) }, action, reported);
    }

    fn tell(&mut self, letter: &Arc<Letter>, failing: Failing, action: Action, reported: ReportedRecipient) {
        let to = self.bounce_path(letter, failing.range, &reported.recipient);
        let mark = self.failing.insert(failing);
        self.bounces.push(self.now, letter, to, action, Notice { reported, mark });
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
        let Bounce { letter, to, action, notices } = bounce;
        let marks: Vec<usize> = notices.iter().map(|notice| notice.mark).collect();
        let ReversePath::Mailbox(sender) = &to else { return self.settle_failing(&marks) };
        let recipients: Vec<ReportedRecipient> = notices.into_iter().map(|notice| notice.reported).collect();
        let serial = letter.id.0 ^ (marks.first().map_or(0, |mark| *mark as u64) << 1);
        let notification = Notification {
            action,
            reporting_host: &self.settings.config.host_name,
            to: &to,
            arrived: letter.arrived,
            now: self.wall,
            serial,
            recipients: &recipients,
            original: &letter.content,
            facts: letter.facts,
            smtputf8: letter.smtputf8,
            ret: letter.asked.as_ref().and_then(|asked| asked.ret),
            envelope_id: letter.asked.as_ref().and_then(|asked| asked.envelope_id.as_ref()),
        };
        let content = notification.render();
        let mut recipients = Recipients::new();
        // RFC 3461 §6: nobody is told of what becomes of a report.
        recipients.push_asked(sender.as_ref(), RecipientAsked { notify: Notify::NEVER, original: None });
        let smtputf8 = sender.as_ref().needs_smtputf8();
        let facts = ContentFacts::of(&content);
        let body = if facts.has_eight_bit() { BodyKind::EightBitMime } else { BodyKind::SevenBit };
        let lane = Lane::Normal;
        let envelope = Envelope {
            reverse_path: ReversePath::Null,
            verp: None,
            body,
            smtputf8,
            requires_tls: false,
            lane,
            asked: MailAsked::default(),
            recipients,
        };
        let meta = Bytes::from(record::meta_of(&envelope));
        let (recipients, content) = (envelope.recipients.count(), Bytes::from(content));
        let incoming =
            Incoming { envelope, class: Class::default(), recipients, facts, content, meta, moved: None };
        match self.append(incoming, Origin::Bounce(marks.clone())) {
            Ok(()) => match action {
                Action::Failed => self.counters.bounces.add(1),
                Action::Delayed { .. } => self.counters.warnings.add(1),
                Action::Relayed | Action::Delivered => self.counters.success_reports.add(1),
            },
            Err(_) => self.retry_failing(marks),
        }
    }

    /// What their senders were told is durable.
    pub(crate) fn settle_failing(&mut self, marks: &[usize]) {
        let mut late = Vec::new();
        for mark in marks {
            match self.failing.try_remove(*mark) {
                Some(Failing { range, then: Then::Settle { unknown } }) => {
                    self.settle_unknown(range, unknown)
                }
                Some(Failing { range, then: Then::Report(_) }) => self.settle(range),
                Some(Failing { range, then: Then::Wait { due } }) => {
                    late.push((Range { attempts: range.attempts.warned(), ..range }, due));
                }
                None => {}
            }
        }
        for (range, due) in neighbours_joined(late) {
            self.defer(range, due);
        }
    }

    /// The log could not take what was to be told. Who failed is still owed, and will fail again later; who is late
    /// is so with or without a warning: the next failed attempt tries to send one again.
    pub(crate) fn retry_failing(&mut self, marks: Vec<usize>) {
        let again = self.wall.plus_secs(BOUNCE_AGAIN_SECS);
        for mark in marks {
            match self.failing.try_remove(mark) {
                Some(Failing { range, .. }) if range.reason == RETURNED => self.steering.return_again(range),
                Some(Failing { range, then: Then::Settle { .. } }) => self.schedule_or_return(range, again),
                Some(Failing { range, then: Then::Report(report) }) => self.report_again(range, report),
                Some(Failing { range, then: Then::Wait { due } }) => self.defer(range, due),
                None => {}
            }
        }
    }

    /// Who has its mail is not tried again: its report is.
    fn report_again(&mut self, range: Range, report: Box<Report>) {
        if self.stop != Stop::Running || self.failing.len() >= REPORTS_HELD_MAX {
            tracing::warn!(msg = %report.letter.id, index = range.first, "delivered, but the log takes no report of it");
            return self.settle(range);
        }
        let Report { letter, action, reported } = &*report;
        let (letter, action, reported) = (Arc::clone(letter), *action, reported.clone());
        let to = self.bounce_path(&letter, range, &reported.recipient);
        let mark = self.failing.insert(Failing { range, then: Then::Report(report) });
        let due = self.now + Duration::from_secs(BOUNCE_AGAIN_SECS);
        let notices = vec![Notice { reported, mark }];
        self.bounces.put_back(due, Bounce { letter, to, action, notices });
    }

    /// A line for each name that is at hand; for the rest, which is on disk, one line with `*` as its local part.
    fn log_range(&mut self, range: Range, verdict: &Verdict) {
        if self.delivery_log.wants_line().is_none() {
            return;
        }
        let Some(mut open) = self.open_now(range) else {
            let letter = self.letters.get(range.message);
            return letter.map_or((), |letter| {
                self.log_verdict(&letter, &range, Addressee::ANY.local_part(), Via::default(), verdict)
            });
        };
        let letter = Arc::clone(open.letter());
        while let Some(name) = open.next_name() {
            let one = Range { first: name.index, count: 1, ..range };
            self.log_verdict(&letter, &one, name.text(open.window()), Via::default(), verdict);
        }
    }

    fn log_verdict(
        &mut self,
        letter: &Letter,
        range: &Range,
        local_part: &str,
        via: Via<'_>,
        verdict: &Verdict,
    ) {
        self.log_line(letter, range, local_part, via, verdict, false);
    }

    /// No attempt was made: the recipient is on the suppression list.
    pub(crate) fn log_suppressed(&mut self, letter: &Letter, range: &Range, local_part: &str, reply: Reply) {
        self.log_line(letter, range, local_part, Via::default(), &Verdict::Failed(reply), true);
    }

    fn log_line(
        &mut self,
        letter: &Letter,
        range: &Range,
        local_part: &str,
        via: Via<'_>,
        verdict: &Verdict,
        is_suppressed: bool,
    ) {
        match self.delivery_log.wants_line() {
            None => return,
            Some(false) => return self.counters.log_lines_dropped.add(1),
            Some(true) => {}
        }
        let attempts = if is_suppressed { range.attempts } else { range.attempts.plus_one() };
        let line = Line {
            at: self.wall,
            msg: letter.id,
            index: range.first,
            local_part,
            domain: &self.domains.get(range.domain).name,
            via,
            attempt: attempts.count(),
            verdict,
            is_suppressed,
            lane: letter.lane,
            arrived: letter.arrived,
        };
        line.render(&mut self.delivery_log.lines);
    }
}

/// Recipients that stand side by side and wait for the same become one range again: a list that is late as a whole
/// would else cost an entry for each of its names.
fn neighbours_joined(late: Vec<(Range, UnixMillis)>) -> Vec<(Range, UnixMillis)> {
    let mut joined: Vec<(Range, UnixMillis)> = Vec::with_capacity(late.len());
    let same = |a: &Range, b: &Range| (a.message, a.domain, a.attempts) == (b.message, b.domain, b.attempts);
    for (range, due) in late {
        match joined.last_mut() {
            Some((last, last_due))
                if same(last, &range) && last.first + last.count == range.first && *last_due == due =>
            {
                last.count += range.count;
            }
            Some(_) | None => joined.push((range, due)),
        }
    }
    joined
}
