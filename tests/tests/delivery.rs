//! What becomes of mail at peers that refuse, fail, misbehave or are away, and what those who look on are told.

use rustix::process::Signal;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tests::process::source::{self, assert_clean, audit, newsletter, recipients, return_path_of, singles};
use tests::process::{Daemon, Setup, Sink, http, vacant, wait};

const RUN_MAX: Duration = Duration::from_secs(120);

fn sent_file(daemon: &Daemon) -> PathBuf {
    daemon.setup.folder().join("sent.tsv")
}

/// One message to that many, all taken.
fn fan_out(daemon: &Daemon, count: u64) -> PathBuf {
    let sent = sent_file(daemon);
    let report = source::send(newsletter(daemon.address, count, 2048), sent.clone());
    assert_eq!(report.recipients_accepted, count, "{report:?}");
    sent
}

/// A fan-out past a sink with `options`: everybody is served.
fn serves_everybody(options: &[&str], count: u64, duplicated_max: impl Fn(&Daemon) -> u64) {
    let sink = Sink::start(options);
    let daemon = Setup::new().relay(sink.address).start();
    let sent = fan_out(&daemon, count);
    daemon.wait_until_empty(RUN_MAX);
    let metrics = daemon.metrics();
    assert_eq!((metrics["delivered"], metrics["failed"]), (count, 0));
    assert_clean(&audit(&[&sent], &sink.end(), true), duplicated_max(&daemon));
}

// ---- peers ----

#[test]
fn peers_without_pipelining_are_served() {
    serves_everybody(&["--no-pipelining"], 2_000, |_| 0);
}

#[test]
fn peers_without_chunking_are_served() {
    serves_everybody(&["--no-chunking"], 5_000, |_| 0);
}

#[test]
fn peers_without_either_are_served() {
    serves_everybody(&["--no-pipelining", "--no-chunking"], 2_000, |_| 0);
}

#[test]
fn peers_that_close_after_a_few_messages_are_served() {
    serves_everybody(&["--close-after", "7"], 200, |_| 0);
}

#[test]
fn every_copy_at_a_peer_that_drops_connections_was_counted_as_ambiguous() {
    let is_counted = |daemon: &Daemon| daemon.metric("ambiguous");
    serves_everybody(&["--fault", "dot=drop:0.01"], 3_000, is_counted);
    serves_everybody(&["--fault", "dot=drop-after-accept:0.01"], 3_000, is_counted);
    serves_everybody(&["--fault", "dot=drop:0.01", "--no-chunking"], 3_000, is_counted);
}

// ---- soft and hard failures ----

/// A refusal for now, sometimes, at each stage: one recipient in five waits.
const SOFT_FAULTS: [&str; 8] = [
    "--fault",
    "mail=451:0.05",
    "--fault",
    "rcpt=450:0.05",
    "--fault",
    "data=451:0.05",
    "--fault",
    "dot=452:0.05",
];

#[test]
fn deferred_mail_arrives_once_the_peer_takes_it() {
    serves_everybody(&SOFT_FAULTS, 300, |_| 0);
}

#[test]
fn deferred_mail_arrives_once_a_peer_without_chunking_takes_it() {
    serves_everybody(&[&SOFT_FAULTS[..], &["--no-chunking"]].concat(), 300, |_| 0);
}

#[test]
fn each_failed_recipient_and_no_other_is_told_to_its_own_return_path() {
    const COUNT: u64 = 3_000;
    let sink = Sink::start(&["--fault", "rcpt=550:0.2:by-address"]);
    let returns = Sink::start(&[]);
    let daemon =
        Setup::new().relay(sink.address).with("routes.loadgen.test", returns.address.to_string()).start();
    fan_out(&daemon, COUNT);
    daemon.wait_until_empty(RUN_MAX);
    let metrics = daemon.metrics();
    let (served, told) = (sink.end().forward_paths(), returns.end());
    let failed: BTreeSet<String> =
        recipients(COUNT).filter(|recipient| !served.contains(recipient)).collect();
    assert!((400..800).contains(&failed.len()), "{} of {COUNT}", failed.len());
    assert_eq!(metrics["failed"], failed.len() as u64);
    assert_eq!(metrics["bounces"], failed.len() as u64);
    assert_eq!(told.forward_paths(), failed.iter().map(|recipient| return_path_of(recipient)).collect());
    assert_eq!(told.counters.recipients, failed.len() as u64);
    assert!(told.deliveries().iter().all(|bounce| bounce.reverse_path == "<>"));
}

#[test]
fn mail_from_nobody_is_never_bounced() {
    let sink = Sink::start(&["--fault", "rcpt=550:1"]);
    let daemon = Setup::new().relay(sink.address).start();
    daemon.client().deliver("", &["bob@there.test", "eve@there.test"]);
    daemon.wait_for("failed", 2, RUN_MAX);
    daemon.wait_until_empty(RUN_MAX);
    assert_eq!(daemon.metric("bounces"), 0);
}

#[test]
fn a_bounce_that_fails_ends_there() {
    let sink = Sink::start(&["--fault", "rcpt=550:1"]);
    let daemon = Setup::new().relay(sink.address).start();
    daemon.client().deliver("ann@here.test", &["bob@there.test"]);
    daemon.wait_for("failed", 2, RUN_MAX);
    daemon.wait_until_empty(RUN_MAX);
    assert_eq!(daemon.metric("bounces"), 1);
}

#[test]
fn mail_that_nobody_takes_is_bounced_at_the_end_of_its_life() {
    let (sink, returns) = (Sink::start(&["--fault", "rcpt=450:1"]), Sink::start(&[]));
    let setup = Setup::new().relay(sink.address).with("routes.here.test", returns.address.to_string());
    let daemon = setup.with("retry.lifetime_secs", 3).start();
    daemon.client().deliver("ann@here.test", &["bob@there.test"]);
    daemon.wait_for("bounces", 1, RUN_MAX);
    assert!(daemon.metric("deferred") >= 1);
    daemon.wait_until_empty(RUN_MAX);
    assert_eq!(returns.end().forward_paths(), BTreeSet::from(["ann@here.test".to_owned()]));
}

#[test]
fn mail_for_a_dead_host_is_bounced_at_the_end_of_its_life() {
    let address = vacant();
    let returns = Sink::start(&[]);
    let setup = Setup::new().relay(address).with("routes.here.test", returns.address.to_string());
    let daemon = setup.with("retry.lifetime_secs", 3).start();
    daemon.client().deliver("ann@here.test", &["bob@there.test", "eve@there.test"]);
    daemon.wait_for("failed", 2, RUN_MAX);
    daemon.wait_until_empty(RUN_MAX);
    assert_eq!(daemon.metric("bounces"), 1);
    assert_eq!(returns.end().forward_paths(), BTreeSet::from(["ann@here.test".to_owned()]));
}

// ---- warnings ----

#[test]
fn sender_is_warned_of_a_delay_once_even_over_a_restart_and_told_of_the_end() {
    let (sink, returns) = (Sink::start(&["--fault", "rcpt=450:1"]), Sink::start(&[]));
    let setup = Setup::new().relay(sink.address).with("routes.here.test", returns.address.to_string());
    let setup = setup.with("retry.warn_after_secs", 1).with("retry.lifetime_secs", 20);
    let daemon = setup.start();
    daemon.client().deliver("ann@here.test", &["bob@there.test", "eve@there.test"]);
    // What has arrived was durable, and so was marked in the same turn, before it was sent.
    returns.wait_for_deliveries(1, RUN_MAX);
    assert_eq!((daemon.metric("warnings"), daemon.metric("bounces")), (1, 0), "one letter names both");
    let deferred = daemon.metric("deferred");
    daemon.wait_for_at_least("deferred", deferred + 2, RUN_MAX);
    assert_eq!(daemon.metric("warnings"), 1);
    let daemon = daemon.kill().restart();
    daemon.wait_for("bounces", 1, RUN_MAX);
    daemon.wait_until_empty(RUN_MAX);
    assert_eq!(daemon.metric("warnings"), 0);
    let told = returns.end();
    assert_eq!(told.deliveries().len(), 2, "a warning and a bounce");
    assert!(told.deliveries().iter().all(|letter| letter.reverse_path == "<>"));
    assert_eq!(told.forward_paths(), BTreeSet::from(["ann@here.test".to_owned()]));
}

#[test]
fn each_late_recipient_of_a_list_is_told_of_at_its_own_return_path() {
    const COUNT: u64 = 50;
    let (sink, returns) = (Sink::start(&["--fault", "rcpt=450:1"]), Sink::start(&[]));
    let setup = Setup::new().relay(sink.address).with("routes.loadgen.test", returns.address.to_string());
    let setup = setup.with("retry.warn_after_secs", 1).with("retry.lifetime_secs", 10);
    let daemon = setup.start();
    fan_out(&daemon, COUNT);
    daemon.wait_for("failed", COUNT, RUN_MAX);
    daemon.wait_until_empty(RUN_MAX);
    let metrics = daemon.metrics();
    assert_eq!((metrics["warnings"], metrics["bounces"]), (COUNT, COUNT));
    let told = returns.end();
    assert_eq!(told.counters.recipients, 2 * COUNT);
    let everybody = recipients(COUNT).map(|recipient| return_path_of(&recipient)).collect();
    assert_eq!(told.forward_paths(), everybody);
}

#[test]
fn sender_is_warned_of_a_delay_at_a_dead_host() {
    let address = vacant();
    let returns = Sink::start(&[]);
    let setup = Setup::new().relay(address).with("routes.here.test", returns.address.to_string());
    let setup = setup.with("retry.warn_after_secs", 1).with("retry.lifetime_secs", 3600);
    let daemon = setup.with("delivery.backoff_secs", 600).start();
    daemon.client().deliver("ann@here.test", &["bob@there.test", "eve@there.test"]);
    daemon.client().deliver("", &["bob@there.test"]);
    returns.wait_for_deliveries(1, RUN_MAX);
    daemon.wait_for_at_least("deferred", 3, RUN_MAX);
    daemon.wait_for("queued_recipients", 3, RUN_MAX);
    assert_eq!(daemon.metric("warnings"), 1);
}

#[test]
fn nobody_is_warned_of_mail_from_nobody() {
    let sink = Sink::start(&["--fault", "rcpt=450:1"]);
    let setup = Setup::new().relay(sink.address).with("retry.lifetime_secs", 4);
    let daemon = setup.with("retry.warn_after_secs", 1).start();
    daemon.client().deliver("", &["bob@there.test"]);
    daemon.wait_for("failed", 1, RUN_MAX);
    daemon.wait_until_empty(RUN_MAX);
    assert_eq!((daemon.metric("warnings"), daemon.metric("bounces")), (0, 0));
}

// ---- limits and hosts ----

#[test]
fn no_more_connections_are_open_than_allowed() {
    // The sink refuses a fourth with 421, which it counts.
    let sink = Sink::start(&["--delay", "1", "--connections-max", "3"]);
    let setup = Setup::new().relay(sink.address).on_cpus(&[0, 1]).with("delivery.connections_max", 3);
    let daemon = setup.start();
    let sent = fan_out(&daemon, 3_000);
    daemon.wait_until_empty(RUN_MAX);
    let sink = sink.end();
    assert!(sink.open_most <= 3, "{}", sink.open_most);
    assert!(sink.open_most >= 2, "both cores should have one: {}", sink.open_most);
    assert_eq!(sink.counters.replies.get(&421), None, "{:?}", sink.counters);
    assert_clean(&audit(&[&sent], &sink, true), 0);
}

#[test]
fn mail_waits_for_a_dead_host_and_goes_out_when_it_is_back() {
    let address = vacant();
    let daemon = Setup::new().relay(address).with("delivery.backoff_max_secs", 2).start();
    let sent = fan_out(&daemon, 500);
    daemon.wait_for_at_least("connect_failures", 4, RUN_MAX);
    assert_eq!((daemon.metric("delivered"), daemon.metric("queued_recipients")), (0, 500));
    let sink = Sink::start_on(&address.to_string(), &[]);
    daemon.wait_until_empty(RUN_MAX);
    assert_eq!(daemon.metric("failed"), 0);
    assert_clean(&audit(&[&sent], &sink.end(), true), 0);
}

#[test]
fn a_dead_host_is_left_alone_during_its_back_off() {
    let address = vacant();
    let daemon = Setup::new().relay(address).with("delivery.backoff_secs", 600).start();
    fan_out(&daemon, 500);
    daemon.wait_for_at_least("connect_failures", 1, RUN_MAX);
    // Enough to happen if it were going to: further mail, and what it sets off.
    for _ in 0..20 {
        daemon.client().deliver("ann@here.test", &["bob@there.test"]);
    }
    let failures = daemon.metric("connect_failures");
    assert!(failures <= 20, "as many as it may open at first, and no more: {failures}");
}

// ---- the delivery log ----

/// The lines so far, once they hold as many verdicts as the counters.
fn log_lines(daemon: &Daemon) -> Vec<Value> {
    let metrics = daemon.metrics();
    let verdicts = metrics["delivered"] + metrics["deferred"] + metrics["failed"];
    let whole = || {
        let text = std::fs::read_to_string(daemon.setup.delivery_log()).unwrap_or_default();
        Some(text).filter(|text| text.lines().count() as u64 >= verdicts && text.ends_with('\n'))
    };
    let text = wait::until_some(&format!("{verdicts} lines in the delivery log"), RUN_MAX, whole);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect()
}

#[test]
fn the_delivery_log_has_a_line_of_json_for_each_verdict() {
    let sink = Sink::start(&["--fault", "rcpt=550:0.1:by-address", "--fault", "rcpt=450:0.1"]);
    let daemon = Setup::new().relay(sink.address).on_cpus(&[0, 1]).start();
    fan_out(&daemon, 500);
    daemon.wait_until_empty(RUN_MAX);
    let (lines, metrics) = (log_lines(&daemon), daemon.metrics());
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for line in &lines {
        check_fields(line);
        *counts.entry(line["verdict"].as_str().expect("checked")).or_default() += 1;
    }
    for verdict in ["delivered", "deferred", "failed"] {
        assert_eq!(counts.get(verdict), Some(&metrics[verdict]), "{verdict}: {metrics:?}");
    }
}

/// `at msg rcpt domain host lane attempt code enhanced verdict reply delay_ms`.
fn check_fields(line: &Value) {
    let text = |name: &str| line[name].as_str().unwrap_or_else(|| panic!("{name} in {line}"));
    let number = |name: &str| line[name].as_u64().unwrap_or_else(|| panic!("{name} in {line}"));
    assert!(text("rcpt").ends_with(&format!("@{}", text("domain"))), "{line}");
    assert!(
        number("at") > 1_700_000_000_000 && number("attempt") >= 1 && number("delay_ms") < 600_000,
        "{line}"
    );
    assert!(
        text("host").starts_with("127.0.0.1") && !text("reply").is_empty() && !text("msg").is_empty(),
        "{line}"
    );
    assert!(["urgent", "normal", "bulk"].contains(&text("lane")), "{line}");
    let class = match text("verdict") {
        "delivered" => 2,
        "deferred" => 4,
        "failed" => 5,
        other => panic!("{other:?} is no verdict"),
    };
    assert_eq!(number("code") / 100, class, "{line}");
    assert!(text("enhanced").starts_with(&format!("{class}.")), "{line}");
}

#[test]
fn the_delivery_log_is_whole_after_sigterm() {
    let sink = Sink::start(&["--delay", "1"]);
    let daemon = Setup::new().relay(sink.address).on_cpus(&[0, 1]).start();
    fan_out(&daemon, 20_000);
    daemon.wait_for_at_least("delivered", 2_000, RUN_MAX);
    let stopped = daemon.terminate();
    let log = std::fs::read_to_string(stopped.setup.delivery_log()).expect("a log");
    // The sink saw what it saw: each delivery has its line.
    assert_eq!(log.lines().count() as u64, sink.end().counters.recipients);
}

// ---- SIGHUP ----

fn reload(daemon: &Daemon, before: usize) {
    daemon.signal(Signal::HUP);
    let count = || daemon.talk().matches("reloaded").count();
    wait::until("the daemon to say what became of its reload", RUN_MAX, || count() > before);
}

#[test]
fn sighup_takes_up_new_routes_and_limits_and_keeps_the_sessions() {
    let (first, second) = (Sink::start(&[]), Sink::start(&[]));
    let mut daemon = Setup::new().relay(first.address).start();
    let mut session = daemon.client();
    session.deliver("ann@here.test", &["bob@there.test"]);
    daemon.wait_until_empty(RUN_MAX);
    daemon.setup.set("routes.*", second.address.to_string());
    daemon.setup.set("intake.recipients_max", 100);
    daemon.setup.write_config();
    reload(&daemon, 0);
    session.deliver("ann@here.test", &["eve@there.test"]);
    daemon.wait_until_empty(RUN_MAX);
    assert_eq!(second.end().forward_paths(), BTreeSet::from(["eve@there.test".to_owned()]));
    assert_eq!(first.end().forward_paths(), BTreeSet::from(["bob@there.test".to_owned()]));
    // A session keeps the limits that it was told at its start; a new one has the new.
    let mut session = daemon.client();
    session.say_expecting("MAIL FROM:<ann@here.test>", "250");
    for number in 0..100 {
        session.say_expecting(&format!("RCPT TO:<u{number}@there.test>"), "250");
    }
    session.say_expecting("RCPT TO:<u100@there.test>", "452");
}

#[test]
fn sighup_in_a_fan_out_with_a_lower_limit_loses_nobody() {
    let sink = Sink::start(&["--delay", "1"]);
    let mut daemon = Setup::new().relay(sink.address).on_cpus(&[0, 1]).start();
    let sent = fan_out(&daemon, 20_000);
    for limit in [5, 2, 20] {
        daemon.setup.set("delivery.connections_max", limit);
        daemon.setup.write_config();
        let before = daemon.talk().matches("reloaded").count();
        reload(&daemon, before);
    }
    daemon.wait_until_empty(RUN_MAX);
    assert_clean(&audit(&[&sent], &sink.end(), true), 0);
}

#[test]
fn sighup_with_a_broken_file_keeps_the_old_configuration_and_says_so() {
    let sink = Sink::start(&[]);
    let daemon = Setup::new().relay(sink.address).start();
    std::fs::write(daemon.setup.config_file(), "queue = \"q\"\nlisten = 7\n").expect("ours");
    reload(&daemon, 0);
    let talk = daemon.talk();
    assert!(talk.contains("ringpost.toml:2: ") && talk.contains("was not reloaded"), "{talk}");
    daemon.client().deliver("ann@here.test", &["bob@there.test"]);
    daemon.wait_for("delivered", 1, RUN_MAX);
    daemon.assert_healthy();
}

// ---- those who look on ----

#[test]
fn queue_stat_and_list_agree_with_the_metrics_whether_the_daemon_runs_or_not() {
    let sink = Sink::start(&["--fault", "rcpt=450:0.5:by-address"]);
    let daemon = Setup::new().relay(sink.address).with("retry.quadratic_secs", 3600).start();
    fan_out(&daemon, 1_000);
    daemon.client().deliver("ann@here.test", &["bob@there.test"]);
    let has_settled = || daemon.metric("delivered") + daemon.metric("deferred") == 1_001;
    wait::until("a verdict for everybody", RUN_MAX, has_settled);
    let metrics = daemon.metrics();
    assert_eq!(metrics["deferred_recipients"], metrics["queued_recipients"]);
    check_queue(&daemon.setup, &metrics);
    let stopped = daemon.terminate();
    check_queue(&stopped.setup, &metrics);
    let daemon = stopped.restart();
    daemon.wait_for("queued_recipients", metrics["queued_recipients"], RUN_MAX);
    check_queue(&daemon.setup, &metrics);
}

fn check_queue(setup: &Setup, metrics: &BTreeMap<String, u64>) {
    let (stat, list) = (setup.queue_stat(), setup.queue_list());
    let owed = metrics["queued_recipients"];
    assert_eq!(
        (&stat["messages"], &stat["recipients_owed"]),
        (&metrics["queued_messages"].into(), &owed.into())
    );
    assert_eq!(stat["deferred"], owed, "{stat}");
    assert_eq!(list.len() as u64, metrics["queued_messages"]);
    assert_eq!(list.iter().filter_map(|message| message["owed"].as_u64()).sum::<u64>(), owed);
    let domains = stat["domains"].as_object().expect("by domain");
    assert_eq!(domains.values().filter_map(|domain| domain["owed"].as_u64()).sum::<u64>(), owed);
    let newsletter = list.iter().find(|message| message["recipients"] == 1_000).expect("it is owed to many");
    assert!(
        newsletter["sender"].as_str().is_some_and(|sender| sender.starts_with("list-return")),
        "{newsletter}"
    );
    assert!(newsletter["next_due"].is_string() && newsletter["arrived"].is_string(), "{newsletter}");
}

#[test]
fn metrics_are_right_as_soon_as_the_daemon_says_that_it_is_up() {
    let sink = Sink::start(&["--fault", "rcpt=450:1"]);
    let daemon = Setup::new().relay(sink.address).with("retry.quadratic_secs", 3600).start();
    fan_out(&daemon, 100);
    daemon.wait_for("deferred", 100, RUN_MAX);
    let mut stopped = daemon.terminate();
    // A core that shows its counters only after its first turn is caught now and then.
    for _ in 0..20 {
        let daemon = stopped.restart();
        let metrics = daemon.metrics();
        assert_eq!((metrics["queued_messages"], metrics["queued_recipients"]), (1, 100));
        stopped = daemon.kill();
    }
}

#[test]
fn healthz_and_metrics_can_be_read() {
    let sink = Sink::start(&[]);
    let daemon = Setup::new().relay(sink.address).start();
    let run = source::start(singles(daemon.address, 500, 4), sent_file(&daemon));
    assert_eq!(run.end().messages_accepted, 500);
    daemon.wait_until_empty(RUN_MAX);
    assert_eq!(http::get(daemon.http, "/healthz").expect("a page"), (200, "ok\n".to_owned()));
    let (status, page) = http::get(daemon.http, "/metrics").expect("a page");
    assert_eq!(status, 200);
    assert!(page.ends_with("# EOF\n"), "{page}");
    let samples = http::samples(&page);
    assert_eq!(
        (samples["accepted_messages"], samples["delivered"], samples["queued_messages"]),
        (500, 500, 0)
    );
    for name in samples.keys() {
        assert!(page.contains(&format!("# HELP ringpost_{name} ")), "{name} is not explained");
    }
    assert_eq!(http::get(daemon.http, "/nothing").expect("a page").0, 404);
}

#[test]
fn an_idle_daemon_stays_idle() {
    let daemon = Setup::new().start();
    let ticks = || cpu_ticks(daemon.pid());
    let (start, before) = (Instant::now(), ticks());
    wait::until("three seconds", RUN_MAX, || start.elapsed() >= Duration::from_secs(3));
    // Ticks of 10 ms: a core that spun would use 300.
    assert!(ticks() - before < 30, "{} ticks in three idle seconds", ticks() - before);
}

/// User and system time so far.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    [11, 12].iter().map(|at| fields[*at].parse::<u64>().expect("a count")).sum()
}
