//! A socket, in plain text or under TLS, with a time by which each step must be done.
//!
//! No octet that trickles in wins time: what is due by a deadline fails with `TimedOut` when that has passed, however it
//! comes. Bound: rustls holds one record that is not whole, and 64 KiB that are not sent.

use crate::clock;
use rustls::{ServerConfig, ServerConnection};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Instant;

/// Octets of a client that we take after our goodbye.
const UNREAD_MAX: usize = 64 << 10;

/// See the module.
pub(super) struct Wire {
    stream: TcpStream,
    tls: Option<Box<ServerConnection>>,
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> io::Result<Wire> {
        stream.set_nodelay(true)?;
        Ok(Wire { stream, tls: None })
    }

    /// From now on all octets are TLS's.
    pub(super) fn shake_hands(&mut self, config: &Arc<ServerConfig>, deadline: Instant) -> io::Result<()> {
        let tls = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
        let tls = self.tls.insert(Box::new(tls));
        while tls.is_handshaking() {
            receive(&mut self.stream, tls, deadline)?;
        }
        Ok(())
    }

    /// At least one octet; none at the end.
    pub(super) fn read(&mut self, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return within(&self.stream, deadline, |mut stream| stream.read(buffer));
        };
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    receive(&mut self.stream, tls, deadline)?
                }
                read => return read,
            }
        }
    }

    pub(super) fn write_all(&mut self, mut octets: &[u8], deadline: Instant) -> io::Result<()> {
        while !octets.is_empty() {
            let used = match &mut self.tls {
                None => within(&self.stream, deadline, |mut stream| stream.write(octets))?,
                Some(tls) => {
                    let used = tls.writer().write(octets)?;
                    send(&mut self.stream, tls, deadline)?;
                    used
                }
            };
            if used == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            octets = &octets[used..];
        }
        Ok(())
    }

    /// Says goodbye to a client that still listens. What it still sends is taken up to a bound: closing with octets unread
    /// would reset the connection, and our last words with it.
    pub(super) fn close(mut self, deadline: Instant) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let _ = send(&mut self.stream, tls, deadline);
        }
        let _ = self.stream.shutdown(Shutdown::Write);
        let mut unread = [0; 4096];
        for _ in 0..UNREAD_MAX / unread.len() {
            if !matches!(within(&self.stream, deadline, |mut stream| stream.read(&mut unread)), Ok(1..)) {
                return;
            }
        }
    }
}

/// Takes what has come, and says what TLS has to say to it.
fn receive(stream: &mut TcpStream, tls: &mut ServerConnection, deadline: Instant) -> io::Result<()> {
    let read = within(stream, deadline, |mut stream| tls.read_tls(&mut stream))?;
    let processed = tls.process_new_packets();
    // An alert too.
    send(stream, tls, deadline)?;
    processed.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
    if read == 0 && tls.is_handshaking() { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

fn send(stream: &mut TcpStream, tls: &mut ServerConnection, deadline: Instant) -> io::Result<()> {
    while tls.wants_write() {
        within(stream, deadline, |mut stream| tls.write_tls(&mut stream))?;
    }
    Ok(())
}

/// One system call that ends by the deadline.
fn within(
    stream: &TcpStream,
    deadline: Instant,
    mut call: impl FnMut(&TcpStream) -> io::Result<usize>,
) -> io::Result<usize> {
    loop {
        let left = deadline.saturating_duration_since(clock::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        stream.set_write_timeout(Some(left))?;
        match call(stream) {
            // A signal that another thread was meant for, or the timeout, which is looked at above.
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            done => return done,
        }
    }
}
