//! Injection over HTTP (B02), through the real daemon, by the clients that people have: durable before it is said, every
//! error names its record, and nothing that a client does wrong holds others up.

use flate2::Compression;
use flate2::write::GzEncoder;
use rcgen::{CertificateParams, KeyPair};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use tests::process::http::{self, Answer};
use tests::process::setup::{Refusal, temporary_folder};
use tests::process::wait::{self, PATIENCE};
use tests::process::{Daemon, Setup, Sink, peer, programs, vacant};

const JSON: (&str, &str) = ("Content-Type", "application/json");

const API: &str = "[api]\nlisten = [\"127.0.0.1:0\"]";

/// Nobody listens there: what is injected stays in the queue, to be looked at.
const NOWHERE: &str = "127.0.0.1:1";

fn nowhere(lines: &str) -> Daemon {
    let relay = NOWHERE.parse().expect("an address");
    Setup::new().relay(relay).with_lines(API).with_lines(lines).start()
}

fn post(address: SocketAddr, fields: &[(&str, &str)], body: &[u8]) -> Answer {
    http::send(address, "POST /api/inject/v1", fields, body).expect("the API answers")
}

fn inject(daemon: &Daemon, request: &Value) -> Answer {
    post(daemon.api[0], &[JSON], request.to_string().as_bytes())
}

/// Such a request as KumoMTA's documentation begins with.
fn letter(recipients: &[&str]) -> Value {
    let recipients: Vec<Value> = recipients.iter().map(|email| json!({ "email": email })).collect();
    json!({
        "envelope_sender": "noreply@here.test",
        "content": "From: noreply@here.test\nSubject: hello\n\nHello there\n",
        "recipients": recipients,
    })
}

fn letter_with(more: Value) -> Value {
    let mut letter = letter(&["ann@there.test"]);
    let (Value::Object(members), Value::Object(more)) = (&mut letter, more) else { panic!("two objects") };
    members.extend(more);
    letter
}

/// The one message in the queue: what the list says of it, and its content.
fn queued(daemon: &Daemon) -> (Value, String) {
    let list = daemon.setup.queue_list();
    assert_eq!(list.len(), 1, "{list:#?}");
    let id = list[0]["id"].as_str().expect("an id");
    let content = wait::succeed(&mut daemon.setup.command(&["queue", "cat", id]), PATIENCE).stdout;
    (list[0].clone(), String::from_utf8(content).expect("these tests write UTF-8"))
}

fn field<'a>(content: &'a str, name: &str) -> Option<&'a str> {
    let (header, _) = content.split_once("\r\n\r\n").expect("a header ends");
    header.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

// ---- what is taken ----

#[test]
fn a_message_is_delivered_to_everybody_and_counted() {
    let sink = Sink::start(&[]);
    let daemon = Setup::new().relay(sink.address).with_lines(API).start();
    let answer = inject(&daemon, &letter(&["ann@there.test", "bob@there.test", "cy@elsewhere.test"]));
    assert_eq!((answer.status, answer.field("content-type")), (200, Some("application/json")), "{answer:?}");
    let reply = answer.json();
    assert_eq!((&reply["success_count"], &reply["fail_count"]), (&json!(3), &json!(0)));
    assert_eq!((&reply["failed_recipients"], &reply["errors"]), (&json!([]), &json!([])));
    sink.wait_for_recipients(3, PATIENCE);
    daemon.wait_until_empty(PATIENCE);
    assert_eq!((daemon.metric("accepted_messages"), daemon.metric("accepted_recipients")), (1, 3));
    let line = daemon.last_word_on("ann@there.test");
    assert_eq!(line["msg"], reply["message"], "the answer names the message as the log does");
    let senders = sink.end().deliveries();
    assert!(senders.iter().all(|delivery| delivery.reverse_path == "noreply@here.test"), "{senders:?}");
}

#[test]
fn a_message_lies_in_the_queue_as_it_was_sent_with_what_it_lacked() {
    let daemon = nowhere("");
    assert_eq!(inject(&daemon, &letter(&["ann@there.test"])).status, 200);
    let (row, content) = queued(&daemon);
    assert_eq!(row["sender"], "noreply@here.test");
    assert_eq!(field(&content, "Subject"), Some("hello"));
    assert!(content.ends_with("\r\n\r\nHello there\r\n"), "{content:?}");
    assert!(field(&content, "Date").is_some() && field(&content, "Message-ID").is_some(), "{content:?}");
    assert_eq!(field(&content, "Received"), None, "no trace field unless the client wants it");
}

#[test]
fn our_own_words_set_lane_campaign_and_verp() {
    let sink = Sink::start(&[]);
    let daemon = Setup::new().relay(sink.address).with_lines(API).start();
    let words = json!({
        "campaign": "spring", "lane": "urgent", "verp": "-=",
        "trace_headers": { "received_header": true },
    });
    assert_eq!(inject(&daemon, &letter_with(words)).status, 200);
    sink.wait_for_recipients(1, PATIENCE);
    assert_eq!(daemon.last_word_on("ann@there.test")["lane"], "urgent");
    let deliveries = sink.end().deliveries();
    assert_eq!(deliveries[0].reverse_path, "noreply-ann=there.test@here.test");
}

#[test]
fn the_trace_field_names_client_and_protocol_and_the_campaign_stands_in_the_header() {
    let daemon = nowhere("");
    let words = json!({ "campaign": "spring", "trace_headers": { "received_header": true } });
    assert_eq!(inject(&daemon, &letter_with(words)).status, 200);
    let (_, content) = queued(&daemon);
    let trace = field(&content, "Received").expect("a trace field");
    assert_eq!(trace, "from [127.0.0.1] ([127.0.0.1])");
    assert!(content.contains("\tby relay.process.test with HTTP; "), "{content}");
    assert_eq!(field(&content, "X-Campaign-ID"), Some("spring"));
    let mut list = daemon.setup.command(&["queue", "list", "--json", "--where", "campaign=spring"]);
    assert_eq!(wait::succeed(&mut list, PATIENCE).stdout.iter().filter(|octet| **octet == b'\n').count(), 1);
}

#[test]
fn braces_are_braces_in_a_static_letter() {
    let daemon = nowhere("");
    let content = "From: a@here.test\nSubject: {{ name }}\n\n{% if %}\n";
    let answer = inject(&daemon, &letter_with(json!({ "content": content, "template_dialect": "Static" })));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(field(&queued(&daemon).1, "Subject"), Some("{{ name }}"));
}

#[test]
fn gzip_is_unpacked() {
    let daemon = nowhere("");
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(letter(&["ann@there.test"]).to_string().as_bytes()).expect("memory");
    let packed = packed.finish().expect("memory");
    assert_eq!(post(daemon.api[0], &[JSON, ("Content-Encoding", "gzip")], &packed).status, 200);
    let cut_off = post(daemon.api[0], &[JSON, ("Content-Encoding", "gzip")], &packed[..packed.len() - 9]);
    assert_eq!(cut_off.status, 400, "{cut_off:?}");
    assert_eq!(post(daemon.api[0], &[JSON, ("Content-Encoding", "br")], &packed).status, 415);
    assert_eq!(daemon.metric("accepted_messages"), 1);
}

// ---- clients that people have ----

/// `curl` for the daemon's injection.
fn curl(url: &str, options: &[&str], body: &str) -> Option<(u16, Value)> {
    let mut curl = peer("curl")?;
    let folder = temporary_folder();
    let file = folder.path().join("request.json");
    std::fs::write(&file, body).expect("ours");
    curl.args([
        "--silent",
        "--show-error",
        "--write-out",
        "\n%{http_code}",
        "--header",
        "Content-Type: application/json",
    ]);
    curl.args(options).arg("--data-binary").arg(format!("@{}", file.display())).arg(url);
    let output = String::from_utf8(wait::succeed(&mut curl, PATIENCE).stdout).expect("JSON is UTF-8");
    let (reply, status) = output.rsplit_once('\n').expect("a status");
    Some((status.parse().expect("a number"), serde_json::from_str(reply).expect("JSON")))
}

#[test]
fn curl_injects() {
    let daemon = nowhere("");
    let url = format!("http://{}/api/inject/v1", daemon.api[0]);
    let Some((status, reply)) = curl(&url, &[], &letter(&["ann@there.test"]).to_string()) else { return };
    assert_eq!((status, &reply["success_count"]), (200, &json!(1)), "{reply}");
    // Past a megabyte it asks first whether it may send (Expect: 100-continue).
    let long = letter_with(json!({ "content": format!("From: a@here.test\n\n{}\n", "x".repeat(2 << 20)) }));
    let (status, reply) = curl(&url, &[], &long.to_string()).expect("it is here");
    assert_eq!((status, &reply["success_count"]), (200, &json!(1)), "{reply}");
    assert_eq!(daemon.metric("accepted_messages"), 2);
}

const URLLIB: &str = r#"
import json, sys, urllib.request
url = sys.argv[1]
for number in range(3):
    request = {"envelope_sender": "a@here.test", "content": "Subject: Grüße\n\nhi\n",
               "recipients": [{"email": f"u{number}@there.test", "name": "Ü"}]}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(request).encode(), headers)
    reply = json.load(urllib.request.urlopen(request))
    assert reply["success_count"] == 1, reply
"#;

#[test]
fn pythons_urllib_injects() {
    let Some(mut python) = peer("python3") else { return };
    let daemon = nowhere("");
    let url = format!("http://{}/api/inject/v1", daemon.api[0]);
    wait::succeed(python.args(["-c", URLLIB, &url]), PATIENCE);
    assert_eq!(daemon.metric("accepted_messages"), 3);
}

// ---- durable ----

#[test]
fn kill_9_right_after_the_answer_loses_nobody() {
    let sink = Sink::start(&[]);
    let mut daemon = Setup::new().relay(NOWHERE.parse().expect("an address")).with_lines(API).start();
    let mut promised = BTreeSet::new();
    for round in 0..5 {
        let names: Vec<String> = (0..20).map(|name| format!("r{round}-{name}@there.test")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(inject(&daemon, &letter(&names)).status, 200);
        daemon = daemon.kill().restart();
        promised.extend(names.into_iter().map(str::to_owned));
    }
    let mut stopped = daemon.kill();
    stopped.setup.set("routes.*", sink.address.to_string());
    let daemon = stopped.restart();
    daemon.wait_until_empty(PATIENCE);
    let served = sink.end().forward_paths();
    assert_eq!(served, promised);
}

#[test]
fn kill_9_under_load_loses_nobody_who_was_promised() {
    let mut daemon = Setup::new().relay(NOWHERE.parse().expect("an address")).with_lines(API).start();
    let address = daemon.api[0];
    let clients: Vec<_> =
        (0..8).map(|client| std::thread::spawn(move || inject_until_it_ends(address, client))).collect();
    daemon.wait_for_at_least("accepted_messages", 500, PATIENCE);
    // Of these each client may still wait for an answer.
    let answered_min = 500 - clients.len();
    let mut stopped = daemon.kill();
    let promised: BTreeSet<String> =
        clients.into_iter().flat_map(|client| client.join().expect("no panic")).collect();
    assert!(promised.len() >= answered_min, "{}", promised.len());
    let sink = Sink::start(&[]);
    stopped.setup.set("routes.*", sink.address.to_string());
    daemon = stopped.restart();
    daemon.wait_until_empty(PATIENCE);
    let served = sink.end().forward_paths();
    assert!(promised.is_subset(&served), "{:?}", promised.difference(&served).collect::<Vec<_>>());
}

/// Recipients whose injection was answered with 200 before the daemon went.
fn inject_until_it_ends(address: SocketAddr, client: usize) -> Vec<String> {
    let mut promised = Vec::new();
    loop {
        let name = format!("c{client}-{}@there.test", promised.len());
        let body = letter(&[&name]).to_string();
        match http::send(address, "POST /api/inject/v1", &[JSON], body.as_bytes()) {
            Ok(answer) if answer.status == 200 => promised.push(name),
            Ok(answer) => panic!("{answer:?}"),
            Err(_) => return promised,
        }
    }
}

#[test]
fn sigterm_answers_what_is_under_way_and_is_quick_with_idle_connections() {
    let daemon = nowhere("");
    let body = letter(&["ann@there.test"]).to_string();
    let mut idle = TcpStream::connect(daemon.api[0]).expect("somebody listens");
    let mut half = TcpStream::connect(daemon.api[0]).expect("somebody listens");
    write!(half, "POST /api/inject/v1 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n")
        .expect("sent");
    write!(half, "Expect: 100-continue\r\nContent-Length: {}\r\n\r\n", body.len()).expect("sent");
    let mut go_on = [0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
    half.read_exact(&mut go_on).expect("the request is open");
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    half.write_all(&body.as_bytes()[..20]).expect("sent");
    daemon.signal(Signal::TERM);
    daemon.wait_until_said("stopping: no new mail");
    half.write_all(&body.as_bytes()[20..]).expect("sent");
    let answer = http::read(&mut half).expect("an answer");
    assert!([200, 503].contains(&answer.status), "{answer:?}");
    assert_eq!(idle.read(&mut [0; 1]).expect("an end"), 0);
    let stopped = daemon.terminate();
    let expected = usize::from(answer.status == 200);
    assert_eq!(stopped.setup.queue_list().len(), expected);
}

// ---- what is wrong is named ----

#[test]
fn an_address_that_is_none_is_its_recipients_failure_alone() {
    let daemon = nowhere("");
    let reply = inject(&daemon, &letter(&["ann@there.test", "bob", "cy@there.test", "d@@there.test"])).json();
    assert_eq!((&reply["success_count"], &reply["fail_count"]), (&json!(2), &json!(2)));
    assert_eq!(reply["failed_recipients"], json!(["bob", "d@@there.test"]));
    assert_eq!(reply["errors"][0], "recipients[1].email: \"bob\" is no mail address: the address has no @");
    assert!(reply["errors"][1].as_str().expect("text").starts_with("recipients[3].email: \"d@@there.test\""));
    assert_eq!(daemon.metric("accepted_recipients"), 2);
    let reply = inject(&daemon, &letter(&["bob"])).json();
    assert_eq!((&reply["success_count"], &reply["message"]), (&json!(0), &Value::Null));
    assert_eq!(daemon.metric("accepted_messages"), 1);
}

#[test]
fn an_error_names_its_record_and_nothing_is_kept() {
    let daemon = nowhere("[intake]\nmessage_size_max = 100000\nrecipients_max = 100\n");
    let many: Vec<String> = (0..101).map(|name| format!("u{name}@there.test")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let cases = [
        (
            letter_with(json!({ "recipients": [{ "email": "a@a.test" }, { "email": 5 }] })),
            "recipients[1].email: invalid type",
        ),
        (letter_with(json!({ "recipients": [{ "mail": "a@a.test" }] })), "recipients[0].mail: unknown field"),
        (
            letter_with(json!({ "recipients": [{ "email": "a@a.test", "substitutions": { "x": [1] } }] })),
            "recipients[0].substitutions",
        ),
        (
            letter_with(json!({ "envelope_sender": "nobody" })),
            "envelope_sender: \"nobody\" is no mail address",
        ),
        (
            letter_with(json!({ "envelope_sender": "", "verp": true })),
            "verp: it is made from envelope_sender",
        ),
        (
            letter_with(json!({ "envelope_sender": format!("{}@a.test", "x".repeat(40)), "verp": true })),
            "verp: the local part",
        ),
        (letter_with(json!({ "campaign": "a b" })), "campaign: a name has 1 to 64"),
        (letter_with(json!({ "lane": "slow" })), "lane: unknown variant"),
        (letter_with(json!({ "content": 5 })), "content: invalid type"),
        (letter_with(json!({ "content": "Subject: a\u{0}\n\n" })), "content: it has a NUL"),
        (letter_with(json!({ "content": "Subject: a\rb\n\n" })), "content: it has a NUL, or a CR"),
        (letter_with(json!({ "content": "x".repeat(100_001) })), "content: 100001 octets"),
        (letter_with(json!({ "unsubscribed": true })), "unsubscribed: unknown field"),
        (letter(&many), "recipients: 101, and intake.recipients_max allows 100"),
        (json!({ "content": "x", "recipients": [] }), "missing field `envelope_sender`"),
        (json!([]), "the body is a list, and must be an object"),
    ];
    for (request, begin) in cases {
        let answer = inject(&daemon, &request);
        let error = answer.json()["error"].as_str().unwrap_or_default().to_owned();
        assert!(answer.status == 422 && error.starts_with(begin), "{begin}: {answer:?}");
    }
    let and_more = format!("{}x", letter(&["ann@there.test"]));
    for wrong in ["", "{", &and_more, "\u{ff}"] {
        assert_eq!(post(daemon.api[0], &[JSON], wrong.as_bytes()).status, 400, "{wrong:?}");
    }
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    assert_eq!(post(daemon.api[0], &[form], b"a=b").status, 415);
    assert_eq!(daemon.metric("accepted_messages"), 0);
    daemon.assert_healthy();
}

#[test]
fn what_is_not_there_and_what_is_not_done_is_said() {
    let daemon = nowhere("");
    let send = |what: &str| http::send(daemon.api[0], what, &[], b"").expect("an answer");
    for what in [
        "GET /",
        "GET /metrics",
        "POST /api/inject/v2",
        "GET /api/inject/v1/x",
        "GET /%ff",
        "POST /api/campaigns/x/y/z",
    ] {
        let answer = send(what);
        assert_eq!(answer.status, 404, "{what}: {answer:?}");
        assert!(answer.json()["error"].is_string());
    }
    let answer = send("GET /api/inject/v1");
    assert_eq!((answer.status, answer.field("allow")), (405, Some("POST")), "{answer:?}");
    assert_eq!(send("DELETE /openapi.json").status, 405);
    let schema = send("GET /openapi.json");
    assert_eq!((schema.status, &schema.json()["openapi"]), (200, &json!("3.1.0")));
}

// ---- who is heard ----

/// A token made by `ringpost token`.
fn token(setup: &Setup, name: &str, scopes: &[&str]) -> String {
    let mut command = Command::new(programs::ringpost());
    command.arg("token").arg("--file").arg(tokens_file(setup));
    for scope in scopes {
        command.args(["--scope", scope]);
    }
    let output = wait::succeed(command.arg(name), PATIENCE);
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

fn tokens_file(setup: &Setup) -> PathBuf {
    setup.folder().join("tokens")
}

fn inject_as(daemon: &Daemon, token: &str) -> u16 {
    let bearer = format!("Bearer {token}");
    let body = letter(&["ann@there.test"]).to_string();
    post(daemon.api[0], &[JSON, ("Authorization", &bearer)], body.as_bytes()).status
}

#[test]
fn a_token_lets_in_and_nothing_else_does() {
    let setup = Setup::new().relay(NOWHERE.parse().expect("an address")).with_lines(API);
    let (ann, bob) = (token(&setup, "ann", &["inject"]), token(&setup, "bob", &["read"]));
    let file = tokens_file(&setup).to_str().expect("plain").to_owned();
    let daemon = setup.with("api.tokens_file", file).start();
    let none = inject(&daemon, &letter(&["ann@there.test"]));
    assert_eq!((none.status, none.field("www-authenticate")), (401, Some("Bearer realm=\"ringpost\"")));
    assert_eq!((inject_as(&daemon, &ann), inject_as(&daemon, &bob)), (200, 403));
    assert_eq!((inject_as(&daemon, &format!("{ann}x")), inject_as(&daemon, "")), (401, 401));
    assert_eq!(daemon.metric("accepted_messages"), 1);
    // A new token is known after a reload, an old one no more.
    let newer = token(&daemon.setup, "ann", &["inject"]);
    assert_eq!((inject_as(&daemon, &ann), inject_as(&daemon, &newer)), (200, 401));
    daemon.signal(Signal::HUP);
    daemon.wait_until_said("configuration reloaded");
    assert_eq!((inject_as(&daemon, &ann), inject_as(&daemon, &newer)), (401, 200));
    assert!(!daemon.talk().contains(&newer), "no token is ever logged");
}

#[test]
fn wrong_tokens_of_an_address_add_up_with_its_wrong_passwords() {
    let setup = Setup::new().relay(NOWHERE.parse().expect("an address")).with_lines(API);
    let ann = token(&setup, "ann", &[]);
    let file = tokens_file(&setup).to_str().expect("plain").to_owned();
    let daemon = setup.with("api.tokens_file", file).with("auth.wrong_per_address", "3/h").start();
    assert_eq!([0; 4].map(|_| inject_as(&daemon, "ringpost-guess")), [401, 401, 401, 429]);
    assert_eq!(inject_as(&daemon, &ann), 200, "who has one is heard all the same");
}

#[test]
fn without_tokens_no_page_in_a_browser_is_heard() {
    let daemon = nowhere("");
    let body = letter(&["ann@there.test"]).to_string();
    let with = |name, value| post(daemon.api[0], &[JSON, (name, value)], body.as_bytes()).status;
    assert_eq!(with("Origin", "http://evil.test"), 403);
    // A name of somebody else's that was made to lead here.
    let mut stream = TcpStream::connect(daemon.api[0]).expect("somebody listens");
    write!(stream, "POST /api/inject/v1 HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n").expect("sent");
    write!(stream, "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .expect("sent");
    assert_eq!(http::read(&mut stream).expect("an answer").status, 403);
    assert_eq!(with("Forwarded", "for=127.0.0.1"), 200);
    assert_eq!(daemon.metric("accepted_messages"), 1);
}

#[test]
fn an_address_that_the_world_reaches_needs_tokens_and_tls() {
    let refusal = |lines: &str| {
        let setup = Setup::new().with_lines("[api]\nlisten = [\"0.0.0.0:0\"]").with_lines(lines);
        let Refusal { code, said } = setup.refusal();
        (code, said)
    };
    let (code, said) = refusal("");
    assert!(code == 78 && said.contains("api.tokens_file must name who may use it"), "{said}");
    let (code, said) = refusal("[api]\ntokens_file = \"/nonexistent\"");
    assert!(code == 78 && said.contains("api.certificate and api.key"), "{said}");
    let (code, said) = refusal("[api]\ntokens_file = \"/nonexistent\"\ntokens_without_tls = true");
    assert!(code == 78 && said.contains("/nonexistent"), "{said}");
}

#[test]
fn tls_is_spoken_with_the_certificate_that_is_named() {
    let setup = Setup::new().relay(NOWHERE.parse().expect("an address")).with_lines(API);
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate");
    let (chain, key_file) = (setup.folder().join("cert.pem"), setup.folder().join("key.pem"));
    std::fs::write(&chain, certificate.pem()).expect("ours");
    std::fs::write(&key_file, key.serialize_pem()).expect("ours");
    let [chain, key_file] = [&chain, &key_file].map(|path| path.to_str().expect("plain").to_owned());
    let setup = setup.with("api.listen", vec![vacant().to_string()]);
    let daemon = setup.with("api.certificate", chain.clone()).with("api.key", key_file).start();
    let url = format!("https://localhost:{}/api/inject/v1", daemon.api[0].port());
    let options = ["--cacert", &chain, "--resolve", &format!("localhost:{}:127.0.0.1", daemon.api[0].port())];
    let Some((status, reply)) = curl(&url, &options, &letter(&["ann@there.test"]).to_string()) else {
        return;
    };
    assert_eq!((status, &reply["success_count"]), (200, &json!(1)));
    let mut plain = TcpStream::connect(daemon.api[0]).expect("somebody listens");
    plain.write_all(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    assert!(http::read(&mut plain).is_err(), "plain text is no handshake");
    // Our own commands believe the certificate that is configured, and no other.
    let ask = || wait::finish(&mut daemon.setup.command(&["campaign", "list", "--json"]), PATIENCE);
    assert!(ask().status.success(), "{:?}", ask());
    let other = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    std::fs::write(&chain, other.self_signed(&key).expect("a certificate").pem()).expect("ours");
    let refused = ask();
    assert_eq!(refused.status.code(), Some(78), "{refused:?}");
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("it does not show api.certificate"),
        "{refused:?}"
    );
}

// ---- what would be too much ----

#[test]
fn a_body_past_its_bound_is_refused_and_its_sender_hears_it() {
    let daemon = nowhere("[api]\nbody_max = 100000\n");
    let long = letter_with(json!({ "content": "x".repeat(3 << 20) })).to_string();
    assert_eq!(post(daemon.api[0], &[JSON], long.as_bytes()).status, 413);
    let url = format!("http://{}/api/inject/v1", daemon.api[0]);
    let Some((status, reply)) = curl(&url, &["--header", "Expect:"], &long) else { return };
    assert!(status == 413 && reply["error"].as_str().expect("text").contains("api.body_max"), "{reply}");
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(&vec![b' '; 64 << 20]).expect("memory");
    let bomb = packed.finish().expect("memory");
    let answer = post(daemon.api[0], &[JSON, ("Content-Encoding", "gzip")], &bomb);
    assert!([400, 413].contains(&answer.status), "{answer:?}");
    daemon.assert_healthy();
}

#[test]
fn a_head_past_its_bound_is_refused() {
    let daemon = nowhere("");
    let long = "x".repeat(60 << 10);
    let answer =
        http::send(daemon.api[0], "GET /openapi.json", &[("X-Long", &long)], b"").expect("an answer");
    assert_eq!(answer.status, 431);
}

#[test]
fn a_client_that_is_slow_holds_nobody_up_and_is_ended() {
    let daemon = nowhere("[api]\nidle_timeout_secs = 1\n");
    let body = letter(&["ann@there.test"]).to_string();
    let mut slow = TcpStream::connect(daemon.api[0]).expect("somebody listens");
    write!(slow, "POST /api/inject/v1 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n")
        .expect("sent");
    write!(slow, "Content-Length: {}\r\n\r\n{{", body.len()).expect("sent");
    assert_eq!(inject(&daemon, &letter(&["ann@there.test"])).status, 200);
    slow.set_read_timeout(Some(PATIENCE)).expect("above zero");
    let answer = http::read(&mut slow).expect("an answer");
    assert_eq!(answer.status, 408, "{answer:?}");
    // A head that does not end, and a connection that says nothing.
    let mut half = TcpStream::connect(daemon.api[0]).expect("somebody listens");
    let mut silent = TcpStream::connect(daemon.api[0]).expect("somebody listens");
    half.write_all(b"POST /api/inject/v1 HTTP/1.1\r\nHost:").expect("sent");
    for stream in [&mut half, &mut silent] {
        stream.set_read_timeout(Some(PATIENCE)).expect("above zero");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&rest));
    }
}

#[test]
fn connections_past_the_bound_are_closed_and_the_others_served() {
    let daemon = nowhere("[api]\nconnections_max = 4\nconnections_per_address = 3\n");
    let held: Vec<TcpStream> =
        (0..3).map(|_| TcpStream::connect(daemon.api[0]).expect("somebody listens")).collect();
    wait::until("the bound to be reached", PATIENCE, || {
        http::send(daemon.api[0], "GET /openapi.json", &[], b"").is_err()
    });
    drop(held);
    wait::until("places to be free", PATIENCE, || {
        http::send(daemon.api[0], "GET /openapi.json", &[], b"").is_ok_and(|answer| answer.status == 200)
    });
}

#[test]
fn over_a_mark_clients_are_told_when_to_come_again() {
    let daemon = nowhere("[intake]\nbacklog_max = 2\n");
    assert_eq!(inject(&daemon, &letter(&["a@there.test", "b@there.test", "c@there.test"])).status, 200);
    daemon.wait_for("queued_recipients", 3, PATIENCE);
    let answer = inject(&daemon, &letter(&["ann@there.test"]));
    assert_eq!((answer.status, answer.field("retry-after")), (429, Some("10")), "{answer:?}");
    let mut delete = daemon.setup.command(&["queue", "delete", "--where", "recipient=c@there.test", "--yes"]);
    wait::succeed(&mut delete, PATIENCE);
    daemon.wait_for("queued_recipients", 2, PATIENCE);
    assert_eq!(inject(&daemon, &letter(&["ann@there.test"])).status, 200);
}

#[test]
fn many_requests_of_one_connection_are_answered_in_order() {
    let daemon = nowhere("");
    let Some(mut curl) = peer("curl") else { return };
    let url = format!("http://{}/openapi.json", daemon.api[0]);
    curl.args(["--silent", "--show-error", "--output", "/dev/null", "--write-out", "%{num_connects}\n"]);
    let output = wait::succeed(curl.args([&url, &url, &url]).stdin(Stdio::null()), Duration::from_secs(60));
    let connects: usize =
        String::from_utf8_lossy(&output.stdout).lines().map(|line| line.parse::<usize>().unwrap_or(0)).sum();
    assert_eq!(connects, 1, "{output:?}");
}

// ---- the suppression list ----

#[test]
fn the_suppression_list_is_filled_looked_at_and_given_out() {
    let daemon = nowhere("[suppression]\nkeep_addresses = true\n");
    let send = |what: &str, fields: &[(&str, &str)], body: &[u8]| {
        http::send(daemon.api[0], what, fields, body).expect("an answer")
    };
    let csv = ("Content-Type", "text/csv");
    let lines = "email,list,reason\nann@there.test,,complaint\nbob@there.test,News,\nbob\n";
    let taken = send("POST /api/suppressions?reason=manual", &[csv], lines.as_bytes());
    assert_eq!(taken.status, 200, "{taken:?}");
    let taken = taken.json();
    assert_eq!(
        (&taken["new"], &taken["known"], &taken["invalid"]),
        (&json!(2), &json!(0), &json!(1)),
        "{taken}"
    );
    assert!(taken["errors"][0].as_str().expect("text").starts_with("line 4: "), "{taken}");
    let found = send("GET /api/suppressions/bob%40there.test?list=news", &[], b"").json();
    assert_eq!((&found["reason"], &found["list"]), (&json!("manual"), &json!("news")), "{found}");
    assert_eq!(send("GET /api/suppressions/bob@there.test", &[], b"").status, 404, "not on all lists");
    let cy = "/api/suppressions/cy@there.test";
    assert_eq!(send(&format!("PUT {cy}"), &[JSON], b"{}").status, 201);
    assert_eq!(send(&format!("PUT {cy}"), &[JSON], b"{\"reason\":\"complaint\"}").json()["reason"], "manual");
    let whole = send("GET /api/suppressions", &[], b"");
    assert_eq!(whole.field("content-type"), Some("text/csv; charset=utf-8"));
    assert_eq!(whole.body.lines().count(), 4, "{}", whole.body);
    assert_eq!(send("GET /api/suppressions?list=news", &[], b"").body.lines().count(), 2);
    // Who is on it is not written to, and the client hears of it.
    let reply = inject(&daemon, &letter(&["ann@there.test", "bob@there.test", "eve@there.test"])).json();
    assert_eq!((&reply["success_count"], &reply["fail_count"]), (&json!(2), &json!(1)), "{reply}");
    assert_eq!(reply["errors"][0], "recipients[0].email: it is on the suppression list");
    assert_eq!(send(&format!("DELETE {cy}"), &[], b"").status, 204);
    assert_eq!(send(&format!("DELETE {cy}"), &[], b"").status, 404);
    for wrong in ["PUT /api/suppressions/nobody", "DELETE /api/suppressions/nobody"] {
        assert_eq!(send(wrong, &[JSON], b"{}").status, 422, "{wrong}");
    }
    assert_eq!(send("GET /api/suppressions?reason=whim", &[], b"").status, 400);
}

#[test]
fn what_was_put_on_the_list_is_on_it_after_kill_9() {
    let daemon = nowhere("[suppression]\nkeep_addresses = true\n");
    let put =
        http::send(daemon.api[0], "PUT /api/suppressions/ann@there.test", &[JSON], b"{}").expect("an answer");
    assert_eq!(put.status, 201);
    let daemon = daemon.kill().restart();
    let found =
        http::send(daemon.api[0], "GET /api/suppressions/ann@there.test", &[], b"").expect("an answer");
    assert_eq!((found.status, &found.json()["reason"]), (200, &json!("manual")));
}

#[test]
fn without_addresses_there_is_nothing_to_give_out() {
    let daemon = nowhere("[suppression]\nkeep_addresses = false\n");
    let answer = http::send(daemon.api[0], "GET /api/suppressions", &[], b"").expect("an answer");
    assert!(answer.status == 409 && answer.body.contains("suppression.keep_addresses"), "{answer:?}");
}
