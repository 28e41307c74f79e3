//! DANE (RFC 7672) from the signed zone to the last recipient: mail goes to the host that its TLSA records vouch for, and
//! to no other, unless its sender asked that it be delivered all the same (RFC 8689).

use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tests::process::{Chain, Daemon, Knot, Setup, Sink, Zone, peer, setup, wait};

const RUN_MAX: Duration = Duration::from_secs(120);

/// A sink whose certificate is signed by itself, and SHA-256 of its public key in hex.
struct Host {
    sink: Sink,
    digest: String,
    _folder: tempfile::TempDir,
}

impl Host {
    /// `None` without openssl.
    fn start(options: &[&str]) -> Option<Host> {
        let folder = setup::temporary_folder();
        let file = folder.path().join("certificate.pem");
        let path = file.to_str().expect("plain names");
        let usual = ["--tls", "offer", "--name", "mx.secure", "--cert-out", path];
        let sink = Sink::start(&[&usual[..], options].concat());
        let digest = digest_of_key(&file)?;
        Some(Host { sink, digest, _folder: folder })
    }
}

/// What `TLSA 3 1 1` holds (RFC 6698 §2.1).
fn digest_of_key(certificate: &Path) -> Option<String> {
    peer("openssl")?;
    let mut shell = Command::new("/bin/sh");
    let pipe =
        "openssl x509 -noout -pubkey -in \"$0\" | openssl pkey -pubin -outform DER | openssl dgst -sha256 -r";
    let output = wait::succeed(shell.args(["-c", pipe]).arg(certificate), wait::PATIENCE);
    let text = String::from_utf8(output.stdout).expect("it prints text");
    Some(text.split(' ').next().expect("the digest is first").to_owned())
}

/// A daemon with DANE for which `secure` is at `mx.secure`, where that record stands for the sink's port.
fn start(chain: Chain, sink: &Sink, record: &str) -> Option<(Knot, Daemon)> {
    let (knot, setup) = with_zone(chain, sink, record)?;
    Some((knot, setup.start()))
}

fn with_zone(chain: Chain, sink: &Sink, record: &str) -> Option<(Knot, Setup)> {
    let port = sink.address.port();
    let record = format!("_{port}._tcp.mx TLSA {record}");
    let records = ["@ MX 10 mx".to_owned(), "mx A 127.0.0.1".to_owned(), record];
    // Zones live as long as the test process.
    let records: Vec<&'static str> = records.into_iter().map(|record| &*record.leak()).collect();
    let knot = Knot::start(&[Zone { name: "secure", chain, records: records.leak() }])?;
    let setup = Setup::new().with("delivery.name_servers", vec![knot.address.to_string()]);
    let anchors = knot.anchors().to_str().expect("plain names").to_owned();
    let setup = setup.with("delivery.port", i64::from(port)).with("tls.dane", true);
    Some((knot, setup.with("tls.trust_anchors", anchors).with("delivery.messages_per_connection", 1)))
}

fn delivers(daemon: &Daemon, nth: u64) {
    daemon.client().deliver("", &[&format!("u{nth}@secure")]);
    daemon.wait_for("delivered", nth, RUN_MAX);
}

fn waits(daemon: &Daemon, sink: Sink) {
    daemon.client().deliver("", &["bob@secure"]);
    daemon.wait_until_said("its mail waits");
    assert!(daemon.talk().contains("reason=\"451 4.7."), "{}", daemon.talk());
    let metrics = daemon.metrics();
    assert_eq!((metrics["queued_recipients"], metrics["plain_connections"]), (1, 0));
    assert_eq!(sink.end().counters.recipients, 0);
}

#[test]
fn host_with_the_key_of_its_record_gets_the_mail() {
    let Some(Host { sink, digest, _folder }) = Host::start(&[]) else { return };
    let Some((_knot, daemon)) = start(Chain::Secure, &sink, &format!("3 1 1 {digest}")) else { return };
    (1..=3).for_each(|nth| delivers(&daemon, nth));
    assert_eq!((daemon.metric("plain_connections"), daemon.metric("tls_failures")), (0, 0));
    let counters = sink.end().counters;
    assert_eq!((counters.tls_handshakes, counters.recipients), (3, 3));
}

#[test]
fn host_with_another_key_than_its_record_gets_nothing() {
    let Some(Host { sink, .. }) = Host::start(&[]) else { return };
    let record = format!("3 1 1 {}", "0f".repeat(32));
    let Some((_knot, daemon)) = start(Chain::Secure, &sink, &record) else { return };
    waits(&daemon, sink);
}

#[test]
fn host_with_a_record_and_without_tls_gets_nothing() {
    let sink = Sink::start(&[]);
    let record = format!("3 1 1 {}", "0f".repeat(32));
    let Some((_knot, daemon)) = start(Chain::Secure, &sink, &record) else { return };
    waits(&daemon, sink);
}

#[test]
fn host_with_a_record_and_broken_tls_gets_nothing() {
    let Some(Host { sink, digest, _folder }) = Host::start(&["--broken-tls", "close"]) else { return };
    let Some((_knot, daemon)) = start(Chain::Secure, &sink, &format!("3 1 1 {digest}")) else { return };
    waits(&daemon, sink);
}

#[test]
fn record_of_no_use_makes_any_certificate_do() {
    let Some(Host { sink, .. }) = Host::start(&[]) else { return };
    let record = format!("1 1 1 {}", "0f".repeat(32));
    let Some((_knot, daemon)) = start(Chain::Secure, &sink, &record) else { return };
    delivers(&daemon, 1);
    assert_eq!(sink.end().counters.tls_handshakes, 1);
}

#[test]
fn record_of_an_unsigned_zone_says_nothing() {
    let sink = Sink::start(&[]);
    let record = format!("3 1 1 {}", "0f".repeat(32));
    let Some((_knot, daemon)) = start(Chain::Insecure, &sink, &record) else { return };
    delivers(&daemon, 1);
    assert_eq!(sink.end().counters.recipients, 1);
}

#[test]
fn mail_to_a_zone_whose_signatures_are_wrong_waits() {
    let sink = Sink::start(&[]);
    let record = format!("3 1 1 {}", "0f".repeat(32));
    let Some((_knot, daemon)) = start(Chain::Bogus, &sink, &record) else { return };
    daemon.client().deliver("", &["bob@secure"]);
    daemon.wait_for_at_least("deferred", 1, RUN_MAX);
    assert_eq!(daemon.words_on("bob@secure")[0]["enhanced"], "4.4.3");
    assert_eq!(sink.end().counters.connections, 0);
}

// ---- TLS-Required: No ----

/// A record that no key of ours has.
fn of_another_key() -> String {
    format!("3 1 1 {}", "0f".repeat(32))
}

const OPTIONAL: &str = "TLS-Required: No\r\nSubject: the key of your record is wrong\r\n\r\nhello";

fn send(daemon: &Daemon, from: &str, to: &str, content: &str) {
    let reply = daemon.client().send(from, &[to], content);
    assert!(reply.starts_with("250"), "{reply}");
}

#[test]
fn mail_that_need_not_wait_for_tls_goes_where_other_mail_waits() {
    let Some(Host { sink, .. }) = Host::start(&[]) else { return };
    let Some((_knot, daemon)) = start(Chain::Secure, &sink, &of_another_key()) else { return };
    daemon.client().deliver("", &["bob@secure"]);
    daemon.wait_until_said("its mail waits");
    send(&daemon, "ann@here.test", "cy@secure", OPTIONAL);
    daemon.wait_for("delivered", 1, RUN_MAX);
    // TLS all the same, as far as it goes.
    let line = daemon.last_word_on("cy@secure");
    assert!(line["tls"].as_str().is_some_and(|tls| tls.starts_with("TLS 1.")), "{line}");
    assert_eq!((daemon.owed(), daemon.metric("plain_connections")), (1, 0));
    let explained = wait::succeed(&mut daemon.setup.command(&["explain", "secure"]), wait::PATIENCE);
    let explained = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(explained.contains("Mail that says TLS-Required: No goes there all the same"), "{explained}");
    assert_eq!(sink.end().counters.recipients, 1);
}

#[test]
fn it_is_known_of_mail_that_lay_on_disk_over_a_restart() {
    let sink = Sink::start(&[]);
    let Some((_knot, setup)) = with_zone(Chain::Secure, &sink, &of_another_key()) else { return };
    let daemon = setup.with_lines("[routes]\nsecure = { hold = true }").start();
    daemon.client().deliver("", &["bob@secure"]);
    send(&daemon, "ann@here.test", "cy@secure", OPTIONAL);
    let mut stopped = daemon.kill();
    stopped.setup.remove("routes.secure");
    let daemon = stopped.restart();
    daemon.wait_for("delivered", 1, RUN_MAX);
    daemon.wait_until_said("its mail waits");
    assert_eq!(daemon.last_word_on("cy@secure")["tls"], "");
    assert_eq!((daemon.owed(), sink.end().counters.recipients), (1, 1));
}

#[test]
fn operator_may_hold_all_mail_to_what_domains_publish() {
    let sink = Sink::start(&[]);
    let Some((_knot, setup)) = with_zone(Chain::Secure, &sink, &of_another_key()) else { return };
    let daemon = setup.with("tls.obey_tls_required", false).start();
    send(&daemon, "ann@here.test", "cy@secure", OPTIONAL);
    daemon.wait_until_said("its mail waits");
    assert_eq!((daemon.owed(), sink.end().counters.recipients), (1, 0));
}

#[test]
fn operators_own_demand_holds_for_it_too() {
    let sink = Sink::start(&[]);
    let Some((_knot, setup)) = with_zone(Chain::Secure, &sink, &of_another_key()) else { return };
    let daemon = setup.with_lines("[tls.domains]\nsecure = { mode = \"encrypt\" }").start();
    send(&daemon, "ann@here.test", "cy@secure", OPTIONAL);
    daemon.wait_until_said("its mail waits");
    assert_eq!((daemon.owed(), sink.end().counters.recipients), (1, 0));
}

#[test]
fn bounce_of_such_mail_need_not_wait_for_tls_either() {
    let (sink, refusing) = (Sink::start(&[]), Sink::start(&["--reply", "rcpt=550 5.1.1 nobody here"]));
    let Some((_knot, setup)) = with_zone(Chain::Secure, &sink, &of_another_key()) else { return };
    let route = format!("[routes]\n\"refusing.test\" = \"{}\"", refusing.address);
    let daemon = setup.with_lines(&route).start();
    send(&daemon, "ann@secure", "bob@refusing.test", "Subject: strict\r\n\r\nhello");
    daemon.wait_until_said("its mail waits");
    send(&daemon, "cy@secure", "bob@refusing.test", OPTIONAL);
    daemon.wait_for("delivered", 1, RUN_MAX);
    assert_eq!(daemon.words_on("cy@secure").len(), 1);
    assert_eq!((daemon.metric("bounces"), daemon.owed()), (2, 1));
    assert_eq!(sink.end().counters.recipients, 1);
}

/// Over TLS, and with REQUIRETLS beside the field.
const PYTHON: &str = r#"
import smtplib, ssl, sys
client = smtplib.SMTP(sys.argv[1], int(sys.argv[2]))
client.starttls(context=ssl._create_unverified_context())
client.ehlo()
assert client.has_extn('REQUIRETLS')
print(client.mail('ann@here.test', ['REQUIRETLS']), client.rcpt('cy@secure'))
print(client.data('TLS-Required: No\nSubject: x\n\nhello\n'))
"#;

#[test]
fn requiretls_goes_before_the_field() {
    let sink = Sink::start(&[]);
    let Some((_knot, setup)) = with_zone(Chain::Secure, &sink, &of_another_key()) else { return };
    let Some(mut python) = peer("python3") else { return };
    let pair = rcgen::KeyPair::generate().expect("a key");
    let own = rcgen::CertificateParams::new(vec!["mx.one.test".to_owned()]).expect("a name");
    let files = ["chain.pem", "key.pem"].map(|name| setup.folder().join(name));
    std::fs::write(&files[0], own.self_signed(&pair).expect("ours").pem()).expect("the folder is ours");
    std::fs::write(&files[1], pair.serialize_pem()).expect("the folder is ours");
    let daemon =
        setup.with_lines(&format!("[[certificates]]\nchain = {:?}\nkey = {:?}", files[0], files[1])).start();
    let to = daemon.address;
    python.args(["-c", PYTHON, &to.ip().to_string(), &to.port().to_string()]);
    let output = wait::succeed(&mut python, wait::PATIENCE);
    assert!(String::from_utf8_lossy(&output.stdout).contains("queued as"));
    daemon.wait_until_said("its mail waits");
    assert_eq!((daemon.owed(), sink.end().counters.recipients), (1, 0));
}
