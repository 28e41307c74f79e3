//! From which of our addresses mail goes out: weights, selection, blocked and new sources.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;
use tests::process::source::{self, SourceConfig, assert_clean, audit, newsletter};
use tests::process::{Daemon, NameServer, Setup, Sink, wait};

const RUN_MAX: Duration = Duration::from_secs(120);

/// Three addresses of ours; the default pool has the first two, by three to one.
const SOURCES: &str = r#"
[sources.a]
bind = "127.0.0.11"
ehlo = "a.source.test"
[sources.b]
bind = "127.0.0.12"
ehlo = "b.source.test"
[sources.c]
bind = "127.0.0.13"
[pools.default.sources]
a = 3
b = 1
[pools.special.sources]
c = 1
"#;

const SELECT: &str = "[[select]]\nsender = \"*@special.test\"\npool = \"special\"";

fn start(sink: &Sink, lines: &str) -> Daemon {
    Setup::new().relay(sink.address).with_lines(SOURCES).with_lines(lines).start()
}

fn delivers(daemon: &Daemon, sender: &str, count: u64) {
    let before = daemon.metric("delivered");
    let mut client = daemon.client();
    for number in 0..count {
        client.deliver(sender, &[&format!("u{number}@there.test")]);
    }
    daemon.wait_for("delivered", before + count, RUN_MAX);
}

fn recipients_from(sink: &tests::process::sink::Ended, lasts: &[u8]) -> Vec<u64> {
    lasts.iter().map(|last| sink.source(*last).map_or(0, |peer| peer.recipients)).collect()
}

// ---- weights and selection ----

#[test]
fn single_messages_are_shared_by_weight_exactly() {
    let sink = Sink::start(&[]);
    let daemon = start(&sink, "");
    delivers(&daemon, "ann@here.test", 80);
    let sink = sink.end();
    assert_eq!(recipients_from(&sink, &[11, 12, 13]), [60, 20, 0]);
    let names = |last| sink.source(last).expect("it sent").helo_names.clone();
    assert_eq!(names(11), BTreeSet::from(["a.source.test".to_owned()]));
    assert_eq!(names(12), BTreeSet::from(["b.source.test".to_owned()]));
}

#[test]
fn one_list_is_shared_by_weight() {
    const COUNT: u64 = 8_000;
    let sink = Sink::start(&[]);
    let daemon = start(&sink, "");
    let sent = daemon.setup.folder().join("sent.tsv");
    let list = SourceConfig { domain_count: 1, ..newsletter(daemon.address, COUNT, 2048) };
    assert_eq!(source::send(list, sent.clone()).recipients_accepted, COUNT);
    daemon.wait_until_empty(RUN_MAX);
    let sink = sink.end();
    assert_clean(&audit(&[&sent], &sink, true), 0);
    let shares = recipients_from(&sink, &[11, 12]);
    // A source is given 256 names at a time.
    assert!(shares[0].abs_diff(6_000) <= 512 && shares[0] + shares[1] == COUNT, "{shares:?}");
}

#[test]
fn sender_selects_the_pool() {
    let sink = Sink::start(&[]);
    let daemon = start(&sink, SELECT);
    delivers(&daemon, "ann@special.test", 10);
    delivers(&daemon, "ann@here.test", 4);
    assert_eq!(daemon.last_word_on("u9@there.test")["source"], "c");
    let sink = sink.end();
    assert_eq!(recipients_from(&sink, &[11, 12, 13]), [3, 1, 10]);
    // Without a name of its own a source has ours.
    let names = &sink.source(13).expect("it sent").helo_names;
    assert_eq!(names.iter().collect::<Vec<_>>(), ["relay.process.test"]);
}

#[test]
fn message_keeps_its_pool_over_a_crash_and_a_change_of_the_table() {
    let sink = Sink::start(&["--fault", "rcpt[first=1]=450"]);
    let daemon = start(&sink, &format!("retry.quadratic_secs = 3\n{SELECT}"));
    daemon.client().deliver("ann@special.test", &["bob@there.test"]);
    daemon.wait_for_at_least("deferred", 1, RUN_MAX);
    let mut stopped = daemon.kill();
    stopped.setup.remove("select");
    let daemon = stopped.restart();
    sink.wait_for_recipients(1, RUN_MAX);
    daemon.wait_until_empty(RUN_MAX);
    assert_eq!(recipients_from(&sink.end(), &[11, 12, 13]), [0, 0, 1]);
}

#[test]
fn sources_that_a_reload_adds_are_used() {
    let sink = Sink::start(&[]);
    let mut daemon = start(&sink, "");
    delivers(&daemon, "ann@here.test", 4);
    daemon.setup.set("pools.default", toml::toml! { sources = { c = 1 } });
    daemon.setup.write_config();
    daemon.signal(rustix::process::Signal::HUP);
    daemon.wait_until_said("configuration reloaded");
    // A core takes the new settings up when it has its turn.
    wait::until("mail from the new source", RUN_MAX, || {
        delivers(&daemon, "ann@here.test", 1);
        daemon.last_word_on("u0@there.test")["source"] == "c"
    });
    assert!(recipients_from(&sink.end(), &[13])[0] >= 1);
}

// ---- sources that may not send ----

/// Mail of `a.test` goes to the sink, under rules of the operator's for its host.
fn with_rules(sink: &Sink, rules: &str, lines: &str) -> Option<(NameServer, Daemon)> {
    let records = ["--mx-host=a.test,mx.a.test,10", "--host-record=mx.a.test,127.0.0.1"];
    let server = NameServer::start(&records.map(str::to_owned))?;
    let setup = Setup::new().by_mx(&server, sink.address.port()).with_lines(SOURCES).with_lines(lines);
    let file = setup.folder().join("providers.toml");
    let provider = "[[provider]]\nname = \"a\"\nmx = [\"*.a.test\"]\n";
    std::fs::write(&file, format!("{provider}{rules}")).expect("the folder is ours");
    let file = file.to_str().expect("plain names").to_owned();
    Some((server, setup.with("shaping.providers", file).start()))
}

const BLOCKED: &str = r#"
[[provider.rule]]
name = "blocked"
pattern = "blocked by our list"
action = "block_source"
for = "1h"
defer = true
test = ["550 5.7.1 blocked by our list"]
"#;

fn blocked_at(stage: &str) {
    let reply = format!("{stage}[source=127.0.0.11]=550 5.7.1 blocked by our list");
    let sink = Sink::start(&["--reply", &reply]);
    let Some((_server, daemon)) = with_rules(&sink, BLOCKED, "") else { return };
    let mut client = daemon.client();
    (0..40).for_each(|number| client.deliver("ann@here.test", &[&format!("u{number}@a.test")]));
    daemon.wait_for("delivered", 40, RUN_MAX);
    daemon.wait_until_empty(RUN_MAX);
    assert_eq!((daemon.metric("failed"), daemon.metric("bounces")), (0, 0));
    assert_eq!(recipients_from(&sink.end(), &[11, 12]), [0, 40]);
}

#[test]
fn other_sources_take_over_from_one_that_is_blocked_at_mail() {
    blocked_at("mail");
}

#[test]
fn other_sources_take_over_from_one_that_is_blocked_at_rcpt() {
    blocked_at("rcpt");
}

#[test]
fn other_sources_take_over_from_one_that_is_blocked_behind_the_content() {
    blocked_at("dot");
}

#[test]
fn other_sources_take_over_from_one_that_is_blocked_when_it_connects() {
    blocked_at("connect");
}

#[test]
fn other_sources_take_over_from_one_whose_address_we_do_not_have() {
    let sink = Sink::start(&[]);
    // TEST-NET-3 (RFC 5737).
    let daemon = start(&sink, "sources.a.bind = \"203.0.113.1\"");
    delivers(&daemon, "ann@here.test", 40);
    assert_eq!(recipients_from(&sink.end(), &[12]), [40]);
    assert_eq!(daemon.talk().matches("its address is not ours").count(), 1, "{}", daemon.talk());
}

#[test]
fn mail_waits_quietly_where_no_source_has_an_address_of_ours() {
    let sink = Sink::start(&[]);
    let lines = "sources.a.bind = \"203.0.113.1\"\nsources.b.bind = \"203.0.113.2\"";
    let daemon = start(&sink, lines);
    daemon.client().deliver("ann@here.test", &["u0@there.test"]);
    daemon.wait_until_said("its address is not ours source=\"b\"");
    daemon.assert_healthy();
    assert_eq!((daemon.metric("queued_recipients"), daemon.metric("failed")), (1, 0));
    assert_eq!(daemon.talk().matches("its address is not ours").count(), 2, "{}", daemon.talk());
}

/// Today in UTC, as `date` has it.
fn today() -> String {
    let output = wait::succeed(Command::new("date").args(["-u", "+%Y-%m-%d"]), wait::PATIENCE);
    String::from_utf8(output.stdout).expect("digits").trim().to_owned()
}

/// The default pool's only source is new, and what it may not send goes out from another.
fn warming_up() -> String {
    let start = today();
    // Should midnight pass meanwhile, the second day is like the first.
    format!(
        "[sources.a.warm_up]\nstart = {start}\ndaily = [5, 5]\n[pools.warm]\noverflow = \"special\"\n\
         [pools.warm.sources]\na = 1\n[[select]]\nsender = \"*\"\npool = \"warm\"\n"
    )
}

#[test]
fn new_source_sends_as_much_as_its_day_allows_and_others_the_rest() {
    let sink = Sink::start(&[]);
    let daemon = start(&sink, &warming_up());
    delivers(&daemon, "ann@here.test", 20);
    assert_eq!(recipients_from(&sink.end(), &[11, 12, 13]), [5, 0, 15]);
}

#[test]
fn what_a_new_source_has_sent_today_outlives_a_restart() {
    let sink = Sink::start(&[]);
    let daemon = start(&sink, &warming_up());
    delivers(&daemon, "ann@here.test", 3);
    let daemon = daemon.terminate().restart();
    delivers(&daemon, "ann@here.test", 10);
    assert_eq!(recipients_from(&sink.end(), &[11, 12, 13]), [5, 0, 8]);
}

#[test]
fn new_source_counts_over_two_cores() {
    let sink = Sink::start(&[]);
    let daemon = start(&sink, &format!("cpus = [0, 1]\n{}", warming_up()));
    for _ in 0..10 {
        delivers(&daemon, "ann@here.test", 3);
    }
    let shares = recipients_from(&sink.end(), &[11, 13]);
    assert!(shares[0] <= 5 && shares[0] + shares[1] == 30, "{shares:?}");
}
