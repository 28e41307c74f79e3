//! The smuggler: messages that hold what some server takes for an end of data, and behind it a forged transaction.
//!
//! Only CRLF "." CRLF ends DATA (RFC 5321 §4.1.1.4), and nothing ends a chunk but its count. Each [`Case`] goes in a
//! connection of its own, QUIT right behind it, so how many replies come before that one's says, without a clock, how
//! many messages the server saw. What it sent on is for [`SmuggleReport::compare`] to say, from the sink's record; and
//! with `audit`, the source's record of it for the ordinary audit. Loopback only. Bound: the cases, a few mebibytes.

mod cases;
mod compare;
mod dialog;

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use serde::Serialize;

use crate::client::{Caller, ClientError, Introduction};
use crate::content::run_name;
use crate::recipient::{DomainPattern, Recipients};
use crate::records::{Fate, Sent, SentHeader};
use crate::ring::now_ns;

pub use cases::{By, Case, cases};
pub use compare::{CompareError, Difference};

/// What is smuggled, and to whom.
#[derive(Clone, Debug)]
pub struct SmuggleConfig {
    pub introduction: Introduction,
    /// Names the run: tokens are of it.
    pub seed: u64,
    /// Case `n` goes to recipient `n`, at domain `n % domain_count + 1`.
    pub domain_count: u64,
    pub domain_pattern: DomainPattern,
    /// Without brackets. Null by default: then no bounce can be taken for something smuggled.
    pub reverse_path: String,
    /// Only cases whose name has this in it.
    pub only: Option<String>,
    pub audit: Option<PathBuf>,
}

impl SmuggleConfig {
    pub fn to(introduction: Introduction) -> SmuggleConfig {
        SmuggleConfig {
            introduction,
            seed: now_ns(),
            domain_count: 1,
            domain_pattern: DomainPattern::default(),
            reverse_path: String::new(),
            only: None,
            audit: None,
        }
    }

    fn recipients(&self) -> Recipients {
        Recipients { domain_count: self.domain_count, pattern: self.domain_pattern.clone() }
    }
}

/// What the server made of a case.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// One message, taken.
    Accepted,
    /// One message, refused with a 4xx or 5xx: at the envelope or at its end.
    Refused,
    /// More replies than one message has: it was taken for several.
    Split,
    /// The connection ended without a reply.
    Unknown,
    /// Not sent: the server does not offer CHUNKING.
    Skipped,
}

/// One case and its outcome.
#[derive(Clone, Debug, Serialize)]
pub struct CaseReport {
    /// Such as `CRLF.LF` or `1 MiB line`.
    pub name: String,
    pub by: By,
    pub number: u64,
    pub outcome: Outcome,
    /// The last line of each reply to the content and to what the server saw behind it.
    pub replies: Vec<String>,
    pub size_bytes: u64,
    #[serde(skip)]
    pub(crate) digest: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct SmuggleReport {
    pub run: String,
    pub accepted: u64,
    pub refused: u64,
    /// Must be 0.
    pub split: u64,
    pub unknown: u64,
    pub skipped: u64,
    pub cases: Vec<CaseReport>,
}

#[derive(Debug, thiserror::Error)]
pub enum SmuggleError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{path}: cannot be written: {source}")]
    File { path: PathBuf, source: io::Error },
}

/// Sends every case and blocks until the last has its replies.
pub fn run(config: &SmuggleConfig) -> Result<SmuggleReport, SmuggleError> {
    let caller = Caller::new(&config.introduction)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let seen = runtime.map_err(ClientError::Runtime)?.block_on(async {
        let mut seen = Vec::new();
        for case in cases(config) {
            seen.push(dialog::put(&caller, config, &case).await?);
        }
        Ok::<_, ClientError>(seen)
    })?;
    let report = SmuggleReport::of(run_name(config.seed), seen);
    if let Some(path) = &config.audit {
        report.record(config, path).map_err(|source| SmuggleError::File { path: path.clone(), source })?;
    }
    Ok(report)
}

impl SmuggleReport {
    fn of(run: String, cases: Vec<CaseReport>) -> SmuggleReport {
        let count = |outcome| cases.iter().filter(|case| case.outcome == outcome).count() as u64;
        SmuggleReport {
            run,
            accepted: count(Outcome::Accepted),
            refused: count(Outcome::Refused),
            split: count(Outcome::Split),
            unknown: count(Outcome::Unknown),
            skipped: count(Outcome::Skipped),
            cases,
        }
    }

    /// As the source records a run (FORMAT.md).
    fn record(&self, config: &SmuggleConfig, path: &PathBuf) -> io::Result<()> {
        let mut file = File::create(path)?;
        SentHeader { run: self.run.clone(), recipients: config.recipients() }.write(&mut file)?;
        let mut lines = Vec::new();
        for case in &self.cases {
            let fate = match case.outcome {
                Outcome::Accepted => Fate::Accepted,
                Outcome::Refused | Outcome::Skipped => Fate::Refused,
                Outcome::Split | Outcome::Unknown => Fate::Unknown,
            };
            let sent = Sent {
                fate,
                time_ns: now_ns(),
                number: case.number,
                size_bytes: case.size_bytes,
                digest: case.digest,
                first_recipient: case.number,
                recipient_count: 1,
            };
            sent.write(&mut lines, &self.run, &[]);
        }
        file.write_all(&lines)
    }
}
