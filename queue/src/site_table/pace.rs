//! The rates of one site, with what was used of them.

use super::limits::{MESSAGE_RATES_MAX, Rate, SiteLimits};
use super::snapshot::RateSnapshot;
use super::state::Tokens;
use super::window::Window;
use std::time::{Duration, Instant};

/// Allocated for sites that have a rate.
#[derive(Debug)]
pub(super) struct Paces {
    connections: Option<Box<Window>>,
    messages: [Option<Box<Window>>; MESSAGE_RATES_MAX],
}

/// How much of its rates and connections a site gets for a time, in thousandths.
pub(super) const WHOLE: u32 = 1000;

/// A part of a limit, but never nothing of something.
pub(super) fn part(count: u32, permille: u32) -> u32 {
    let part = u64::from(count) * u64::from(permille.min(WHOLE)) / u64::from(WHOLE);
    u32::try_from(part).unwrap_or(count).max(count.min(1))
}

impl Paces {
    /// The windows for these limits. What `before` knows lives on where it covers the same time; no grant that it does
    /// not know of ends later than `since`.
    pub(super) fn new(limits: &SiteLimits, before: Option<&Paces>, since: Instant) -> Option<Box<Paces>> {
        let connections_before: Vec<&Window> =
            before.iter().filter_map(|paces| paces.connections.as_deref()).collect();
        let messages_before: Vec<&Window> = before.iter().flat_map(|paces| paces.windows()).collect();
        let connections =
            limits.connection_rate.and_then(|rate| window(rate, &connections_before, since)).map(Box::new);
        let messages = limits
            .message_rates
            .map(|rate| rate.and_then(|rate| window(rate, &messages_before, since)).map(Box::new));
        let paces = Paces { connections, messages };
        (paces.connections.is_some() || paces.is_for_messages()).then(|| Box::new(paces))
    }

    pub(super) fn is_for_messages(&self) -> bool {
        self.messages.iter().any(Option::is_some)
    }

    fn windows(&self) -> impl Iterator<Item = &Window> {
        self.messages.iter().flatten().map(Box::as_ref)
    }

    fn windows_mut(&mut self) -> impl Iterator<Item = &mut Window> {
        self.messages.iter_mut().flatten().map(Box::as_mut)
    }

    /// Up to `want` messages, or when there is one again.
    pub(super) fn take(&mut self, now: Instant, want: u32, permille: u32) -> Tokens {
        let left = self.windows().map(|window| window.left(now, part(window.rate().count, permille)));
        let left = left.min().unwrap_or(u32::MAX);
        if left == 0 {
            return Tokens::Wait { until: self.next_message_at(now, permille) };
        }
        let (count, until) = (left.min(want), now + self.validity());
        if count > 0 {
            self.windows_mut().for_each(|window| window.push(now, until, count));
        }
        Tokens::Granted { count, until }
    }

    fn validity(&self) -> Duration {
        self.windows().map(Window::validity).min().unwrap_or_default()
    }

    /// When every window has one again; `None` if one of them never has.
    fn next_message_at(&self, now: Instant, permille: u32) -> Option<Instant> {
        self.windows().try_fold(now, |at, window| {
            window.next_at(now, part(window.rate().count, permille), 0).map(|next| next.max(at))
        })
    }

    pub(super) fn give_back(&mut self, until: Instant, count: u32) {
        self.windows_mut().for_each(|window| window.give_back(until, count));
    }

    pub(super) fn restore(&mut self, index: usize, count: u32, at: Instant) {
        if let Some(Some(window)) = self.messages.get_mut(index) {
            window.restore(at, count);
        }
    }

    /// Counts a connection that is opened now. An error says when one may be opened; `None`: never.
    pub(super) fn connect(&mut self, now: Instant, permille: u32) -> Result<(), Option<Instant>> {
        let Some(window) = &mut self.connections else { return Ok(()) };
        let count_max = part(window.rate().count, permille);
        if window.left(now, count_max) == 0 {
            return Err(window.next_at(now, count_max, 0));
        }
        window.push(now, now + window.validity(), 1);
        Ok(())
    }

    pub(super) fn is_spent(&self, now: Instant) -> bool {
        self.connections.as_deref().into_iter().chain(self.windows()).all(|window| window.is_spent(now))
    }

    pub(super) fn connection_snapshot(&self, now: Instant, permille: u32) -> Option<RateSnapshot> {
        self.connections.as_ref().map(|window| look(window, now, permille))
    }

    pub(super) fn message_snapshots(
        &self,
        now: Instant,
        permille: u32,
    ) -> [Option<RateSnapshot>; MESSAGE_RATES_MAX] {
        std::array::from_fn(|at| self.messages[at].as_ref().map(|window| look(window, now, permille)))
    }
}

fn look(window: &Window, now: Instant, permille: u32) -> RateSnapshot {
    let count_max = part(window.rate().count, permille);
    let left = window.left(now, count_max);
    let next_at = if left < count_max { window.next_at(now, count_max, left) } else { None };
    RateSnapshot { rate: window.rate(), left, next_at }
}

/// A window for this rate, out of the one before that knows most of it: of the same length; else the next longer one;
/// else the longest.
fn window(rate: Rate, before: &[&Window], since: Instant) -> Option<Window> {
    if rate.window.is_zero() {
        return None;
    }
    let len = |window: &&&Window| window.rate().window;
    let covering = before.iter().filter(|window| len(window) >= rate.window).min_by_key(len);
    let source = covering.or_else(|| before.iter().max_by_key(len));
    Some(source.map_or_else(|| Window::new(rate, since), |source| source.resized(rate)))
}
