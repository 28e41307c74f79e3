//! The source: sends a run of messages, each of whose bytes can be foretold, and measures the replies.
//!
//! [`run`] blocks until the last message has an end. All sessions share one thread and one ring. Trusts no
//! peer; a refusal is counted, not an error. Loopback only. Memory follows sessions × window × size,
//! never the number of messages or recipients.

mod books;
mod dialog;
mod interval;
mod run;
mod sealed;
mod wire;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::time::{Interval, MissedTickBehavior};

use crate::address::{AddressError, Reach};
use crate::client::{ClientTls, ClientTlsError, Secure, Target};
use crate::content::Content;
use crate::latency::Percentiles;
use crate::recipient::{DomainPattern, Recipients};
use crate::records::SentHeader;
use crate::ring::{self, Watch, cpu_time};
use crate::sink::Account;
use books::Books;
use dialog::Script;
use interval::IntervalLog;
use run::Run;

const TICK: Duration = Duration::from_millis(100);

/// How a transaction is put to the peer. Without the extension it needs, each falls back to the one before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// One command, one reply.
    Lockstep,
    /// MAIL, recipients and DATA in groups.
    Pipelined,
    /// MAIL, recipients and BDAT with the content in one send.
    Bdat,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// The next message follows the reply to the last.
    Closed,
    /// Message `n` is due `n / rate` seconds after the start.
    PerSecond(f64),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Connection {
    Kept,
    PerMessage,
}

/// What a run sends, and how.
#[derive(Clone, Debug)]
pub struct SourceConfig {
    pub target: Target,
    pub reach: Reach,
    pub tls: Option<ClientTls>,
    /// AUTH PLAIN on each connection.
    pub account: Option<Account>,
    pub messages: u64,
    pub recipients_per_message: u64,
    /// Header included.
    pub size_bytes: usize,
    pub sessions: usize,
    pub pace: Pace,
    /// `Some` adds XVERP to MAIL FROM; a non-empty text names the delimiters.
    pub xverp: Option<String>,
    pub mode: Mode,
    pub connection: Connection,
    /// BDAT transactions per send, where one send holds a whole transaction.
    pub window: usize,
    /// Recipients per send.
    pub recipient_group: u64,
    /// Without brackets; empty for the null reverse-path.
    pub reverse_path: String,
    pub helo: String,
    pub domain_count: u64,
    pub domain_pattern: DomainPattern,
    /// Names the run, and with the message number makes the content.
    pub seed: u64,
    /// Some lines of the content begin with a dot.
    pub dot_lines: bool,
    pub reply_timeout: Duration,
    pub audit: Option<PathBuf>,
    pub histogram: Option<PathBuf>,
}

impl SourceConfig {
    /// One message of 4 KiB to one recipient at `target`, in plain text.
    pub fn to(target: impl Into<Target>) -> SourceConfig {
        SourceConfig {
            target: target.into(),
            reach: Reach::Loopback,
            tls: None,
            account: None,
            messages: 1,
            recipients_per_message: 1,
            size_bytes: 4096,
            sessions: 1,
            pace: Pace::Closed,
            xverp: None,
            mode: Mode::Pipelined,
            connection: Connection::Kept,
            window: 1,
            recipient_group: 1000,
            reverse_path: "list-return@loadgen.test".into(),
            helo: "source.loadgen.test".into(),
            domain_count: 1,
            domain_pattern: DomainPattern::default(),
            seed: ring::now_ns(),
            dot_lines: false,
            reply_timeout: Duration::from_secs(60),
            audit: None,
            histogram: None,
        }
    }

    pub(crate) fn recipients(&self) -> Recipients {
        Recipients { domain_count: self.domain_count, pattern: self.domain_pattern.clone() }
    }
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SourceProgress {
    /// Messages that have an end, of any kind.
    pub messages_done: u64,
    pub messages: u64,
    pub recipients_accepted: u64,
    pub elapsed_secs: f64,
}

/// What became of a run.
#[derive(Clone, Debug, Serialize)]
pub struct SourceReport {
    pub run: String,
    pub messages: u64,
    pub messages_accepted: u64,
    pub messages_refused: u64,
    /// The connection ended between the content and its reply.
    pub messages_unknown: u64,
    /// Never tried, because no connection was to be had.
    pub messages_unsent: u64,
    pub recipients_accepted: u64,
    pub recipients_refused: u64,
    /// Content of the accepted messages, each counted once.
    pub bytes: u64,
    pub connections: u64,
    pub connections_lost: u64,
    pub tls_full: u64,
    pub tls_resumed: u64,
    /// Handshakes by version, such as `TLSv1.3`.
    pub tls_versions: BTreeMap<&'static str, u64>,
    pub elapsed_secs: f64,
    pub messages_per_sec: f64,
    pub recipients_per_sec: f64,
    /// From the end of the content to its reply, accepted messages only.
    pub commit: Percentiles,
    /// In an open loop, from when the message was due to the same reply.
    pub since_due: Option<Percentiles>,
    /// 4xx and 5xx by stage and code, such as `rcpt 550`.
    pub refusals: BTreeMap<String, u64>,
    /// Why a session gave up, if one did.
    pub gave_up: Option<String>,
    pub cpu_secs: f64,
}

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("a message of {size_bytes} bytes does not hold its header; the smallest is {size_min}")]
    TooSmall { size_bytes: usize, size_min: usize },
    #[error("{0}")]
    Config(&'static str),
    #[error("{path}: cannot be written: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Tls(#[from] ClientTlsError),
    #[error("{target}: no connection: {source}")]
    Connect { target: Target, source: io::Error },
    #[error("the ring: {0}")]
    Ring(io::Error),
}

/// Sends the run and blocks until it is over; `progress` is called ten times a second.
pub fn run(config: &SourceConfig, progress: impl Fn(SourceProgress)) -> Result<SourceReport, SourceError> {
    config.target.check(config.reach)?;
    let secure = config.tls.as_ref().map(Secure::new).transpose()?;
    let content = Content::new(config.seed, &config.reverse_path, config.size_bytes, config.dot_lines);
    check(config, &content)?;
    let cpu_start = cpu_time();
    let books = open_books(config, &content)?;
    let mut report =
        ring::run(send(config, secure, content, books, &progress)).map_err(SourceError::Ring)??;
    report.cpu_secs = cpu_time().saturating_sub(cpu_start).as_secs_f64();
    Ok(report)
}

fn check(config: &SourceConfig, content: &Content) -> Result<(), SourceError> {
    let size_min = content.size_min(config.messages);
    let recipients = config.messages.checked_mul(config.recipients_per_message);
    match config {
        _ if config.size_bytes < size_min => {
            Err(SourceError::TooSmall { size_bytes: config.size_bytes, size_min })
        }
        _ if config.recipients_per_message == 0
            || recipients.is_none_or(|count| count > u64::from(u32::MAX)) =>
        {
            Err(SourceError::Config("a run has between one and 4,294,967,295 recipients"))
        }
        _ if config.domain_count == 0 || config.domain_count > 1 && !config.domain_pattern.is_numbered() => {
            Err(SourceError::Config("several domains need a pattern with a number, such as d{:03}.test"))
        }
        _ if matches!(config.pace, Pace::PerSecond(rate) if !(rate > 0.0 && rate.is_finite())) => {
            Err(SourceError::Config("the rate is a number above zero"))
        }
        _ if config.reverse_path.bytes().chain(config.helo.bytes()).any(|byte| byte.is_ascii_control()) => {
            Err(SourceError::Config("the reverse-path and the HELO name have no control characters"))
        }
        _ => Ok(()),
    }
}

fn open_books(config: &SourceConfig, content: &Content) -> Result<Books, SourceError> {
    let audit = config.audit.as_deref().map(create).transpose()?;
    let interval = config.histogram.as_deref().map(create).transpose()?.map(IntervalLog::new);
    let header = SentHeader { run: content.run().to_owned(), recipients: config.recipients() };
    Books::new(header, audit, interval).map_err(|source| file_error(config, source))
}

fn create(path: &Path) -> Result<File, SourceError> {
    File::create(path).map_err(|source| SourceError::File { path: path.to_owned(), source })
}

fn file_error(config: &SourceConfig, source: io::Error) -> SourceError {
    let path = config.audit.clone().or_else(|| config.histogram.clone()).unwrap_or_default();
    SourceError::File { path, source }
}

async fn send(
    config: &SourceConfig,
    secure: Option<Secure>,
    content: Content,
    books: Books,
    progress: &impl Fn(SourceProgress),
) -> Result<SourceReport, SourceError> {
    let run = Rc::new(Run {
        config: config.clone(),
        content,
        script: Script::new(config, secure),
        books: RefCell::new(books),
        watch: Watch::default(),
        start: Instant::now(),
        next: Cell::new(0),
        gave_up: RefCell::new(None),
    });
    let sessions: Vec<_> =
        (0..config.sessions.max(1)).map(|_| tokio_uring::spawn(run::session(run.clone()))).collect();
    let mut clock = Clock::new();
    for mut session in sessions {
        while tokio::select! { biased; _ = clock.interval.tick() => true, _ = &mut session => false } {
            clock.tick(&run, progress);
        }
    }
    let elapsed = run.start.elapsed();
    progress(so_far(&run));
    run.books.borrow_mut().close(clock.second).map_err(|source| file_error(config, source))?;
    report(&run, elapsed)
}

/// What happens ten times a second beside the sessions.
struct Clock {
    interval: Interval,
    second: u64,
}

impl Clock {
    fn new() -> Clock {
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Clock { interval, second: 0 }
    }

    fn tick(&mut self, run: &Run, progress: &impl Fn(SourceProgress)) {
        run.watch.sweep(Instant::now(), run.config.reply_timeout);
        progress(so_far(run));
        while run.start.elapsed().as_secs() > self.second {
            run.books.borrow_mut().end_second(self.second);
            self.second += 1;
        }
    }
}

fn so_far(run: &Run) -> SourceProgress {
    let counts = run.books.borrow().counts.clone();
    SourceProgress {
        messages_done: counts.settled(),
        messages: run.config.messages,
        recipients_accepted: counts.recipients_accepted,
        elapsed_secs: run.start.elapsed().as_secs_f64(),
    }
}

#[allow(clippy::cast_precision_loss, reason = "rates for people; their low digits mean nothing")]
fn report(run: &Run, elapsed: Duration) -> Result<SourceReport, SourceError> {
    let (config, books, gave_up) = (&run.config, run.books.borrow(), run.gave_up.take());
    let counts = &books.counts;
    if let (0, Some(source)) = (counts.connections, gave_up.as_ref()) {
        let source = io::Error::new(source.kind(), source.to_string());
        return Err(SourceError::Connect { target: config.target.clone(), source });
    }
    let elapsed_secs = elapsed.as_secs_f64();
    let refusals = books.refusals.iter().map(|((stage, code), n)| (format!("{} {code}", stage.name()), *n));
    Ok(SourceReport {
        run: run.content.run().to_owned(),
        messages: config.messages,
        messages_accepted: counts.accepted,
        messages_refused: counts.refused,
        messages_unknown: counts.unknown,
        messages_unsent: config.messages - counts.settled(),
        recipients_accepted: counts.recipients_accepted,
        recipients_refused: counts.recipients_refused,
        bytes: counts.bytes,
        connections: counts.connections,
        connections_lost: counts.connections_lost,
        tls_full: counts.tls_full,
        tls_resumed: counts.tls_resumed,
        tls_versions: books.tls_versions.clone(),
        elapsed_secs,
        messages_per_sec: counts.accepted as f64 / elapsed_secs,
        recipients_per_sec: counts.recipients_accepted as f64 / elapsed_secs,
        commit: Percentiles::of(&books.commit),
        since_due: matches!(config.pace, Pace::PerSecond(_)).then(|| Percentiles::of(&books.since_due)),
        refusals: refusals.collect(),
        gave_up: gave_up.map(|error| error.to_string()),
        cpu_secs: 0.0,
    })
}
