//! The suppression list through the daemon: who is on it gets nothing, the log says so, and a hard bounce is never forgotten.

#[path = "dsn/host.rs"]
#[allow(dead_code, reason = "the tests of reports read more of it")]
mod host;

use host::Host;
use rustix::process::Signal;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Seek as _, Write as _};
use std::process::{Output, Stdio};
use std::time::Duration;
use tests::process::source::{newsletter, recipients, send};
use tests::process::{Daemon, Setup, Sink, wait};

const RUN_MAX: Duration = Duration::from_secs(120);

fn suppress(setup: &Setup, words: &[&str]) -> Output {
    wait::finish(&mut setup.command(&[&["suppress"], words].concat()), RUN_MAX)
}

/// What it said, if it succeeded.
fn said(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    said
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&said(output)).expect("one JSON object")
}

/// `address: reason` of who is on the list.
fn listed(setup: &Setup, address: &str) -> Option<String> {
    let output = suppress(setup, &["check", "--json", address]);
    let found: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(output.status.success(), found["suppressed"] == true);
    found["reason"].as_str().map(str::to_owned)
}

/// Lines of the export without the first, in order.
fn exported(setup: &Setup, words: &[&str]) -> Vec<String> {
    let text = said(&suppress(setup, &[&["export"], words].concat()));
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("address,list,reason,at"));
    let mut lines: Vec<String> = lines.map(str::to_owned).collect();
    lines.sort();
    lines
}

/// How often each kind of event stands in the delivery log, once all lines are there.
fn verdicts(daemon: &Daemon, count: usize) -> BTreeMap<String, usize> {
    let all = wait::until_some("all lines of the delivery log", RUN_MAX, || {
        let log = std::fs::read_to_string(daemon.setup.delivery_log()).unwrap_or_default();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let all: Vec<String> = lines.filter_map(|line| Some(line["kind"].as_str()?.to_owned())).collect();
        (all.len() >= count).then_some(all)
    });
    let mut counts = BTreeMap::new();
    all.into_iter().for_each(|verdict| *counts.entry(verdict).or_default() += 1);
    counts
}

/// A newsletter to them; all are taken.
fn bulk(daemon: &Daemon, sender: &str, to: &[&str]) {
    let mut client = daemon.client();
    client.say_expecting(&format!("MAIL FROM:<{sender}> XVERP"), "250");
    for to in to {
        client.say_expecting(&format!("RCPT TO:<{to}>"), "250");
    }
    client.say_expecting("DATA", "354");
    client.say_expecting("List-Id: News <news.test>\r\nSubject: news\r\n\r\nNews\r\n.", "250");
}

// ---- sending ----

#[test]
fn who_was_imported_gets_nothing_of_a_list_and_all_others_do() {
    let sink = Sink::start(&[]);
    let daemon = Setup::new().relay(sink.address).on_cpus(&[0, 1]).start();
    let file = daemon.setup.folder().join("list.csv");
    let mut lines = "address,reason\n".to_owned();
    for (number, address) in recipients(20_000).enumerate().filter(|(number, _)| number % 10 == 0) {
        let _ = writeln!(lines, "{},{}", address.to_uppercase(), if number == 0 { "spam" } else { "bounce" });
    }
    (0..98_000).for_each(|number| {
        writeln!(lines, "other{number}@elsewhere.test,unsubscribed").expect("a string takes it")
    });
    std::fs::write(&file, lines).expect("the folder is ours");
    let import = || json(&suppress(&daemon.setup, &["import", "--json", file.to_str().expect("plain")]));
    assert_eq!(import(), serde_json::json!({ "new": 100_000, "known": 0, "wrong": 0 }));
    assert_eq!(import(), serde_json::json!({ "new": 0, "known": 100_000, "wrong": 0 }));
    let stat = json(&suppress(&daemon.setup, &["stat", "--json"]));
    assert_eq!((&stat["entries"], &stat["reasons"]["unsubscribe"]), (&100_000.into(), &98_000.into()));

    send(newsletter(daemon.address, 20_000, 2048), daemon.setup.folder().join("sent.tsv"));
    daemon.wait_until_empty(RUN_MAX);
    let metrics = daemon.metrics();
    assert_eq!((metrics["suppressed"], metrics["delivered"], metrics["failed"]), (2_000, 18_000, 0));
    assert_eq!((metrics["bounces"], metrics["damaged"]), (0, 0));
    let expected: BTreeSet<String> =
        recipients(20_000).enumerate().filter(|(number, _)| number % 10 != 0).map(|(_, to)| to).collect();
    assert_eq!(sink.end().forward_paths(), expected);
    let counts = verdicts(&daemon, 20_000);
    assert_eq!((counts["suppressed"], counts["delivered"], counts.len()), (2_000, 18_000, 2));
    let word = daemon.last_word_on("u000000@d001.test");
    assert!(word["reply"].as_str().is_some_and(|reply| reply.contains("complaint since")), "{word}");
    assert_eq!(
        (&word["code"], &word["enhanced"], &word["host"]),
        (&550.into(), &"5.7.1".into(), &Value::Null)
    );
    assert_eq!(word["class"], "suppressed", "{word}");
}

#[test]
fn a_lists_own_entries_hold_for_that_list_alone() {
    let host = Host::start(&[]);
    let daemon = Setup::new().relay(host.address).start();
    said(&suppress(&daemon.setup, &["add", "--list", "News.Test", "Bob@there.test"]));
    bulk(&daemon, "list@here.test", &["bob@THERE.test", "cy@there.test"]);
    daemon.client().deliver("ann@here.test", &["bob@there.test"]);
    daemon.wait_until_empty(RUN_MAX);
    let mut taken: Vec<String> = host.taken().into_iter().flat_map(|taken| taken.rcpts).collect();
    taken.sort();
    assert_eq!(taken, ["TO:<bob@there.test>", "TO:<cy@there.test>"]);
    assert_eq!(listed(&daemon.setup, "bob@there.test"), None, "on that list alone");
    let on_it = suppress(&daemon.setup, &["check", "--list", "news.test", "bob@there.test"]);
    assert!(said(&on_it).starts_with("bob@there.test: manual since "));
    assert_eq!(daemon.metric("suppressed"), 1);
}

#[test]
fn mail_that_must_go_goes() {
    let host = Host::start(&[]);
    let setup = Setup::new()
        .relay(host.address)
        .with_lines("[suppression]\nexempt_senders = [\"*@alerts.test\"]\nexempt_lanes = [\"urgent\"]\n");
    let daemon = setup.start();
    said(&suppress(&daemon.setup, &["add", "bob@there.test"]));
    daemon.client().deliver("reset@alerts.test", &["bob@there.test"]);
    let mut client = daemon.client();
    client.say_expecting("MAIL FROM:<ann@here.test> MT-PRIORITY=5", "250");
    client.say_expecting("RCPT TO:<bob@there.test>", "250");
    client.say_expecting("DATA", "354");
    client.say_expecting("Subject: urgent\r\n\r\nx\r\n.", "250");
    let mut client = daemon.client();
    client.say_expecting("MAIL FROM:<>", "250");
    client.say_expecting("RCPT TO:<bob@there.test>", "250");
    client.say_expecting("DATA", "354");
    client.say_expecting("Subject: a bounce\r\n\r\nx\r\n.", "250");
    daemon.client().deliver("ann@here.test", &["bob@there.test"]);
    daemon.wait_until_empty(RUN_MAX);
    assert_eq!((host.taken().len(), daemon.metric("suppressed")), (3, 1));
}

#[test]
fn rcpt_is_refused_if_that_is_asked_for_and_a_reload_changes_who() {
    let host = Host::start(&[]);
    let setup = Setup::new().relay(host.address).with("suppression.at_rcpt", "refuse");
    let daemon = setup.start();
    said(&suppress(&daemon.setup, &["add", "bob@there.test"]));
    let ask = |daemon: &Daemon| {
        let mut client = daemon.client();
        client.say_expecting("MAIL FROM:<ann@here.test>", "250");
        client.say_expecting("RCPT TO:<cy@there.test>", "250");
        client.say("RCPT TO:<BOB@there.test>")
    };
    assert_eq!(ask(&daemon), "550 5.7.1 The recipient is on the suppression list");
    let file = daemon.setup.config_file();
    let text = std::fs::read_to_string(&file).expect("it is ours");
    let other = text.replace("at_rcpt = \"refuse\"", "at_rcpt = \"refuse\"\nexempt_senders = [\"ann@*\"]");
    std::fs::write(&file, other).expect("it is ours");
    daemon.signal(Signal::HUP);
    daemon.wait_until_said("configuration reloaded");
    wait::until("the exempt sender to be heard", RUN_MAX, || ask(&daemon).starts_with("250"));
    daemon.client().deliver("ann@here.test", &["bob@there.test"]);
    daemon.wait_until_empty(RUN_MAX);
    assert_eq!(host.taken().len(), 1);
    said(&suppress(&daemon.setup, &["remove", "bob@there.test"]));
    daemon.client().deliver("eve@here.test", &["bob@there.test"]);
    daemon.wait_until_empty(RUN_MAX);
    assert_eq!((host.taken().len(), daemon.metric("suppressed")), (2, 0));
}

// ---- hard bounces ----

#[test]
fn a_hard_bounce_of_bulk_mail_is_the_last_that_is_sent_there() {
    let (host, returns) = (Host::start(&[]), Host::start(&[]));
    let setup = Setup::new().relay(host.address).with("routes.here.test", returns.address.to_string());
    let daemon = setup.start();
    daemon.client().deliver("ann@here.test", &["bad.personal@there.test"]);
    bulk(&daemon, "list@here.test", &["bad.bulk@there.test", "cy@there.test"]);
    daemon.wait_until_empty(RUN_MAX);
    let told = returns.wait_for(2);
    assert!(
        told.iter().all(|told| told.mail.starts_with("FROM:<>") && told.content.contains("5.1.1")),
        "{told:?}"
    );
    assert_eq!(listed(&daemon.setup, "bad.personal@there.test"), None);
    assert_eq!(listed(&daemon.setup, "BAD.bulk@there.test").as_deref(), Some("hard-bounce"));
    bulk(&daemon, "list@here.test", &["bad.bulk@there.test", "cy@there.test"]);
    bulk(&daemon, "other@here.test", &["bad.bulk@there.test"]);
    daemon.wait_until_empty(RUN_MAX);
    let metrics = daemon.metrics();
    assert_eq!((metrics["bounces_learnt"], metrics["suppressed"], metrics["failed"]), (1, 2, 2));
    assert_eq!((returns.taken().len(), host.taken().len()), (2, 2), "no word about who is on the list");
}

#[test]
fn policy_puts_nobody_on_the_list_and_texts_may() {
    let policy = "rcpt[address=policy@there.test]=550 5.7.1 User unknown to us";
    let text = "rcpt[address=text@there.test]=550 Mailbox disabled";
    let sink = Sink::start(&["--reply", policy, "--reply", text]);
    let setup = Setup::new().relay(sink.address);
    let lines = "[suppression]\nbounce_patterns = [\"user unknown\", \"mailbox (is )?disabled\"]\n";
    let daemon = setup.with_lines(lines).start();
    bulk(&daemon, "list@here.test", &["policy@there.test", "text@there.test", "ann@there.test"]);
    wait::until("a hard bounce", RUN_MAX, || daemon.metric("bounces_learnt") == 1);
    assert_eq!(listed(&daemon.setup, "policy@there.test"), None);
    assert_eq!(listed(&daemon.setup, "text@there.test").as_deref(), Some("hard-bounce"));
}

#[test]
fn kill_9_while_bounces_come_in_forgets_none() {
    let (host, returns) = (Host::start(&[]), Host::start(&[]));
    let setup = Setup::new().relay(host.address).with("routes.here.test", returns.address.to_string());
    let mut daemon = setup.on_cpus(&[0, 1]).start();
    let all: Vec<String> = (0..3_000).map(|number| format!("bad{number}@there.test")).collect();
    bulk(&daemon, "list@here.test", &all.iter().map(String::as_str).collect::<Vec<_>>());
    for learnt in [300, 600] {
        wait::until("some bounces", RUN_MAX, || daemon.metric("bounces_learnt") >= learnt);
        daemon = daemon.kill().restart();
    }
    daemon.wait_until_empty(RUN_MAX);
    let stat = json(&suppress(&daemon.setup, &["stat", "--json"]));
    assert_eq!((&stat["entries"], &stat["reasons"]["hard-bounce"]), (&3_000.into(), &3_000.into()));
    let told: BTreeSet<String> = returns.taken().into_iter().flat_map(|taken| taken.rcpts).collect();
    assert_eq!(told.len(), 3_000, "each bounce went to its own return path");
    assert_eq!(daemon.metric("damaged"), 0);
}

// ---- the list itself ----

#[test]
fn kill_9_keeps_what_was_answered_and_a_stopped_daemons_list_is_worked_on_too() {
    let host = Host::start(&[]);
    let daemon = Setup::new().relay(host.address).start();
    said(&suppress(&daemon.setup, &["add", "--reason", "complaint", "bob@there.test", "cy@there.test"]));
    said(&suppress(&daemon.setup, &["add", "--list", "news.test", "dan@there.test"]));
    let stopped = daemon.kill();
    let setup = &stopped.setup;
    assert_eq!(listed(setup, "bob@there.test").as_deref(), Some("complaint"));
    assert_eq!(
        said(&suppress(setup, &["remove", "bob@there.test", "eve@there.test"])),
        "1 taken off the list, 1 were not on it\n"
    );
    assert_eq!(
        said(&suppress(setup, &["add", "fay@there.test"])),
        "1 put on the list, 0 were there already\n"
    );
    let while_down = exported(setup, &[]);
    let starts =
        ["cy@there.test,,complaint,20", "dan@there.test,news.test,manual,20", "fay@there.test,,manual,20"];
    assert_eq!(while_down.len(), 3);
    assert!(while_down.iter().zip(starts).all(|(line, start)| line.starts_with(start)), "{while_down:?}");
    let daemon = stopped.restart();
    assert_eq!(exported(&daemon.setup, &[]), while_down);
    assert_eq!(exported(&daemon.setup, &["--list", ""]).len(), 2);
    assert_eq!(exported(&daemon.setup, &["--list", "news.test", "--reason", "manual"]).len(), 1);
    daemon.client().deliver("ann@here.test", &["bob@there.test", "cy@there.test", "fay@there.test"]);
    daemon.wait_until_empty(RUN_MAX);
    assert_eq!(
        host.taken().iter().map(|taken| taken.rcpts.clone()).collect::<Vec<_>>(),
        [["TO:<bob@there.test>"]]
    );
}

#[test]
fn what_is_exported_can_be_imported_elsewhere() {
    let (here, there) = (Setup::new(), Setup::new());
    here.write_config();
    let there = there.start();
    said(&suppress(&here, &["add", "--list", "a,\"b\"", "\"x, y\"@a.test", "ann@b\u{fc}cher.test"]));
    let lines = exported(&here, &[]);
    let mut file = tempfile_of(&here, "address,list,reason,at\n");
    writeln!(file, "{}\nnonsense", lines.join("\n")).expect("it is ours");
    file.rewind().expect("it is ours");
    let mut command = there.setup.command(&["suppress", "import", "--json", "-"]);
    let output = wait::finish_with(&mut command, Stdio::from(file), RUN_MAX);
    assert_eq!(output.status.code(), Some(65), "a wrong line is told");
    assert!(String::from_utf8_lossy(&output.stderr).contains("-: line 4: "));
    let told: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(told, serde_json::json!({ "new": 2, "known": 0, "wrong": 1 }));
    assert_eq!(exported(&there.setup, &[]), lines);
    let check = suppress(&there.setup, &["check", "--list", "A,\"B\"", "ann@xn--bcher-kva.test"]);
    assert!(said(&check).contains(": manual since 20"));
}

#[test]
fn who_is_blocklisted_elsewhere_is_imported_and_who_is_enabled_is_told() {
    let setup = Setup::new();
    setup.write_config();
    let file = setup.folder().join("subscribers.csv");
    let lines = "uuid,email,name,attributes,status,created_at,updated_at\n\
                 0-1,bob@there.test,Bob,\"{\"\"a\"\": \"\"b, c\"\"}\",blocklisted,\
                 2023-05-01 10:20:30.5 +0000 UTC,2023-06-01 10:20:30 +0000 UTC\n\
                 0-2,cy@there.test,Cy,{},enabled,2023-05-01 10:20:30 +0000 UTC,\n";
    std::fs::write(&file, lines).expect("the folder is ours");
    let output = suppress(&setup, &["import", "--json", file.to_str().expect("plain")]);
    assert_eq!(output.status.code(), Some(65), "a wrong line is told");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(complaint.contains("line 3: \"enabled\" says"), "{complaint}");
    let told: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(told, serde_json::json!({ "new": 1, "known": 0, "wrong": 1 }));
    assert_eq!(exported(&setup, &[]), ["bob@there.test,,manual,2023-05-01T10:20:30Z"]);
}

fn tempfile_of(setup: &Setup, text: &str) -> std::fs::File {
    let path = setup.folder().join("piped.csv");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.create(true).truncate(true).read(true).write(true).open(path).expect("ours");
    file.write_all(text.as_bytes()).expect("it is ours");
    file
}

#[test]
fn without_addresses_kept_the_disk_has_none_and_mail_is_still_held_back() {
    let host = Host::start(&[]);
    let setup = Setup::new().relay(host.address).with("suppression.keep_addresses", false);
    let daemon = setup.start();
    said(&suppress(&daemon.setup, &["add", "bob.of.nowhere@there.test"]));
    daemon.client().deliver("ann@here.test", &["bob.of.nowhere@there.test"]);
    daemon.wait_until_empty(RUN_MAX);
    assert!(host.taken().is_empty() && exported(&daemon.setup, &[]).is_empty());
    for file in std::fs::read_dir(daemon.setup.queue().join("suppression")).expect("it was made") {
        let bytes = std::fs::read(file.expect("a file").path()).expect("it can be read");
        assert!(!bytes.windows(7).any(|seven| seven == b"nowhere"));
    }
}

#[test]
fn a_damaged_list_stops_the_start_with_a_word_about_what_to_do() {
    let setup = Setup::new();
    setup.write_config();
    said(&suppress(&setup, &["add", "bob@there.test"]));
    std::fs::remove_file(setup.queue().join("verp-secret")).expect("it was made");
    let refusal = setup.refusal();
    assert_eq!(refusal.code, 78);
    assert!(refusal.sentence().contains("another secret"), "{}", refusal.sentence());
}
