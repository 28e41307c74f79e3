//! Looking at the queue and steering it with `ringpost queue`, while the daemon runs and when it does not (Q34, B30).

use rustix::process::getuid;
use serde_json::Value;
use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::process::{Command, Output};
use std::time::Duration;
use tests::process::peer::{is_root, skip};
use tests::process::source::{newsletter, send};
use tests::process::wait::{self, PATIENCE};
use tests::process::{Daemon, Setup, Sink, vacant};

const RUN_MAX: Duration = Duration::from_secs(120);

/// Runs `ringpost queue WORDS…`; its exit code and what it said.
fn run(setup: &Setup, words: &[&str]) -> Output {
    wait::finish(&mut setup.command(&[&["queue"], words].concat()), PATIENCE)
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("it prints UTF-8")
}

/// As [`run`] with `--json`, which must succeed: one object.
fn ask(setup: &Setup, words: &[&str]) -> Value {
    serde_json::from_str(&text(&run(setup, &[words, &["--json"]].concat()))).expect("one JSON object")
}

fn complaint(setup: &Setup, words: &[&str]) -> (i32, String) {
    let output = run(setup, words);
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn ids(setup: &Setup, words: &[&str]) -> Vec<String> {
    let lines = text(&run(setup, &[&["list", "--json"], words].concat()));
    let id = |line: &str| {
        serde_json::from_str::<Value>(line).expect("an object a line")["id"].as_str().map(str::to_owned)
    };
    lines.lines().map(|line| id(line).expect("an id")).collect()
}

/// Recipients of a report.
fn count(report: &Value) -> u64 {
    report["recipients"].as_u64().expect("a count")
}

/// A daemon whose every recipient waits: the sink refuses for now.
fn deferring() -> (Sink, Daemon) {
    let sink = Sink::start(&["--fault", "rcpt=450:1"]);
    let daemon = Setup::new().relay(sink.address).with("retry.quadratic_secs", 3600).start();
    (sink, daemon)
}

/// Four messages to five recipients, all deferred.
fn fill(daemon: &Daemon) {
    let mut client = daemon.client();
    client.deliver("ann@one.test", &["bob@a.test", "eve@a.test"]);
    client.deliver("ann@two.test", &["bob@b.test"]);
    client.deliver("", &["zoe@b.test"]);
    let reply =
        client.send("ann@one.test", &["bob@c.test"], "X-Campaign-ID: spring\r\nSubject: x\r\n\r\nHello");
    assert!(reply.starts_with("250"), "{reply}");
    daemon.wait_for("deferred_recipients", 5, RUN_MAX);
}

#[test]
fn stat_list_show_and_cat_say_what_waits_and_why() {
    let (_sink, daemon) = deferring();
    fill(&daemon);
    let setup = &daemon.setup;
    let stat = ask(setup, &["stat"]);
    assert_eq!((&stat["source"], &stat["messages"]), (&"daemon".into(), &4.into()), "{stat}");
    assert_eq!(
        (&stat["deferred"], &stat["tried"], &stat["ready"]),
        (&5.into(), &5.into(), &0.into()),
        "{stat}"
    );
    assert_eq!(stat["domains"]["a.test"]["owed"], 2, "{stat}");
    let reasons = stat["reasons"].as_object().expect("by reason");
    assert!(reasons.keys().all(|reason| reason.starts_with("450")) && reasons.len() == 1, "{stat}");
    assert!(text(&run(setup, &["stat"])).contains("a.test"));

    let found = ids(setup, &["--where", "domain=a.test"]);
    assert_eq!(found.len(), 1);
    let shown = ask(setup, &["show", &found[0]]);
    assert_eq!((&shown["sender"], &shown["owed"]), (&"ann@one.test".into(), &2.into()), "{shown}");
    let to_do = shown["to_do"].as_array().expect("a list");
    let names: Vec<_> = to_do.iter().filter_map(|line| line["recipient"].as_str()).collect();
    assert_eq!(names, ["bob@a.test", "eve@a.test"]);
    assert!(to_do.iter().all(|line| line["state"] == "deferred" && line["attempts"] == 1), "{shown}");
    assert!(text(&run(setup, &["show", &found[0]])).contains("eve@a.test  deferred, 1 attempts"));

    let campaign = ids(setup, &["--where", "campaign=spring"]);
    assert_eq!(ask(setup, &["show", &campaign[0]])["campaign"], "spring");
    let content = text(&run(setup, &["cat", &campaign[0]]));
    assert!(content.ends_with("X-Campaign-ID: spring\r\nSubject: x\r\n\r\nHello\r\n"), "{content}");
    assert!(content.starts_with("Received: "), "{content}");
}

#[test]
fn every_condition_finds_its_own_and_a_limit_says_so() {
    let (_sink, daemon) = deferring();
    fill(&daemon);
    let setup = &daemon.setup;
    let found = |condition: &str| count(&ask(setup, &["delete", "--where", condition]));
    let cases = [
        ("domain=b.test", 2),
        ("domain!=b.test", 3),
        ("domain=*.test and attempts=1", 5),
        ("attempts>1", 0),
        ("sender=ann@one.test", 3),
        ("sender=<>", 1),
        ("recipient=bob@*", 3),
        ("recipient=bob@* and domain=a.test", 1),
        ("campaign=spring", 1),
        ("campaign!=spring and sender=*one*", 2),
        ("state=deferred", 5),
        ("state=held", 0),
        ("reason~450", 5),
        ("reason~\"no such words\"", 0),
        ("age>1h", 0),
        ("age<1h", 5),
    ];
    for (condition, expected) in cases {
        assert_eq!(found(condition), expected, "{condition}");
    }
    let both = ask(setup, &["delete", "--where", "domain=a.test", "--where", "recipient=eve@a.test"]);
    assert_eq!(count(&both), 1, "all conditions must hold");
    let output = run(setup, &["list", "--limit", "2"]);
    assert_eq!(text(&output).lines().count(), 2);
    assert!(String::from_utf8_lossy(&output.stderr).contains("only 2 messages are shown"));
    let all = ids(setup, &[]);
    assert!(all.is_sorted() && all.len() == 4);
    assert_eq!(count(&ask(setup, &["delete", &all[0], &all[1], "0000000000000001"])), 3);
}

#[test]
fn what_is_wrong_is_said_with_its_exit_code() {
    let (_sink, daemon) = deferring();
    let setup = &daemon.setup;
    let (code, said) = complaint(setup, &["delete", "--where", "colour=red"]);
    assert_eq!(code, 64);
    assert!(
        said.contains("--where, at column 1") && said.contains("no such field; there are domain"),
        "{said}"
    );
    let (code, said) = complaint(setup, &["delete", "--yes"]);
    assert!(code == 64 && said.contains("--all"), "{code} {said}");
    for command in ["show", "cat"] {
        let (code, said) = complaint(setup, &[command, "00000000000000aa"]);
        assert!(code == 75 && said.contains("no such message"), "{code} {said}");
    }
}

#[test]
fn dry_run_changes_nothing() {
    let (_sink, daemon) = deferring();
    fill(&daemon);
    let setup = &daemon.setup;
    let before = ask(setup, &["stat"]);
    for command in ["hold", "release", "retry", "bounce", "delete"] {
        let report = ask(setup, &[command, "--all"]);
        assert_eq!(report["dry_run"], true);
        assert_eq!(count(&report), if command == "release" { 0 } else { 5 }, "{command}");
        assert!(text(&run(setup, &[command, "--all"])).contains("nothing was changed"));
    }
    assert_eq!(ask(setup, &["stat"]), before);
    assert_eq!((daemon.metric("deleted"), daemon.metric("deferred")), (0, 5));
}

#[test]
fn delete_by_recipient_leaves_the_others_and_survives_a_kill() {
    let (sink, daemon) = deferring();
    let report = send(newsletter(daemon.address, 300, 512), daemon.setup.folder().join("sent.tsv"));
    assert_eq!(report.recipients_accepted, 300);
    daemon.wait_for("deferred_recipients", 300, RUN_MAX);
    let deleted = ask(&daemon.setup, &["delete", "--where", "recipient=u*7@*", "--yes"]);
    assert_eq!((count(&deleted), &deleted["messages"]), (30, &1.into()), "{deleted}");
    assert_eq!(daemon.metric("deleted"), 30);
    daemon.wait_for("queued_recipients", 270, RUN_MAX);
    // What is left goes out under its own names, after a crash too.
    let mut stopped = daemon.kill();
    drop(sink);
    let sink = Sink::start(&[]);
    stopped.setup.set("routes.*", sink.address.to_string());
    let daemon = stopped.restart();
    assert_eq!(daemon.metric("queued_recipients"), 270);
    ask(&daemon.setup, &["retry", "--all", "--yes"]);
    daemon.wait_until_empty(RUN_MAX);
    let served = sink.end().forward_paths();
    let expected: BTreeSet<String> = tests::process::source::recipients(300)
        .filter(|name| !name.split('@').next().is_some_and(|name| name.ends_with('7')))
        .collect();
    assert_eq!(served, expected);
}

#[test]
fn held_mail_stays_through_kill_9_until_it_is_released() {
    let (sink, daemon) = deferring();
    fill(&daemon);
    assert_eq!(count(&ask(&daemon.setup, &["hold", "--where", "sender=ann@one.test", "--yes"])), 3);
    assert_eq!((daemon.metric("held_recipients"), daemon.metric("deferred_recipients")), (3, 2));
    let mut stopped = daemon.kill();
    assert_eq!(ask(&stopped.setup, &["stat"])["held"], 3);
    drop(sink);
    let sink = Sink::start(&[]);
    stopped.setup.set("routes.*", sink.address.to_string());
    let daemon = stopped.restart();
    assert_eq!(daemon.metric("held_recipients"), 3);
    assert_eq!(count(&ask(&daemon.setup, &["flush"])), 2, "a flush is about what is deferred");
    daemon.wait_for("queued_recipients", 3, RUN_MAX);
    sink.wait_for_recipients(2, RUN_MAX);
    assert_eq!(count(&ask(&daemon.setup, &["release", "--where", "domain=c.test", "--yes"])), 1);
    daemon.wait_for("delivered", 3, RUN_MAX);
    assert_eq!(count(&ask(&daemon.setup, &["release", "--all", "--yes"])), 2);
    daemon.wait_until_empty(RUN_MAX);
    assert_eq!(sink.end().counters.recipients, 5);
}

#[test]
fn bounced_mail_goes_back_to_its_senders() {
    let sink = Sink::start(&["--fault", "rcpt=450:1"]);
    let returns = Sink::start(&[]);
    let daemon = Setup::new()
        .relay(sink.address)
        .with("routes.one.test", returns.address.to_string())
        .with("routes.two.test", returns.address.to_string())
        .with("retry.quadratic_secs", 3600)
        .with("bounces.doublebounce_to", "")
        .start();
    fill(&daemon);
    let bounced = ask(&daemon.setup, &["bounce", "--where", "age<1h", "--yes"]);
    assert_eq!((count(&bounced), &bounced["messages"]), (5, &4.into()), "{bounced}");
    daemon.wait_until_empty(RUN_MAX);
    let told: Vec<String> =
        returns.end().deliveries().into_iter().map(|bounce| bounce.forward_path).collect();
    assert_eq!(told.iter().filter(|to| *to == "ann@one.test").count(), 2, "{told:?}");
    assert_eq!(told.iter().filter(|to| *to == "ann@two.test").count(), 1, "{told:?}");
    assert_eq!(told.len(), 3, "nobody is told about mail from nobody");
    let log = std::fs::read_to_string(daemon.setup.delivery_log()).expect("it is kept");
    assert!(log.contains("returned by the operator"), "{log}");
}

#[test]
fn mail_for_a_site_that_is_away_is_ready_says_why_and_can_be_deleted() {
    let address = vacant();
    let daemon = Setup::new().relay(address).with("delivery.backoff_secs", 3600).start();
    let sent = daemon.setup.folder().join("sent.tsv");
    send(newsletter(daemon.address, 500, 512), sent);
    daemon.client().deliver("ann@one.test", &["bob@a.test"]);
    daemon.wait_until_said("no host of the site serves us");
    let setup = &daemon.setup;
    let stat = ask(setup, &["stat"]);
    assert_eq!(stat["ready"], 501, "{stat}");
    assert!(stat["reasons"].to_string().contains("refused"), "{stat}");
    let words = ["delete", "--where", "reason~refused and domain=d*.test", "--yes"];
    assert_eq!(count(&ask(setup, &words)), 500);
    assert_eq!(daemon.metric("queued_recipients"), 1);
    // Holding the rest takes it out of the site's queue; a release and a flush put it before a peer that is there now.
    assert_eq!(count(&ask(setup, &["hold", "--all", "--yes"])), 1);
    let sink = Sink::start_on(&address.to_string(), &[]);
    assert_eq!(count(&ask(setup, &["release", "--all", "--yes"])), 1);
    ask(setup, &["flush"]);
    daemon.wait_until_empty(RUN_MAX);
    assert_eq!(sink.end().counters.recipients, 1);
}

#[test]
fn stopped_daemons_queue_can_be_looked_at_and_not_changed() {
    let (_sink, daemon) = deferring();
    fill(&daemon);
    ask(&daemon.setup, &["hold", "--where", "domain=c.test", "--yes"]);
    let running = ids(&daemon.setup, &[]);
    let stopped = daemon.terminate();
    let setup = &stopped.setup;
    let stat = ask(setup, &["stat"]);
    assert_eq!(
        (&stat["source"], &stat["held"], &stat["deferred"]),
        (&"files".into(), &1.into(), &4.into()),
        "{stat}"
    );
    assert_eq!(ids(setup, &[]), running);
    assert_eq!(ids(setup, &["--where", "recipient=bob@c.test and state=held"]).len(), 1);
    assert_eq!(ids(setup, &["--where", "domain=c.test and attempts>1"]).len(), 0);
    assert_eq!(ask(setup, &["show", &running[0]])["owed"], 2);
    assert!(text(&run(setup, &["cat", &running[0]])).ends_with("Hello\r\n"));
    for command in ["hold", "release", "retry", "bounce", "delete"] {
        let (code, said) = complaint(setup, &[command, "--all", "--yes"]);
        assert!(code == 75 && said.contains("the daemon is not running"), "{command}: {code} {said}");
    }
    assert_eq!(complaint(setup, &["flush"]).0, 75);
    assert_eq!(ask(setup, &["stat"])["messages"], 4);
}

#[test]
fn socket_is_closed_to_others_and_one_left_behind_is_replaced() {
    let daemon = Setup::new().start();
    let socket = daemon.setup.queue().join("control.sock");
    assert_eq!(std::fs::metadata(&socket).expect("it is there").permissions().mode() & 0o777, 0o600);
    let stopped = daemon.kill();
    assert!(socket.exists() && UnixStream::connect(&socket).is_err());
    let daemon = stopped.restart();
    assert_eq!(ask(&daemon.setup, &["stat"])["source"], "daemon");
}

#[test]
fn stranger_may_not_give_orders_and_a_named_user_may() {
    if !is_root() {
        return skip("only root can be somebody else");
    }
    let (stranger, named) = (12_345_u32, 12_346);
    let setup = Setup::new();
    let socket = setup.folder().join("control.sock");
    let setup = setup
        .with("control", socket.to_str().expect("a plain name"))
        .with("control_uids", vec![i64::from(named)]);
    let daemon = setup.start();
    // The way to the socket and to the configuration is open; the queue is not.
    std::fs::set_permissions(daemon.setup.folder(), std::fs::Permissions::from_mode(0o755)).expect("ours");
    let program = daemon.setup.folder().join("ringpost");
    tests::process::programs::place_ringpost(&program);
    let queue = std::fs::metadata(daemon.setup.queue()).expect("it is there");
    assert_eq!((queue.uid(), queue.mode() & 0o777), (getuid().as_raw(), 0o700));
    let stat_as = |uid: u32| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &uid.to_string(), "--regid", &uid.to_string(), "--clear-groups", "--"]);
        command.arg(&program).args(["queue", "stat", "--json", "--config"]).arg(daemon.setup.config_file());
        wait::finish(&mut command, PATIENCE)
    };
    let refused = stat_as(stranger);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(78), "{said}");
    assert!(said.contains("user 12345 may not give orders"), "{said}");
    assert!(text(&stat_as(named)).contains("\"source\":\"daemon\""));
    daemon.assert_healthy();
}

#[test]
fn client_that_goes_away_and_one_that_babbles_harm_nobody() {
    use std::io::Write as _;
    let (_sink, daemon) = deferring();
    fill(&daemon);
    let socket = daemon.setup.queue().join("control.sock");
    for line in
        ["{\"action\":\"delete\",\"dry_run\":true}\n", "{\"action\":\"list\",\"limit\":5}", "nonsense\n", ""]
    {
        let mut stream = UnixStream::connect(&socket).expect("it listens");
        stream.write_all(line.as_bytes()).expect("it reads");
    }
    // More than may be connected at a time: the last ones are told so, and places come free again.
    let crowd: Vec<_> = (0..12).map(|_| UnixStream::connect(&socket).expect("it listens")).collect();
    drop(crowd);
    wait::until("a place at the socket", PATIENCE, || run(&daemon.setup, &["stat"]).status.success());
    assert_eq!(ask(&daemon.setup, &["stat"])["recipients_owed"], 5);
    daemon.assert_healthy();
}
