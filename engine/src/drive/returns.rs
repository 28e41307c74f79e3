//! Mail that came back to us, read where other mail would be sent: each is parsed, becomes an event, and is settled.
//!
//! A range at a host that `[bounces]` names comes here first. Its recipients that are return paths are ours; the others
//! go their way by routes. So a message was durable before it is read, and what a crash repeats is the event.
//! Copies to a list's owner are messages of their own from `<>`, and the recipient is owed until they are durable; what
//! fails of them is never told to whoever wrote here.
//! Bounds: [`READS_MAX`] messages being read from disk, [`PER_TURN`] messages looked at in a turn, each as far as
//! `message::report` looks; 24 bytes for each range that waits.

use crate::clock::Clock;
use crate::core::{Core, Stop};
use crate::drive::log::{Incoming, Origin};
use crate::drive::share::is_borrowed;
use crate::events::{Event, Way};
use crate::observe::{LineBudget, Via};
use crate::returns::{Meaning, ReturnAddress, ReturnEvent, Returned, leaving};
use crate::suppression::{Reason, Who};
use bytes::Bytes;
use message::report::{Report, read};
use message::unsubscribe::Unsubscribed;
use message::{Mailbox, MailboxRef, Recipients, Reply, ReversePath, Verdict};
use queue::Range;
use queue::fanout::{Addressee, Letter, Name, OpenRange};
use ring::Ring;
use std::collections::VecDeque;
use std::sync::Arc;

/// Ranges whose messages are being read from disk.
const READS_MAX: usize = 16;

/// Ranges that are taken up in a turn: some milliseconds, if each has the longest report that is looked at.
const PER_TURN: usize = 16;

/// A range is looked at once more after this long, if the log could not take a copy.
const AGAIN_SECS: u64 = 60;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct ReturnsDrive {
    waiting: VecDeque<Range>,
    pub(crate) reading: usize,
    lines: LineBudget,
}

impl ReturnsDrive {
    pub(crate) fn push(&mut self, range: Range) {
        self.waiting.push_back(range);
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.reading == 0
    }

    /// Every range that waits here.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = &Range> {
        self.waiting.iter()
    }
}

impl<R: Ring, C: Clock> Core<R, C> {
    /// Some of its recipients may be return paths. What another core lent us was looked at there.
    pub(crate) fn may_come_back(&self, range: &Range) -> bool {
        !is_borrowed(range.message) && self.settings.returns.concerns(&self.domains.get(range.domain).name)
    }

    pub(crate) fn returns_want_turn(&self) -> bool {
        let has_room = self.returns.reading < READS_MAX;
        !self.returns.waiting.is_empty() && has_room && !self.halted && self.stop == Stop::Running
    }

    pub(crate) fn run_returns(&mut self) {
        for _ in 0..PER_TURN {
            if !self.returns_want_turn() {
                return;
            }
            let Some(range) = self.returns.waiting.pop_front() else { return };
            match self.open_now(range) {
                Some(open) => self.take_returns(open),
                None => {
                    self.returns.reading += 1;
                    self.load_return(range);
                }
            }
        }
    }

    /// Takes what is ours of the names at hand. The others go on, as many together as stand together.
    pub(crate) fn take_returns(&mut self, mut open: OpenRange) {
        let range = open.range();
        let (letter, window) = (Arc::clone(open.letter()), open.window().clone());
        let domain = Arc::clone(&self.domains.get(range.domain).name);
        let mut report: Option<Report> = None;
        let mut others: Option<Range> = None;
        while let Some(name) = open.next_name() {
            let one = Range { first: name.index, count: 1, name_offset: name.offset, ..range };
            let address = MailboxRef { local_part: name.text(&window), domain: &domain };
            if self.settings.returns.address(address).is_none() {
                others = Some(others.map_or(one, |run| Range { count: run.count + 1, ..run }));
                continue;
            }
            if let Some(run) = others.take() {
                self.route_range(run);
            }
            self.take_return(&letter, one, (address, name, &window), &mut report);
        }
        if let Some(run) = others {
            self.route_range(run);
        }
        if !open.is_done() {
            // Its next name stands in the next window.
            self.returns.waiting.push_front(open.range());
        }
    }

    fn take_return(
        &mut self,
        letter: &Arc<Letter>,
        range: Range,
        (address, name, window): (MailboxRef<'_>, Name, &Bytes),
        report: &mut Option<Report>,
    ) {
        let settings = Arc::clone(&self.settings);
        let Some(found) = settings.returns.address(address) else { return };
        let meaning = match (&found, settings.unsubscribe.as_deref()) {
            (ReturnAddress::Leaving, Some((_, key))) => leaving(&letter.content, key),
            _ => settings.returns.judge(&found, report.get_or_insert_with(|| read(&letter.content))),
        };
        let copies = settings.returns.copies(address, &meaning);
        if !self.copy(letter, address, &copies, range) {
            return;
        }
        self.note_meaning(letter, &meaning);
        match meaning {
            // The mail that said so is settled when the entry is durable.
            Meaning::Left(Unsubscribed { list, address }) => {
                let who = Who::parse(&list, address.as_str()).ok();
                self.settle_listed(range, who.map(|who| (who, Reason::Unsubscribe)));
            }
            _ if copies.is_empty() => self.settle_return(letter, range, &name.addressee(window)),
            // With the last copy.
            _ => {}
        }
    }

    fn settle_return(&mut self, letter: &Arc<Letter>, range: Range, to: &Addressee) {
        let verdict = Verdict::Delivered(Reply::ours(250, (2, 1, 5), "read here"));
        self.conclude(letter, range, to, Via::default(), verdict);
    }

    /// Queues the copies; with the last of them the range is settled. False if the log takes none now: then all of it
    /// comes again.
    fn copy(&mut self, letter: &Letter, address: MailboxRef<'_>, copies: &[Mailbox], range: Range) -> bool {
        let Some((last, first)) = copies.split_last() else { return true };
        // In the log before the last one.
        let has_room = first.iter().all(|to| {
            let copy = copy_of(letter, address, to);
            self.append(copy, Origin::Bounce(Vec::new())).is_ok()
        });
        let is_queued = has_room && self.settle_with(range, copy_of(letter, address, last));
        if !is_queued {
            let again = self.wall.plus_secs(AGAIN_SECS);
            self.wait_or_hold(range, again);
        }
        is_queued
    }

    fn note_meaning(&mut self, letter: &Letter, meaning: &Meaning) {
        match meaning {
            Meaning::Event(event) => self.on_return(event),
            Meaning::Left(Unsubscribed { list, address }) => {
                self.counters.returns_unsubscribed.add(1);
                self.log_event(&Event::unsubscribed(list, address, Way::Mailto));
            }
            Meaning::Progress => self.counters.returns_progress.add(1),
            Meaning::Automatic => self.counters.returns_automatic.add(1),
            Meaning::Unknown => self.counters.returns_unknown.add(1),
            Meaning::Unproven => {
                self.counters.returns_unproven.add(1);
                if let Some(left_out) = self.returns.lines.may_say(self.now) {
                    tracing::info!(msg = %letter.id, left_out, "a report without proof was ignored");
                }
            }
        }
    }

    /// A failure after the fact, or a complaint: the one place from which it is handed on. The event is in the page cache
    /// before the mark that settles the mail which told it: a crash repeats it.
    pub(crate) fn on_return(&mut self, event: &ReturnEvent) {
        match event.what {
            Returned::Bounced(_) => self.counters.returns_bounced.add(1),
            Returned::Complained(_) => self.counters.returns_complaints.add(1),
        }
        self.suppress_who_returned(event);
        self.log_event(&Event::of_return(event));
    }

    /// Who is not there gets nothing more, if the configuration says so; who complains, nothing more of that list.
    fn suppress_who_returned(&mut self, event: &ReturnEvent) {
        let Some(recipient) = &event.recipient else { return };
        match (event.what, &event.reply) {
            (Returned::Bounced(_), Some(reply)) => self.learn_from_report(recipient, reply),
            (Returned::Bounced(_), None) => {}
            (Returned::Complained(_), _) => {
                self.suppress_returned(&event.labels.list, recipient, Reason::Complaint);
            }
        }
    }
}

/// The message as it came, on its way to somebody of ours, and whom it came to. What it demanded of connections holds on.
fn copy_of(letter: &Letter, address: MailboxRef<'_>, to: &Mailbox) -> Incoming {
    let mut recipients = Recipients::new();
    recipients.push(to.as_ref());
    let smtputf8 = letter.smtputf8 || to.as_ref().needs_smtputf8();
    let content = [format!("Delivered-To: {address}\r\n").as_bytes(), &letter.content].concat();
    let mut copy = Incoming::ours(ReversePath::Null, recipients, smtputf8, content);
    copy.envelope.requires_tls = letter.requires_tls;
    copy
}
