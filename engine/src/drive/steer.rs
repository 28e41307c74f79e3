//! An operator's orders, carried out on one core: a sweep over everything that waits, some ranges a turn.
//!
//! Deliveries do not wait for it: a turn looks at [`SLICE`] ranges and goes on. What is under sweep is taken out of its
//! place whole (which copies nothing), and each range goes back, or where the order sends it, when it is looked
//! at; [`Steering::ranges`] and the schedule name the rest, so that a journal turned over in mid-sweep has it.
//! In-flight recipients are counted and left alone: those that are deferred while the sweep goes on were in flight.
//! Trusts the order's spans (`steer/order`). Bounds: one order at a time; held ranges cost 24 bytes each; what goes
//! back to senders waits here and is concluded as the disk brings its names.

mod gather;

use crate::campaigns::Outcome;
use crate::clock::Clock;
use crate::core::Core;
use crate::domains::SiteKey;
use crate::drive::flush::CLIENTS_ORDERS_MAX;
use crate::drive::share::is_borrowed;
use crate::events::Kind;
use crate::steer::condition::{Facts, State};
use crate::steer::order::{Action, Order, Piece, Report, cut};
use crate::steer::reason::{PAUSED, RETURNED, Reasons};
use gather::Gathered;
use message::{Lane, MessageId, Reply, UnixMillis, Verdict};
use queue::Range;
use queue::journal::{HELD, Mark, Span};
use queue::range::DomainKey;
use ring::Ring;
use std::collections::VecDeque;
use std::sync::Arc;

/// Ranges looked at in one turn: what a delivery may wait for. Measured with 1,000,000 queued on one core: 0.12 ms a
/// slice to count, 0.2 ms to delete, everything that such a turn does besides included.
const SLICE: usize = 1024;

/// Recipients on their way back to their senders at a time: read, in a bounce, or in a bounce's commit.
const RETURNING_MAX: usize = 1000;

/// Of those, begun in one turn.
const RETURNED_PER_TURN: usize = 64;

/// Where a range waits.
#[derive(Clone, Copy, Debug)]
enum Found {
    /// For an answer about its domain.
    Domain,
    Site(SiteKey, Lane),
    Held,
    Deferred(UnixMillis),
}

impl Found {
    fn state(self) -> State {
        match self {
            Found::Domain | Found::Site(..) => State::Ready,
            Found::Held => State::Held,
            Found::Deferred(_) => State::Deferred,
        }
    }
}

/// What a sweep looks at next, place by place.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Domains(usize),
    Sites(usize),
    Held,
    /// The schedule, which was taken at the start: what is due in it waits for the sweep, and nothing is seen twice.
    Deferred,
    /// All was seen; what goes back to senders is still on its way.
    Returning,
}

#[derive(Debug)]
struct Sweep {
    order: Arc<Order>,
    stage: Stage,
    /// What is being looked at, where it was, and why it waits there if the place knows better than the range.
    parked: VecDeque<Range>,
    parked_at: Found,
    parked_reason: Option<u16>,
    gathered: Gathered,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Steering {
    pub(crate) reasons: Reasons,
    held: Vec<Range>,
    held_recipients: u64,
    /// Goes back to senders when the disk has time for it. On disk it is held: a crash must not send it.
    returning: VecDeque<Range>,
    sweep: Option<Box<Sweep>>,
    orders: VecDeque<Arc<Order>>,
}

impl Steering {
    pub(crate) fn take_order(&mut self, order: Arc<Order>) {
        self.orders.push_back(order);
    }

    /// A client's: see `drive/flush`.
    pub(crate) fn take_flush(&mut self, order: Arc<Order>) {
        let is_like = |other: &Arc<Order>| other.action == order.action && other.terms == order.terms;
        if !self.orders.iter().any(is_like) && !self.take_clients_order(order) {
            tracing::warn!("too many orders wait: a client's ETRN is left out");
        }
    }

    /// False if too many wait.
    pub(crate) fn take_clients_order(&mut self, order: Arc<Order>) -> bool {
        let has_room = self.has_room_for_clients();
        if has_room {
            self.orders.push_back(order);
        }
        has_room
    }

    pub(crate) fn has_room_for_clients(&self) -> bool {
        self.orders.len() < CLIENTS_ORDERS_MAX
    }

    /// Mail that was deferred is on its way to its sites.
    pub(crate) fn is_flushing(&self) -> bool {
        self.sweep.as_ref().is_some_and(|sweep| sweep.order.action == Action::Flush)
    }

    /// Keeps a range until it is released. Its mark was made.
    pub(crate) fn hold(&mut self, range: Range) {
        self.held_recipients += u64::from(range.count);
        self.held.push(range);
    }

    /// The bounce could not be written: it is tried again.
    pub(crate) fn return_again(&mut self, range: Range) {
        self.returning.push_back(range);
    }

    pub(crate) fn held_recipients(&self) -> u64 {
        self.held_recipients
    }

    /// Every range that waits here, and until when.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (UnixMillis, &Range)> {
        let parked = self.sweep.iter().flat_map(|sweep| {
            let due = if matches!(sweep.parked_at, Found::Held) { HELD } else { UnixMillis(0) };
            sweep.parked.iter().map(move |range| (due, range))
        });
        self.held.iter().chain(&self.returning).map(|range| (HELD, range)).chain(parked)
    }
}

impl<R: Ring, C: Clock> Core<R, C> {
    /// True if a sweep has something to look at that no event will announce.
    pub(crate) fn steering_wants_turn(&self) -> bool {
        let Steering { sweep, orders, returning, .. } = &self.steering;
        let is_sweeping = sweep.as_ref().is_some_and(|sweep| !matches!(sweep.stage, Stage::Returning));
        is_sweeping || sweep.is_none() && !orders.is_empty() || !returning.is_empty() && self.may_return()
    }

    /// One slice of the order under way.
    pub(crate) fn run_steering(&mut self) {
        self.return_some();
        let Some(mut sweep) = self.steering.sweep.take().or_else(|| self.next_order()) else { return };
        let before = sweep.gathered.recipients();
        let mut looked_at = 0;
        while looked_at < SLICE
            && let Some(steps) = self.look(&mut sweep)
        {
            looked_at += steps;
        }
        let found = sweep.gathered.recipients() - before;
        sweep.order.progress.add(looked_at as u64, found);
        let is_over = matches!(sweep.stage, Stage::Returning) && self.has_returned(&sweep);
        if is_over { self.report(*sweep) } else { self.steering.sweep = Some(sweep) }
    }

    fn has_returned(&self, sweep: &Sweep) -> bool {
        // What cannot go on (a full disk, a failed write, nobody who waits for it) holds up no other order.
        let must_wait = sweep.order.action == Action::Bounce && !self.steering.returning.is_empty();
        !must_wait || sweep.order.progress.is_cancelled() || !self.may_write()
    }

    fn next_order(&mut self) -> Option<Box<Sweep>> {
        let order = self.steering.orders.pop_front()?;
        if self.halted && order.acts() {
            match &order.fetch {
                Some(wanted) => self.tell_found(wanted.id, None),
                None => drop(order.reports.send(refused())),
            }
            return None;
        }
        if order.action == Action::Flush && order.acts() {
            self.lift_back_offs_for(&order);
            self.release_routes(&order);
        }
        if order.action.is_about(State::Deferred) {
            self.schedule.begin_sweep();
        }
        let mut sweep = Box::new(Sweep {
            gathered: Gathered::new(&order),
            order,
            stage: Stage::Domains(0),
            parked: VecDeque::new(),
            parked_at: Found::Domain,
            parked_reason: None,
        });
        self.count_in_flight(&mut sweep);
        Some(sweep)
    }

    fn report(&mut self, sweep: Sweep) {
        let Sweep { order, gathered, .. } = sweep;
        if let Some(wanted) = &order.fetch {
            return self.tell_found(wanted.id, Some(gathered.recipients()));
        }
        let report = gathered.into_report(&self.steering.reasons);
        // Nobody may be left to hear it.
        let _ = order.reports.send(report);
    }

    /// What is on its way is only counted. Once, at the start: connections bound it.
    fn count_in_flight(&mut self, sweep: &mut Sweep) {
        let mut ranges: Vec<Range> = self.outbound.ranges().collect();
        ranges.extend(self.letters.loading());
        ranges.extend(self.failing.iter().map(|(_, failing)| failing.range));
        ranges.extend(self.suppressing.ranges());
        ranges.extend(self.shares.lent());
        ranges.extend(self.returns.ranges());
        ranges.extend(self.fetches.ranges());
        ranges.extend(&self.steering.returning);
        ranges.extend(self.gates.unconfirmed());
        for range in ranges {
            self.count(sweep, range, State::InFlight, UnixMillis(0), range.reason);
        }
        if !sweep.order.acts() {
            // An order that acts takes these out of their places, later.
            let open: Vec<Range> = self.sites.open_ranges().collect();
            for range in open {
                self.count(sweep, range, State::Ready, UnixMillis(0), range.reason);
            }
        }
    }

    /// Looks at one range, or goes to the next place. `None`: there is no more.
    fn look(&mut self, sweep: &mut Sweep) -> Option<usize> {
        if let Some(range) = sweep.parked.pop_front() {
            let reason = sweep.parked_reason.filter(|reason| *reason > 0).unwrap_or(range.reason);
            self.sweep_range(sweep, Range { reason, ..range }, sweep.parked_at);
            return Some(1);
        }
        let action = sweep.order.action;
        let (looks_at_ready, is_cancelled) =
            (action.is_about(State::Ready), sweep.order.progress.is_cancelled());
        match sweep.stage {
            Stage::Domains(place) if looks_at_ready && !is_cancelled => {
                sweep.stage = match self.domains.take_waiting_at(place) {
                    Some(waiting) => {
                        (sweep.parked, sweep.parked_at) = (waiting.into(), Found::Domain);
                        Stage::Domains(place + 1)
                    }
                    None => Stage::Sites(0),
                };
            }
            Stage::Sites(place) if looks_at_ready && !is_cancelled => {
                sweep.stage = match self.sites.take_ready_at(place, sweep.order.acts()) {
                    Some((site, lane, ready, next)) => {
                        (sweep.parked, sweep.parked_at) = (ready, Found::Site(site, lane));
                        sweep.parked_reason = self.trouble_of(site, &sweep.parked);
                        Stage::Sites(next)
                    }
                    None => Stage::Held,
                };
            }
            Stage::Domains(_) | Stage::Sites(_) => sweep.stage = Stage::Held,
            Stage::Held => {
                sweep.stage = Stage::Deferred;
                sweep.parked_reason = None;
                if action.is_about(State::Held) && !is_cancelled {
                    self.steering.held_recipients = 0;
                    let room = Vec::with_capacity(self.steering.held.len());
                    let mut held = std::mem::replace(&mut self.steering.held, room);
                    held.extend(self.gates.take_all());
                    (sweep.parked, sweep.parked_at) = (held.into(), Found::Held);
                }
            }
            Stage::Deferred => match self.next_deferred(action) {
                Some((due, range)) => self.sweep_range(sweep, range, Found::Deferred(due)),
                None => sweep.stage = Stage::Returning,
            },
            Stage::Returning => return None,
        }
        Some(1)
    }

    fn next_deferred(&mut self, action: Action) -> Option<(UnixMillis, Range)> {
        action.is_about(State::Deferred).then(|| self.schedule.next_unswept()).flatten()
    }

    /// Why a site's mail waits: no host of it answers.
    fn trouble_of(&mut self, site: SiteKey, ready: &VecDeque<Range>) -> Option<u16> {
        if ready.is_empty() {
            return None;
        }
        let trouble = self.sites.try_get(site)?.trouble.as_ref()?;
        Some(self.steering.reasons.key(trouble))
    }

    fn sweep_range(&mut self, sweep: &mut Sweep, range: Range, found: Found) {
        let is_wanted = !is_borrowed(range.message)
            && !sweep.order.progress.is_cancelled()
            && self.holds(&sweep.order, &range, found.state());
        if !is_wanted {
            return self.go_back(range, found);
        }
        let order = Arc::clone(&sweep.order);
        let Some(chosen) = &order.chosen else { return self.obey(sweep, range, found) };
        let id = self.id_of(&range);
        cut(id, (range.first, range.count, range.name_offset), chosen, &mut |piece| {
            let Piece { first, count, name_offset, is_chosen } = piece;
            let part = Range { first, count, name_offset, ..range };
            if is_chosen { self.obey(sweep, part, found) } else { self.go_back(part, found) }
        });
    }

    fn id_of(&self, range: &Range) -> MessageId {
        self.store.get(range.message).expect("what waits is owed").id
    }

    /// True if the range is what the order's conditions ask for, as far as a core can say.
    fn holds(&self, order: &Order, range: &Range, state: State) -> bool {
        let Some(queued) = self.store.get(range.message) else { return false };
        let facts = Facts {
            id: queued.id,
            domain: &self.domains.get(range.domain).name,
            age_secs: self.wall.since(queued.arrived()) / 1000,
            attempts: range.attempts.count(),
            state,
            reason: self.steering.reasons.text(range.reason),
        };
        let is_fetched = order.fetch.as_ref();
        is_fetched.is_none_or(|wanted| wanted.wants(facts.domain, queued.handling().requires_tls))
            && order.terms.iter().all(|term| term.holds(&facts))
    }

    /// A range that is not to be touched, cut along the order's spans, into the counts.
    fn count(&mut self, sweep: &mut Sweep, range: Range, state: State, due: UnixMillis, reason: u16) {
        let order = Arc::clone(&sweep.order);
        let range = Range { reason, ..range };
        if is_borrowed(range.message) || !self.holds(&order, &range, state) {
            return;
        }
        let Some(chosen) = &order.chosen else { return self.gather(sweep, range, state, due) };
        let id = self.id_of(&range);
        cut(id, (range.first, range.count, range.name_offset), chosen, &mut |piece| {
            let Piece { first, count, name_offset, is_chosen } = piece;
            if is_chosen {
                self.gather(sweep, Range { first, count, name_offset, ..range }, state, due);
            }
        });
    }

    fn gather(&self, sweep: &mut Sweep, range: Range, state: State, due: UnixMillis) {
        let Some(queued) = self.store.get(range.message) else { return };
        sweep.gathered.add(queued, &range, &self.domains.get(range.domain).name, state, due);
    }

    /// Does to the range what the order says.
    fn obey(&mut self, sweep: &mut Sweep, range: Range, found: Found) {
        let due = if let Found::Deferred(due) = found { due } else { UnixMillis(0) };
        self.gather(sweep, range, found.state(), due);
        if !sweep.order.acts() {
            return self.go_back(range, found);
        }
        match sweep.order.action {
            Action::Hold => {
                self.mark_waiting(&range, HELD);
                let reason = if range.reason == PAUSED { 0 } else { range.reason };
                self.steering.hold(Range { reason, ..range });
            }
            Action::Release | Action::Retry | Action::Flush => {
                let reason = if range.reason == RETURNED { 0 } else { range.reason };
                let range = Range { reason, ..range };
                self.mark_waiting(&range, UnixMillis(0));
                self.offer_range(range);
            }
            Action::Delete => self.delete(range),
            Action::Bounce => {
                self.mark_waiting(&range, HELD);
                self.steering.returning.push_back(range);
            }
            Action::Sift => {
                if let Some(range) = self.past_gate(range) {
                    self.go_back(range, found);
                }
            }
            Action::Fetch => match &sweep.order.fetch {
                Some(wanted) => self.put_aside(wanted.id, range),
                None => self.go_back(range, found),
            },
            Action::Stat | Action::List | Action::Show => self.go_back(range, found),
        }
    }

    /// Settles a range without reading anything.
    pub(crate) fn delete(&mut self, range: Range) {
        let Range { first, count, domain, .. } = range;
        let campaign = self.store.get(range.message).and_then(|queued| queued.campaign());
        self.tally(campaign, Outcome::Cancelled, count);
        let id = self.id_of(&range);
        self.log_unnamed(Kind::Deleted, id, &range, None);
        self.mark(&Mark::Settled(Span { id, first, count }));
        self.counters.deleted.add(u64::from(count));
        self.settle_domain(domain, count);
        self.settle_own(range, count);
    }

    /// Back to where it was found.
    fn go_back(&mut self, range: Range, found: Found) {
        match found {
            Found::Deferred(due) => self.schedule.push(range, due),
            Found::Held if range.reason == PAUSED => self.offer_range(range),
            Found::Held => self.steering.hold(range),
            Found::Site(site, lane) if self.leads_to(range.domain, site) => {
                let (_, flow) = self.turn_of(range.message);
                self.sites.put_back(site, (lane, flow), range);
            }
            Found::Domain | Found::Site(..) => self.offer_range(range),
        }
    }

    fn leads_to(&self, domain: DomainKey, site: SiteKey) -> bool {
        let domain = self.domains.get(domain);
        self.sites.try_get(site).is_some_and(|site| match self.ways.get(site.way).fetch {
            Some(fetch) => self.fetches.is_for(fetch, &domain.name),
            None => domain.ways().any(|way| way == site.way),
        })
    }

    // ---- back to senders ----

    fn may_write(&self) -> bool {
        !self.logs.is_full() && !self.logs.primary().is_poisoned() && !self.halted
    }

    fn may_return(&self) -> bool {
        self.may_write() && self.letters.concluding() + self.failing.len() < RETURNING_MAX
    }

    /// Concludes some of what an operator returned: each needs its names, a bounce and a commit.
    fn return_some(&mut self) {
        for _ in 0..RETURNED_PER_TURN {
            if !self.may_return() {
                return;
            }
            let Some(range) = self.steering.returning.pop_front() else { return };
            let reply = Reply::ours(550, (5, 7, 0), "returned by the operator");
            self.conclude_range(Range { reason: RETURNED, ..range }, Verdict::Failed(reply));
        }
    }
}

fn refused() -> Report {
    let error = Some("a write to the journal failed: nothing can be changed until a restart".into());
    Report { error, ..Report::default() }
}
