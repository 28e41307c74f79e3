//! A small SOCKS5 proxy (RFC 1928), so that a test can see whether a client speaks it.
//!
//! CONNECT to an address, without authentication or with user and password (RFC 1929). Names are refused: the
//! client resolves. Trusts no client, and reaches only what [`crate::address`] lets it. Bounds: `connections_max`
//! at a time, a request of at most 513 octets, `REQUEST_MAX` of time for it, two buffers for each connection.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::address::{self, AddressError, Reach};
use crate::stop::Stop;

const REQUEST_MAX: Duration = Duration::from_secs(30);
const VERSION: u8 = 5;
const NO_AUTH: u8 = 0;
const USER_PASSWORD: u8 = 2;
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;

/// RFC 1928 §6.
const SUCCEEDED: u8 = 0;
const FAILED: u8 = 1;
const NOT_ALLOWED: u8 = 2;
const REFUSED: u8 = 5;
const COMMAND_UNKNOWN: u8 = 7;
const ADDRESS_TYPE_UNKNOWN: u8 = 8;

#[derive(Clone, Debug)]
pub struct Login {
    pub user: String,
    pub password: String,
}

#[derive(Clone, Debug)]
pub struct Socks5Config {
    pub listen: SocketAddr,
    pub reach: Reach,
    pub login: Option<Login>,
    pub connections_max: usize,
    /// This reply to every request.
    pub refuse: Option<u8>,
    /// Where it connects from.
    pub source: Option<IpAddr>,
    pub stop_on_stdin_eof: bool,
    /// `listening ADDR` on standard output, once bound.
    pub announce: bool,
}

impl Socks5Config {
    /// A proxy for everybody on `listen`.
    pub fn on(listen: SocketAddr) -> Socks5Config {
        Socks5Config {
            listen,
            reach: Reach::Loopback,
            login: None,
            connections_max: 1000,
            refuse: None,
            source: None,
            stop_on_stdin_eof: false,
            announce: false,
        }
    }
}

/// What the proxy did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Socks5Report {
    pub connections: u64,
    /// Requests granted.
    pub granted: u64,
    /// Requests refused, whatever for.
    pub refused: u64,
    /// Wrong user or password, or no method in common.
    pub unauthenticated: u64,
    pub bytes_to_target: u64,
    pub bytes_from_target: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum Socks5Error {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("{address}: cannot listen: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot watch for signals or print: {0}")]
    Control(io::Error),
}

#[derive(Default)]
struct Counts {
    connections: AtomicU64,
    granted: AtomicU64,
    refused: AtomicU64,
    unauthenticated: AtomicU64,
    bytes_to_target: AtomicU64,
    bytes_from_target: AtomicU64,
}

impl Counts {
    fn report(&self) -> Socks5Report {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Socks5Report {
            connections: of(&self.connections),
            granted: of(&self.granted),
            refused: of(&self.refused),
            unauthenticated: of(&self.unauthenticated),
            bytes_to_target: of(&self.bytes_to_target),
            bytes_from_target: of(&self.bytes_from_target),
        }
    }
}

fn count(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}

/// Serves until SIGTERM, SIGINT, `stop` or, if the config says so, the end of standard input. Blocks.
pub fn run_until(
    config: &Socks5Config,
    stop: &Stop,
    listening: impl FnOnce(SocketAddr),
) -> Result<Socks5Report, Socks5Error> {
    address::check(config.listen, config.reach)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Socks5Error::Control)?;
    runtime.block_on(async {
        let fail = |source| Socks5Error::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(fail)?;
        let bound = listener.local_addr().map_err(fail)?;
        if config.announce {
            writeln!(io::stdout(), "listening {bound}").map_err(Socks5Error::Control)?;
        }
        if config.stop_on_stdin_eof {
            stop.follow_stdin();
        }
        listening(bound);
        let counts = Arc::new(Counts::default());
        tokio::select! {
            asked = stop.asked() => asked.map_err(Socks5Error::Control)?,
            () = accept_all(config, &listener, &counts) => {}
        }
        Ok(counts.report())
    })
}

async fn accept_all(config: &Socks5Config, listener: &TcpListener, counts: &Arc<Counts>) {
    let places = Arc::new(Semaphore::new(config.connections_max));
    let mut connections = JoinSet::new();
    loop {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((client, _)) => {
                let (config, counts) = (config.clone(), counts.clone());
                connections.spawn(async move {
                    let _ = serve_one(&config, client, &counts).await; // one connection's error is its client's
                    drop(place);
                });
            }
            // Out of descriptors, or the peer left before we looked: the next one may do.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve_one(config: &Socks5Config, mut client: TcpStream, counts: &Counts) -> io::Result<()> {
    count(&counts.connections, 1);
    let _ = client.set_nodelay(true);
    let opened = tokio::time::timeout(REQUEST_MAX, open(config, &mut client, counts)).await??;
    let Some(mut target) = opened else { return Ok(()) };
    let (to, from) = tokio::io::copy_bidirectional(&mut client, &mut target).await?;
    count(&counts.bytes_to_target, to);
    count(&counts.bytes_from_target, from);
    Ok(())
}

/// The connection asked for; none where that was refused.
async fn open(
    config: &Socks5Config,
    client: &mut TcpStream,
    counts: &Counts,
) -> io::Result<Option<TcpStream>> {
    if !authenticate(config, client).await? {
        count(&counts.unauthenticated, 1);
        return Ok(None);
    }
    let answer = match request(client).await? {
        _ if config.refuse.is_some() => Err(config.refuse.unwrap_or(FAILED)),
        Ok(target) => connect(config, target).await,
        Err(code) => Err(code),
    };
    match answer {
        Ok(target) => {
            count(&counts.granted, 1);
            client.write_all(&reply(SUCCEEDED, target.local_addr()?)).await?;
            Ok(Some(target))
        }
        Err(code) => {
            count(&counts.refused, 1);
            client.write_all(&reply(code, SocketAddr::from(([0, 0, 0, 0], 0)))).await?;
            Ok(None)
        }
    }
}

/// RFC 1928 §3: the client's methods, ours among them.
async fn authenticate(config: &Socks5Config, client: &mut TcpStream) -> io::Result<bool> {
    let [version, methods_len] = read(client).await?;
    let methods = read_some(client, methods_len).await?;
    let ours = if config.login.is_some() { USER_PASSWORD } else { NO_AUTH };
    let is_offered = version == VERSION && methods.contains(&ours);
    client.write_all(&[VERSION, if is_offered { ours } else { NO_METHOD }]).await?;
    match &config.login {
        _ if !is_offered => Ok(false),
        Some(login) => is_login(login, client).await,
        None => Ok(true),
    }
}

/// RFC 1929 §2.
async fn is_login(login: &Login, client: &mut TcpStream) -> io::Result<bool> {
    let [version, user_len] = read(client).await?;
    let user = read_some(client, user_len).await?;
    let [password_len] = read(client).await?;
    let password = read_some(client, password_len).await?;
    let is_right = version == 1 && user == login.user.as_bytes() && password == login.password.as_bytes();
    client.write_all(&[1, u8::from(!is_right)]).await?;
    Ok(is_right)
}

/// Where to, or the code of the refusal.
async fn request(client: &mut TcpStream) -> io::Result<Result<SocketAddr, u8>> {
    let [version, command, _, address_type] = read(client).await?;
    let ip: IpAddr = match address_type {
        1 => Ipv4Addr::from(read::<4>(client).await?).into(),
        4 => Ipv6Addr::from(read::<16>(client).await?).into(),
        _ => return Ok(Err(ADDRESS_TYPE_UNKNOWN)),
    };
    let port = u16::from_be_bytes(read(client).await?);
    match (version, command) {
        (VERSION, CONNECT) => Ok(Ok((ip, port).into())),
        (VERSION, _) => Ok(Err(COMMAND_UNKNOWN)),
        _ => Ok(Err(FAILED)),
    }
}

async fn connect(config: &Socks5Config, target: SocketAddr) -> Result<TcpStream, u8> {
    address::check(target, config.reach).map_err(|_| NOT_ALLOWED)?;
    let socket =
        if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(|_| FAILED)?;
    if let Some(source) = config.source {
        socket.bind((source, 0).into()).map_err(|_| FAILED)?;
    }
    let stream = socket.connect(target).await.map_err(|_| REFUSED)?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// RFC 1928 §6.
fn reply(code: u8, bound: SocketAddr) -> Vec<u8> {
    let mut octets = vec![VERSION, code, 0];
    match bound.ip() {
        IpAddr::V4(ip) => {
            octets.push(1);
            octets.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            octets.push(4);
            octets.extend(ip.octets());
        }
    }
    octets.extend(bound.port().to_be_bytes());
    octets
}

async fn read<const N: usize>(client: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut octets = [0; N];
    client.read_exact(&mut octets).await?;
    Ok(octets)
}

async fn read_some(client: &mut TcpStream, len: u8) -> io::Result<Vec<u8>> {
    let mut octets = vec![0; len.into()];
    client.read_exact(&mut octets).await?;
    Ok(octets)
}
