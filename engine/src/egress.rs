//! What is said before the dialog where a connection does not leave directly: to a SOCKS5 server (RFC 1928) the request
//! for a connection to the peer, to a PROXY server (version 2 of its protocol) one header.
//!
//! Pure: the caller sends what [`Preface::take_bytes`] gives and feeds what comes. Trusts nothing that a server sends.
//! The peer is named by its address: names are resolved by us. Bound: a reply of a server has at most
//! [`REPLY_MAX`] octets, and no octet behind the last reply is touched.

use crate::sources::{Egress, Login};
use smallvec::SmallVec;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// RFC 1928 §6: the longest reply names the bound address as a domain of 255 octets.
const REPLY_MAX: usize = 4 + 1 + 255 + 2;

const VERSION: u8 = 5;
/// RFC 1928 §3: methods.
const NO_LOGIN: u8 = 0;
const USER_PASSWORD: u8 = 2;
const NO_METHOD: u8 = 0xff;
/// RFC 1929 §2.
const LOGIN_VERSION: u8 = 1;
/// RFC 1928 §4: command and address types.
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const DOMAIN: u8 = 3;
const IPV6: u8 = 4;

/// PROXY protocol, version 2: signature, version and command PROXY, then family and transport: TCP.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const PROXY_COMMAND: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// How far it is. `used`: octets of what was given; those behind them are the session's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Progress {
    /// Send what there is, and wait for more.
    More,
    /// The peer is at the other end.
    Done { used: usize },
}

/// Why there is no connection. What the peer would have said is not known: its mail may go another time.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PrefaceError {
    #[error("the SOCKS5 server speaks another protocol")]
    Garbage,
    #[error("the SOCKS5 server takes none of our ways to log in")]
    NoMethod,
    #[error("the SOCKS5 server refuses our user and password")]
    LoginRefused,
    #[error("the SOCKS5 server {}", sentence(*.0))]
    Refused(u8),
}

impl PrefaceError {
    /// It is the peer that cannot be reached, as far as the server knows; else the server is to blame, or how we are
    /// configured, and no other peer would do better.
    pub fn is_about_peer(self) -> bool {
        // RFC 1928 §6: network, host, connection, TTL.
        matches!(self, PrefaceError::Refused(3..=6))
    }
}

/// RFC 1928 §6.
fn sentence(code: u8) -> &'static str {
    match code {
        1 => "failed",
        2 => "does not allow this connection",
        3 => "says that the network is unreachable",
        4 => "says that the host is unreachable",
        5 => "says that the host refused the connection",
        6 => "says that the connection timed out on its way",
        7 => "does not know CONNECT",
        8 => "does not know this kind of address",
        _ => "refused the connection without a known reason",
    }
}

/// What is waited for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Method,
    LoginReply,
    ConnectReply,
    /// Nothing: the session may begin.
    Done,
    Failed(PrefaceError),
}

/// See the module.
pub struct Preface {
    state: State,
    peer: SocketAddr,
    login: Option<Login>,
    /// To be sent.
    outgoing: Vec<u8>,
    /// The reply so far.
    heard: SmallVec<[u8; 32]>,
}

/// Neither the password nor a request that has it.
impl std::fmt::Debug for Preface {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Preface { state, peer, .. } = self;
        f.debug_struct("Preface").field("state", state).field("peer", peer).finish_non_exhaustive()
    }
}

impl Egress {
    /// Where the connection really leads to.
    pub fn server_for(&self, peer: SocketAddr) -> SocketAddr {
        match self {
            Egress::Direct => peer,
            Egress::Socks5 { server, .. } | Egress::Proxy { server } => *server,
        }
    }
}

impl Preface {
    /// `None`: the connection is direct. `bind`: the address of ours that a PROXY server shall connect from; without one
    /// of the peer's family it is told of none, and chooses.
    pub fn new(egress: &Egress, bind: Option<IpAddr>, peer: SocketAddr) -> Option<Preface> {
        let (state, login, outgoing) = match egress {
            Egress::Direct => return None,
            Egress::Socks5 { login, .. } => (State::Method, login.clone(), greeting(login.is_some())),
            Egress::Proxy { .. } => (State::Done, None, proxy_header(bind, peer)),
        };
        Some(Preface { state, peer, login, outgoing, heard: SmallVec::new() })
    }

    /// To be sent now. Empty: nothing.
    pub fn take_bytes(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.outgoing)
    }

    /// True when the session may begin as soon as what there is to send has been sent: a PROXY server says nothing.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// What the server sent. After an error it stays one.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Result<Progress, PrefaceError> {
        let mut used = 0;
        loop {
            match self.state {
                State::Done => return Ok(Progress::Done { used }),
                State::Failed(error) => return Err(error),
                State::Method | State::LoginReply | State::ConnectReply => {}
            }
            used += self.hear(&bytes[used..]);
            if self.missing() > 0 {
                return Ok(Progress::More);
            }
            self.state = self.on_reply().unwrap_or_else(State::Failed);
            self.heard.clear();
        }
    }

    /// Takes as many octets as the reply still has; their number.
    fn hear(&mut self, bytes: &[u8]) -> usize {
        let mut used = 0;
        // A reply's length may be known only with its first octets.
        while self.missing() > 0 && used < bytes.len() {
            let part = &bytes[used..bytes.len().min(used + self.missing())];
            self.heard.extend_from_slice(part);
            used += part.len();
        }
        debug_assert!(self.heard.len() <= REPLY_MAX);
        used
    }

    /// Octets of the reply that have to come before more can be said of it.
    fn missing(&self) -> usize {
        let whole = match self.state {
            State::Method | State::LoginReply => 2,
            State::ConnectReply => connect_reply_len(&self.heard),
            State::Done | State::Failed(_) => 0,
        };
        whole.saturating_sub(self.heard.len())
    }

    fn on_reply(&mut self) -> Result<State, PrefaceError> {
        match (self.state, self.heard.as_slice()) {
            (State::Method, [VERSION, NO_LOGIN]) => Ok(self.ask_for_peer()),
            (State::Method, [VERSION, USER_PASSWORD]) => self.log_in(),
            (State::Method, [VERSION, NO_METHOD]) => Err(PrefaceError::NoMethod),
            (State::LoginReply, [LOGIN_VERSION, 0]) => Ok(self.ask_for_peer()),
            (State::LoginReply, [LOGIN_VERSION, _]) => Err(PrefaceError::LoginRefused),
            (State::ConnectReply, [VERSION, 0, _, IPV4 | DOMAIN | IPV6, ..]) => Ok(State::Done),
            // A refusal need not bring the rest.
            (State::ConnectReply, [VERSION, code @ 1..=255, ..]) => Err(PrefaceError::Refused(*code)),
            _ => Err(PrefaceError::Garbage),
        }
    }

    /// RFC 1929 §2. A server that asks for what we did not offer has misunderstood us.
    fn log_in(&mut self) -> Result<State, PrefaceError> {
        let Login { user, password } = self.login.take().ok_or(PrefaceError::Garbage)?;
        self.outgoing.push(LOGIN_VERSION);
        for field in [user.as_bytes(), &password.0] {
            let len = u8::try_from(field.len()).expect("the configuration allows 1 to 255 octets");
            self.outgoing.push(len);
            self.outgoing.extend_from_slice(field);
        }
        Ok(State::LoginReply)
    }

    /// RFC 1928 §4.
    fn ask_for_peer(&mut self) -> State {
        self.outgoing.extend([VERSION, CONNECT, 0]);
        match self.peer.ip() {
            IpAddr::V4(ip) => {
                self.outgoing.push(IPV4);
                self.outgoing.extend(ip.octets());
            }
            IpAddr::V6(ip) => {
                self.outgoing.push(IPV6);
                self.outgoing.extend(ip.octets());
            }
        }
        self.outgoing.extend(self.peer.port().to_be_bytes());
        State::ConnectReply
    }
}

/// RFC 1928 §3: without a password the first method is all that we have.
fn greeting(has_login: bool) -> Vec<u8> {
    match has_login {
        true => vec![VERSION, 2, NO_LOGIN, USER_PASSWORD],
        false => vec![VERSION, 1, NO_LOGIN],
    }
}

/// As far as its beginning tells; what is wrong already is not waited for.
fn connect_reply_len(heard: &[u8]) -> usize {
    match heard {
        [] | [VERSION] => 2,
        [VERSION, 0] | [VERSION, 0, _] => 4,
        [VERSION, 0, _, IPV4, ..] => 4 + 4 + 2,
        [VERSION, 0, _, IPV6, ..] => 4 + 16 + 2,
        [VERSION, 0, _, DOMAIN] => 5,
        [VERSION, 0, _, DOMAIN, len, ..] => 5 + usize::from(*len) + 2,
        // Another version, a refusal, an unknown kind of address.
        [..] => heard.len(),
    }
}

/// Version 2, §2.2. Port 0: any of ours.
fn proxy_header(bind: Option<IpAddr>, peer: SocketAddr) -> Vec<u8> {
    let mut header = Vec::with_capacity(SIGNATURE.len() + 4 + 36);
    header.extend_from_slice(SIGNATURE);
    header.push(PROXY_COMMAND);
    match (bind, peer.ip()) {
        (bind, IpAddr::V4(peer_ip)) => {
            let bind = match bind {
                Some(IpAddr::V4(ip)) => ip,
                Some(IpAddr::V6(_)) | None => Ipv4Addr::UNSPECIFIED,
            };
            header.push(TCP_OVER_IPV4);
            header.extend(12_u16.to_be_bytes());
            header.extend(bind.octets());
            header.extend(peer_ip.octets());
        }
        (bind, IpAddr::V6(peer_ip)) => {
            let bind = match bind {
                Some(IpAddr::V6(ip)) => ip,
                Some(IpAddr::V4(_)) | None => std::net::Ipv6Addr::UNSPECIFIED,
            };
            header.push(TCP_OVER_IPV6);
            header.extend(36_u16.to_be_bytes());
            header.extend(bind.octets());
            header.extend(peer_ip.octets());
        }
    }
    header.extend(0_u16.to_be_bytes());
    header.extend(peer.port().to_be_bytes());
    header
}

/// For the fuzzer: whatever a server sends and however it is cut, the end is the same, and nothing behind the last reply
/// is used. The first octet says what is configured and how long the pieces are.
pub fn fuzz_preface(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let password = crate::config::Secret(b"secret"[..].into());
    let login = (first & 1 == 1).then(|| Login { user: "ann".to_owned(), password });
    let server = SocketAddr::from(([127, 0, 0, 1], 1080));
    let egress = Egress::Socks5 { server, login };
    let whole = run(&egress, bytes, bytes.len().max(1));
    assert_eq!(whole, run(&egress, bytes, 1 + usize::from(first >> 4)));
}

/// What came of it, octets used, and all that was said.
fn run(egress: &Egress, bytes: &[u8], piece_len: usize) -> (Result<bool, PrefaceError>, usize, Vec<u8>) {
    let peer = SocketAddr::from(([192, 0, 2, 1], 25));
    let mut preface = Preface::new(egress, None, peer).expect("the connection is not direct");
    let (mut used, mut said) = (0, preface.take_bytes());
    for piece in bytes.chunks(piece_len) {
        match preface.handle_bytes(piece) {
            Ok(Progress::More) => used += piece.len(),
            Ok(Progress::Done { used: more }) => {
                said.extend(preface.take_bytes());
                return (Ok(true), used + more, said);
            }
            // What else came in the piece, and what was said to it, does not matter.
            Err(error) => return (Err(error), 0, Vec::new()),
        }
        said.extend(preface.take_bytes());
    }
    (Ok(false), used, said)
}

#[cfg(test)]
mod tests;
