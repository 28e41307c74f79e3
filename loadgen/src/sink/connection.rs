//! One connection of the sink: octets between a socket, TLS if there is any, and the session.
//!
//! It reads what is there, lets its session answer all of it, and writes the answers in one flight. A handshake
//! is octets like any others: it has no loop of its own. Buffers belong to the connection and are reused.
//! Bounds: `READ_BYTES` and one flight of replies, sealed as well under TLS.

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use tokio_uring::net::TcpStream;

use super::core::Core;
use super::faults::Break;
use super::proxy::{self, Header};
use super::replies::TOO_MANY_CONNECTIONS;
use super::session::{Flow, Session};
use super::tally::TlsTally;
use super::tls::{Secured, Tls};
use super::visits::{End, Visit};
use crate::ring::{Pulse, now_ns};

const READ_BYTES: usize = 64 * 1024;
pub(crate) const LINGER_MAX: Duration = Duration::from_secs(2);

/// From its acceptance at `sink` to its end.
pub(crate) async fn serve(core: Rc<Core>, stream: Rc<TcpStream>, peer: SocketAddr, sink: SocketAddr) {
    let _ = stream.set_nodelay(true); // without it a split flight would wait for an ACK
    let Some(number) = core.admit() else {
        let _ = stream.write_all(TOO_MANY_CONNECTIONS.1.as_bytes().to_vec()).await;
        return;
    };
    let pulse = core.watch.add(stream.clone());
    let mut wire = Wire::new(core.clone(), stream, pulse);
    if let Some(source) = wire.take_proxy_header(peer.ip()).await {
        let opened_ns = now_ns();
        let pair = core.books.borrow_mut().peers.open(source, sink, opened_ns);
        let session = Session::new(&core.policy, number, source, pair);
        let mut connection = Connection { core: core.clone(), wire, session, secured: None, ended_ns: 0 };
        // An error ends one connection; the client knows as much as we do.
        let end = connection.talk().await.unwrap_or(End::Error);
        connection.record(source, peer, sink, opened_ns, end);
    }
    core.leave();
}

struct Connection {
    core: Rc<Core>,
    wire: Wire,
    session: Session,
    secured: Option<Secured>,
    /// When the dialogue was over, which is before the socket is.
    ended_ns: u64,
}

impl Connection {
    async fn talk(&mut self) -> io::Result<End> {
        let mut flow = match self.core.limits.implicit_tls {
            true => self.begin_tls(),
            false => self.greet(),
        };
        loop {
            self.wire.send().await?;
            flow = match flow {
                Flow::Continue if self.wire.read().await? == 0 => return Ok(self.hang_up()),
                Flow::Continue => self.answer(),
                Flow::StartTls => self.begin_tls(),
                Flow::Finish => {
                    self.ended_ns = now_ns();
                    let _ = self.wire.close_politely().await; // the client may be faster, and gone
                    return Ok(End::Finished);
                }
                Flow::Break(how) => {
                    self.wire.break_off(how).await?;
                    return Ok(End::Broken);
                }
            };
        }
    }

    fn greet(&mut self) -> Flow {
        let mut books = self.core.books.borrow_mut();
        self.session.handle_connect(&self.core.policy, &mut books, &mut self.wire.out)
    }

    /// Answers what is inbound, and leaves nothing there.
    fn answer(&mut self) -> Flow {
        let mut inbound = std::mem::take(&mut self.wire.inbound);
        self.core.books.borrow_mut().now_ns = now_ns();
        let flow = match self.wire.tls.take() {
            None => self.hear(&inbound),
            Some(mut tls) => {
                let flow = self.answer_sealed(&mut tls, &inbound);
                self.wire.tls = Some(tls);
                flow
            }
        };
        inbound.clear();
        self.wire.inbound = inbound;
        flow
    }

    fn hear(&mut self, plain: &[u8]) -> Flow {
        let mut books = self.core.books.borrow_mut();
        self.session.handle_bytes(&self.core.policy, &mut books, plain, &mut self.wire.out)
    }

    fn answer_sealed(&mut self, tls: &mut Tls, mut sealed: &[u8]) -> Flow {
        while !sealed.is_empty() {
            match tls.take(&mut sealed) {
                Ok(true) => self.ended_ns = now_ns(), // or its next connection would seem to overlap this one
                Ok(false) => {}
                Err(_) => return self.fail_handshake(), // the alert that says why is what there is to send
            }
            if self.secured.is_none() && !tls.is_handshaking() {
                self.note_secured(tls);
            }
            let mut flow = Flow::Continue;
            while flow == Flow::Continue && tls.plain(|bytes| flow = self.hear(bytes)) {}
            if flow != Flow::Continue {
                return flow;
            }
        }
        Flow::Continue
    }

    fn begin_tls(&mut self) -> Flow {
        let mut books = self.core.books.borrow_mut();
        let flow = self.session.handle_handshake(&self.core.policy, &mut books, &mut self.wire.out);
        let tls = self.core.tls.clone().map(Tls::new);
        match (flow, tls) {
            (Flow::Continue, Some(Ok(tls))) => self.wire.tls = Some(Box::new(tls)),
            _ => books.tally.tls.failed += 1,
        }
        flow
    }

    fn fail_handshake(&mut self) -> Flow {
        if self.secured.is_none() {
            self.core.books.borrow_mut().tally.tls.failed += 1;
        }
        Flow::Finish
    }

    fn note_secured(&mut self, tls: &Tls) {
        self.secured = tls.secured();
        if let Some(secured) = &self.secured {
            note_handshake(&mut self.core.books.borrow_mut().tally.tls, secured);
        }
        self.session.handle_secured();
        if self.core.limits.implicit_tls {
            self.greet();
        }
    }

    /// The client has.
    fn hang_up(&mut self) -> End {
        if self.ended_ns == 0 {
            self.ended_ns = now_ns();
        }
        if self.wire.tls.is_some() {
            self.fail_handshake();
        }
        End::Gone
    }

    fn record(&self, source: IpAddr, peer: SocketAddr, sink: SocketAddr, opened_ns: u64, end: End) {
        let closed_ns = if self.ended_ns == 0 { now_ns() } else { self.ended_ns };
        let facts = self.session.facts();
        let books = &mut *self.core.books.borrow_mut();
        books.peers.close(facts.pair, closed_ns);
        let secured = self.secured.as_ref();
        let visit = Visit { opened_ns, closed_ns, source, port: peer.port(), sink, secured, facts, end };
        books.connections.line(|out| visit.write(out));
    }
}

fn note_handshake(tally: &mut TlsTally, secured: &Secured) {
    match secured.is_resumed {
        true => tally.resumed += 1,
        false => tally.full += 1,
    }
    match secured.version {
        rustls::ProtocolVersion::TLSv1_2 => tally.v1_2 += 1,
        _ => tally.v1_3 += 1,
    }
    tally.client_certificates += u64::from(secured.client_certificate.is_some());
}

/// The socket and its buffers.
struct Wire {
    core: Rc<Core>,
    stream: Rc<TcpStream>,
    pulse: Rc<Pulse>,
    /// As it came; empty when all of it was answered.
    inbound: Vec<u8>,
    /// Replies that are still to be sent.
    out: Vec<u8>,
    /// The same as TLS sends them.
    sealed: Vec<u8>,
    tls: Option<Box<Tls>>,
}

impl Wire {
    fn new(core: Rc<Core>, stream: Rc<TcpStream>, pulse: Rc<Pulse>) -> Wire {
        let (inbound, out) = (Vec::with_capacity(READ_BYTES), Vec::with_capacity(1024));
        Wire { core, stream, pulse, inbound, out, sealed: Vec::new(), tls: None }
    }

    /// Where the client is: as the header says, if there must be one. None ends the connection.
    async fn take_proxy_header(&mut self, peer: IpAddr) -> Option<IpAddr> {
        if !self.core.limits.proxy_protocol {
            return Some(peer);
        }
        loop {
            match proxy::parse(&self.inbound) {
                Header::Whole { source, len } => {
                    self.inbound.drain(..len);
                    return Some(source.unwrap_or(peer));
                }
                Header::Part if self.read_more().await.is_ok_and(|len| len > 0) => {}
                Header::Part | Header::Bad => {
                    self.core.books.borrow_mut().tally.proxy_refused += 1;
                    return None;
                }
            }
        }
    }

    async fn send(&mut self) -> io::Result<()> {
        if !self.core.limits.delay.is_zero() && !self.out.is_empty() {
            tokio::time::sleep(self.core.limits.delay).await;
        }
        let Some(tls) = &mut self.tls else {
            let out = std::mem::take(&mut self.out);
            self.out = self.write(out).await?;
            return Ok(());
        };
        tls.seal(&self.out, &mut self.sealed)?;
        self.out.clear();
        let sealed = std::mem::take(&mut self.sealed);
        self.sealed = self.write(sealed).await?;
        Ok(())
    }

    /// Gives the buffer back, empty.
    async fn write(&self, octets: Vec<u8>) -> io::Result<Vec<u8>> {
        if octets.is_empty() {
            return Ok(octets);
        }
        self.pulse.wait_begins(Instant::now());
        let (sent, mut octets) = self.stream.write_all(octets).await;
        octets.clear();
        sent.map(|()| octets)
    }

    /// How many octets are inbound: those that came behind a PROXY header, else the next ones. 0 is the end.
    async fn read(&mut self) -> io::Result<usize> {
        if !self.inbound.is_empty() {
            return Ok(self.inbound.len());
        }
        self.pulse.wait_begins(Instant::now());
        let (read, inbound) = self.stream.read(std::mem::take(&mut self.inbound)).await;
        self.inbound = inbound;
        read
    }

    /// Behind what is there already, which is less than a header.
    async fn read_more(&mut self) -> io::Result<usize> {
        use tokio_uring::buf::BoundedBuf;
        self.pulse.wait_begins(Instant::now());
        let at = self.inbound.len();
        let (read, rest) = self.stream.read(std::mem::take(&mut self.inbound).slice(at..)).await;
        self.inbound = rest.into_inner();
        read
    }

    /// Closing with unread bytes would reset the connection and could take the last reply with it.
    async fn close_politely(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.say_goodbye();
            self.send().await?;
        }
        self.stream.shutdown(Shutdown::Write)?;
        let deadline = Instant::now() + LINGER_MAX;
        while Instant::now() < deadline && self.read_nothing().await? {}
        Ok(())
    }

    async fn break_off(&mut self, how: Break) -> io::Result<()> {
        match how {
            Break::Close => Ok(()),
            Break::Reset => reset(&self.stream),
            Break::Silence => {
                while self.read_nothing().await? {}
                Ok(())
            }
        }
    }

    /// Reads and throws away; false at the end.
    async fn read_nothing(&mut self) -> io::Result<bool> {
        self.inbound.clear();
        let len = self.read().await?;
        self.inbound.clear();
        Ok(len > 0)
    }
}

/// The coming close will be an RST. tokio-uring lends nothing that has a lifetime, so the descriptor is
/// duplicated by its number, as another process would: rare, and without `unsafe`.
fn reset(stream: &TcpStream) -> io::Result<()> {
    let us = pidfd_open(getpid(), PidfdFlags::empty())?;
    let same = pidfd_getfd(us, stream.as_raw_fd(), PidfdGetfdFlags::empty())?;
    socket2::SockRef::from(&same).set_linger(Some(Duration::ZERO))
}
