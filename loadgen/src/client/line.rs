//! A client's connection where the ring is not needed: thousands that idle, or one that says what it should not.
//!
//! On tokio's reactor, so that every wait can be given up. Bounds: a reply of `REPLY_MAX` octets; each wait for one
//! has the limit of the [`Introduction`].

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{
    ClientTls, ClientTlsError, ClientTlsMode, Offers, Parsed, Reply, Secure, Target, auth_plain, parse_reply,
};
use crate::address::{AddressError, Reach};
use crate::sink::Account;

const REPLY_MAX: usize = 64 * 1024;
const READ_BYTES: usize = 1024;
const WORDS_MAX: usize = 200;

/// Where a client goes, and what it says of itself.
#[derive(Clone, Debug)]
pub struct Introduction {
    pub target: Target,
    pub helo: String,
    pub tls: Option<ClientTls>,
    /// AUTH PLAIN after EHLO.
    pub account: Option<Account>,
    pub reply_timeout: Duration,
}

impl Introduction {
    /// In plain text and as nobody.
    pub fn to(target: impl Into<Target>) -> Introduction {
        Introduction {
            target: target.into(),
            helo: "source.loadgen.test".into(),
            tls: None,
            account: None,
            reply_timeout: Duration::from_secs(60),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error(transparent)]
    Tls(#[from] ClientTlsError),
    #[error("{0}")]
    Config(&'static str),
    #[error("{target}: {source}")]
    Connect { target: Target, source: io::Error },
    #[error("the runtime: {0}")]
    Runtime(io::Error),
}

/// An [`Introduction`] that has been checked, for many connections.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) introduction: Introduction,
    secure: Option<Secure>,
    /// A connection ends by RST, and leaves no TIME_WAIT behind.
    resets: bool,
}

impl Caller {
    /// Loopback only.
    pub(crate) fn new(introduction: &Introduction) -> Result<Caller, ClientError> {
        introduction.target.check(Reach::Loopback)?;
        if introduction.helo.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(ClientError::Config("the HELO name has no control characters"));
        }
        let secure = introduction.tls.as_ref().map(Secure::new).transpose()?;
        Ok(Caller { introduction: introduction.clone(), secure, resets: false })
    }

    pub(crate) fn resetting(self) -> Caller {
        Caller { resets: true, ..self }
    }

    /// A connection, from `source` if that is said, on which nothing has been said; TLS if that is implicit.
    pub(crate) async fn connect(&self, source: Option<IpAddr>) -> io::Result<Line> {
        let line = self.connect_bare(source).await?;
        match self.secure.as_ref().filter(|secure| secure.is_implicit()) {
            Some(secure) => line.secure(secure).await,
            None => Ok(line),
        }
    }

    /// The same before any TLS.
    pub(crate) async fn connect_bare(&self, source: Option<IpAddr>) -> io::Result<Line> {
        let limit = self.introduction.reply_timeout;
        let stream: Box<dyn Octets> = match &self.introduction.target {
            Target::Tcp(address) => Box::new(timeout(limit, self.connect_tcp(*address, source)).await??),
            Target::Unix(path) => Box::new(timeout(limit, UnixStream::connect(path)).await??),
        };
        Ok(Line { stream, inbound: Vec::new(), limit })
    }

    async fn connect_tcp(&self, address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(source) = source {
            socket.bind(SocketAddr::from((source, 0)))?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?; // a segment is what one send says it is
        if self.resets {
            SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        }
        Ok(stream)
    }

    /// Greets as far as it goes: EHLO, STARTTLS, AUTH. The reply that turned us away is no error.
    pub(crate) async fn introduce(&self, mut line: Line) -> io::Result<Result<(Line, Offers), Reply>> {
        let greeting = line.reply().await?;
        if greeting.code != 220 {
            return Ok(Err(greeting));
        }
        let mut offers = line.extensions(&self.introduction.helo).await?;
        if let Some(secure) = self.secure.as_ref().filter(|secure| !secure.is_implicit()) {
            let reply = line.ask(b"STARTTLS\r\n").await?;
            if reply.code != 220 {
                return Ok(Err(reply));
            }
            line = line.secure(secure).await?;
            offers = line.extensions(&self.introduction.helo).await?;
        }
        let offers = match offers {
            Ok(offers) => offers,
            Err(reply) => return Ok(Err(reply)),
        };
        if let Some(account) = &self.introduction.account {
            let reply = line.ask(&auth_plain(account)).await?;
            if reply.code != 235 {
                return Ok(Err(reply));
            }
        }
        Ok(Ok((line, offers)))
    }

    /// Connects and introduces itself.
    pub(crate) async fn call(&self, source: Option<IpAddr>) -> io::Result<Result<(Line, Offers), Reply>> {
        self.introduce(self.connect(source).await?).await
    }

    /// Up to where TLS would begin: a handshake of the caller's own may follow.
    pub(crate) async fn call_until_tls(&self, source: Option<IpAddr>) -> io::Result<Result<Line, Reply>> {
        let mut line = self.connect_bare(source).await?;
        if self.introduction.tls.as_ref().is_some_and(|tls| tls.mode == ClientTlsMode::Implicit) {
            return Ok(Ok(line));
        }
        let greeting = line.reply().await?;
        if greeting.code != 220 {
            return Ok(Err(greeting));
        }
        if let Err(reply) = line.extensions(&self.introduction.helo).await? {
            return Ok(Err(reply));
        }
        let reply = line.ask(b"STARTTLS\r\n").await?;
        Ok(if reply.code == 220 { Ok(line) } else { Err(reply) })
    }
}

/// What carries octets, plain or sealed.
pub(crate) trait Octets: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Octets for T {}

pub(crate) struct Line {
    stream: Box<dyn Octets>,
    inbound: Vec<u8>,
    limit: Duration,
}

impl Line {
    async fn secure(self, secure: &Secure) -> io::Result<Line> {
        let connector = TlsConnector::from(secure.config.clone());
        let handshake = connector.connect(secure.name.clone(), self.stream);
        let stream = Box::new(timeout(self.limit, handshake).await??);
        // What came in plain text behind the 220 is thrown away (RFC 3207 §4.2).
        Ok(Line { stream, inbound: Vec::new(), limit: self.limit })
    }

    pub(crate) async fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        let sent = async {
            self.stream.write_all(octets).await?;
            self.stream.flush().await
        };
        timeout(self.limit, sent).await?
    }

    /// Says that no more comes.
    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        timeout(self.limit, self.stream.shutdown()).await?
    }

    pub(crate) async fn ask(&mut self, command: &[u8]) -> io::Result<Reply> {
        self.send(command).await?;
        self.reply().await
    }

    pub(crate) async fn reply(&mut self) -> io::Result<Reply> {
        let (code, len) = timeout(self.limit, self.await_reply()).await??;
        let text = last_words(&self.inbound[..len]);
        self.inbound.drain(..len);
        Ok(Reply { code, text })
    }

    /// EHLO, and what its answer offers.
    async fn extensions(&mut self, helo: &str) -> io::Result<Result<Offers, Reply>> {
        self.send(format!("EHLO {helo}\r\n").as_bytes()).await?;
        let (code, len) = timeout(self.limit, self.await_reply()).await??;
        let whole: Vec<u8> = self.inbound.drain(..len).collect();
        Ok(if code == 250 { Ok(Offers::of(&whole)) } else { Err(Reply { code, text: last_words(&whole) }) })
    }

    async fn await_reply(&mut self) -> io::Result<(u16, usize)> {
        loop {
            match parse_reply(&self.inbound) {
                Parsed::Reply { code, len } => return Ok((code, len)),
                Parsed::NotSmtp => return Err(io::Error::new(ErrorKind::InvalidData, "not an SMTP reply")),
                Parsed::Partial if self.inbound.len() > REPLY_MAX => {
                    return Err(io::Error::new(ErrorKind::InvalidData, "an endless reply"));
                }
                Parsed::Partial if self.hear().await? == 0 => return Err(ErrorKind::UnexpectedEof.into()),
                Parsed::Partial => {}
            }
        }
    }

    /// Waits without a limit for the next octets, and keeps them; 0 is the end. May be given up and called again.
    pub(crate) async fn hear(&mut self) -> io::Result<usize> {
        self.inbound.reserve(READ_BYTES);
        self.stream.read_buf(&mut self.inbound).await
    }

    /// What was heard and not taken.
    pub(crate) fn heard(&self) -> &[u8] {
        &self.inbound
    }

    /// Takes the first `len` octets of it.
    pub(crate) fn take(&mut self, len: usize) {
        self.inbound.drain(..len);
    }

    /// Keeps of it only the end, which may be a reason.
    pub(crate) fn forget_all_but_the_end(&mut self) {
        let kept = self.inbound.len().saturating_sub(2 * WORDS_MAX);
        self.inbound.drain(..kept);
    }
}

/// The last line of `octets` that says something, as people can read it; empty where nothing was said.
pub(crate) fn last_words(octets: &[u8]) -> String {
    let line =
        octets.split(|&byte| byte == b'\n').rev().map(<[u8]>::trim_ascii).find(|line| !line.is_empty());
    shown(line.unwrap_or_default())
}

/// At most `WORDS_MAX` octets, nothing unprintable.
pub(crate) fn shown(octets: &[u8]) -> String {
    let printable = |byte: &u8| if (b' '..=b'~').contains(byte) { char::from(*byte) } else { '?' };
    octets.iter().take(WORDS_MAX).map(printable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_the_last_line_that_has_any() {
        assert_eq!(last_words(b"220 hello\r\n421 4.4.2 Bye\r\n"), "421 4.4.2 Bye");
        assert_eq!(last_words(b"421 torn"), "421 torn");
        assert_eq!(last_words(b"\r\n\x00\xff\r\n\r\n"), "??");
        assert_eq!(last_words(b""), "");
    }
}
