//! When a deferred recipient is tried again.
//!
//! The default is qmail's: attempt n is due at birth + n²·c seconds (0, 400, 1600, 3600 … s with c = 400), so that
//! a message is tried often while young and seldom when old, and messages that failed together drift apart.
//! After `lifetime_secs` one last attempt is made, whose soft failures count as hard. Each range of recipients has a
//! clock of its own. Pure: the caller passes `now`. Bound: 28 bytes per entry; as many entries as deferred ranges.

use crate::range::Range;
use message::UnixMillis;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// How long a recipient waits between attempts, and when we give up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RetryPolicy {
    /// `c` of birth + n²·c.
    pub quadratic_secs: u64,
    pub lifetime_secs: u64,
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy { quadratic_secs: 400, lifetime_secs: 7 * 24 * 3600 }
    }
}

/// What follows a soft failure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Next {
    /// Try again then; `last` if that is the attempt after which we give up.
    Retry { due: UnixMillis },
    /// That was the last attempt: the soft failure is a hard one.
    GiveUp,
}

impl RetryPolicy {
    /// After the `attempts`-th attempt (1 is the first) failed softly at `now`.
    pub fn next(&self, born: UnixMillis, attempts: u16, now: UnixMillis) -> Next {
        let expiry = born.plus_secs(self.lifetime_secs);
        if now >= expiry {
            return Next::GiveUp;
        }
        let n = u64::from(attempts);
        let mut due = born.plus_secs(n * n * self.quadratic_secs);
        if due <= now {
            // Born long before its first attempt (a restart, a held route): the curve is taken up at its age.
            due = self.after(born, now);
        }
        Next::Retry { due: due.min(expiry) }
    }

    /// The first point of the curve behind `now`.
    fn after(&self, born: UnixMillis, now: UnixMillis) -> UnixMillis {
        let age = now.since(born) / 1000;
        let n = (age / self.quadratic_secs.max(1)).isqrt() + 1;
        born.plus_secs((n * n * self.quadratic_secs).max(age + 1))
    }
}

/// Ranges that wait for their time.
#[derive(Debug, Default)]
pub struct Schedule {
    heap: BinaryHeap<Reverse<Entry>>,
    /// Entries that a sweep has still to see. They are not due before it has.
    unswept: std::vec::IntoIter<Reverse<Entry>>,
    recipients: u64,
}

/// Due time in seconds since the epoch: 32 bits last until 2106.
#[derive(Debug)]
struct Entry {
    due_secs: u32,
    range: Range,
}

const _: () = assert!(size_of::<Entry>() <= 28);

impl Entry {
    fn due(&self) -> UnixMillis {
        UnixMillis(u64::from(self.due_secs) * 1000)
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        let key = |entry: &Entry| (entry.due_secs, entry.range.message.0, entry.range.first);
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Eq for Entry {}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Schedule {
    pub fn push(&mut self, range: Range, due: UnixMillis) {
        self.recipients += u64::from(range.count);
        // A due time is rounded up, never down: a back-off that was set is kept.
        let due_secs = u32::try_from(due.0.div_ceil(1000)).unwrap_or(u32::MAX);
        self.heap.push(Reverse(Entry { due_secs, range }));
    }

    /// The next range that is due at `now`.
    pub fn pop_due(&mut self, now: UnixMillis) -> Option<Range> {
        let next = self.heap.peek()?;
        if u64::from(next.0.due_secs) * 1000 > now.0 {
            return None;
        }
        let Reverse(entry) = self.heap.pop()?;
        self.recipients -= u64::from(entry.range.count);
        Some(entry.range)
    }

    pub fn next_due(&self) -> Option<UnixMillis> {
        self.heap.peek().map(|entry| entry.0.due())
    }

    /// Recipients that wait.
    pub fn recipients(&self) -> u64 {
        self.recipients
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (UnixMillis, &Range)> {
        let entries = self.heap.iter().chain(self.unswept.as_slice());
        entries.map(|entry| (entry.0.due(), &entry.0.range))
    }

    /// Begins a look at every entry that waits now, a few at a time: each comes out once by [`Self::next_unswept`],
    /// and whoever wants it to wait on pushes it again. Costs a reservation of address space, whatever waits here;
    /// what is pushed again costs memory a second time until the sweep is over.
    pub fn begin_sweep(&mut self) {
        // A sweep that was not finished: what it has not seen waits with the rest.
        self.heap.extend(std::mem::take(&mut self.unswept));
        let room = BinaryHeap::with_capacity(self.heap.len());
        self.unswept = std::mem::replace(&mut self.heap, room).into_vec().into_iter();
    }

    /// The next entry of the sweep. From the heap's top down, so that what is due first comes first, more or less,
    /// and going back costs no sifting.
    pub fn next_unswept(&mut self) -> Option<(UnixMillis, Range)> {
        let Some(Reverse(entry)) = self.unswept.next() else {
            // Its memory is not needed any more.
            self.unswept = Vec::new().into_iter();
            return None;
        };
        self.recipients -= u64::from(entry.range.count);
        Some((entry.due(), entry.range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::range::DomainKey;
    use crate::store::MessageKey;

    const BORN: UnixMillis = UnixMillis(1_000_000_000_000);

    fn due_after(attempts: u16, now_secs: u64) -> u64 {
        match RetryPolicy::default().next(BORN, attempts, BORN.plus_secs(now_secs)) {
            Next::Retry { due } => due.since(BORN) / 1000,
            Next::GiveUp => u64::MAX,
        }
    }

    #[test]
    fn attempts_follow_the_quadratic_curve() {
        assert_eq!(
            [due_after(1, 1), due_after(2, 401), due_after(3, 1601), due_after(4, 3601)],
            [400, 1600, 3600, 6400]
        );
    }

    #[test]
    fn message_that_waited_elsewhere_joins_the_curve_at_its_age() {
        assert_eq!(due_after(1, 5000), 6400);
    }

    #[test]
    fn last_attempt_is_at_the_end_of_the_lifetime_and_then_soft_is_hard() {
        let week = 7 * 24 * 3600;
        assert_eq!(due_after(38, week - 100), week);
        assert_eq!(due_after(39, week), u64::MAX);
    }

    fn range(first: u32) -> Range {
        Range {
            message: MessageKey(1),
            domain: DomainKey(0),
            first,
            count: 1,
            name_offset: 0,
            attempts: 1,
            reason: 0,
        }
    }

    #[test]
    fn sweep_sees_each_entry_once_and_loses_none() {
        let mut schedule = Schedule::default();
        (0..10).for_each(|first| schedule.push(range(first), UnixMillis(1000 * u64::from(first))));
        schedule.begin_sweep();
        for _ in 0..4 {
            let (due, range) = schedule.next_unswept().unwrap();
            schedule.push(range, due);
        }
        assert_eq!((schedule.recipients(), schedule.iter().count()), (10, 10));
        // Another sweep begins before the first one has ended.
        schedule.begin_sweep();
        let mut seen = Vec::new();
        while let Some((due, range)) = schedule.next_unswept() {
            seen.push(range.first);
            if range.first % 2 == 0 {
                schedule.push(range, due);
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, Vec::from_iter(0..10));
        let due: Vec<_> = std::iter::from_fn(|| schedule.pop_due(UnixMillis(60_000))).collect();
        assert_eq!(due.iter().map(|range| range.first).collect::<Vec<_>>(), [0, 2, 4, 6, 8]);
        assert_eq!(schedule.recipients(), 0);
    }

    #[test]
    fn ranges_come_out_when_due_and_not_before() {
        let mut schedule = Schedule::default();
        schedule.push(range(1), UnixMillis(5001));
        schedule.push(range(2), UnixMillis(4000));
        assert_eq!(schedule.pop_due(UnixMillis(3999)), None);
        assert_eq!(schedule.pop_due(UnixMillis(5001)).map(|range| range.first), Some(2));
        assert_eq!(schedule.pop_due(UnixMillis(5999)), None, "rounded up to the second");
        assert_eq!(schedule.pop_due(UnixMillis(6000)).map(|range| range.first), Some(1));
        assert_eq!(schedule.recipients(), 0);
    }
}
