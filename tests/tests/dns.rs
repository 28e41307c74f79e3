//! Routes found by a real name server on loopback: dnsmasq, which knows only what a test tells it.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;
use tests::process::source::{self, SourceConfig};
use tests::process::{Daemon, NameServer, Setup, Sink, wait};

const RUN_MAX: Duration = Duration::from_secs(60);

/// The delivery log is written half a second after a verdict.
const LOG_MAX: Duration = Duration::from_secs(10);

/// A daemon that asks this name server and connects to hosts on the sink's port.
fn setup(server: SocketAddr, port: u16) -> Setup {
    let setup = Setup::new().with("delivery.name_servers", vec![server.to_string()]);
    setup.with("delivery.port", i64::from(port))
}

/// `None` if there is no dnsmasq.
fn start(records: &[&str], port: u16) -> Option<(NameServer, Daemon)> {
    let records: Vec<String> = records.iter().map(|record| format!("--{record}")).collect();
    let server = NameServer::start(&records)?;
    let daemon = setup(server.address, port).start();
    Some((server, daemon))
}

/// A second sink on the same port of another loopback address.
fn beside(sink: &Sink, last: u8) -> Sink {
    let address = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), sink.address.port()));
    Sink::start_on(&address.to_string(), &[])
}

fn forward_paths(sink: Sink) -> Vec<String> {
    sink.end().forward_paths().into_iter().collect()
}

/// The daemon's last word on a recipient, from its delivery log.
fn reply_to(daemon: &Daemon, recipient: &str) -> serde_json::Value {
    let find = || {
        let log = std::fs::read_to_string(daemon.setup.delivery_log()).unwrap_or_default();
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines.rfind(|line| line["rcpt"] == recipient)
    };
    wait::until_some(&format!("a line on {recipient}"), LOG_MAX, find)
}

#[test]
fn the_best_preference_gets_the_mail() {
    let best = Sink::start(&[]);
    let other = beside(&best, 2);
    let records = [
        "mx-host=a.test,mx2.a.test,20",
        "mx-host=a.test,mx1.a.test,10",
        "host-record=mx1.a.test,127.0.0.1",
        "host-record=mx2.a.test,127.0.0.2",
    ];
    let Some((_server, daemon)) = start(&records, best.address.port()) else { return };
    for number in 0..20 {
        daemon.client().deliver("", &[&format!("u{number}@a.test")]);
    }
    daemon.wait_until_empty(RUN_MAX);
    assert_eq!((best.end().counters.recipients, other.end().counters.recipients), (20, 0));
}

#[test]
fn a_dead_first_host_leaves_the_mail_to_the_second() {
    let first = Sink::start(&[]);
    let second = beside(&first, 2);
    let records = [
        "mx-host=a.test,mx1.a.test,10",
        "mx-host=a.test,mx2.a.test,20",
        // Nothing listens there.
        "host-record=mx1.a.test,127.0.0.3",
        "host-record=mx2.a.test,127.0.0.2",
    ];
    let Some((_server, daemon)) = start(&records, first.address.port()) else { return };
    daemon.client().deliver("", &["bob@a.test"]);
    daemon.wait_for("delivered", 1, RUN_MAX);
    assert_eq!(daemon.metric("deferred"), 0);
    assert_eq!(forward_paths(second), ["bob@a.test"]);
}

#[test]
fn a_host_with_several_addresses_is_tried_at_each() {
    let sink = Sink::start(&[]);
    let records =
        ["mx-host=a.test,mx.a.test,10", "host-record=mx.a.test,127.0.0.3", "host-record=mx.a.test,127.0.0.1"];
    let Some((_server, daemon)) = start(&records, sink.address.port()) else { return };
    daemon.client().deliver("", &["bob@a.test"]);
    daemon.wait_for("delivered", 1, RUN_MAX);
    assert_eq!(forward_paths(sink), ["bob@a.test"]);
}

#[test]
fn a_domain_without_mx_is_its_own_host() {
    let sink = Sink::start(&[]);
    let Some((_server, daemon)) = start(&["host-record=a.test,127.0.0.1"], sink.address.port()) else {
        return;
    };
    daemon.client().deliver("", &["bob@a.test"]);
    daemon.wait_for("delivered", 1, RUN_MAX);
    assert_eq!(reply_to(&daemon, "bob@a.test")["host"], "a.test");
    assert_eq!(forward_paths(sink), ["bob@a.test"]);
}

#[test]
fn an_address_literal_needs_no_name_server() {
    let sink = Sink::start(&[]);
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let server = silent.local_addr().expect("it is bound");
    let daemon = setup(server, sink.address.port()).start();
    daemon.client().deliver("", &["bob@[127.0.0.1]"]);
    daemon.wait_for("delivered", 1, RUN_MAX);
    assert_eq!(forward_paths(sink), ["bob@[127.0.0.1]"]);
}

// ---- nobody takes it ----

/// The domain's mail comes back at once, with these codes.
fn comes_back(records: &[&str], domain: &str, code: u16, enhanced: &str) {
    let sink = Sink::start(&[]);
    let returns = ["mx-host=here.test,mx.here.test,10", "host-record=mx.here.test,127.0.0.1"];
    let Some((_server, daemon)) = start(&[records, &returns].concat(), sink.address.port()) else { return };
    let recipient = format!("bob@{domain}");
    daemon.client().deliver("ann@here.test", &[&recipient]);
    daemon.wait_for("bounces", 1, RUN_MAX);
    daemon.wait_until_empty(RUN_MAX);
    let line = reply_to(&daemon, &recipient);
    assert_eq!(
        (&line["verdict"], &line["code"], &line["enhanced"]),
        (&"failed".into(), &code.into(), &enhanced.into())
    );
    assert_eq!(daemon.metric("deferred"), 0);
    assert_eq!(forward_paths(sink), ["ann@here.test"]);
}

#[test]
fn a_domain_that_does_not_exist_bounces_with_5_1_2() {
    comes_back(&[], "nowhere.test", 550, "5.1.2");
}

#[test]
fn a_null_mx_bounces_with_5_1_10() {
    // dnsmasq takes "." as a name of its own only in raw form: type 15, preference 0, the root.
    comes_back(&["dns-rr=null.test,15,000000"], "null.test", 556, "5.1.10");
}

#[test]
fn a_domain_without_any_address_bounces() {
    comes_back(&["txt-record=text.test,only text"], "text.test", 550, "5.4.4");
}

#[test]
fn an_mx_that_is_this_host_does_not_loop() {
    comes_back(&["mx-host=loop.test,relay.process.test,10"], "loop.test", 554, "5.4.6");
}

// ---- not now ----

#[test]
fn mail_waits_while_the_name_server_is_silent() {
    // It takes questions and never answers.
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let daemon = setup(silent.local_addr().expect("it is bound"), 25).start();
    daemon.client().deliver("ann@here.test", &["bob@a.test"]);
    daemon.wait_for_at_least("deferred", 1, RUN_MAX);
    let metrics = daemon.metrics();
    assert_eq!((metrics["queued_recipients"], metrics["failed"], metrics["bounces"]), (1, 0, 0));
    daemon.assert_healthy();
}

#[test]
fn mail_waits_while_nothing_is_at_the_name_servers_address_and_goes_when_it_is() {
    let sink = Sink::start(&[]);
    let records = ["--host-record=a.test,127.0.0.1".to_owned()];
    let Some(server) = NameServer::start(&records) else { return };
    let address = server.address;
    drop(server);
    let daemon = setup(address, sink.address.port()).start();
    daemon.client().deliver("ann@here.test", &["bob@a.test"]);
    daemon.wait_for_at_least("deferred", 1, RUN_MAX);
    let Some(_server) = NameServer::start_on(address, &records) else { return };
    daemon.wait_for("delivered", 1, RUN_MAX);
}

#[test]
fn every_deferral_for_want_of_an_answer_has_its_line_in_the_delivery_log() {
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let daemon = setup(silent.local_addr().expect("it is bound"), 25).start();
    daemon.client().deliver("ann@here.test", &["bob@a.test", "eve@a.test"]);
    daemon.wait_for_at_least("deferred", 2, RUN_MAX);
    for recipient in ["bob@a.test", "eve@a.test"] {
        assert_eq!(reply_to(&daemon, recipient)["enhanced"], "4.4.3");
    }
}

// ---- sites ----

#[test]
fn domains_with_the_same_mx_set_share_connections() {
    // A fourth connection would get 421, which the sink counts.
    let sink = Sink::start(&["--delay", "1", "--connections-max", "3"]);
    let mut records = vec!["--host-record=mx.big.test,127.0.0.1".to_owned()];
    records.extend((1..=50).map(|number| format!("--mx-host=d{number:03}.test,mx.big.test,10")));
    let Some(server) = NameServer::start(&records) else { return };
    let daemon = setup(server.address, sink.address.port()).with("delivery.connections_max", 3).start();
    let config =
        SourceConfig { domain_count: 50, recipients_per_message: 1_000, ..SourceConfig::to(daemon.address) };
    let report = source::send(config, daemon.setup.folder().join("sent.tsv"));
    assert_eq!(report.recipients_accepted, 1_000, "{report:?}");
    daemon.wait_until_empty(RUN_MAX);
    assert_eq!(daemon.metric("delivered"), 1_000);
    let sink = sink.end();
    assert_eq!(sink.counters.replies.get(&421), None, "{:?}", sink.counters);
    assert!(sink.counters.connections <= 6, "{:?}", sink.counters);
    let domains: BTreeSet<String> = sink
        .forward_paths()
        .iter()
        .filter_map(|path| path.split_once('@'))
        .map(|(_, domain)| domain.to_owned())
        .collect();
    assert_eq!(domains.len(), 50);
}
