//! Source, sink and audit together, on a free port of loopback.

#![allow(clippy::unwrap_used, reason = "a test may end at what it did not expect")]

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use loadgen::audit::verp::{Delimiters, VerpCheck};
use loadgen::audit::{self, AuditConfig, AuditReport};
use loadgen::sink::{self, SinkConfig, SinkReport, Stop};
use loadgen::source::{self, Connection, Mode, Pace, SourceConfig, SourceReport};

const MODES: [Mode; 3] = [Mode::Lockstep, Mode::Pipelined, Mode::Bdat];

struct Trial {
    folder: tempfile::TempDir,
    source: SourceConfig,
    sink: SinkConfig,
}

impl Trial {
    fn new(mode: Mode) -> Trial {
        let folder = tempfile::tempdir().unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let (sent, received) = (folder.path().join("sent"), folder.path().join("received"));
        let source = SourceConfig {
            messages: 50,
            recipients_per_message: 4,
            size_bytes: 3000,
            sessions: 4,
            mode,
            domain_count: 7,
            dot_lines: true,
            reply_timeout: Duration::from_secs(20),
            audit: Some(sent),
            ..SourceConfig::to(any)
        };
        let sink = SinkConfig { announce: false, audit: Some(received), ..SinkConfig::on(vec![any]) };
        Trial { folder, source, sink }
    }

    fn fault(mut self, text: &str) -> Trial {
        self.sink.faults.push(text.parse().unwrap());
        self
    }

    fn run(&mut self) -> (SourceReport, SinkReport, AuditReport) {
        let (stop, (bound, address)) = (Stop::new(), channel());
        let (config, stopped) = (self.sink.clone(), stop.clone());
        let sink = std::thread::spawn(move || {
            sink::run_until(&config, &stopped, |addresses| bound.send(addresses[0]).unwrap()).unwrap()
        });
        self.source.target = address.recv().unwrap().into();
        let sent = source::run(&self.source, |_| {}).unwrap();
        stop.stop();
        (sent, sink.join().unwrap(), self.audit(None))
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn audit(&self, verp: Option<VerpCheck>) -> AuditReport {
        let (sent, received) = (vec![self.path("sent")], vec![self.path("received")]);
        audit::run(&AuditConfig { sent, received, verp }).unwrap()
    }
}

fn assert_faultless(report: &AuditReport, expected: u64) {
    assert_eq!((report.expected, report.received), (expected, expected));
    assert_eq!((report.lost, report.duplicated, report.altered, report.unexpected), (0, 0, 0, 0));
}

#[test]
fn everything_sent_arrives_unaltered_in_every_mode() {
    for mode in MODES {
        for connection in [Connection::Kept, Connection::PerMessage] {
            let mut trial = Trial::new(mode);
            trial.source.connection = connection;
            trial.source.xverp = Some("-=".into());
            let (sent, taken, audited) = trial.run();
            assert_eq!((sent.messages_accepted, sent.recipients_accepted), (50, 200), "{mode:?}");
            assert_eq!((taken.counters.transactions, taken.counters.bytes), (50, 150_000), "{mode:?}");
            assert_eq!(taken.counters.connections, sent.connections);
            assert_faultless(&audited, 200);
        }
    }
}

#[test]
fn a_window_of_chunked_messages_arrives_whole() {
    let mut trial = Trial::new(Mode::Bdat);
    (trial.source.window, trial.source.size_bytes, trial.sink.threads) = (16, 100_000, 2);
    assert_faultless(&trial.run().2, 200);
}

#[test]
fn modes_fall_back_where_an_extension_is_missing() {
    for (pipelining, chunking) in [(false, false), (false, true), (true, false)] {
        let mut trial = Trial::new(Mode::Bdat);
        (trial.sink.pipelining, trial.sink.chunking) = (pipelining, chunking);
        assert_faultless(&trial.run().2, 200);
    }
}

#[test]
fn one_transaction_takes_a_hundred_thousand_recipients() {
    for mode in [Mode::Pipelined, Mode::Bdat] {
        let mut trial = Trial::new(mode);
        (trial.source.messages, trial.source.recipients_per_message) = (1, 100_000);
        assert_faultless(&trial.run().2, 100_000);
    }
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let mut trial = Trial::new(Mode::Pipelined);
    trial.source.pace = Pace::PerSecond(200.0);
    let (sent, _, audited) = trial.run();
    assert!(sent.elapsed_secs >= 49.0 / 200.0, "{}", sent.elapsed_secs);
    assert_eq!(sent.since_due.unwrap().count, 50);
    assert!(sent.commit.p50_us > 1.0 && sent.commit.max_us < 20e6);
    assert_faultless(&audited, 200);
}

#[test]
fn refused_recipients_are_not_owed_and_the_same_ones_each_time() {
    let refused = MODES.map(|mode| {
        let mut trial = Trial::new(mode).fault("rcpt=550:0.2:by-address");
        let (sent, _, audited) = trial.run();
        assert_faultless(&audited, sent.recipients_accepted);
        assert_eq!(sent.recipients_refused, sent.refusals["rcpt 550"]);
        sent.recipients_refused
    });
    assert!(refused[0] > 10 && refused.iter().all(|count| *count == refused[0]), "{refused:?}");
}

#[test]
fn faults_at_every_stage_lose_nothing_that_was_accepted() {
    for mode in MODES {
        let faults = [
            "connect=421:0.2",
            "ehlo=450:0.1",
            "mail=450:0.1",
            "rcpt=450:0.1",
            "data=451:0.1",
            "dot=452:0.1",
        ];
        let trial = faults.iter().fold(Trial::new(mode), |trial, fault| trial.fault(fault));
        let mut trial = trial.fault("mail=drop:0.05").fault("rcpt=drop:0.02").fault("dot=drop:0.1");
        trial.source.messages = 200;
        let (sent, taken, audited) = trial.run();
        assert!(
            sent.messages_unknown > 0 && sent.messages_refused > 0 && sent.connections_lost > 0,
            "{sent:?}"
        );
        assert_eq!(sent.messages_unsent, 0);
        assert_faultless(&audited, sent.recipients_accepted);
        assert_eq!(taken.counters.recipients, sent.recipients_accepted);
    }
}

#[test]
fn a_reply_lost_after_acceptance_is_unknown_and_neither_lost_nor_unexpected() {
    let mut trial = Trial::new(Mode::Bdat).fault("dot=drop-after-accept:0.3");
    let (sent, _, audited) = trial.run();
    assert!(sent.messages_unknown > 0);
    assert_eq!(audited.unknown_delivered, sent.messages_unknown * 4);
    assert_eq!((audited.lost, audited.unexpected, audited.altered), (0, 0, 0));
}

#[test]
fn a_sink_that_closes_after_some_messages_is_connected_to_again() {
    let mut trial = Trial::new(Mode::Pipelined);
    trial.sink.close_after = 3;
    let (sent, _, audited) = trial.run();
    assert_eq!((sent.messages_accepted, sent.messages_unknown), (50, 0));
    assert!(sent.connections >= 16);
    assert_faultless(&audited, 200);
}

#[test]
fn hand_made_damage_is_found() {
    let mut trial = Trial::new(Mode::Pipelined);
    trial.run();
    damage(&trial.path("received"));
    let report = trial.audit(Some(VerpCheck::new("list-return-", Delimiters::default())));
    assert_eq!((report.lost, report.duplicated, report.altered), (1, 1, 1));
    assert_eq!((report.wrong_sender, report.is_clean()), (200, false));
}

/// Removes one record, doubles one, changes the digest of one.
fn damage(path: &Path) {
    let text = fs::read_to_string(path).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.pop();
    lines.push(lines[0].clone());
    let mut fields: Vec<&str> = lines[1].split('\t').collect();
    fields[1] = "0123456789abcdef";
    lines[1] = fields.join("\t");
    fs::write(path, lines.join("\n") + "\n").unwrap();
}

#[test]
fn the_interval_log_holds_every_accepted_message() {
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    let mut trial = Trial::new(Mode::Pipelined);
    trial.source.histogram = Some(trial.path("hist"));
    trial.run();
    let log = fs::read(trial.path("hist")).unwrap();
    let intervals =
        IntervalLogIterator::new(&log).filter(|entry| matches!(entry, Ok(LogEntry::Interval(_)))).count();
    assert_eq!(intervals, 1);
}

#[test]
fn a_silent_peer_is_left_after_the_reply_limit() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = SourceConfig::to(silent.local_addr().unwrap());
    config.reply_timeout = Duration::from_millis(1);
    config.messages = 1;
    let report = source::run(&config, |_| {}).unwrap();
    assert_eq!((report.messages_unsent, report.gave_up.is_some()), (1, true));
}

#[test]
fn what_is_not_loopback_is_refused() {
    let outside: SocketAddr = "192.0.2.1:25".parse().unwrap();
    assert!(source::run(&SourceConfig::to(outside), |_| {}).is_err());
    assert!(sink::run(&SinkConfig::on(vec![outside])).is_err());
}
