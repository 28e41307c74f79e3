//! TLS to hosts that offer it, break it, lack it, or show the right or the wrong certificate.

use rcgen::{CertificateParams, KeyPair};
use std::path::Path;
use std::time::Duration;
use tests::process::source::{self, assert_clean, audit, newsletter};
use tests::process::{Client, Daemon, NameServer, Setup, Sink, peer, setup, wait};

const RUN_MAX: Duration = Duration::from_secs(120);

/// The only host of `a.test`.
const HOST: &str = "mx.a.test";

/// A daemon for which `a.test` is at this sink. Each message has a connection of its own.
fn start(sink: &Sink, lines: &str) -> Option<(NameServer, Daemon)> {
    let records = ["--mx-host=a.test,mx.a.test,10", "--host-record=mx.a.test,127.0.0.1"];
    let server = NameServer::start(&records.map(str::to_owned))?;
    let setup = Setup::new().by_mx(&server, sink.address.port());
    let daemon = setup.with("delivery.messages_per_connection", 1).with_lines(lines).start();
    Some((server, daemon))
}

/// A sink with TLS whose certificate is for [`HOST`].
fn offering(options: &[&str]) -> Sink {
    Sink::start(&[&["--tls", "offer", "--name", HOST], options].concat())
}

/// Sends one message to `a.test` and waits for its delivery, the `nth`.
fn delivers(daemon: &Daemon, nth: u64) {
    daemon.client().deliver("ann@here.test", &[&format!("u{nth}@a.test")]);
    daemon.wait_for("delivered", nth, RUN_MAX);
}

/// The site waits, for a reason of TLS (RFC 3463: 4.7.x), and the sink has none of the mail.
fn waits_for_tls(daemon: &Daemon, sink: Sink) {
    daemon.client().deliver("ann@here.test", &["bob@a.test"]);
    daemon.wait_until_said("its mail waits");
    daemon.wait_for_at_least("tls_failures", 1, RUN_MAX);
    assert!(daemon.talk().contains("reason=\"451 4.7."), "{}", daemon.talk());
    let metrics = daemon.metrics();
    assert_eq!((metrics["queued_recipients"], metrics["plain_connections"]), (1, 0));
    assert_eq!((metrics["delivered"], metrics["failed"]), (0, 0));
    assert_eq!(sink.end().counters.recipients, 0);
}

/// What openssl says of a certificate: its SHA-256, in hex with colons.
fn fingerprint(certificate: &Path) -> Option<String> {
    let mut openssl = peer("openssl")?;
    let words = ["x509", "-noout", "-fingerprint", "-sha256", "-in"];
    let output = wait::succeed(openssl.args(words).arg(certificate), wait::PATIENCE);
    let text = String::from_utf8(output.stdout).expect("it prints text");
    Some(text.split_once('=').expect("name=digest").1.trim().to_owned())
}

// ---- opportunistic ----

#[test]
fn tls_is_used_where_it_is_offered_and_taken_up_again() {
    let sink = offering(&[]);
    let Some((_server, daemon)) = start(&sink, "") else { return };
    (1..=3).for_each(|nth| delivers(&daemon, nth));
    assert_eq!(daemon.last_word_on("u1@a.test")["tls"], "TLS 1.3");
    assert_eq!((daemon.metric("tls_handshakes"), daemon.metric("tls_resumed")), (3, 2));
    let counters = sink.end().counters;
    assert_eq!((counters.tls_handshakes, counters.tls_resumed, counters.tls_failed), (3, 2, 0));
    assert_eq!((counters.tls_versions.get("TLSv1.3"), counters.starttls_injected), (Some(&3), 0));
}

#[test]
fn tls_1_2_is_used_where_there_is_no_other() {
    let sink = offering(&["--tls-version", "1.2", "--no-resumption"]);
    let Some((_server, daemon)) = start(&sink, "") else { return };
    (1..=2).for_each(|nth| delivers(&daemon, nth));
    assert_eq!(daemon.last_word_on("u1@a.test")["tls"], "TLS 1.2");
    let counters = sink.end().counters;
    assert_eq!((counters.tls_versions.get("TLSv1.2"), counters.tls_resumed), (Some(&2), 0));
}

/// One try of TLS, and from then on none.
fn goes_on_in_plain_text(broken: &str) {
    let sink = offering(&["--broken-tls", broken]);
    let Some((_server, daemon)) = start(&sink, "") else { return };
    (1..=3).for_each(|nth| delivers(&daemon, nth));
    assert_eq!((daemon.metric("deferred"), daemon.metric("tls_failures")), (0, 1));
    assert_eq!(daemon.metric("plain_connections"), 3);
    assert_eq!(daemon.last_word_on("u3@a.test")["tls"], "");
    let counters = sink.end().counters;
    // Also where what is broken comes in one piece with the 220.
    assert_eq!((counters.recipients, counters.tls_handshakes, counters.tls_failed), (3, 0, 1));
    assert_eq!(counters.connections, 4);
}

#[test]
fn host_that_answers_the_handshake_with_garbage_gets_plain_text() {
    goes_on_in_plain_text("garbage");
}

#[test]
fn host_that_answers_the_handshake_with_an_alert_gets_plain_text() {
    goes_on_in_plain_text("alert");
}

#[test]
fn host_that_closes_in_the_handshake_gets_plain_text() {
    goes_on_in_plain_text("close");
}

#[test]
fn host_that_resets_in_the_handshake_gets_plain_text() {
    goes_on_in_plain_text("reset");
}

#[test]
fn host_that_refuses_starttls_gets_plain_text() {
    let sink = offering(&["--reply", "starttls=454 4.7.0 TLS not available"]);
    let Some((_server, daemon)) = start(&sink, "") else { return };
    (1..=2).for_each(|nth| delivers(&daemon, nth));
    assert_eq!((sink.end().counters.tls_handshakes, daemon.metric("deferred")), (0, 0));
}

#[test]
fn mode_never_leaves_an_offer_alone() {
    let sink = offering(&[]);
    let Some((_server, daemon)) = start(&sink, "tls.mode = \"never\"") else { return };
    delivers(&daemon, 1);
    let counters = sink.end().counters;
    assert_eq!((counters.recipients, counters.tls_handshakes, counters.tls_failed), (1, 0, 0));
}

// ---- demanded ----

const ENCRYPT: &str = "[tls.domains.\"a.test\"]\nmode = \"encrypt\"";
const VERIFY: &str = "[tls.domains.\"a.test\"]\nmode = \"verify\"";

#[test]
fn demanded_encryption_is_satisfied_by_any_certificate() {
    let sink = Sink::start(&["--tls", "require", "--name", "elsewhere.test"]);
    let Some((_server, daemon)) = start(&sink, ENCRYPT) else { return };
    delivers(&daemon, 1);
    assert_eq!(sink.end().counters.tls_handshakes, 1);
}

#[test]
fn mail_that_must_be_encrypted_waits_where_tls_is_not_offered() {
    let sink = Sink::start(&[]);
    let Some((_server, daemon)) = start(&sink, ENCRYPT) else { return };
    waits_for_tls(&daemon, sink);
}

#[test]
fn mail_that_must_be_encrypted_waits_where_tls_is_broken() {
    let sink = offering(&["--broken-tls", "garbage"]);
    let Some((_server, daemon)) = start(&sink, ENCRYPT) else { return };
    waits_for_tls(&daemon, sink);
}

#[test]
fn mode_encrypt_holds_for_a_relay_too() {
    let sink = Sink::start(&[]);
    let daemon = Setup::new().relay(sink.address).with("tls.mode", "encrypt").start();
    waits_for_tls(&daemon, sink);
}

#[test]
fn mail_that_could_never_be_encrypted_is_returned_with_that_reason() {
    let (sink, returns) = (Sink::start(&[]), Sink::start(&[]));
    let lines =
        format!("{ENCRYPT}\n[retry]\nlifetime_secs = 3\n[routes]\n\"here.test\" = \"{}\"", returns.address);
    let Some((_server, daemon)) = start(&sink, &lines) else { return };
    daemon.client().deliver("ann@here.test", &["bob@a.test"]);
    daemon.wait_for("bounces", 1, RUN_MAX);
    daemon.wait_until_empty(RUN_MAX);
    let word = daemon.last_word_on("bob@a.test");
    assert_eq!(word["verdict"], "failed", "{word}");
    assert!(word["reply"].as_str().is_some_and(|reply| reply.contains("TLS")), "{word}");
    assert_eq!((sink.end().counters.recipients, returns.end().counters.recipients), (0, 1));
}

/// A sink with a certificate of an authority, and lines that trust one: that one, or one of the same name.
fn authorities(sink_name: &str, trusts_it: bool) -> (tempfile::TempDir, Sink, String) {
    let folder = setup::temporary_folder();
    let file = |name: &str| folder.path().join(name).to_str().expect("plain names").to_owned();
    let (own, other) = (file("own.pem"), file("other.pem"));
    let sink = Sink::start(&["--tls", "offer", "--name", sink_name, "--ca-out", &own]);
    let _other = Sink::start(&["--tls", "offer", "--name", sink_name, "--ca-out", &other]);
    let lines = format!("tls.ca_file = \"{}\"\n{VERIFY}\n", if trusts_it { own } else { other });
    (folder, sink, lines)
}

#[test]
fn certificate_of_a_trusted_authority_for_the_host_is_verified() {
    let (_folder, sink, lines) = authorities(HOST, true);
    let Some((_server, daemon)) = start(&sink, &lines) else { return };
    (1..=2).for_each(|nth| delivers(&daemon, nth));
    assert_eq!(sink.end().counters.tls_handshakes, 2);
}

#[test]
fn certificate_of_another_authority_makes_mail_wait() {
    let (_folder, sink, lines) = authorities(HOST, false);
    let Some((_server, daemon)) = start(&sink, &lines) else { return };
    waits_for_tls(&daemon, sink);
}

#[test]
fn certificate_for_another_host_makes_mail_wait() {
    let (_folder, sink, lines) = authorities("mx.b.test", true);
    let Some((_server, daemon)) = start(&sink, &lines) else { return };
    waits_for_tls(&daemon, sink);
}

#[test]
fn certificate_may_be_for_one_of_the_names_that_are_configured() {
    let (_folder, sink, lines) = authorities("mx.b.test", true);
    let Some((_server, daemon)) = start(&sink, &format!("{lines}names = [\"*.b.test\"]")) else { return };
    delivers(&daemon, 1);
    assert_eq!(sink.end().counters.tls_handshakes, 1);
}

/// A sink, and the fingerprint of its certificate.
fn known_by_fingerprint() -> Option<(tempfile::TempDir, Sink, String)> {
    let folder = setup::temporary_folder();
    let file = folder.path().join("certificate.pem");
    let sink = offering(&["--cert-out", file.to_str().expect("plain names")]);
    let digest = fingerprint(&file)?;
    Some((folder, sink, digest))
}

fn with_fingerprint(digest: &str) -> String {
    format!("[tls.domains.\"a.test\"]\nmode = \"fingerprint\"\nsha256 = [\"{digest}\"]")
}

#[test]
fn certificate_with_the_right_fingerprint_is_trusted() {
    let Some((_folder, sink, digest)) = known_by_fingerprint() else { return };
    let Some((_server, daemon)) = start(&sink, &with_fingerprint(&digest)) else { return };
    (1..=2).for_each(|nth| delivers(&daemon, nth));
    assert_eq!(sink.end().counters.tls_handshakes, 2);
}

#[test]
fn certificate_with_another_fingerprint_makes_mail_wait() {
    let sink = offering(&[]);
    let Some((_server, daemon)) = start(&sink, &with_fingerprint(&"0f".repeat(32))) else { return };
    waits_for_tls(&daemon, sink);
}

#[test]
fn our_certificate_is_shown_to_a_host_that_asks() {
    let folder = setup::temporary_folder();
    let (certificate, key) = (folder.path().join("own.pem"), folder.path().join("key.pem"));
    let pair = KeyPair::generate().expect("a key");
    let own = CertificateParams::new(["relay.process.test".to_owned()]).expect("a name");
    std::fs::write(&certificate, own.self_signed(&pair).expect("ours").pem()).expect("the folder is ours");
    std::fs::write(&key, pair.serialize_pem()).expect("the folder is ours");
    let sink = offering(&["--ask-client-certificate"]);
    let lines = format!("[tls]\ncertificate = \"{}\"\nkey = \"{}\"", certificate.display(), key.display());
    let Some((_server, daemon)) = start(&sink, &lines) else { return };
    delivers(&daemon, 1);
    let counters = sink.end().counters;
    assert_eq!((counters.tls_handshakes, counters.tls_client_certificates), (1, 1));
}

#[test]
fn host_that_asks_for_a_certificate_is_served_without_one() {
    let sink = offering(&["--ask-client-certificate"]);
    let Some((_server, daemon)) = start(&sink, "") else { return };
    delivers(&daemon, 1);
    let counters = sink.end().counters;
    assert_eq!((counters.tls_handshakes, counters.tls_client_certificates), (1, 0));
}

// ---- what goes through it ----

/// 5 MiB in lines of many lengths, with octets above 127 and dots at line starts (stuffed already).
fn large_content() -> String {
    let mut content = String::from("Subject: large\r\nX-Loadgen: 1-1\r\n\r\n");
    let mut state = 1_u32;
    while content.len() < 5 << 20 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let start = content.len();
        content.push_str(if state >> 29 == 0 { ".." } else { "" });
        let mut octets = state;
        while content.len() - start < (state >> 8) as usize % 900 {
            octets = octets.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let char = char::from_u32(0x20 + (octets >> 16) % 0x7e0).unwrap_or(' ');
            content.push(if char == '\u{7f}' { ' ' } else { char });
        }
        content.push_str("\r\n");
    }
    content.push_str("end");
    content
}

fn arrives_as_it_was_sent(options: &[&str]) {
    let (straight, sink) = (Sink::start(&[]), offering(options));
    let Some((_server, daemon)) = start(&sink, "") else { return };
    let content = large_content();
    for to in [straight.address, daemon.address] {
        let reply = Client::greet(to).send("ann@here.test", &["bob@a.test"], &content);
        assert!(reply.starts_with("250"), "{reply}");
    }
    daemon.wait_for("delivered", 1, RUN_MAX);
    let (straight, ended) = (straight.end(), sink.end());
    assert_eq!(ended.deliveries()[0].digest, straight.deliveries()[0].digest);
    assert_eq!((ended.counters.tls_handshakes, ended.counters.recipients), (1, 1));
}

#[test]
fn large_message_arrives_over_tls_as_it_was_sent() {
    arrives_as_it_was_sent(&[]);
}

#[test]
fn large_message_arrives_over_tls_by_data_as_it_was_sent() {
    arrives_as_it_was_sent(&["--no-chunking"]);
}

/// A list with a reverse-path for each recipient, all of it over TLS.
fn serves_a_list(options: &[&str], lines: &str) {
    const COUNT: u64 = 2_000;
    let sink = offering(options);
    let daemon = Setup::new().relay(sink.address).with_lines(lines).start();
    let sent = daemon.setup.folder().join("sent.tsv");
    let report = source::send(newsletter(daemon.address, COUNT, 30_000), sent.clone());
    assert_eq!(report.recipients_accepted, COUNT, "{report:?}");
    daemon.wait_until_empty(RUN_MAX);
    assert_eq!((daemon.metric("delivered"), daemon.metric("plain_connections")), (COUNT, 0));
    let ended = sink.end();
    assert_clean(&audit(&[&sent], &ended, true), 0);
    assert_eq!(ended.counters.tls_handshakes, ended.counters.connections);
    assert_eq!(ended.counters.tls_failed, 0);
}

#[test]
fn list_goes_over_tls_with_many_transactions_in_flight() {
    serves_a_list(&[], "delivery.window_max = 8\ndelivery.messages_per_connection = 150");
}

#[test]
fn list_goes_over_tls_to_a_host_without_chunking() {
    serves_a_list(&["--no-chunking"], "");
}

#[test]
fn list_goes_over_tls_on_two_cores() {
    serves_a_list(&["--close-after", "40"], "cpus = [0, 1]");
}
