//! When a deferred recipient is tried again.
//!
//! The default is qmail's: attempt n is due at birth + n²·c seconds (0, 400, 1600, 3600 … s with c = 400), so that
//! a message is tried often while young and seldom when old, and messages that failed together drift apart. A list
//! of waits and an exponential curve can be had instead. Whatever the curve: when `lifetime_secs` are over one last
//! attempt is made, whose soft failure counts as a hard one. Each range of recipients has a clock of its own.
//!
//! Pure: the caller passes `now`, and the spread of the exponential curve comes from a hash of what is waiting, so
//! that a run can be repeated. Bound: 28 bytes per entry; as many entries as deferred ranges.

use crate::range::{Attempts, Range};
use message::{MessageId, UnixMillis, Wanted};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// How long a recipient waits between attempts, when its sender hears of the delay, and when we give up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RetryPolicy {
    pub curve: Curve,
    pub lifetime_secs: u64,
    /// A soft failure at this age or later is told to the sender, once. 0: never.
    pub warn_after_secs: u64,
}

/// The times of the attempts, as far as the lifetime lets them be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Curve {
    /// Attempt n at birth + n² × `secs`.
    Quadratic {
        secs: u64,
    },
    /// The waits between attempts; the last one repeats.
    List(Vec<u64>),
    Exponential(Exponential),
}

/// Each wait is the one before times a factor, up to a most; each is then made shorter or longer by chance.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Exponential {
    pub first_secs: u64,
    /// In thousandths: integers, so that all machines agree.
    pub factor_permille: u64,
    pub max_secs: u64,
    /// Part of a wait by which it may be shorter or longer, in thousandths.
    pub jitter_permille: u64,
}

/// Who asks to be warned is, after this long if the operator said nothing: as by sendmail.
const WARN_AFTER_SECS: u64 = 4 * 3600;

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy {
            curve: Curve::Quadratic { secs: 400 },
            lifetime_secs: 7 * 24 * 3600,
            warn_after_secs: 0,
        }
    }
}

/// What was just tried, and failed softly.
#[derive(Clone, Copy, Debug)]
pub struct Tried {
    pub message: MessageId,
    /// Index of the first recipient.
    pub first: u32,
    pub born: UnixMillis,
    /// This attempt included.
    pub attempts: Attempts,
}

/// What follows a soft failure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Next {
    /// Try again then, which is later than now and not after the end of the lifetime.
    Retry { due: UnixMillis },
    /// That was the last attempt: the soft failure is a hard one.
    GiveUp,
}

impl RetryPolicy {
    /// After an attempt failed softly at `now`.
    pub fn next(&self, tried: &Tried, now: UnixMillis) -> Next {
        if self.is_over(tried.born, now) {
            return Next::GiveUp;
        }
        let due = match &self.curve {
            Curve::Quadratic { secs } => quadratic(*secs, tried, now),
            Curve::List(waits) => now.plus_secs(listed(waits, tried.attempts).unwrap_or(self.lifetime_secs)),
            Curve::Exponential(curve) => UnixMillis(now.0.saturating_add(curve.wait_ms(tried))),
        };
        Next::Retry { due: due.max(now.plus_secs(1)).min(self.expiry(tried.born)) }
    }

    /// When the last attempt is due.
    pub fn expiry(&self, born: UnixMillis) -> UnixMillis {
        born.plus_secs(self.lifetime_secs)
    }

    /// A message of that birth has no further attempt before it but the last.
    pub fn is_over(&self, born: UnixMillis, now: UnixMillis) -> bool {
        self.expiry(born) <= now
    }

    /// The sender is to hear of the delay now. `wanted`: whether it asked for that (RFC 3461).
    pub fn wants_warning(
        &self,
        born: UnixMillis,
        attempts: Attempts,
        now: UnixMillis,
        wanted: Wanted,
    ) -> bool {
        let after = self.warn_after(wanted);
        after.is_some_and(|secs| !attempts.is_warned() && born.plus_secs(secs) <= now)
    }

    /// The age from which on the sender is to hear of a delay, in seconds; `None`: it is never to.
    pub fn warn_after(&self, wanted: Wanted) -> Option<u64> {
        let configured = Some(self.warn_after_secs).filter(|secs| *secs > 0);
        match wanted {
            Wanted::No => None,
            Wanted::Yes => configured.or(Some(WARN_AFTER_SECS)),
            Wanted::Unsaid => configured,
        }
    }
}

fn quadratic(secs: u64, tried: &Tried, now: UnixMillis) -> UnixMillis {
    let at = |n: u64| tried.born.plus_secs(n.saturating_mul(n).saturating_mul(secs));
    let due = at(u64::from(tried.attempts.count()));
    if due > now {
        return due;
    }
    // Born long before its first attempt (a restart, a held route): the curve is taken up at its age.
    let age = now.since(tried.born) / 1000;
    at((age / secs.max(1)).isqrt() + 1)
}

/// The wait after that many attempts; `None` if the list is empty.
fn listed(waits: &[u64], attempts: Attempts) -> Option<u64> {
    let at = usize::from(attempts.count()).saturating_sub(1);
    waits.get(at).or(waits.last()).copied()
}

impl Exponential {
    /// The wait after `tried.attempts`. A step for each attempt until the most is reached.
    fn wait_ms(&self, tried: &Tried) -> u64 {
        let most = self.max_secs.saturating_mul(1000);
        let mut wait = self.first_secs.saturating_mul(1000);
        for _ in 1..tried.attempts.count() {
            let longer = wait.saturating_mul(self.factor_permille) / 1000;
            if wait >= most || longer <= wait {
                break;
            }
            wait = longer;
        }
        self.spread(wait.min(most), tried)
    }

    /// Between `1 - jitter` and `1 + jitter` times the wait: what failed together shall not come back together.
    fn spread(&self, wait: u64, tried: &Tried) -> u64 {
        let attempt = u64::from(tried.first) << 16 | u64::from(tried.attempts.count());
        let chance = mix(tried.message.0 ^ mix(attempt)) % (2 * self.jitter_permille + 1);
        wait.saturating_mul((1000 + chance).saturating_sub(self.jitter_permille)) / 1000
    }
}

/// The finaliser of splitmix64: every bit of the input changes half of the output's.
fn mix(seed: u64) -> u64 {
    let x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
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
    use proptest::prelude::*;

    const BORN: UnixMillis = UnixMillis(1_000_000_000_000);
    const WEEK: u64 = 7 * 24 * 3600;

    fn tried(attempts: u16) -> Tried {
        Tried { message: MessageId(77), first: 5, born: BORN, attempts: Attempts::new(attempts) }
    }

    fn due_after(policy: &RetryPolicy, attempts: u16, now_secs: u64) -> Option<u64> {
        match policy.next(&tried(attempts), BORN.plus_secs(now_secs)) {
            Next::Retry { due } => Some(due.since(BORN) / 1000),
            Next::GiveUp => None,
        }
    }

    /// Ages at the attempts of a recipient that nobody ever takes, each made in the very second it is due.
    fn attempts_of(policy: &RetryPolicy) -> Vec<u64> {
        let mut ages = vec![0];
        while let Some(due) = due_after(policy, u16::try_from(ages.len()).unwrap(), ages[ages.len() - 1]) {
            ages.push(due);
        }
        ages
    }

    #[test]
    fn attempts_follow_the_quadratic_curve_to_the_end_of_the_lifetime() {
        let ages = attempts_of(&RetryPolicy::default());
        assert_eq!(ages[..6], [0, 400, 1600, 3600, 6400, 10_000]);
        // 38² × 400 s is the last point within a week; the last attempt is at its end.
        let curve: Vec<u64> = (0..=38).map(|n| n * n * 400).chain([WEEK]).collect();
        assert_eq!(ages, curve);
        assert_eq!(ages.len(), 40);
    }

    #[test]
    fn attempt_made_on_time_is_followed_by_the_one_that_qmail_would_make() {
        // qmail-send.c, nextretry(): birth + (√age + skip)², with skip 20 for remote recipients.
        let qmail = |age: u64| (age.isqrt() + 20).pow(2);
        let ages = attempts_of(&RetryPolicy::default());
        for pair in ages[..39].windows(2) {
            assert_eq!(pair[1], qmail(pair[0]));
        }
    }

    #[test]
    fn message_that_waited_elsewhere_joins_the_curve_at_its_age() {
        assert_eq!(due_after(&RetryPolicy::default(), 1, 5000), Some(6400));
    }

    #[test]
    fn last_attempt_is_at_the_end_of_the_lifetime_and_then_soft_is_hard() {
        let policy = RetryPolicy::default();
        assert_eq!(due_after(&policy, 38, WEEK - 100), Some(WEEK));
        assert_eq!(due_after(&policy, 39, WEEK), None);
    }

    #[test]
    fn list_gives_the_waits_and_repeats_its_last() {
        let curve = Curve::List(vec![60, 300, 3600]);
        let policy = RetryPolicy { curve, lifetime_secs: 10_000, ..RetryPolicy::default() };
        assert_eq!(attempts_of(&policy), [0, 60, 360, 3960, 7560, 10_000]);
    }

    fn exponential(jitter_permille: u64) -> Exponential {
        Exponential { first_secs: 60, factor_permille: 2000, max_secs: 500, jitter_permille }
    }

    #[test]
    fn exponential_waits_grow_up_to_the_most() {
        let curve = Curve::Exponential(exponential(0));
        let policy = RetryPolicy { curve, lifetime_secs: 2000, ..RetryPolicy::default() };
        assert_eq!(attempts_of(&policy), [0, 60, 180, 420, 900, 1400, 1900, 2000]);
    }

    #[test]
    fn chance_spreads_the_waits_and_is_the_same_each_time() {
        let curve = exponential(200);
        let waits: Vec<u64> = (0..1000).map(|first| curve.wait_ms(&Tried { first, ..tried(1) })).collect();
        assert!(waits.iter().all(|wait| (48_000..=72_000).contains(wait)));
        let mean = waits.iter().sum::<u64>() / 1000;
        assert!((59_000..61_000).contains(&mean), "{mean}");
        assert!(waits.iter().any(|wait| *wait < 50_000) && waits.iter().any(|wait| *wait > 70_000));
        assert_eq!(curve.wait_ms(&tried(3)), curve.wait_ms(&tried(3)));
    }

    #[test]
    fn warning_is_wanted_once_and_only_from_its_age_on() {
        let policy = RetryPolicy { warn_after_secs: 3600, ..RetryPolicy::default() };
        let wants =
            |attempts, secs| policy.wants_warning(BORN, attempts, BORN.plus_secs(secs), Wanted::Unsaid);
        assert!(!wants(Attempts::new(2), 3599));
        assert!(wants(Attempts::new(2), 3600));
        assert!(!wants(Attempts::new(2).warned(), 3600));
        let (default, late) = (RetryPolicy::default(), BORN.plus_secs(WEEK));
        assert!(!default.wants_warning(BORN, Attempts::new(9), late, Wanted::Unsaid));
    }

    #[test]
    fn who_asks_for_warnings_gets_them_and_who_asks_for_others_does_not() {
        let (silent, policy) =
            (RetryPolicy::default(), RetryPolicy { warn_after_secs: 60, ..RetryPolicy::default() });
        assert_eq!(
            (silent.warn_after(Wanted::Yes), policy.warn_after(Wanted::Yes)),
            (Some(14_400), Some(60))
        );
        assert_eq!((silent.warn_after(Wanted::No), policy.warn_after(Wanted::No)), (None, None));
        assert_eq!((silent.warn_after(Wanted::Unsaid), policy.warn_after(Wanted::Unsaid)), (None, Some(60)));
    }

    fn any_curve() -> impl Strategy<Value = Curve> {
        let exponential = (0..u64::MAX, 1000..100_000u64, 0..u64::MAX, 0..=500u64).prop_map(
            |(first_secs, factor_permille, max_secs, jitter_permille)| {
                Curve::Exponential(Exponential { first_secs, factor_permille, max_secs, jitter_permille })
            },
        );
        let usual = (1..4000u64, 1000..4000u64, 1..20_000u64, 0..=500u64).prop_map(
            |(first_secs, factor_permille, max_secs, jitter_permille)| {
                Curve::Exponential(Exponential { first_secs, factor_permille, max_secs, jitter_permille })
            },
        );
        prop_oneof![
            (0..100_000u64).prop_map(|secs| Curve::Quadratic { secs }),
            prop::collection::vec(0..100_000u64, 0..6).prop_map(Curve::List),
            exponential,
            usual,
        ]
    }

    proptest! {
        #[test]
        fn attempts_end_with_one_at_the_end_of_the_lifetime(
            curve in any_curve(),
            lifetime_secs in 0..20_000u64,
            born in 0..2_000_000_000_000u64,
            // How long the first attempt was in coming, and how long each one takes.
            first_ms in 0..30_000_000u64,
            delays in prop::collection::vec(0..100_000u64, 1..8),
        ) {
            let policy = RetryPolicy { curve, lifetime_secs, warn_after_secs: 0 };
            let expiry = policy.expiry(UnixMillis(born));
            let (mut attempts, mut now) = (Attempts::new(1), UnixMillis(born + first_ms));
            let mut before = None;
            let mut delays = delays.into_iter().cycle();
            loop {
                let this = Tried { message: MessageId(born), first: 0, born: UnixMillis(born), attempts };
                let Next::Retry { due } = policy.next(&this, now) else { break };
                prop_assert!(due > now, "never two attempts at once");
                prop_assert!(due <= expiry, "never past the lifetime");
                before = Some(now);
                now = UnixMillis(due.0 + delays.next().unwrap_or(0));
                attempts = attempts.plus_one();
                // A second between attempts at least, and one more at the end.
                prop_assert!(u64::from(attempts.count()) <= lifetime_secs + 3);
            }
            prop_assert!(now >= expiry, "the last attempt is not before the end");
            prop_assert!(before.is_none_or(|before| before < expiry), "and the only one after it");
        }
    }

    fn range(first: u32) -> Range {
        Range {
            message: MessageKey(1),
            domain: DomainKey(0),
            first,
            count: 1,
            name_offset: 0,
            attempts: Attempts::new(1),
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
