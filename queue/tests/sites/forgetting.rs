//! What a full table forgets, and what it may not.

use queue::site_table::{Health, Lease, Rate, SiteLimits, SiteTable, Tokens};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn rated() -> SiteLimits {
    let mut limits = SiteLimits { connection_rate: Some(Rate::per_minute(1)), ..SiteLimits::default() };
    limits.message_rates[2] = Some(Rate::per_hour(10));
    limits
}

fn has(table: &SiteTable, name: &str) -> bool {
    table.all().iter().any(|site| site.name() == name)
}

#[test]
fn full_table_forgets_the_idle_and_healthy() {
    let (table, now) = (SiteTable::new(2), Instant::now());
    let held = table.site("a", "", SiteLimits::default(), now);
    table.site("b", "", SiteLimits::default(), now);
    table.site("c", "", SiteLimits::default(), now);
    assert_eq!(table.len(), 2);
    assert!(Arc::ptr_eq(&held, &table.site("a", "", SiteLimits::default(), now)));
}

#[test]
fn what_remembers_is_not_forgotten_before_it_has_expired() {
    let (table, now) = (SiteTable::new(1), Instant::now());
    let hour = Duration::from_secs(3600);
    let entry = |name| table.site(name, "", rated(), now);
    entry("failed").report(now, Health::HostFailed);
    entry("suspended").report(now, Health::Suspended { until: now + hour });
    entry("slower").report(now, Health::Slower { permille: 500, until: now + hour });
    assert!(matches!(entry("messages").take(now, 1), Tokens::Granted { count: 1, .. }));
    let opened = entry("connections");
    assert_eq!(opened.lease(0, 1, now), Lease::Granted);
    opened.give_back(0);
    drop(opened);
    assert_eq!(entry("leased").lease(0, 1, now), Lease::Granted);
    let names = ["failed", "suspended", "slower", "messages", "connections", "leased"];
    (0..9).for_each(|other| _ = table.site(&format!("other {other}"), "", SiteLimits::default(), now));
    assert!(names.iter().all(|name| has(&table, name)), "{:?}", table.all());

    // All but the lease have expired.
    let later = now + 3 * hour;
    (0..9).for_each(|other| _ = table.site(&format!("more {other}"), "", SiteLimits::default(), later));
    let left: Vec<&str> = names.into_iter().filter(|name| has(&table, name)).collect();
    assert_eq!(left, ["leased"]);
}

#[test]
fn hundred_thousand_sites_with_one_connection_each_stay_within_the_bound() {
    let (table, now) = (SiteTable::new(1000), Instant::now());
    for number in 0..100_000 {
        let site = table.site(&format!("mx.domain-{number}.example"), "", SiteLimits::default(), now);
        assert_eq!(site.lease(number % 8, 8, now), Lease::Granted);
        site.give_back(number % 8);
    }
    assert!(table.len() <= 1000, "{}", table.len());
    assert_eq!(table.all().len(), table.len());
}
