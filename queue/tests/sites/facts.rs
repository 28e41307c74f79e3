//! Connections and health of one site.

use queue::site_table::{Health, LatencyLimits, Lease, Rate, Site, SiteLimits, SiteTable, Tokens, Why};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) fn site_with(limits: SiteLimits) -> (Arc<Site>, Instant) {
    let now = Instant::now();
    (SiteTable::new(10).site("mx.example", "", limits, now), now)
}

fn site() -> (Arc<Site>, Instant) {
    site_with(SiteLimits::default())
}

fn works(count: u32) -> Health {
    Health::Works { count, latency: None }
}

fn in_ms(count: u32, ms: u64) -> Health {
    Health::Works { count, latency: Some(Duration::from_millis(ms)) }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn site_grows_by_one_slot_a_round_up_to_its_limit() {
    let (site, now) = site();
    site.report(now, works(5));
    assert_eq!(site.snapshot(now).slots, 6);
    site.report(now, works(5));
    assert_eq!(site.snapshot(now).slots, 6, "a round is as many successes as slots");
    site.report(now, works(1000));
    assert_eq!(site.snapshot(now).slots, 20);
}

#[test]
fn lifted_back_off_lets_one_connection_try_at_once() {
    let (site, now) = site();
    while site.report(now, Health::HostFailed).is_none() {}
    assert!(matches!(site.lease(0, 1, now), Lease::Wait { .. }));
    site.lift_back_off();
    assert_eq!((site.lease(0, 1, now), site.lease(0, 1, now)), (Lease::Granted, Lease::Full));
}

#[test]
fn never_one_more_than_the_limit() {
    let (site, now) = site();
    let granted = (0..50).filter(|_| site.lease(0, 1, now) == Lease::Granted).count();
    assert_eq!(granted, 5);
    site.give_back(0);
    assert_eq!((site.lease(0, 1, now), site.lease(0, 1, now)), (Lease::Granted, Lease::Full));
}

#[test]
fn each_core_gets_its_share() {
    let (site, now) = site();
    let granted = (0..50).filter(|_| site.lease(0, 2, now) == Lease::Granted).count();
    assert_eq!(granted, 3);
    assert_eq!(site.lease(1, 2, now), Lease::Granted);
}

#[test]
fn core_that_was_refused_is_named_once_when_one_came_back() {
    let (site, now) = site_with(SiteLimits { connections_max: 1, ..SiteLimits::default() });
    assert_eq!((site.lease(3, 64, now), site.lease(63, 64, now)), (Lease::Granted, Lease::Full));
    site.give_back(3);
    assert_eq!(site.refused(3).collect::<Vec<_>>(), [63]);
    assert_eq!(site.refused(3).count(), 0);
    assert_eq!(site.lease(63, 64, now), Lease::Granted);
}

#[test]
fn holder_is_another_core_with_connections() {
    let (site, now) = site();
    assert_eq!(site.holder(0), None);
    (0..3).for_each(|core| assert_eq!(site.lease(core, 2, now), Lease::Granted));
    assert_eq!(site.lease(2, 2, now), Lease::Granted);
    assert_eq!((site.holder(0), site.holder(5)), (Some(2), Some(2)));
    assert!(site.holder(2).is_some_and(|core| core < 2));
}

#[test]
fn failures_in_a_row_make_it_wait_twice_as_long_each_time() {
    let (site, now) = site();
    assert_eq!((site.report(now, Health::HostFailed), site.report(now, Health::HostFailed)), (None, None));
    let until = now + 60 * SECOND;
    assert_eq!(site.report(now, Health::HostFailed), Some(until));
    assert_eq!(site.report(now + 5 * SECOND, Health::HostFailed), Some(until), "kept exactly");
    assert_eq!(site.lease(0, 1, now), Lease::Wait { until: Some(until) });
    assert_eq!((site.lease(0, 1, until), site.lease(0, 1, until)), (Lease::Granted, Lease::Full));
    assert_eq!(site.report(until, Health::HostFailed), Some(until + 120 * SECOND));
    site.report(until, works(1));
    let lease = site.lease(0, 1, until);
    assert_eq!(lease, Lease::Wait { until: Some(until + 120 * SECOND) }, "one success ends no wait");
}

#[test]
fn dead_site_is_named_dead_and_tried_by_one_connection() {
    let (site, now) = site();
    let until = (0..3).find_map(|_| site.report(now, Health::HostFailed)).expect("three make it wait");
    let hold = site.snapshot(now).hold.expect("it is held");
    assert_eq!((hold.why, hold.until), (Why::Dead, Some(until)));
    assert_eq!(site.snapshot(until).hold, None);
    assert_eq!((site.lease(0, 1, until), site.lease(0, 1, until)), (Lease::Granted, Lease::Full));
    site.report(until, works(1));
    assert_eq!((site.lease(0, 1, until), site.snapshot(until).failures), (Lease::Granted, 0));
}

#[test]
fn waits_of_a_dead_site_end_at_the_longest() {
    let (site, mut now) = site();
    let mut waits = Vec::new();
    for _ in 0..100 {
        assert_eq!(site.lease(0, 1, now), Lease::Granted);
        site.give_back(0);
        if let Some(until) = site.report(now, Health::HostFailed) {
            waits.push((until - now).as_secs());
            now = until;
        }
    }
    assert_eq!(waits[..7], [60, 120, 240, 480, 960, 1920, 3600]);
    assert!(waits.len() == 98 && waits[7..].iter().all(|secs| *secs == 3600), "{waits:?}");
}

#[test]
fn host_failure_halves_the_slots() {
    let (site, now) = site();
    site.report(now, works(1000));
    site.report(now, Health::HostFailed);
    assert_eq!(site.snapshot(now).slots, 10);
}

#[test]
fn limit_of_zero_holds_the_site() {
    let (site, now) = site();
    assert!(!site.is_held() && !site.is_rated());
    site.set_limits(SiteLimits { connections_max: 0, ..SiteLimits::default() }, now);
    assert_eq!(site.lease(0, 1, now), Lease::Wait { until: None });
    assert_eq!((site.is_held(), site.is_rated()), (true, true));
    assert_eq!(site.take(now, 1), Tokens::Wait { until: None });
    assert_eq!(site.snapshot(now).hold.map(|hold| hold.why), Some(Why::Held));
}

#[test]
fn slow_deliveries_cost_one_slot_a_round() {
    let (site, now) = site();
    (0..15).for_each(|_| _ = site.report(now, in_ms(20, 500)));
    assert_eq!(site.snapshot(now).slots, 20);
    (0..20).for_each(|_| _ = site.report(now, in_ms(1, 10_000)));
    assert_eq!(site.snapshot(now).slots, 19, "a full round, all of it slow");
    (0..1000).for_each(|_| _ = site.report(now, in_ms(1, 10_000)));
    let look = site.snapshot(now);
    assert!(look.slots < 5 && look.latency.is_some_and(|latency| latency.is_slow), "{look:?}");
    (0..200).for_each(|_| _ = site.report(now, in_ms(20, 500)));
    assert_eq!(site.snapshot(now).slots, 20, "it recovers");
}

#[test]
fn slots_never_fall_below_one_by_latency() {
    let (site, now) = site();
    site.report(now, in_ms(1, 1));
    (0..20).for_each(|_| _ = site.report(now, in_ms(100, 60_000)));
    assert!(site.snapshot(now).latency.is_some_and(|latency| latency.is_slow));
    site.report(now, in_ms(u32::MAX, 60_000));
    assert_eq!((site.snapshot(now).slots, site.lease(0, 1, now)), (1, Lease::Granted));
}

#[test]
fn latency_below_the_floor_is_never_slow_by_factor() {
    let (site, now) = site();
    site.report(now, in_ms(1, 1));
    (0..100).for_each(|_| _ = site.report(now, in_ms(20, 1900)));
    let look = site.snapshot(now);
    assert!(look.slots == 20 && look.latency.is_some_and(|latency| !latency.is_slow), "{look:?}");
}

#[test]
fn latency_over_its_limit_is_slow_whatever_the_best() {
    let latency = LatencyLimits { max: Some(SECOND), factor: 0, ..LatencyLimits::default() };
    let (site, now) = site_with(SiteLimits { latency, ..SiteLimits::default() });
    site.report(now, in_ms(5, 1001));
    assert_eq!(site.snapshot(now).slots, 4);
}

#[test]
fn path_that_became_longer_for_good_is_accepted_in_time() {
    let (site, now) = site();
    site.report(now, in_ms(1, 1000));
    (0..40).for_each(|minute| _ = site.report(now + minute * 60 * SECOND, in_ms(5, 10_000)));
    assert_eq!(site.snapshot(now).slots, 1);
    (40..300).for_each(|minute| _ = site.report(now + minute * 60 * SECOND, in_ms(5, 10_000)));
    assert_eq!(site.snapshot(now).slots, 20);
}

#[test]
fn suspended_site_takes_nothing_until_then_and_one_tries() {
    let (site, now) = site();
    let until = now + 600 * SECOND;
    assert_eq!(site.report(now, Health::Suspended { until }), Some(until));
    assert_eq!(site.report(now, Health::Suspended { until: now + SECOND }), Some(until), "the later counts");
    assert!(site.is_rated(), "open connections must ask");
    assert_eq!(site.take(now, 1), Tokens::Wait { until: Some(until) });
    assert_eq!(site.lease(0, 1, now), Lease::Wait { until: Some(until) });
    assert_eq!(site.snapshot(now).hold.map(|hold| hold.why), Some(Why::Suspended));
    site.report(now, Health::Blocked { until: now + SECOND });
    assert_eq!(site.snapshot(now).hold.map(|hold| (hold.why, hold.until)), Some((Why::Blocked, Some(until))));
    assert_eq!(site.take(until, 1), Tokens::Unlimited);
    assert!(!site.is_rated());
    assert_eq!((site.lease(0, 1, until), site.lease(0, 1, until)), (Lease::Granted, Lease::Full));
}

#[test]
fn reload_ends_no_suspension_and_an_operator_does() {
    let (site, now) = site();
    let until = now + 600 * SECOND;
    site.report(now, Health::Suspended { until });
    site.set_limits(SiteLimits::default(), now);
    assert_eq!(site.lease(0, 1, now), Lease::Wait { until: Some(until) });
    site.lift_back_off();
    assert_eq!((site.lease(0, 1, now), site.is_rated()), (Lease::Granted, false));
}

#[test]
fn slower_site_gets_its_part_of_connections_and_rates_for_a_time() {
    let mut limits = SiteLimits { connections_max: 10, slots_initial: 10, ..SiteLimits::default() };
    limits.message_rates[0] = Some(Rate::per_minute(100));
    let (site, now) = site_with(limits);
    let until = now + 30 * SECOND;
    site.report(now, Health::Slower { permille: 200, until });
    assert_eq!(site.snapshot(now).slots, 2);
    assert!(matches!(site.take(now, 1000), Tokens::Granted { count: 20, .. }));
    assert!(matches!(site.take(now, 1000), Tokens::Wait { .. }));
    assert_eq!(site.snapshot(until).slots, 10);
    assert!(matches!(site.take(until, 1000), Tokens::Granted { count: 80, .. }));
    site.report(until, Health::Slower { permille: 0, until: until + SECOND });
    assert_eq!(site.snapshot(until).slots, 1, "never nothing");
}

#[test]
fn new_connections_are_paced_and_open_ones_are_not_told_to_wait() {
    let connection_rate = Some(Rate::per_second(2));
    let (site, now) = site_with(SiteLimits { connection_rate, ..SiteLimits::default() });
    assert_eq!((site.lease(0, 1, now), site.lease(0, 1, now)), (Lease::Granted, Lease::Granted));
    let Lease::Later { until: Some(until) } = site.lease(0, 1, now) else { panic!("two were opened") };
    assert!(until > now + SECOND && until < now + SECOND + SECOND / 100);
    assert!(!site.is_rated());
    assert_eq!(
        site.snapshot(now).connection_rate.map(|look| (look.left, look.next_at)),
        Some((0, Some(until)))
    );
    assert_eq!(site.lease(0, 1, until), Lease::Granted);
}

#[test]
fn entries_are_told_apart_by_site_and_source() {
    let (table, now) = (SiteTable::new(10), Instant::now());
    let entry = |name, source| table.site(name, source, SiteLimits::default(), now);
    assert!(Arc::ptr_eq(&entry("ab", "c"), &entry("ab", "c")));
    assert!(!Arc::ptr_eq(&entry("ab", "c"), &entry("a", "bc")));
    assert!(!Arc::ptr_eq(&entry("ab", "c"), &entry("ab", "")));
    assert_eq!((entry("ab", "c").name(), entry("ab", "c").source(), table.len()), ("ab", "c", 3));
}
