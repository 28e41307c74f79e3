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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::List;
    use crate::config::{DnsList, ListKind, ListOn, parse};
    use proptest::prelude::*;
    use std::collections::HashMap;
    use tokio::net::{TcpListener, UdpSocket};

    const PTR: u16 = 12;
    const TXT: u16 = 16;
    const A: u16 = 1;

    /// Names in lower case with their dots, and data; a name that is not there does not exist, and one without data gets
    /// no answer at all.
    type Zone = HashMap<(&'static str, u16), Vec<Vec<u8>>>;

    /// Answers every question from the zone.
    async fn name_server(zone: Zone) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut query = [0; 1500];
            while let Ok((len, client)) = socket.recv_from(&mut query).await {
                if let Some(reply) = reply(&query[..len], &zone) {
                    let _ = socket.send_to(&reply, client).await;
                }
            }
        });
        address
    }

    fn reply(query: &[u8], zone: &Zone) -> Option<Vec<u8>> {
        let (mut at, mut name) = (12, String::new());
        while query[at] != 0 {
            let len = usize::from(query[at]);
            name.push_str(std::str::from_utf8(&query[at + 1..=at + len]).unwrap());
            name.push('.');
            at += len + 1;
        }
        let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
        let name = name.to_lowercase();
        let records = zone.get(&(name.as_str(), kind));
        if records.is_some_and(Vec::is_empty) {
            return None;
        }
        let exists = zone.keys().any(|(other, _)| *other == name);
        let count = u8::try_from(records.map_or(0, Vec::len)).unwrap();
        let code = if exists { 0 } else { 3 };
        let mut out =
            [&query[..2], &[0x85, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0], &query[12..at + 5]].concat();
        for data in records.into_iter().flatten() {
            let len = u16::try_from(data.len()).unwrap().to_be_bytes();
            out.extend([&[0xc0, 12][..], &kind.to_be_bytes(), &[0, 1, 0, 0, 1, 0], &len, data].concat());
        }
        Some(out)
    }

    fn name_data(name: &str) -> Vec<u8> {
        let labels = name
            .split('.')
            .flat_map(|label| [&[u8::try_from(label.len()).unwrap()][..], label.as_bytes()].concat());
        labels.chain([0]).collect()
    }

    fn text_data(text: &[u8]) -> Vec<u8> {
        [&[u8::try_from(text.len()).unwrap()][..], text].concat()
    }

    async fn asking(zone: Zone) -> LookUps {
        let server = name_server(zone).await;
        let text = format!(
            "host_name = \"h.test\"\nqueue = \"q\"\n[delivery]\nname_servers = [\"{server}\"]\n[tls]\ndane = false"
        );
        LookUps::new(&Settings::new(parse(&text, "f").unwrap(), &[0; 32])).unwrap()
    }

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
    }

    fn about(address: &str) -> LookUp {
        LookUp { address: address.parse().unwrap(), wants_name: true, ident: None, lists: Vec::new() }
    }

    fn question(name: &str, zone: &str) -> ListQuestion {
        let list = DnsList {
            zone: zone.to_owned(),
            kind: ListKind::Block,
            on: ListOn::Address,
            answers: Vec::new(),
            weight: 1,
            text: None,
        };
        ListQuestion { list: Arc::new(List { name: name.into(), list }), name: format!("1.2.0.192.{zone}") }
    }

    #[test]
    fn a_name_counts_if_it_leads_back() {
        run(async {
            let zone = Zone::from([
                (
                    ("1.2.0.192.in-addr.arpa.", PTR),
                    vec![name_data("liar.test"), name_data("Mail.Example.test")],
                ),
                (("2.2.0.192.in-addr.arpa.", PTR), vec![name_data("liar.test")]),
                (("liar.test.", A), vec![vec![203, 0, 113, 1]]),
                (("mail.example.test.", A), vec![vec![192, 0, 2, 9], vec![192, 0, 2, 1]]),
            ]);
            let look_ups = asking(zone).await;
            let name = async |address| look_up(&look_ups, about(address)).await.name;
            assert_eq!(name("192.0.2.1").await, ReverseName::Is("mail.example.test".into()));
            assert_eq!(name("192.0.2.2").await, ReverseName::Missing, "it leads elsewhere");
            assert_eq!(name("192.0.2.3").await, ReverseName::Missing);
            assert_eq!(name("2001:db8::1").await, ReverseName::Missing);
        });
    }

    #[test]
    fn lists_are_asked_at_once_and_their_words_are_made_sayable() {
        run(async {
            let zone = Zone::from([
                (("1.2.0.192.zen.test.", A), vec![vec![127, 0, 0, 2]]),
                (("1.2.0.192.zen.test.", TXT), vec![text_data("see\r\n550 zen\u{e9}".as_bytes())]),
                (("1.2.0.192.error.test.", A), vec![vec![127, 255, 255, 254]]),
                (("1.2.0.192.silent-words.test.", A), vec![vec![127, 0, 0, 9]]),
            ]);
            let look_ups = asking(zone).await;
            let lists =
                ["zen", "error", "none", "silent-words"].map(|name| question(name, &format!("{name}.test")));
            let found =
                look_up(&look_ups, LookUp { wants_name: false, lists: lists.into(), ..about("192.0.2.1") })
                    .await;
            let listed: Vec<(&str, Option<&str>)> =
                found.listed.iter().map(|listed| (&*listed.list.name, listed.text.as_deref())).collect();
            assert_eq!(listed, [("zen", Some("see??550 zen??")), ("silent-words", None)]);
            assert_eq!(found.name, ReverseName::Unknown, "it was not wanted");
        });
    }

    #[test]
    fn a_list_that_does_not_answer_lists_nobody_and_holds_up_no_other() {
        run(async {
            let zone = Zone::from([
                (("1.2.0.192.zen.test.", A), vec![vec![127, 0, 0, 2]]),
                (("1.2.0.192.zen.test.", TXT), vec![text_data(b"listed")]),
                (("1.2.0.192.dead.test.", A), vec![]),
            ]);
            let look_ups = asking(zone).await;
            let lists = vec![question("dead", "dead.test"), question("zen", "zen.test")];
            let found = look_up(&look_ups, LookUp { wants_name: false, lists, ..about("192.0.2.1") }).await;
            let listed: Vec<&str> = found.listed.iter().map(|listed| &*listed.list.name).collect();
            assert_eq!(listed, ["zen"]);
            assert!(look_ups.complained.get().is_some(), "an operator hears of it");
        });
    }

    #[test]
    fn ident_is_asked_from_our_end_and_believed_for_its_ports_alone() {
        run(async {
            let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = service.local_addr().unwrap().port();
            let serving = tokio::spawn(async move {
                for reply in ["40000, 25 : USERID : UNIX : ann(x)\r\n", "40001, 25 : USERID : UNIX : ann\r\n"]
                {
                    let (mut stream, peer) = service.accept().await.unwrap();
                    let mut query = [0; 64];
                    let len = stream.read(&mut query).await.unwrap();
                    assert_eq!(
                        (&query[..len], peer.ip()),
                        (&b"40000, 25\r\n"[..], IpAddr::from([127, 0, 0, 2]))
                    );
                    stream.write_all(reply.as_bytes()).await.unwrap();
                }
            });
            let ports = IdentPorts {
                ours: "127.0.0.2:25".parse().unwrap(),
                theirs: "127.0.0.1:40000".parse().unwrap(),
            };
            let mut look_ups = asking(Zone::new()).await;
            look_ups.ident_port = port;
            let about = LookUp { wants_name: false, ident: Some(ports), ..about("127.0.0.1") };
            assert_eq!(look_up(&look_ups, about.clone()).await.ident.as_deref(), Some("ann?x?"));
            assert_eq!(look_up(&look_ups, about.clone()).await.ident, None, "another connection's");
            serving.await.unwrap();
            assert_eq!(look_up(&look_ups, about).await.ident, None, "nobody listens any more");
        });
    }

    #[test]
    fn ident_replies_are_read_as_they_are_meant() {
        let user = |reply: &str| parse_ident(reply.as_bytes(), 6193, 23);
        assert_eq!(user("6193, 23 : USERID : UNIX : stjohns\r\n").as_deref(), Some("stjohns"));
        assert_eq!(user("6193,23:userid:UNIX,US-ASCII:a:b").as_deref(), Some("a?b"));
        assert_eq!(user(&format!("6193,23:USERID:X:{}", "a".repeat(200))).unwrap().len(), IDENT_MAX_LEN);
        for reply in [
            "",
            "6193, 23 : ERROR : NO-USER",
            "6193, 24 : USERID : UNIX : ann",
            "6193, 23 : USERID : UNIX :  \r\n",
            "x",
        ] {
            assert_eq!(user(reply), None, "{reply}");
        }
    }

    proptest! {
        #[test]
        fn any_reply_is_a_user_or_nothing(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
            text in "6193 ?, ?23 ?: ?USERID ?:[a-z]{0,3}:\\PC{0,90}",
        ) {
            fuzz_ident(&bytes);
            fuzz_ident(text.as_bytes());
        }
    }
}
