//! What is known of one site, and the decisions that follow from it. Pure: whoever owns it holds its lock.

use super::limits::{Plain, SiteLimits};
use super::pace::{Paces, WHOLE, part};
use super::snapshot::{Hold, Latency, SiteSnapshot, Slower, Why};
use super::window::VALID_MAX;
use smallvec::SmallVec;
use std::time::{Duration, Instant};

/// The answer to a wish for connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lease {
    /// Open it now: it counted in the connection rate.
    Granted,
    /// All are out; ask again when one came back.
    Full,
    /// New connections are used up for now; those that are open go on.
    Later { until: Option<Instant> },
    /// The site is held (`None`), suspended, or waits out its back-off.
    Wait { until: Option<Instant> },
}

/// The answer to a wish for messages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tokens {
    /// So many transactions may begin before `until`, and none of them at that moment or later. What is left over is
    /// given back, or counts as used.
    Granted { count: u32, until: Instant },
    /// No rate applies.
    Unlimited,
    /// Nothing may be sent before `until`. `None`: held, until new limits come.
    Wait { until: Option<Instant> },
}

/// What happened at a site, as far as its limits are concerned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Health {
    /// `count` deliveries, or refusals of single recipients: the host works. `latency` is their mean, from the
    /// envelope to the last reply, where it was measured.
    Works { count: u32, latency: Option<Duration> },
    /// A connection was refused, lost, timed out or told to go (421).
    HostFailed,
    /// The site asked us to slow down.
    Throttled,
    /// A rule for its provider says: nothing before `until`. The later of two counts.
    Suspended { until: Instant },
    /// As `Suspended`, for this source's own fault: another one may go.
    Blocked { until: Instant },
    /// A rule for its provider says: only that part, in thousandths, of connections and rates before `until`. The
    /// last one counts.
    Slower { permille: u32, until: Instant },
}

/// See the module. Small: there is one for every site that mail goes to.
#[derive(Debug)]
pub(super) struct State {
    limits: Plain,
    leased: u32,
    /// Leased by each core, up to the highest that leased any.
    by_core: SmallVec<[u16; 8]>,
    slots: u32,
    /// Successes since the slots last changed.
    round: u32,
    failures: u32,
    /// Waits for failures in a row, without a success.
    backoffs: u32,
    /// Microseconds; 0 before the first delivery that was timed.
    best_us: u32,
    smoothed_us: u32,
    /// The best crept up then.
    crept_at: Instant,
    trouble: Option<Box<Trouble>>,
    paces: Option<Box<Paces>>,
}

/// Allocated for sites that had any.
#[derive(Debug, Default)]
struct Trouble {
    dead_until: Option<Instant>,
    suspended_until: Option<Instant>,
    /// It is suspended for its own fault.
    is_blocked: bool,
    slower: Option<Slower>,
    /// Failures are worth remembering until then.
    failures_until: Option<Instant>,
}

/// The best latency grows by this part of itself a minute: a path that became four times as long for good is accepted
/// after an hour and a half.
const CREEP: u32 = 64;
const CREEP_EVERY: Duration = Duration::from_secs(60);

impl State {
    pub(super) fn new(limits: &SiteLimits, now: Instant) -> State {
        State {
            limits: Plain::of(limits),
            leased: 0,
            by_core: SmallVec::new(),
            slots: limits.slots_initial.max(1),
            round: 0,
            failures: 0,
            backoffs: 0,
            best_us: 0,
            smoothed_us: 0,
            crept_at: now,
            trouble: None,
            paces: Paces::new(limits, None, now),
        }
    }

    pub(super) fn set_limits(&mut self, limits: &SiteLimits, now: Instant) {
        self.limits = Plain::of(limits);
        // Grants of rates that were taken away earlier may be given back yet.
        self.paces = Paces::new(limits, self.paces.as_deref(), now + VALID_MAX);
    }

    // ---- connections ----

    pub(super) fn lease(&mut self, core: usize, cores: usize, now: Instant) -> Lease {
        self.end_waits(now);
        if let Some(hold) = self.hold(now) {
            return Lease::Wait { until: hold.until };
        }
        let limit = self.slots_now(now);
        let cores = u32::try_from(cores.max(1)).unwrap_or(u32::MAX);
        let even = limit.div_ceil(cores);
        let share = if self.limits.is_uneven { even.max(limit.saturating_sub(cores - 1)) } else { even };
        let share = share.min(u32::from(u16::MAX));
        if self.leased >= limit || u32::from(self.held_by(core)) >= share {
            return Lease::Full;
        }
        let permille = self.permille(now);
        if let Some(paces) = &mut self.paces
            && let Err(until) = paces.connect(now, permille)
        {
            return Lease::Later { until };
        }
        if self.by_core.len() <= core {
            self.by_core.resize(core + 1, 0);
        }
        self.leased += 1;
        self.by_core[core] += 1;
        Lease::Granted
    }

    pub(super) fn give_back(&mut self, core: usize) {
        self.leased = self.leased.checked_sub(1).expect("what is given back was leased");
        self.by_core[core] = self.by_core[core].checked_sub(1).expect("by this core");
    }

    fn held_by(&self, core: usize) -> u16 {
        self.by_core.get(core).copied().unwrap_or(0)
    }

    pub(super) fn is_held(&self) -> bool {
        self.limits.connections_max == 0
    }

    pub(super) fn holder(&self, but: usize) -> Option<usize> {
        let held = self.by_core.iter().enumerate().filter(|(core, held)| *core != but && **held > 0);
        held.max_by_key(|(_, held)| **held).map(|(core, _)| core)
    }

    /// Connections that it may have now.
    fn slots_now(&self, now: Instant) -> u32 {
        part(self.slots.min(self.limits.connections_max), self.permille(now))
    }

    // ---- messages ----

    pub(super) fn is_rated(&self) -> bool {
        self.is_held()
            || self.trouble.as_ref().is_some_and(|trouble| trouble.suspended_until.is_some())
            || self.paces.as_ref().is_some_and(|paces| paces.is_for_messages())
    }

    pub(super) fn take(&mut self, now: Instant, want: u32) -> Tokens {
        self.end_suspension(now);
        if self.is_held() {
            return Tokens::Wait { until: None };
        }
        if let Some(until) = self.suspended_until() {
            return Tokens::Wait { until: Some(until) };
        }
        let permille = self.permille(now);
        match &mut self.paces {
            Some(paces) if paces.is_for_messages() => paces.take(now, want, permille),
            _ => Tokens::Unlimited,
        }
    }

    pub(super) fn give_back_tokens(&mut self, until: Instant, count: u32) {
        if let Some(paces) = &mut self.paces {
            paces.give_back(until, count);
        }
    }

    pub(super) fn restore_used(&mut self, index: usize, count: u32, at: Instant) {
        if let Some(paces) = &mut self.paces {
            paces.restore(index, count, at);
        }
    }

    // ---- reports ----

    pub(super) fn report(&mut self, now: Instant, health: Health) -> Option<Instant> {
        match health {
            Health::Works { count, latency } => self.works(now, count, latency),
            Health::HostFailed => return self.fails(now),
            Health::Throttled => self.halve(),
            Health::Suspended { until } => return Some(self.suspend(until)),
            Health::Blocked { until } => {
                self.trouble().is_blocked = true;
                return Some(self.suspend(until));
            }
            Health::Slower { permille, until } => self.trouble().slower = Some(Slower { permille, until }),
        }
        None
    }

    fn trouble(&mut self) -> &mut Trouble {
        self.trouble.get_or_insert_default()
    }

    fn works(&mut self, now: Instant, count: u32, latency: Option<Duration>) {
        (self.failures, self.backoffs) = (0, 0);
        if let Some(latency) = latency {
            self.time(now, latency);
        }
        let is_slow = self.is_slow();
        self.round = self.round.saturating_add(count);
        while self.round >= self.slots {
            self.round -= self.slots;
            self.end_round(is_slow);
            if self.slots == 1 && is_slow || self.slots >= self.limits.connections_max {
                self.slots = self.slots.min(self.limits.connections_max).max(1);
                self.round = 0;
            }
        }
    }

    /// As many successes came back as there are connections.
    fn end_round(&mut self, is_slow: bool) {
        self.slots = if is_slow { (self.slots - 1).max(1) } else { self.slots.saturating_add(1) };
    }

    fn time(&mut self, now: Instant, latency: Duration) {
        let sample = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX).max(1);
        if self.best_us == 0 {
            (self.best_us, self.smoothed_us) = (sample, sample);
        }
        if self.crept_at + CREEP_EVERY <= now {
            self.crept_at = now;
            self.best_us = self.best_us.saturating_add(self.best_us.div_ceil(CREEP));
        }
        self.best_us = self.best_us.min(sample);
        // A mean that forgets: an eighth of it is new.
        let smoothed = (u64::from(self.smoothed_us) * 7 + u64::from(sample)).div_ceil(8);
        self.smoothed_us = u32::try_from(smoothed).unwrap_or(u32::MAX);
    }

    fn is_slow(&self) -> bool {
        self.limits.is_slow(self.smoothed_us, self.best_us)
    }

    fn halve(&mut self) {
        (self.slots, self.round) = ((self.slots / 2).max(1), 0);
    }

    fn fails(&mut self, now: Instant) -> Option<Instant> {
        self.halve();
        self.failures = self.failures.saturating_add(1);
        let limits = self.limits;
        let longest = Duration::from_secs(u64::from(limits.backoff_max_secs));
        self.trouble().failures_until = Some(now + longest);
        if self.failures < limits.failures_max {
            return None;
        }
        // A back-off that runs is kept: failures of connections that were already open do not lengthen it.
        if let Some(until) = self.trouble().dead_until
            && now < until
        {
            return Some(until);
        }
        let secs = u64::from(limits.backoff_secs) << self.backoffs.min(20);
        let until = now + Duration::from_secs(secs).min(longest);
        self.backoffs += 1;
        let trouble = self.trouble();
        trouble.dead_until = Some(until);
        trouble.failures_until = Some(until + longest);
        Some(until)
    }

    fn suspend(&mut self, until: Instant) -> Instant {
        let suspended_until = &mut self.trouble().suspended_until;
        *suspended_until.insert(suspended_until.map_or(until, |known| known.max(until)))
    }

    // ---- waits ----

    /// A wait that is over: one connection tries, the rest follow its success.
    fn end_waits(&mut self, now: Instant) {
        self.end_suspension(now);
        let Some(trouble) = &mut self.trouble else { return };
        if trouble.dead_until.take_if(|until| *until <= now).is_some() {
            self.slots = 1;
        }
    }

    fn end_suspension(&mut self, now: Instant) {
        let Some(trouble) = &mut self.trouble else { return };
        if trouble.suspended_until.take_if(|until| *until <= now).is_some() {
            trouble.is_blocked = false;
            self.slots = 1;
        }
    }

    pub(super) fn lift_waits(&mut self) {
        if let Some(trouble) = self.trouble.take()
            && (trouble.dead_until.is_some() || trouble.suspended_until.is_some())
        {
            self.slots = 1;
        }
        (self.failures, self.backoffs) = (0, 0);
    }

    fn suspended_until(&self) -> Option<Instant> {
        self.trouble.as_ref().and_then(|trouble| trouble.suspended_until)
    }

    /// What keeps every new connection from it at this moment.
    fn hold(&self, now: Instant) -> Option<Hold> {
        if self.is_held() {
            return Some(Hold { until: None, why: Why::Held });
        }
        let trouble = self.trouble.as_ref()?;
        let hold = |until: Option<Instant>, why| Some(Hold { until: Some(until?), why });
        let why = if trouble.is_blocked { Why::Blocked } else { Why::Suspended };
        let suspended = hold(trouble.suspended_until, why);
        let dead = hold(trouble.dead_until, Why::Dead);
        let holds = [suspended, dead].into_iter().flatten().filter(|hold| hold.until > Some(now));
        holds.max_by_key(|hold| hold.until)
    }

    fn slower(&self, now: Instant) -> Option<Slower> {
        self.trouble.as_ref().and_then(|trouble| trouble.slower).filter(|slower| now < slower.until)
    }

    fn permille(&self, now: Instant) -> u32 {
        self.slower(now).map_or(WHOLE, |slower| slower.permille)
    }

    /// False if forgetting it would change nothing but that it starts anew with its first slots.
    pub(super) fn remembers(&self, now: Instant) -> bool {
        let failed = self.trouble.as_ref().filter(|_| self.failures > 0);
        self.leased > 0
            || self.hold(now).is_some_and(|hold| hold.why != Why::Held)
            || self.slower(now).is_some()
            || failed.and_then(|trouble| trouble.failures_until) > Some(now)
            || self.paces.as_ref().is_some_and(|paces| !paces.is_spent(now))
    }

    pub(super) fn snapshot(&self, now: Instant) -> SiteSnapshot {
        let permille = self.permille(now);
        let mut limits = self.limits.to_limits();
        let connection_rate = self.paces.as_ref().and_then(|paces| paces.connection_snapshot(now, permille));
        let message_rates =
            self.paces.as_ref().map(|paces| paces.message_snapshots(now, permille)).unwrap_or_default();
        limits.connection_rate = connection_rate.map(|look| look.rate);
        limits.message_rates = message_rates.map(|look| look.map(|look| look.rate));
        let us = |us: u32| Duration::from_micros(u64::from(us));
        SiteSnapshot {
            limits,
            leased: self.leased,
            slots: self.slots_now(now),
            failures: self.failures,
            hold: self.hold(now),
            slower: self.slower(now),
            latency: (self.best_us > 0).then(|| Latency {
                best: us(self.best_us),
                smoothed: us(self.smoothed_us),
                is_slow: self.is_slow(),
            }),
            connection_rate,
            message_rates,
        }
    }
}
