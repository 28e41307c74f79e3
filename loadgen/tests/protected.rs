//! The sink as a provider: TLS, faults around it, PROXY, SOCKS5, and what it reports of who came.

#![allow(clippy::unwrap_used, reason = "a test may end at what it did not expect")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

use common::{ANY, Sink};
use loadgen::sink::{Fault, SinkConfig, TlsConfig, TlsMode, TlsVersion};
use loadgen::socks5::{self, Login, Socks5Config};
use loadgen::stop::Stop;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const MESSAGE: &str = "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 4 LAST\r\nhi\r\n";

fn faulty(fault: &str) -> impl FnOnce(&mut SinkConfig) {
    let fault = fault.parse().unwrap();
    |config| {
        config.tls = Some(TlsConfig::new(TlsMode::Offer));
        config.faults.push(fault);
    }
}

/// The next reply, all its lines.
fn reply(stream: &mut impl Read) -> String {
    let (mut text, mut octet) = (String::new(), [0]);
    loop {
        stream.read_exact(&mut octet).unwrap();
        text.push(char::from(octet[0]));
        let last = text.lines().last().unwrap_or_default();
        if text.ends_with('\n') && last.as_bytes().get(3) == Some(&b' ') {
            return text;
        }
    }
}

/// Says each line and gives back the codes of the replies.
fn talk(stream: &mut (impl Read + Write), said: &str, replies: usize) -> Vec<u16> {
    stream.write_all(said.as_bytes()).unwrap();
    (0..replies).map(|_| reply(stream)[..3].parse().unwrap()).collect()
}

/// STARTTLS is granted; nothing of TLS has been said.
fn until_tls(sink: &Sink) -> TcpStream {
    let mut stream = sink.connect();
    assert_eq!(talk(&mut stream, "EHLO x\r\nSTARTTLS\r\n", 3), [220, 250, 220]);
    stream
}

/// A folder with the authority of a sink, and a client that trusts no other.
struct Trust(tempfile::TempDir);

impl Trust {
    fn new() -> Trust {
        Trust(tempfile::tempdir().unwrap())
    }

    fn tls(&self, mode: TlsMode) -> TlsConfig {
        TlsConfig { authority_out: Some(self.0.path().join("ca.pem")), ..TlsConfig::new(mode) }
    }

    fn client(&self, certificate: Option<rcgen::CertifiedKey<rcgen::KeyPair>>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.0.path().join("ca.pem")).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match certificate {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
                builder.with_client_auth_cert(vec![own.cert.der().clone()], key.into()).unwrap()
            }
        })
    }
}

fn secure(stream: TcpStream, config: &Arc<ClientConfig>) -> StreamOwned<ClientConnection, TcpStream> {
    let name = "loadgen.test".try_into().unwrap();
    StreamOwned::new(ClientConnection::new(config.clone(), name).unwrap(), stream)
}

#[test]
fn handshakes_are_counted_full_and_resumed_in_either_version() {
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        for resumption in [true, false] {
            let trust = Trust::new();
            let tls = TlsConfig { version: Some(version), resumption, ..trust.tls(TlsMode::Require) };
            let sink = Sink::start(|config| config.tls = Some(tls));
            let client = trust.client(None);
            for _ in 0..3 {
                let mut stream = secure(until_tls(&sink), &client);
                let said = format!("EHLO x\r\n{MESSAGE}QUIT\r\n");
                assert_eq!(talk(&mut stream, &said, 5), [250, 250, 250, 250, 221]);
                assert_eq!(stream.read(&mut [0]).unwrap(), 0, "close_notify, not a torn stream");
            }
            let seen = sink.end().counters;
            let name = if version == TlsVersion::V1_2 { "TLSv1.2" } else { "TLSv1.3" };
            let resumed = if resumption { 2 } else { 0 };
            assert_eq!((seen.tls_handshakes, seen.tls_resumed, seen.tls_failed), (3, resumed, 0));
            assert_eq!((seen.tls_versions[name], seen.transactions), (3, 3));
        }
    }
}

#[test]
fn implicit_tls_greets_under_tls_and_records_the_client_certificate() {
    let trust = Trust::new();
    let tls = TlsConfig { ask_client_certificate: true, ..trust.tls(TlsMode::Implicit) };
    let record = trust.0.path().join("connections");
    let sink = Sink::start(|config| (config.tls, config.connections) = (Some(tls), Some(record.clone())));
    let own = rcgen::generate_simple_self_signed(["client.test".to_owned()]).unwrap();
    let mut stream = secure(sink.connect(), &trust.client(Some(own)));
    assert_eq!(talk(&mut stream, "EHLO mta.test\r\nQUIT\r\n", 3), [220, 250, 221]);
    drop(stream);
    assert_eq!(sink.end().counters.tls_client_certificates, 1);
    let line = std::fs::read_to_string(record).unwrap();
    let fields: Vec<&str> = line.trim_end().split('\t').collect();
    assert_eq!(fields.len(), 15);
    assert_eq!(fields[5..7], ["mta.test", "TLSv1_3"]);
    assert_eq!((fields[9], fields[10].len(), fields[14]), ("loadgen.test", 64, "quit"));
}

#[test]
fn a_large_content_arrives_whole_under_tls() {
    let trust = Trust::new();
    let sink = Sink::start(|config| config.tls = Some(trust.tls(TlsMode::Offer)));
    let mut stream = secure(until_tls(&sink), &trust.client(None));
    let content = "x".repeat(3_000_000);
    let said = format!("EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<c@d>\r\nBDAT 3000000 LAST\r\n{content}");
    assert_eq!(talk(&mut stream, &said, 4), [250, 250, 250, 250]);
    assert_eq!(sink.end().counters.bytes, 3_000_000);
}

#[test]
fn a_broken_handshake_is_broken_as_asked() {
    let cases: [(&str, &[u8]); 3] = [
        ("handshake=garbage", b"\xff\xfe\x00garbage\r\nneither a reply nor TLS\r\n"),
        ("handshake=alert", &[21, 3, 3, 0, 2, 2, 40]),
        ("handshake=close", b""),
    ];
    for (fault, expected) in cases {
        let sink = Sink::start(faulty(fault));
        let mut octets = Vec::new();
        until_tls(&sink).read_to_end(&mut octets).unwrap();
        assert_eq!(octets, expected, "{fault}");
        assert_eq!(sink.end().counters.tls_failed, 1);
    }
}

#[test]
fn a_reset_is_one_and_silence_lasts() {
    for (fault, said) in [("handshake=reset", ""), ("quit=reset", "QUIT\r\n"), ("content=reset", MESSAGE)] {
        let sink = Sink::start(faulty(fault));
        let mut stream = sink.connect();
        stream.write_all(b"EHLO x\r\n").unwrap();
        stream.write_all(if said.is_empty() { "STARTTLS\r\n" } else { said }.as_bytes()).unwrap();
        let error = stream.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{fault}");
        assert_eq!(sink.end().counters.connections_dropped, 1);
    }
    let sink = Sink::start(faulty("handshake=silence"));
    let mut stream = until_tls(&sink);
    stream.write_all(b"hello?").unwrap();
    sink.end();
    assert!(!matches!(stream.read(&mut [0]), Ok(1..)), "only the sink's end ends it");
}

#[test]
fn a_proxy_header_names_the_source_and_replies_follow_it() {
    let sink = Sink::start(|config| {
        config.proxy_protocol = true;
        config.faults.push(Fault::reply("mail[source=127.0.0.77]=421 4.7.28 Not you").unwrap());
    });
    let said = |source: &str, replies| {
        let said = format!("PROXY TCP4 {source} 127.0.0.1 999 25\r\nEHLO x\r\nMAIL FROM:<a@b>\r\n");
        talk(&mut sink.connect(), &said, replies)
    };
    assert_eq!(said("127.0.0.77", 3), [220, 250, 421]);
    assert_eq!(said("127.0.0.78", 3), [220, 250, 250]);
    let mut refused = sink.connect();
    refused.write_all(b"EHLO x\r\n").unwrap();
    assert!(!matches!(refused.read(&mut [0]), Ok(1..)));
    let report = sink.end();
    let sources: Vec<IpAddr> = report.sources.iter().map(|seen| seen.source).collect();
    assert_eq!(sources, [IpAddr::from([127, 0, 0, 77]), IpAddr::from([127, 0, 0, 78])]);
    assert_eq!((report.counters.proxy_refused, report.sources[0].mails), (1, 1));
}

fn connect_from(source: [u8; 4], address: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    socket.into()
}

#[test]
fn peaks_are_kept_for_each_source() {
    let sink = Sink::start(|config| config.windows = vec![3600]);
    for (octet, at_a_time) in [(5, 3), (6, 1)] {
        let mut open: Vec<TcpStream> =
            (0..at_a_time).map(|_| connect_from([127, 0, 0, octet], sink.address)).collect();
        for stream in &mut open {
            let said = format!("EHLO mta{octet}.test\r\n{MESSAGE}{MESSAGE}");
            talk(stream, &said, 8);
        }
        for stream in &mut open {
            assert_eq!(talk(stream, "QUIT\r\n", 1), [221]);
        }
    }
    let report = sink.end();
    let [five, six] = &report.sources[..] else { panic!("two sources: {:?}", report.sources) };
    assert_eq!((five.connections_open_peak, six.connections_open_peak), (3, 1));
    assert_eq!((five.messages, five.messages_peak[&3600], six.messages_peak[&3600]), (6, 6, 2));
    assert!(five.helo_names.contains("mta5.test") && report.pairs.is_empty());
}

fn socks(
    login: Option<Login>,
    sink: &Sink,
) -> (SocketAddr, Stop, JoinHandle<socks5::Socks5Report>, [u8; 10]) {
    let config = Socks5Config { login, ..Socks5Config::on(ANY.parse().unwrap()) };
    let (stop, (bound, address)) = (Stop::new(), channel());
    let stopped = stop.clone();
    let thread = std::thread::spawn(move || {
        socks5::run_until(&config, &stopped, |address| bound.send(address).unwrap()).unwrap()
    });
    let [high, low] = sink.address.port().to_be_bytes();
    (address.recv().unwrap(), stop, thread, [5, 1, 0, 1, 127, 0, 0, 1, high, low])
}

#[test]
fn a_socks_proxy_carries_the_dialogue() {
    let sink = Sink::start(|_| {});
    let (proxy, stop, thread, request) = socks(None, &sink);
    let mut stream = TcpStream::connect(proxy).unwrap();
    stream.write_all(&[5, 2, 2, 0]).unwrap();
    stream.write_all(&request).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..4], [5, 0, 5, 0]);
    assert_eq!(talk(&mut stream, &format!("EHLO x\r\n{MESSAGE}QUIT\r\n"), 6), [220, 250, 250, 250, 250, 221]);
    drop(stream);
    stop.stop();
    assert_eq!(thread.join().unwrap().granted, 1);
    assert_eq!(sink.end().counters.transactions, 1);
}

#[test]
fn a_socks_proxy_wants_the_right_password_and_loopback() {
    let sink = Sink::start(|_| {});
    let login = Login { user: "u".into(), password: "p".into() };
    let (proxy, stop, thread, mut request) = socks(Some(login), &sink);
    let ask = |said: &[u8]| {
        let mut stream = TcpStream::connect(proxy).unwrap();
        stream.write_all(said).unwrap();
        let mut answer = Vec::new();
        let _ends_with_reset_or_not = stream.read_to_end(&mut answer);
        answer
    };
    assert_eq!(ask(&[5, 1, 0]), [5, 0xff]);
    assert_eq!(ask(b"\x05\x01\x02\x01\x01u\x01x"), [5, 2, 1, 1]);
    request[4] = 8; // 8.0.0.1: load must not leave the machine
    let answer = ask(&[&b"\x05\x01\x02\x01\x01u\x01p"[..], &request].concat());
    assert_eq!(answer[..6], [5, 2, 1, 0, 5, 2]);
    stop.stop();
    let report = thread.join().unwrap();
    assert_eq!((report.unauthenticated, report.refused, report.granted), (2, 1, 0));
    sink.end();
}
