//! ATRN (RFC 2645, Q50): a customer fetches his mail over the connection that he made, and nothing is lost on the way.

#[path = "turn/customer.rs"]
mod customer;

use customer::{Customer, Got};
use rcgen::{CertificateParams, KeyPair};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use tests::process::wait::{self, PATIENCE};
use tests::process::{Client, Daemon, Setup, Sink, peer, setup};

/// Nothing can be connected to there: held mail goes by ATRN or not at all.
const NOWHERE: &str = "127.0.0.1:1";

/// A daemon for two customers. Its first listener takes mail, its second is for those who fetch it.
fn provider() -> Setup {
    let setup = Setup::new();
    let file = private(setup.folder(), "passwords", "cust:{PLAIN}secret\nother:{PLAIN}secret\n");
    let lines = format!(
        "[auth]\npassword_file = {file:?}\n\
         [listeners.odmr]\naddresses = [\"127.0.0.1:0\"]\npurpose = \"odmr\"\n\
         [[access.rules]]\nuser = \"cust\"\natrn = [\"customer.test\", \".customer.test\"]\n\
         [routes]\n\"customer.test\" = {{ relay = \"{NOWHERE}\", hold = true }}\n\
         \".customer.test\" = {{ relay = \"{NOWHERE}\", hold = true }}\n\
         \"stranger.test\" = {{ relay = \"{NOWHERE}\", hold = true }}\n"
    );
    setup.with_lines(&lines)
}

fn private(folder: &Path, name: &str, text: &str) -> String {
    let file = folder.join(name);
    std::fs::write(&file, text).expect("the folder is ours");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("the file is ours");
    file.to_str().expect("a plain name").to_owned()
}

/// Messages with numbers for subjects.
fn send(daemon: &Daemon, numbers: std::ops::Range<u32>) {
    let mut client = daemon.client();
    for number in numbers {
        send_to(&mut client, number, "bob@customer.test");
    }
}

fn send_to(client: &mut Client, number: u32, to: &str) {
    let reply = client.send("ann@here.test", &[to], &format!("Subject: {number}\r\n\r\nhello"));
    assert!(reply.starts_with("250"), "{reply}");
}

fn atrn(daemon: &Daemon) -> std::net::SocketAddr {
    daemon.listening[1]
}

/// How often each subject came.
fn counts(got: &[Got]) -> BTreeMap<u32, usize> {
    let mut counts = BTreeMap::new();
    for one in got {
        *counts.entry(one.subject.parse().expect("a number")).or_default() += 1;
    }
    counts
}

fn once(numbers: std::ops::Range<u32>) -> BTreeMap<u32, usize> {
    numbers.map(|number| (number, 1)).collect()
}

// ---- what is asked, and what is answered ----

#[test]
fn customer_fetches_his_mail_once() {
    let daemon = provider().start();
    send(&daemon, 0..3);
    send_to(&mut daemon.client(), 3, "cy@below.customer.test");
    send_to(&mut daemon.client(), 4, "eve@stranger.test");
    let got = Customer::turned(atrn(&daemon)).take_all();
    assert_eq!(counts(&got), once(0..4));
    daemon.wait_for("delivered", 4, PATIENCE);
    assert_eq!((daemon.owed(), daemon.metric("connections_reversed")), (1, 1), "another's mail stays");
    assert_eq!((daemon.metric("connections_out"), daemon.metric("sessions_out")), (0, 0));
    let line = daemon.last_word_on("cy@below.customer.test");
    assert_eq!((&line["host"], &line["source"]), (&"127.0.0.1".into(), &"".into()));
    let mut again = Customer::log_in(atrn(&daemon));
    assert_eq!(again.say("ATRN"), "453 4.0.0 You have no mail");
    // The session goes on, and what comes later can be asked for.
    send(&daemon, 5..6);
    assert!(again.say("ATRN customer.test").starts_with("250"));
    assert_eq!(counts(&again.take_all()), once(5..6));
}

#[test]
fn nobody_fetches_what_is_not_his() {
    let daemon = provider().start();
    send(&daemon, 0..1);
    send_to(&mut daemon.client(), 1, "eve@stranger.test");
    let mut customer = Customer::greet(atrn(&daemon));
    assert_eq!(customer.say("ATRN customer.test"), "530 5.7.0 AUTH first");
    assert_eq!(customer.say("MAIL FROM:<>"), "502 5.5.1 Command not offered");
    let mut customer = Customer::log_in(atrn(&daemon));
    for foreign in ["stranger.test", "customer.test,stranger.test", "notcustomer.test"] {
        let reply = customer.say(&format!("ATRN {foreign}"));
        assert_eq!(reply, "450 4.7.1 ATRN request refused: these domains are not yours", "{foreign}");
    }
    assert_eq!(customer.say("ATRN sub.customer.test"), "453 4.0.0 You have no mail");
    let mut other = Client::greet(atrn(&daemon));
    other.say_expecting("AUTH PLAIN AG90aGVyAHNlY3JldA==", "235");
    other.say_expecting("ATRN", "450");
    other.say_expecting("ATRN customer.test", "450");
    assert_eq!((daemon.owed(), daemon.metric("connections_reversed")), (2, 0));
    assert!(!daemon.client().say("EHLO a.test").contains("ATRN"), "no logins, no ATRN");
}

#[test]
fn customer_may_ask_for_some_of_his_domains() {
    let daemon = provider().start();
    send(&daemon, 0..2);
    send_to(&mut daemon.client(), 2, "cy@below.customer.test");
    let mut customer = Customer::log_in(atrn(&daemon));
    assert!(customer.say("ATRN below.customer.test").starts_with("250"));
    assert_eq!(counts(&customer.take_all()), once(2..3));
    let mut customer = Customer::log_in(atrn(&daemon));
    assert!(customer.say("ATRN BELOW.customer.test, Customer.TEST").starts_with("250"));
    assert_eq!(counts(&customer.take_all()), once(0..2));
}

#[test]
fn connections_of_a_login_are_limited_like_those_to_a_site() {
    let daemon = provider().with("delivery.connections_max", 1).start();
    send(&daemon, 0..2);
    let first = Customer::turned(atrn(&daemon));
    send(&daemon, 2..3);
    let mut second = Customer::log_in(atrn(&daemon));
    assert_eq!(second.say("ATRN"), "451 4.3.2 Unable to process ATRN request now");
    assert_eq!(counts(&first.take_all()), once(0..2));
    wait::until("the first connection to end", PATIENCE, || daemon.metric("sessions_out") == 0);
    assert!(second.say("ATRN").starts_with("250"));
    assert_eq!(counts(&second.take_all()), once(2..3));
}

// ---- lines that break ----

#[test]
fn customer_who_goes_after_the_answer_loses_nothing() {
    let daemon = provider().start();
    send(&daemon, 0..3);
    for _ in 0..3 {
        drop(Customer::turned(atrn(&daemon)));
    }
    let mut silent = Customer::turned(atrn(&daemon));
    silent.tell("554 5.3.2 not today");
    daemon.wait_for("connections_reversed", 4, PATIENCE);
    drop(silent);
    wait::until("the connections to end", PATIENCE, || daemon.metric("sessions_out") == 0);
    assert_eq!((daemon.owed(), daemon.metric("failed")), (3, 0));
    assert_eq!(counts(&Customer::turned(atrn(&daemon)).take_all()), once(0..3));
}

#[test]
fn customer_who_goes_in_the_middle_loses_nothing() {
    let daemon = provider().start();
    send(&daemon, 0..6);
    let mut customer = Customer::turned(atrn(&daemon));
    customer.open();
    let mut got: Vec<Got> = customer.take_one().into_iter().collect();
    customer.tell("250 2.0.0 taken");
    // The second one has come whole, and its answer never arrives.
    customer.take_one().expect("another");
    daemon.wait_for("delivered", 1, PATIENCE);
    drop(customer);
    wait::until("the connection to end", PATIENCE, || daemon.metric("sessions_out") == 0);
    // On disk as in memory.
    let daemon = daemon.kill().restart();
    assert_eq!(daemon.owed(), 5);
    got.extend(Customer::turned(atrn(&daemon)).take_all());
    assert_eq!(counts(&got), once(0..6));
    daemon.wait_until_empty(PATIENCE);
}

#[test]
fn mail_that_is_past_its_time_is_not_returned_for_a_bad_line() {
    let daemon = provider().with("retry.lifetime_secs", 1).start();
    send(&daemon, 0..2);
    wait::until("the mail to be past its time", PATIENCE, || {
        let old = ["queue", "list", "--json", "--where", "age>1s"];
        let output = wait::succeed(&mut daemon.setup.command(&old), PATIENCE);
        String::from_utf8_lossy(&output.stdout).lines().count() == 2
    });
    let mut customer = Customer::turned(atrn(&daemon));
    customer.open();
    customer.take_one().expect("one");
    drop(customer);
    wait::until("the connection to end", PATIENCE, || daemon.metric("sessions_out") == 0);
    assert_eq!((daemon.owed(), daemon.metric("failed"), daemon.metric("bounces")), (2, 0, 0));
    assert_eq!(counts(&Customer::turned(atrn(&daemon)).take_all()), once(0..2));
}

#[test]
fn what_the_customer_puts_off_is_there_when_he_asks_again() {
    let daemon = provider().with("retry.quadratic_secs", 100_000).start();
    send(&daemon, 0..2);
    let mut customer = Customer::turned(atrn(&daemon));
    customer.rcpt = "450 4.2.1 mailbox busy";
    assert_eq!(customer.take_all(), []);
    daemon.wait_for("deferred_recipients", 2, PATIENCE);
    assert_eq!(counts(&Customer::turned(atrn(&daemon)).take_all()), once(0..2));
}

// ---- many cores ----

#[test]
fn mail_of_all_cores_goes_over_the_one_connection() {
    let daemon = provider().on_cpus(&[0, 1]).with("delivery.share_len", 64).start();
    for number in 0..60 {
        send_to(&mut daemon.client(), number, "bob@customer.test");
    }
    let list: Vec<String> = (0..500).map(|number| format!("u{number}@customer.test")).collect();
    let list: Vec<&str> = list.iter().map(String::as_str).collect();
    let reply = daemon.client().send("ann@here.test", &list, "Subject: 60\r\n\r\nhello");
    assert!(reply.starts_with("250"), "{reply}");
    let daemon = daemon.kill().restart();
    assert_eq!(daemon.owed(), 560);
    let got = Customer::turned(atrn(&daemon)).take_all();
    daemon.wait_until_empty(PATIENCE);
    let mut recipients: Vec<&String> =
        got.iter().filter(|one| one.subject == "60").flat_map(|one| &one.recipients).collect();
    recipients.sort();
    recipients.dedup();
    assert_eq!(recipients.len(), 500);
    let sum: usize = got.iter().map(|one| one.recipients.len()).sum();
    assert_eq!(sum, 560, "nobody twice");
    assert!(daemon.metric("chunks_borrowed") > 0, "some came from the other core");
    assert_eq!(counts(&got).len(), 61);
}

#[test]
fn what_other_cores_lent_goes_back_when_the_line_breaks() {
    let daemon = provider().on_cpus(&[0, 1]).start();
    for number in 0..40 {
        send_to(&mut daemon.client(), number, "bob@customer.test");
    }
    let mut got = Vec::new();
    for _ in 0..4 {
        let mut customer = Customer::turned(atrn(&daemon));
        customer.open();
        got.extend(customer.take_one());
        customer.tell("250 2.0.0 taken");
        customer.take_one().expect("another");
        daemon.wait_for("delivered", got.len() as u64, PATIENCE);
        drop(customer);
        wait::until("the connection to end", PATIENCE, || daemon.metric("sessions_out") == 0);
    }
    got.extend(Customer::turned(atrn(&daemon)).take_all());
    assert_eq!(counts(&got), once(0..40));
    daemon.wait_until_empty(PATIENCE);
}

// ---- what an operator sees ----

#[test]
fn operator_sees_the_connection_and_its_mail() {
    let daemon = provider().start();
    send(&daemon, 0..2);
    let mut customer = Customer::turned(atrn(&daemon));
    customer.open();
    customer.take_one().expect("one");
    let shown = |words: &[&str]| {
        let output = wait::succeed(&mut daemon.setup.command(words), PATIENCE);
        String::from_utf8(output.stdout).expect("text")
    };
    let sites = shown(&["sites", "--json"]);
    assert!(sites.contains("\"site\":\"atrn cust\"") && sites.contains("\"state\":\"sending\""), "{sites}");
    let explained = shown(&["explain", "customer.test", "--json"]);
    assert!(explained.contains("\"site\":\"atrn cust\""), "{explained}");
    // A look at everything that waits takes nothing from the connection, and holds it for nobody.
    assert_eq!(daemon.setup.queue_stat()["recipients_owed"], 2);
    customer.tell("250 2.0.0 taken");
    customer.take_one().expect("the other");
    customer.tell("250 2.0.0 taken");
    assert_eq!(customer.take_one(), None);
    daemon.wait_until_empty(PATIENCE);
    let access = wait::succeed(
        &mut daemon.setup.command(&["access", "--address", "192.0.2.7", "--user", "cust"]),
        PATIENCE,
    );
    let access = String::from_utf8_lossy(&access.stdout).into_owned();
    assert!(access.contains("May fetch mail (ATRN): customer.test, .customer.test"), "{access}");
}

// ---- TLS, and a peer of others' ----

/// Python's smtplib as the customer, who goes on as a host over the same TLS.
const PYTHON: &str = r#"
import smtplib, ssl, sys
host, port = sys.argv[1], int(sys.argv[2])
context = ssl._create_unverified_context()
client = smtplib.SMTP(host, port)
client.starttls(context=context)
client.ehlo()
client.login('cust', 'secret')
code, text = client.docmd('ATRN')
assert code == 250, (code, text)
stream = client.sock.makefile('rwb')
def say(line):
    stream.write(line + b'\r\n')
    stream.flush()
say(b'220 customer.test ready')
in_content = False
while True:
    line = stream.readline()
    if in_content:
        in_content = line != b'.\r\n'
        if line.startswith(b'Subject: '):
            print('got', line[9:].decode().strip())
        if not in_content:
            say(b'250 taken')
    elif line.startswith(b'EHLO'):
        say(b'250-customer.test\r\n250-STARTTLS\r\n250 8BITMIME')
    elif line.startswith(b'STARTTLS'):
        sys.exit('TLS within TLS')
    elif line.startswith(b'DATA'):
        in_content = True
        say(b'354 go')
    elif line.startswith(b'QUIT'):
        say(b'221 bye')
        break
    else:
        say(b'250 ok')
"#;

/// With a certificate, and TLS before logins.
fn encrypted(setup: Setup) -> Setup {
    let pair = KeyPair::generate().expect("a key");
    let own = CertificateParams::new(vec!["mx.one.test".to_owned()]).expect("a name");
    let chain = private(setup.folder(), "chain.pem", &own.self_signed(&pair).expect("ours").pem());
    let key = private(setup.folder(), "key.pem", &pair.serialize_pem());
    setup.with_lines(&format!(
        "[[certificates]]\nchain = {chain:?}\nkey = {key:?}\n[listeners.odmr]\ntls = \"require\"\n"
    ))
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat()
}

#[test]
fn tls_of_the_login_stays_on_for_the_mail() {
    let daemon = encrypted(provider()).with("tls.mode", "encrypt").start();
    send(&daemon, 0..3);
    let Some(mut python) = peer("python3") else { return };
    let to = atrn(&daemon);
    python.args(["-c", PYTHON, &to.ip().to_string(), &to.port().to_string()]);
    let output = wait::finish(&mut python, PATIENCE);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 3, "{}", said(&output));
    daemon.wait_until_empty(PATIENCE);
    let line = daemon.last_word_on("bob@customer.test");
    assert!(line["tls"].as_str().is_some_and(|tls| tls.starts_with("TLS 1.")), "{line}");
    assert_eq!((daemon.metric("tls_handshakes"), daemon.metric("plain_connections")), (0, 0));
}

#[test]
fn mail_that_must_be_encrypted_does_not_go_over_a_plain_connection() {
    let daemon = provider().with_lines("[tls.domains.\"customer.test\"]\nmode = \"encrypt\"\n").start();
    send(&daemon, 0..1);
    let mut customer = Customer::turned(atrn(&daemon));
    customer.open();
    wait::until("the connection to end", PATIENCE, || daemon.metric("sessions_out") == 0);
    assert_eq!((daemon.owed(), daemon.metric("failed")), (1, 0));
}

#[test]
fn fetchmail_fetches_by_odmr() {
    let Some(mut fetchmail) = peer("fetchmail") else { return };
    let (daemon, sink) = (provider().start(), Sink::start(&[]));
    send(&daemon, 0..5);
    let folder = setup::temporary_folder();
    let (to, local) = (atrn(&daemon), sink.address);
    let rc = private(
        folder.path(),
        "rc",
        &format!(
            "poll {} with protocol ODMR service {}\n user \"cust\" there with password \"secret\"\n \
             smtphost \"{}/{}\"\n fetchdomains \"customer.test\"\n",
            to.ip(),
            to.port(),
            local.ip(),
            local.port()
        ),
    );
    let output = wait::finish(
        fetchmail
            .args(["--nodetach", "--nosyslog", "--verbose", "--sslproto", "", "--fetchmailrc", &rc])
            .env("HOME", folder.path()),
        PATIENCE,
    );
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("CRAM-MD5"), "{}", said(&output));
    daemon.wait_until_empty(PATIENCE);
    assert_eq!((daemon.metric("delivered"), daemon.metric("ambiguous")), (5, 0));
    assert_eq!(sink.end().deliveries().len(), 5);
}
