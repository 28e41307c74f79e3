//! loadgen's source and audit, in a thread of the test.

use super::sink::Ended;
use loadgen::audit::verp::VerpCheck;
use loadgen::audit::{self, AuditConfig, AuditReport};
pub use loadgen::source::SourceConfig;
use loadgen::source::{self, SourceReport};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// A run under way.
#[derive(Debug)]
pub struct Run {
    thread: JoinHandle<SourceReport>,
    pub sent: PathBuf,
}

/// Starts to send; `sent` is where the run is written down.
pub fn start(config: SourceConfig, sent: PathBuf) -> Run {
    let config = SourceConfig { audit: Some(sent.clone()), ..config };
    let thread = std::thread::spawn(move || source::run(&config, |_| {}).expect("the source runs"));
    Run { thread, sent }
}

impl Run {
    /// Waits for the last message's end. Bounded by the source's own time limits.
    pub fn end(self) -> SourceReport {
        self.thread.join().expect("the source does not panic")
    }
}

/// Sends all of it.
pub fn send(config: SourceConfig, sent: PathBuf) -> SourceReport {
    start(config, sent).end()
}

/// One message to `recipients` over [`DOMAINS`], each with a reverse-path of its own.
pub fn newsletter(to: SocketAddr, recipients: u64, size_bytes: usize) -> SourceConfig {
    SourceConfig {
        recipients_per_message: recipients,
        size_bytes,
        domain_count: DOMAINS,
        xverp: Some("-=".into()),
        ..SourceConfig::to(to)
    }
}

const DOMAINS: u64 = 100;

/// The recipients of a [`newsletter`].
pub fn recipients(count: u64) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("u{number:06}@d{:03}.test", number % DOMAINS + 1))
}

/// The reverse-path of a [`newsletter`] to that recipient.
pub fn return_path_of(recipient: &str) -> String {
    format!("list-return-{}@loadgen.test", recipient.replace('@', "="))
}

/// `messages` for one recipient each.
pub fn singles(to: SocketAddr, messages: u64, sessions: usize) -> SourceConfig {
    SourceConfig { messages, sessions, size_bytes: 2048, domain_count: 20, ..SourceConfig::to(to) }
}

/// What was sent against what the sink took. With `verp`, reverse-paths as [`newsletter`] asks for them.
pub fn audit(sent: &[&Path], sink: &Ended, verp: bool) -> AuditReport {
    let delimiters = "-=".parse().expect("two delimiters");
    let check = VerpCheck::new("list-return-{}@loadgen.test", delimiters);
    let sent = sent.iter().map(|path| (*path).to_owned()).collect();
    let config = AuditConfig { sent, received: vec![sink.audit.clone()], verp: verp.then_some(check) };
    audit::run(&config).expect("both files are there")
}

/// Nothing lost, altered or invented, and no more copies than `duplicated_max`.
pub fn assert_clean(report: &AuditReport, duplicated_max: u64) {
    assert_eq!(report.lost, 0, "lost: {report:?}");
    assert_eq!((report.altered, report.unexpected), (0, 0), "{report:?}");
    assert_eq!((report.wrong_sender, report.token_sender), (0, 0), "{report:?}");
    assert!(report.duplicated <= duplicated_max, "more than {duplicated_max} copies: {report:?}");
}
