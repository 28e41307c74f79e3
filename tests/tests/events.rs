//! The event log and its consumers: every verdict arrives at least once, signed, and a dead consumer costs no mail.

use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tests::process::http::{self, Answer};
use tests::process::source::{self, newsletter, recipients};
use tests::process::webhook::Post;
use tests::process::{Daemon, Setup, Sink, Webhook, peer, vacant, wait};

const RUN_MAX: Duration = Duration::from_secs(240);

const SECRET: &str = "a secret of some length";

/// Keys of a webhook called `crm` besides its URL.
fn with_webhook(setup: Setup, address: SocketAddr, keys: &str) -> Setup {
    let secret = setup.folder().join("secret");
    std::fs::write(&secret, format!("{SECRET}\n")).expect("the folder is ours");
    setup.with_lines(&format!(
        "[events.webhooks.crm]\nurl = \"http://{address}/events?from=ringpost\"\nsecret_file = {secret:?}\nbatch_wait_ms = 20\n{keys}"
    ))
}

fn fan_out(daemon: &Daemon, count: u64) {
    let sent = daemon.setup.folder().join("sent.tsv");
    let report = source::send(newsletter(daemon.address, count, 2048), sent);
    assert_eq!(report.recipients_accepted, count, "{report:?}");
}

fn lag(daemon: &Daemon) -> u64 {
    daemon.metric("consumer_lag_events{consumer=\"crm\"}")
}

fn wait_for_no_lag(daemon: &Daemon) {
    daemon.wait_until("consumer_lag_events{consumer=\"crm\"}", RUN_MAX, |lag| lag == 0);
}

/// Whom events of a kind are about.
fn whom(events: &[Value], kind: &str) -> BTreeSet<String> {
    let found = events.iter().filter(|event| event["kind"] == kind);
    found.map(|event| event["rcpt"].as_str().expect("a recipient").to_owned()).collect()
}

fn cat(setup: &Setup, words: &[&str]) -> Vec<Value> {
    let command = [&["events", "cat", "--json"][..], words].concat();
    let output = wait::succeed(&mut setup.command(&command), wait::PATIENCE);
    let lines = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    lines.lines().map(|line| serde_json::from_str(line).expect("a JSON object per line")).collect()
}

fn everybody(count: u64) -> BTreeSet<String> {
    recipients(count).collect()
}

#[test]
fn every_verdict_arrives_and_is_signed() {
    let sink = Sink::start(&["--fault", "rcpt=550:0.1:by-address", "--fault", "rcpt=450:0.1"]);
    let webhook = Webhook::start();
    let setup = with_webhook(Setup::new().relay(sink.address), webhook.address, "batch_max = 100");
    let daemon = setup.on_cpus(&[0, 1]).start();
    fan_out(&daemon, 500);
    daemon.wait_until_empty(RUN_MAX);
    wait_for_no_lag(&daemon);
    let (events, metrics) = (webhook.events(), daemon.metrics());
    for kind in ["delivered", "deferred", "failed"] {
        let count = events.iter().filter(|event| event["kind"] == kind).count() as u64;
        assert_eq!(count, metrics[kind], "{kind}: {metrics:?}");
    }
    for event in &events {
        let sender = event.get("sender").and_then(Value::as_str);
        // A bounce that could not be delivered goes to the postmaster from there.
        if sender == Some("#@[]") {
            continue;
        }
        // Bounces of the list's are from nobody.
        assert_eq!(sender, (event["lane"] == "bulk").then_some("list-return@loadgen.test"), "{event}");
        // The sink says 5.7.1 and 4.7.1, and no more.
        let class = event.get("class").and_then(Value::as_str);
        assert_eq!(class, (event["kind"] != "delivered").then_some("policy"), "{event}");
    }
    let ids: BTreeSet<&str> = events.iter().filter_map(|event| event["id"].as_str()).collect();
    assert_eq!(ids.len(), events.len(), "nothing failed, so nothing came twice");
    let posts = webhook.posts();
    assert!(posts.iter().all(|post| post.events().len() <= 100 && post.path == "/events?from=ringpost"));
    posts.iter().for_each(check_headers);
    check_signature(&posts[0]);
}

fn check_headers(post: &Post) {
    assert_eq!(post.header("content-type"), "application/x-ndjson");
    assert_eq!(post.header("x-ringpost-host"), "relay.process.test");
    assert_eq!(post.header("x-ringpost-events"), post.events().len().to_string());
    assert!(post.header("x-ringpost-batch").starts_with("crm-"), "{:?}", post.headers);
}

/// By an implementation that is not ours.
fn check_signature(post: &Post) {
    let Some(mut python) = peer("python3") else { return };
    let script = "import hmac, sys; body = sys.stdin.buffer.read(); \
                  print('sha256=' + hmac.new(sys.argv[1].encode(), sys.argv[2].encode() + b'.' + body, 'sha256').hexdigest())";
    let command = python.args(["-c", script, SECRET, post.header("x-ringpost-timestamp")]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 is installed");
    child.stdin.take().expect("it was piped").write_all(&post.body).expect("it reads");
    let output = child.wait_with_output().expect("it ends with its input");
    let printed = String::from_utf8(output.stdout).expect("hex");
    assert_eq!(printed.trim_end(), post.header("x-ringpost-signature"));
}

#[test]
fn dead_webhook_costs_no_mail_and_no_event() {
    const COUNT: u64 = 20_000;
    let (sink, address) = (Sink::start(&[]), vacant());
    let setup = with_webhook(Setup::new().relay(sink.address), address, "max_in_flight = 4");
    let daemon = setup.with("events.file_len", 64 << 10).on_cpus(&[0, 1]).start();
    fan_out(&daemon, COUNT);
    daemon.wait_until_empty(RUN_MAX);
    assert_eq!(daemon.metric("delivered"), COUNT);
    daemon.wait_for_at_least("consumer_failures_total{consumer=\"crm\"}", 2, RUN_MAX);
    assert_eq!((lag(&daemon), daemon.metric("events_dropped")), (COUNT, 0));
    let consumers =
        wait::succeed(&mut daemon.setup.command(&["events", "consumers", "--json"]), wait::PATIENCE);
    let consumer: Value = serde_json::from_slice(&consumers.stdout).expect("one consumer, one line");
    assert_eq!((&consumer["name"], &consumer["lag_events"]), (&"crm".into(), &COUNT.into()));
    let webhook = Webhook::start_on(address);
    wait_for_no_lag(&daemon);
    assert_eq!(whom(&webhook.events(), "delivered"), everybody(COUNT));
}

#[test]
fn kill_9_loses_no_event() {
    const COUNT: u64 = 50_000;
    let (sink, webhook) = (Sink::start(&["--delay", "1"]), Webhook::start());
    let setup = with_webhook(Setup::new().relay(sink.address), webhook.address, "");
    let mut daemon = setup.with("events.file_len", 1 << 20).on_cpus(&[0, 1]).start();
    fan_out(&daemon, COUNT);
    for part in [4, 2] {
        let few = || Some(daemon.owed()).filter(|owed| *owed <= COUNT - COUNT / part);
        assert!(
            wait::until_some("some to be served", RUN_MAX, few) > 0,
            "over before the test could interfere"
        );
        daemon = daemon.kill().restart();
    }
    daemon.wait_until_empty(RUN_MAX);
    assert_eq!(whom(&cat(&daemon.setup, &["--where", "kind=delivered"]), "delivered"), everybody(COUNT));
    wait_for_no_lag(&daemon);
    assert_eq!(whom(&webhook.events(), "delivered"), everybody(COUNT));
}

#[test]
fn refusal_holds_events_and_says_so() {
    let (sink, webhook) = (Sink::start(&[]), Webhook::start());
    webhook.answer(400, "");
    let daemon = with_webhook(Setup::new().relay(sink.address), webhook.address, "").start();
    daemon.client().deliver("ann@here.test", &["bob@there.test"]);
    daemon.wait_for("consumer_refusing{consumer=\"crm\"}", 1, RUN_MAX);
    daemon.wait_until_said("events are REFUSED");
    webhook.answer(503, "Retry-After: 1\r\n");
    daemon.wait_for("consumer_refusing{consumer=\"crm\"}", 0, RUN_MAX);
    webhook.answer(200, "");
    wait_for_no_lag(&daemon);
    let (posts, events) = (webhook.posts(), webhook.events());
    assert_eq!(whom(&events, "delivered"), BTreeSet::from(["bob@there.test".to_owned()]));
    assert!(posts.len() >= 3 && posts.iter().all(|post| post.body == posts[0].body));
    let names: BTreeSet<&str> = posts.iter().map(|post| post.header("x-ringpost-batch")).collect();
    assert_eq!(names.len(), 1, "a batch keeps its name");
}

#[test]
fn reload_adds_and_removes_a_webhook() {
    let (sink, webhook) = (Sink::start(&[]), Webhook::start());
    let mut daemon = Setup::new().relay(sink.address).with_lines("[events]\naccepted = true").start();
    let has_consumer =
        |daemon: &Daemon| daemon.metrics().contains_key("consumer_lag_events{consumer=\"crm\"}");
    assert!(!has_consumer(&daemon));
    daemon.setup = with_webhook(std::mem::take(&mut daemon.setup), webhook.address, "kinds = [\"accepted\"]");
    daemon.setup.write_config();
    daemon.signal(Signal::HUP);
    wait::until("the webhook to be there", RUN_MAX, || has_consumer(&daemon));
    daemon.client().deliver("ann@here.test", &["bob@there.test", "cy@there.test"]);
    daemon.wait_until_empty(RUN_MAX);
    wait_for_no_lag(&daemon);
    let events = webhook.events();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!((&events[0]["recipients"], &events[0]["kind"]), (&2.into(), &"accepted".into()));
    daemon.setup.remove("events.webhooks");
    daemon.setup.write_config();
    daemon.signal(Signal::HUP);
    wait::until("the webhook to be gone", RUN_MAX, || !has_consumer(&daemon));
    daemon.client().deliver("ann@here.test", &["dan@there.test"]);
    daemon.wait_until_empty(RUN_MAX);
    // It comes back where it was.
    daemon.setup = with_webhook(std::mem::take(&mut daemon.setup), webhook.address, "kinds = [\"accepted\"]");
    daemon.setup.write_config();
    daemon.signal(Signal::HUP);
    let both = || {
        let events = webhook.events();
        let ids: BTreeSet<&str> = events.iter().filter_map(|event| event["id"].as_str()).collect();
        ids.len() == 2
    };
    wait::until("the second event", RUN_MAX, both);
}

fn call(daemon: &Daemon, what: &str, kind: &str, body: &str) -> Answer {
    let kind = [("Content-Type", kind)];
    http::send(daemon.api[0], what, &kind, body.as_bytes()).expect("the API answers")
}

/// A campaign to them.
fn campaign(daemon: &Daemon, id: &str, more: Value, to: &[&str]) {
    let mut campaign = json!({
        "envelope_sender": "news@here.test",
        "content": "From: News <news@here.test>\nTo: {{email}}\nSubject: news\n\nHello\n",
    });
    let (Value::Object(members), Value::Object(more)) = (&mut campaign, more) else { panic!("two objects") };
    members.extend(more);
    let what = format!("PUT /api/campaigns/{id}");
    let created = call(daemon, &what, "application/json", &campaign.to_string());
    assert_eq!(created.status, 201, "{created:?}");
    let what = format!("POST /api/campaigns/{id}/recipients");
    let added = call(daemon, &what, "text/csv", &format!("email\n{}\n", to.join("\n")));
    assert_eq!(added.status, 200, "{added:?}");
}

#[test]
fn whatever_is_brought_is_accepted_and_what_we_write_is_not() {
    let bad = "rcpt[address=bad@there.test]=550 5.1.1 No such user";
    let sink = Sink::start(&["--reply", bad]);
    let lines = "[api]\nlisten = [\"127.0.0.1:0\"]\n[keep]\nhash = true\n[events]\naccepted = true";
    let daemon = Setup::new().relay(sink.address).with_lines(lines).start();
    // Its bounce is ours.
    daemon.client().deliver("ann@here.test", &["bad@there.test"]);
    let letter = json!({
        "envelope_sender": "news@here.test",
        "content": "From: news@here.test\nX-Campaign: spring\nSubject: hello\n\nHello\n",
        "recipients": [{ "email": "bob@there.test" }, { "email": "cy@there.test" }],
    });
    let injected = call(&daemon, "POST /api/inject/v1", "application/json", &letter.to_string());
    assert_eq!(injected.status, 200, "{injected:?}");
    campaign(&daemon, "summer", json!({}), &["dan@there.test", "eve@there.test", "fay@there.test"]);
    daemon.wait_until_empty(RUN_MAX);
    assert_eq!((daemon.metric("bounces"), daemon.metric("delivered")), (1, 2 + 3 + 1));
    let mut events = cat(&daemon.setup, &["--where", "kind=accepted"]);
    events.sort_by_key(|event| event["recipients"].as_u64());
    let said: Vec<(Option<&str>, Option<u64>)> =
        events.iter().map(|event| (event["campaign"].as_str(), event["recipients"].as_u64())).collect();
    assert_eq!(said, [(None, Some(1)), (Some("spring"), Some(2)), (Some("summer"), Some(3))]);
    assert_eq!(events[1]["msg"], injected.json()["message"]);
    assert!(events.iter().all(|event| event["blake3"].is_string() && event["octets"].is_u64()), "{events:?}");
}

#[test]
fn who_leaves_is_an_event_that_says_how() {
    let (sink, page) = (Sink::keeping(&[]), vacant());
    let lines = format!(
        "[api]\nlisten = [\"127.0.0.1:0\"]\n[events]\n[unsubscribe]\nlisten = [\"{page}\"]\n\
         base_url = \"https://lists.here.test\"\nmailto = \"leave@here.test\""
    );
    let daemon = Setup::new().relay(sink.address).with_lines(&lines).start();
    let to = ["ann@a.test", "bob@b.test", "cy@c.test"];
    campaign(&daemon, "spring", json!({ "unsubscribe": true, "list": "news" }), &to);
    let letters = sink.wait_for_contents(to.len(), RUN_MAX);
    let token = |to: &str| {
        let mut letters = letters.iter().map(|letter| String::from_utf8_lossy(letter));
        let letter = letters.find(|letter| letter.contains(&format!("\r\nTo: {to}\r\n")));
        let letter = letter.expect("everybody got one");
        let (_, rest) = letter.split_once("?subject=unsubscribe%20").expect("a link");
        rest.split_once('>').expect("it ends").0.to_owned()
    };
    // Who leaves twice has left once.
    let (one_click, button) = ("List-Unsubscribe=One-Click", "List-Unsubscribe=One-Click&way=page");
    for (to, body) in [(to[0], one_click), (to[1], button), (to[0], one_click)] {
        let form = [("Content-Type", "application/x-www-form-urlencoded")];
        let answer = http::send(page, &format!("POST /u/{}", token(to)), &form, body.as_bytes());
        assert_eq!(answer.expect("the page answers").status, 200);
    }
    let subject = format!("Subject: unsubscribe {}\r\n\r\nbye", token(to[2]));
    let reply = daemon.client().send("cy@c.test", &["leave@here.test"], &subject);
    assert!(reply.starts_with("250"), "{reply}");
    daemon.wait_until_empty(RUN_MAX);
    let events = cat(&daemon.setup, &["--where", "kind=unsubscribed"]);
    let said = |event: &Value| ["rcpt", "list", "detail"].map(|key| event[key].as_str().map(str::to_owned));
    let mut found: Vec<_> = events.iter().map(said).collect();
    found.sort();
    let wanted = ["one-click", "page", "mailto"].into_iter().zip(to);
    let wanted = wanted.map(|(way, to)| [to, "news", way].map(|text| Some(text.to_owned())));
    assert_eq!(found, wanted.collect::<Vec<_>>());
    let objects = events.iter().filter_map(Value::as_object);
    let fields: BTreeSet<&str> = objects.flat_map(|event| event.keys().map(String::as_str)).collect();
    assert_eq!(fields, BTreeSet::from(["id", "kind", "at", "rcpt", "domain", "list", "detail"]));
}

fn event_files(setup: &Setup) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(setup.queue().join("events")).expect("the log's folder");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_none_or(|ending| ending != "cursor"));
    paths.sort();
    paths
}

fn packed_files(setup: &Setup) -> Vec<PathBuf> {
    let is_packed = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "zst");
    event_files(setup).into_iter().filter(is_packed).collect()
}

#[test]
fn files_are_rotated_and_packed_and_read_back_by_us_and_by_zstd() {
    const COUNT: u64 = 500;
    const ROUNDS: usize = 6;
    let sink = Sink::start(&[]);
    let copy = |setup: &Setup| setup.folder().join("copy.jsonl");
    let setup = Setup::new().relay(sink.address).with("events.file_len", 16 << 10).on_cpus(&[0, 1]);
    let path = copy(&setup);
    let setup = setup.with_lines(&format!("[events.files.copy]\npath = {path:?}"));
    let daemon = setup.start();
    for round in 0..ROUNDS {
        fan_out(&daemon, COUNT);
        daemon.wait_until_empty(RUN_MAX);
        wait::until("the file to be packed", RUN_MAX, || packed_files(&daemon.setup).len() > round);
    }
    let events = cat(&daemon.setup, &[]);
    assert_eq!(whom(&events, "delivered"), everybody(COUNT));
    assert_eq!(events.len() as u64, COUNT * ROUNDS as u64);
    let some = cat(&daemon.setup, &["--where", "rcpt=u00000*", "--since", "1h"]);
    assert_eq!(some.len(), 10 * ROUNDS, "{some:?}");
    daemon.wait_until("consumer_lag_events{consumer=\"copy\"}", RUN_MAX, |lag| lag == 0);
    let copied = std::fs::read_to_string(copy(&daemon.setup)).expect("the copy");
    assert_eq!(copied.lines().count(), events.len());
    unpacked_by_zstd(&packed_files(&daemon.setup)[0], &copied);
}

/// The first file is the first part of the log.
fn unpacked_by_zstd(file: &Path, all: &str) {
    let Some(mut zstd) = peer("zstd") else { return };
    let output = wait::succeed(zstd.arg("-dc").arg(file), wait::PATIENCE);
    let text = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    assert!(!text.is_empty() && all.starts_with(&text));
}

#[test]
fn files_that_everybody_has_read_go() {
    let (sink, webhook) = (Sink::start(&[]), Webhook::start());
    let setup = with_webhook(Setup::new().relay(sink.address), webhook.address, "");
    let daemon = setup.with("events.file_len", 16 << 10).with("events.keep_bytes", 0).start();
    fan_out(&daemon, 1_000);
    daemon.wait_for("delivered", 1_000, RUN_MAX);
    wait_for_no_lag(&daemon);
    wait::until("the files to go", RUN_MAX, || event_files(&daemon.setup).len() <= 2);
    assert_eq!(whom(&webhook.events(), "delivered"), everybody(1_000));
}

#[test]
fn tail_prints_what_comes() {
    let sink = Sink::start(&[]);
    let daemon = Setup::new().relay(sink.address).with_lines("[events]").start();
    daemon.client().deliver("ann@here.test", &["before@there.test"]);
    daemon.wait_until_empty(RUN_MAX);
    let said = daemon.setup.folder().join("tail.txt");
    let out = std::fs::File::create(&said).expect("the folder is ours");
    let mut command: Command = daemon.setup.command(&["events", "tail"]);
    let mut tail = command.stdout(out).spawn().expect("it was built");
    let printed = || std::fs::read_to_string(&said).expect("ours");
    wait::until("the tail's line", RUN_MAX, || {
        daemon.client().deliver("ann@here.test", &["bob@there.test"]);
        printed().contains("bob@there.test")
    });
    tail.kill().expect("our child");
    let _ = tail.wait();
    assert!(printed().contains("  delivered ") && !printed().contains("before@"), "{}", printed());
}

#[test]
fn wrong_settings_are_refused_with_what_to_do() {
    let refused = |lines: &str| {
        let refusal = Setup::new().with_lines(lines).refusal();
        assert_eq!(refusal.code, 78, "{}", refusal.said);
        refusal.sentence().to_owned()
    };
    let short = tests::process::setup::temporary_folder();
    std::fs::write(short.path().join("secret"), "short\n").expect("the folder is ours");
    let secret = short.path().join("secret");
    let webhook = |url: &str| format!("[events.webhooks.a]\nurl = \"{url}\"\nsecret_file = {secret:?}");
    assert!(refused(&webhook("https://a.test/")).contains("openssl rand -hex 32"));
    assert!(refused(&webhook("http://a.test/")).contains("plain = true"));
    assert!(refused("[events]\nfile_len = 5").contains("events.file_len must be between"));
}
