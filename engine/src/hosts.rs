//! Addresses that did not let us connect: one table for all cores, so that what one of them waited for the others skip.
//!
//! An address that failed rests for [`REST`] while its site has another. One that timed out twice, [`APART`] or more
//! apart and with no success between, is down for [`DOWN`] (qmail's tcpto). When its rest is over one connection tries
//! it out, and nobody waits for that one; the others go on to skip it until it has answered.
//!
//! Only connecting counts: what a host says once it has answered is between it and the source that it said it to.
//! Asked once a connection, never for a delivery. Pure: the caller passes `now`.
//! Bound: [`HOSTS_MAX`] addresses; past it those whose rest is over are forgotten, then no new ones are taken in.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// After a failure.
pub const REST: Duration = Duration::from_secs(60);

/// After two time-outs.
pub const DOWN: Duration = Duration::from_secs(3600);

/// Two time-outs closer together than this are one.
const APART: Duration = Duration::from_secs(120);

/// Addresses that are remembered.
const HOSTS_MAX: usize = 65_536;

/// See the module.
#[derive(Debug, Default)]
pub struct Hosts {
    known: Mutex<HashMap<SocketAddr, Trouble>>,
}

/// What is remembered of an address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Trouble {
    pub rests_until: Instant,
    /// The first time-out since it last answered.
    timed_out: Option<Instant>,
    /// Two time-outs: no single connection's bad luck.
    pub is_down: bool,
    /// Failures since it last answered.
    pub failures: u32,
    pub why: String,
}

/// How connecting failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ConnectFailure {
    TimedOut,
    /// Refused, unreachable, no descriptor left.
    Refused,
}

/// The answer to whether an address may be connected to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trial {
    /// Nothing is known against it.
    Fine,
    /// It has rested. This connection tries it out, and others skip it meanwhile.
    Probe,
    Resting {
        until: Instant,
    },
}

impl Hosts {
    /// May we connect? `patience`: how long the connection may take.
    pub fn try_out(&self, address: SocketAddr, now: Instant, patience: Duration) -> Trial {
        let mut known = self.known.lock();
        match known.get_mut(&address) {
            None => Trial::Fine,
            Some(trouble) if trouble.rests_until > now => Trial::Resting { until: trouble.rests_until },
            Some(trouble) => {
                trouble.rests_until = now + patience;
                Trial::Probe
            }
        }
    }

    /// Until when it rests, if it does.
    pub fn rests_until(&self, address: SocketAddr, now: Instant) -> Option<Instant> {
        self.known.lock().get(&address).map(|trouble| trouble.rests_until).filter(|until| *until > now)
    }

    /// It has not answered yet: whoever has another address should try that one meanwhile.
    pub fn is_slow(&self, address: SocketAddr, now: Instant, patience: Duration) {
        let mut known = self.known.lock();
        if let Some(trouble) = entry(&mut known, address, now) {
            trouble.rests_until = trouble.rests_until.max(now + patience);
            trouble.why = "no answer yet".into();
        }
    }

    /// Connecting failed.
    pub fn failed(&self, address: SocketAddr, now: Instant, failure: ConnectFailure, why: &str) {
        let mut known = self.known.lock();
        let Some(trouble) = entry(&mut known, address, now) else { return };
        trouble.failures = trouble.failures.saturating_add(1);
        why.clone_into(&mut trouble.why);
        let first = trouble.timed_out.filter(|_| failure == ConnectFailure::TimedOut);
        trouble.is_down |= first.is_some_and(|first| now.saturating_duration_since(first) >= APART);
        if failure == ConnectFailure::TimedOut {
            trouble.timed_out.get_or_insert(now);
        }
        trouble.rests_until = now + if trouble.is_down { DOWN } else { REST };
    }

    /// It answered: what was known against it is forgotten.
    pub fn works(&self, address: SocketAddr) {
        self.known.lock().remove(&address);
    }

    /// What is known against an address.
    pub fn trouble(&self, address: SocketAddr) -> Option<Trouble> {
        self.known.lock().get(&address).cloned()
    }

    /// Everything that is known, the longest rest first.
    pub fn all(&self) -> Vec<(SocketAddr, Trouble)> {
        let known = self.known.lock();
        let mut all: Vec<_> = known.iter().map(|(address, trouble)| (*address, trouble.clone())).collect();
        all.sort_by_key(|(address, trouble)| (std::cmp::Reverse(trouble.rests_until), *address));
        all
    }

    /// Forgets those addresses, or all of them. Returns how many were known.
    pub fn forget(&self, is_meant: impl Fn(&SocketAddr) -> bool) -> usize {
        let mut known = self.known.lock();
        let before = known.len();
        known.retain(|address, _| !is_meant(address));
        before - known.len()
    }
}

fn entry(
    known: &mut HashMap<SocketAddr, Trouble>,
    address: SocketAddr,
    now: Instant,
) -> Option<&mut Trouble> {
    if known.len() >= HOSTS_MAX && !known.contains_key(&address) {
        known.retain(|_, trouble| trouble.rests_until > now);
        if known.len() >= HOSTS_MAX {
            return None;
        }
    }
    Some(known.entry(address).or_insert_with(|| Trouble {
        rests_until: now,
        timed_out: None,
        is_down: false,
        failures: 0,
        why: String::new(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ConnectFailure::{Refused, TimedOut};

    const PATIENCE: Duration = Duration::from_secs(60);

    fn address() -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], 25))
    }

    fn after(start: Instant, secs: u64) -> Instant {
        start + Duration::from_secs(secs)
    }

    #[test]
    fn two_time_outs_apart_make_it_rest_for_an_hour() {
        let (hosts, start) = (Hosts::default(), Instant::now());
        hosts.failed(address(), start, TimedOut, "no answer");
        assert_eq!(hosts.rests_until(address(), start), Some(start + REST));
        let again = after(start, 119);
        hosts.failed(address(), again, TimedOut, "no answer");
        assert_eq!(hosts.rests_until(address(), again), Some(again + REST), "too close together");
        let again = after(start, 120);
        hosts.failed(address(), again, TimedOut, "no answer");
        assert_eq!(hosts.rests_until(address(), again), Some(again + DOWN));
    }

    #[test]
    fn success_between_two_time_outs_clears_the_first() {
        let (hosts, start) = (Hosts::default(), Instant::now());
        hosts.failed(address(), start, TimedOut, "no answer");
        hosts.works(address());
        assert_eq!(hosts.try_out(address(), start, PATIENCE), Trial::Fine);
        let again = after(start, 600);
        hosts.failed(address(), again, TimedOut, "no answer");
        assert_eq!(hosts.rests_until(address(), again), Some(again + REST));
    }

    #[test]
    fn refusals_never_make_it_down() {
        let (hosts, start) = (Hosts::default(), Instant::now());
        for round in 0..10 {
            let now = after(start, round * 300);
            hosts.failed(address(), now, Refused, "connection refused");
            assert_eq!(hosts.rests_until(address(), now), Some(now + REST));
        }
    }

    #[test]
    fn one_tries_it_out_when_its_rest_is_over() {
        let (hosts, start) = (Hosts::default(), Instant::now());
        hosts.failed(address(), start, Refused, "connection refused");
        let until = start + REST;
        assert_eq!(hosts.try_out(address(), start, PATIENCE), Trial::Resting { until });
        assert_eq!(hosts.try_out(address(), until, PATIENCE), Trial::Probe);
        assert_eq!(hosts.try_out(address(), until, PATIENCE), Trial::Resting { until: until + PATIENCE });
    }

    #[test]
    fn slow_one_is_skipped_but_not_counted_as_failed() {
        let (hosts, start) = (Hosts::default(), Instant::now());
        hosts.is_slow(address(), start, PATIENCE);
        assert_eq!(hosts.all()[0].1.failures, 0);
        assert_eq!(hosts.rests_until(address(), start), Some(start + PATIENCE));
    }

    #[test]
    fn full_table_keeps_those_that_rest() {
        let (hosts, start) = (Hosts::default(), Instant::now());
        let address =
            |number: usize| SocketAddr::from((std::net::Ipv4Addr::from(u32::try_from(number).unwrap()), 25));
        for number in 0..HOSTS_MAX {
            hosts.failed(address(number), start, Refused, "");
        }
        hosts.failed(address(HOSTS_MAX), start, Refused, "");
        assert_eq!(hosts.all().len(), HOSTS_MAX);
        let later = after(start, 61);
        hosts.failed(address(HOSTS_MAX), later, Refused, "");
        assert_eq!(hosts.all().len(), 1);
        assert_eq!(hosts.forget(|_| true), 1);
    }
}
