//! What a sweep finds: counts, and rows of one page.
//!
//! Bounds: a bit for each message that the core has numbers for; [`STAT_MAX`] domains; the page's rows and one. A page is
//! the rows with the lowest ids behind its beginning, so one sweep fills it whatever order the ranges come in.

use crate::steer::condition::State;
use crate::steer::order::{
    Action, ByState, MessageRow, OTHER, Order, Page, Report, STAT_MAX, SpanRow, Stat, due_ms,
};
use crate::steer::reason::Reasons;
use message::{MessageId, UnixMillis};
use queue::store::Queued;
use queue::{MessageKey, Range};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// See the module.
#[derive(Debug)]
pub(super) struct Gathered {
    messages: u64,
    recipients: u64,
    in_flight: u64,
    octets: u64,
    seen: Seen,
    /// Whether recipients in flight are found like others.
    counts_in_flight: bool,
    view: View,
}

#[derive(Debug)]
enum View {
    Counts,
    Stat(Box<Sums>),
    List { page: Page, rows: BTreeMap<MessageId, Message>, has_more: bool },
    Show { page: Page, rows: BTreeMap<(MessageId, u32), Part>, has_more: bool },
}

#[derive(Debug, Default)]
struct Sums {
    all: ByState,
    domains: HashMap<Arc<str>, ByState>,
    others: ByState,
    reasons: HashMap<u16, u64>,
    next_due_ms: Option<u64>,
}

#[derive(Debug)]
struct Message {
    arrived: UnixMillis,
    octets: u32,
    owed: ByState,
    attempts_max: u16,
    due: Option<UnixMillis>,
    /// Of its first range.
    first: u32,
    domain: Arc<str>,
    reason: u16,
}

/// Some recipients of a message.
#[derive(Debug)]
struct Part {
    range: Range,
    domain: Arc<str>,
    state: State,
    due: UnixMillis,
}

/// Messages that were seen, a bit each.
#[derive(Debug, Default)]
struct Seen(Vec<u64>);

impl Seen {
    fn is_first(&mut self, key: MessageKey) -> bool {
        let (word, bit) = (key.0 as usize / 64, 1 << (key.0 % 64));
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let is_first = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_first
    }
}

impl Gathered {
    pub(super) fn new(order: &Order) -> Gathered {
        let page = order.page;
        let view = match order.action {
            Action::Stat => View::Stat(Box::default()),
            Action::List => View::List { page, rows: BTreeMap::new(), has_more: false },
            Action::Show => View::Show { page, rows: BTreeMap::new(), has_more: false },
            _ => View::Counts,
        };
        let counts_in_flight = !order.action.changes();
        let seen = Seen::default();
        Gathered { messages: 0, recipients: 0, in_flight: 0, octets: 0, seen, counts_in_flight, view }
    }

    pub(super) fn recipients(&self) -> u64 {
        self.recipients
    }

    pub(super) fn add(
        &mut self,
        queued: &Queued,
        range: &Range,
        domain: &Arc<str>,
        state: State,
        due: UnixMillis,
    ) {
        let count = u64::from(range.count);
        if state == State::InFlight {
            self.in_flight += count;
            if !self.counts_in_flight {
                return;
            }
        }
        self.recipients += count;
        if self.seen.is_first(range.message) {
            self.messages += 1;
            self.octets += u64::from(queued.content_len);
        }
        match &mut self.view {
            View::Counts => {}
            View::Stat(sums) => sums.add(range, domain, state, due),
            View::List { page, rows, has_more } => {
                let behind = page.after.is_none_or(|(after, _)| queued.id > after);
                if behind && has_room(rows, queued.id, page.limit, has_more) {
                    let row = rows.entry(queued.id).or_insert_with(|| Message::new(queued, range, domain));
                    row.add(range, domain, state, due);
                    shrink(rows, page.limit, has_more);
                }
            }
            View::Show { page, rows, has_more } => {
                let place = (queued.id, range.first);
                let behind = page.after.is_none_or(|after| place > after);
                if behind && has_room(rows, place, page.limit, has_more) {
                    rows.insert(place, Part { range: *range, domain: Arc::clone(domain), state, due });
                    shrink(rows, page.limit, has_more);
                }
            }
        }
    }

    pub(super) fn into_report(self, reasons: &Reasons) -> Report {
        let Gathered { messages, recipients, in_flight, octets, view, .. } = self;
        let report = Report { messages, recipients, in_flight, octets, ..Report::default() };
        match view {
            View::Counts => report,
            View::Stat(sums) => Report { stat: Some(sums.into_stat(reasons)), ..report },
            View::List { rows, has_more, .. } => {
                let row = |(id, row): (MessageId, Message)| row.into_row(id, reasons);
                Report { messages_found: rows.into_iter().map(row).collect(), has_more, ..report }
            }
            View::Show { rows, has_more, .. } => {
                let row = |((id, _), row): ((MessageId, u32), Part)| row.into_row(id, reasons);
                Report { spans_found: rows.into_iter().map(row).collect(), has_more, ..report }
            }
        }
    }
}

/// False if the page is full and the row would come behind it.
fn has_room<K: Ord, V>(rows: &BTreeMap<K, V>, key: K, limit: usize, has_more: &mut bool) -> bool {
    let has_room = rows.len() < limit || rows.last_key_value().is_some_and(|(last, _)| key <= *last);
    *has_more |= !has_room;
    has_room
}

fn shrink<K: Ord, V>(rows: &mut BTreeMap<K, V>, limit: usize, has_more: &mut bool) {
    if rows.len() > limit {
        rows.pop_last();
        *has_more = true;
    }
}

impl Sums {
    fn add(&mut self, range: &Range, domain: &Arc<str>, state: State, due: UnixMillis) {
        if state == State::Deferred {
            self.next_due_ms = self.next_due_ms.into_iter().chain(due_ms(due)).min();
        }
        let count = u64::from(range.count);
        self.all.add(state, range.attempts.count(), count);
        let has_room = self.domains.len() < STAT_MAX;
        let sums = match self.domains.get_mut(domain) {
            Some(sums) => sums,
            None if has_room => self.domains.entry(Arc::clone(domain)).or_default(),
            None => &mut self.others,
        };
        sums.add(state, range.attempts.count(), count);
        if range.reason > 0 {
            *self.reasons.entry(range.reason).or_default() += count;
        }
    }

    fn into_stat(self, reasons: &Reasons) -> Stat {
        let domains = self.domains.into_iter().map(|(domain, sums)| (domain.to_string(), sums));
        let others = (self.others.owed() > 0).then(|| (OTHER.to_owned(), self.others));
        let reasons = self.reasons.into_iter().map(|(key, count)| (reasons.text(key).to_owned(), count));
        Stat {
            all: self.all,
            domains: domains.chain(others).collect(),
            reasons: reasons.collect(),
            next_due_ms: self.next_due_ms,
        }
    }
}

impl Message {
    fn new(queued: &Queued, range: &Range, domain: &Arc<str>) -> Message {
        Message {
            arrived: queued.arrived(),
            octets: queued.content_len,
            owed: ByState::default(),
            attempts_max: 0,
            due: None,
            first: range.first,
            domain: Arc::clone(domain),
            reason: range.reason,
        }
    }

    fn add(&mut self, range: &Range, domain: &Arc<str>, state: State, due: UnixMillis) {
        self.owed.add(state, range.attempts.count(), u64::from(range.count));
        self.attempts_max = self.attempts_max.max(range.attempts.count());
        if due.0 > 0 {
            self.due = Some(self.due.map_or(due, |other| other.min(due)));
        }
        if range.first < self.first {
            (self.first, self.domain) = (range.first, Arc::clone(domain));
        }
        if self.reason == 0 {
            self.reason = range.reason;
        }
    }

    fn into_row(self, id: MessageId, reasons: &Reasons) -> MessageRow {
        MessageRow {
            id: id.to_string(),
            arrived_ms: self.arrived.0,
            octets: self.octets,
            owed: self.owed,
            attempts_max: self.attempts_max,
            due_ms: self.due.and_then(due_ms),
            domain: self.domain.to_string(),
            reason: reasons.text(self.reason).to_owned(),
        }
    }
}

impl Part {
    fn into_row(self, id: MessageId, reasons: &Reasons) -> SpanRow {
        let Range { first, count, name_offset, attempts, reason, .. } = self.range;
        SpanRow {
            id: id.to_string(),
            first,
            count,
            name_offset,
            domain: self.domain.to_string(),
            state: self.state.name().to_owned(),
            attempts: attempts.count(),
            due_ms: due_ms(self.due),
            reason: reasons.text(reason).to_owned(),
        }
    }
}
