//! What an entry of the site table costs. Alone in its process, so that nothing else is in the figures.

use queue::site_table::{Lease, Rate, SiteLimits, SiteTable, Tokens};
use std::time::Instant;

const SITES: usize = 100_000;

/// Bytes of memory that are in use: pages that are resident, of 4096 bytes at least.
fn resident_len() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("proc is mounted");
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("the second number") * 4096
}

/// One recipient at each of so many sites; bytes for each.
fn cost(limits: SiteLimits) -> (SiteTable, usize) {
    let (table, now, before) = (SiteTable::new(SITES), Instant::now(), resident_len());
    for number in 0..SITES {
        let site = table.site(&format!("mx.domain-{number:06}.example"), "pool", limits, now);
        assert_eq!(site.lease(number % 8, 8, now), Lease::Granted);
        assert!(matches!(site.take(now, 1), Tokens::Granted { count: 1, .. } | Tokens::Unlimited));
        site.give_back(number % 8);
    }
    assert_eq!(table.len(), SITES);
    (table, (resident_len() - before) / SITES)
}

#[test]
fn hundred_thousand_sites_with_one_recipient_each_are_small() {
    let mut rated = SiteLimits::default();
    rated.message_rates[0] = Some(Rate::per_second(10));
    // Both tables stay, so that one does not grow into what the other left.
    let (_rated_table, rated) = cost(rated);
    let (_table, plain) = cost(SiteLimits::default());
    println!("bytes for a site: {plain} without rates, {rated} with one");
    assert!(plain < 320, "{plain}");
    assert!(rated < 800, "{rated}");
}
