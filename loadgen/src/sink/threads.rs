//! The serving threads of a sink: started with what they share, added up, joined.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::ServerConfig;

use super::contents::{Contents, Folder};
use super::peers::Peers;
use super::tally::{SinkCounters, Tally};
use super::{SinkConfig, SinkError, Stop, TlsMode, core, faults, log, replies, session};

/// What they have in common.
pub(super) struct Shared {
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) audit: Option<Arc<File>>,
    pub(super) connections: Option<Arc<File>>,
}

/// What they leave.
pub(super) struct Ended {
    pub(super) counters: SinkCounters,
    pub(super) peers: Vec<Peers>,
}

pub(super) struct Threads {
    running: Vec<JoinHandle<io::Result<Peers>>>,
    published: Vec<Arc<Mutex<Tally>>>,
}

impl Threads {
    pub(super) fn start(
        config: &SinkConfig,
        all: Vec<Vec<TcpListener>>,
        shared: Shared,
        stop: &Stop,
    ) -> Threads {
        let (policy, limits) = (Arc::new(policy(config)), limits(config));
        let folder = config.contents.clone().map(Folder::new);
        let mut threads = Threads { running: Vec::new(), published: Vec::new() };
        for listeners in all {
            let published = Arc::new(Mutex::new(Tally::new()));
            threads.published.push(published.clone());
            let start = core::Start {
                listeners,
                policy: policy.clone(),
                tls: shared.tls.clone(),
                log: log::Log::new(shared.audit.clone()),
                connections: log::Log::new(shared.connections.clone()),
                contents: Contents::new(folder.clone()),
                published,
                stop: stop.subscribe(),
                limits,
            };
            threads.running.push(std::thread::spawn(move || core::run(start)));
        }
        threads
    }

    /// Ends when a thread has: on its own, none does.
    pub(super) async fn ended(&self) {
        while !self.running.iter().any(JoinHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    pub(super) fn counters(&self) -> SinkCounters {
        let mut sum = Tally::new();
        for published in &self.published {
            sum.add(&published.lock().unwrap_or_else(PoisonError::into_inner));
        }
        sum.snapshot()
    }

    pub(super) fn join(mut self) -> Result<Ended, SinkError> {
        let mut peers = Vec::with_capacity(self.running.len());
        for thread in self.running.drain(..) {
            let ended = thread.join().unwrap_or_else(|_| Err(io::Error::other("it panicked")));
            peers.push(ended.map_err(SinkError::Thread)?);
        }
        Ok(Ended { counters: self.counters(), peers })
    }
}

fn limits(config: &SinkConfig) -> core::Limits {
    let SinkConfig { connections_max, idle_max, delay, proxy_protocol, .. } = *config;
    let implicit_tls = mode(config) == Some(TlsMode::Implicit);
    core::Limits { connections_max, idle_max, delay, implicit_tls, proxy_protocol }
}

fn mode(config: &SinkConfig) -> Option<TlsMode> {
    config.tls.as_ref().map(|tls| tls.mode)
}

fn policy(config: &SinkConfig) -> session::Policy {
    let starttls = matches!(mode(config), Some(TlsMode::Offer | TlsMode::Require));
    let SinkConfig { pipelining, chunking, lmtp, size_max, .. } = *config;
    let offers = replies::Offers { pipelining, chunking, starttls, auth: config.account.is_some(), size_max };
    let name = config.names.first().map_or("loadgen.test", String::as_str);
    session::Policy {
        texts: replies::Texts::new(name, lmtp, offers),
        lmtp,
        starttls,
        tls_required: mode(config) == Some(TlsMode::Require),
        account: config.account.clone(),
        chunking,
        size_max,
        recipients_max: config.recipients_max,
        close_after: config.close_after,
        faults: faults::Faults::new(&config.faults, config.seed),
        seed: config.seed,
        keeps_contents: config.contents.is_some(),
    }
}
