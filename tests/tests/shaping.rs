//! Limits and rates as a provider counts them, and what an operator's rules make of its refusals.
//!
//! Rates are judged over a window that is some seconds shorter than theirs: on a busy machine a message may be that
//! long on its way. Of a rate that is not kept, or kept by each core for itself, that would show as well.

use serde_json::Value;
use std::time::Duration;
use tests::process::sink::Ended;
use tests::process::source::{self, SourceConfig, assert_clean, audit, newsletter, singles};
use tests::process::{Daemon, NameServer, Setup, Sink, wait};

const RUN_MAX: Duration = Duration::from_secs(120);

/// A daemon for which `a.test` is at these addresses, the most preferred first.
fn start(port: u16, addresses: &[&str], setup: Setup) -> Option<(NameServer, Daemon)> {
    let hosts = addresses.iter().enumerate().flat_map(|(at, address)| {
        [format!("--mx-host=a.test,mx{at}.a.test,{at}"), format!("--host-record=mx{at}.a.test,{address}")]
    });
    let server = NameServer::start(&hosts.collect::<Vec<_>>())?;
    let daemon = setup.by_mx(&server, port).start();
    Some((server, daemon))
}

// ---- limits ----

/// Everything arrives at one site under these limits, over two cores.
fn arrives(limits: &str, config: impl FnOnce(&Daemon) -> SourceConfig, options: &[&str]) -> Ended {
    let sink = Sink::start(options);
    let lines = format!("cpus = [0, 1]\n[shaping.sites.\"*\"]\n{limits}");
    let daemon = Setup::new().relay(sink.address).with_lines(&lines).start();
    let sent = daemon.setup.folder().join("sent.tsv");
    let config = config(&daemon);
    let (is_verp, count) = (config.xverp.is_some(), config.messages * config.recipients_per_message);
    assert_eq!(source::send(config, sent.clone()).recipients_accepted, count);
    daemon.wait_until_empty(RUN_MAX);
    let sink = sink.end();
    assert_clean(&audit(&[&sent], &sink, is_verp), 0);
    assert_eq!(sink.counters.recipients, count);
    sink
}

fn list(daemon: &Daemon, count: u64) -> SourceConfig {
    newsletter(daemon.address, count, 2048)
}

#[test]
fn rate_of_messages_is_kept_over_two_cores() {
    let sink = arrives("message_rate = [\"50/5s\"]", |daemon| list(daemon, 220), &["--window", "3"]);
    assert!(sink.counters.sources[0].mails_peak[&3] <= 50, "{:?}", sink.counters.sources);
}

#[test]
fn rate_holds_for_single_messages_as_well() {
    let config = |daemon: &Daemon| singles(daemon.address, 90, 4);
    let sink = arrives("message_rate = [\"20/4s\"]", config, &["--window", "2"]);
    assert!(sink.counters.sources[0].mails_peak[&2] <= 20, "{:?}", sink.counters.sources);
}

#[test]
fn both_of_two_rates_are_kept() {
    let rates = "message_rate = [\"30/3s\", \"50/10s\"]";
    let sink = arrives(rates, |daemon| list(daemon, 120), &["--window", "1,7"]);
    let peer = &sink.counters.sources[0];
    assert!(peer.mails_peak[&1] <= 30 && peer.mails_peak[&7] <= 50, "{peer:?}");
}

#[test]
fn rate_of_connections_is_kept() {
    let limits = "connection_rate = \"5/4s\"\nmessages_per_connection = 10";
    let sink = arrives(limits, |daemon| list(daemon, 150), &["--window", "2"]);
    let peer = &sink.counters.sources[0];
    assert!(peer.connections_peak[&2] <= 5 && peer.connections >= 15, "{peer:?}");
}

#[test]
fn connections_are_limited_over_two_cores() {
    let options = ["--delay", "1"];
    let sink = arrives("connections_max = 3", |daemon| list(daemon, 2_000), &options);
    assert!(sink.counters.sources[0].connections_open_peak <= 3, "{:?}", sink.counters.sources);
}

#[test]
fn messages_of_a_connection_and_recipients_of_a_transaction_are_limited() {
    let limits = "messages_per_connection = 5\nrecipients_per_transaction = 2";
    let config = |daemon: &Daemon| SourceConfig { xverp: None, domain_count: 1, ..list(daemon, 200) };
    let sink = arrives(limits, config, &[]);
    assert!(sink.counters.transactions >= 100, "{:?}", sink.counters);
    assert!(sink.counters.connections >= 20, "{:?}", sink.counters);
}

#[test]
fn limits_of_one_site_do_not_bind_another() {
    let (sink, slow) = (Sink::start(&[]), Sink::start(&[]));
    let lines = format!(
        "[shaping.sites.\"127.0.0.1\"]\nmessage_rate = [\"1/h\"]\n[routes]\n\"slow.test\" = \"127.0.0.1:{}\"\n\
         \"*\" = \"{}\"\n",
        slow.address.port(),
        sink.address
    )
    .replace("sites.\"127.0.0.1\"", "sites.\"mx0.a.test\"");
    let Some((_server, daemon)) =
        start(slow.address.port(), &["127.0.0.1"], Setup::new().with_lines(&lines).with("routes.a.test", ""))
    else {
        return;
    };
    let mut client = daemon.client();
    (0..3).for_each(|number| client.deliver("ann@here.test", &[&format!("u{number}@a.test")]));
    (0..20).for_each(|number| client.deliver("ann@here.test", &[&format!("u{number}@b.test")]));
    daemon.wait_for("delivered", 21, RUN_MAX);
    assert_eq!(daemon.metric("queued_recipients"), 2);
    assert_eq!((sink.end().counters.recipients, slow.end().counters.recipients), (20, 1));
}

// ---- an operator's rules ----

/// What the sink says, and what the rule makes of it.
struct Case<'a> {
    says: &'a str,
    action: &'a str,
    limits: &'a str,
}

const WORDS: &str = "as the rule has it";

/// `a.test` is at 127.0.0.1 or, first, at `addresses`.
fn ruled(case: &Case<'_>, port: u16, addresses: &[&str]) -> Option<(NameServer, Daemon)> {
    let setup = Setup::new();
    let file = setup.folder().join("providers.toml");
    let Case { action, limits, .. } = case;
    let text = format!(
        "[[provider]]\nname = \"a\"\nmx = [\"*.a.test\"]\n{limits}\n[[provider.rule]]\nname = \"ours\"\n\
         pattern = \"{WORDS}\"\n{action}\ntest = [\"451 4.7.1 {WORDS}\"]\n"
    );
    std::fs::write(&file, text).expect("the folder is ours");
    let setup = setup.with("shaping.providers", file.to_str().expect("plain names"));
    start(port, addresses, setup)
}

fn saying(case: &Case<'_>) -> Sink {
    Sink::start(&["--reply", &format!("{} {WORDS}", case.says), "--window", "2"])
}

fn send(daemon: &Daemon, first: u64, count: u64) {
    let mut client = daemon.client();
    let range = first..first + count;
    range.for_each(|number| client.deliver("ann@a.test", &[&format!("u{number}@a.test")]));
}

/// `ringpost sites --json`.
fn sites(daemon: &Daemon) -> Value {
    let output = wait::succeed(&mut daemon.setup.command(&["sites", "--json"]), wait::PATIENCE);
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

#[test]
fn rule_bounces_what_the_code_would_have_tried_again() {
    let case = Case { says: "rcpt[address=u0@a.test]=451 4.2.1", action: "action = \"bounce\"", limits: "" };
    let sink = saying(&case);
    let Some((_server, daemon)) = ruled(&case, sink.address.port(), &["127.0.0.1"]) else { return };
    send(&daemon, 0, 1);
    daemon.wait_for("bounces", 1, RUN_MAX);
    daemon.wait_until_empty(RUN_MAX);
    let word = daemon.last_word_on("u0@a.test");
    assert_eq!((&word["verdict"], &word["code"]), (&"failed".into(), &451.into()));
    assert_eq!((daemon.metric("deferred"), daemon.metric("failed")), (0, 1));
}

#[test]
fn rule_tries_again_what_the_code_would_have_bounced() {
    let case = Case { says: "rcpt[first=1]=550 5.1.1", action: "action = \"defer\"", limits: "" };
    let sink = saying(&case);
    let Some((_server, daemon)) = ruled(&case, sink.address.port(), &["127.0.0.1"]) else { return };
    send(&daemon, 0, 1);
    daemon.wait_for("delivered", 1, RUN_MAX);
    assert_eq!((daemon.metric("deferred"), daemon.metric("failed")), (1, 0));
    let words = daemon.words_on("u0@a.test");
    assert_eq!((&words[0]["verdict"], &words[0]["code"]), (&"deferred".into(), &550.into()));
}

#[test]
fn rule_suspends_a_site_until_its_mail_is_asked_for() {
    let action = "action = \"suspend\"\nfor = \"1h\"\ndefer = true";
    let case = Case { says: "mail[first=1]=550 5.7.1", action, limits: "" };
    let sink = saying(&case);
    let Some((_server, daemon)) = ruled(&case, sink.address.port(), &["127.0.0.1"]) else { return };
    send(&daemon, 0, 1);
    daemon.wait_until_said("a provider's rule holds");
    send(&daemon, 1, 10);
    daemon.wait_for("queued_recipients", 11, RUN_MAX);
    let view = sites(&daemon);
    assert_eq!(view["sites"][0]["state"], "suspended", "{view}");
    assert_eq!((daemon.metric("delivered"), daemon.metric("failed")), (0, 0));
    wait::succeed(&mut daemon.setup.command(&["queue", "flush"]), wait::PATIENCE);
    daemon.wait_for("delivered", 11, RUN_MAX);
    assert_eq!(sink.end().counters.recipients, 11);
}

#[test]
fn rule_slows_a_site_down() {
    let action = "action = \"slower\"\nto_percent = 10\nfor = \"1h\"";
    let limits = "limits = { message_rate = [\"30/4s\"] }";
    let case = Case { says: "dot[first=1]=451 4.7.1", action, limits };
    let sink = saying(&case);
    let Some((_server, daemon)) = ruled(&case, sink.address.port(), &["127.0.0.1"]) else { return };
    send(&daemon, 0, 1);
    daemon.wait_until_said("a provider's rule holds");
    send(&daemon, 1, 10);
    daemon.wait_for("delivered", 11, RUN_MAX);
    let sink = sink.end();
    assert!(sink.counters.sources[0].mails_peak[&2] <= 3, "{:?}", sink.counters.sources);
}

#[test]
fn providers_own_rate_is_kept_without_any_rule() {
    let limits = "limits = { message_rate = [\"10/4s\"], connections_max = 2 }";
    let case = Case { says: "rcpt[address=nobody@a.test]=451 4.7.1", action: "action = \"defer\"", limits };
    let sink = saying(&case);
    let Some((_server, daemon)) = ruled(&case, sink.address.port(), &["127.0.0.1"]) else { return };
    send(&daemon, 0, 35);
    daemon.wait_for("delivered", 35, RUN_MAX);
    let sink = sink.end();
    let peer = &sink.counters.sources[0];
    assert!(peer.mails_peak[&2] <= 10 && peer.connections_open_peak <= 2, "{peer:?}");
}

#[test]
fn rule_skips_a_host_and_another_takes_its_mail() {
    let action = "action = \"skip_mx\"\nfor = \"1h\"\ndefer = true";
    let case = Case { says: "mail=550 5.7.1", action, limits: "" };
    let second = Sink::start(&[]);
    let first = second.beside(2, &["--reply", &format!("{} {WORDS}", case.says)]);
    let addresses = ["127.0.0.2", "127.0.0.1"];
    let Some((_server, daemon)) = ruled(&case, second.address.port(), &addresses) else { return };
    send(&daemon, 0, 10);
    daemon.wait_for("delivered", 10, RUN_MAX);
    let (first, second) = (first.end().counters, second.end().counters);
    assert_eq!((first.recipients, second.recipients, daemon.metric("failed")), (0, 10, 0));
}
