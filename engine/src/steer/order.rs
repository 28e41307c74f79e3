//! One order to all cores: what to do, with which recipients, and what each core says of it in the end.
//!
//! A core decides the conditions that it can from memory. For the others the operator's side has read the messages
//! and names spans of recipients ([`Chosen`]). Pure. Trusts whoever made it to have read names' places rightly: it is
//! the operator, who could as well write into the queue. Bounds: [`CHOSEN_MAX`] spans, [`PAGE_MAX`] rows.

use crate::fetch::Wanted;
use crate::steer::condition::{State, Term};
use crate::steer::wire::Checked;
use message::{MessageId, UnixMillis};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::mpsc;

/// Spans that one order may name: 2.4 MB.
pub const CHOSEN_MAX: usize = 100_000;

/// Rows that one order may ask for.
pub const PAGE_MAX: usize = 50_000;

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Count by state, domain and reason.
    Stat,
    /// A row for each message.
    List,
    /// A row for each range of recipients.
    Show,
    Hold,
    Release,
    Retry,
    Bounce,
    Delete,
    /// Everything that is deferred is tried now, and no site waits.
    Flush,
    /// A campaign was cancelled: whatever of it waits anywhere ends now. See [`Order::sifting`]. No operator's.
    #[serde(skip)]
    Sift,
    /// A client fetches it: see [`Order::fetching`]. No operator's.
    #[serde(skip)]
    Fetch,
}

impl Action {
    pub fn changes(self) -> bool {
        !matches!(self, Action::Stat | Action::List | Action::Show)
    }

    /// Whether recipients in that state are its business.
    pub fn is_about(self, state: State) -> bool {
        match self {
            Action::Stat | Action::List | Action::Show => true,
            Action::Bounce | Action::Delete | Action::Sift => state != State::InFlight,
            Action::Hold | Action::Fetch => matches!(state, State::Ready | State::Deferred),
            Action::Release => state == State::Held,
            Action::Retry | Action::Flush => state == State::Deferred,
        }
    }
}

/// Recipients that were chosen by reading their message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Chosen {
    pub id: MessageId,
    pub first: u32,
    pub count: u32,
    /// Where the first one's name stands in the meta part, and where the name behind the last one does.
    pub name_offset: u32,
    pub name_end: u32,
}

impl Chosen {
    /// The whole message: no name's place is needed.
    pub fn message(id: MessageId) -> Chosen {
        Chosen { id, first: 0, count: u32::MAX, name_offset: 0, name_end: 0 }
    }

    fn end(&self) -> u32 {
        self.first.saturating_add(self.count)
    }
}

/// Some neighbouring recipients and the place of the first one's name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Piece {
    pub first: u32,
    pub count: u32,
    pub name_offset: u32,
    pub is_chosen: bool,
}

/// Cuts a range of `id` along the spans, which are sorted by id and first index and do not overlap. The pieces are the
/// range: nothing is left out.
pub fn cut(id: MessageId, range: (u32, u32, u32), chosen: &[Chosen], on_piece: &mut dyn FnMut(Piece)) {
    let (mut first, count, mut name_offset) = range;
    let end = first + count;
    let from = chosen.partition_point(|span| (span.id, span.end()) <= (id, first));
    for span in chosen[from..].iter().take_while(|span| span.id == id && span.first < end) {
        if span.first > first {
            on_piece(Piece { first, count: span.first - first, name_offset, is_chosen: false });
            (first, name_offset) = (span.first, span.name_offset);
        }
        let piece_end = span.end().min(end);
        on_piece(Piece { first, count: piece_end - first, name_offset, is_chosen: true });
        (first, name_offset) = (piece_end, span.name_end);
    }
    if first < end {
        on_piece(Piece { first, count: end - first, name_offset, is_chosen: false });
    }
}

/// Where a page of rows begins, and how many it may have.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Page {
    /// Rows up to this message and index were seen before.
    pub after: Option<(MessageId, u32)>,
    pub limit: usize,
}

/// See the module. Shared by all cores and whoever waits for them.
#[derive(Debug)]
pub struct Order {
    pub action: Action,
    /// Only say what would be done.
    pub is_dry: bool,
    pub terms: Vec<Term>,
    /// Sorted; `None`: all.
    pub chosen: Option<Vec<Chosen>>,
    pub page: Page,
    /// Of a client's that fetches its mail, whose that is.
    pub fetch: Option<Wanted>,
    pub progress: Progress,
    /// One report from each core.
    pub reports: mpsc::UnboundedSender<Report>,
}

impl Order {
    /// An order, and where its reports come out: one from each core.
    pub fn new(checked: Checked) -> (Arc<Order>, mpsc::UnboundedReceiver<Report>) {
        let (reports, heard) = mpsc::unbounded_channel();
        let Checked { action, is_dry, terms, chosen, page } = checked;
        let (fetch, progress) = (None, Progress::default());
        (Arc::new(Order { action, is_dry, terms, chosen, page, fetch, progress, reports }), heard)
    }

    /// What waits for a client's domains is put aside for it. No report is sent: each core tells the fetch's home.
    pub fn fetching(wanted: Wanted) -> Arc<Order> {
        Order::of_our_own(Action::Fetch, Some(wanted))
    }

    /// Every range is looked at once more by its campaign's valve. Nobody waits for a report.
    pub fn sifting() -> Arc<Order> {
        Order::of_our_own(Action::Sift, None)
    }

    fn of_our_own(action: Action, fetch: Option<Wanted>) -> Arc<Order> {
        let (reports, _) = mpsc::unbounded_channel();
        let (terms, page, progress) = (Vec::new(), Page::default(), Progress::default());
        Arc::new(Order { action, is_dry: false, terms, chosen: None, page, fetch, progress, reports })
    }

    /// True if something is to be done to what is found, rather than only counted.
    pub fn acts(&self) -> bool {
        self.action.changes() && !self.is_dry
    }
}

/// How far all cores are, and whether they may stop.
#[derive(Debug, Default)]
pub struct Progress {
    swept: AtomicU64,
    recipients: AtomicU64,
    is_cancelled: AtomicBool,
}

impl Progress {
    pub fn add(&self, swept: u64, recipients: u64) {
        self.swept.fetch_add(swept, Ordering::Relaxed);
        self.recipients.fetch_add(recipients, Ordering::Relaxed);
    }

    /// Ranges looked at, and recipients found.
    pub fn so_far(&self) -> (u64, u64) {
        (self.swept.load(Ordering::Relaxed), self.recipients.load(Ordering::Relaxed))
    }

    /// Nobody waits any more: what was not found by now is left alone.
    pub fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
    }

    pub fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed)
    }
}

/// What one core, or all of them together, found.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Report {
    pub messages: u64,
    pub recipients: u64,
    /// Recipients that would have been found but for being in flight.
    pub in_flight: u64,
    /// Octets of the messages' content.
    pub octets: u64,
    /// Why nothing was done.
    pub error: Option<String>,
    pub stat: Option<Stat>,
    pub messages_found: Vec<MessageRow>,
    pub spans_found: Vec<SpanRow>,
    /// There are rows beyond the page.
    pub has_more: bool,
}

/// Recipients of something, by what they wait for.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ByState {
    pub ready: u64,
    pub deferred: u64,
    pub held: u64,
    pub in_flight: u64,
    /// Of all these, those that were tried before.
    pub tried: u64,
}

impl ByState {
    pub fn add(&mut self, state: State, attempts: u16, count: u64) {
        match state {
            State::Ready => self.ready += count,
            State::Deferred => self.deferred += count,
            State::Held => self.held += count,
            State::InFlight => self.in_flight += count,
        }
        self.tried += if attempts > 0 { count } else { 0 };
    }

    pub fn merge(&mut self, other: ByState) {
        self.ready += other.ready;
        self.deferred += other.deferred;
        self.held += other.held;
        self.in_flight += other.in_flight;
        self.tried += other.tried;
    }

    pub fn owed(&self) -> u64 {
        self.ready + self.deferred + self.held + self.in_flight
    }
}

/// The queue at a glance.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Stat {
    pub all: ByState,
    /// At most [`STAT_MAX`] of them, the rest under "other".
    pub domains: BTreeMap<String, ByState>,
    pub reasons: BTreeMap<String, u64>,
    /// The earliest next attempt of what is deferred.
    #[serde(default)]
    pub next_due_ms: Option<u64>,
}

/// Domains that are counted one by one.
pub const STAT_MAX: usize = 1 << 16;

/// The name of what is not counted one by one.
pub const OTHER: &str = "other";

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct MessageRow {
    pub id: String,
    pub arrived_ms: u64,
    pub octets: u32,
    pub owed: ByState,
    pub attempts_max: u16,
    /// The earliest of the deferred ones.
    pub due_ms: Option<u64>,
    /// Domains that something is owed at: the first, and how many more.
    pub domain: String,
    pub reason: String,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct SpanRow {
    pub id: String,
    pub first: u32,
    pub count: u32,
    pub name_offset: u32,
    pub domain: String,
    pub state: String,
    pub attempts: u16,
    pub due_ms: Option<u64>,
    pub reason: String,
}

impl Report {
    /// Takes another core's report in.
    pub fn merge(&mut self, other: Report) {
        self.messages += other.messages;
        self.recipients += other.recipients;
        self.in_flight += other.in_flight;
        self.octets += other.octets;
        self.has_more |= other.has_more;
        self.error = self.error.take().or(other.error);
        if let Some(stat) = other.stat {
            self.stat.get_or_insert_default().merge(stat);
        }
        self.messages_found.extend(other.messages_found);
        self.spans_found.extend(other.spans_found);
    }

    /// Rows in order, no more than the page has room for.
    pub fn cut_to(&mut self, page: Page) {
        self.messages_found.sort_by(|a, b| a.id.cmp(&b.id));
        self.spans_found.sort_by(|a, b| (&a.id, a.first).cmp(&(&b.id, b.first)));
        self.has_more |= self.messages_found.len().max(self.spans_found.len()) > page.limit;
        self.messages_found.truncate(page.limit);
        self.spans_found.truncate(page.limit);
    }
}

impl Stat {
    fn merge(&mut self, other: Stat) {
        self.all.merge(other.all);
        for (domain, counts) in other.domains {
            self.domains.entry(domain).or_default().merge(counts);
        }
        for (reason, count) in other.reasons {
            *self.reasons.entry(reason).or_default() += count;
        }
        self.next_due_ms = self.next_due_ms.into_iter().chain(other.next_due_ms).min();
    }
}

/// Milliseconds as rows have them: none for "at once" and for "never".
pub fn due_ms(due: UnixMillis) -> Option<u64> {
    (due.0 > 0 && due != queue::journal::HELD).then_some(due.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: MessageId = MessageId(5);

    /// Names of 10 octets each, as their places go.
    fn span(id: MessageId, first: u32, count: u32) -> Chosen {
        Chosen { id, first, count, name_offset: first * 10, name_end: (first + count) * 10 }
    }

    fn pieces(range: (u32, u32), chosen: &[Chosen]) -> Vec<(u32, u32, bool)> {
        let mut found = Vec::new();
        cut(ID, (range.0, range.1, range.0 * 10), chosen, &mut |piece| {
            assert_eq!(piece.name_offset, piece.first * 10);
            found.push((piece.first, piece.count, piece.is_chosen));
        });
        found
    }

    #[test]
    fn range_is_cut_along_the_spans() {
        let chosen = [span(MessageId(4), 0, 99), span(ID, 2, 1), span(ID, 5, 3), span(MessageId(6), 0, 99)];
        assert_eq!(
            pieces((0, 10), &chosen),
            [(0, 2, false), (2, 1, true), (3, 2, false), (5, 3, true), (8, 2, false)]
        );
        assert_eq!(pieces((6, 3), &chosen), [(6, 2, true), (8, 1, false)]);
        assert_eq!(pieces((3, 2), &chosen), [(3, 2, false)]);
        assert_eq!(pieces((3, 2), &[Chosen::message(ID)]), [(3, 2, true)]);
        assert_eq!(pieces((3, 2), &[]), [(3, 2, false)]);
    }

    proptest! {
        #[test]
        fn pieces_are_the_range(first in 0u32..50, count in 1u32..50, spans in proptest::collection::vec((1u32..5, 1u32..9), 0..12)) {
            let mut at = 0;
            let chosen: Vec<_> = spans.iter().map(|(gap, count)| {
                let made = span(ID, at + gap, *count);
                at += gap + count;
                made
            }).collect();
            let found = pieces((first, count), &chosen);
            let mut next = first;
            for (from, count, is_chosen) in found {
                prop_assert_eq!(from, next);
                prop_assert!(count > 0);
                for index in from..from + count {
                    prop_assert_eq!(chosen.iter().any(|span| (span.first..span.end()).contains(&index)), is_chosen);
                }
                next += count;
            }
            prop_assert_eq!(next, first + count);
        }
    }
}
