//! Clients and servers that others wrote, at both ends of the daemon.
//!
//! `RINGPOST_INTEROP=required` makes a missing program a failure; without it, its test says so and passes.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tests::process::{Daemon, Setup, Sink, SmtpSink, peer, setup, wait};

const RUN_MAX: Duration = Duration::from_secs(180);

/// Header, dots at line starts, an empty line at the end of it all, a line of 900 octets.
fn letter() -> String {
    let long = "x".repeat(900);
    format!(
        "From: ann@here.test\nTo: bob@there.test\nSubject: as it was\nMessage-ID: <1@here.test>\n\
         X-Loadgen: 1-1\n\nHello\n.\n..\n.dot\n\ttab and space \n{long}\n--\nBye\n"
    )
}

/// Octets above 127 in the body.
fn letter_in_utf8() -> String {
    letter().replace("Hello", "Grüße, 世界")
}

// ---- in bulk ----

fn bulk(messages: u64, options: &[&str]) {
    let (Some(mut source), Some(sink)) = (peer("smtp-source"), SmtpSink::start(false)) else { return };
    let daemon = Setup::new().relay(sink.address).on_cpus(&[0, 1]).start();
    let count = messages.to_string();
    source.args(options).args([
        "-s",
        "50",
        "-l",
        "4096",
        "-m",
        &count,
        "-f",
        "a@here.test",
        "-t",
        "b@there.test",
    ]);
    wait::succeed(source.arg(daemon.address.to_string()), RUN_MAX);
    daemon.wait_until_empty(RUN_MAX);
    let metrics = daemon.metrics();
    let of = |name: &str| metrics[name];
    assert_eq!((of("accepted_messages"), of("delivered")), (messages, messages));
    assert_eq!((of("failed"), of("ambiguous")), (0, 0));
    wait::until("smtp-sink's count", wait::PATIENCE, || sink.messages() >= messages);
    assert_eq!(sink.messages(), messages);
}

#[test]
fn twenty_thousand_messages_of_kept_smtp_source_sessions_reach_smtp_sink() {
    bulk(20_000, &["-d"]);
}

#[test]
fn a_session_per_message_of_smtp_source_reaches_smtp_sink() {
    bulk(2_000, &[]);
}

// ---- one message, byte for byte ----

/// What smtp-sink keeps of one message: envelope, header fields of those who passed it on, and the rest.
#[derive(Debug, Eq, PartialEq)]
struct Kept {
    envelope: Vec<String>,
    received_count: usize,
    content: Vec<u8>,
}

impl Kept {
    fn of(dump: &[u8]) -> Kept {
        let mut kept = Kept { envelope: Vec::new(), received_count: 0, content: Vec::new() };
        let mut rest = dump;
        loop {
            let end = rest.iter().position(|octet| *octet == b'\n').expect("a header ends") + 1;
            let line = String::from_utf8_lossy(&rest[..end]).trim_end().to_owned();
            match line.as_bytes() {
                [b'X', b'-', b'M' | b'R', ..] => kept.envelope.push(without_parameters(&line)),
                [b'X', b'-', b'C' | b'H', ..] | [b'\t', ..] => {}
                _ if line.starts_with("Received:") => kept.received_count += 1,
                _ => break,
            }
            rest = &rest[end..];
        }
        kept.content = rest.to_owned();
        kept
    }
}

/// `X-Mail-Args: <a@b> SIZE=3` without what a client adds of its own accord.
fn without_parameters(line: &str) -> String {
    line.split_inclusive('>').next().unwrap_or(line).to_owned()
}

/// Sends once past the daemon and once through it; nothing but the Received field may differ.
fn arrives_as_it_was(send: impl Fn(&str, u16)) {
    let (Some(straight), Some(behind)) = (SmtpSink::start(true), SmtpSink::start(true)) else { return };
    let daemon = Setup::new().relay(behind.address).start();
    send("127.0.0.1", straight.address.port());
    send("127.0.0.1", daemon.address.port());
    let (straight, behind) = (Kept::of(&straight.kept(1)), Kept::of(&behind.kept(1)));
    assert_eq!(behind.envelope, straight.envelope);
    assert_eq!((straight.received_count, behind.received_count), (1, 2));
    assert_eq!(String::from_utf8_lossy(&behind.content), String::from_utf8_lossy(&straight.content));
    assert_eq!(behind.content, straight.content);
    assert!(straight.content.ends_with(b"Bye\n") || straight.content.ends_with(b"\n\n"));
}

/// A file with the letter; the folder goes with the value.
fn file_of(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = setup::temporary_folder();
    let file = folder.path().join("letter");
    std::fs::write(&file, text).expect("ours");
    (folder, file)
}

#[test]
fn a_message_of_swaks_arrives_as_it_was() {
    if peer("swaks").is_none() {
        return;
    }
    let (_folder, file) = file_of(&letter_in_utf8());
    arrives_as_it_was(|host, port| {
        let mut swaks = peer("swaks").expect("it was there");
        swaks.args([
            "--server",
            host,
            "--port",
            &port.to_string(),
            "--from",
            "ann@here.test",
            "--to",
            "bob@there.test",
        ]);
        wait::succeed(swaks.arg("--data").arg(format!("@{}", file.display())), RUN_MAX);
    });
}

#[test]
fn a_message_of_curl_arrives_as_it_was() {
    let Some(mut curl) = peer("curl") else { return };
    let version = wait::succeed(curl.arg("--version"), RUN_MAX);
    if !String::from_utf8_lossy(&version.stdout).contains(" smtp ") {
        return peer::skip("this curl knows no SMTP");
    }
    let (_folder, file) = file_of(&letter().replace('\n', "\r\n"));
    arrives_as_it_was(|host, port| {
        let mut curl = peer("curl").expect("it was there");
        curl.args(["--silent", "--show-error", "--url", &format!("smtp://{host}:{port}/client.test")]);
        curl.args(["--mail-from", "ann@here.test", "--mail-rcpt", "bob@there.test", "--upload-file"]);
        wait::succeed(curl.arg(&file), RUN_MAX);
    });
}

/// Argument 1 and 2: host and port; 3: the file; the rest: sender, recipient, options of MAIL.
const SMTPLIB: &str = r#"
import smtplib, sys
host, port, file, sender, recipient, *options = sys.argv[1:]
content = open(file, 'rb').read().replace(b'\n', b'\r\n')
with smtplib.SMTP(host, int(port), timeout=30) as server:
    server.ehlo()
    refused = server.sendmail(sender, [recipient], content, mail_options=options)
    assert not refused, refused
"#;

fn smtplib(python: &mut Command, host: &str, port: u16, file: &PathBuf, rest: &[&str]) {
    python.args(["-c", SMTPLIB, host, &port.to_string()]).arg(file).args(rest);
    wait::succeed(python, RUN_MAX);
}

#[test]
fn an_eight_bit_message_of_smtplib_arrives_as_it_was() {
    if peer("python3").is_none() {
        return;
    }
    let (_folder, file) = file_of(&letter_in_utf8());
    arrives_as_it_was(|host, port| {
        let rest = ["ann@here.test", "bob@there.test", "body=8bitmime"];
        smtplib(&mut peer("python3").expect("it was there"), host, port, &file, &rest);
    });
}

/// smtp-sink has no SMTPUTF8; loadgen's sink does, and its digest begins below the fields of those who passed it on.
#[test]
fn an_internationalised_message_of_smtplib_arrives_as_it_was() {
    if peer("python3").is_none() {
        return;
    }
    let subject = "X-Loadgen: 1-1\nSubject: Grüße aus 東京";
    let text =
        letter_in_utf8().replace("X-Loadgen: 1-1\n", "").replace("From:", &format!("{subject}\nFrom:"));
    let (_folder, file) = file_of(&text);
    let (straight, behind) = (Sink::start(&[]), Sink::start(&[]));
    let daemon = Setup::new().relay(behind.address).start();
    for port in [straight.address.port(), daemon.address.port()] {
        let rest = ["jörg@here.test", "δοκιμή@παράδειγμα.test", "smtputf8", "body=8bitmime"];
        smtplib(&mut peer("python3").expect("it was there"), "127.0.0.1", port, &file, &rest);
    }
    let (straight, behind) =
        (straight.wait_for_deliveries(1, RUN_MAX), behind.wait_for_deliveries(1, RUN_MAX));
    assert_eq!(behind[0].digest, straight[0].digest);
    assert_eq!((behind[0].reverse_path.as_str(), behind[0].token.as_str()), ("jörg@here.test", "1-1"));
    assert_eq!(behind[0].forward_path, straight[0].forward_path);
}

#[test]
fn an_internationalised_address_is_returned_where_the_peer_cannot_take_it() {
    let (Some(mut python), Some(sink)) = (peer("python3"), SmtpSink::start(true)) else { return };
    let (_folder, file) = file_of(&letter());
    let daemon = Setup::new().relay(sink.address).start();
    let rest = ["ann@here.test", "jörg@there.test", "smtputf8"];
    smtplib(&mut python, "127.0.0.1", daemon.address.port(), &file, &rest);
    let bounce = returned(daemon, sink);
    assert!(bounce.contains("X-Rcpt-Args: <ann@here.test>"), "{bounce}");
    assert!(bounce.contains("5.6.7"), "{bounce}");
}

#[test]
fn one_internationalised_member_costs_the_others_nothing_where_the_peer_takes_ascii_alone() {
    let Some(sink) = SmtpSink::start(true) else { return };
    let daemon = Setup::new().relay(sink.address).start();
    let mut client = daemon.client();
    client.say_expecting("MAIL FROM:<list@here.test> SMTPUTF8", "250");
    for member in ["ann@there.test", "j\u{f6}rg@there.test", "bob@there.test", "\u{e4}gir@there.test"] {
        client.say_expecting(&format!("RCPT TO:<{member}>"), "250");
    }
    client.say_expecting("DATA", "354");
    client.say_expecting("From: list@here.test\r\nSubject: news\r\n\r\nGr\u{fc}\u{df}e\r\n.", "250");
    daemon.wait_until_empty(RUN_MAX);
    // One transaction for both who can have it, and one for the bounce of those who cannot.
    let kept = String::from_utf8_lossy(&sink.kept(2)).into_owned();
    for member in ["<ann@there.test>", "<bob@there.test>", "<list@here.test>"] {
        assert_eq!(kept.matches(&format!("X-Rcpt-Args: {member}")).count(), 1, "{kept}");
    }
    assert!(kept.contains("5.6.7") && kept.contains("j\u{f6}rg@there.test"), "{kept}");
}

/// The one bounce that smtp-sink has in the end.
fn returned(daemon: Daemon, sink: SmtpSink) -> String {
    daemon.wait_for("bounces", 1, RUN_MAX);
    daemon.wait_until_empty(RUN_MAX);
    String::from_utf8_lossy(&sink.kept(1)).into_owned()
}
