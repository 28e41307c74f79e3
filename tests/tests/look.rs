//! What an operator can see of a running daemon: `explain`, `sites`, `trace` (B17, B31, Q46).

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use tests::process::peer::{is_root, skip};
use tests::process::wait::{self, PATIENCE};
use tests::process::{Daemon, NameServer, Setup, Sink, vacant};

const RUN_MAX: Duration = Duration::from_secs(60);

/// Runs `ringpost WORDS…`.
fn run(setup: &Setup, words: &[&str]) -> Output {
    wait::finish(&mut setup.command(words), PATIENCE)
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

fn rows<'a>(view: &'a Value, name: &str) -> &'a [Value] {
    view[name].as_array().unwrap_or_else(|| panic!("no {name} in {view}"))
}

/// A daemon that asks a name server with these records, and connects to `port`.
fn by_mx(records: &[&str], port: u16) -> Option<(NameServer, Daemon)> {
    let records: Vec<String> = records.iter().map(|record| format!("--{record}")).collect();
    let server = NameServer::start(&records)?;
    let setup = Setup::new().with("delivery.name_servers", vec![server.address.to_string()]);
    Some((server, setup.with("delivery.port", i64::from(port)).start()))
}

// ---- explain ----

#[test]
fn domain_that_is_served_is_explained_by_its_mx() {
    let sink = Sink::start(&["--fault", "rcpt=450:1"]);
    let records = [
        "mx-host=a.test,mx1.a.test,10",
        "mx-host=a.test,mx2.a.test,20",
        "host-record=mx1.a.test,127.0.0.1",
        "host-record=mx2.a.test,127.0.0.1",
    ];
    let Some((_server, daemon)) = by_mx(&records, sink.address.port()) else { return };
    daemon.client().deliver("ann@one.test", &["bob@a.test", "eve@a.test"]);
    daemon.wait_for_at_least("deferred", 2, RUN_MAX);
    let found = ask(&daemon.setup, &["explain", "A.test"]);
    assert_eq!((&found["domain"], &found["owed"]), (&"a.test".into(), &2.into()), "{found}");
    assert_eq!(found["route"]["by"], "mx");
    let expected = serde_json::json!([[10, "mx1.a.test"], [20, "mx2.a.test"]]);
    assert_eq!(found["resolved"]["exchanges"], expected, "{found}");
    let hosts: Vec<_> = rows(&found["resolved"], "hosts").iter().map(|host| &host["name"]).collect();
    assert_eq!(hosts, ["mx1.a.test", "mx2.a.test"]);
    assert_eq!(found["resolved"]["hosts"][0]["allows_plain"], true);
    assert_eq!((&found["resolved"]["basis"]["kind"], &found["messages"]), (&"none".into(), &1.into()));
    assert_eq!(found["sites"][0]["site"], "mx1.a.test,mx2.a.test", "{found}");
    assert_eq!(found["limits"]["connections_max"], 20);
    let said = text(&run(&daemon.setup, &["explain", "a.test"]));
    assert!(said.starts_with("a.test: 2 recipients owed, of 1 message: "), "{said}");
    assert!(said.contains("      10  mx1.a.test\n") && said.contains("450"), "{said}");
}

#[test]
fn domain_that_nobody_mailed_is_explained_too_and_a_null_mx_is_said() {
    let records = ["dns-rr=null.test,15,000000", "host-record=plain.test,127.0.0.1"];
    let Some((_server, daemon)) = by_mx(&records, vacant().port()) else { return };
    let found = ask(&daemon.setup, &["explain", "null.test"]);
    let refusal = found["resolved"]["refusal"].as_str().expect("a refusal");
    assert!(refusal.starts_with("556 5.1.10 "), "{refusal}");
    assert_eq!(found["resolved"]["exchanges"], serde_json::json!([[0, ""]]));
    let said = text(&run(&daemon.setup, &["explain", "null.test"]));
    assert!(said.contains("null.test: nothing is owed there.") && said.contains("null MX"), "{said}");
    let said = text(&run(&daemon.setup, &["explain", "plain.test"]));
    assert!(said.contains("Mail goes to the domain itself") && said.contains("127.0.0.1"), "{said}");
    let said = text(&run(&daemon.setup, &["explain", "nowhere.test"]));
    assert!(said.contains("Nothing can go there: 550 5.1.2 nowhere.test does not exist"), "{said}");
}

#[test]
fn dead_host_is_shown_with_why_and_for_how_long_and_can_be_forgotten() {
    let address = vacant();
    let daemon = Setup::new().relay(address).with("delivery.backoff_secs", 3600).start();
    let setup = &daemon.setup;
    assert_eq!(text(&run(setup, &["sites", "hosts"])), "no host rests\n");
    daemon.client().deliver("ann@one.test", &["bob@a.test"]);
    daemon.wait_until("connect_failures", RUN_MAX, |count| count >= 3);

    let found = ask(setup, &["explain", "a.test"]);
    assert_eq!(found["route"], serde_json::json!({ "by": "relay", "to": address.to_string() }));
    let trouble = &found["resolved"]["hosts"][0]["trouble"];
    assert!(trouble["why"].as_str().is_some_and(|why| why.contains("refused")), "{found}");
    let site = &found["sites"][0];
    assert_eq!((&site["state"], &site["failures"], &site["ready"]), (&"waits".into(), &3.into(), &1.into()));
    let left_ms = site["until_ms"].as_u64().expect("a time") - found["at_ms"].as_u64().expect("a time");
    assert!((3_000_000..=3_600_000).contains(&left_ms), "{found}");
    let said = text(&run(setup, &["explain", "a.test"]));
    assert!(
        said.contains(&format!("Site {address} from default: waits ")) && said.contains("refused"),
        "{said}"
    );

    let row = &rows(&ask(setup, &["sites"]), "sites")[0].clone();
    assert_eq!((&row["state"], &row["connections"]), (&"waits".into(), &0.into()), "{row}");
    assert_eq!(rows(&ask(setup, &["sites", "127.*"]), "sites").len(), 1);
    assert_eq!(rows(&ask(setup, &["sites", "mx.*"]), "sites").len(), 0);
    let hosts = ask(setup, &["sites", "hosts"]);
    assert_eq!(rows(&hosts, "hosts")[0]["address"], address.to_string(), "{hosts}");
    assert_eq!(rows(&hosts, "hosts")[0]["failures"], 3, "{hosts}");
    assert!(text(&run(setup, &["sites", "hosts"])).contains("resting"));

    assert_eq!(ask(setup, &["sites", "forget", "192.0.2.1"])["forgotten"], 0);
    assert_eq!(ask(setup, &["sites", "forget", &address.to_string()])["forgotten"], 1);
    assert_eq!(text(&run(setup, &["sites", "hosts"])), "no host rests\n");
    assert_eq!(complaint(setup, &["sites", "forget"]).0, 64);
    assert_eq!(complaint(setup, &["sites", "forget", "mx.test"]).0, 64);
}

#[test]
fn host_that_refuses_at_its_greeting_rests_for_the_core_that_heard_it() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let refusing = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("it connects");
        stream.write_all(b"421 4.7.0 not you\r\n").expect("it reads");
        listener
    });
    let daemon = Setup::new().relay(address).start();
    daemon.client().deliver("ann@one.test", &["bob@a.test"]);
    let listener = refusing.join().expect("it said so");
    let setup = &daemon.setup;
    let hosts = wait::until_some("a host that rests", PATIENCE, || {
        let hosts = ask(setup, &["sites", "hosts"]);
        Some(hosts).filter(|hosts| !rows(hosts, "hosts").is_empty())
    });
    let row = &rows(&hosts, "hosts")[0];
    assert_eq!((&row["address"], &row["core"]), (&address.to_string().into(), &0.into()), "{hosts}");
    assert!(row["why"].as_str().is_some_and(|why| why.contains("421 4.7.0 not you")), "{hosts}");
    assert_eq!(ask(setup, &["sites", "forget", "--all"])["forgotten"], 1);
    drop(listener);
}

#[test]
fn reload_shows_in_the_limits() {
    let sink = Sink::start(&["--fault", "rcpt=450:1"]);
    let mut daemon = Setup::new().relay(sink.address).with("retry.quadratic_secs", 3600).start();
    daemon.client().deliver("ann@one.test", &["bob@a.test"]);
    daemon.wait_for("deferred_recipients", 1, RUN_MAX);
    daemon.setup.set("delivery.connections_max", 7);
    daemon.setup.write_config();
    daemon.signal(Signal::HUP);
    daemon.wait_until_said("configuration reloaded");
    wait::until("the new limit", PATIENCE, || {
        let found = ask(&daemon.setup, &["explain", "a.test"]);
        found["limits"]["connections_max"] == 7 && found["sites"][0]["limit"] == 7
    });
    daemon.setup.set("delivery.connections_max", 0);
    daemon.setup.write_config();
    daemon.signal(Signal::HUP);
    wait::until("the hold", PATIENCE, || ask(&daemon.setup, &["sites"])["sites"][0]["state"] == "held");
    assert!(text(&run(&daemon.setup, &["explain", "a.test"])).contains(": held\n"));
}

// ---- trace ----

/// `ringpost trace` as a child that ends with its value.
struct Trace {
    child: Child,
    lines: Receiver<String>,
}

impl Trace {
    /// Returns when the daemon says that it tells.
    fn start(setup: &Setup, words: &[&str]) -> Trace {
        let mut command = setup.command(&[&["trace"], words].concat());
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.expect("it was built");
        let mut said = String::new();
        let stderr = child.stderr.take().expect("it was piped");
        BufReader::new(stderr).read_line(&mut said).expect("it says something");
        let lines = lines_of(child.stdout.take().expect("it was piped"));
        let trace = Trace { child, lines };
        assert!(said.starts_with("ringpost: watching "), "{said}");
        trace
    }

    /// Lines up to the first with these words.
    fn until(&self, words: &str) -> Vec<String> {
        let mut seen = Vec::new();
        while !seen.last().is_some_and(|line: &String| line.contains(words)) {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => seen.push(line),
                Err(error) => panic!("no line with {words:?}: {error}; {seen:#?}"),
            }
        }
        seen
    }

    /// Ctrl-C.
    fn interrupt(mut self) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).expect("a child's pid is above 0");
        kill_process(pid, Signal::INT).expect("our child can be signalled");
        wait::ends_within(&mut self.child, PATIENCE).expect("it ends");
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_of(stdout: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

#[test]
fn trace_shows_a_domains_connections_and_verdicts_and_ends_with_its_reader() {
    let sink = Sink::start(&[]);
    let other = Sink::start(&[]);
    let setup = Setup::new().relay(sink.address).with("routes.other.test", other.address.to_string());
    let daemon = setup.with("delivery.idle_secs", 1).start();
    // Watched before there is any mail for it.
    let trace = Trace::start(&daemon.setup, &["a.test"]);
    let parsed = Trace::start(&daemon.setup, &["a.test", "--json"]);
    daemon.client().deliver("ann@one.test", &["bob@other.test"]);
    daemon.wait_for("delivered", 1, RUN_MAX);
    daemon.client().deliver("ann@one.test", &["bob@a.test"]);
    let seen = trace.until("-- closed");
    let host = format!("  {}  -- ", sink.address);
    assert!(seen.iter().all(|line| line.contains(&sink.address.to_string())), "{seen:#?}");
    for words in ["connecting", "connected", "bob@a.test delivered: 250"] {
        assert!(seen.iter().any(|line| line.contains(&format!("{host}{words}"))), "{words} in {seen:#?}");
    }
    let dialogue = [
        "  <- 220 ",
        "  -> EHLO ",
        "  -> MAIL FROM:<ann@one.test>",
        "  -> RCPT TO:<bob@a.test>",
        "  -> QUIT",
    ];
    for words in dialogue {
        assert!(seen.iter().any(|line| line.contains(words)), "{words} in {seen:#?}");
    }
    assert!(!seen.iter().any(|line| line.contains("Hello")), "a content is nobody's business: {seen:#?}");
    let first: Value = serde_json::from_str(&parsed.until("connecting")[0]).expect("an object a line");
    assert_eq!((&first["core"], &first["direction"]), (&0.into(), &"note".into()), "{first}");
    trace.interrupt();
    daemon.client().deliver("ann@one.test", &["eve@a.test"]);
    parsed.until("eve@a.test delivered");
    daemon.assert_healthy();
}

#[test]
fn so_many_may_watch_and_one_who_goes_away_makes_room() {
    let daemon = Setup::new().start();
    let mut traces: Vec<_> = (0..4).map(|_| Trace::start(&daemon.setup, &["a.test"])).collect();
    let (code, said) = complaint(&daemon.setup, &["trace", "a.test"]);
    assert!(code == 75 && said.contains("4 dialogues are watched already"), "{code} {said}");
    traces.pop().expect("there are four").interrupt();
    let socket = daemon.setup.queue().join("control.sock");
    wait::until("room for one who watches", PATIENCE, || {
        let mut stream = BufReader::new(UnixStream::connect(&socket).expect("it listens"));
        stream.get_mut().write_all(b"{\"look\":\"trace\",\"domain\":\"a.test\"}\n").expect("it reads");
        let mut answer = String::new();
        stream.read_line(&mut answer).expect("it answers");
        answer.contains("tracing")
    });
    daemon.assert_healthy();
}

// ---- who may look, and at what ----

#[test]
fn what_is_wrong_is_said_with_its_exit_code() {
    let daemon = Setup::new().start();
    for command in ["explain", "trace"] {
        let (code, said) = complaint(&daemon.setup, &[command, "bob@a.test"]);
        assert!(code == 64 && said.contains("is no domain"), "{command}: {code} {said}");
    }
    let socket = daemon.setup.queue().join("control.sock");
    let mut stream = BufReader::new(UnixStream::connect(&socket).expect("it listens"));
    for line in ["{\"look\":\"away\"}\n", "{\"look\":\"explain\",\"domain\":\"a b\"}\n"] {
        stream.get_mut().write_all(line.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_line(&mut answer).expect("it answers");
        assert!(answer.starts_with("{\"error\":\""), "{answer}");
    }
    let stopped = daemon.terminate();
    for words in [&["explain", "a.test"][..], &["sites"], &["sites", "hosts"], &["trace", "a.test"]] {
        let (code, said) = complaint(&stopped.setup, words);
        assert!(code == 75 && said.contains("the daemon is not running"), "{words:?}: {code} {said}");
    }
}

#[test]
fn stranger_sees_nothing() {
    if !is_root() {
        return skip("only root can be somebody else");
    }
    let setup = Setup::new();
    let socket = setup.folder().join("control.sock");
    let setup =
        setup.with("control", socket.to_str().expect("a plain name")).with("control_uids", vec![12_346_i64]);
    let daemon = setup.start();
    // The way to the socket and to the configuration is open.
    std::fs::set_permissions(daemon.setup.folder(), std::fs::Permissions::from_mode(0o755)).expect("ours");
    let program = daemon.setup.folder().join("ringpost");
    tests::process::programs::place_ringpost(&program);
    let look_as = |uid: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", uid, "--regid", uid, "--clear-groups", "--"]).arg(&program);
        command.args(["sites", "--json", "--config"]).arg(daemon.setup.config_file());
        wait::finish(&mut command, PATIENCE)
    };
    let refused = look_as("12345");
    assert_eq!(refused.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("user 12345 may not give orders"));
    assert!(text(&look_as("12346")).contains("\"sites\":[]"));
}
