//! What follows from a verdict: a mark, another attempt, a bounce; the same for our own mail and for borrowed.

use crate::campaigns::Outcome;
use crate::clock::Clock;
use crate::config::BounceFormat;
use crate::core::{Core, Stop};
use crate::domains::Routed;
use crate::drive::expiry::delay_wanted;
use crate::drive::log::{Incoming, Origin, Record};
use crate::drive::share::is_borrowed;
use crate::events::{Event, Kind};
use crate::observe::Via;
use crate::settings::Settings;
use crate::steer::reason::RETURNED;
use crate::suppression::Screened;
use bytes::Bytes;
use message::dsn::{Action, Notification, ReportedRecipient};
use message::{
    BodyKind, Class, ContentFacts, Envelope, FailureClass, Lane, MailAsked, Mailbox, MailboxRef, MessageId,
    Notify, RecipientAsked, RecipientIndex, Recipients, Reply, ReversePath, UnixMillis, Verdict, Verp,
    Wanted,
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
    /// It failed, and is owed until its bounce is durable.
    Settle,
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
            Then::Settle | Then::Report(_) => UnixMillis(0),
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
                if !(via.is_hard && self.learn_bounce(letter, range, to, host, &reply)) {
                    self.end_failed(letter, range, to, host, reply);
                }
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
    pub(crate) fn end_failed(
        &mut self,
        letter: &Arc<Letter>,
        range: Range,
        to: &Addressee,
        host: &str,
        reply: Reply,
    ) {
        // A bounce says NEVER, which is about its sender: who looks after lost bounces is told all the same.
        let has_sender = letter.reverse_path.mailbox().is_some();
        if has_sender && !to.asked().notify.wants_failure() {
            return self.settle(range);
        }
        let reported = self.reported(&range, to, host, reply);
        self.fail(letter, range, reported);
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

    // ---- bounces and warnings ----

    /// Whoever is to know of it is told, and only then the recipient is settled.
    fn fail(&mut self, letter: &Arc<Letter>, range: Range, reported: ReportedRecipient) {
        match self.told(letter, range, &reported.recipient) {
            Some(to) => {
                self.tell(letter, Failing { range, then: Then::Settle }, Action::Failed, (to, reported))
            }
            None => self.lose(letter, range),
        }
    }

    /// Nobody wants to hear of it.
    fn lose(&mut self, letter: &Letter, range: Range) {
        let is_wanted = self.settings.double_bounces.is_some();
        let is_triple = letter.reverse_path.mailbox().is_none() && is_wanted;
        if is_triple || letter.reverse_path == ReversePath::DoubleBounce {
            self.counters.triple_bounces.add(1);
            if let Some(left_out) = self.triple_lines.may_say(self.now) {
                tracing::warn!(msg = %letter.id, index = range.first, left_out, "triple bounce: discarded");
            }
        }
        self.settle(range);
    }

    /// Tells the sender that the recipient is late. The mark that it was told waits until the warning is durable: a
    /// crash before that repeats the warning. The wait itself is marked at once, as any other.
    fn warn(&mut self, letter: &Arc<Letter>, range: Range, due: UnixMillis, reported: ReportedRecipient) {
        let sender = letter.reverse_path.mailbox();
        let Some(to) = sender.and_then(|_| self.told(letter, range, &reported.recipient)) else {
            return self.defer(Range { attempts: range.attempts.warned(), ..range }, due);
        };
        let span = Span { id: letter.id, first: range.first, count: range.count };
        let Range { name_offset, attempts, .. } = range;
        self.mark(&Mark::Deferred(Waiting { span, name_offset, attempts, due }));
        let action = Action::Delayed { until: self.settings.retry.expiry(letter.arrived) };
        self.tell(letter, Failing { range, then: Then::Wait { due } }, action, (to, reported));
    }

    /// Tells the sender that the recipient has its mail, as it asked.
    fn succeed(&mut self, letter: &Arc<Letter>, range: Range, action: Action, reported: ReportedRecipient) {
        let sender = letter.reverse_path.mailbox();
        let Some(to) = sender.and_then(|_| self.told(letter, range, &reported.recipient)) else {
            return self.settle(range);
        };
        let report = Report { letter: Arc::clone(letter), action, reported: reported.clone() };
        self.tell(letter, Failing { range, then: Then::Report(Box::new(report)) }, action, (to, reported));
    }

    fn tell(
        &mut self,
        letter: &Arc<Letter>,
        failing: Failing,
        action: Action,
        (to, reported): (Mailbox, ReportedRecipient),
    ) {
        let mark = self.failing.insert(failing);
        self.bounces.push(self.now, letter, to, action, Notice { reported, mark });
    }

    /// Whom what became of this recipient is told: with VERP its own reverse-path, so that the sender knows whom it is
    /// about. What would come back to ourselves goes to the list's owner at once, if it has one: the verdict has been
    /// counted. Of mail from `<>` whoever double bounces go to is told, but of a double bounce nobody; nor of mail to that
    /// very address, which would only fail there again: what leaves us as `<>` must not come back and go round for ever.
    fn told(&self, letter: &Letter, range: Range, recipient: &str) -> Option<Mailbox> {
        let Settings { double_bounces, returns, .. } = &*self.settings;
        match (&letter.reverse_path, letter.verp) {
            (ReversePath::DoubleBounce, _) => None,
            (ReversePath::Null, _) => {
                double_bounces.clone().filter(|told| !told.as_str().eq_ignore_ascii_case(recipient))
            }
            (ReversePath::Mailbox(sender), None) => Some(sender.clone()),
            (ReversePath::Mailbox(base), Some(_)) if returns.reads(base.domain()) => {
                returns.owner(base.as_ref()).cloned()
            }
            (ReversePath::Mailbox(base), Some(verp)) => {
                let own = self.own_path((base, verp), letter.id, range, recipient);
                Some(own.unwrap_or_else(|| base.clone()))
            }
        }
    }

    /// The reverse-path that this recipient's copy went out with.
    fn own_path(
        &self,
        (base, verp): (&Mailbox, Verp),
        id: MessageId,
        range: Range,
        recipient: &str,
    ) -> Option<Mailbox> {
        let recipient = MailboxRef::parse(recipient).ok()?;
        let mut path = Vec::new();
        let place = (id, RecipientIndex(range.first));
        verp.render(base.as_ref(), recipient, place, &self.settings.verp_key, &mut path);
        Mailbox::parse(std::str::from_utf8(&path).ok()?).ok()
    }

    pub(crate) fn run_bounces(&mut self) {
        while let Some(bounce) = self.bounces.pop(self.now) {
            self.write_bounce(bounce);
        }
    }

    fn write_bounce(&mut self, bounce: Bounce<usize>) {
        let Bounce { letter, to, action, notices } = bounce;
        let marks: Vec<usize> = notices.iter().map(|notice| notice.mark).collect();
        let recipients: Vec<ReportedRecipient> = notices.into_iter().map(|notice| notice.reported).collect();
        let is_double = letter.reverse_path == ReversePath::Null;
        let serial = letter.id.0 ^ (marks.first().map_or(0, |mark| *mark as u64) << 1);
        let notification = Notification {
            action,
            reporting_host: &self.settings.config.host_name,
            to: &ReversePath::Mailbox(to.clone()),
            sender: &letter.reverse_path,
            arrived: letter.arrived,
            now: self.wall,
            serial,
            recipients: &recipients,
            original: &letter.content,
            facts: letter.facts,
            smtputf8: letter.smtputf8,
            is_tls_optional: letter.facts.is_tls_optional() && !letter.requires_tls,
            ret: letter.asked.as_ref().and_then(|asked| asked.ret),
            envelope_id: letter.asked.as_ref().and_then(|asked| asked.envelope_id.as_ref()),
        };
        let content = match (self.settings.config.bounces.format, action) {
            (BounceFormat::Qsbmf, Action::Failed) => message::qsbmf::render(&notification),
            _ => notification.render(),
        };
        let mut recipients = Recipients::new();
        // RFC 3461 §6: nobody is told of what becomes of a report.
        recipients.push_asked(to.as_ref(), RecipientAsked { notify: Notify::NEVER, original: None });
        let smtputf8 = to.as_ref().needs_smtputf8();
        let facts = ContentFacts::of(&content);
        let body = if facts.has_eight_bit() { BodyKind::EightBitMime } else { BodyKind::SevenBit };
        let lane = Lane::Normal;
        let envelope = Envelope {
            reverse_path: if is_double { ReversePath::DoubleBounce } else { ReversePath::Null },
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
                Action::Failed if is_double => self.counters.double_bounces.add(1),
                Action::Failed => self.counters.bounces.add(1),
                Action::Delayed { .. } => self.counters.warnings.add(1),
                Action::Relayed | Action::Delivered => self.counters.success_reports.add(1),
            },
            Err(_) => self.retry_failing(marks),
        }
    }

    /// The range is settled once that message is durable. False if the log takes none now.
    pub(crate) fn settle_with(&mut self, range: Range, message: Incoming) -> bool {
        let mark = self.failing.insert(Failing { range, then: Then::Settle });
        let is_queued = self.append(message, Origin::Bounce(vec![mark])).is_ok();
        if !is_queued {
            self.failing.remove(mark);
        }
        is_queued
    }

    /// What their senders were told is durable.
    pub(crate) fn settle_failing(&mut self, marks: &[usize]) {
        let mut late = Vec::new();
        for mark in marks {
            match self.failing.try_remove(*mark) {
                Some(Failing { range, then: Then::Settle | Then::Report(_) }) => self.settle(range),
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
                Some(Failing { range, then: Then::Settle }) => self.schedule_or_return(range, again),
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
        let Some(to) = self.told(&letter, range, &reported.recipient) else { return self.settle(range) };
        let mark = self.failing.insert(Failing { range, then: Then::Report(report) });
        let due = self.now + Duration::from_secs(BOUNCE_AGAIN_SECS);
        let notices = vec![Notice { reported, mark }];
        self.bounces.put_back(due, Bounce { letter, to, action, notices });
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
        let class = match FailureClass::of(verdict, via.scope) {
            Some(_) if *is_expired => Some(FailureClass::Expired),
            Some(_) if range.reason == RETURNED => Some(FailureClass::Operator),
            class => class,
        };
        let event = Event {
            index: Some(range.first),
            count: range.count,
            recipient: Some(MailboxRef { local_part, domain: &domain.name }),
            site,
            host: via.host,
            source: via.source,
            tls: via.tls,
            attempt: range.attempts.plus_one().count(),
            reply: Some(verdict.reply()),
            class,
            delay_ms: Some(self.wall.since(letter.arrived)),
            ..Event::new(kind_of(verdict)).of_letter(letter, &self.settings.config.lanes.tenant_field)
        };
        self.events.log(&event, self.wall, &self.counters);
        self.delivery_log.log(&event, self.wall, &self.counters);
        self.put_full_events();
    }

    /// No attempt was made: the recipient is on the suppression list.
    pub(crate) fn log_suppressed(&mut self, letter: &Letter, range: &Range, local_part: &str, reply: &Reply) {
        self.tally(letter.class.campaign, Outcome::Suppressed, range.count);
        if !self.wants_events() {
            return;
        }
        let domain = self.domains.get(range.domain);
        let event = Event {
            index: Some(range.first),
            count: range.count,
            recipient: Some(MailboxRef { local_part, domain: &domain.name }),
            attempt: range.attempts.count(),
            reply: Some(reply),
            delay_ms: Some(self.wall.since(letter.arrived)),
            ..Event::new(Kind::Suppressed).of_letter(letter, &self.settings.config.lanes.tenant_field)
        };
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

fn kind_of(verdict: &Verdict) -> Kind {
    match verdict {
        Verdict::Delivered(_) => Kind::Delivered,
        Verdict::Deferred(_) => Kind::Deferred,
        Verdict::Failed(_) => Kind::Failed,
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

fn outcome_of(verdict: &Verdict) -> Outcome {
    match verdict {
        Verdict::Delivered(_) => Outcome::Delivered,
        Verdict::Deferred(_) => Outcome::Deferred,
        Verdict::Failed(_) => Outcome::Failed,
    }
}
