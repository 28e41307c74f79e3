//! Urgent mail overtakes a bulk fan-out that is under way to the same site, however it is stored and shared.
//!
//! By counts, not by time: at its 250 the daemon says how many were delivered, and at the sink its place in the order
//! of arrival tells how many more went before it.

use loadgen::source::SourceConfig;
use std::collections::BTreeSet;
use std::time::Duration;
use tests::process::sink::Ended;
use tests::process::source::{self, newsletter};
use tests::process::{Daemon, Setup, Sink};

const RUN_MAX: Duration = Duration::from_secs(300);

/// So many that none of what is asserted can be had by luck.
const LIST: u64 = 300_000;

/// At a site that takes a few thousand a second.
const SLOW_LIST: u64 = 60_000;

/// What may go before it: all that is in flight or on its way through a turn, and what is delivered while we ask
/// for the count.
const BEFORE_MAX: usize = 3_000;

const URGENT: [&str; 3] = ["first@there.test", "second@there.test", "third@there.test"];

/// How many were delivered when the urgent message had its 250.
fn send_urgent(daemon: &Daemon, to: &str) -> usize {
    let mut client = daemon.client();
    client.say_expecting("MAIL FROM:<ann@here.test> MT-PRIORITY=5", "250 2.1.0");
    client.say_expecting(&format!("RCPT TO:<{to}>"), "250");
    client.say_expecting("DATA", "354");
    client.say_expecting("Subject: your code\r\n\r\n1234\r\n.", "250 2.0.0");
    usize::try_from(daemon.metric("delivered")).expect("a count")
}

/// One urgent message after the other while the list goes out.
fn overtakes(setup: Setup, list: u64) {
    let sink = Sink::start(&["--delay", "1"]);
    let daemon = setup.with("intake.recipients_max", 1_000_000).relay(sink.address).start();
    let sent = daemon.setup.folder().join("sent.tsv");
    let report = source::send(newsletter(daemon.address, list, 2048), sent);
    assert_eq!(report.recipients_accepted, list, "{report:?}");
    let mut delivered = Vec::new();
    for (number, to) in URGENT.into_iter().enumerate() {
        daemon.wait_for_at_least("delivered", 5_000 * (number as u64 + 1), RUN_MAX);
        delivered.push(send_urgent(&daemon, to));
    }
    daemon.wait_until_empty(RUN_MAX);
    check_order(&sink.end(), list, &delivered);
}

fn check_order(sink: &Ended, list: u64, delivered: &[usize]) {
    let mut arrivals = sink.deliveries();
    arrivals.sort_by_key(|arrival| arrival.at_ns);
    for (to, delivered) in URGENT.into_iter().zip(delivered) {
        let place = arrivals.iter().position(|arrival| arrival.forward_path == to).expect("it arrived");
        let before = place.saturating_sub(*delivered);
        assert!(before <= BEFORE_MAX, "{to}: {before} went before it");
        assert!(place < arrivals.len() - BEFORE_MAX, "{to}: the list was all but over");
    }
    // And the list lost nobody by it.
    let paths: BTreeSet<&str> = arrivals.iter().map(|arrival| arrival.forward_path.as_str()).collect();
    assert_eq!(paths.len(), arrivals.len());
    assert_eq!(arrivals.len() as u64, list + URGENT.len() as u64);
}

#[test]
fn urgent_message_overtakes_a_fan_out() {
    overtakes(Setup::new(), LIST);
}

#[test]
fn urgent_message_that_must_be_read_back_overtakes_a_fan_out() {
    overtakes(Setup::new().with("storage.cache_max", 0), LIST);
}

#[test]
fn urgent_message_overtakes_a_fan_out_that_cores_share() {
    overtakes(Setup::new().on_cpus(&[0, 1]), LIST);
}

#[test]
fn urgent_message_goes_out_although_another_core_has_the_only_connection() {
    overtakes(Setup::new().on_cpus(&[0, 1]).with("delivery.connections_max", 1), SLOW_LIST);
}

// ---- campaigns ----

/// Messages of the flood and of the small campaign, to one recipient each at one site.
const FLOOD: u64 = 20_000;
const SMALL: u64 = 1_000;

/// What may go out of turn: all that is in flight or read ahead.
const ASTRAY_MAX: usize = 300;

const SMALL_SENDER: &str = "list@small.test";

/// The flood is queued first, nothing goes out until both are queued, and what was queued must be read back.
#[test]
fn small_campaign_shares_the_site_with_a_flood_that_came_first() {
    let sink = Sink::start(&[]);
    let setup = Setup::new().on_cpus(&[0]).relay(sink.address).with("delivery.connections_max", 0);
    let daemon = setup.start();
    let sent = |name: &str| daemon.setup.folder().join(name);
    source::send(source::singles(daemon.address, FLOOD, 50), sent("flood.tsv"));
    let small = SourceConfig {
        reverse_path: SMALL_SENDER.into(),
        seed: 2,
        ..source::singles(daemon.address, SMALL, 10)
    };
    source::send(small, sent("small.tsv"));
    let mut stopped = daemon.kill();
    stopped.setup.set("delivery.connections_max", 4);
    let daemon = stopped.restart();
    daemon.wait_until_empty(RUN_MAX);
    check_turns(&sink.end());
}

fn check_turns(sink: &Ended) {
    let mut arrivals = sink.deliveries();
    arrivals.sort_by_key(|arrival| arrival.at_ns);
    assert_eq!(arrivals.len() as u64, FLOOD + SMALL);
    let mut small = 0usize;
    for (place, arrival) in arrivals.iter().enumerate() {
        small += usize::from(arrival.reverse_path == SMALL_SENDER);
        if small as u64 == SMALL {
            assert!(place <= 2 * small + ASTRAY_MAX, "the last of the small campaign is number {place}");
            return;
        }
        assert!(
            small.abs_diff(place / 2) <= ASTRAY_MAX,
            "{small} of the first {place} are the small campaign's"
        );
    }
    panic!("only {small} of the small campaign arrived");
}
