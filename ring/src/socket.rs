//! Sockets: what the calls on them start, and what their completions mean.
//!
//! A closed socket leaves the table only when its last operation has ended. Its descriptor goes by a cancel and
//! a close in the ring's own order: entries resolve descriptors when the kernel takes them, in the order pushed,
//! so none pushed before the close can meet a later file of the same number, and none is pushed after it.

use crate::api::{Event, Outgoing, Peer, Socket, Token};
use crate::completion::Completion;
use crate::op::{self, ConnectOp, Op, OpId, ReceiveOp, Receiving};
use crate::uring::Uring;
use socket2::{Domain, Protocol, SockAddr, SockRef, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::path::Path;

/// Connections that may wait to be accepted; `net.core.somaxconn` may allow fewer.
const BACKLOG: i32 = 4096;

pub(crate) struct SocketEntry {
    /// `None` once the close is queued.
    fd: Option<OwnedFd>,
    pub(crate) closed: bool,
    /// Operations that refer to the socket.
    ops: u32,
    /// Those of them that are sends.
    sends: u32,
    receive: Option<OpId>,
}

impl SocketEntry {
    fn new(fd: OwnedFd) -> Self {
        Self { fd: Some(fd), closed: false, ops: 0, sends: 0, receive: None }
    }
}

impl Uring {
    // ---- opening ----

    pub(crate) fn open_listener(&mut self, address: SocketAddr) -> io::Result<Socket> {
        let socket = tcp_socket(address)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        if address.is_ipv6() {
            // So that [::] and 0.0.0.0 can both be listened on.
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(self.adopt(socket.into()))
    }

    pub(crate) fn take_listener(&mut self, fd: OwnedFd) -> io::Result<Socket> {
        let socket = SockRef::from(&fd);
        if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no listening stream socket"));
        }
        // The kernel gives up at once on a non-blocking one, where it waits for a connection on any other.
        socket.set_nonblocking(false)?;
        Ok(self.adopt(fd))
    }

    fn adopt(&mut self, fd: OwnedFd) -> Socket {
        Socket(self.sockets.insert(SocketEntry::new(fd)))
    }

    pub(crate) fn address_of(&self, socket: Socket) -> io::Result<SocketAddr> {
        let entry = self.sockets.entry(socket.0).and_then(|entry| entry.fd.as_ref());
        let fd = entry.ok_or(io::ErrorKind::NotConnected)?;
        SockRef::from(fd).local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn start_connect(
        &mut self,
        token: Token,
        peer: SocketAddr,
        source: Option<IpAddr>,
    ) -> io::Result<Socket> {
        let fresh = tcp_socket(peer)?;
        if let Some(source) = source {
            choose_port_at_connect(&fresh)?;
            fresh.bind(&SocketAddr::new(source, 0).into())?;
        }
        Ok(self.connect_to(token, fresh, SockAddr::from(peer)))
    }

    pub(crate) fn start_connect_locally(&mut self, token: Token, path: &Path) -> io::Result<Socket> {
        let fresh = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
        Ok(self.connect_to(token, fresh, SockAddr::unix(path)?))
    }

    fn connect_to(&mut self, token: Token, fresh: socket2::Socket, peer: SockAddr) -> Socket {
        let socket = self.adopt(fresh.into());
        let fd = self.enter_op(socket).expect("the socket was just adopted");
        self.start(Op::Connect(Box::new(ConnectOp { token, socket, fd, peer })));
        socket
    }

    pub(crate) fn start_accept(&mut self, token: Token, listener: Socket) {
        if let Some(fd) = self.enter_op(listener) {
            self.start(Op::Accept { token, listener, fd });
        }
    }

    // ---- operations and their socket ----

    /// Counts an operation in and gives the descriptor, unless the socket is closed.
    fn enter_op(&mut self, socket: Socket) -> Option<RawFd> {
        let entry = self.sockets.entry_mut(socket.0).filter(|entry| !entry.closed)?;
        let fd = entry.fd.as_ref()?.as_raw_fd();
        entry.ops += 1;
        Some(fd)
    }

    /// Counts an ended operation out; the last one of a closed socket frees its name.
    fn leave_op(&mut self, socket: Socket) {
        let entry = self.sockets.entry_mut(socket.0).expect("an entry outlives its operations");
        entry.ops -= 1;
        self.forget_if_over(socket);
    }

    fn forget_if_over(&mut self, socket: Socket) {
        let entry = self.sockets.entry(socket.0);
        if entry.is_some_and(|entry| entry.fd.is_none() && entry.ops == 0) {
            self.sockets.remove(socket.0);
        }
    }

    fn is_open(&self, socket: Socket) -> bool {
        self.sockets.entry(socket.0).is_some_and(|entry| !entry.closed)
    }

    // ---- accept, connect ----

    pub(crate) fn on_accepted(&mut self, id: OpId, completion: Completion, events: &mut Vec<Event>) {
        let Op::Accept { token, listener, .. } = *self.ops.op(id) else {
            unreachable!("dispatched as an accept")
        };
        let open = self.is_open(listener);
        if completion.result >= 0 {
            // SAFETY: a successful accept makes a new descriptor that nobody else knows of.
            let fd = unsafe { OwnedFd::from_raw_fd(completion.result) };
            // A connection that is gone already has no peer: it is dropped and nobody hears of it.
            if open && let Ok(peer) = peer_of(&fd) {
                let socket = self.adopt(fd);
                events.push(Event::Accepted { token, socket, peer });
            }
        }
        if completion.more() {
            return;
        }
        // What a single connection can do to an accept says nothing about the next one (accept(2)).
        let passing = [-libc::EINTR, -libc::EAGAIN, -libc::ECONNABORTED, -libc::EPROTO];
        if open && (completion.result >= 0 || passing.contains(&completion.result)) {
            return self.push(id, 0);
        }
        self.ops.remove(id);
        if open && let Err(error) = completion.outcome() {
            events.push(Event::AcceptEnded { token, error });
        }
        self.leave_op(listener);
    }

    pub(crate) fn on_connected(&mut self, id: OpId, completion: Completion, events: &mut Vec<Event>) {
        let Op::Connect(connect) = self.ops.remove(id) else { unreachable!("dispatched as a connect") };
        if self.is_open(connect.socket) {
            events.push(Event::Connected { token: connect.token, result: completion.outcome() });
        }
        self.leave_op(connect.socket);
    }

    // ---- receive ----

    pub(crate) fn start_receive(&mut self, token: Token, socket: Socket) {
        if self.sockets.entry(socket.0).is_some_and(|entry| !entry.closed && entry.receive.is_some()) {
            // Two receives would hand the stream out in no order: the caller must hear of it.
            let result = Err(io::ErrorKind::AlreadyExists.into());
            return self.ready.push(Event::ReceiveEnded { token, result });
        }
        let Some(fd) = self.enter_op(socket) else { return };
        let id = self.start(Op::Receive(ReceiveOp { token, socket, fd, state: Receiving::Armed }));
        self.set_receive(socket, Some(id));
    }

    fn set_receive(&mut self, socket: Socket, receive: Option<OpId>) {
        if let Some(entry) = self.sockets.entry_mut(socket.0) {
            entry.receive = receive;
        }
    }

    /// One look-up each of operation and socket, no allocation.
    pub(crate) fn on_received(&mut self, id: OpId, completion: Completion, events: &mut Vec<Event>) {
        let ReceiveOp { token, socket, state, .. } = *self.ops.receive(id);
        let open = self.is_open(socket);
        if let Some(buffer) = completion.buffer() {
            self.receive_buffers.lend(buffer);
            match u32::try_from(completion.result) {
                Ok(len @ 1..) if open => {
                    let data = crate::api::Received { buffer, len };
                    events.push(Event::Received { token, data });
                }
                _ => self.receive_buffers.give_back(buffer),
            }
        }
        if completion.more() {
            return;
        }
        match after_receive(completion.result, state) {
            _ if !open => self.end_receive(id, socket),
            AfterReceive::Arm => self.push(id, 0),
            AfterReceive::Starve => {
                self.ops.receive(id).state = Receiving::Starved;
                self.starved.push_back(id);
                self.receive_buffers.want_more();
            }
            AfterReceive::End(result) => {
                self.end_receive(id, socket);
                events.push(Event::ReceiveEnded { token, result });
            }
        }
    }

    fn end_receive(&mut self, id: OpId, socket: Socket) {
        self.ops.remove(id);
        self.set_receive(socket, None);
        self.leave_op(socket);
    }

    /// Arms as many starved receives as there are buffers for, longest starved first.
    pub(crate) fn feed_starved(&mut self) {
        for _ in 0..self.starved.len().min(self.receive_buffers.free()) {
            let Some(id) = self.starved.pop_front() else { return };
            self.ops.receive(id).state = Receiving::Armed;
            self.push(id, 0);
        }
    }

    pub(crate) fn pause_receive(&mut self, socket: Socket) {
        let Some(id) =
            self.sockets.entry(socket.0).filter(|entry| !entry.closed).and_then(|entry| entry.receive)
        else {
            return;
        };
        let receive = self.ops.receive(id);
        match receive.state {
            Receiving::Armed => {
                receive.state = Receiving::Pausing;
                self.push_plain(op::cancel_entry(id));
            }
            Receiving::Pausing => {}
            Receiving::Starved => {
                let token = receive.token;
                self.drop_starved(id, socket);
                let result = Err(io::ErrorKind::Interrupted.into());
                self.ready.push(Event::ReceiveEnded { token, result });
            }
        }
    }

    /// The kernel does not have a starved receive, so it can go at once.
    fn drop_starved(&mut self, id: OpId, socket: Socket) {
        self.starved.retain(|starved| *starved != id);
        self.end_receive(id, socket);
    }

    // ---- send ----

    pub(crate) fn start_send(&mut self, token: Token, socket: Socket, outgoing: Outgoing) {
        if outgoing.is_empty() {
            return self.ready.push(Event::Sent { token, result: Ok(()), outgoing, copied: None });
        }
        let Some(fd) = self.enter_op(socket) else {
            let result = Err(io::ErrorKind::NotConnected.into());
            return self.ready.push(Event::Sent { token, result, outgoing, copied: None });
        };
        if let Some(entry) = self.sockets.entry_mut(socket.0) {
            entry.sends += 1;
        }
        let mut send = self.ops.spare_send();
        send.begin(token, socket, fd, outgoing);
        self.start(Op::Send(send));
    }

    /// One look-up each of operation and socket, no allocation.
    pub(crate) fn on_sent(&mut self, id: OpId, completion: Completion, events: &mut Vec<Event>) {
        let send = self.ops.send(id);
        let socket = send.socket;
        if completion.is_notification() {
            send.on_notification(completion.result);
        } else {
            send.on_result(completion.result, completion.more());
            if send.wants_more() {
                if self.is_open(socket) {
                    return self.push(id, 0);
                }
                self.ops.send(id).give_up();
            }
        }
        if let Some(result) = self.ops.send(id).take_outcome() {
            self.end_send(id, socket, result, events);
        }
    }

    fn end_send(&mut self, id: OpId, socket: Socket, result: io::Result<()>, events: &mut Vec<Event>) {
        let Op::Send(mut send) = self.ops.remove(id) else { unreachable!("dispatched as a send") };
        let outgoing = std::mem::take(&mut send.outgoing);
        events.push(Event::Sent { token: send.token, result, outgoing, copied: send.copied });
        self.ops.keep_send(send);
        if let Some(entry) = self.sockets.entry_mut(socket.0) {
            entry.sends -= 1;
        }
        self.leave_op(socket);
    }

    // ---- close ----

    pub(crate) fn close_socket(&mut self, socket: Socket) {
        let Some(entry) = self.sockets.entry_mut(socket.0).filter(|entry| !entry.closed) else { return };
        entry.closed = true;
        let Some(fd) = entry.fd.take() else { return };
        let (ops, sends, receive) = (entry.ops, entry.sends, entry.receive);
        if sends > 0 {
            // A send that waits in a kernel thread is not cancelled at once, and holds the connection open until
            // it is: this ends the connection whatever holds it.
            let _ = SockRef::from(&fd).shutdown(std::net::Shutdown::Both);
        }
        let fd = fd.into_raw_fd();
        if ops > 0 {
            self.push_plain(op::cancel_all_entry(fd));
        }
        self.push_plain(op::close_entry(fd));
        match receive {
            Some(id) if self.ops.receive(id).state == Receiving::Starved => self.drop_starved(id, socket),
            _ => self.forget_if_over(socket),
        }
    }
}

/// What follows a receive's last completion.
enum AfterReceive {
    Arm,
    Starve,
    End(io::Result<()>),
}

fn after_receive(result: i32, state: Receiving) -> AfterReceive {
    let pausing = state == Receiving::Pausing;
    match result {
        0 => AfterReceive::End(Ok(())),
        // The kernel ends a multishot receive now and then, with bytes (its queue was full) or without.
        1.. if !pausing => AfterReceive::Arm,
        _ if result == -libc::EINTR && !pausing => AfterReceive::Arm,
        _ if result == -libc::ENOBUFS && !pausing => AfterReceive::Starve,
        _ if pausing
            && (result > 0 || [-libc::ECANCELED, -libc::EINTR, -libc::ENOBUFS].contains(&result)) =>
        {
            AfterReceive::End(Err(io::ErrorKind::Interrupted.into()))
        }
        _ => AfterReceive::End(Err(io::Error::from_raw_os_error(-result))),
    }
}

/// A TCP socket that sends at once; accepted ones inherit that from their listener.
fn tcp_socket(address: SocketAddr) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

fn peer_of(fd: &impl AsFd) -> io::Result<Peer> {
    let address = SockRef::from(fd).peer_addr()?;
    if address.is_unix() {
        let credentials = rustix::net::sockopt::socket_peercred(fd)?;
        return Ok(Peer::Local { uid: credentials.uid.as_raw() });
    }
    address.as_socket().map(Peer::Net).ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// Leaves the source port to `connect`, which then needs a port free towards that peer alone: else a source
/// address would serve only some 28,000 connections to all peers together.
fn choose_port_at_connect(socket: &socket2::Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    let len = libc::socklen_t::try_from(size_of_val(&on)).expect("a c_int is small");
    // SAFETY: the option takes an int; `on` is one and outlives the call, `len` is its size.
    let result = unsafe {
        let option = libc::IP_BIND_ADDRESS_NO_PORT;
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, option, (&raw const on).cast(), len)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_sockets_inherit_that_they_send_at_once() {
        let listener = tcp_socket("127.0.0.1:0".parse().unwrap()).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(1).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let _client = std::net::TcpStream::connect(address).unwrap();
        assert!(listener.accept().unwrap().0.tcp_nodelay().unwrap());
    }

    #[test]
    fn a_pausing_receive_ends_whatever_its_last_completion_brought() {
        for result in [1, 100, -libc::ECANCELED, -libc::ENOBUFS, -libc::EINTR] {
            let AfterReceive::End(Err(error)) = after_receive(result, Receiving::Pausing) else {
                panic!("{result}")
            };
            assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        }
        assert!(matches!(after_receive(0, Receiving::Pausing), AfterReceive::End(Ok(()))));
    }
}
