//! What warm-ups have used, over restarts: noted in the journal as it is used, put back into the site table.
//!
//! An entry of the table forgets with the process; the journal does not. A transaction of a source that is warming up
//! costs a mark, no other does. Bound: [`HOURS_KEPT`] totals for each source, provider and core.

use crate::clock::Clock;
use crate::core::Core;
use crate::domains::SiteKey;
use crate::drive::limits::WARM_UP;
use message::UnixMillis;
use parking_lot::Mutex;
use queue::journal::{Mark, Spent};
use queue::site_table::Site;
use ring::Ring;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A warm-up looks at the last 24 hours; the hour that they begin in is the 25th.
const HOURS_KEPT: u32 = 25;

const HOUR: Duration = Duration::from_secs(3600);

fn hour_of(wall: UnixMillis) -> u32 {
    u32::try_from(wall.seconds() / HOUR.as_secs()).unwrap_or(u32::MAX)
}

/// The allowance of a source at a site or provider, as the journal names it (FNV-1a).
fn key_of(entry: &Site) -> u64 {
    let octets = entry.source().bytes().chain([0xff]).chain(entry.name().bytes());
    octets.fold(0xcbf2_9ce4_8422_2325, |hash, octet| (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3))
}

/// What one core has sent in the name of warm-ups, and what it says for cores that are no more.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// By key, partition and hour.
    totals: HashMap<(u64, u8, u32), u32>,
}

impl Ledger {
    /// Takes over what the journals say of the core's own partition, or of those that have no core now.
    pub(crate) fn new(index: usize, cores: usize, spent: &HashMap<(u64, u8, u32), u32>) -> Ledger {
        let is_ours = |partition: u8| match usize::from(partition) {
            own if own == index => true,
            orphan => index == 0 && orphan >= cores,
        };
        let totals = spent.iter().filter(|((_, partition, _), _)| is_ours(*partition));
        Ledger { totals: totals.map(|(place, total)| (*place, *total)).collect() }
    }

    fn spend(&mut self, key: u64, partition: u8, hour: u32) -> Spent {
        let total = self.totals.entry((key, partition, hour)).or_default();
        *total = total.saturating_add(1);
        Spent { key, partition, hour, total: *total }
    }

    /// What a new journal must say again.
    fn kept(&mut self, now: u32) -> Vec<Mark> {
        self.totals.retain(|(_, _, hour), _| *hour + HOURS_KEPT > now);
        let mark = |((key, partition, hour), total): (&(u64, u8, u32), &u32)| {
            Mark::Spent(Spent { key: *key, partition: *partition, hour: *hour, total: *total })
        };
        self.totals.iter().map(mark).collect()
    }
}

/// What was used before the start, until its entry is in the table again: all cores look here when they make one.
#[derive(Debug, Default)]
pub struct Unrestored {
    /// By key: hours, and what was used in each.
    used: Mutex<HashMap<u64, Vec<(u32, u32)>>>,
}

impl Unrestored {
    pub(crate) fn take_over(&self, spent: &HashMap<(u64, u8, u32), u32>) {
        let mut used = self.used.lock();
        for ((key, _, hour), total) in spent {
            used.entry(*key).or_default().push((*hour, *total));
        }
    }

    /// Said of an entry that has a warm-up. An hour counts as if all of it had been used at its end.
    pub(crate) fn restore(&self, entry: &Site, now: Instant, wall: UnixMillis) {
        let Some(mut hours) = self.used.lock().remove(&key_of(entry)) else { return };
        hours.sort_unstable();
        for (hour, count) in hours {
            let end = UnixMillis((u64::from(hour) + 1) * 3_600_000);
            let ago = Duration::from_millis(wall.since(end));
            if let Some(before) = now.checked_sub(ago) {
                entry.restore_used(WARM_UP, count, before);
            }
        }
    }
}

impl<R: Ring, C: Clock> Core<R, C> {
    /// A transaction begins.
    pub(crate) fn spend(&mut self, key: SiteKey) {
        let site = self.sites.get_mut(key);
        site.pace.use_token();
        if !site.is_warming_up {
            return;
        }
        let entry = key_of(site.pace.provider());
        let partition = u8::try_from(self.index).expect("at most 64 cores");
        let spent = self.ledger.spend(entry, partition, hour_of(self.wall));
        self.mark(&Mark::Spent(spent));
    }

    /// What a new journal must say again of warm-ups.
    pub(crate) fn mark_spent(&mut self) {
        for mark in self.ledger.kept(hour_of(self.wall)) {
            self.mark(&mark);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use queue::site_table::{Rate, SiteLimits, SiteTable, Tokens};

    #[test]
    fn each_total_has_one_core_that_says_it() {
        let spent = HashMap::from([((7, 0, 100), 1), ((7, 1, 100), 2), ((7, 5, 100), 4)]);
        let sum = |index, cores| Ledger::new(index, cores, &spent).totals.values().sum::<u32>();
        assert_eq!((sum(0, 2), sum(1, 2)), (5, 2));
        assert_eq!((sum(0, 8), sum(5, 8)), (1, 4));
    }

    #[test]
    fn totals_go_on_after_a_restart_and_end_after_a_day() {
        let spent = HashMap::from([((7, 0, 100), 3)]);
        let mut ledger = Ledger::new(0, 1, &spent);
        assert_eq!(ledger.spend(7, 0, 100).total, 4);
        assert_eq!((ledger.kept(124).len(), ledger.kept(125).len()), (1, 0));
    }

    #[test]
    fn what_was_used_before_a_restart_is_used() {
        let mut limits = SiteLimits::default();
        limits.message_rates[WARM_UP] = Some(Rate::per_day(5));
        // An instant may not lie before the machine's start.
        let now = Instant::now() + 2 * HOUR;
        let entry = SiteTable::new(8).site("provider x", "a", limits, now);
        let unrestored = Unrestored::default();
        unrestored.take_over(&HashMap::from([((key_of(&entry), 0, 99), 2), ((key_of(&entry), 1, 99), 2)]));
        unrestored.restore(&entry, now, UnixMillis(100 * 3_600_000 + 5));
        assert!(matches!(entry.take(now, 9), Tokens::Granted { count: 1, .. }));
    }
}
