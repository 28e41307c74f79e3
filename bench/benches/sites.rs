//! The site table by itself and under contention: a lease with its return, a batch of tokens, a look-up.
//!
//! The figure is for one call as its caller sees it: wall time of a thread by its calls. Eight threads on fewer cores
//! also wait for a core, so their figure is that of the table and of the scheduler; divided by threads per core it is
//! what a core pays.
#![forbid(unsafe_code)]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use queue::site_table::{Health, Lease, Rate, Site, SiteLimits, SiteTable};
use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

const THREADS: [usize; 2] = [1, 8];

fn limits(rates: &[Rate]) -> SiteLimits {
    let mut limits = SiteLimits { connections_max: 1000, slots_initial: 1000, ..SiteLimits::default() };
    limits.message_rates.iter_mut().zip(rates).for_each(|(place, rate)| *place = Some(*rate));
    limits
}

/// One site for all threads, or one for each.
fn sites(threads: usize, shared: bool, limits: SiteLimits) -> Vec<Arc<Site>> {
    let (table, now) = (SiteTable::new(1000), Instant::now());
    let name = |thread| if shared { "mx.example".to_owned() } else { format!("mx-{thread}.example") };
    (0..threads).map(|thread| table.site(&name(thread), "", limits, now)).collect()
}

/// Longest time that any thread needs for `count` calls.
fn run(threads: usize, count: u64, call: impl Fn(usize, u64) + Sync) -> Duration {
    let barrier = Barrier::new(threads);
    thread::scope(|scope| {
        let started: Vec<_> = (0..threads)
            .map(|thread| {
                let (barrier, call) = (&barrier, &call);
                scope.spawn(move || {
                    barrier.wait();
                    let start = Instant::now();
                    (0..count).for_each(|at| call(thread, at));
                    start.elapsed()
                })
            })
            .collect();
        started.into_iter().map(|thread| thread.join().expect("no panic")).max().unwrap_or_default()
    })
}

fn over_threads(
    criterion: &mut Criterion,
    name: &str,
    limits: SiteLimits,
    call: impl Fn(&Site, usize, u64) + Sync,
) {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(20).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(300));
    for threads in THREADS {
        for (shared, what) in [(true, "one site"), (false, "a site each")] {
            let sites = sites(threads, shared, limits);
            let id = BenchmarkId::new(what, format!("{threads} threads"));
            group.bench_function(id, |bencher| {
                bencher
                    .iter_custom(|count| run(threads, count, |thread, at| call(&sites[thread], thread, at)));
            });
        }
    }
}

fn leases(criterion: &mut Criterion) {
    let now = Instant::now();
    over_threads(criterion, "lease and give back", limits(&[]), |site, core, _| {
        if site.lease(core, 8, now) == Lease::Granted {
            site.give_back(core);
        }
        black_box(site.refused(core).count());
    });
}

fn tokens(criterion: &mut Criterion) {
    let start = Instant::now();
    let step = Duration::from_micros(5);
    let rates = [Rate::per_second(1_000_000), Rate::per_minute(50_000_000)];
    over_threads(criterion, "take 10, two rates, busy", limits(&rates), |site, _, at| {
        let at = u32::try_from(at % 1_000_000_000).expect("small");
        black_box(site.take(start + step * at, 10));
    });
    over_threads(
        criterion,
        "take, none left",
        limits(&[Rate::per_minute(0), Rate::per_day(0)]),
        |site, _, _| {
            black_box(site.take(start, 10));
        },
    );
}

fn reports(criterion: &mut Criterion) {
    let now = Instant::now();
    over_threads(criterion, "report of a round", limits(&[]), |site, _, _| {
        site.report(now, Health::Works { count: 20, latency: Some(Duration::from_millis(200)) });
    });
}

fn look_ups(criterion: &mut Criterion) {
    let now = Instant::now();
    let table = SiteTable::new(100_000);
    let names: Vec<String> = (0..50_000).map(|number| format!("mx.domain-{number}.example")).collect();
    let all: Vec<_> = names.iter().map(|name| table.site(name, "", limits(&[]), now)).collect();
    let mut group = criterion.benchmark_group("look up one of 50,000");
    group.sample_size(20).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(300));
    for threads in THREADS {
        group.bench_function(format!("{threads} threads"), |bencher| {
            bencher.iter_custom(|count| {
                run(threads, count, |thread, at| {
                    let at = usize::try_from(at).unwrap_or(0).wrapping_mul(7919) + thread * 6007;
                    black_box(table.site(&names[at % names.len()], "", limits(&[]), now));
                })
            });
        });
    }
    drop(all);
}

criterion_group!(table, leases, tokens, reports, look_ups);
criterion_main!(table);
