//! Rates by example: what is lost, what a reload and a restart keep, what is shown.

use crate::facts::site_with;
use queue::site_table::{Rate, Site, SiteLimits, Tokens};
use std::time::{Duration, Instant};

fn limits(rates: &[Rate]) -> SiteLimits {
    let mut limits = SiteLimits::default();
    limits.message_rates.iter_mut().zip(rates).for_each(|(place, rate)| *place = Some(*rate));
    limits
}

fn granted(tokens: Tokens) -> (u32, Instant) {
    match tokens {
        Tokens::Granted { count, until } => (count, until),
        other => panic!("{other:?}"),
    }
}

fn waits(tokens: Tokens) -> Option<Instant> {
    match tokens {
        Tokens::Wait { until } => until,
        other => panic!("{other:?}"),
    }
}

#[test]
fn site_without_rates_need_not_be_asked() {
    let (site, now) = site_with(limits(&[]));
    assert!(!site.is_rated());
    assert_eq!(site.take(now, 7), Tokens::Unlimited);
}

#[test]
fn batch_counts_for_a_window_after_its_last_moment() {
    let (site, now) = site_with(limits(&[Rate::per_minute(10)]));
    assert!(site.is_rated());
    let (count, until) = granted(site.take(now, 100));
    assert_eq!((count, until), (10, now + Duration::from_secs(60) / 128));
    let next = waits(site.take(now, 1)).expect("they come back");
    assert_eq!(next, until + Duration::from_secs(60));
    assert_eq!(waits(site.take(next - Duration::from_nanos(1), 1)), Some(next));
    assert_eq!(granted(site.take(next, 100)).0, 10);
}

#[test]
fn every_window_counts_and_the_fullest_decides() {
    let (site, now) = site_with(limits(&[Rate::per_second(5), Rate::per_minute(8)]));
    assert_eq!(granted(site.take(now, 9)).0, 5);
    let next = waits(site.take(now, 9)).expect("in a second");
    assert_eq!(granted(site.take(next, 9)).0, 3);
    assert!(waits(site.take(next, 9)) > Some(now + Duration::from_secs(60)));
}

#[test]
fn what_was_not_sent_is_given_back_while_it_counts_and_never_afterwards() {
    let (site, now) = site_with(limits(&[Rate::per_second(5)]));
    let (_, until) = granted(site.take(now, 5));
    site.give_back_tokens(3, until);
    assert_eq!(granted(site.take(now, 9)).0, 3);
    let later = now + Duration::from_secs(10);
    let (_, new) = granted(site.take(later, 5));
    site.give_back_tokens(2, until);
    waits(site.take(later, 1)).expect("the old batch is not the new one");
    site.give_back_tokens(1, new);
    assert_eq!(granted(site.take(later, 9)).0, 1);
}

#[test]
fn lowered_rate_holds_at_once_over_what_went_before() {
    let (site, now) = site_with(limits(&[Rate::per_minute(100)]));
    granted(site.take(now, 50));
    site.set_limits(limits(&[Rate::per_minute(20)]), now);
    waits(site.take(now, 1)).expect("in a minute");
    site.set_limits(limits(&[Rate::per_minute(60)]), now);
    assert_eq!(granted(site.take(now, 100)).0, 10);
    site.set_limits(limits(&[Rate::per_second(70), Rate::per_minute(1000)]), now);
    assert_eq!(granted(site.take(now, 100)).0, 10, "a shorter window knows what the longer one knew");
}

#[test]
fn longer_window_that_is_new_does_not_hold_mail_for_what_nobody_knows() {
    let (site, mut now) = site_with(limits(&[Rate::per_second(1)]));
    for _ in 0..5 {
        granted(site.take(now, 1));
        now += Duration::from_secs(2);
    }
    site.set_limits(limits(&[Rate::per_second(1), Rate::per_day(100)]), now);
    assert_eq!(granted(site.take(now, 1)).0, 1);
}

#[test]
fn rate_of_zero_lets_nothing_through() {
    let (site, now) = site_with(limits(&[Rate::per_day(0)]));
    assert_eq!(site.take(now, 1), Tokens::Wait { until: None });
    site.set_limits(limits(&[Rate { count: 0, window: Duration::ZERO }]), now);
    assert_eq!(site.take(now, 1), Tokens::Unlimited, "a window of no length limits nothing");
}

#[test]
fn what_went_before_a_restart_counts() {
    let (site, now) = site_with(limits(&[Rate::per_second(500), Rate::per_day(100)]));
    let start = now + Duration::from_secs(3600);
    site.restore_used(1, 90, now);
    site.restore_used(3, 90, now);
    assert_eq!(granted(site.take(start, 500)).0, 10);
    assert_eq!(waits(site.take(start, 500)), Some(now + Duration::from_secs(24 * 3600)));
}

#[test]
fn restoring_every_second_of_a_day_stays_exact_and_bounded() {
    let (site, now) = site_with(limits(&[Rate::per_day(100_000)]));
    let start = now + Duration::from_secs(86_400);
    (0..86_400).rev().for_each(|second| site.restore_used(0, 1, now + Duration::from_secs(second)));
    let left = site.snapshot(start).message_rates[0].expect("a rate").left;
    assert!((13_600..=13_601).contains(&left), "{left}");
}

#[test]
fn snapshot_says_what_is_left_and_when_more_is() {
    let (site, now) = site_with(limits(&[Rate::per_second(5), Rate::per_hour(50)]));
    let (_, until) = granted(site.take(now, 3));
    let looks = site.snapshot(now).message_rates;
    let left = looks.map(|look| look.map(|look| (look.left, look.next_at)));
    let hour = Duration::from_secs(3600);
    let second = Duration::from_secs(1);
    assert_eq!(left[..2], [Some((2, Some(until + second))), Some((47, Some(until + hour)))]);
    assert_eq!(site.snapshot(now).limits.message_rates[1], Some(Rate::per_hour(50)));
    assert_eq!(site.snapshot(now + 2 * hour).message_rates[1].map(|look| look.next_at), Some(None));
}

/// What a core that always wants more gets in fifty windows.
fn sent_by_the_greedy(site: &Site, start: Instant, window: Duration, want: u32) -> u64 {
    let (mut now, mut sent) = (start, 0);
    while now < start + 50 * window {
        match site.take(now, want) {
            Tokens::Granted { count, .. } => {
                sent += u64::from(count);
                now += window / 3000;
            }
            Tokens::Wait { until } => now = until.expect("more comes"),
            Tokens::Unlimited => panic!("it has a rate"),
        }
    }
    sent
}

#[test]
fn less_than_two_percent_of_a_rate_is_lost() {
    for (rate, want) in [
        (Rate::per_second(1), 1),
        (Rate::per_second(7), 1),
        (Rate::per_second(1000), 1),
        (Rate::per_second(1000), 100),
        (Rate::per_minute(100_000), 64),
        (Rate::per_hour(300), 2),
        (Rate::per_day(50_000), 1000),
    ] {
        let (site, now) = site_with(limits(&[rate]));
        let sent = sent_by_the_greedy(&site, now, rate.window, want);
        let full = 50 * u64::from(rate.count);
        assert!(
            sent * 100 >= full * 98 && sent <= full + u64::from(rate.count),
            "{rate:?} {want}: {sent} of {full}"
        );
    }
}

#[test]
fn what_was_forgotten_cannot_be_given_back_after_something_older_was_restored() {
    let (site, now) = site_with(limits(&[Rate::per_second(4)]));
    let (_, first) = granted(site.take(now, 1));
    let later = first + Duration::from_secs(1) + Duration::from_secs(1) / 16;
    assert_eq!(granted(site.take(later, 1)).0, 1);
    site.restore_used(0, 1, first - Duration::from_micros(500));
    assert_eq!(granted(site.take(later, 1)).0, 1);
    site.give_back_tokens(1, first);
    assert_eq!(granted(site.take(later, 9)).0, 2, "two of four are left");
}
