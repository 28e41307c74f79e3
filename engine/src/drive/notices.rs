//! Who is told what became of a recipient: bounces, warnings and reports of success, written as messages of our own.
//!
//! A recipient that somebody is to be told about is owed until that letter is durable. Bounds: `queue::bounce` gathers;
//! [`REPORTS_HELD_MAX`].

use crate::clock::Clock;
use crate::config::BounceFormat;
use crate::core::{Core, Stop};
use crate::drive::log::{Incoming, Origin};
use crate::settings::Settings;
use crate::steer::reason::RETURNED;
use crate::suppression::Who;
use message::dsn::{Action, Notification, ReportedRecipient};
use message::{
    Mailbox, MailboxRef, MessageId, Notify, RecipientAsked, RecipientIndex, Recipients, ReversePath,
    UnixMillis, Verp,
};
use queue::Range;
use queue::bounce::{Bounce, Notice};
use queue::fanout::Letter;
use queue::journal::{Mark, Span, Waiting};
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
    /// It failed, and is owed until its bounce is durable; and, if its host does not know it, until it is on the
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
    /// Whoever is to know of it is told, and only then the recipient is settled.
    pub(super) fn fail(
        &mut self,
        letter: &Arc<Letter>,
        range: Range,
        unknown: Option<Box<Who>>,
        reported: ReportedRecipient,
    ) {
        match self.told(letter, range, &reported.recipient) {
            Some(to) => {
                let failing = Failing { range, then: Then::Settle { unknown } };
                self.tell(letter, failing, Action::Failed, (to, reported));
            }
            None => self.lose(letter, range, unknown),
        }
    }

    /// Nobody wants to hear of it.
    fn lose(&mut self, letter: &Letter, range: Range, unknown: Option<Box<Who>>) {
        let is_wanted = self.settings.double_bounces.is_some();
        let is_triple = letter.reverse_path.mailbox().is_none() && is_wanted;
        if is_triple || letter.reverse_path == ReversePath::DoubleBounce {
            self.counters.triple_bounces.add(1);
            if let Some(left_out) = self.triple_lines.may_say(self.now) {
                tracing::warn!(msg = %letter.id, index = range.first, left_out, "triple bounce: discarded");
            }
        }
        self.settle_unknown(range, unknown);
    }

    /// Tells the sender that the recipient is late. The mark that it was told waits until the warning is durable: a
    /// crash before that repeats the warning. The wait itself is marked at once, as any other.
    pub(super) fn warn(
        &mut self,
        letter: &Arc<Letter>,
        range: Range,
        due: UnixMillis,
        reported: ReportedRecipient,
    ) {
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
    pub(super) fn succeed(
        &mut self,
        letter: &Arc<Letter>,
        range: Range,
        action: Action,
        reported: ReportedRecipient,
    ) {
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
            // The sender made the path itself, and we read what comes back to it.
            (ReversePath::Mailbox(sender), None) if returns.is_path(sender.as_ref()) => {
                returns.owner(sender.as_ref()).cloned()
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
        let sender = if is_double { ReversePath::DoubleBounce } else { ReversePath::Null };
        let incoming = Incoming::ours(sender, recipients, to.as_ref().needs_smtputf8(), content);
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
        let mark = self.failing.insert(Failing { range, then: Then::Settle { unknown: None } });
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
        let Some(to) = self.told(&letter, range, &reported.recipient) else { return self.settle(range) };
        let mark = self.failing.insert(Failing { range, then: Then::Report(report) });
        let due = self.now + Duration::from_secs(BOUNCE_AGAIN_SECS);
        let notices = vec![Notice { reported, mark }];
        self.bounces.put_back(due, Bounce { letter, to, action, notices });
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
