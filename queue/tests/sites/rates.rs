//! Never one more in any window, whatever cores do and whenever: clocks that differ, batches used late or given back,
//! limits that change. Sends are as bad as the grant allows: at any moment from the take to its end.

use proptest::prelude::*;
use queue::site_table::{Health, Lease, Rate, Site, SiteLimits, SiteTable, Tokens};
use std::sync::Arc;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);
const NANO: Duration = Duration::from_nanos(1);
const CORES: usize = 3;

/// What may happen between `from` and, exclusively, `until`.
#[derive(Clone, Copy, Debug)]
struct Batch {
    from: Instant,
    until: Instant,
    count: u64,
}

/// The most that can fall in one stretch of time as long as `window`, both ends in it, with something of the last
/// batch in it as well.
fn worst(batches: &[Batch], window: Duration) -> u64 {
    let Some(last) = batches.last() else { return 0 };
    // It loses nothing by beginning at the last moment of some batch, or of the last one at the latest.
    let starts = batches.iter().map(|batch| batch.until - NANO);
    let starts = starts.filter(|start| *start < last.until && last.from <= *start + window);
    let within = |start: Instant| {
        let fits = batches.iter().filter(|batch| batch.until > start && batch.from <= start + window);
        fits.map(|batch| batch.count).sum()
    };
    starts.map(within).max().unwrap_or(0)
}

#[derive(Clone, Debug)]
enum Step {
    Take { want: u32 },
    GiveBack { which: usize, count: u32 },
    Limits(SiteLimits),
    Slower { permille: u32 },
    Restore { ago: Duration, count: u32 },
    Lease { core: usize },
    Close,
}

/// How far time goes on, and how far behind that this core's clock is.
#[derive(Clone, Copy, Debug)]
struct Times {
    on: Duration,
    behind: Duration,
}

fn times() -> impl Strategy<Value = Times> {
    let on = prop_oneof![
        4 => 0..50_000_000_u64,
        3 => 0..1_200_000_000_u64,
        1 => 0..15_000_000_000_u64,
        // Where the second of an earlier batch ends, to the nanosecond.
        2 => (0..3_u64).prop_map(|nanos| 1_007_812_499 + nanos),
    ];
    let behind = prop_oneof![3 => Just(0), 2 => 0..60_000_000_u64, 1 => 0..3_000_000_000_u64];
    (on, behind)
        .prop_map(|(on, behind)| Times { on: Duration::from_nanos(on), behind: Duration::from_nanos(behind) })
}

/// The longest window is always there, so that a change of limits knows all that went before.
fn limits() -> impl Strategy<Value = SiteLimits> {
    let short = prop_oneof![Just(SECOND), Just(2 * SECOND), Just(Duration::from_nanos(777_777_777))];
    (1..8_u32, short, 1..30_u32, 1..6_u32, 1..9_u32).prop_map(|(few, window, many, new, open)| {
        let mut limits = SiteLimits { connections_max: open, slots_initial: 9, ..SiteLimits::default() };
        limits.message_rates[0] = Some(Rate { count: few, window });
        limits.message_rates[2] = Some(Rate { count: many, window: 10 * SECOND });
        limits.connection_rate = Some(Rate { count: new, window: SECOND });
        limits
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..12_u32).prop_map(|want| Step::Take { want }),
        2 => (0..8_usize, 0..12_u32).prop_map(|(which, count)| Step::GiveBack { which, count }),
        1 => limits().prop_map(Step::Limits),
        1 => (0..1500_u32).prop_map(|permille| Step::Slower { permille }),
        1 => (0..12_000_u64, 0..5_u32)
            .prop_map(|(ms, count)| Step::Restore { ago: Duration::from_millis(ms), count }),
        4 => (0..CORES).prop_map(|core| Step::Lease { core }),
        2 => Just(Step::Close),
    ]
}

/// A site, and what was allowed there.
struct World {
    site: Arc<Site>,
    limits: SiteLimits,
    messages: Vec<Batch>,
    connections: Vec<Batch>,
    /// The cores of open connections.
    open: Vec<usize>,
}

impl World {
    fn new(limits: SiteLimits, now: Instant) -> World {
        let site = SiteTable::new(1).site("mx.example", "pool", limits, now);
        World { site, limits, messages: Vec::new(), connections: Vec::new(), open: Vec::new() }
    }

    fn run(&mut self, now: Instant, step: &Step) {
        match *step {
            Step::Take { want } => self.take(now, want),
            Step::GiveBack { which, count } => self.give_back(which, count),
            Step::Limits(limits) => {
                self.site.set_limits(limits, now);
                self.limits = limits;
            }
            Step::Slower { permille } => {
                self.site.report(now, Health::Slower { permille, until: now + SECOND });
            }
            Step::Restore { ago, count } => self.restore(now - ago, count),
            Step::Lease { core } => self.lease(now, core),
            Step::Close => {
                if let Some(core) = self.open.pop() {
                    self.site.give_back(core);
                }
            }
        }
    }

    fn take(&mut self, now: Instant, want: u32) {
        match self.site.take(now, want) {
            Tokens::Granted { count, until } => {
                assert!(count >= 1 && count <= want && until > now);
                self.messages.push(Batch { from: now, until, count: u64::from(count) });
                for rate in self.limits.message_rates.into_iter().flatten() {
                    let worst = worst(&self.messages, rate.window);
                    assert!(worst <= u64::from(rate.count), "{worst} in {rate:?}: {:#?}", self.messages);
                }
            }
            Tokens::Wait { until } => {
                let until = until.expect("no rate is 0");
                assert!(until > now, "who waits until now waits for nothing");
                let looks = self.site.snapshot(until).message_rates;
                assert!(looks.iter().flatten().all(|look| look.left > 0), "woken for nothing: {looks:?}");
            }
            Tokens::Unlimited => panic!("it has rates"),
        }
    }

    fn give_back(&mut self, which: usize, count: u32) {
        let Some(at) = self.messages.len().checked_sub(which + 1) else { return };
        let batch = &mut self.messages[at];
        let count = u32::try_from(batch.count.min(u64::from(count))).expect("a batch is small");
        batch.count -= u64::from(count);
        self.site.give_back_tokens(count, batch.until);
    }

    /// In both windows, and before all else that is checked.
    fn restore(&mut self, at: Instant, count: u32) {
        self.site.restore_used(0, count, at);
        self.site.restore_used(2, count, at);
        self.messages.insert(0, Batch { from: at - NANO, until: at, count: u64::from(count) });
    }

    fn lease(&mut self, now: Instant, core: usize) {
        match self.site.lease(core, CORES, now) {
            Lease::Granted => {
                self.open.push(core);
                assert!(self.open.len() <= self.limits.connections_max as usize, "one too many");
                let rate = self.limits.connection_rate.expect("it has one");
                self.connections.push(Batch { from: now, until: now + rate.window / 128, count: 1 });
                let worst = worst(&self.connections, rate.window);
                assert!(worst <= u64::from(rate.count), "{worst} in {rate:?}: {:#?}", self.connections);
            }
            Lease::Full => assert!(!self.open.is_empty()),
            Lease::Later { until } => {
                let until = until.expect("the rate is not 0");
                assert!(until > now);
                assert!(self.site.snapshot(until).connection_rate.is_some_and(|look| look.left > 0));
            }
            Lease::Wait { .. } => panic!("nothing makes it wait"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn never_one_more_in_any_window(
        first in limits(),
        steps in prop::collection::vec((times(), step()), 1..120),
    ) {
        let mut time = Instant::now() + Duration::from_secs(1_000_000);
        let mut world = World::new(first, time);
        for (times, step) in &steps {
            time += times.on;
            world.run(time - times.behind, step);
        }
        let leased = world.site.snapshot(time).leased as usize;
        prop_assert_eq!(leased, world.open.len());
    }
}
