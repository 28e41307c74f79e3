//! Reports about TLS (RFC 8460), from what a daemon gathered on an earlier day to those who asked for them.

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime};
use tests::names::{A, Names, Said, TXT};
use tests::process::{Setup, Sink};

const RUN_MAX: Duration = Duration::from_secs(60);

/// What a poster said: the head of its request, and the report in it.
struct Posted {
    head: String,
    report: Value,
}

/// Takes one report over HTTPS at `reports.test`; its certificate, which vouches for itself, is in `ca.pem` afterwards.
fn receiver(folder: &Path) -> (u16, mpsc::Receiver<Posted>) {
    let key = KeyPair::generate().expect("a key");
    let names = ["reports.test".to_owned()];
    let certificate = CertificateParams::new(names).expect("a name").self_signed(&key).expect("ours");
    std::fs::write(folder.join("ca.pem"), certificate.pem()).expect("the folder is ours");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has suites")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("the key is the certificate's");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let (send, posted) = mpsc::channel();
    let config = Arc::new(config);
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let tls = rustls::ServerConnection::new(Arc::clone(&config)).expect("a good configuration");
            if let Some(posted) = take(rustls::StreamOwned::new(tls, stream)) {
                let _ = send.send(posted);
            }
        }
    });
    (port, posted)
}

fn take(mut stream: rustls::StreamOwned<rustls::ServerConnection, std::net::TcpStream>) -> Option<Posted> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let len = stream.read(&mut buffer).ok().filter(|len| *len > 0)?;
        bytes.extend(&buffer[..len]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse::<usize>().ok()?;
        if bytes.len() < end + 4 + length {
            continue;
        }
        let mut text = String::new();
        flate2::read::GzDecoder::new(&bytes[end + 4..]).read_to_string(&mut text).ok()?;
        stream.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").ok()?;
        return Some(Posted { head, report: serde_json::from_str(&text).ok()? });
    }
}

/// What the daemon left behind: two domains' sessions of the day before yesterday.
fn gathered() -> Value {
    let since = SystemTime::UNIX_EPOCH.elapsed().expect("a clock after 1970").as_secs();
    let day = (since / 86_400 - 2).to_string();
    let detail = json!({
        "result": "certificate-expired", "host": "mx.a.test", "receiving": "192.0.2.1", "sending": null,
        "text": "it expired", "count": 2,
    });
    let account = json!({ "policies": [{
        "kind": "sts", "lines": ["version: STSv1"], "mx": ["mx.a.test"],
        "successes": 5, "failures": 2, "details": [detail],
    }] });
    json!({ "days": { day: { "a.test": account, "silent.test": account } } })
}

#[test]
fn a_day_is_told_by_https_and_by_mail_and_then_forgotten() {
    let sink = Sink::start(&[]);
    let folder = tests::process::setup::temporary_folder();
    let (port, posted) = receiver(folder.path());
    let text = format!("v=TLSRPTv1; rua=https://reports.test:{port}/v1?x=1,mailto:tls@b.test");
    let names = Names::start(move |name, kind| match (name, kind) {
        ("_smtp._tls.a.test", TXT) => Said::text(&text),
        ("reports.test", A) => Said::addresses(&[[127, 0, 0, 1]]),
        ("reports.test", _) => Said::NoData,
        _ => Said::NoName,
    });
    let mut reports = toml::Table::new();
    reports.insert("organization".into(), "Example, Inc.".into());
    reports.insert("contact".into(), "postmaster@process.test".into());
    let setup = Setup::new()
        .relay(sink.address)
        .with("delivery.name_servers", vec![names.address.to_string()])
        .with("tls.ca_file", folder.path().join("ca.pem").display().to_string())
        .with("tls.reports", reports);
    std::fs::create_dir_all(setup.queue()).expect("the folder is ours");
    let file = setup.queue().join("tlsrpt.json");
    std::fs::write(&file, gathered().to_string()).expect("the folder is ours");
    let daemon = setup.start();
    let posted = posted.recv_timeout(RUN_MAX).expect("a report");
    assert!(posted.head.starts_with("post /v1?x=1 http/1.1\r\n"), "{}", posted.head);
    assert!(posted.head.contains("content-type: application/tlsrpt+gzip"), "{}", posted.head);
    let policy = &posted.report["policies"][0];
    assert_eq!(posted.report["contact-info"], "postmaster@process.test");
    assert_eq!(policy["policy"]["policy-domain"], "a.test");
    assert_eq!(policy["summary"]["total-failure-session-count"], 2);
    assert_eq!(policy["failure-details"][0]["result-type"], "certificate-expired");
    daemon.wait_for("delivered", 1, RUN_MAX);
    let _stopped = daemon.terminate();
    let left: Value = serde_json::from_slice(&std::fs::read(&file).expect("it is there")).expect("JSON");
    // The report's own way out is a session of today, in plain text.
    let days: Vec<&Value> = left["days"].as_object().expect("an object").values().collect();
    assert_eq!(days.len(), 1, "{left}");
    assert_eq!(days[0].as_object().expect("an object").keys().collect::<Vec<_>>(), ["b.test"]);
    let details = &days[0]["b.test"]["policies"][0]["details"][0];
    assert_eq!((&details["result"], &details["count"]), (&"starttls-not-supported".into(), &1.into()));
    assert_eq!(sink.end().forward_paths().into_iter().collect::<Vec<_>>(), ["tls@b.test"]);
    assert_eq!((names.asked("_smtp._tls.a.test", TXT), names.asked("_smtp._tls.silent.test", TXT)), (1, 1));
}
