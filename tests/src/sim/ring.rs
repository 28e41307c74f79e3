//! [`SimRing`]: what a core thread can ask of the world, when the world is simulated.
//!
//! `wait` never blocks and never moves time. It gives some of the events that are due, in an order and in batches
//! that the seed decides: events of one receive, one accept or one send keep their order, all others may come in
//! any. It may return with nothing before its time-out is over, as a signal may make the real one do; the world
//! gives the core its next turn when an event is there or the time-out that it last asked for is over.
//!
//! A batch may hold events of a socket that the caller closes while it works on that batch, as the real one may;
//! later batches hold only its `Sent`.
//!
//! Stricter than the real ring: it panics where a caller breaks the contract of `api.rs` (overlapping sends, a
//! second receive, a socket that was closed, a write that is not aligned). After a crash every call is void.

use super::clock::nanos;
use super::disk::Handle;
use super::sockets::{Listener, Sock, Stream};
use super::weather::Weather;
use super::world::State;
use ring::{Access, Event, File, Outgoing, Received, Ring, Socket, Token, Wake, Waker};
use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Most events that one wait returns, as a completion queue has its size.
const BATCH_MAX: usize = 256;

pub struct SimRing {
    id: usize,
    state: Rc<RefCell<State>>,
    woken: Arc<Flag>,
    /// Lent receive buffers; they live here so that `received` can point into them.
    buffers: Vec<Vec<u8>>,
    free: Vec<u16>,
}

/// Set by [`Waker`]s, from any thread.
#[derive(Debug, Default)]
pub(super) struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Which events keep their order among themselves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Lane {
    Accept(u32),
    Connect(u32),
    Receive(u32),
    Send(u32),
    Disk(u64),
}

#[expect(
    clippy::large_enum_variant,
    reason = "an event is handed on as it is; a box for each would cost more"
)]
pub(super) enum What {
    Event(Event),
    /// Becomes `Received` when it is handed out, in a buffer of the ring's.
    Bytes(Token, Vec<u8>),
}

/// The world's side of a ring.
pub(super) struct RingState {
    alive: bool,
    pub(super) woken: Arc<Flag>,
    /// When the time-out of the last wait is over.
    deadline: Option<u64>,
    busy_until: u64,
    pub(super) ready: Vec<(Lane, What)>,
    pub(super) sockets: Slots<Sock>,
    pub(super) files: Slots<Handle>,
    buffers_max: usize,
    pub(super) buffers_free: usize,
    /// Sockets that wait for a buffer.
    pub(super) starved: Vec<u32>,
}

/// Numbered places, the one freed last used first, so that stale numbers meet new owners; but not before the next
/// wait, since events that name the old owner may be in the batch that the caller is working on.
pub(super) struct Slots<T> {
    places: Vec<Option<T>>,
    free: Vec<u32>,
    free_at_wait: Vec<u32>,
}

impl<T> Slots<T> {
    fn new() -> Slots<T> {
        Slots { places: Vec::new(), free: Vec::new(), free_at_wait: Vec::new() }
    }

    pub(super) fn insert(&mut self, value: T) -> u32 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            u32::try_from(self.places.len() - 1).expect("fewer than 2^32 places")
        });
        self.places[place as usize] = Some(value);
        place
    }

    pub(super) fn get(&mut self, place: u32) -> Option<&mut T> {
        self.places.get_mut(place as usize)?.as_mut()
    }

    pub(super) fn remove(&mut self, place: u32) -> Option<T> {
        let value = self.places.get_mut(place as usize)?.take();
        if value.is_some() {
            self.free_at_wait.push(place);
        }
        value
    }

    fn begin_wait(&mut self) {
        self.free.append(&mut self.free_at_wait);
    }

    fn occupied(&self) -> Vec<u32> {
        let all = (0..).zip(&self.places);
        all.filter(|(_, value)| value.is_some()).map(|(place, _)| place).collect()
    }
}

impl RingState {
    pub(super) fn new(now: u64, weather: &Weather) -> RingState {
        let buffers_max = usize::from(weather.buffers_max);
        RingState {
            alive: true,
            woken: Arc::default(),
            deadline: Some(now),
            busy_until: now,
            ready: Vec::new(),
            sockets: Slots::new(),
            files: Slots::new(),
            buffers_max,
            buffers_free: buffers_max,
            starved: Vec::new(),
        }
    }

    /// When the core should have its next turn; `None` if nothing is known that it waits for.
    pub(super) fn next_turn(&self) -> Option<u64> {
        let ready = !self.ready.is_empty() || self.woken.0.load(Ordering::Acquire);
        match (self.alive, ready) {
            (false, _) => None,
            (true, true) => Some(self.busy_until),
            (true, false) => self.deadline.map(|at| at.max(self.busy_until)),
        }
    }

    pub(super) fn buffers_lent(&self) -> usize {
        self.buffers_max - self.buffers_free
    }

    pub(super) fn sockets_open(&self) -> usize {
        self.sockets.occupied().len()
    }

    pub(super) fn is_alive(&self) -> bool {
        self.alive
    }
}

impl State {
    /// Some of what is due for the ring; notes its time-out.
    fn take_ready(&mut self, id: usize, timeout: Option<Duration>) -> (Vec<(Lane, What)>, bool) {
        let now = self.now();
        let cost = self.turn_cost();
        let State { rings, rng, .. } = self;
        let ring = &mut rings[id];
        ring.sockets.begin_wait();
        ring.files.begin_wait();
        let woken = ring.woken.0.swap(false, Ordering::AcqRel);
        let len = ring.ready.len();
        let count = if rng.coin() { len } else { rng.index(len) + usize::from(len > 0) };
        let mut batch = Vec::with_capacity(count.min(BATCH_MAX));
        for _ in 0..count.min(BATCH_MAX) {
            let lane = rng.pick(&ring.ready).0;
            let first = ring.ready.iter().position(|(other, _)| *other == lane).expect("it was just picked");
            batch.push(ring.ready.remove(first));
        }
        let slept = batch.is_empty() && !woken;
        ring.deadline =
            if slept { timeout.map(|timeout| now.saturating_add(nanos(timeout))) } else { Some(now) };
        ring.busy_until = now + cost;
        for (lane, what) in &batch {
            self.note_delivery(id, *lane);
            if let (Lane::Receive(socket), What::Bytes(_, bytes)) = (lane, what) {
                self.ring_has_read(id, *socket, bytes.len());
            }
        }
        (batch, woken)
    }

    fn note_delivery(&mut self, ring: usize, lane: Lane) {
        let (what, detail) = match lane {
            Lane::Accept(socket) => ("accepted", u64::from(socket)),
            Lane::Connect(socket) => ("connected", u64::from(socket)),
            Lane::Receive(socket) => ("received", u64::from(socket)),
            Lane::Send(socket) => ("sent", u64::from(socket)),
            Lane::Disk(operation) => ("disk", operation),
        };
        self.note(what, ring as u64, detail);
        if let Lane::Send(socket) = lane {
            self.free_closed(ring, socket);
        }
    }

    /// The process of this ring is gone: its connections break, its events are nobody's.
    pub(super) fn end_ring(&mut self, id: usize) {
        if !self.rings[id].alive {
            return;
        }
        for socket in self.rings[id].sockets.occupied() {
            self.abandon_socket(id, socket);
        }
        let ring = &mut self.rings[id];
        ring.alive = false;
        ring.ready.clear();
    }
}

impl SimRing {
    pub(super) fn new(id: usize, count: u16, state: Rc<RefCell<State>>, woken: Arc<Flag>) -> SimRing {
        let buffers = (0..count).map(|_| Vec::new()).collect();
        SimRing { id, state, woken, buffers, free: (0..count).collect() }
    }

    /// Does something in the world, unless this ring did not survive the last crash.
    fn alive<T>(&self, act: impl FnOnce(&mut State, usize) -> T) -> Option<T> {
        let mut state = self.state.borrow_mut();
        state.rings[self.id].alive.then(|| act(&mut state, self.id))
    }

    fn alive_or<T>(&self, act: impl FnOnce(&mut State, usize) -> io::Result<T>) -> io::Result<T> {
        self.alive(act).unwrap_or_else(|| Err(crashed()))
    }

    fn lend(&mut self, token: Token, bytes: Vec<u8>) -> Event {
        let buffer = self.free.pop().expect("the world counts the buffers that it lends");
        let len = u32::try_from(bytes.len()).expect("a buffer is short");
        self.buffers[usize::from(buffer)] = bytes;
        Event::Received { token, data: Received { buffer, len } }
    }
}

fn crashed() -> io::Error {
    io::Error::other("this ring's process is gone: the world crashed")
}

impl Drop for SimRing {
    fn drop(&mut self) {
        // Not while a panic is under way inside the world: it is borrowed then.
        if let Ok(mut state) = self.state.try_borrow_mut() {
            state.end_ring(self.id);
        }
    }
}

impl Ring for SimRing {
    fn listen(&mut self, address: SocketAddr) -> io::Result<Socket> {
        self.alive_or(|state, id| state.ring_listen(id, address))
    }

    /// The simulated machine has no Unix sockets.
    fn adopt_listener(&mut self, _listener: OwnedFd) -> io::Result<Socket> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn local_address(&self, socket: Socket) -> io::Result<SocketAddr> {
        self.alive_or(|state, id| Ok(state.listener(id, socket.0).address))
    }

    fn accept(&mut self, token: Token, listener: Socket) {
        self.alive(|state, id| state.ring_accept(id, listener.0, token));
    }

    fn connect(&mut self, token: Token, peer: SocketAddr, source: Option<IpAddr>) -> io::Result<Socket> {
        self.alive_or(|state, id| Ok(Socket(state.ring_connect(id, token, peer, source))))
    }

    /// Nor does it deliver to mailboxes.
    fn connect_locally(&mut self, _token: Token, _path: &Path) -> io::Result<Socket> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn receive(&mut self, token: Token, socket: Socket) {
        self.alive(|state, id| state.ring_receive(id, socket.0, token));
    }

    fn pause(&mut self, socket: Socket) {
        self.alive(|state, id| state.ring_pause(id, socket.0));
    }

    fn send(&mut self, token: Token, socket: Socket, outgoing: Outgoing) {
        self.alive(|state, id| state.ring_send(id, socket.0, token, outgoing));
    }

    fn close(&mut self, socket: Socket) {
        self.alive(|state, id| state.ring_close(id, socket.0));
    }

    fn received(&self, data: &Received) -> &[u8] {
        &self.buffers[usize::from(data.buffer)][..data.len as usize]
    }

    fn give_back(&mut self, data: Received) {
        self.free.push(data.buffer);
        self.alive(|state, id| state.buffer_came_back(id));
    }

    fn write(&mut self, token: Token, file: File, offset: u64, bytes: Vec<u8>, durable: bool) {
        self.alive(|state, id| state.submit_write(id, token, file.0, offset, bytes, durable));
    }

    fn put(&mut self, file: File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.alive_or(|state, id| state.put_now(id, file.0, offset, bytes))
    }

    fn append(&mut self, token: Token, file: File, bytes: Vec<u8>) {
        self.alive(|state, id| state.submit_append(id, token, file.0, bytes));
    }

    fn put_at_end(&mut self, file: File, bytes: &[u8]) -> io::Result<usize> {
        self.alive_or(|state, id| state.put_at_end_now(id, file.0, bytes))
    }

    fn read(&mut self, token: Token, file: File, offset: u64, len: usize) {
        self.alive(|state, id| state.submit_read(id, token, file.0, offset, len));
    }

    fn sync(&mut self, token: Token, file: File, metadata: bool) {
        self.alive(|state, id| state.submit_sync(id, token, file.0, metadata));
    }

    fn allocate(&mut self, token: Token, file: File, len: u64) {
        self.alive(|state, id| state.submit_allocate(id, token, file.0, len));
    }

    fn open(&mut self, token: Token, path: &Path, access: Access) {
        self.alive(|state, id| state.submit_open(id, token, path, access));
    }

    fn remove(&mut self, token: Token, path: &Path) {
        self.alive(|state, id| state.submit_remove(id, token, path));
    }

    fn close_file(&mut self, file: File) {
        self.alive(|state, id| state.rings[id].files.remove(file.0).expect("close_file: not open"));
    }

    fn list(&mut self, folder: &Path) -> io::Result<Vec<String>> {
        self.alive_or(|state, _| Ok(state.disk.list(folder)))
    }

    fn open_now(&mut self, path: &Path, access: Access) -> io::Result<File> {
        self.alive_or(|state, id| state.open_file(id, path, access).map(File))
    }

    fn open_folder(&mut self, path: &Path) -> io::Result<File> {
        self.alive_or(|state, id| state.open_folder(id, path).map(File))
    }

    fn file_len(&mut self, file: File) -> io::Result<u64> {
        self.alive_or(|state, id| {
            let inode = state.file_handle(id, file.0).inode();
            Ok(state.disk.len(inode))
        })
    }

    fn read_now(&mut self, file: File, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        self.alive_or(|state, id| state.read_file_now(id, file.0, offset, bytes))
    }

    fn sync_now(&mut self, file: File) -> io::Result<()> {
        self.alive_or(|state, id| {
            state.sync_file_now(id, file.0);
            Ok(())
        })
    }

    fn free_space(&mut self, _folder: &Path) -> io::Result<u64> {
        self.alive_or(|state, _| Ok(state.disk.free_space()))
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        let (batch, woken) = self.alive(|state, id| state.take_ready(id, timeout)).ok_or_else(crashed)?;
        if woken {
            events.push(Event::Woken);
        }
        for (_, what) in batch {
            let event = match what {
                What::Event(event) => event,
                What::Bytes(token, bytes) => self.lend(token, bytes),
            };
            events.push(event);
        }
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.woken.clone()
    }
}

impl State {
    pub(super) fn push_ready(&mut self, ring: usize, lane: Lane, event: Event) {
        self.rings[ring].ready.push((lane, What::Event(event)));
    }

    pub(super) fn listener(&mut self, ring: usize, socket: u32) -> &mut Listener {
        match self.rings[ring].sockets.get(socket) {
            Some(Sock::Listener(listener)) => listener,
            _ => panic!("socket {socket} is not a listener of this ring"),
        }
    }

    /// The stream that a caller names; it must be open.
    pub(super) fn open_stream(&mut self, ring: usize, socket: u32) -> &mut Stream {
        match self.rings[ring].sockets.get(socket) {
            Some(Sock::Stream(stream)) if !stream.closed => stream,
            _ => panic!("socket {socket} is not an open connection of this ring"),
        }
    }
}
