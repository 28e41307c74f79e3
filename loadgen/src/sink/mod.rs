//! The sink: takes mail in as fast as it can, misbehaves as asked, and notes what it accepted.
//!
//! [`run`] serves until SIGTERM, SIGINT or, when asked, the end of standard input; [`run_until`] until its
//! caller says so. The calling thread only watches for the end and prints; each serving thread has its own
//! ring, listeners and books, and shares nothing but the audit file. Trusts no client. Loopback only.

mod arrival;
mod command;
mod conditions;
mod connection;
mod contents;
mod core;
mod faults;
mod log;
mod peers;
mod proxy;
mod replies;
mod session;
mod tally;
mod threads;
mod tls;
mod visits;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};

use crate::address::{self, AddressError, Reach};
use crate::ring::cpu_time;

pub use crate::stop::Stop;
pub use conditions::Conditions;
pub use faults::{Break, Fault, FaultAction, FaultError, Stage};
pub use peers::PeerReport;
pub use proxy::fuzz_proxy;
pub use session::Account;
pub use tally::SinkCounters;
pub use tls::{TlsConfig, TlsError, TlsMode, TlsVersion};

use threads::Threads;

const BACKLOG: i32 = 4096;

/// How a sink behaves.
#[derive(Clone, Debug)]
pub struct SinkConfig {
    pub addresses: Vec<SocketAddr>,
    pub reach: Reach,
    /// The first is that of the greeting; a certificate that is made is for all.
    pub names: Vec<String>,
    pub threads: usize,
    pub pipelining: bool,
    pub chunking: bool,
    /// LMTP (RFC 2033): LHLO, and a reply to the content for each recipient.
    pub lmtp: bool,
    pub tls: Option<TlsConfig>,
    /// No MAIL before this account has been proved (RFC 4954).
    pub account: Option<Account>,
    /// A PROXY header, version 1 or 2, comes before anything else.
    pub proxy_protocol: bool,
    pub faults: Vec<Fault>,
    /// Before each group of replies.
    pub delay: Duration,
    /// Messages per connection; 0 is without limit.
    pub close_after: u64,
    pub seed: u64,
    pub size_max: u64,
    /// Recipients per transaction.
    pub recipients_max: u64,
    /// Connections per thread.
    pub connections_max: u64,
    pub idle_max: Duration,
    pub audit: Option<PathBuf>,
    /// One line per connection.
    pub connections: Option<PathBuf>,
    /// A folder for what is accepted, a file for each content.
    pub contents: Option<PathBuf>,
    /// Seconds, each a window whose peaks are reported for each source.
    pub windows: Vec<u64>,
    /// One line of counters on standard output per interval; zero for none.
    pub stats_interval: Duration,
    /// The end of standard input stops the sink: a parent's death does.
    pub stop_on_stdin_eof: bool,
    /// `listening ADDR` on standard output for each address, once bound.
    pub announce: bool,
}

impl SinkConfig {
    /// A well-behaved sink on `addresses`.
    pub fn on(addresses: Vec<SocketAddr>) -> SinkConfig {
        SinkConfig {
            addresses,
            reach: Reach::Loopback,
            names: vec!["loadgen.test".into()],
            threads: 1,
            pipelining: true,
            chunking: true,
            lmtp: false,
            tls: None,
            account: None,
            proxy_protocol: false,
            faults: Vec::new(),
            delay: Duration::ZERO,
            close_after: 0,
            seed: 1,
            size_max: 1 << 30,
            recipients_max: 1_000_000,
            connections_max: 10_000,
            idle_max: Duration::from_secs(300),
            audit: None,
            connections: None,
            contents: None,
            windows: vec![1, 60],
            stats_interval: Duration::ZERO,
            stop_on_stdin_eof: false,
            announce: true,
        }
    }
}

/// What a sink saw from its first connection to its end.
#[derive(Clone, Debug, Serialize)]
pub struct SinkReport {
    #[serde(flatten)]
    pub counters: SinkCounters,
    pub elapsed_secs: f64,
    /// Processor time of the whole process while the sink ran.
    pub cpu_secs: f64,
    /// `cpu_secs` over transactions.
    pub cpu_us_per_transaction: f64,
    /// What came from each address.
    pub sources: Vec<PeerReport>,
    /// The same apart for each address of the sink, where it has several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pairs: Vec<PeerReport>,
}

#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("{address}: cannot listen: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("{path}: cannot write the record: {source}")]
    Audit { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("a thread of the sink ended, or its records could not be written: {0}")]
    Thread(io::Error),
    #[error("cannot watch for signals or print: {0}")]
    Control(io::Error),
}

/// Serves until SIGTERM, SIGINT or, if the config says so, the end of standard input. Blocks.
pub fn run(config: &SinkConfig) -> Result<SinkReport, SinkError> {
    run_until(config, &Stop::new(), |_| {})
}

/// Serves until `stop` as well, and says once which addresses are bound: port 0 becomes a real one. Blocks.
pub fn run_until(
    config: &SinkConfig,
    stop: &Stop,
    listening: impl FnOnce(&[SocketAddr]),
) -> Result<SinkReport, SinkError> {
    let (start, cpu_start) = (Instant::now(), cpu_time());
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(SinkError::Control)?;
    let tls = config.tls.as_ref().map(|tls| tls::server_config(tls, &config.names)).transpose()?;
    let (listeners, bound) = bind_all(config)?;
    let audit = config.audit.as_ref().map(open_record).transpose()?;
    let connections = config.connections.as_ref().map(open_record).transpose()?;
    let threads = Threads::start(config, listeners, threads::Shared { tls, audit, connections }, stop);
    listening(&bound);
    let watched = announce(config, &bound).and_then(|()| {
        if config.stop_on_stdin_eof {
            stop.follow_stdin();
        }
        runtime.block_on(control(config, stop, &threads, start))
    });
    stop.stop();
    let ended = threads.join()?;
    watched.map_err(SinkError::Control)?;
    Ok(report(ended, config, start.elapsed(), cpu_time().saturating_sub(cpu_start)))
}

#[allow(clippy::cast_precision_loss, reason = "a ratio for people; its low digits mean nothing")]
fn report(ended: threads::Ended, config: &SinkConfig, elapsed: Duration, cpu: Duration) -> SinkReport {
    let threads::Ended { counters, peers } = ended;
    let per_transaction = cpu.as_secs_f64() * 1e6 / counters.transactions.max(1) as f64;
    let (sources, pairs) = peers::Peers::report(peers, &config.windows);
    SinkReport {
        counters,
        elapsed_secs: elapsed.as_secs_f64(),
        cpu_secs: cpu.as_secs_f64(),
        cpu_us_per_transaction: per_transaction,
        sources,
        pairs: if config.addresses.len() > 1 { pairs } else { Vec::new() },
    }
}

/// The listeners of each thread, and the addresses they have.
fn bind_all(config: &SinkConfig) -> Result<(Vec<Vec<TcpListener>>, Vec<SocketAddr>), SinkError> {
    let shared = config.threads > 1;
    let mut threads: Vec<Vec<TcpListener>> = (0..config.threads.max(1)).map(|_| Vec::new()).collect();
    let mut bound = Vec::with_capacity(config.addresses.len());
    for &wanted in &config.addresses {
        address::check(wanted, config.reach)?;
        let mut address = wanted;
        for listeners in &mut threads {
            let listener = bind(address, shared).map_err(|source| SinkError::Listen { address, source })?;
            address = listener.local_addr().map_err(|source| SinkError::Listen { address, source })?;
            listeners.push(listener);
        }
        bound.push(address);
    }
    Ok((threads, bound))
}

/// SO_REUSEPORT only where threads share a port, so that a second sink on it fails.
fn bind(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A new file: append mode only so that threads can share it.
fn open_record(path: &PathBuf) -> Result<Arc<File>, SinkError> {
    let fail = |source| SinkError::Audit { path: path.clone(), source };
    File::create(path).map_err(fail)?;
    OpenOptions::new().append(true).open(path).map(Arc::new).map_err(fail)
}

fn announce(config: &SinkConfig, bound: &[SocketAddr]) -> io::Result<()> {
    if !config.announce {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    bound.iter().try_for_each(|address| writeln!(out, "listening {address}"))?;
    out.flush()
}

/// Waits for the end, and prints counters meanwhile.
async fn control(config: &SinkConfig, stop: &Stop, threads: &Threads, start: Instant) -> io::Result<()> {
    let mut asked = std::pin::pin!(stop.asked());
    let period =
        if config.stats_interval.is_zero() { Duration::from_secs(3600) } else { config.stats_interval };
    let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    loop {
        tokio::select! {
            asked = &mut asked => return asked,
            _ = threads.ended() => return Ok(()),
            _ = interval.tick() => print_stats(config, threads, start)?,
        }
    }
}

#[derive(Serialize)]
struct Stats {
    at_secs: f64,
    #[serde(flatten)]
    counters: SinkCounters,
}

fn print_stats(config: &SinkConfig, threads: &Threads, start: Instant) -> io::Result<()> {
    if config.stats_interval.is_zero() {
        return Ok(());
    }
    let stats = Stats { at_secs: start.elapsed().as_secs_f64(), counters: threads.counters() };
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, &stats)?;
    writeln!(out)?;
    out.flush()
}
