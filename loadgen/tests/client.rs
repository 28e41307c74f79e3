//! The source as a client that has something to show: TLS, a password, a Unix socket.

#![allow(clippy::unwrap_used, reason = "a test may end at what it did not expect")]

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

use common::Sink;
use loadgen::client::{ClientTls, ClientTlsMode, Target};
use loadgen::sink::{Account, SinkReport, TlsConfig, TlsMode};
use loadgen::source::{self, Connection, Mode, SourceConfig, SourceError, SourceReport};

fn account(password: &str) -> Option<Account> {
    Some(Account { user: "news".into(), password: password.into() })
}

fn config(sink: &Sink, tls: ClientTlsMode) -> SourceConfig {
    SourceConfig {
        tls: Some(ClientTls::new(tls)),
        messages: 20,
        sessions: 1,
        size_bytes: 100_000,
        mode: Mode::Bdat,
        connection: Connection::PerMessage,
        ..SourceConfig::to(sink.address)
    }
}

/// What the source says and what the sink saw, each under its own TLS.
fn protected(mode: TlsMode, change: impl FnOnce(&mut SourceConfig)) -> (SourceReport, SinkReport) {
    let sink = Sink::start(|config| config.tls = Some(TlsConfig::new(mode)));
    let client = if mode == TlsMode::Implicit { ClientTlsMode::Implicit } else { ClientTlsMode::StartTls };
    let mut config = config(&sink, client);
    change(&mut config);
    let report = source::run(&config, |_| {}).unwrap();
    (report, sink.end())
}

#[test]
fn messages_go_under_tls_either_way_and_sessions_are_resumed() {
    for mode in [TlsMode::Require, TlsMode::Implicit] {
        let (sent, seen) = protected(mode, |_| {});
        assert_eq!((sent.messages_accepted, seen.counters.bytes), (20, 2_000_000));
        assert_eq!((sent.tls_full, sent.tls_resumed), (1, 19), "{mode:?}");
        assert_eq!((seen.counters.tls_handshakes, seen.counters.tls_resumed), (20, 19));
        assert_eq!((sent.tls_versions["TLSv1.3"], seen.counters.tls_failed), (20, 0));
        assert_eq!(seen.counters.starttls_injected, 0);
    }
}

#[test]
fn without_resumption_each_handshake_is_whole() {
    let (sent, seen) = protected(TlsMode::Offer, |config| {
        config.tls = Some(ClientTls { resumption: false, ..ClientTls::new(ClientTlsMode::StartTls) });
    });
    assert_eq!((sent.tls_full, sent.tls_resumed, seen.counters.tls_resumed), (20, 0, 0));
}

#[test]
fn every_mode_speaks_under_tls() {
    for mode in [Mode::Lockstep, Mode::Pipelined, Mode::Bdat] {
        let (sent, seen) = protected(TlsMode::Require, |config| {
            (config.mode, config.connection, config.window) = (mode, Connection::Kept, 5);
        });
        assert_eq!((sent.messages_accepted, sent.connections), (20, 1), "{mode:?}");
        assert_eq!((seen.counters.transactions, seen.counters.tls_handshakes), (20, 1));
    }
}

#[test]
fn only_the_authority_of_the_file_is_believed() {
    let folder = tempfile::tempdir().unwrap();
    let [own, other] = ["own.pem", "other.pem"].map(|name| folder.path().join(name));
    let tls = |out| TlsConfig { authority_out: Some(out), ..TlsConfig::new(TlsMode::Implicit) };
    let (sink, stranger) = (
        Sink::start(|config| config.tls = Some(tls(own.clone()))),
        Sink::start(|config| config.tls = Some(tls(other))),
    );
    let believing = |sink: &Sink| {
        let tls = ClientTls { ca_file: Some(own.clone()), ..ClientTls::new(ClientTlsMode::Implicit) };
        source::run(&SourceConfig { tls: Some(tls), ..config(sink, ClientTlsMode::Implicit) }, |_| {})
    };
    assert_eq!(believing(&sink).unwrap().messages_accepted, 20);
    let report = believing(&stranger).unwrap();
    assert_eq!((report.messages_accepted, report.messages_unsent), (0, 20));
    assert!(report.gave_up.unwrap().contains("invalid peer certificate"));
    sink.end();
    stranger.end();
}

#[test]
fn tls_that_is_not_offered_is_not_done_without() {
    let sink = Sink::start(|_| {});
    let report = source::run(&config(&sink, ClientTlsMode::StartTls), |_| {}).unwrap();
    assert_eq!((report.messages_accepted, report.messages_unsent), (0, 20));
    assert!(report.refusals.keys().all(|refusal| refusal.starts_with("starttls 5")), "{report:?}");
    sink.end();
}

#[test]
fn a_password_opens_the_door_and_a_wrong_one_does_not() {
    let sink = Sink::start(|config| config.account = account("right"));
    let send = |password| {
        let config = SourceConfig { account: account(password), ..SourceConfig::to(sink.address) };
        source::run(&config, |_| {}).unwrap()
    };
    assert_eq!(send("right").messages_accepted, 1);
    let refused = send("wrong");
    assert_eq!(refused.messages_unsent, 1);
    assert_eq!(refused.refusals.keys().collect::<Vec<_>>(), ["auth 535"]);
    sink.end();
}

#[test]
fn a_ca_file_that_is_none_is_said_to_be() {
    let tls = ClientTls { ca_file: Some("/nonexistent".into()), ..ClientTls::new(ClientTlsMode::StartTls) };
    let any: std::net::SocketAddr = common::ANY.parse().unwrap();
    let error = source::run(&SourceConfig { tls: Some(tls), ..SourceConfig::to(any) }, |_| {}).unwrap_err();
    assert!(matches!(error, SourceError::Tls(_)), "{error}");
}

/// Carries one connection on to the sink: the sink itself listens on TCP alone.
fn carry(listener: &UnixListener, sink: &Sink) {
    let (inner, outer) = (listener.accept().unwrap().0, sink.connect());
    let (mut from, mut to) = (inner.try_clone().unwrap(), outer.try_clone().unwrap());
    let way_in = std::thread::spawn(move || {
        let _ends_with_either = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    let (mut from, mut to) = (outer, inner);
    let mut octets = [0; 4096];
    while let Ok(len @ 1..) = from.read(&mut octets) {
        to.write_all(&octets[..len]).unwrap();
    }
    drop((from, to));
    way_in.join().unwrap();
}

#[test]
fn a_unix_socket_is_a_target_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("submit");
    let (listener, sink) = (UnixListener::bind(&path).unwrap(), Sink::start(|_| {}));
    let target: Target = format!("unix:{}", path.display()).parse().unwrap();
    let config = SourceConfig { messages: 5, ..SourceConfig::to(target) };
    let source = std::thread::spawn(move || source::run(&config, |_| {}).unwrap());
    carry(&listener, &sink);
    assert_eq!(source.join().unwrap().messages_accepted, 5);
    assert_eq!(sink.end().counters.transactions, 5);
}
