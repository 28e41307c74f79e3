//! A ring's sockets: what the kernel does between a core and the wire.

use super::clock::{MICRO, MILLI};
use super::net::{ECONNRESET, Link, Listening, Owner};
use super::ring::{Lane, What};
use super::world::{Due, State};
use ring::{Event, Outgoing, Peer, Piece, Socket, Token};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const EMFILE: i32 = 24;
const EPIPE: i32 = 32;
const EADDRINUSE: i32 = 98;
const ENOTCONN: i32 = 107;
const ECANCELED: i32 = 125;

#[expect(clippy::large_enum_variant, reason = "nearly all sockets are streams")]
pub(super) enum Sock {
    Listener(Listener),
    Stream(Stream),
}

pub(super) struct Listener {
    pub(super) address: SocketAddr,
    accept: Option<Token>,
    backlog: VecDeque<u32>,
}

pub(super) struct Stream {
    conn: u32,
    end: usize,
    connect: Option<Token>,
    connected: bool,
    receive: Option<Token>,
    pausing: bool,
    send: Option<Sending>,
    /// Closed by the caller, kept until its last `Sent` is handed out.
    pub(super) closed: bool,
}

struct Sending {
    token: Token,
    outgoing: Outgoing,
    /// Its end is already under way.
    ending: bool,
    error: Option<i32>,
}

fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl Stream {
    fn new(conn: u32, end: usize, connect: Option<Token>) -> Stream {
        let connected = connect.is_none();
        Stream { conn, end, connect, connected, receive: None, pausing: false, send: None, closed: false }
    }
}

impl State {
    /// The stream that an event of the world is about; gone if the core closed it meanwhile.
    fn stream(&mut self, ring: usize, socket: u32) -> Option<&mut Stream> {
        match self.rings[ring].sockets.get(socket) {
            Some(Sock::Stream(stream)) => Some(stream),
            _ => None,
        }
    }

    // ---- listening ----

    pub(super) fn ring_listen(&mut self, ring: usize, mut address: SocketAddr) -> io::Result<Socket> {
        if address.port() == 0 {
            address.set_port(self.net.port());
        }
        let others = self.net.listeners.get(&address);
        if others.is_some_and(|others| others.iter().any(|other| matches!(other, Listening::Actor(_)))) {
            return Err(errno(EADDRINUSE));
        }
        let listener = Listener { address, accept: None, backlog: VecDeque::new() };
        let socket = self.rings[ring].sockets.insert(Sock::Listener(listener));
        self.net.listeners.entry(address).or_default().push(Listening::Ring { ring, socket });
        Ok(Socket(socket))
    }

    pub(super) fn ring_accept(&mut self, ring: usize, socket: u32, token: Token) {
        let listener = self.listener(ring, socket);
        assert!(listener.accept.is_none(), "socket {socket} is being accepted from already");
        listener.accept = Some(token);
        self.accept_backlog(ring, socket);
    }

    pub(super) fn ring_backlog(&mut self, ring: usize, socket: u32, conn: u32) {
        self.listener(ring, socket).backlog.push_back(conn);
        self.accept_backlog(ring, socket);
    }

    fn accept_backlog(&mut self, ring: usize, socket: u32) {
        while let Some(token) = self.listener(ring, socket).accept {
            let Some(conn) = self.listener(ring, socket).backlog.pop_front() else { return };
            let peer = self.net.conn(conn).addresses[0];
            let accepted = self.rings[ring].sockets.insert(Sock::Stream(Stream::new(conn, 1, None)));
            self.net.conn(conn).ends[1].owner = Owner::Ring { ring, socket: accepted };
            let event = Event::Accepted { token, socket: Socket(accepted), peer: Peer::Net(peer) };
            self.push_ready(ring, Lane::Accept(socket), event);
            if self.rng.hits(self.weather.accept_ended) {
                self.listener(ring, socket).accept = None;
                self.push_ready(
                    ring,
                    Lane::Accept(socket),
                    Event::AcceptEnded { token, error: errno(EMFILE) },
                );
            }
        }
    }

    // ---- connecting ----

    pub(super) fn ring_connect(
        &mut self,
        ring: usize,
        token: Token,
        peer: SocketAddr,
        source: Option<IpAddr>,
    ) -> u32 {
        let source = source.unwrap_or(IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1)));
        let from = SocketAddr::new(source, self.net.port());
        let conn = self.wire_connect(Owner::Nobody, from, peer);
        let socket = self.rings[ring].sockets.insert(Sock::Stream(Stream::new(conn, 0, Some(token))));
        self.net.conn(conn).ends[0].owner = Owner::Ring { ring, socket };
        socket
    }

    pub(super) fn ring_connected(&mut self, ring: usize, socket: u32) {
        let Some(stream) = self.stream(ring, socket) else { return };
        stream.connected = true;
        if let Some(token) = stream.connect.take() {
            self.push_ready(ring, Lane::Connect(socket), Event::Connected { token, result: Ok(()) });
        }
    }

    // ---- receiving ----

    pub(super) fn ring_receive(&mut self, ring: usize, socket: u32, token: Token) {
        let stream = self.open_stream(ring, socket);
        assert!(stream.receive.is_none(), "socket {socket} is being received from already");
        if !stream.connected {
            let event = Event::ReceiveEnded { token, result: Err(errno(ENOTCONN)) };
            return self.push_ready(ring, Lane::Receive(socket), event);
        }
        stream.receive = Some(token);
        self.ring_reads(ring, socket);
    }

    /// Octets of this socket were handed to the core.
    pub(super) fn ring_has_read(&mut self, ring: usize, socket: u32, len: usize) {
        if let Some(Stream { conn, end, .. }) = self.stream(ring, socket) {
            let (conn, end) = (*conn, *end);
            self.count_read(conn, end, len);
        }
    }

    /// Moves what arrived into buffers, as far as there are any; then tells of the end, if it is one.
    pub(super) fn ring_reads(&mut self, ring: usize, socket: u32) {
        let Some(stream) = self.stream(ring, socket) else { return };
        let (Some(token), conn, end) = (stream.receive, stream.conn, stream.end) else { return };
        while !self.net.conn(conn).pipes[1 - end].inbox.is_empty() {
            if self.rings[ring].buffers_free == 0 {
                self.rings[ring].starved.push(socket);
                break;
            }
            self.rings[ring].buffers_free -= 1;
            let len_max = self.weather.buffer_len;
            let len = if self.rng.coin() { len_max } else { self.rng.index(len_max) + 1 };
            let bytes = self.take_inbox(conn, end, len);
            self.rings[ring].ready.push((Lane::Receive(socket), What::Bytes(token, bytes)));
        }
        self.pump(conn, 1 - end);
        self.tell_end_of_stream(ring, socket);
    }

    fn tell_end_of_stream(&mut self, ring: usize, socket: u32) {
        let Some(stream) = self.stream(ring, socket) else { return };
        let (conn, end) = (stream.conn, stream.end);
        let this = self.net.conn(conn);
        if !this.pipes[1 - end].inbox.is_empty() {
            return;
        }
        match (this.ends[end].broken, this.pipes[1 - end].fin_arrived) {
            (Some(code), _) => self.end_receive(ring, socket, Err(errno(code))),
            (None, true) => self.end_receive(ring, socket, Ok(())),
            (None, false) => {}
        }
    }

    fn end_receive(&mut self, ring: usize, socket: u32, result: io::Result<()>) {
        let Some(stream) = self.stream(ring, socket) else { return };
        stream.pausing = false;
        if let Some(token) = stream.receive.take() {
            self.push_ready(ring, Lane::Receive(socket), Event::ReceiveEnded { token, result });
        }
    }

    pub(super) fn ring_pause(&mut self, ring: usize, socket: u32) {
        let stream = self.open_stream(ring, socket);
        if stream.receive.is_none() || stream.pausing {
            return;
        }
        stream.pausing = true;
        let conn = stream.conn;
        let delay = self.rng.below(200 * MICRO);
        self.after(delay, Due::PauseDone { ring, socket, conn });
    }

    pub(super) fn on_pause_done(&mut self, ring: usize, socket: u32, conn: u32) {
        if self.stream(ring, socket).is_some_and(|stream| stream.conn == conn && stream.pausing) {
            self.end_receive(ring, socket, Err(io::ErrorKind::Interrupted.into()));
        }
    }

    pub(super) fn buffer_came_back(&mut self, ring: usize) {
        self.rings[ring].buffers_free += 1;
        if !self.rings[ring].starved.is_empty() {
            let delay = self.rng.below(20 * MICRO);
            self.after(delay, Due::Starved { ring });
        }
    }

    pub(super) fn on_starved(&mut self, ring: usize) {
        if !self.rings[ring].is_alive() {
            return;
        }
        for socket in std::mem::take(&mut self.rings[ring].starved) {
            self.ring_reads(ring, socket);
        }
    }

    // ---- sending ----

    pub(super) fn ring_send(&mut self, ring: usize, socket: u32, token: Token, outgoing: Outgoing) {
        let bytes = flat(&outgoing);
        let stream = self.open_stream(ring, socket);
        assert!(stream.send.is_none(), "socket {socket} is being sent on already: sends must not overlap");
        let (conn, end, connected) = (stream.conn, stream.end, stream.connected);
        stream.send = Some(Sending { token, outgoing, ending: false, error: None });
        let overlaps = self.rings[ring].ready.iter().any(|(lane, _)| *lane == Lane::Send(socket));
        assert!(!overlaps, "socket {socket}: its last Sent was not waited for");
        match self.net.conn(conn).ends[end].broken {
            Some(_) => self.fail_send(ring, socket, EPIPE),
            None if !connected => self.fail_send(ring, socket, ENOTCONN),
            None if bytes.is_empty() => self.ring_sent(ring, socket),
            None => self.wire_send(Link { conn, end }, &bytes),
        }
    }

    /// The last octet is with the wire.
    pub(super) fn ring_sent(&mut self, ring: usize, socket: u32) {
        let delay = 1 + self.rng.below(30 * MICRO);
        let Some(stream) = self.stream(ring, socket) else { return };
        let conn = stream.conn;
        let Some(sending) = stream.send.as_mut().filter(|sending| !sending.ending) else { return };
        sending.ending = true;
        self.after(delay, Due::SendDone { ring, socket, conn });
    }

    fn fail_send(&mut self, ring: usize, socket: u32, code: i32) {
        let Some(stream) = self.stream(ring, socket) else { return };
        if let Some(sending) = stream.send.as_mut().filter(|sending| !sending.ending) {
            sending.error = Some(code);
            self.ring_sent(ring, socket);
        }
    }

    pub(super) fn on_send_done(&mut self, ring: usize, socket: u32, conn: u32) {
        let copied = self.rng.coin();
        let Some(stream) = self.stream(ring, socket).filter(|stream| stream.conn == conn) else { return };
        let Some(Sending { token, outgoing, error, .. }) = stream.send.take() else { return };
        let result = error.map_or(Ok(()), |code| Err(errno(code)));
        let copied = outgoing.zero_copy.then_some(copied);
        self.push_ready(ring, Lane::Send(socket), Event::Sent { token, result, outgoing, copied });
    }

    // ---- ending ----

    pub(super) fn ring_broken(&mut self, ring: usize, socket: u32, code: i32) {
        let Some(stream) = self.stream(ring, socket) else { return };
        if let Some(token) = stream.connect.take() {
            let event = Event::Connected { token, result: Err(errno(code)) };
            self.push_ready(ring, Lane::Connect(socket), event);
        }
        self.fail_send(ring, socket, code);
        self.ring_reads(ring, socket);
    }

    pub(super) fn ring_close(&mut self, ring: usize, socket: u32) {
        match self.rings[ring].sockets.get(socket) {
            Some(Sock::Listener(_)) => self.close_listener(ring, socket),
            Some(Sock::Stream(stream)) if !stream.closed => self.close_stream(ring, socket),
            _ => panic!("close: socket {socket} is not open"),
        }
    }

    fn close_stream(&mut self, ring: usize, socket: u32) {
        let stream = self.open_stream(ring, socket);
        stream.closed = true;
        (stream.receive, stream.connect, stream.pausing) = (None, None, false);
        let link = Link { conn: stream.conn, end: stream.end };
        self.drop_ready(ring, |lane| lane == Lane::Receive(socket) || lane == Lane::Connect(socket));
        self.rings[ring].starved.retain(|other| *other != socket);
        let outbox = &mut self.net.conn(link.conn).pipes[link.end].outbox;
        let cut_short = !outbox.is_empty();
        outbox.clear();
        if cut_short {
            self.fail_send(ring, socket, ECANCELED);
        }
        self.wire_close(link);
        self.free_closed(ring, socket);
    }

    /// Frees the number of a closed socket, once no `Sent` for it can still come.
    pub(super) fn free_closed(&mut self, ring: usize, socket: u32) {
        let idle = self.stream(ring, socket).is_some_and(|stream| stream.closed && stream.send.is_none());
        let waited_for = self.rings[ring].ready.iter().any(|(lane, _)| *lane == Lane::Send(socket));
        if idle && !waited_for {
            self.rings[ring].sockets.remove(socket);
        }
    }

    fn close_listener(&mut self, ring: usize, socket: u32) {
        self.abandon_socket(ring, socket);
        for accepted in self.drop_ready(ring, |lane| lane == Lane::Accept(socket)) {
            if let Event::Accepted { socket, .. } = accepted {
                self.close_stream(ring, socket.0);
            }
        }
        self.rings[ring].sockets.remove(socket);
    }

    /// Takes events back that the core must not see any more; the buffers of those that carry octets are free again.
    fn drop_ready(&mut self, ring: usize, gone: impl Fn(Lane) -> bool) -> Vec<Event> {
        let ready = std::mem::take(&mut self.rings[ring].ready);
        let (dropped, kept): (Vec<_>, Vec<_>) = ready.into_iter().partition(|(lane, _)| gone(*lane));
        self.rings[ring].ready = kept;
        let mut events = Vec::new();
        for (_, what) in dropped {
            match what {
                What::Event(event) => events.push(event),
                What::Bytes(..) => self.buffer_came_back(ring),
            }
        }
        events
    }

    /// Breaks what hangs on a socket: its process is gone, or its listener closed.
    pub(super) fn abandon_socket(&mut self, ring: usize, socket: u32) {
        match self.rings[ring].sockets.get(socket) {
            Some(Sock::Stream(stream)) => {
                let link = Link { conn: stream.conn, end: stream.end };
                self.wire_reset(link);
            }
            Some(Sock::Listener(listener)) => {
                let (address, backlog) = (listener.address, std::mem::take(&mut listener.backlog));
                let gone = Listening::Ring { ring, socket };
                self.net.listeners.entry(address).or_default().retain(|listening| *listening != gone);
                for conn in backlog {
                    self.net.conn(conn).ends[1].owner = Owner::Nobody;
                    self.after(MILLI, Due::Broken { conn, end: 0, code: ECONNRESET });
                }
            }
            None => {}
        }
    }
}

fn flat(outgoing: &Outgoing) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(outgoing.len());
    for piece in &outgoing.pieces {
        match piece {
            Piece::Own(range) => {
                bytes.extend_from_slice(&outgoing.own[range.start as usize..range.end as usize])
            }
            Piece::Shared(shared) => bytes.extend_from_slice(shared),
        }
    }
    bytes
}
