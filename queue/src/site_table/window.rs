//! One rate, kept exactly: in every stretch of time as long as the window, at most so many.
//!
//! What was granted may be used at any moment before its `until`, so it counts until a whole window after that. Grants
//! whose `until` are close together share an entry, which ends with the last of them: what is lost by that and by the
//! validity is less than 2 parts in 128 of the rate, and never is there one too many.
//!
//! Callers' clocks differ by a turn of their loops. An entry is kept for a while after it stopped counting, so that
//! a caller whose moment is a little past still gets an exact answer; one that is further behind is told to wait.
//! Bound: `ENTRIES_MAX` entries (24 bytes each), and no more than grants in the window.

use super::limits::{Rate, WINDOW_MAX};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Grants that end within this part of the window share an entry; a grant is valid for as long at most.
const GRAIN: u32 = 128;

/// A caller may be this part of the window behind another and still be answered.
const BEHIND: u32 = 16;

/// A grant is valid for this long at most, however long the window.
pub(super) const VALID_MAX: Duration = Duration::from_secs(1);

/// As many as can be apart by a grain in a window and what is kept behind it; the oldest are merged past that.
const ENTRIES_MAX: usize = GRAIN as usize + (GRAIN / BEHIND) as usize + 8;

/// The messages, or connections, of grants that end close together.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// None of them is used at this moment or later.
    until: Instant,
    count: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Window {
    rate: Rate,
    /// By `until`.
    entries: VecDeque<Entry>,
    /// Sum of the entries.
    total: u64,
    /// The first `until` in the last entry.
    opened: Instant,
    /// The last `until` that was forgotten: who asks for a moment when that would count cannot be answered.
    forgotten: Option<Instant>,
    /// Grants that ended at this moment or before may be older than the window.
    since: Instant,
}

impl Window {
    /// Every grant that ends later than `since` will be counted here.
    pub(super) fn new(rate: Rate, since: Instant) -> Window {
        Window { rate, entries: VecDeque::new(), total: 0, opened: since, forgotten: None, since }
    }

    pub(super) fn rate(&self) -> Rate {
        self.rate
    }

    fn len(&self) -> Duration {
        self.rate.window.min(WINDOW_MAX)
    }

    /// A window of another count or length that knows what this one knows. What a shorter one forgot is not known to it: a new
    /// rate per day does not hold all mail for a day because the minutes before are unknown.
    pub(super) fn resized(&self, rate: Rate) -> Window {
        let is_longer = rate.window > self.rate.window;
        let since = self.forgotten.map_or(self.since, |until| until.max(self.since));
        let forgotten = self.forgotten.filter(|_| !is_longer);
        Window { rate, since, forgotten, ..self.clone() }
    }

    /// How long a grant may be valid without costing more of the rate than a grain.
    pub(super) fn validity(&self) -> Duration {
        (self.len() / GRAIN).clamp(Duration::from_nanos(1), VALID_MAX)
    }

    /// Used and not yet a window ago, for one who would use more from `now` on.
    fn used(&self, now: Instant) -> u64 {
        let past = self.entries.iter().take_while(|entry| entry.until + self.len() <= now);
        self.total - past.map(|entry| entry.count).sum::<u64>()
    }

    /// How many of `count_max` a window may be used from `now` on; `count_max` is the rate's own count or less.
    pub(super) fn left(&self, now: Instant, count_max: u32) -> u32 {
        if self.forgotten.is_some_and(|until| now < until + self.len()) {
            return 0;
        }
        u32::try_from(u64::from(count_max).saturating_sub(self.used(now))).unwrap_or(u32::MAX)
    }

    /// When more than `left` are left, if nothing else is used until then. `None`: never, the count is too small.
    pub(super) fn next_at(&self, now: Instant, count_max: u32, left: u32) -> Option<Instant> {
        let enough = u64::from(count_max).checked_sub(u64::from(left) + 1)?;
        let now = self.forgotten.map_or(now, |until| now.max(until + self.len()));
        let mut used = self.total;
        for entry in &self.entries {
            if used <= enough {
                break;
            }
            used -= entry.count;
            if used <= enough {
                return Some(now.max(entry.until + self.len()));
            }
        }
        Some(now)
    }

    /// `count` are used between `now` and `until`.
    pub(super) fn push(&mut self, now: Instant, until: Instant, count: u32) {
        self.forget(now);
        self.total += u64::from(count);
        let grain = self.len() / GRAIN;
        if let Some(last) = self.entries.back_mut()
            && (until <= last.until || until < self.opened + grain)
        {
            last.until = last.until.max(until);
            last.count += u64::from(count);
            return;
        }
        self.opened = until;
        self.entries.push_back(Entry { until, count: u64::from(count) });
        self.keep_bound();
    }

    /// Some of a grant that ended at `until` were not used. What is not found is left to expire.
    pub(super) fn give_back(&mut self, until: Instant, count: u32) {
        if until <= self.since || self.forgotten.is_some_and(|forgotten| until <= forgotten) {
            return;
        }
        // The grant's own entry, or an older one: that one ends earlier, so what is left counts for longer.
        let at = self.entries.partition_point(|entry| entry.until < until);
        if let Some(entry) = self.entries.get_mut(at) {
            let count = u64::from(count).min(entry.count);
            entry.count -= count;
            self.total -= count;
        }
    }

    /// `count` were used before `at`, before this window was there to see it.
    pub(super) fn restore(&mut self, at: Instant, count: u32) {
        let place = self.entries.partition_point(|entry| entry.until < at);
        if place == self.entries.len() {
            self.opened = at;
        }
        self.entries.insert(place, Entry { until: at, count: u64::from(count) });
        self.total += u64::from(count);
        self.keep_bound();
    }

    /// True if nothing that was used counts from `now` on.
    pub(super) fn is_spent(&self, now: Instant) -> bool {
        self.used(now) == 0
    }

    /// Drops what no caller can ask about.
    fn forget(&mut self, now: Instant) {
        let kept = self.len() + self.len() / BEHIND;
        while let Some(first) = self.entries.front()
            && first.until + kept <= now
        {
            self.total -= first.count;
            // What was restored may be older than what was forgotten before it.
            self.forgotten = self.forgotten.max(Some(first.until));
            self.entries.pop_front();
        }
    }

    fn keep_bound(&mut self) {
        while self.entries.len() > ENTRIES_MAX {
            let first = self.entries.pop_front().expect("more than one");
            // Counted for longer than it was used: too many never.
            self.entries[0].count += first.count;
        }
    }
}
