//! A name server that counts: it lets questions gather, and answers when no more come.
//!
//! So what it has at a time is what a client sends without waiting for answers. A question that is repeated while it
//! waits is the same one.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

pub const A: u16 = 1;
pub const MX: u16 = 15;
pub const TXT: u16 = 16;
pub const AAAA: u16 = 28;

/// Without a question for so long, the gathered ones are answered.
const QUIET: Duration = Duration::from_millis(5);

/// What is said to a question.
#[derive(Clone, Debug)]
pub enum Said {
    /// The records' data, of the type that was asked for.
    Records(Vec<Vec<u8>>),
    NoData,
    NoName,
    ServFail,
    Silence,
}

impl Said {
    pub fn addresses(addresses: &[[u8; 4]]) -> Said {
        Said::Records(addresses.iter().map(|address| address.to_vec()).collect())
    }

    pub fn exchanges(exchanges: &[(u16, &str)]) -> Said {
        let record =
            |(preference, host): &(u16, &str)| [&preference.to_be_bytes()[..], &wire_name(host)].concat();
        Said::Records(exchanges.iter().map(record).collect())
    }

    pub fn text(text: &str) -> Said {
        // Strings of a record have a length of one octet.
        let strings = text.as_bytes().chunks(255);
        let string = |string: &[u8]| [&[u8::try_from(string.len()).expect("at most 255")], string].concat();
        Said::Records(vec![strings.flat_map(string).collect()])
    }
}

/// What was asked.
#[derive(Debug, Default)]
struct Counts {
    asked: HashMap<(String, u16), usize>,
    most_at_a_time: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Names {
    pub address: SocketAddr,
    counts: Arc<Mutex<Counts>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Names {
    /// `say` is asked for (name in lower case without the last dot, type).
    pub fn start(say: impl Fn(&str, u16) -> Said + Send + 'static) -> Names {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        socket.set_read_timeout(Some(QUIET)).expect("a socket of ours");
        let address = socket.local_addr().expect("it is bound");
        let (counts, is_over) = (Arc::new(Mutex::new(Counts::default())), Arc::new(AtomicBool::new(false)));
        let (own_counts, own_over) = (Arc::clone(&counts), Arc::clone(&is_over));
        let serve = move || {
            while !own_over.load(Ordering::SeqCst) {
                round(&socket, &own_counts, &say);
            }
        };
        let thread = Some(std::thread::spawn(serve));
        Names { address, counts, is_over, thread }
    }

    /// How often that was asked.
    pub fn asked(&self, name: &str, kind: u16) -> usize {
        let counts = self.counts.lock().expect("no test panics in it");
        counts.asked.get(&(name.to_owned(), kind)).copied().unwrap_or(0)
    }

    /// Different questions that were there at once, at most.
    pub fn most_at_a_time(&self) -> usize {
        self.counts.lock().expect("no test panics in it").most_at_a_time
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn round(socket: &UdpSocket, counts: &Mutex<Counts>, say: &impl Fn(&str, u16) -> Said) {
    let mut gathered = Vec::new();
    let mut buffer = [0; 2048];
    while let Ok((len, from)) = socket.recv_from(&mut buffer) {
        let question = buffer[..len].to_vec();
        if let Some((name, kind, end)) = read(&question) {
            gathered.push((name, kind, end, question, from));
        }
    }
    let different: HashSet<(&str, u16)> =
        gathered.iter().map(|(name, kind, ..)| (name.as_str(), *kind)).collect();
    {
        let mut counts = counts.lock().expect("no test panics in it");
        counts.most_at_a_time = counts.most_at_a_time.max(different.len());
        for (name, kind) in different {
            *counts.asked.entry((name.to_owned(), kind)).or_default() += 1;
        }
    }
    for (name, kind, end, question, from) in &gathered {
        if let Some(reply) = reply(question, *end, *kind, &say(name, *kind)) {
            let _ = socket.send_to(&reply, from);
        }
    }
}

/// The question's name and type, and where it ends.
fn read(packet: &[u8]) -> Option<(String, u16, usize)> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let len = usize::from(*packet.get(at)?);
        at += 1;
        if len == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(packet.get(at..at + len)?).to_lowercase());
        at += len;
    }
    let kind = u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]);
    Some((labels.join("."), kind, at + 4))
}

fn reply(question: &[u8], end: usize, kind: u16, said: &Said) -> Option<Vec<u8>> {
    let (code, records): (u8, &[Vec<u8>]) = match said {
        Said::Records(records) => (0, records),
        Said::NoData => (0, &[]),
        Said::NoName => (3, &[]),
        Said::ServFail => (2, &[]),
        Said::Silence => return None,
    };
    let answers = u16::try_from(records.len()).expect("few records").to_be_bytes();
    let authorities = u8::from(matches!(said, Said::NoData | Said::NoName));
    let mut reply = vec![question[0], question[1], 0x81, 0x80 | code, 0, 1];
    reply.extend([answers[0], answers[1], 0, authorities, 0, 0]);
    reply.extend(&question[12..end]);
    for data in records {
        push_record(&mut reply, &[0xc0, 12], kind, data);
    }
    if authorities == 1 {
        // Denials hold for 300 seconds.
        let soa = [&[0, 0][..], &[0; 16], &300_u32.to_be_bytes()].concat();
        push_record(&mut reply, &[0], 6, &soa);
    }
    Some(reply)
}

fn push_record(reply: &mut Vec<u8>, owner: &[u8], kind: u16, data: &[u8]) {
    reply.extend(owner);
    reply.extend(kind.to_be_bytes());
    reply.extend([0, 1]);
    reply.extend(300_u32.to_be_bytes());
    reply.extend(u16::try_from(data.len()).expect("short data").to_be_bytes());
    reply.extend(data);
}

fn wire_name(name: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        wire.push(u8::try_from(label.len()).expect("a short label"));
        wire.extend(label.as_bytes());
    }
    wire.push(0);
    wire
}
