//! The site table under a scheduler that tries orders of its threads: never one too many, no slot and no token lost,
//! nobody who was refused left asleep.
//!
//! The table's own source is compiled here with the scheduler's locks and atomics in place of the real ones.

#[expect(dead_code, unreachable_pub, unused_imports, reason = "a part of the source, used in part")]
#[path = "../src/site_table/mod.rs"]
mod site_table;

/// Stands in for the crate's module of that name.
mod sync {
    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

    /// As parking_lot's: no poison.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Mutex<T> {
            Mutex(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> shuttle::sync::MutexGuard<'_, T> {
            self.0.lock().expect("no thread panics here")
        }
    }
}

use shuttle::sync::mpsc;
use shuttle::thread;
use site_table::{Health, Lease, Rate, Site, SiteLimits, SiteTable, Tokens};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const SCHEDULES: usize = 2000;
const SECOND: Duration = Duration::from_secs(1);

/// Random orders, and those with few changes of thread, which find what needs one at a bad place.
fn check(scene: fn()) {
    shuttle::check_random(scene, SCHEDULES);
    shuttle::check_pct(scene, SCHEDULES, 3);
}

fn site(limits: SiteLimits) -> (Arc<Site>, Instant) {
    let now = Instant::now();
    (SiteTable::new(1).site("mx.example", "", limits, now), now)
}

fn few(connections_max: u32) -> SiteLimits {
    SiteLimits { connections_max, slots_initial: connections_max, ..SiteLimits::default() }
}

fn in_threads(count: usize, run: impl Fn(usize) + Send + Sync + 'static) {
    let run = Arc::new(run);
    let threads: Vec<_> = (0..count)
        .map(|core| {
            let run = Arc::clone(&run);
            thread::spawn(move || run(core))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("it ran to its end"));
}

#[test]
fn never_one_connection_too_many_and_no_slot_lost() {
    check(|| {
        let (site, now) = site(few(2));
        let (open, used) = (Arc::new(AtomicU32::new(0)), Arc::clone(&site));
        in_threads(3, move |core| {
            for _ in 0..2 {
                if used.lease(core, 3, now) == Lease::Granted {
                    assert!(open.fetch_add(1, Ordering::SeqCst) < 2, "one too many");
                    thread::yield_now();
                    open.fetch_sub(1, Ordering::SeqCst);
                    used.give_back(core);
                }
            }
        });
        assert_eq!(site.snapshot(now).leased, 0);
        assert_eq!((site.lease(0, 3, now), site.lease(1, 3, now)), (Lease::Granted, Lease::Granted));
        assert_eq!(site.lease(2, 3, now), Lease::Full);
    });
}

#[test]
fn a_core_has_its_part_or_all_but_one_for_each_other() {
    check(|| {
        for (is_uneven, most) in [(false, 2), (true, 4)] {
            let (site, now) = site(SiteLimits { is_uneven, ..few(6) });
            let (all, used) = (Arc::new(AtomicU32::new(0)), Arc::clone(&site));
            let seen = Arc::clone(&all);
            in_threads(3, move |core| {
                let mine = (0..6).filter(|_| used.lease(core, 3, now) == Lease::Granted).count();
                assert!(mine <= most, "{mine}");
                seen.fetch_add(u32::try_from(mine).expect("a few"), Ordering::SeqCst);
            });
            assert_eq!(all.load(Ordering::SeqCst), 6);
        }
    });
}

#[test]
fn never_one_new_connection_too_many() {
    check(|| {
        let (site, now) = site(SiteLimits { connection_rate: Some(Rate::per_second(3)), ..few(9) });
        let (new, used) = (Arc::new(AtomicU32::new(0)), Arc::clone(&site));
        let seen = Arc::clone(&new);
        in_threads(3, move |core| {
            for step in 0..2 {
                if used.lease(core, 3, now + step * SECOND / 4) == Lease::Granted {
                    seen.fetch_add(1, Ordering::SeqCst);
                    used.give_back(core);
                }
            }
        });
        assert_eq!(new.load(Ordering::SeqCst), 3, "all of them, and not one more");
    });
}

#[test]
fn never_one_message_too_many_and_no_token_lost() {
    check(|| {
        let mut limits = few(9);
        limits.message_rates[1] = Some(Rate::per_minute(5));
        let (site, now) = site(limits);
        let sent = Arc::new(AtomicU32::new(0));
        let (used, seen) = (Arc::clone(&site), Arc::clone(&sent));
        in_threads(3, move |core| {
            let behind = SECOND / 10 * u32::try_from(core).expect("few");
            for _ in 0..2 {
                if let Tokens::Granted { count, until } = used.take(now + SECOND - behind, 2) {
                    thread::yield_now();
                    // Every other batch comes back by half.
                    let unused = if core == 1 { count / 2 } else { 0 };
                    used.give_back_tokens(unused, until);
                    assert!(seen.fetch_add(count - unused, Ordering::SeqCst) + count - unused <= 5);
                }
            }
        });
        let left = site.snapshot(now + SECOND).message_rates[1].expect("a rate").left;
        assert_eq!(left + sent.load(Ordering::SeqCst), 5);
    });
}

#[test]
fn who_was_refused_is_woken_when_a_connection_comes_back() {
    // A wake that is lost leaves a thread asleep for ever, which the scheduler reports as a deadlock.
    check(|| {
        let (site, now) = site(few(1));
        let (bells, ears): (Vec<_>, Vec<_>) = (0..3).map(|_| mpsc::channel::<()>()).unzip();
        let threads: Vec<_> = ears
            .into_iter()
            .enumerate()
            .map(|(core, ear)| {
                let (site, bells) = (Arc::clone(&site), bells.clone());
                thread::spawn(move || {
                    while site.lease(core, 3, now) == Lease::Full {
                        ear.recv().expect("bells stay");
                    }
                    site.give_back(core);
                    // Who is gone needs no bell.
                    site.refused(core).for_each(|other| _ = bells[other].send(()));
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("all got their connection"));
        assert_eq!(site.snapshot(now).leased, 0);
    });
}

#[test]
fn what_is_seen_without_the_lock_is_the_last_that_was_said() {
    check(|| {
        let (site, now) = site(few(3));
        site.report(now, Health::Suspended { until: now + SECOND });
        let used = Arc::clone(&site);
        in_threads(3, move |core| match core {
            0 => _ = used.report(now, Health::Suspended { until: now + 3 * SECOND }),
            1 => _ = used.take(now + SECOND, 1),
            _ => _ = used.lease(core, 3, now + 2 * SECOND),
        });
        assert!(site.is_rated());
        assert_eq!(site.take(now + 2 * SECOND, 1), Tokens::Wait { until: Some(now + 3 * SECOND) });
        assert_eq!(site.take(now + 3 * SECOND, 1), Tokens::Unlimited);
        assert!(!site.is_rated());
    });
}

#[test]
fn failures_and_successes_of_many_leave_it_consistent() {
    check(|| {
        let (site, now) = site(few(4));
        let used = Arc::clone(&site);
        in_threads(3, move |core| {
            let leased = used.lease(core, 3, now) == Lease::Granted;
            match core {
                0 => _ = used.report(now, Health::Works { count: 8, latency: Some(SECOND) }),
                1 => (0..3).for_each(|_| _ = used.report(now, Health::HostFailed)),
                _ => used.set_limits(few(2), now),
            }
            if leased {
                used.give_back(core);
            }
        });
        let look = site.snapshot(now);
        assert!(look.leased == 0 && look.slots >= 1 && look.slots <= 2, "{look:?}");
        assert!(
            look.failures <= 3 && look.hold.is_some() == matches!(site.lease(0, 3, now), Lease::Wait { .. })
        );
    });
}

#[test]
fn site_that_is_looked_up_by_many_is_one_and_forgotten_by_none_who_hold_it() {
    check(|| {
        let (table, now) = (Arc::new(SiteTable::new(1)), Instant::now());
        let used = Arc::clone(&table);
        in_threads(3, move |core| {
            let site = used.site("mx.example", "", few(1), now);
            if site.lease(core, 3, now) == Lease::Granted {
                used.site(&format!("mx-{core}.example"), "", few(1), now);
                let again = used.site("mx.example", "", few(1), now);
                assert!(Arc::ptr_eq(&site, &again) && again.snapshot(now).leased == 1);
                site.give_back(core);
            }
        });
        assert_eq!(table.all().len(), table.len());
    });
}
