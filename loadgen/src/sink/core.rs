//! One thread of the sink: its listeners, its connections, its share of the books.
//!
//! Connections are in `connection`. Buffers belong to the connection and are reused, so that a delivery allocates nothing. Ends when told to:
//! listeners and connections are shut down, their operations end, the books are closed.
//! Bounds: `connections_max`, an idle limit.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use tokio::sync::watch;
use tokio_uring::net::TcpListener;

use super::connection::{self, LINGER_MAX};
use super::contents::Contents;
use super::log::Log;
use super::peers::Peers;
use super::session::{Books, Policy};
use super::tally::Tally;
use crate::ring::{self, Watch};

const TICK: Duration = Duration::from_millis(100);

/// What a thread is started with.
pub(crate) struct Start {
    pub(crate) listeners: Vec<StdListener>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) tls: Option<Arc<ServerConfig>>,
    pub(crate) log: Log,
    pub(crate) connections: Log,
    pub(crate) contents: Contents,
    pub(crate) published: Arc<Mutex<Tally>>,
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) limits: Limits,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) connections_max: u64,
    pub(crate) idle_max: Duration,
    pub(crate) delay: Duration,
    /// TLS before the greeting.
    pub(crate) implicit_tls: bool,
    /// A PROXY header before anything.
    pub(crate) proxy_protocol: bool,
}

pub(crate) struct Core {
    pub(crate) policy: Arc<Policy>,
    pub(crate) limits: Limits,
    pub(crate) tls: Option<Arc<ServerConfig>>,
    pub(crate) books: RefCell<Books>,
    pub(crate) watch: Watch,
    sessions: Cell<u64>,
    stopping: Cell<bool>,
}

/// Serves until `start.stop` turns true; then the audit is complete, and this is who was seen.
pub(crate) fn run(start: Start) -> io::Result<Peers> {
    ring::run(serve(start))?
}

async fn serve(start: Start) -> io::Result<Peers> {
    let Start { listeners, policy, tls, log, connections, contents, published, mut stop, limits } = start;
    let books = RefCell::new(Books { contents, ..Books::new(log, connections) });
    let (watch, sessions, stopping) = (Watch::default(), Cell::new(0), Cell::new(false));
    let core = Rc::new(Core { policy, limits, tls, books, watch, sessions, stopping });
    let mut handles = Vec::with_capacity(listeners.len());
    for listener in listeners {
        handles.push(listener.try_clone()?);
        let address = listener.local_addr()?;
        tokio_uring::spawn(accept_all(core.clone(), TcpListener::from_std(listener), address));
    }
    while !*stop.borrow() {
        let _elapsed = tokio::time::timeout(TICK, stop.changed()).await;
        core.tick(&published);
    }
    core.end(&handles).await;
    core.tick(&published);
    let books = core.books.replace(Books::new(Log::new(None), Log::new(None)));
    books.connections.close()?;
    books.log.close()?;
    books.contents.close()?;
    Ok(books.peers)
}

impl Core {
    fn tick(&self, published: &Mutex<Tally>) {
        let mut books = self.books.borrow_mut();
        books.log.flush();
        books.connections.flush();
        published.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&books.tally);
        drop(books);
        self.watch.sweep(Instant::now(), self.limits.idle_max);
    }

    /// Shuts everything down and waits, within a bound, for the operations to end.
    async fn end(&self, listeners: &[StdListener]) {
        self.stopping.set(true);
        for listener in listeners {
            let _ = socket2::SockRef::from(listener).shutdown(Shutdown::Both); // else accept never ends
        }
        self.watch.shut_down_all();
        let deadline = Instant::now() + LINGER_MAX;
        while self.watch.open_count() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The session's number, or none when there are too many.
    pub(crate) fn admit(&self) -> Option<u64> {
        let tally = &mut self.books.borrow_mut().tally;
        tally.connections += 1;
        self.sessions.set(self.sessions.get() + 1);
        (tally.connections_open < self.limits.connections_max).then(|| {
            tally.connections_open += 1;
            self.sessions.get()
        })
    }

    pub(crate) fn leave(&self) {
        self.books.borrow_mut().tally.connections_open -= 1;
    }
}

async fn accept_all(core: Rc<Core>, listener: TcpListener, address: SocketAddr) {
    while !core.stopping.get() {
        match listener.accept().await {
            Ok((stream, peer)) => {
                drop(tokio_uring::spawn(connection::serve(core.clone(), Rc::new(stream), peer, address)));
            }
            // Out of descriptors, or the peer left before we looked: the next one may do.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}
