//! How many connections a site may have now: the one table that all cores share.
//!
//! A site is where mail for some domains goes: a normalised set of MX hosts, or a configured relay. It starts with
//! `slots_initial` connections, gains one for each full round of successes, and halves after a host failure. One
//! step per delivery would overshoot: we would double twice before the first failure is back. Failures in a row
//! without a success make it wait, twice as long each time.
//!
//! A core takes a *lease* on connections and touches a site's lock per lease, not per delivery; each core may lease
//! its share of the site, so that none starves. Pure: the caller passes `now`. Trusts nothing that a peer sent.
//! Bound: `sites_max` entries; past it, sites without connections and without a back-off go.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Limits of one site.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SiteLimits {
    /// Most connections at a time, over all cores. 0 holds the site.
    pub connections_max: u32,
    /// Connections to a site that nothing is known of.
    pub slots_initial: u32,
    /// First wait after failures in a row; doubles up to `backoff_max_secs`.
    pub backoff_secs: u64,
    pub backoff_max_secs: u64,
    /// Failures in a row, without a success, that make the site wait.
    pub failures_max: u32,
}

impl Default for SiteLimits {
    fn default() -> SiteLimits {
        SiteLimits {
            connections_max: 20,
            slots_initial: 5,
            backoff_secs: 60,
            backoff_max_secs: 3600,
            failures_max: 3,
        }
    }
}

/// The answer to a wish for connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lease {
    Granted,
    /// All are out; ask again when one came back.
    Full,
    /// The site is held or waits out its back-off.
    Wait {
        until: Option<Instant>,
    },
}

/// What happened at a site, as far as its concurrency is concerned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Health {
    /// That many deliveries, or refusals of single recipients: the host works.
    Works(u32),
    /// A connection was refused, lost, timed out or told to go (421).
    HostFailed,
    /// The site asked us to slow down.
    Throttled,
}

/// One site's entry.
#[derive(Debug)]
pub struct Site {
    name: Box<str>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limits: SiteLimits,
    leased: u32,
    /// Leased by each core.
    by_core: [u32; CORES_MAX],
    slots: u32,
    /// Successes since the slots last changed.
    round: u32,
    failures: u32,
    backoffs: u32,
    not_before: Option<Instant>,
}

/// Most cores that can share the table.
pub const CORES_MAX: usize = 64;

impl Site {
    fn new(name: &str, limits: SiteLimits) -> Site {
        let state = State {
            limits,
            leased: 0,
            by_core: [0; CORES_MAX],
            slots: limits.slots_initial.max(1),
            round: 0,
            failures: 0,
            backoffs: 0,
            not_before: None,
        };
        Site { name: name.into(), state: Mutex::new(state) }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// May `core` of `cores` open one more connection? What is granted must be given back.
    pub fn lease(&self, core: usize, cores: usize, now: Instant) -> Lease {
        let mut state = self.state.lock();
        if state.limits.connections_max == 0 {
            return Lease::Wait { until: None };
        }
        if let Some(until) = state.not_before {
            if now < until {
                return Lease::Wait { until: Some(until) };
            }
            // The wait is over: one connection tries, the rest follow its success.
            state.not_before = None;
            state.slots = 1;
        }
        let limit = state.slots.min(state.limits.connections_max);
        let share = limit.div_ceil(u32::try_from(cores.max(1)).unwrap_or(1));
        if state.leased >= limit || state.by_core[core] >= share {
            return Lease::Full;
        }
        state.leased += 1;
        state.by_core[core] += 1;
        Lease::Granted
    }

    pub fn give_back(&self, core: usize) {
        let mut state = self.state.lock();
        state.leased = state.leased.checked_sub(1).expect("what is given back was leased");
        state.by_core[core] = state.by_core[core].checked_sub(1).expect("by this core");
    }

    /// The core with the most connections, other than `but`.
    pub fn holder(&self, but: usize) -> Option<usize> {
        let state = self.state.lock();
        let held = state.by_core.iter().enumerate().filter(|(core, held)| *core != but && **held > 0);
        held.max_by_key(|(_, held)| **held).map(|(core, _)| core)
    }

    /// Returns until when the site waits, if this report made it wait.
    pub fn report(&self, now: Instant, health: Health) -> Option<Instant> {
        let mut state = self.state.lock();
        match health {
            Health::Works(successes) => state.works(successes),
            Health::HostFailed => return state.fails(now),
            Health::Throttled => state.halve(),
        }
        None
    }

    /// An operator wants it tried now: no wait, and the next one begins at the first step.
    pub fn lift_back_off(&self) {
        let mut state = self.state.lock();
        if state.not_before.take().is_some() {
            // One connection tries, the rest follow its success.
            state.slots = 1;
        }
        (state.failures, state.backoffs) = (0, 0);
    }

    /// New limits, from a reload. Connections over a lowered limit end by themselves.
    pub fn set_limits(&self, limits: SiteLimits) {
        self.state.lock().limits = limits;
    }

    pub fn snapshot(&self) -> SiteSnapshot {
        let state = self.state.lock();
        let slots = state.slots.min(state.limits.connections_max);
        SiteSnapshot { leased: state.leased, slots, failures: state.failures, not_before: state.not_before }
    }
}

/// A look at a site.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SiteSnapshot {
    pub leased: u32,
    pub slots: u32,
    pub failures: u32,
    pub not_before: Option<Instant>,
}

impl State {
    fn works(&mut self, successes: u32) {
        (self.failures, self.backoffs) = (0, 0);
        self.round += successes;
        while self.round >= self.slots {
            self.round -= self.slots;
            self.slots += 1;
            if self.slots >= self.limits.connections_max {
                (self.slots, self.round) = (self.limits.connections_max.max(1), 0);
                break;
            }
        }
    }

    fn fails(&mut self, now: Instant) -> Option<Instant> {
        self.halve();
        self.failures += 1;
        if self.failures < self.limits.failures_max {
            return None;
        }
        let secs = self
            .limits
            .backoff_secs
            .saturating_mul(1 << self.backoffs.min(20))
            .min(self.limits.backoff_max_secs);
        let until = now + Duration::from_secs(secs);
        // A back-off that was set is kept: failures of connections that were already open do not lengthen it.
        if self.not_before.is_none() {
            self.backoffs += 1;
            self.not_before = Some(until);
        }
        self.not_before
    }

    fn halve(&mut self) {
        (self.slots, self.round) = ((self.slots / 2).max(1), 0);
    }
}

/// All sites. Cores keep the `Arc` of a site that they deliver to, so the table's own lock is rarely taken.
#[derive(Debug)]
pub struct SiteTable {
    sites: Mutex<HashMap<Box<str>, Arc<Site>>>,
    sites_max: usize,
}

impl SiteTable {
    pub fn new(sites_max: usize) -> SiteTable {
        SiteTable { sites: Mutex::new(HashMap::new()), sites_max }
    }

    pub fn site(&self, name: &str, limits: SiteLimits) -> Arc<Site> {
        let mut sites = self.sites.lock();
        if let Some(site) = sites.get(name) {
            return Arc::clone(site);
        }
        if sites.len() >= self.sites_max {
            // One that nobody holds and that remembers no trouble loses nothing by being forgotten.
            sites.retain(|_, site| Arc::strong_count(site) > 1 || site.state.lock().failures > 0);
        }
        let site = Arc::new(Site::new(name, limits));
        sites.insert(name.into(), Arc::clone(&site));
        site
    }

    pub fn len(&self) -> usize {
        self.sites.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> (Site, Instant) {
        (Site::new("mx.example", SiteLimits::default()), Instant::now())
    }

    #[test]
    fn site_grows_by_one_slot_a_round_up_to_its_limit() {
        let (site, now) = site();
        site.report(now, Health::Works(5));
        assert_eq!(site.snapshot().slots, 6);
        site.report(now, Health::Works(5));
        assert_eq!(site.snapshot().slots, 6, "a round is as many successes as slots");
        site.report(now, Health::Works(1000));
        assert_eq!(site.snapshot().slots, 20);
    }

    #[test]
    fn lifted_back_off_lets_one_connection_try_at_once() {
        let (site, now) = site();
        while site.report(now, Health::HostFailed).is_none() {}
        assert!(matches!(site.lease(0, 1, now), Lease::Wait { .. }));
        site.lift_back_off();
        assert_eq!((site.lease(0, 1, now), site.lease(0, 1, now)), (Lease::Granted, Lease::Full));
    }

    #[test]
    fn never_one_more_than_the_limit() {
        let (site, now) = site();
        let granted = (0..50).filter(|_| site.lease(0, 1, now) == Lease::Granted).count();
        assert_eq!(granted, 5);
        site.give_back(0);
        assert_eq!((site.lease(0, 1, now), site.lease(0, 1, now)), (Lease::Granted, Lease::Full));
    }

    #[test]
    fn each_core_gets_its_share() {
        let (site, now) = site();
        let granted = (0..50).filter(|_| site.lease(0, 2, now) == Lease::Granted).count();
        assert_eq!(granted, 3);
        assert_eq!(site.lease(1, 2, now), Lease::Granted);
    }

    #[test]
    fn holder_is_another_core_with_connections() {
        let (site, now) = site();
        assert_eq!(site.holder(0), None);
        (0..3).for_each(|core| assert_eq!(site.lease(core, 2, now), Lease::Granted));
        assert_eq!(site.lease(2, 2, now), Lease::Granted);
        assert_eq!((site.holder(0), site.holder(5)), (Some(2), Some(2)));
        assert!(site.holder(2).is_some_and(|core| core < 2));
    }

    #[test]
    fn failures_in_a_row_make_it_wait_twice_as_long_each_time() {
        let (site, now) = site();
        assert_eq!(
            (site.report(now, Health::HostFailed), site.report(now, Health::HostFailed)),
            (None, None)
        );
        let until = now + Duration::from_secs(60);
        assert_eq!(site.report(now, Health::HostFailed), Some(until));
        assert_eq!(
            site.report(now + Duration::from_secs(5), Health::HostFailed),
            Some(until),
            "kept exactly"
        );
        assert_eq!(site.lease(0, 1, now), Lease::Wait { until: Some(until) });
        assert_eq!((site.lease(0, 1, until), site.lease(0, 1, until)), (Lease::Granted, Lease::Full));
        assert_eq!(site.report(until, Health::HostFailed), Some(until + Duration::from_secs(120)));
        site.report(until, Health::Works(1));
        let lease = site.lease(0, 1, until);
        assert_eq!(
            lease,
            Lease::Wait { until: Some(until + Duration::from_secs(120)) },
            "one success ends no wait"
        );
    }

    #[test]
    fn host_failure_halves_the_slots() {
        let (site, now) = site();
        site.report(now, Health::Works(1000));
        site.report(now, Health::HostFailed);
        assert_eq!(site.snapshot().slots, 10);
    }

    #[test]
    fn limit_of_zero_holds_the_site() {
        let (site, now) = site();
        site.set_limits(SiteLimits { connections_max: 0, ..SiteLimits::default() });
        assert_eq!(site.lease(0, 1, now), Lease::Wait { until: None });
    }

    #[test]
    fn full_table_forgets_the_idle_and_healthy() {
        let table = SiteTable::new(2);
        let held = table.site("a", SiteLimits::default());
        table.site("b", SiteLimits::default());
        table.site("c", SiteLimits::default());
        assert_eq!(table.len(), 2);
        assert!(Arc::ptr_eq(&held, &table.site("a", SiteLimits::default())));
    }
}
