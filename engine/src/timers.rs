//! Deadlines of many connections, cheap to have and rarely looked at.
//!
//! A connection stands in the wheel once. When its slot comes up its owner says when it really is due, and it goes
//! back in: so activity, which moves deadlines with every reply, costs nothing here. A deadline that moved closer
//! is noticed late by at most [`RECHECK`]. Bound: one entry per connection.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// An entry is looked at again after this long at the latest.
pub(crate) const RECHECK: Duration = Duration::from_secs(4);

/// Deadlines closer together than this are one slot.
const SLOT: Duration = Duration::from_millis(100);

/// See the module. `K` names the connection.
#[derive(Debug)]
pub(crate) struct Timers<K> {
    base: Instant,
    slots: BTreeMap<u64, Vec<K>>,
}

impl<K> Timers<K> {
    pub(crate) fn new(now: Instant) -> Timers<K> {
        Timers { base: now, slots: BTreeMap::new() }
    }

    /// Puts `key` in for `deadline`, or for the next re-check if that is sooner.
    pub(crate) fn insert(&mut self, now: Instant, deadline: Instant, key: K) {
        let at = deadline.min(now + RECHECK).max(now);
        // Rounded up: never looked at before its time.
        let slot = at.saturating_duration_since(self.base).as_nanos() / SLOT.as_nanos() + 1;
        self.slots.entry(u64::try_from(slot).unwrap_or(u64::MAX)).or_default().push(key);
    }

    /// Everything whose slot has come.
    pub(crate) fn expired(&mut self, now: Instant) -> Vec<K> {
        let mut keys = Vec::new();
        while let Some(slot) = self.slots.first_entry() {
            if self.base + SLOT * u32::try_from(*slot.key()).unwrap_or(u32::MAX) > now {
                break;
            }
            keys.append(&mut slot.remove());
        }
        keys
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        let (slot, _) = self.slots.first_key_value()?;
        Some(self.base + SLOT * u32::try_from(*slot).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_up_after_their_deadline_and_never_before() {
        let now = Instant::now();
        let mut timers = Timers::new(now);
        timers.insert(now, now + Duration::from_millis(250), 'a');
        timers.insert(now, now + Duration::from_secs(900), 'b');
        assert_eq!(timers.expired(now + Duration::from_millis(250)).len(), 0);
        assert_eq!(timers.expired(timers.next().unwrap()), ['a']);
        assert_eq!(timers.expired(now + RECHECK + SLOT), ['b'], "to be looked at, not necessarily due");
        assert_eq!(timers.next(), None);
    }
}
