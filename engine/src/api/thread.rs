//! The API's thread: a runtime of its own for its listeners, started with the daemon and ended with it.

use super::cores::Cores;
use super::desk::{Desk, Interfaces};
use super::leaving::Suppressing;
use super::router::router;
use super::serve::{Encryption, Front, serve};
use super::unsubscribe;
use crate::access::SessionLimits;
use crate::campaigns::clerk::Clerk;
use crate::config;
use crate::crossing::Crossing;
use crate::parts::Handed;
use crate::settings::Settings;
use parking_lot::RwLock;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;

/// Below the cores' threads: mail that is here goes before mail that comes.
const NICENESS: i32 = 2;

/// A page is read, and its button pressed, within this time; else there is another connection.
const PAGE_IDLE: Duration = Duration::from_secs(30);

/// Sockets that listen.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    api: Vec<TcpListener>,
    /// Of the page where recipients leave a list.
    unsubscribe: Vec<TcpListener>,
}

impl Listeners {
    /// On error the address that it is about.
    pub(crate) fn bind(
        config: &config::Config,
        handed: &Handed,
    ) -> Result<Listeners, (SocketAddr, io::Error)> {
        let unsubscribe = bind_all(&config.unsubscribe.listen, handed)?;
        Ok(Listeners { api: bind_all(&config.api.listen, handed)?, unsubscribe })
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.api.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    fn is_empty(&self) -> bool {
        self.api.is_empty() && self.unsubscribe.is_empty()
    }
}

fn bind_all(addresses: &[SocketAddr], handed: &Handed) -> Result<Vec<TcpListener>, (SocketAddr, io::Error)> {
    let bind = |address: &SocketAddr| {
        let listener = handed.tcp_listener(*address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    addresses.iter().map(|address| bind(address).map_err(|error| (*address, error))).collect()
}

/// See the module.
pub(crate) struct Running {
    thread: JoinHandle<()>,
    stop: watch::Sender<bool>,
    desk: Arc<Desk>,
    cores: Arc<Cores>,
    clerk: Arc<Clerk>,
    encryption: Encryption,
    page_encryption: Encryption,
}

impl Running {
    /// `None` if nobody is to be served.
    pub(crate) fn start(
        listeners: Listeners,
        settings: &Arc<Settings>,
        crossing: &Arc<Crossing>,
        cores: Arc<Cores>,
        clerk: Clerk,
    ) -> io::Result<Option<Running>> {
        if listeners.is_empty() {
            return Ok(None);
        }
        let clerk = Arc::new(clerk);
        let campaigns = Some(Arc::clone(&clerk) as Arc<_>);
        let suppression = crossing.suppression.get().cloned();
        let interfaces = Interfaces { injector: Arc::clone(&clerk) as Arc<_>, campaigns, suppression };
        let guesses = crossing.authenticator.get().cloned();
        let desk = Arc::new(Desk::new(interfaces, Arc::clone(&settings.api), guesses));
        let encryption: Encryption = Arc::new(RwLock::new(settings.api_tls.clone()));
        let front = front(&settings.config.api, router(Arc::clone(&desk)), Arc::clone(&encryption));
        let page = page(&settings.config.unsubscribe, settings, crossing);
        let page_encryption = Arc::clone(&page.encryption);
        let (stop, stopping) = watch::channel(false);
        let saving = Arc::clone(&clerk);
        let run = move || run(listeners, [&front, &page], &stopping, saving);
        let thread = std::thread::Builder::new().name("api".to_owned()).spawn(run)?;
        Ok(Some(Running { thread, stop, desk, cores, clerk, encryption, page_encryption }))
    }

    /// Tokens, certificates and limits of the new settings; addresses and bounds of connections are those of the start.
    pub(crate) fn configure(&self, settings: &Arc<Settings>) {
        self.desk.configure(Arc::clone(&settings.api));
        self.cores.configure(Arc::clone(settings));
        *self.encryption.write() = settings.api_tls.clone();
        *self.page_encryption.write() = settings.unsubscribe_tls.clone();
    }

    /// No new connections; requests under way end.
    pub(crate) fn begin_stop(&self) {
        let _ = self.stop.send(true);
    }

    /// Returns when they have ended.
    pub(crate) fn join(self) {
        self.begin_stop();
        let _ = self.thread.join();
        self.clerk.save_all();
    }
}

fn front(config: &config::Api, router: axum::Router, encryption: Encryption) -> Front {
    let limits = SessionLimits {
        total: config.connections_max,
        per_address: config.connections_per_address,
        ..SessionLimits::default()
    };
    let idle = Duration::from_secs(config.idle_timeout_secs);
    Front { router, encryption, limits, counts: Arc::default(), idle }
}

/// What `unsubscribe.listen` serves.
fn page(config: &config::Unsubscribe, settings: &Settings, crossing: &Arc<Crossing>) -> Front {
    let limits = SessionLimits {
        total: config.connections_max,
        per_address: config.connections_per_address,
        ..SessionLimits::default()
    };
    let leaving = Arc::new(Suppressing(Arc::clone(crossing)));
    Front {
        router: unsubscribe::router(&settings.secret.0, leaving),
        encryption: Arc::new(RwLock::new(settings.unsubscribe_tls.clone())),
        limits,
        counts: Arc::default(),
        idle: PAGE_IDLE,
    }
}

fn run(listeners: Listeners, [api, page]: [&Front; 2], stopping: &watch::Receiver<bool>, clerk: Arc<Clerk>) {
    let _ = rustix::process::nice(NICENESS);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "the API cannot be served"),
    };
    runtime.block_on(async {
        tokio::spawn(clerk.run());
        let mut serving = Vec::new();
        let api = listeners.api.into_iter().map(|listener| (listener, api));
        for (listener, front) in api.chain(listeners.unsubscribe.into_iter().map(|listener| (listener, page)))
        {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => serving.push(tokio::spawn(serve(listener, front.clone(), stopping.clone()))),
                Err(error) => tracing::error!(%error, "an address of the API cannot be served"),
            }
        }
        for listener in serving {
            let _ = listener.await;
        }
    });
}
