//! Real front ends send a list through us: Mailman 3, and newsletter programs with smtplib, HTTP and nodemailer.
//! 1,000 subscribers, 20 of whom bounce and two complain; what is known of each then, and who gets the next issue.

#[path = "dsn/host.rs"]
#[allow(dead_code, reason = "the tests of reports read more of it")]
mod host;
#[path = "frontends/mailman.rs"]
mod mailman;

use host::{Host, Taken};
use mailman::Mailman;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tests::process::{Client, Daemon, Setup, peer, wait};

const RUN_MAX: Duration = Duration::from_secs(240);

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/frontends");

/// Mail goes to `host`; the listener `mx` is for the world, which may not relay.
fn setup(host: &Host) -> Setup {
    let lines = "[listeners.mx]\naddresses = [\"127.0.0.1:0\"]\n[events]\n\
                 [[access.rules]]\nlistener = \"mx\"\nrelay = false\n";
    Setup::new().relay(host.address).with_lines(lines)
}

/// Somebody out there.
fn stranger(daemon: &Daemon) -> Client {
    Client::greet(daemon.listening[1])
}

fn send(client: &mut Client, to: &str, content: &str) {
    let reply = client.send("", &[to], content);
    assert!(reply.starts_with("250"), "{to}: {reply}");
}

// ---- who subscribes, and what becomes of them ----

fn named(name: &str, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |number| format!("{name}{number}@there.test"))
}

/// Their mail is delivered, and that is all.
fn readers() -> impl Iterator<Item = String> {
    named("reader", 978)
}

/// Their host refuses them.
fn bad() -> impl Iterator<Item = String> {
    named("bad", 10)
}

/// Their host takes the mail, and reports later that it could not deliver it.
fn gone() -> impl Iterator<Item = String> {
    named("gone", 10)
}

fn angry() -> impl Iterator<Item = String> {
    named("angry", 2)
}

/// All 1,000 as the programs read them.
fn write_subscribers(daemon: &Daemon) -> PathBuf {
    let all = bad().chain(readers()).chain(gone()).chain(angry());
    let lines: Vec<String> = all.map(|address| format!("{address},Name of {address}\n")).collect();
    assert_eq!(lines.len(), 1000);
    let file = daemon.setup.folder().join("subscribers.csv");
    std::fs::write(&file, format!("email,name\n{}", lines.concat())).expect("the folder is ours");
    file
}

/// Return path and header of what was taken, by its one recipient.
fn by_recipient(taken: Vec<Taken>) -> BTreeMap<String, (String, String)> {
    let count = taken.len();
    let of = |taken: Taken| {
        let path = taken.mail.strip_prefix("FROM:<")?.split('>').next()?.to_owned();
        let [rcpt] = &taken.rcpts[..] else { return None };
        let rcpt = rcpt.strip_prefix("TO:<")?.split('>').next()?.to_owned();
        let (header, _) = taken.content.split_once("\n\n")?;
        Some((rcpt, (path, header.replace('\n', "\r\n"))))
    };
    let found: BTreeMap<_, _> = taken.into_iter().filter_map(of).collect();
    assert_eq!(found.len(), count, "each was written to alone, and once");
    found
}

fn set(addresses: impl Iterator<Item = String>) -> BTreeSet<String> {
    addresses.collect()
}

fn keys<V>(map: &BTreeMap<String, V>) -> BTreeSet<String> {
    map.keys().cloned().collect()
}

/// A report of one recipient, with the original's header.
fn rfc3464(recipient: &str, header: &str) -> String {
    format!(
        "From: MAILER-DAEMON@there.test\r\nContent-Type: multipart/report; boundary=b\r\n\r\n--b\r\n\
         Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; there.test\r\n\r\n\
         Final-Recipient: rfc822; {recipient}\r\nAction: failed\r\nStatus: 5.1.1\r\n\
         Diagnostic-Code: smtp; 550 5.1.1 No such user\r\n\r\n--b\r\nContent-Type: text/rfc822-headers\r\n\r\n\
         {header}\r\n\r\n--b--"
    )
}

/// A complaint about a message with that return path, as a provider's feedback loop sends it.
fn arf(path: &str, recipient: &str, header: &str) -> String {
    format!(
        "From: fbl@there.test\r\nTo: news-owner@lists.test\r\nSubject: complaint\r\n\
         Message-ID: <complaint-{recipient}>\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=feedback-report; boundary=b\r\n\r\n--b\r\n\
         Content-Type: text/plain\r\n\r\nThis is an abuse report.\r\n--b\r\n\
         Content-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nUser-Agent: there/1\r\nVersion: 1\r\n\
         Original-Rcpt-To: {recipient}\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n\
         Return-Path: <{path}>\r\n{header}\r\n\r\nHello!\r\n--b--"
    )
}

// ---- what we know afterwards ----

fn events(daemon: &Daemon) -> Vec<Value> {
    let output = wait::succeed(&mut daemon.setup.command(&["events", "cat", "--json"]), wait::PATIENCE);
    let lines = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    lines.lines().map(|line| serde_json::from_str(line).expect("a JSON object per line")).collect()
}

/// Whom events of that kind are about, each in no more than one.
fn whom(events: &[Value], kind: &str) -> BTreeSet<String> {
    let found = events.iter().filter(|event| event["kind"] == kind);
    let found: Vec<&str> = found.map(|event| event["rcpt"].as_str().expect("a recipient")).collect();
    let all: BTreeSet<String> = found.iter().map(|&rcpt| rcpt.to_owned()).collect();
    assert_eq!(all.len(), found.len(), "{kind} twice");
    all
}

/// Reasons on the suppression list by address; nobody is on it twice.
fn suppressed(daemon: &Daemon) -> BTreeMap<String, String> {
    let output = wait::succeed(&mut daemon.setup.command(&["suppress", "export"]), wait::PATIENCE);
    let text = String::from_utf8(output.stdout).expect("it is UTF-8");
    let lines: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split(',').collect()).collect();
    let of = |line: &Vec<&str>| (line[0].to_owned(), line[2].to_owned());
    let found: BTreeMap<_, _> = lines.iter().map(of).collect();
    assert_eq!(found.len(), lines.len(), "{text}");
    found
}

// ---- newsletter programs, whose bounces and complaints we read ----

/// Who makes the return paths.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Paths {
    /// We do, and know them by their signatures.
    Ours,
    /// The program does. What counts of a report is the header that it gives back. What fails at once is an event; no
    /// bounce is written to a path that we would read it from.
    Theirs,
}

/// Runs a front end: the file of its subscribers and the issue.
type Send<'a> = &'a dyn Fn(&Daemon, &Path, &str);

/// Two issues, with what comes back in between.
fn newsletter(lines: &str, paths: Paths, send_issue: Send<'_>) {
    let host = Host::start(&[]);
    let bounces = "[bounces]\ndomains = [\"b.test\"]\nfeedback_addresses = [\"fbl@here.test\"]\n";
    let daemon = setup(&host).with_lines(bounces).with_lines(lines).start();
    let subscribers = write_subscribers(&daemon);
    send_issue(&daemon, &subscribers, "spring");
    daemon.wait_until_empty(RUN_MAX);
    let letters = by_recipient(host.taken());
    assert_eq!(keys(&letters), set(readers().chain(gone()).chain(angry())));
    let mut client = stranger(&daemon);
    for address in gone() {
        let (path, header) = &letters[&address];
        send(&mut client, path, &rfc3464(&address, header));
    }
    for address in angry() {
        let (path, header) = &letters[&address];
        send(&mut client, "fbl@here.test", &arf(path, &address, header));
    }
    daemon.wait_until_empty(RUN_MAX);
    assert_events(&daemon, paths);
    assert_suppressed(&daemon);
    assert_metrics(&daemon);
    send_issue(&daemon, &subscribers, "summer");
    daemon.wait_until_empty(RUN_MAX);
    let letters = by_recipient(host.taken().split_off(letters.len()));
    assert_eq!(keys(&letters), set(readers()), "the next issue goes to all others");
    assert_eq!(daemon.metric("failed"), 10);
}

/// Each who bounced or complained is known as that, with the list and the issue, and nobody else is.
fn assert_events(daemon: &Daemon, paths: Paths) {
    // What came back was delivered here, and has events of its own.
    let all = events(daemon).into_iter();
    let events: Vec<Value> = all.filter(|event| event["domain"] == "there.test").collect();
    assert_eq!(whom(&events, "delivered"), set(readers().chain(gone()).chain(angry())));
    assert_eq!(whom(&events, "failed"), set(bad()));
    assert_eq!(whom(&events, "bounced"), set(gone()));
    assert_eq!(whom(&events, "complaint"), set(angry()));
    assert_eq!(events.len(), 990 + 10 + 10 + 2, "and no other kind");
    for event in events.iter().filter(|event| event["kind"] != "delivered") {
        let text = |key: &str| event[key].as_str();
        assert_eq!((text("list"), text("campaign")), (Some("news.b.test"), Some("spring")), "{event}");
        let hard = (Some("hard"), Some("5.1.1"));
        let expected = if event["kind"] == "complaint" { (None, None) } else { hard };
        assert_eq!((text("class"), text("enhanced")), expected, "{event}");
        if paths == Paths::Ours {
            assert_eq!(text("sender"), Some("news@b.test"), "{event}");
        }
    }
}

fn assert_suppressed(daemon: &Daemon) {
    let bounced = bad().chain(gone()).map(|address| (address, "hard-bounce".to_owned()));
    let complained = angry().map(|address| (address, "complaint".to_owned()));
    assert_eq!(suppressed(daemon), bounced.chain(complained).collect());
}

fn assert_metrics(daemon: &Daemon) {
    let metrics = daemon.metrics();
    let counts = ["delivered", "failed", "deferred", "bounces", "returns_bounced", "returns_complaints"];
    // Reports and complaints are delivered here.
    let expected = [990 + 10 + 2, 10, 0, 0, 10, 2];
    assert_eq!(counts.map(|name| metrics[name]), expected, "{metrics:?}");
    let counts = ["double_bounces", "suppressed", "returns_automatic", "returns_unknown", "returns_unproven"];
    assert_eq!(counts.map(|name| metrics[name]), [0; 5], "{metrics:?}");
}

fn run(program: &mut Command, script: &str, words: &[&str], subscribers: &Path, issue: &str) {
    program.arg(Path::new(SCRIPTS).join(script)).args(words).arg(subscribers).arg(issue);
    wait::succeed(program, RUN_MAX);
}

#[test]
fn a_newsletter_by_smtplib_with_xverp() {
    if peer("python3").is_none() {
        return;
    }
    newsletter("", Paths::Ours, &|daemon, subscribers, issue| {
        let port = daemon.address.port().to_string();
        let mut python = peer("python3").expect("it was there");
        run(&mut python, "newsletter.py", &["smtp", "127.0.0.1", &port], subscribers, issue);
    });
}

#[test]
fn a_newsletter_by_http() {
    if peer("python3").is_none() {
        return;
    }
    newsletter("[api]\nlisten = [\"127.0.0.1:0\"]\n", Paths::Ours, &|daemon, subscribers, issue| {
        let port = daemon.api[0].port().to_string();
        let mut python = peer("python3").expect("it was there");
        run(&mut python, "newsletter.py", &["http", "127.0.0.1", &port], subscribers, issue);
    });
}

/// Node, where it finds nodemailer.
fn nodemailer() -> Option<Command> {
    let (mut node, mut npm) = (peer("node")?, peer("npm")?);
    let root = wait::succeed(npm.args(["root", "--global"]), wait::PATIENCE).stdout;
    let root = PathBuf::from(String::from_utf8(root).expect("a plain path").trim());
    if !root.join("nodemailer").is_dir() {
        peer::skip("nodemailer is not installed");
        return None;
    }
    node.env("NODE_PATH", root);
    Some(node)
}

#[test]
fn a_newsletter_by_nodemailer_with_return_paths_of_its_own() {
    if nodemailer().is_none() {
        return;
    }
    newsletter("[bounces]\nunsigned = \"check\"\n", Paths::Theirs, &|daemon, subscribers, issue| {
        let port = daemon.address.port().to_string();
        let mut node = nodemailer().expect("it was there");
        run(&mut node, "newsletter.cjs", &["127.0.0.1", &port], subscribers, issue);
    });
}

// ---- Mailman, which reads its bounces itself ----

/// Mailman's, for that member of the list.
fn return_path(member: &str) -> String {
    format!("news-bounces+{}@lists.test", member.replace('@', "="))
}

#[test]
fn a_list_of_mailman() {
    let Some(mut mailman) = Mailman::find() else { return };
    let host = Host::start(&[]);
    let lines = format!(
        "[access]\nrelay_to = [\"lists.test\"]\n\
         [routes]\n\"lists.test\" = {{ relay = \"{}\", protocol = \"lmtp\" }}\n",
        mailman.lmtp
    );
    let daemon = setup(&host).with_lines(&lines).start();
    let bad = || named("bad", 20);
    let readers = || named("reader", 980);
    mailman.start(daemon.address, &bad().chain(readers()).collect::<Vec<_>>());

    let letter = "From: reader0@there.test\r\nTo: news@lists.test\r\nSubject: hello\r\n\
                  Message-ID: <hello@there.test>\r\n\r\nHello all!";
    let reply = stranger(&daemon).send("reader0@there.test", &["news@lists.test"], letter);
    assert!(reply.starts_with("250"), "{reply}");
    // The letter to the list, its copies, and the bounces back to it.
    daemon.wait_for_at_least("delivered", 1 + 980 + 20, RUN_MAX);
    daemon.wait_until_empty(RUN_MAX);
    let letters = by_recipient(host.taken());
    assert_eq!(keys(&letters), set(readers()));
    for (member, (path, header)) in &letters {
        assert_eq!(path, &return_path(member));
        assert!(header.contains("\r\nList-Id: <news.lists.test>\r\n"), "{header}");
    }
    let known = events(&daemon);
    assert_eq!(whom(&known, "failed"), set(bad()));
    let to_list = set(bad().map(|member| return_path(&member)).chain(["news@lists.test".to_owned()]));
    assert_eq!(whom(&known, "delivered"), &set(readers()) | &to_list, "each bounce to its return path");

    let is_scored = || mailman.log("bounce.log").matches("bounce score = 1.").count() == 20;
    wait::until("Mailman to count 20 bounces", RUN_MAX, is_scored);
    let scores: BTreeMap<String, u64> = mailman.scores().into_iter().collect();
    let expected = bad().map(|member| (member, 1)).chain(readers().map(|member| (member, 0)));
    assert_eq!(scores, expected.collect());
    assert_eq!(suppressed(&daemon), BTreeMap::new(), "who stays on a list is for Mailman to say");

    let mut client = stranger(&daemon);
    for member in ["reader1@there.test", "reader2@there.test"] {
        let (path, header) = &letters[member];
        send(&mut client, "news-owner@lists.test", &arf(path, member, header));
    }
    // Mailman passes complaints on to the list's owner.
    daemon.wait_for_at_least("delivered", 1 + 980 + 20 + 2 + 2, RUN_MAX);
    daemon.wait_until_empty(RUN_MAX);
    let told = host.taken().split_off(980);
    for told in &told {
        assert_eq!(told.rcpts, ["TO:<owner@there.test>"]);
    }
    let about = |member: &str| told.iter().filter(|told| told.content.contains(&return_path(member))).count();
    assert_eq!(["reader1@there.test", "reader2@there.test"].map(about), [1, 1]);
    let metrics = daemon.metrics();
    let counts = ["delivered", "failed", "bounces", "double_bounces", "suppressed"];
    assert_eq!(counts.map(|name| metrics[name]), [1 + 980 + 20 + 2 + 2, 20, 20, 0, 0], "{metrics:?}");
}
