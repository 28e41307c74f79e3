//! Ill-behaved clients against the sink, which bears them, and against a server that says no.

#![allow(clippy::unwrap_used, reason = "a test may end at what it did not expect")]

mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::Duration;

use common::Sink;
use loadgen::client::{ClientTls, ClientTlsMode, Introduction};
use loadgen::press::{self, CrowdConfig, CrowdReport, Drip, FloodConfig, GarbageConfig, Stay};
use loadgen::sink::{Fault, TlsConfig, TlsMode};
use loadgen::stop::Stop;

fn sources(count: u8) -> Vec<IpAddr> {
    (1..=count).map(|octet| IpAddr::from([127, 0, 9, octet])).collect()
}

fn dripping(of: Drip) -> Stay {
    Stay::Drip { of, every: Duration::from_millis(1) }
}

/// A crowd that is sent home as soon as it is complete.
fn crowd(introduction: Introduction, count: usize, stay: Stay) -> (CrowdReport, u64) {
    let (stop, mut open) = (Stop::new(), 0);
    let config = CrowdConfig { sources: sources(5), ..CrowdConfig::new(introduction, count, stay) };
    let report = press::crowd(&config, &stop.clone(), |now| {
        open = now;
        stop.stop();
    });
    (report.unwrap(), open)
}

#[test]
fn the_idle_are_alive_if_they_are_answered() {
    for tls in [None, Some(TlsMode::Offer), Some(TlsMode::Implicit)] {
        let sink = Sink::start(|config| config.tls = tls.map(TlsConfig::new));
        let mode =
            |mode| if mode == TlsMode::Offer { ClientTlsMode::StartTls } else { ClientTlsMode::Implicit };
        let introduction =
            Introduction { tls: tls.map(mode).map(ClientTls::new), ..Introduction::to(sink.address) };
        let (report, open) = crowd(introduction, 200, Stay::Idle);
        assert_eq!((open, report.alive, report.cut, report.refused.count()), (200, 200, 0, 0), "{tls:?}");
        let seen = sink.end();
        assert_eq!((seen.counters.connections, seen.sources.len()), (200, 5));
    }
}

#[test]
fn those_who_are_cut_tell_what_they_were_told() {
    let sink = Sink::start(|config| config.idle_max = Duration::from_secs(1));
    let config = CrowdConfig::new(Introduction::to(sink.address), 10, Stay::Idle);
    let report = press::crowd(&config, &Stop::new(), |_| {}).unwrap();
    assert_eq!((report.alive, report.cut, report.cuts.len()), (0, 10, 10));
    assert_eq!(report.said.count(), 10);
    assert!(report.cut_after_secs.unwrap().min > 0.0 && report.held_secs < 60.0);
    sink.end();
}

#[test]
fn those_who_are_turned_away_tell_why() {
    let busy = Fault::reply("connect[after=6]=421 4.7.0 Enough").unwrap();
    let sink = Sink::start(|config| config.faults.push(busy));
    let (report, open) = crowd(Introduction::to(sink.address), 10, Stay::Idle);
    assert_eq!((open, report.alive), (6, 6), "{report:?}");
    assert_eq!(report.refused.0["421 4.7.0 Enough"], 4);
    sink.end();
}

/// A server of one connection: says `said` once it has heard `heard`, and goes.
fn server(said: &'static str, heard: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind(common::ANY).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"220 x\r\n").unwrap();
        let mut all = Vec::new();
        let mut octet = [0];
        while !all.ends_with(heard) && stream.read(&mut octet).is_ok_and(|len| len > 0) {
            all.push(octet[0]);
            if all.ends_with(b"\r\n") && all.starts_with(b"EHLO") {
                stream.write_all(b"250 x\r\n").unwrap();
                all.clear();
            }
        }
        stream.write_all(said.as_bytes()).unwrap();
    });
    address
}

#[test]
fn a_drip_counts_its_octets_until_it_is_cut() {
    let address = server("421 4.4.2 Too slow\r\n", b"NOOP xxx");
    let config = CrowdConfig::new(Introduction::to(address), 1, dripping(Drip::Command));
    let report = press::crowd(&config, &Stop::new(), |_| {}).unwrap();
    assert_eq!((report.cut, report.cuts[0].said.as_str()), (1, "421 4.4.2 Too slow"), "{report:?}");
    assert!(report.cuts[0].octets >= 8);
}

#[test]
fn every_drip_finds_its_place() {
    let sink = Sink::start(|config| config.tls = Some(TlsConfig::new(TlsMode::Offer)));
    for of in [Drip::Command, Drip::Commands, Drip::Data, Drip::Bdat, Drip::Handshake] {
        let (report, open) = crowd(Introduction::to(sink.address), 5, dripping(of));
        assert_eq!((open, report.alive, report.refused.count()), (5, 5, 0), "{of:?} {report:?}");
    }
    let seen = sink.end().counters;
    assert_eq!((seen.connections, seen.transactions), (25, 0));
}

fn flood(sink: &Sink, keep_max: usize) -> press::FloodReport {
    let (introduction, lasting) = (Introduction::to(sink.address), Duration::from_millis(200));
    press::flood(&FloodConfig { introduction, sources: sources(20), lasting, workers: 4, keep_max }).unwrap()
}

#[test]
fn a_flood_tells_the_greeted_from_those_turned_away() {
    let busy = Fault::reply("connect[after=10]=421 4.7.0 Later").unwrap();
    let sink = Sink::start(|config| config.faults.push(busy));
    let report = flood(&sink, 100);
    assert_eq!((report.total.accepted, report.total.failed), (10, 0), "{report:?}");
    assert!(report.total.turned_away > 10);
    assert_eq!(report.said.count_of("421"), report.total.turned_away);
    assert_eq!(report.turning_away.count, report.total.turned_away);
    let summed: u64 = report.seconds.iter().map(|second| second.accepted + second.turned_away).sum();
    assert_eq!(summed, report.total.accepted + report.total.turned_away);
    assert_eq!(sink.end().sources.len(), 20);
}

#[test]
fn a_flood_at_a_closed_port_is_all_refused() {
    // Of an address that is no other test's.
    let nobody = TcpListener::bind(("127.0.44.1", 0)).unwrap().local_addr().unwrap();
    let (introduction, lasting) = (Introduction::to(nobody), Duration::from_millis(50));
    let config = FloodConfig { introduction, sources: Vec::new(), lasting, workers: 1, keep_max: 0 };
    let report = press::flood(&config).unwrap();
    assert_eq!((report.total.accepted, report.total.turned_away), (0, 0));
    assert_eq!(report.said.0["connection refused"], report.total.failed);
}

#[test]
fn the_sink_bears_garbage() {
    let sink = Sink::start(|_| {});
    let (introduction, sources) = (Introduction::to(sink.address), sources(3));
    let config = GarbageConfig { introduction, sources, connections: 40, octets: 20_000, seed: 7 };
    let report = press::garbage(&config).unwrap();
    assert!(report.still_serves && report.not_smtp == 0, "{report:?}");
    assert_eq!((report.connections, report.replies[&220]), (40, 40));
    assert_eq!(sink.end().counters.connections, 41);
}

#[test]
fn what_is_no_smtp_is_found() {
    let listener = TcpListener::bind(common::ANY).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            stream.unwrap().write_all(b"HTTP/1.1 400 Bad Request\r\n").unwrap();
        }
    });
    let introduction = Introduction::to(address);
    let config = GarbageConfig { introduction, sources: Vec::new(), connections: 1, octets: 10, seed: 1 };
    let report = press::garbage(&config).unwrap();
    assert_eq!((report.not_smtp, report.still_serves), (1, false));
    assert_eq!(report.not_smtp_said.unwrap(), "HTTP/1.1 400 Bad Request??");
}

#[test]
fn nothing_is_pressed_beyond_loopback() {
    let introduction = Introduction::to("192.0.2.1:25".parse::<SocketAddr>().unwrap());
    let config = CrowdConfig::new(introduction, 1, Stay::Idle);
    assert!(press::crowd(&config, &Stop::new(), |_| {}).is_err());
}
