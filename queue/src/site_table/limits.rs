//! What a site may bear: as the operator, or a rule for its provider, says.

use std::time::Duration;

/// At most `count` in every stretch of time of this length, wherever it begins.
///
/// A count of 0 lets nothing through. A window of no length limits nothing; one of more than [`WINDOW_MAX`] counts as
/// that.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    pub count: u32,
    pub window: Duration,
}

/// The longest window that is kept.
pub const WINDOW_MAX: Duration = Duration::from_secs(31 * 24 * 3600);

/// Rates that one site can have for its messages: per second, minute, hour and day.
pub const MESSAGE_RATES_MAX: usize = 4;

impl Rate {
    pub const fn per_second(count: u32) -> Rate {
        Rate { count, window: Duration::from_secs(1) }
    }

    pub const fn per_minute(count: u32) -> Rate {
        Rate { count, window: Duration::from_secs(60) }
    }

    pub const fn per_hour(count: u32) -> Rate {
        Rate { count, window: Duration::from_secs(3600) }
    }

    pub const fn per_day(count: u32) -> Rate {
        Rate { count, window: Duration::from_secs(24 * 3600) }
    }
}

/// Limits of one site, from one source.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SiteLimits {
    /// Most connections at a time, over all cores. 0 holds the site. At most 65,535 a core are counted.
    pub connections_max: u32,
    /// Connections to a site that nothing is known of.
    pub slots_initial: u32,
    /// First wait after failures in a row; doubles up to `backoff_max_secs`.
    pub backoff_secs: u64,
    pub backoff_max_secs: u64,
    /// Failures in a row, without a success, that make the site wait: it is taken for dead.
    pub failures_max: u32,
    /// New connections, over all cores.
    pub connection_rate: Option<Rate>,
    /// Messages, over all cores; every one of them holds. Their order is that of [`super::Site::restore_used`].
    pub message_rates: [Option<Rate>; MESSAGE_RATES_MAX],
    /// When slow deliveries cost the site connections.
    pub latency: LatencyLimits,
    /// A core may have all connections but one for each of the others, and not just its equal part: where a few that last
    /// long must not hold up the rest.
    pub is_uneven: bool,
}

/// When a site counts as slow. To the millisecond.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LatencyLimits {
    /// Smoothed latency above this is slow, whatever the best was.
    pub max: Option<Duration>,
    /// Smoothed latency above so many times the best seen is slow; 0 does not look at it.
    pub factor: u32,
    /// Latency up to this is never slow by `factor`: the best of a near host may be a millisecond.
    pub floor: Duration,
}

impl Default for LatencyLimits {
    fn default() -> LatencyLimits {
        LatencyLimits { max: None, factor: 4, floor: Duration::from_secs(2) }
    }
}

impl Default for SiteLimits {
    fn default() -> SiteLimits {
        SiteLimits {
            connections_max: 20,
            slots_initial: 5,
            backoff_secs: 60,
            backoff_max_secs: 3600,
            failures_max: 3,
            connection_rate: None,
            message_rates: [None; MESSAGE_RATES_MAX],
            latency: LatencyLimits::default(),
            is_uneven: false,
        }
    }
}

/// The limits without their rates, as an entry keeps them: most entries have no rates, and there are many entries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plain {
    pub(super) connections_max: u32,
    pub(super) slots_initial: u32,
    pub(super) backoff_secs: u32,
    pub(super) backoff_max_secs: u32,
    pub(super) failures_max: u32,
    pub(super) is_uneven: bool,
    latency_max_ms: u32,
    latency_factor: u32,
    latency_floor_ms: u32,
}

/// No latency limit.
const NEVER_MS: u32 = u32::MAX;

impl Plain {
    pub(super) fn of(limits: &SiteLimits) -> Plain {
        let latency = limits.latency;
        Plain {
            connections_max: limits.connections_max,
            slots_initial: limits.slots_initial,
            backoff_secs: u32::try_from(limits.backoff_secs).unwrap_or(u32::MAX),
            backoff_max_secs: u32::try_from(limits.backoff_max_secs).unwrap_or(u32::MAX),
            failures_max: limits.failures_max,
            is_uneven: limits.is_uneven,
            latency_max_ms: latency.max.map_or(NEVER_MS, millis),
            latency_factor: latency.factor,
            latency_floor_ms: millis(latency.floor),
        }
    }

    /// As the operator said them, but for the rates, which are kept elsewhere.
    pub(super) fn to_limits(self) -> SiteLimits {
        let ms = |ms: u32| Duration::from_millis(u64::from(ms));
        SiteLimits {
            connections_max: self.connections_max,
            slots_initial: self.slots_initial,
            backoff_secs: u64::from(self.backoff_secs),
            backoff_max_secs: u64::from(self.backoff_max_secs),
            failures_max: self.failures_max,
            connection_rate: None,
            message_rates: [None; MESSAGE_RATES_MAX],
            latency: LatencyLimits {
                max: (self.latency_max_ms != NEVER_MS).then(|| ms(self.latency_max_ms)),
                factor: self.latency_factor,
                floor: ms(self.latency_floor_ms),
            },
            is_uneven: self.is_uneven,
        }
    }

    /// Is a site slow whose deliveries take `smoothed` now and took `best` once? Both in microseconds.
    pub(super) fn is_slow(&self, smoothed_us: u32, best_us: u32) -> bool {
        let (smoothed, best) = (u64::from(smoothed_us), u64::from(best_us));
        let over = |ms: u32| ms != NEVER_MS && smoothed > u64::from(ms) * 1000;
        let rose = self.latency_factor > 0 && smoothed > best * u64::from(self.latency_factor);
        over(self.latency_max_ms) || rose && over(self.latency_floor_ms)
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(NEVER_MS)
}
