//! The sink: takes mail in as fast as it can, misbehaves as asked, and notes what it accepted.
//!
//! [`run`] serves until SIGTERM, SIGINT or, when asked, the end of standard input; [`run_until`] until its
//! caller says so. The calling thread only watches for the end and prints; each serving thread has its own
//! ring, listeners and books, and shares nothing but the audit file. Trusts no client. Loopback only.

mod arrival;
mod command;
mod core;
mod faults;
mod log;
mod replies;
mod session;
mod tally;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::address::{self, AddressError, Reach};
use crate::ring::cpu_time;

pub use faults::{Fault, FaultAction, FaultError, Stage};
pub use tally::SinkCounters;

const BACKLOG: i32 = 4096;

/// How a sink behaves.
#[derive(Clone, Debug)]
pub struct SinkConfig {
    pub addresses: Vec<SocketAddr>,
    pub reach: Reach,
    pub threads: usize,
    pub pipelining: bool,
    pub chunking: bool,
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
            threads: 1,
            pipelining: true,
            chunking: true,
            faults: Vec::new(),
            delay: Duration::ZERO,
            close_after: 0,
            seed: 1,
            size_max: 1 << 30,
            recipients_max: 1_000_000,
            connections_max: 10_000,
            idle_max: Duration::from_secs(300),
            audit: None,
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
}

#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("{address}: cannot listen: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("{path}: cannot write the audit: {source}")]
    Audit { path: PathBuf, source: io::Error },
    #[error("a thread of the sink ended: {0}")]
    Thread(io::Error),
    #[error("cannot watch for signals or print: {0}")]
    Control(io::Error),
}

/// Ends a sink that runs in another thread.
#[derive(Clone, Debug)]
pub struct Stop(watch::Sender<bool>);

impl Stop {
    pub fn new() -> Stop {
        Stop(watch::Sender::new(false))
    }

    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Default for Stop {
    fn default() -> Self {
        Stop::new()
    }
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
    let (listeners, bound) = bind_all(config)?;
    let audit = config.audit.as_ref().map(open_audit).transpose()?;
    let threads = Threads::start(config, listeners, audit.as_ref(), stop);
    listening(&bound);
    let watched = announce(config, &bound).and_then(|()| {
        stop_with_stdin(config, stop);
        runtime.block_on(control(config, stop, &threads, start))
    });
    stop.stop();
    let counters = threads.join(config)?;
    watched.map_err(SinkError::Control)?;
    Ok(report(counters, start.elapsed(), cpu_time().saturating_sub(cpu_start)))
}

#[allow(clippy::cast_precision_loss, reason = "a ratio for people; its low digits mean nothing")]
fn report(counters: SinkCounters, elapsed: Duration, cpu: Duration) -> SinkReport {
    let per_transaction = cpu.as_secs_f64() * 1e6 / counters.transactions.max(1) as f64;
    SinkReport {
        counters,
        elapsed_secs: elapsed.as_secs_f64(),
        cpu_secs: cpu.as_secs_f64(),
        cpu_us_per_transaction: per_transaction,
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
fn open_audit(path: &PathBuf) -> Result<Arc<File>, SinkError> {
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

/// The thread is left behind in its read if the sink ends otherwise.
fn stop_with_stdin(config: &SinkConfig, stop: &Stop) {
    if !config.stop_on_stdin_eof {
        return;
    }
    let stop = stop.clone();
    std::thread::spawn(move || {
        let mut ignored = [0; 256];
        while io::stdin().lock().read(&mut ignored).is_ok_and(|len| len > 0) {}
        stop.stop();
    });
}

/// Waits for the end, and prints counters meanwhile.
async fn control(config: &SinkConfig, stop: &Stop, threads: &Threads, start: Instant) -> io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut stopped = stop.0.subscribe();
    let period =
        if config.stats_interval.is_zero() { Duration::from_secs(3600) } else { config.stats_interval };
    let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
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

struct Threads {
    running: Vec<JoinHandle<io::Result<()>>>,
    published: Vec<Arc<Mutex<tally::Tally>>>,
}

impl Threads {
    fn start(
        config: &SinkConfig,
        all: Vec<Vec<TcpListener>>,
        audit: Option<&Arc<File>>,
        stop: &Stop,
    ) -> Threads {
        let policy = Arc::new(policy(config));
        let SinkConfig { connections_max, idle_max, delay, .. } = *config;
        let limits = core::Limits { connections_max, idle_max, delay };
        let mut threads = Threads { running: Vec::new(), published: Vec::new() };
        for listeners in all {
            let published = Arc::new(Mutex::new(tally::Tally::new()));
            threads.published.push(published.clone());
            let (policy, log, stop) = (policy.clone(), log::Log::new(audit.cloned()), stop.0.subscribe());
            let start = core::Start { listeners, policy, log, published, stop, limits };
            threads.running.push(std::thread::spawn(move || core::run(start)));
        }
        threads
    }

    /// Ends when a thread has: on its own, none does.
    async fn ended(&self) {
        while !self.running.iter().any(JoinHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn counters(&self) -> SinkCounters {
        let mut sum = tally::Tally::new();
        for published in &self.published {
            sum.add(&published.lock().unwrap_or_else(PoisonError::into_inner));
        }
        sum.snapshot()
    }

    fn join(mut self, config: &SinkConfig) -> Result<SinkCounters, SinkError> {
        for thread in self.running.drain(..) {
            let ended = thread.join().unwrap_or_else(|_| Err(io::Error::other("it panicked")));
            ended.map_err(|source| match &config.audit {
                Some(path) => SinkError::Audit { path: path.clone(), source },
                None => SinkError::Thread(source),
            })?;
        }
        Ok(self.counters())
    }
}

fn policy(config: &SinkConfig) -> session::Policy {
    session::Policy {
        ehlo: replies::ehlo(config.pipelining, config.chunking, config.size_max),
        chunking: config.chunking,
        size_max: config.size_max,
        recipients_max: config.recipients_max,
        close_after: config.close_after,
        faults: faults::Faults::new(&config.faults, config.seed),
        seed: config.seed,
    }
}
