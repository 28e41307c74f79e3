//! Virtual time: stands still until the world moves it.

use message::UnixMillis;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// 2026-11-22, so that dates in simulated mail look like dates.
const WALL_AT_START: UnixMillis = UnixMillis(1_795_300_000_000);

/// The clock of a simulation; clones show the same time. Give one to each core in place of the system's clock.
#[derive(Clone, Debug)]
pub struct SimClock {
    /// Taken once from the system, since an `Instant` cannot be made up. Only differences from it are ever seen.
    base: Instant,
    nanos: Arc<AtomicU64>,
}

impl SimClock {
    pub(super) fn new() -> SimClock {
        SimClock { base: Instant::now(), nanos: Arc::new(AtomicU64::new(0)) }
    }

    pub fn now(&self) -> Instant {
        self.base + self.elapsed()
    }

    pub fn wall(&self) -> UnixMillis {
        UnixMillis(WALL_AT_START.0 + self.nanos() / 1_000_000)
    }

    /// Since the simulation began.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.nanos())
    }

    pub(super) fn nanos(&self) -> u64 {
        self.nanos.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, nanos: u64) {
        debug_assert!(nanos >= self.nanos(), "time does not run backwards");
        self.nanos.store(nanos, Ordering::Relaxed);
    }
}

/// Nanoseconds of a duration; more than 584 years are 584 years.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) const MICRO: u64 = 1_000;
pub(super) const MILLI: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1_000_000_000;
