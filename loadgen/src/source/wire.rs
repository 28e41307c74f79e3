//! One connection of the source: bytes out, replies in.
//!
//! A reply is taken only when all of its lines are here. What is read and not yet taken stays in the buffer, so a
//! group of replies that arrives together costs one read. Trusts nothing: a peer that does not speak
//! SMTP is an error, and so is more than `INBOUND_MAX` bytes without a whole reply.

use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::TcpStream;

use crate::ring::{Pulse, Watch};

const READ_BYTES: usize = 16 * 1024;
const INBOUND_MAX: usize = 64 * 1024;

pub(crate) struct Wire {
    stream: Rc<TcpStream>,
    pulse: Rc<Pulse>,
    inbound: Vec<u8>,
    /// How much of `inbound` has been taken.
    taken: usize,
    /// What goes out with the next [`Wire::flush`].
    pub(crate) out: Vec<u8>,
    pub(crate) pipelining: bool,
    pub(crate) chunking: bool,
}

impl Wire {
    /// A connect cannot be cancelled here: past `limit` its socket stays with the kernel until that gives up.
    pub(crate) async fn connect(address: SocketAddr, watch: &Watch, limit: Duration) -> io::Result<Wire> {
        let stream = tokio::time::timeout(limit, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        let stream = Rc::new(stream);
        let pulse = watch.add(stream.clone());
        let (inbound, out) = (Vec::with_capacity(READ_BYTES), Vec::new());
        Ok(Wire { stream, pulse, inbound, taken: 0, out, pipelining: false, chunking: false })
    }

    /// Sends all of `out`.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        let out = std::mem::take(&mut self.out);
        self.pulse.wait_begins(Instant::now());
        let (sent, mut out) = self.stream.write_all(out).await;
        self.pulse.wait_ends();
        out.clear();
        self.out = out;
        sent
    }

    /// The code of the next reply.
    pub(crate) async fn reply(&mut self) -> io::Result<u16> {
        let (code, len) = self.await_reply().await?;
        self.taken += len;
        Ok(code)
    }

    /// The next reply, a greeting to EHLO, whose lines say what may be used.
    pub(crate) async fn extensions(&mut self) -> io::Result<u16> {
        let (code, len) = self.await_reply().await?;
        let text = self.inbound[self.taken..self.taken + len].to_ascii_uppercase();
        let offers = |keyword: &[u8]| {
            let mut lines = text.split(|&byte| byte == b'\n').skip(1).filter_map(|line| line.get(4..));
            code == 250 && lines.any(|line| line.trim_ascii() == keyword)
        };
        (self.pipelining, self.chunking) = (offers(b"PIPELINING"), offers(b"CHUNKING"));
        self.taken += len;
        Ok(code)
    }

    async fn await_reply(&mut self) -> io::Result<(u16, usize)> {
        loop {
            match parse_reply(&self.inbound[self.taken..]) {
                Parsed::Reply { code, len } => return Ok((code, len)),
                Parsed::NotSmtp => return Err(io::Error::new(ErrorKind::InvalidData, "not an SMTP reply")),
                Parsed::Partial => self.fill().await?,
            }
        }
    }

    async fn fill(&mut self) -> io::Result<()> {
        self.inbound.drain(..self.taken);
        self.taken = 0;
        let len = self.inbound.len();
        if len > INBOUND_MAX {
            return Err(io::Error::new(ErrorKind::InvalidData, "an endless reply"));
        }
        let mut inbound = std::mem::take(&mut self.inbound);
        inbound.reserve(READ_BYTES.saturating_sub(len).max(1024));
        self.pulse.wait_begins(Instant::now());
        let (read, inbound) = self.stream.read(inbound.slice(len..)).await;
        self.pulse.wait_ends();
        self.inbound = inbound.into_inner();
        match read? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Takes leave as far as the peer lets us.
    pub(crate) async fn quit(mut self) {
        self.out.clear();
        self.out.extend_from_slice(b"QUIT\r\n");
        if self.flush().await.is_ok() {
            let _ = self.reply().await;
        }
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

#[derive(Debug, Eq, PartialEq)]
enum Parsed {
    Reply { code: u16, len: usize },
    Partial,
    NotSmtp,
}

/// RFC 5321 §4.2: each line has the code, then a hyphen on all lines but the last.
fn parse_reply(bytes: &[u8]) -> Parsed {
    let mut len = 0;
    while let Some(end) = memchr::memchr(b'\n', &bytes[len..]) {
        let line = &bytes[len..len + end];
        len += end + 1;
        match (code_of(line), line.get(3)) {
            (None, _) => return Parsed::NotSmtp,
            (Some(_), Some(b'-')) => {}
            (Some(code), Some(b' ' | b'\r') | None) => return Parsed::Reply { code, len },
            (Some(_), Some(_)) => return Parsed::NotSmtp,
        }
    }
    Parsed::Partial
}

fn code_of(line: &[u8]) -> Option<u16> {
    let code: u16 = std::str::from_utf8(line.get(..3)?).ok()?.parse().ok()?;
    (200..600).contains(&code).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_taken_only_when_whole() {
        assert_eq!(parse_reply(b"250 ok\r\n250 next"), Parsed::Reply { code: 250, len: 8 });
        assert_eq!(parse_reply(b"250-a\r\n250 b\r\n"), Parsed::Reply { code: 250, len: 14 });
        assert_eq!(parse_reply(b"250\r\n"), Parsed::Reply { code: 250, len: 5 });
        assert_eq!(parse_reply(b"250-a\r\n250"), Parsed::Partial);
        assert_eq!(parse_reply(b""), Parsed::Partial);
    }

    #[test]
    fn what_is_not_smtp_is_said_to_be() {
        for wrong in [&b"HTTP/1.1 400\r\n"[..], b"\r\n", b"25\r\n", b"999 x\r\n", b"250_x\r\n", b"+50 x\r\n"]
        {
            assert_eq!(parse_reply(wrong), Parsed::NotSmtp, "{wrong:?}");
        }
    }
}
