//! Whether a campaign's mail may go out now: its phase, and its rate over all cores.
//!
//! The rate is kept by one number: the moment from which on the next recipient may begin. Each recipient moves it on by
//! the time that the rate leaves for one; it may lag behind the clock by [`SLACK`] and no more, so that a core which was
//! busy elsewhere catches up and a pause is not made up for. Any window holds the rate and what [`SLACK`] is worth.

use serde::{Deserialize, Serialize};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How much of the rate may be made up for: a core looks at its work again within a fraction of this.
const SLACK: Duration = Duration::from_millis(50);

/// What a campaign is at.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Phase {
    Running,
    Paused,
    /// For good.
    Cancelled,
}

impl Phase {
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Running => "running",
            Phase::Paused => "paused",
            Phase::Cancelled => "cancelled",
        }
    }
}

/// What somebody who wants to begin is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Passage {
    /// Up to that many recipients may begin now; they are counted as begun.
    Now(usize),
    Later(Instant),
    Paused,
    Cancelled,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Valve {
    phase: AtomicU8,
    /// Nanoseconds for one recipient; 0: no limit.
    interval_ns: AtomicU64,
    /// Nanoseconds since `begun` from which on the next one may begin.
    next_ns: AtomicU64,
    /// When the first one wanted to.
    begun: OnceLock<Instant>,
}

impl Valve {
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            1 => Phase::Paused,
            2 => Phase::Cancelled,
            _ => Phase::Running,
        }
    }

    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// Unless it is cancelled.
    pub fn pause(&self) {
        let (running, paused) = (Phase::Running as u8, Phase::Paused as u8);
        let _ = self.phase.compare_exchange(running, paused, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// `None`: as fast as it goes.
    pub fn set_interval(&self, interval: Option<Duration>) {
        let nanos =
            interval.map_or(0, |interval| u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(1));
        self.interval_ns.store(nanos, Ordering::Release);
    }

    /// Whether up to `wanted` recipients may begin. Two atomic loads without a rate, one exchange with one.
    pub fn pass(&self, now: Instant, wanted: usize) -> Passage {
        match self.phase() {
            Phase::Paused => return Passage::Paused,
            Phase::Cancelled => return Passage::Cancelled,
            Phase::Running => {}
        }
        match self.interval_ns.load(Ordering::Acquire) {
            0 => Passage::Now(wanted),
            interval => self.take(now, wanted, interval),
        }
    }

    fn take(&self, now: Instant, wanted: usize, interval: u64) -> Passage {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let begun = *self.begun.get_or_init(|| now);
        let now_ns = nanos(now.saturating_duration_since(begun));
        let mut next = self.next_ns.load(Ordering::Acquire);
        loop {
            let from = next.max(now_ns.saturating_sub(nanos(SLACK)));
            if from > now_ns {
                return Passage::Later(now + Duration::from_nanos(from - now_ns));
            }
            let room = usize::try_from((now_ns - from) / interval + 1).unwrap_or(usize::MAX);
            let count = wanted.min(room);
            let then = from.saturating_add(interval.saturating_mul(count as u64));
            match self.next_ns.compare_exchange_weak(next, then, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Passage::Now(count),
                Err(other) => next = other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phase_decides_before_the_rate() {
        let (valve, now) = (Valve::default(), crate::clock::now());
        assert_eq!(valve.pass(now, 3), Passage::Now(3));
        valve.set_phase(Phase::Paused);
        assert_eq!(valve.pass(now, 3), Passage::Paused);
        valve.set_phase(Phase::Cancelled);
        valve.pause();
        assert_eq!((valve.pass(now, 3), valve.phase()), (Passage::Cancelled, Phase::Cancelled));
    }

    #[test]
    fn no_window_holds_more_than_the_rate_and_its_slack() {
        let valve = Valve::default();
        valve.set_interval(Some(Duration::from_millis(1)));
        let (mut begun, mut at) = (Vec::new(), crate::clock::now());
        for step in 0..5000u64 {
            if let Passage::Now(count) = valve.pass(at, 1 + (step % 4) as usize) {
                begun.extend(std::iter::repeat_n(at, count));
            }
            at += Duration::from_micros(37 * (step % 50));
        }
        let spans = begun.iter().enumerate().map(|(first, from)| {
            begun[first..].iter().take_while(|at| **at < *from + Duration::from_millis(500)).count()
        });
        assert!(spans.max().is_some_and(|most| (400..=551).contains(&most)));
    }

    #[test]
    fn wait_ends_when_the_next_one_may_begin() {
        let valve = Valve::default();
        valve.set_interval(Some(Duration::from_secs(10)));
        let now = crate::clock::now();
        assert_eq!(valve.pass(now, 5), Passage::Now(1));
        let Passage::Later(until) = valve.pass(now, 5) else { panic!("two in ten seconds") };
        assert!(until > now + Duration::from_secs(9));
        assert_eq!(valve.pass(until, 5), Passage::Now(1));
    }
}
