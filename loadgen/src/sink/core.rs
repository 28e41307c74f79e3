//! One thread of the sink: its listeners, its connections, its share of the books.
//!
//! A connection reads what is there, lets its session answer all of it, and writes the answers in one flight.
//! Buffers belong to the connection and are reused, so that a delivery allocates nothing. Ends when told to:
//! listeners and connections are shut down, their operations end, the books are closed.
//! Bounds: `connections_max`, `READ_BYTES` and one flight of replies per connection, an idle limit.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{Shutdown, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_uring::net::{TcpListener, TcpStream};

use super::log::Log;
use super::replies::TOO_MANY_CONNECTIONS;
use super::session::{Books, Flow, Policy, Session};
use super::tally::Tally;
use crate::ring::{self, Pulse, Watch, now_ns};

const READ_BYTES: usize = 64 * 1024;
const TICK: Duration = Duration::from_millis(100);
const LINGER_MAX: Duration = Duration::from_secs(2);

/// What a thread is started with.
pub(crate) struct Start {
    pub(crate) listeners: Vec<StdListener>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) log: Log,
    pub(crate) published: Arc<Mutex<Tally>>,
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) limits: Limits,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) connections_max: u64,
    pub(crate) idle_max: Duration,
    pub(crate) delay: Duration,
}

struct Core {
    policy: Arc<Policy>,
    limits: Limits,
    books: RefCell<Books>,
    watch: Watch,
    sessions: Cell<u64>,
    stopping: Cell<bool>,
}

/// Serves until `start.stop` turns true; then the audit is complete.
pub(crate) fn run(start: Start) -> io::Result<()> {
    ring::run(serve(start))?
}

async fn serve(start: Start) -> io::Result<()> {
    let Start { listeners, policy, log, published, mut stop, limits } = start;
    let books = RefCell::new(Books { log, tally: Tally::new(), now_ns: 0 });
    let (watch, sessions, stopping) = (Watch::default(), Cell::new(0), Cell::new(false));
    let core = Rc::new(Core { policy, limits, books, watch, sessions, stopping });
    let mut handles = Vec::with_capacity(listeners.len());
    for listener in listeners {
        handles.push(listener.try_clone()?);
        tokio_uring::spawn(accept_all(core.clone(), TcpListener::from_std(listener)));
    }
    while !*stop.borrow() {
        let _elapsed = tokio::time::timeout(TICK, stop.changed()).await;
        core.tick(&published);
    }
    core.end(&handles).await;
    core.tick(&published);
    let log = core.books.replace(Books { log: Log::new(None), tally: Tally::new(), now_ns: 0 }).log;
    log.close()
}

impl Core {
    fn tick(&self, published: &Mutex<Tally>) {
        let mut books = self.books.borrow_mut();
        books.log.flush();
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

    fn open_session(&self) -> Option<Session> {
        let tally = &mut self.books.borrow_mut().tally;
        tally.connections += 1;
        self.sessions.set(self.sessions.get() + 1);
        (tally.connections_open < self.limits.connections_max).then(|| {
            tally.connections_open += 1;
            Session::new(&self.policy, self.sessions.get())
        })
    }

    fn close_session(&self) {
        self.books.borrow_mut().tally.connections_open -= 1;
    }
}

async fn accept_all(core: Rc<Core>, listener: TcpListener) {
    while !core.stopping.get() {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio_uring::spawn(serve_one(core.clone(), Rc::new(stream)))),
            // Out of descriptors, or the peer left before we looked: the next one may do.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn serve_one(core: Rc<Core>, stream: Rc<TcpStream>) {
    let _ = stream.set_nodelay(true); // without it a split flight would wait for an ACK
    let Some(session) = core.open_session() else {
        let _ = stream.write_all(TOO_MANY_CONNECTIONS.1.as_bytes().to_vec()).await;
        return;
    };
    let pulse = core.watch.add(stream.clone());
    // An error ends one connection; the client knows as much as we do.
    let _ = Connection { core: core.clone(), stream, pulse, session }.talk().await;
    core.close_session();
}

struct Connection {
    core: Rc<Core>,
    stream: Rc<TcpStream>,
    pulse: Rc<Pulse>,
    session: Session,
}

impl Connection {
    async fn talk(mut self) -> io::Result<()> {
        let (mut inbound, mut out) = (Vec::with_capacity(READ_BYTES), Vec::with_capacity(1024));
        let core = self.core.clone();
        let mut flow = self.session.handle_connect(&core.policy, &mut core.books.borrow_mut(), &mut out);
        loop {
            out = self.send(out).await?;
            match flow {
                Flow::Continue => inbound = self.read(inbound).await?,
                Flow::Finish => return self.close_politely(inbound).await,
                Flow::Drop => return Ok(()),
            }
            if inbound.is_empty() {
                return Ok(());
            }
            flow = self.answer(&inbound, &mut out);
        }
    }

    fn answer(&mut self, inbound: &[u8], out: &mut Vec<u8>) -> Flow {
        let mut books = self.core.books.borrow_mut();
        books.now_ns = now_ns();
        self.session.handle_bytes(&self.core.policy, &mut books, inbound, out)
    }

    async fn send(&self, out: Vec<u8>) -> io::Result<Vec<u8>> {
        if out.is_empty() {
            return Ok(out);
        }
        if !self.core.limits.delay.is_zero() {
            tokio::time::sleep(self.core.limits.delay).await;
        }
        self.pulse.wait_begins(Instant::now());
        let (sent, mut out) = self.stream.write_all(out).await;
        out.clear();
        sent.map(|()| out)
    }

    /// Gives back an empty buffer at the end of the stream.
    async fn read(&self, mut inbound: Vec<u8>) -> io::Result<Vec<u8>> {
        inbound.clear();
        self.pulse.wait_begins(Instant::now());
        let (read, inbound) = self.stream.read(inbound).await;
        read.map(|_| inbound)
    }

    /// Closing with unread bytes would reset the connection and could take the last reply with it.
    async fn close_politely(&self, mut inbound: Vec<u8>) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)?;
        let deadline = Instant::now() + LINGER_MAX;
        while Instant::now() < deadline {
            inbound = self.read(inbound).await?;
            if inbound.is_empty() {
                break;
            }
        }
        Ok(())
    }
}
