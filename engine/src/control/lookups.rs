//! What is found out about a client before it may go on: its name, what DNS lists say of it, what its ident service says.
//!
//! All of it at once and within [`WHOLE_MAX`]; what has not come by then counts as not there, so that no name server of others'
//! can hold up our mail. Answers are kept by hickory as long as they hold, denials too. Names, lists' words and ident's
//! are taken only as far as they are what they must be. Bounds: `access.questions_max` questions on the wire, beside those of
//! delivery; [`CLIENTS_MAX`] clients at a time, further ones wait within their time; [`NAMES_MAX`] names of an address.

use super::dns::{Lack, Questions, StartError};
use crate::access::{Found, IdentPorts, ListQuestion, Listed, LookUp, ReverseName, TEXT_MAX, reversed};
use crate::settings::Settings;
use futures_util::future::{join_all, join3};
use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::sync::Semaphore;
use tokio::time::{timeout, timeout_at};

/// For everything about one client.
const WHOLE_MAX: Duration = Duration::from_secs(5);

/// For its ident service.
const IDENT_MAX: Duration = Duration::from_secs(3);

const CLIENTS_MAX: usize = 1024;

/// Of one address.
const NAMES_MAX: usize = 5;

/// RFC 1413 §4: octets of a reply.
const IDENT_REPLY_MAX: usize = 1000;

/// Octets of what it says that are kept.
const IDENT_MAX_LEN: usize = 64;

/// Lists that do not answer are complained of this often.
const COMPLAINT: Duration = Duration::from_secs(60);

/// See the module. One per control thread.
pub struct LookUps {
    questions: Questions,
    places: Semaphore,
    troubles: Cell<u64>,
    complained: Cell<Option<Instant>>,
    ident_port: u16,
}

impl LookUps {
    /// Uses the configured name servers, or the system's.
    pub fn new(settings: &Settings) -> Result<LookUps, StartError> {
        Ok(LookUps {
            questions: Questions::about_clients(settings)?,
            places: Semaphore::new(CLIENTS_MAX),
            troubles: Cell::new(0),
            complained: Cell::new(None),
            ident_port: 113,
        })
    }

    fn note_trouble(&self, of: &str, what: &str) {
        self.troubles.set(self.troubles.get() + 1);
        let now = crate::clock::now();
        if self.complained.get().is_some_and(|last| now.saturating_duration_since(last) < COMPLAINT) {
            return;
        }
        self.complained.set(Some(now));
        let count = self.troubles.replace(0);
        tracing::warn!(of, what, count, "look-ups about clients fail; what they ask about goes on without");
    }
}

/// Never fails: what could not be found out is not there.
pub async fn look_up(look_ups: &LookUps, about: LookUp) -> Found {
    let deadline = (crate::clock::now() + WHOLE_MAX).into();
    let Ok(Ok(_place)) = timeout_at(deadline, look_ups.places.acquire()).await else {
        look_ups.note_trouble("all", "too many clients at a time");
        return Found::default();
    };
    let name = async {
        if !about.wants_name {
            return ReverseName::Unknown;
        }
        timeout_at(deadline, reverse_name(&look_ups.questions, about.address)).await.unwrap_or_default()
    };
    let ident = async {
        match about.ident {
            Some(ports) => ident(ports, look_ups.ident_port).await,
            None => None,
        }
    };
    let lists = join_all(about.lists.iter().map(|question| async move {
        timeout_at(deadline, listed(look_ups, question)).await.unwrap_or_else(|_| {
            look_ups.note_trouble(&question.list.list.zone, "no answer in time");
            None
        })
    }));
    let (name, ident, lists) = join3(name, ident, lists).await;
    Found { name, ident, listed: lists.into_iter().flatten().collect() }
}

/// A name whose addresses have the one that it is the name of: only its owner can make both ends agree.
async fn reverse_name(questions: &Questions, address: IpAddr) -> ReverseName {
    let root = if address.is_ipv4() { "in-addr.arpa" } else { "ip6.arpa" };
    let names = match questions.pointers(&format!("{}.{root}", reversed(address))).await {
        Ok(answer) => answer.records,
        Err(Lack::Name | Lack::Type) => return ReverseName::Missing,
        Err(Lack::Trouble(_)) => return ReverseName::Unknown,
    };
    let mut is_certain = true;
    for name in names.iter().take(NAMES_MAX).filter(|name| message::Domain::parse(name).is_ok()) {
        match questions.addresses(name).await {
            Ok(answer) if answer.records.iter().any(|ip| ip.to_canonical() == address) => {
                return ReverseName::Is(name.as_str().into());
            }
            Ok(_) | Err(Lack::Name | Lack::Type) => {}
            Err(Lack::Trouble(_)) => is_certain = false,
        }
    }
    if is_certain { ReverseName::Missing } else { ReverseName::Unknown }
}

/// The words are asked for only if it is listed and the operator has none.
async fn listed(look_ups: &LookUps, question: &ListQuestion) -> Option<Listed> {
    let list = &question.list.list;
    match look_ups.questions.ipv4_addresses(&question.name).await {
        Ok(answer) if answer.records.iter().any(|ip| list.means_listed(*ip)) => {}
        Ok(answer) => {
            let what = format!("it answers {:?}, which means nothing to us", answer.records);
            look_ups.note_trouble(&list.zone, &what);
            return None;
        }
        Err(Lack::Name | Lack::Type) => return None,
        Err(Lack::Trouble(what)) => {
            look_ups.note_trouble(&list.zone, &what);
            return None;
        }
    }
    let text = match &list.text {
        Some(_) => None,
        None => look_ups
            .questions
            .texts(&question.name)
            .await
            .ok()
            .and_then(|answer| sayable(answer.records.first()?)),
    };
    Some(Listed { list: Arc::clone(&question.list), text })
}

/// Printable ASCII; what is not is a question mark.
fn sayable(octets: &[u8]) -> Option<Arc<str>> {
    let plain = octets.iter().take(TEXT_MAX);
    let text: String =
        plain.map(|octet| if (b' '..=b'~').contains(octet) { char::from(*octet) } else { '?' }).collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.into())
}

async fn ident(ports: IdentPorts, port: u16) -> Option<Arc<str>> {
    timeout(IDENT_MAX, async {
        let reply = ask_ident(ports, port).await.ok()?;
        parse_ident(&reply, ports.theirs.port(), ports.ours.port())
    })
    .await
    .ok()
    .flatten()
}

/// From the address that the client is connected to, as RFC 1413 §2 has it.
async fn ask_ident(ports: IdentPorts, port: u16) -> std::io::Result<Vec<u8>> {
    let socket = if ports.theirs.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(ports.ours.ip().to_canonical(), 0))?;
    let mut stream = socket.connect(SocketAddr::new(ports.theirs.ip(), port)).await?;
    let query = format!("{}, {}\r\n", ports.theirs.port(), ports.ours.port());
    stream.write_all(query.as_bytes()).await?;
    let mut reply = Vec::new();
    let mut some = [0; 256];
    while reply.len() < IDENT_REPLY_MAX && !reply.contains(&b'\n') {
        match stream.read(&mut some).await? {
            0 => break,
            len => reply.extend_from_slice(&some[..len]),
        }
    }
    reply.truncate(IDENT_REPLY_MAX);
    Ok(reply)
}

/// `6193, 23 : USERID : UNIX : stjohns` (RFC 1413 §4). Letters, digits and `-_.+=/@` of the user are kept, others are
/// question marks: it stands in a trace field.
fn parse_ident(reply: &[u8], their_port: u16, our_port: u16) -> Option<Arc<str>> {
    let line = reply.split(|octet| matches!(octet, b'\r' | b'\n')).next()?;
    let mut parts = line.splitn(4, |octet| *octet == b':');
    let ports = std::str::from_utf8(parts.next()?).ok()?;
    let (theirs, ours) = ports.split_once(',')?;
    let is_ours = theirs.trim().parse() == Ok(their_port) && ours.trim().parse() == Ok(our_port);
    let is_user = parts.next()?.trim_ascii().eq_ignore_ascii_case(b"USERID");
    let user = parts.nth(1)?.trim_ascii();
    if !is_ours || !is_user || user.is_empty() {
        return None;
    }
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.+=/@".contains(&octet);
    let kept = user.iter().take(IDENT_MAX_LEN);
    Some(kept.map(|octet| if is_plain(*octet) { char::from(*octet) } else { '?' }).collect::<String>().into())
}

/// A user is at most 64 octets of what a trace field may hold.
pub fn fuzz_ident(bytes: &[u8]) {
    if let Some(user) = parse_ident(bytes, 6193, 23) {
        assert!((1..=IDENT_MAX_LEN).contains(&user.len()));
        assert!(user.bytes().all(|octet| octet.is_ascii_graphic() && !b"()\\\"<>:".contains(&octet)));
    }
    assert!(
        sayable(bytes)
            .is_none_or(|text| text.len() <= TEXT_MAX && text.bytes().all(|o| (b' '..=b'~').contains(&o)))
    );
}
