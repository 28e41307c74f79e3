//! One connection of the source: bytes out, replies in, in plain text or sealed.
//!
//! A reply is taken only when all of its lines are here. What is read and not yet taken stays in the buffer, so a
//! group of replies that arrives together costs one read. Trusts nothing: a peer that does not speak
//! SMTP is an error, and so is more than `INBOUND_MAX` bytes without a whole reply.

use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::{TcpStream, UnixStream};

use super::sealed::Tls;
use crate::client::{Offers, Parsed, Secure, Target, parse_reply};
use crate::ring::{Pulse, ShutDown, Watch};

const READ_BYTES: usize = 16 * 1024;
const INBOUND_MAX: usize = 64 * 1024;

/// What a [`Target`] is once connected.
enum Stream {
    Tcp(Rc<TcpStream>),
    Unix(Rc<UnixStream>),
}

impl Stream {
    async fn connect(target: &Target) -> io::Result<Stream> {
        match target {
            Target::Tcp(address) => {
                let stream = TcpStream::connect(*address).await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(Rc::new(stream)))
            }
            Target::Unix(path) => Ok(Stream::Unix(Rc::new(UnixStream::connect(path).await?))),
        }
    }

    fn ends(&self) -> Rc<dyn ShutDown> {
        match self {
            Stream::Tcp(stream) => stream.clone(),
            Stream::Unix(stream) => stream.clone(),
        }
    }

    async fn write_all(&self, octets: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        match self {
            Stream::Tcp(stream) => stream.write_all(octets).await,
            Stream::Unix(stream) => stream.write_all(octets).await,
        }
    }

    /// Behind what is in `inbound` already.
    async fn read(&self, inbound: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        let at = inbound.len();
        let (read, rest) = match self {
            Stream::Tcp(stream) => stream.read(inbound.slice(at..)).await,
            Stream::Unix(stream) => stream.read(inbound.slice(at..)).await,
        };
        (read, rest.into_inner())
    }
}

pub(crate) struct Wire {
    stream: Stream,
    pulse: Rc<Pulse>,
    tls: Option<Box<Tls>>,
    inbound: Vec<u8>,
    /// How much of `inbound` has been taken.
    taken: usize,
    /// What goes out with the next [`Wire::flush`].
    pub(crate) out: Vec<u8>,
    pub(crate) offers: Offers,
}

impl Wire {
    /// A connect cannot be cancelled here: past `limit` its socket stays with the kernel until that gives up.
    pub(crate) async fn connect(target: &Target, watch: &Watch, limit: Duration) -> io::Result<Wire> {
        let stream = tokio::time::timeout(limit, Stream::connect(target)).await??;
        let pulse = watch.add(stream.ends());
        let (inbound, out) = (Vec::with_capacity(READ_BYTES), Vec::new());
        Ok(Wire { stream, pulse, tls: None, inbound, taken: 0, out, offers: Offers::default() })
    }

    /// The handshake. Octets that came behind the 220 in plain text are an attempt to inject.
    pub(crate) async fn secure(&mut self, secure: &Secure) -> io::Result<&Tls> {
        if self.inbound.len() > self.taken {
            return Err(io::Error::new(ErrorKind::InvalidData, "plain text behind the answer to STARTTLS"));
        }
        let mut tls = Box::new(Tls::new(secure)?);
        let mut sealed = Vec::new();
        loop {
            tls.seal(&[], &mut sealed)?;
            sealed = self.write(sealed).await?;
            if !tls.is_handshaking() {
                break;
            }
            self.read_sealed(&mut tls).await?;
        }
        Ok(self.tls.insert(tls))
    }

    /// Sends all of `out`.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        let out = std::mem::take(&mut self.out);
        let Some(tls) = &mut self.tls else {
            self.out = self.write(out).await?;
            return Ok(());
        };
        let mut sealed = tls.buffer();
        tls.seal(&out, &mut sealed)?;
        self.out = out;
        self.out.clear();
        let sealed = self.write(sealed).await?;
        if let Some(tls) = &mut self.tls {
            tls.keep_buffer(sealed);
        }
        Ok(())
    }

    /// Gives the buffer back, empty.
    async fn write(&self, octets: Vec<u8>) -> io::Result<Vec<u8>> {
        if octets.is_empty() {
            return Ok(octets);
        }
        self.pulse.wait_begins(Instant::now());
        let (sent, mut octets) = self.stream.write_all(octets).await;
        self.pulse.wait_ends();
        octets.clear();
        sent.map(|()| octets)
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
        let ehlo = &self.inbound[self.taken..self.taken + len];
        self.offers = if code == 250 { Offers::of(ehlo) } else { Offers::default() };
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
        match self.tls.take() {
            None => self.read_plain(len).await,
            Some(mut tls) => {
                let read = self.read_sealed(&mut tls).await;
                self.tls = Some(tls);
                read
            }
        }
    }

    async fn read_plain(&mut self, len: usize) -> io::Result<()> {
        let mut inbound = std::mem::take(&mut self.inbound);
        inbound.reserve(READ_BYTES.saturating_sub(len).max(1024));
        self.inbound = self.read(inbound).await?;
        Ok(())
    }

    /// One read, which may be of TLS's own and give nothing.
    async fn read_sealed(&mut self, tls: &mut Tls) -> io::Result<()> {
        let mut sealed = Vec::with_capacity(READ_BYTES);
        sealed = self.read(sealed).await?;
        tls.take(&sealed, &mut self.inbound)
    }

    async fn read(&self, inbound: Vec<u8>) -> io::Result<Vec<u8>> {
        self.pulse.wait_begins(Instant::now());
        let (read, inbound) = self.stream.read(inbound).await;
        self.pulse.wait_ends();
        match read? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(inbound),
        }
    }

    /// Takes leave as far as the peer lets us.
    pub(crate) async fn quit(mut self) {
        self.out.clear();
        self.out.extend_from_slice(b"QUIT\r\n");
        if self.flush().await.is_ok() {
            let _ = self.reply().await;
        }
        self.stream.ends().shut_down();
    }
}
