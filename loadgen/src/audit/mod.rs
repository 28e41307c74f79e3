//! The audit: what was sent against what was received. Lost has to be nothing.
//!
//! A delivery is found by the number in its recipient's address and the run in its token, so the whole of the state
//! is one byte per recipient and 24 per message: a million recipients fit in a megabyte. Messages whose fate their
//! source could not know are owed nothing and forbidden nothing. Trusts both files as far as they parse.

mod runs;
pub mod verp;

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::latency::{Percentiles, histogram};
use crate::records::{Fate, Received, next_line};
use runs::{Found, Runs};
use verp::{Verdict, VerpCheck};

const READ_BYTES: usize = 1 << 20;

/// Which files to compare, and whether to look at reverse-paths.
#[derive(Clone, Debug, Default)]
pub struct AuditConfig {
    /// What sources wrote; one file per run.
    pub sent: Vec<PathBuf>,
    /// What sinks wrote.
    pub received: Vec<PathBuf>,
    pub verp: Option<VerpCheck>,
}

/// The comparison. Recipients are counted, not messages.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AuditReport {
    /// Recipients owed a delivery.
    pub expected: u64,
    /// Deliveries, copies included.
    pub received: u64,
    /// Owed and never delivered.
    pub lost: u64,
    /// Copies beyond the first.
    pub duplicated: u64,
    /// Deliveries with another content than was sent.
    pub altered: u64,
    /// Deliveries that no record asks for, refused recipients among them.
    pub unexpected: u64,
    /// Deliveries of messages whose source never learned their fate.
    pub unknown_delivered: u64,
    /// Deliveries whose reverse-path does not encode their recipient; 0 where not checked.
    pub wrong_sender: u64,
    /// Deliveries whose reverse-path is a token, because the address would not have fitted.
    pub token_sender: u64,
    pub first_arrival_ns: Option<u64>,
    pub last_arrival_ns: Option<u64>,
    /// Deliveries over the time from the first to the last.
    pub deliveries_per_sec: f64,
    /// First deliveries, from the 250 of their injection; 0 where they were faster than it.
    pub latency: Percentiles,
}

impl AuditReport {
    /// Nothing lost, nothing altered, every sender right. Copies are counted, and allowed.
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.altered == 0 && self.wrong_sender == 0
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("{path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}:{line}: not a record of this format")]
    Syntax { path: PathBuf, line: u64 },
    #[error("{path}:{line}: message {message} is recorded twice")]
    Twice { path: PathBuf, line: u64, message: u64 },
}

/// Compares the files.
pub fn run(config: &AuditConfig) -> Result<AuditReport, AuditError> {
    let mut runs = Runs::default();
    for path in &config.sent {
        runs.read(path)?;
    }
    let mut comparison = Comparison::new(runs, config.verp.as_ref());
    for path in &config.received {
        comparison.read(path)?;
    }
    Ok(comparison.finish())
}

struct Comparison<'a> {
    runs: Runs,
    verp: Option<&'a VerpCheck>,
    report: AuditReport,
    latency: Histogram<u64>,
}

impl<'a> Comparison<'a> {
    fn new(runs: Runs, verp: Option<&'a VerpCheck>) -> Comparison<'a> {
        Comparison { runs, verp, report: AuditReport::default(), latency: histogram() }
    }

    fn read(&mut self, path: &Path) -> Result<(), AuditError> {
        each_line(path, |line| {
            let received = Received::parse(line)?;
            self.take(&received);
            Some(())
        })
    }

    fn take(&mut self, received: &Received<'_>) {
        self.report.received += 1;
        let time_ns = received.time_ns;
        self.report.first_arrival_ns =
            Some(self.report.first_arrival_ns.map_or(time_ns, |ns| ns.min(time_ns)));
        self.report.last_arrival_ns = self.report.last_arrival_ns.max(Some(time_ns));
        let Some(found) = self.runs.deliver(received) else {
            self.report.unexpected += 1;
            return;
        };
        self.take_found(&found, time_ns);
        if let Some(check) = self.verp {
            match check.verdict(received.reverse_path, received.forward_path) {
                Verdict::Right => {}
                Verdict::Token => self.report.token_sender += 1,
                Verdict::Wrong => self.report.wrong_sender += 1,
            }
        }
    }

    fn take_found(&mut self, found: &Found, time_ns: u64) {
        self.report.altered += u64::from(found.is_altered);
        self.report.duplicated += u64::from(!found.is_first);
        self.report.unknown_delivered += u64::from(found.fate == Fate::Unknown);
        if found.is_first && found.fate == Fate::Accepted {
            self.latency.saturating_record(time_ns.saturating_sub(found.sent_ns));
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "a rate for people; its low digits mean nothing")]
    fn finish(mut self) -> AuditReport {
        (self.report.expected, self.report.lost) = self.runs.owed_and_lost();
        self.report.latency = Percentiles::of(&self.latency);
        let (first, last) = (self.report.first_arrival_ns, self.report.last_arrival_ns);
        let span_ns = last.unwrap_or(0) - first.unwrap_or(0);
        if span_ns > 0 {
            self.report.deliveries_per_sec = self.report.received as f64 / (span_ns as f64 / 1e9);
        }
        self.report
    }
}

/// Calls `take` with each line of `path`; `None` from it is a syntax error there.
fn each_line(path: &Path, mut take: impl FnMut(&[u8]) -> Option<()>) -> Result<(), AuditError> {
    let fail = |source| AuditError::Read { path: path.to_owned(), source };
    let mut input = BufReader::with_capacity(READ_BYTES, File::open(path).map_err(fail)?);
    let (mut line, mut count) = (Vec::new(), 0);
    while next_line(&mut input, &mut line).map_err(fail)? {
        count += 1;
        take(&line).ok_or_else(|| AuditError::Syntax { path: path.to_owned(), line: count })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
