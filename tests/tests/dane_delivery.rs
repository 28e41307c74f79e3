//! DANE (RFC 7672) from the signed zone to the last recipient: mail goes to the host that its TLSA records vouch for, and
//! to no other.

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
    let port = sink.address.port();
    let record = format!("_{port}._tcp.mx TLSA {record}");
    let records = ["@ MX 10 mx".to_owned(), "mx A 127.0.0.1".to_owned(), record];
    // Zones live as long as the test process.
    let records: Vec<&'static str> = records.into_iter().map(|record| &*record.leak()).collect();
    let knot = Knot::start(&[Zone { name: "secure", chain, records: records.leak() }])?;
    let setup = Setup::new().with("delivery.name_servers", vec![knot.address.to_string()]);
    let anchors = knot.anchors().to_str().expect("plain names").to_owned();
    let setup = setup.with("delivery.port", i64::from(port)).with("tls.dane", true);
    let daemon = setup.with("tls.trust_anchors", anchors).with("delivery.messages_per_connection", 1).start();
    Some((knot, daemon))
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
