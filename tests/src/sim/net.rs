//! Connections: two byte streams each, cut into segments that take their time, or never arrive.
//!
//! An end belongs to a ring's socket or to an actor. Order within a direction is kept, as TCP does; everything
//! else (size of segments, latency, resets, hosts that vanish) is the seed's. A direction holds at most `window`
//! octets that its receiver has not read; the rest waits with the sender.

use super::actor::Ending;
use super::clock::{MICRO, MILLI, SECOND};
use super::rng::Rng;
use super::weather::Weather;
use super::world::{Due, State};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

pub(super) const ECONNREFUSED: i32 = 111;
pub(super) const ECONNRESET: i32 = 104;
pub(super) const ETIMEDOUT: i32 = 110;

/// Octets at the start of a chopped connection that travel in small pieces.
const CHOPPED_LEN: u64 = 600;

/// One end of a connection.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Link {
    pub(super) conn: u32,
    pub(super) end: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Owner {
    Nobody,
    Actor(usize),
    Ring {
        ring: usize,
        socket: u32,
    },
    /// Established, not yet accepted from this listener.
    Backlog {
        ring: usize,
        socket: u32,
    },
}

/// Who listens at an address. Several rings may share one (SO_REUSEPORT).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Listening {
    Actor(usize),
    Ring { ring: usize, socket: u32 },
}

pub(super) struct Net {
    pub(super) conns: Vec<Conn>,
    pub(super) listeners: BTreeMap<SocketAddr, Vec<Listening>>,
    next_port: u16,
}

/// End 0 connected, end 1 accepted; pipe `i` carries what end `i` sends.
pub(super) struct Conn {
    pub(super) addresses: [SocketAddr; 2],
    pub(super) ends: [End; 2],
    pub(super) pipes: [Pipe; 2],
    latency: u64,
    chopped: bool,
    vanished: bool,
}

pub(super) struct End {
    pub(super) owner: Owner,
    held: bool,
    pub(super) broken: Option<i32>,
}

#[derive(Default)]
pub(super) struct Pipe {
    /// With the sender, under way, with the receiver.
    pub(super) outbox: VecDeque<u8>,
    flight: VecDeque<u8>,
    pub(super) inbox: VecDeque<u8>,
    window: usize,
    last_arrival: u64,
    written: u64,
    read: u64,
    closing: bool,
    fin_sent: bool,
    pub(super) fin_arrived: bool,
}

impl Net {
    pub(super) fn new() -> Net {
        Net { conns: Vec::new(), listeners: BTreeMap::new(), next_port: 40_000 }
    }

    pub(super) fn listen_actor(&mut self, address: SocketAddr, actor: usize) {
        self.listeners.entry(address).or_default().push(Listening::Actor(actor));
    }

    pub(super) fn port(&mut self) -> u16 {
        self.next_port = self.next_port.checked_add(1).unwrap_or(10_000);
        self.next_port
    }

    pub(super) fn written_and_read(&self, link: Link) -> (u64, u64) {
        let pipe = &self.conns[link.conn as usize].pipes[link.end];
        (pipe.written, pipe.read)
    }

    pub(super) fn conn(&mut self, conn: u32) -> &mut Conn {
        &mut self.conns[conn as usize]
    }
}

impl Conn {
    fn new(owner: Owner, addresses: [SocketAddr; 2], rng: &mut Rng, weather: &Weather) -> Conn {
        let end = |owner| End { owner, held: false, broken: None };
        let mut pipe = || Pipe {
            window: usize::try_from(rng.range(&weather.window)).expect("a window fits"),
            ..Pipe::default()
        };
        let pipes = [pipe(), pipe()];
        let latency = rng.range(&weather.latency_us) * MICRO;
        let chopped = rng.hits(weather.chopped);
        Conn { addresses, ends: [end(owner), end(Owner::Nobody)], pipes, latency, chopped, vanished: false }
    }

    /// How many octets go next, if any may.
    fn next_segment(&self, dir: usize, rng: &mut Rng) -> Option<usize> {
        let pipe = &self.pipes[dir];
        let room = pipe.window.saturating_sub(pipe.flight.len() + pipe.inbox.len());
        let most = pipe.outbox.len().min(room);
        if most == 0 {
            return None;
        }
        let cut = if self.chopped && pipe.written < CHOPPED_LEN {
            rng.index(16) + 1
        } else {
            1_460 << rng.index(6)
        };
        Some(most.min(cut))
    }

    /// When something sent now arrives: never before what was sent earlier.
    fn arrival(&mut self, dir: usize, now: u64, rng: &mut Rng) -> u64 {
        let at = now + self.latency + rng.below(self.latency / 4 + MICRO);
        let pipe = &mut self.pipes[dir];
        pipe.last_arrival = at.max(pipe.last_arrival + 1);
        pipe.last_arrival
    }

    /// Nobody will read or write here again: gives the memory back.
    fn bury(&mut self) {
        if self.ends.iter().all(|end| end.owner == Owner::Nobody) {
            for pipe in &mut self.pipes {
                (pipe.flight, pipe.inbox) = (VecDeque::new(), VecDeque::new());
            }
        }
    }
}

/// Moves at most `len` octets, in slices rather than one by one.
fn move_octets(from: &mut VecDeque<u8>, to: &mut impl for<'a> Extend<&'a u8>, len: usize) {
    let len = len.min(from.len());
    let (first, second) = from.as_slices();
    let cut = first.len().min(len);
    to.extend(&first[..cut]);
    to.extend(&second[..len - cut]);
    from.drain(..len);
}

impl State {
    // ---- connecting ----

    pub(super) fn wire_connect(&mut self, owner: Owner, from: SocketAddr, to: SocketAddr) -> u32 {
        let conn = u32::try_from(self.net.conns.len()).expect("fewer than 2^32 connections");
        let new = Conn::new(owner, [from, to], &mut self.rng, &self.weather);
        let latency = new.latency;
        self.net.conns.push(new);
        self.note("connect", u64::from(conn), u64::from(to.port()));
        self.after(latency + 1, Due::Syn { conn });
        conn
    }

    pub(super) fn actor_connect(&mut self, actor: usize, to: SocketAddr) -> Link {
        let port = self.net.port();
        let from = SocketAddr::from(([10, 98, 0, 1], port));
        Link { conn: self.wire_connect(Owner::Actor(actor), from, to), end: 0 }
    }

    pub(super) fn on_syn(&mut self, conn: u32) {
        let link = &self.net.conns[conn as usize];
        let (to, latency) = (link.addresses[1], link.latency);
        if link.ends[0].owner == Owner::Nobody {
            return;
        }
        if self.rng.hits(self.weather.unanswered) {
            return self.after(127 * SECOND, Due::Refused { conn, code: ETIMEDOUT });
        }
        let listeners = self.net.listeners.get(&to).filter(|listeners| !listeners.is_empty()).cloned();
        match listeners {
            Some(listeners) if !self.rng.hits(self.weather.refused) => {
                let chosen = *self.rng.pick(&listeners);
                self.establish(conn, chosen);
            }
            _ => self.after(latency, Due::Refused { conn, code: ECONNREFUSED }),
        }
    }

    fn establish(&mut self, conn: u32, listening: Listening) {
        let now = self.now();
        self.note("establish", u64::from(conn), 0);
        let State { net, rng, timeline, .. } = self;
        let link = net.conn(conn);
        // The other end's first octets arrive after the news that it is there.
        let at = link.arrival(1, now, rng);
        timeline.push(at, Due::Established { conn });
        self.foretell_disaster(conn);
        match listening {
            Listening::Actor(actor) => {
                self.net.conn(conn).ends[1].owner = Owner::Actor(actor);
                self.with_actor(actor, |actor, io| actor.handle_opened(io, Link { conn, end: 1 }));
            }
            Listening::Ring { ring, socket } => {
                self.net.conn(conn).ends[1].owner = Owner::Backlog { ring, socket };
                self.ring_backlog(ring, socket, conn);
            }
        }
    }

    fn foretell_disaster(&mut self, conn: u32) {
        let soon = self.rng.below(2 * SECOND);
        if self.rng.hits(self.weather.reset) {
            self.after(soon, Due::Broken { conn, end: 0, code: ECONNRESET });
            self.after(soon + MILLI, Due::Broken { conn, end: 1, code: ECONNRESET });
        }
        if self.rng.hits(self.weather.vanish) {
            self.after(soon, Due::Vanish { conn });
        }
    }

    pub(super) fn on_established(&mut self, conn: u32) {
        match self.net.conn(conn).ends[0].owner {
            Owner::Actor(actor) => {
                self.with_actor(actor, |actor, io| actor.handle_opened(io, Link { conn, end: 0 }));
            }
            Owner::Ring { ring, socket } => self.ring_connected(ring, socket),
            Owner::Backlog { .. } | Owner::Nobody => {}
        }
    }

    // ---- octets ----

    pub(super) fn wire_send(&mut self, link: Link, bytes: &[u8]) {
        let conn = self.net.conn(link.conn);
        if conn.ends[link.end].owner == Owner::Nobody || conn.ends[link.end].broken.is_some() {
            return;
        }
        let pipe = &mut conn.pipes[link.end];
        pipe.written += bytes.len() as u64;
        pipe.outbox.extend(bytes);
        self.pump(link.conn, link.end);
    }

    /// Puts under way what the window allows.
    pub(super) fn pump(&mut self, conn: u32, dir: usize) {
        let now = self.now();
        let State { net, rng, timeline, .. } = self;
        let link = &mut net.conns[conn as usize];
        while let Some(len) = link.next_segment(dir, rng) {
            let at = link.arrival(dir, now, rng);
            let Pipe { outbox, flight, .. } = &mut link.pipes[dir];
            move_octets(outbox, flight, len);
            timeline.push(at, Due::Segment { conn, dir, len });
        }
        if link.pipes[dir].outbox.is_empty() {
            self.on_outbox_empty(conn, dir);
        }
    }

    fn on_outbox_empty(&mut self, conn: u32, dir: usize) {
        let now = self.now();
        let State { net, rng, timeline, .. } = self;
        let link = &mut net.conns[conn as usize];
        if link.pipes[dir].closing && !link.pipes[dir].fin_sent {
            link.pipes[dir].fin_sent = true;
            let at = link.arrival(dir, now, rng);
            timeline.push(at, Due::Fin { conn, dir });
        }
        if let Owner::Ring { ring, socket } = link.ends[dir].owner {
            self.ring_sent(ring, socket);
        }
    }

    pub(super) fn on_segment(&mut self, conn: u32, dir: usize, len: usize) {
        let link = self.net.conn(conn);
        if link.vanished || link.ends[1 - dir].broken.is_some() {
            return;
        }
        let (gone, latency) = (link.ends[1 - dir].owner == Owner::Nobody, link.latency);
        let Pipe { flight, inbox, .. } = &mut link.pipes[dir];
        if gone {
            flight.clear();
            self.after(latency, Due::Broken { conn, end: dir, code: ECONNRESET });
            return;
        }
        move_octets(flight, inbox, len);
        self.note("segment", u64::from(conn) * 2 + dir as u64, len as u64);
        self.readable(conn, 1 - dir);
    }

    /// Gives an end what has arrived for it, and the end of the stream after the last octet.
    pub(super) fn readable(&mut self, conn: u32, end: usize) {
        match self.net.conn(conn).ends[end].owner {
            Owner::Actor(actor) => self.actor_reads(conn, end, actor),
            Owner::Ring { ring, socket } => self.ring_reads(ring, socket),
            Owner::Backlog { .. } | Owner::Nobody => {}
        }
    }

    /// Takes at most `len_max` octets off the end's inbox.
    pub(super) fn take_inbox(&mut self, conn: u32, end: usize, len_max: usize) -> Vec<u8> {
        let pipe = &mut self.net.conn(conn).pipes[1 - end];
        let mut taken = Vec::new();
        move_octets(&mut pipe.inbox, &mut taken, len_max);
        taken
    }

    /// The reader has seen so many octets more.
    pub(super) fn count_read(&mut self, conn: u32, end: usize, len: usize) {
        self.net.conn(conn).pipes[1 - end].read += len as u64;
    }

    fn actor_reads(&mut self, conn: u32, end: usize, actor: usize) {
        if self.net.conn(conn).ends[end].held {
            return;
        }
        let bytes = self.take_inbox(conn, end, usize::MAX);
        if !bytes.is_empty() {
            self.count_read(conn, end, bytes.len());
            self.with_actor(actor, |actor, io| actor.handle_bytes(io, Link { conn, end }, &bytes));
            self.pump(conn, 1 - end);
        }
        let link = self.net.conn(conn);
        let over =
            link.pipes[1 - end].fin_arrived && link.pipes[1 - end].inbox.is_empty() && !link.ends[end].held;
        if over && link.ends[end].owner == Owner::Actor(actor) {
            self.wire_close(Link { conn, end });
            self.with_actor(actor, |actor, io| actor.handle_ended(io, Link { conn, end }, Ending::Closed));
        }
    }

    pub(super) fn wire_hold(&mut self, link: Link, hold: bool) {
        self.net.conn(link.conn).ends[link.end].held = hold;
        if !hold {
            self.after(1, Due::Readable { conn: link.conn, end: link.end });
        }
    }

    // ---- ending ----

    pub(super) fn on_fin(&mut self, conn: u32, dir: usize) {
        let link = self.net.conn(conn);
        if link.vanished {
            return;
        }
        link.pipes[dir].fin_arrived = true;
        self.readable(conn, 1 - dir);
    }

    /// The owner lets go. Octets that it never read make it a reset, as on Linux.
    pub(super) fn wire_close(&mut self, link: Link) {
        let Link { conn, end } = link;
        let this = self.net.conn(conn);
        if this.ends[end].owner == Owner::Nobody {
            return;
        }
        if !this.pipes[1 - end].inbox.is_empty() {
            return self.wire_reset(link);
        }
        this.ends[end].owner = Owner::Nobody;
        this.pipes[end].closing = true;
        this.bury();
        self.note("close", u64::from(conn), end as u64);
        if self.net.conn(conn).ends[end].broken.is_none() {
            self.pump(conn, end);
        }
    }

    pub(super) fn wire_reset(&mut self, link: Link) {
        let Link { conn, end } = link;
        let this = self.net.conn(conn);
        if this.ends[end].owner == Owner::Nobody {
            return;
        }
        this.ends[end].owner = Owner::Nobody;
        this.pipes[end].outbox.clear();
        this.bury();
        let latency = this.latency;
        self.note("reset", u64::from(conn), end as u64);
        self.after(latency, Due::Broken { conn, end: 1 - end, code: ECONNRESET });
    }

    /// This end learns that the connection is no more.
    pub(super) fn on_broken(&mut self, conn: u32, end: usize, code: i32) {
        // Linux lets a reader have what arrived before a reset, but not every path does: both are tried.
        let purge = self.rng.coin();
        let link = self.net.conn(conn);
        if link.vanished && code == ECONNRESET || link.ends[end].broken.is_some() {
            return;
        }
        link.ends[end].broken = Some(code);
        link.pipes[end].outbox.clear();
        link.pipes[1 - end].flight.clear();
        if purge {
            link.pipes[1 - end].inbox.clear();
        }
        let owner = link.ends[end].owner;
        self.note("broken", u64::from(conn) * 2 + end as u64, code.unsigned_abs().into());
        match owner {
            Owner::Actor(actor) => {
                self.net.conn(conn).ends[end].owner = Owner::Nobody;
                self.with_actor(actor, |actor, io| {
                    actor.handle_ended(io, Link { conn, end }, Ending::Broken)
                });
            }
            Owner::Ring { ring, socket } => self.ring_broken(ring, socket, code),
            Owner::Backlog { .. } | Owner::Nobody => {}
        }
    }

    /// From now on nothing passes. Each end's TCP gives up in its own time.
    pub(super) fn on_vanish(&mut self, conn: u32) {
        self.net.conn(conn).vanished = true;
        self.note("vanish", u64::from(conn), 0);
        for end in [0, 1] {
            let patience = (300 + self.rng.below(900)) * SECOND;
            self.after(patience, Due::Broken { conn, end, code: ETIMEDOUT });
        }
    }
}
