//! The only place where the system's time is read (invariant 2).

use message::UnixMillis;
use std::time::{Duration, Instant, SystemTime};

/// Where a core's time comes from: the system, or a simulation.
pub trait Clock {
    fn now(&self) -> Instant;
    fn wall(&self) -> UnixMillis;
}

/// The system's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wall(&self) -> UnixMillis {
        wall()
    }
}

/// A clock set before 1970 reads as 1970.
pub fn wall() -> UnixMillis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// For the control thread, which has no core's clock.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The wall time for whoever judges certificates.
#[derive(Debug)]
pub struct CertificateClock;

impl rustls::time_provider::TimeProvider for CertificateClock {
    fn current_time(&self) -> Option<rustls_pki_types::UnixTime> {
        let now = SystemClock.wall();
        Some(rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_millis(now.0)))
    }
}
