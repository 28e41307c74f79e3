//! A look at a site, for `ringpost sites` and `ringpost explain`.

use super::limits::{MESSAGE_RATES_MAX, Rate, SiteLimits};
use std::time::{Duration, Instant};

/// See the module.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SiteSnapshot {
    pub limits: SiteLimits,
    /// Connections that are out, over all cores.
    pub leased: u32,
    /// Connections that it may have now.
    pub slots: u32,
    /// Failures in a row, without a success.
    pub failures: u32,
    /// What keeps every connection from it, if anything does.
    pub hold: Option<Hold>,
    /// A rule lowered its connections and rates.
    pub slower: Option<Slower>,
    /// `None` before the first delivery that was timed.
    pub latency: Option<Latency>,
    pub connection_rate: Option<RateSnapshot>,
    /// In the order of [`SiteLimits::message_rates`].
    pub message_rates: [Option<RateSnapshot>; MESSAGE_RATES_MAX],
}

/// Why nothing goes to a site.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hold {
    /// `None`: until the operator gives it connections.
    pub until: Option<Instant>,
    pub why: Why,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Why {
    /// Its limit of connections is 0.
    Held,
    /// A rule for its provider said so.
    Suspended,
    /// The same, for this source's own fault.
    Blocked,
    /// As many failures in a row as its limits allow.
    Dead,
}

/// A part of the connections and of the rates, for a time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Slower {
    /// Thousandths; never less than one connection and one message a window.
    pub permille: u32,
    pub until: Instant,
}

/// How long deliveries take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Latency {
    /// The best seen; it creeps up, so that a path that became longer for good is accepted.
    pub best: Duration,
    pub smoothed: Duration,
    /// It costs the site connections.
    pub is_slow: bool,
}

/// What is left of a rate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RateSnapshot {
    pub rate: Rate,
    pub left: u32,
    /// When more than that are left, if nothing is used until then. `None`: all are left, or the rate is 0.
    pub next_at: Option<Instant>,
}
