//! Routes as tables, flushes of single domains by operator and by ETRN, and Maildirs sent over SMTP (Q47, Q49, Q50).

use std::path::{Path, PathBuf};
use std::process::Output;
use tests::process::wait::{self, PATIENCE};
use tests::process::{Client, Daemon, Setup, Sink, SmtpSink};
use toml::{Table, Value};

// ---- routes ----

fn table(text: &str) -> Value {
    text.parse::<Table>().expect("a table").into()
}

fn check(setup: &Setup) -> Output {
    setup.write_config();
    wait::finish(&mut setup.command(&["check"]), PATIENCE)
}

#[test]
fn relay_may_stand_in_a_table() {
    let sink = Sink::start(&[]);
    let route = table(&format!("relay = \"{}\"", sink.address));
    let daemon = Setup::new().with("routes.*", route).start();
    daemon.client().deliver("ann@here.test", &["bob@there.test"]);
    daemon.wait_until_empty(PATIENCE);
    assert_eq!(sink.end().deliveries().len(), 1);
}

#[test]
fn check_shows_the_files_of_secrets_and_no_secret() {
    let setup = Setup::new();
    let file = setup.folder().join("secret");
    std::fs::write(&file, "hunter2\n").expect("the folder is ours");
    let route = |key: &str, value: &str| {
        table(&format!("relay = \"smtp.example.net:587\"\nuser = \"u\"\n{key} = \"{value}\""))
    };
    let name = file.to_str().expect("a plain name");
    let mut setup =
        setup.with("routes.*", route("password_file", name)).with("routes.x", route("password", "hunter2"));
    let output = check(&setup);
    let shown = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(shown.contains(name) && shown.contains("(hidden)") && !shown.contains("hunter2"), "{shown}");
    setup.set("routes.*", route("token_file", "/no/such/file"));
    let output = check(&setup);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78));
    assert!(said.contains("/no/such/file: routes.\"*\".token_file: No such file"), "{said}");
}

// ---- flushes ----

/// Two domains' recipients, all deferred for an hour, on two cores.
fn deferring(keys: &[(&str, Value)]) -> (Sink, Daemon) {
    let sink = Sink::start(&["--fault", "rcpt=450:1"]);
    let mut setup = Setup::new().relay(sink.address).on_cpus(&[0, 1]).with("retry.quadratic_secs", 3600);
    for (key, value) in keys {
        setup.set(key, value.clone());
    }
    let daemon = setup.start();
    for _ in 0..4 {
        daemon.client().deliver("ann@here.test", &["bob@a.test", "bob@x.a.test", "bob@b.test"]);
    }
    wait::until("12 deferred", PATIENCE, || attempts(&daemon, "") == 12);
    (sink, daemon)
}

/// Records of the delivery log about recipients whose address ends so.
fn attempts(daemon: &Daemon, end: &str) -> usize {
    let log = std::fs::read_to_string(daemon.setup.delivery_log()).unwrap_or_default();
    log.lines().filter(|line| line.contains("\"rcpt\":\"bob@") && line.contains(&format!("{end}\","))).count()
}

#[test]
fn flush_of_a_domain_tries_that_domain_alone() {
    let (_sink, daemon) = deferring(&[]);
    let mut flush = daemon.setup.command(&["queue", "flush", "a.test", "--json"]);
    let report: serde_json::Value =
        serde_json::from_slice(&wait::succeed(&mut flush, PATIENCE).stdout).expect("JSON");
    assert_eq!(report["recipients"], 4, "{report}");
    wait::until("the second attempts", PATIENCE, || attempts(&daemon, "@a.test") == 8);
    wait::succeed(&mut daemon.setup.command(&["queue", "flush", "*.a.test"]), PATIENCE);
    wait::until("the second attempts below", PATIENCE, || attempts(&daemon, "x.a.test") == 8);
    assert_eq!((attempts(&daemon, "@a.test"), attempts(&daemon, "@b.test")), (8, 4));
    let wrong = wait::finish(&mut daemon.setup.command(&["queue", "flush", "a b"]), PATIENCE);
    assert!(!wrong.status.success());
}

#[test]
fn etrn_tries_a_domain_on_all_cores() {
    let (_sink, daemon) = deferring(&[]);
    let mut client = Client::connect(daemon.address);
    client.expect("220");
    assert!(client.say("EHLO client.process.test").contains("ETRN"));
    client.say_expecting("ETRN A.test", "250");
    wait::until("the second attempts", PATIENCE, || attempts(&daemon, "@a.test") == 8);
    assert_eq!(attempts(&daemon, "x.a.test"), 4);
    client.say_expecting("ETRN @a.test", "250");
    wait::until("attempts below", PATIENCE, || attempts(&daemon, "x.a.test") == 8);
    wait::until("attempts at the domain", PATIENCE, || attempts(&daemon, "@a.test") == 12);
    assert_eq!(attempts(&daemon, "@b.test"), 4);
}

#[test]
fn etrn_is_for_the_networks_that_are_named() {
    let daemon = Setup::new().with("intake.etrn_from", vec!["192.0.2.0/24"]).start();
    let mut client = Client::connect(daemon.address);
    client.expect("220");
    assert!(!client.say("EHLO client.process.test").contains("ETRN"));
    client.say_expecting("ETRN a.test", "459");
}

// ---- Maildirs ----

/// A Maildir in the setup's folder, with these messages in new/.
fn maildir(setup: &Setup, messages: &[(&str, &str)]) -> PathBuf {
    let folder = setup.folder().join("Maildir");
    for part in ["tmp", "new", "cur"] {
        std::fs::create_dir_all(folder.join(part)).expect("the folder is ours");
    }
    for (name, text) in messages {
        std::fs::write(folder.join("new").join(name), text).expect("the folder is ours");
    }
    folder
}

fn letter(to: &str) -> String {
    format!(
        "Return-Path: <ann@here.test>\nDelivered-To: ppp-{to}\nSubject: x\nX-Loadgen: 1-1\n\nHello\n.dot\n"
    )
}

fn send(setup: &Setup, folder: &Path, host: &str) -> (i32, String, String) {
    setup.write_config();
    let folder = folder.to_str().expect("a plain name");
    let output = wait::finish(&mut setup.command(&["maildirsmtp", folder, "ppp-", host]), PATIENCE);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

fn left(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("new")).expect("the folder is there");
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
    let mut names: Vec<String> = entries.filter_map(name).collect();
    names.sort();
    names
}

#[test]
fn maildir_goes_to_the_host_and_what_cannot_stays() {
    let (sink, setup) = (Sink::start(&[]), Setup::new());
    let (first, second) = (letter("bob@a.test"), letter("eve@b.test"));
    let other = second.replace("ppp-", "qqq-");
    let folder = maildir(&setup, &[("1", &first), ("2", &second), ("3", &other), (".hidden", &first)]);
    let (code, said, complaints) = send(&setup, &folder, &sink.address.to_string());
    assert_eq!((code, said.as_str()), (75, "2 messages sent, 1 kept\n"), "{complaints}");
    assert!(
        complaints.contains("/new/3: kept: its Delivered-To does not begin with the prefix"),
        "{complaints}"
    );
    assert_eq!(left(&folder), [".hidden", "3"]);
    let ended = sink.end();
    assert_eq!(ended.forward_paths().into_iter().collect::<Vec<_>>(), ["bob@a.test", "eve@b.test"]);
    assert_eq!(ended.counters.connections, 1);
}

#[test]
fn refused_and_deferred_messages_stay_in_the_maildir() {
    for (fault, why) in [("rcpt=550:1", "refused for good: 550"), ("rcpt=450:1", "deferred: 450")] {
        let (sink, setup) = (Sink::start(&["--fault", fault]), Setup::new());
        let folder = maildir(&setup, &[("1", &letter("bob@a.test")), ("2", &letter("eve@a.test"))]);
        let (code, said, complaints) = send(&setup, &folder, &sink.address.to_string());
        assert_eq!((code, said.as_str()), (75, "0 messages sent, 2 kept\n"), "{complaints}");
        assert!(complaints.contains(why), "{complaints}");
        assert_eq!(left(&folder), ["1", "2"]);
    }
}

#[test]
fn maildir_of_nobodys_host_is_kept_and_wrong_words_are_named() {
    let setup = Setup::new();
    let folder = maildir(&setup, &[("1", &letter("bob@a.test"))]);
    let (code, said, complaints) = send(&setup, &folder, "127.0.0.1:1");
    assert_eq!((code, said.as_str()), (75, "0 messages sent, 1 kept\n"));
    assert!(complaints.contains("refused"), "{complaints}");
    assert_eq!(send(&setup, &folder, "a b").0, 78);
    assert_eq!(send(&setup, setup.folder(), "127.0.0.1:1").0, 78);
    assert_eq!(left(&folder), ["1"]);
}

#[test]
fn maildir_reaches_smtp_sink_as_it_was() {
    let Some(sink) = SmtpSink::start(true) else { return };
    let setup = Setup::new();
    let folder = maildir(&setup, &[("1", &letter("bob@a.test")), ("2", &letter("bob@a.test"))]);
    let (code, _, complaints) = send(&setup, &folder, &sink.address.to_string());
    assert_eq!(code, 0, "{complaints}");
    assert!(left(&folder).is_empty());
    let kept = String::from_utf8(sink.kept(2)).expect("it was ASCII");
    assert_eq!(kept.matches("Subject: x\nX-Loadgen: 1-1\n\nHello\n.dot\n").count(), 2, "{kept}");
    assert!(!kept.contains("Delivered-To") && kept.contains("bob@a.test"), "{kept}");
}

#[test]
fn empty_maildir_needs_no_host() {
    let setup = Setup::new();
    let folder = maildir(&setup, &[]);
    assert_eq!(send(&setup, &folder, "127.0.0.1:1").0, 0);
}

#[test]
fn maildir_is_sent_as_tls_is_configured() {
    let setup = Setup::new().with("tls.mode", "encrypt");
    let folder = maildir(&setup, &[("1", &letter("bob@a.test"))]);
    let plain = Sink::start(&[]);
    let (code, said, complaints) = send(&setup, &folder, &plain.address.to_string());
    assert_eq!((code, said.as_str()), (75, "0 messages sent, 1 kept\n"), "{complaints}");
    let sealing = Sink::start(&["--tls", "require"]);
    let (code, said, complaints) = send(&setup, &folder, &sealing.address.to_string());
    assert_eq!((code, said.as_str()), (0, "1 messages sent, 0 kept\n"), "{complaints}");
    assert_eq!((plain.end().deliveries().len(), sealing.end().deliveries().len()), (0, 1));
}
