//! Octets that mean nothing, from a seed: whatever comes of them, the server must answer in SMTP and still be there.
//!
//! Connections take turns with four kinds: any octets, lines of any octets, commands of which an octet in ten is
//! another, and what looks like TLS. Each says its octets, then that no more come, and hears all that is said to it.
//! The same seed says the same. Bounds: those of `press`, `OCTETS_MAX` for a connection.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::reasons::{Reasons, reason_of};
use super::{HOLD_MAX, PressError, block_on, check, source_of};
use crate::client::{Caller, Introduction, Line, Parsed, parse_reply, shown};
use crate::text::mix;

const OCTETS_MAX: usize = 16 << 20;
const AT_A_TIME: usize = 64;
const PIECE_BYTES: usize = 16 * 1024;

#[derive(Clone, Debug)]
pub struct GarbageConfig {
    pub introduction: Introduction,
    pub sources: Vec<IpAddr>,
    pub connections: usize,
    /// For each connection.
    pub octets: usize,
    pub seed: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct GarbageReport {
    pub connections: u64,
    /// Taken by the kernel, if not by the server.
    pub octets_sent: u64,
    /// By code.
    pub replies: BTreeMap<u16, u64>,
    /// Answers that are no SMTP: must be 0.
    pub not_smtp: u64,
    /// The first of them.
    pub not_smtp_said: Option<String>,
    /// How the connections ended: all should have, and not by our own time-out.
    pub ended: Reasons,
    /// Afterwards a client was greeted with 220.
    pub still_serves: bool,
}

/// Blocks until all connections have ended.
pub fn run(config: &GarbageConfig) -> Result<GarbageReport, PressError> {
    check(&config.sources, config.connections, HOLD_MAX)?;
    if config.octets > OCTETS_MAX {
        return Err(PressError::Config("at most 16 MiB for each connection"));
    }
    let caller = Arc::new(Caller::new(&config.introduction)?);
    block_on(talk_all(config, caller))
}

async fn talk_all(config: &GarbageConfig, caller: Arc<Caller>) -> GarbageReport {
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    let mut talks = JoinSet::new();
    for number in 0..config.connections {
        let (caller, places) = (caller.clone(), places.clone());
        let source = source_of(&config.sources, number);
        let octets = Octets::new(config.seed, number as u64, config.octets);
        talks.spawn(async move {
            let _place = places.acquire().await;
            talk(&caller, source, octets).await
        });
    }
    let mut report = GarbageReport::default();
    while let Some(talk) = talks.join_next().await {
        match talk {
            Ok(talk) => report.add(talk),
            Err(error) => report.ended.add(error.to_string()),
        }
    }
    report.still_serves = matches!(caller.call(None).await, Ok(Ok(_)));
    report
}

/// What one connection came to.
struct Talk {
    sent: u64,
    replies: BTreeMap<u16, u64>,
    not_smtp: Option<String>,
    end: String,
}

impl GarbageReport {
    fn add(&mut self, talk: Talk) {
        self.connections += 1;
        self.octets_sent += talk.sent;
        for (code, count) in talk.replies {
            *self.replies.entry(code).or_default() += count;
        }
        self.not_smtp += u64::from(talk.not_smtp.is_some());
        self.not_smtp_said = self.not_smtp_said.take().or(talk.not_smtp);
        self.ended.add(talk.end);
    }
}

async fn talk(caller: &Caller, source: Option<IpAddr>, octets: Octets) -> Talk {
    let mut talk = Talk { sent: 0, replies: BTreeMap::new(), not_smtp: None, end: String::new() };
    let end = say_and_hear(caller, source, octets, &mut talk).await;
    talk.end = end.map_or_else(|error| reason_of(&error), str::to_owned);
    talk
}

async fn say_and_hear(
    caller: &Caller,
    source: Option<IpAddr>,
    octets: Octets,
    talk: &mut Talk,
) -> io::Result<&'static str> {
    let mut line = caller.connect(source).await?;
    let mut octets = octets.peekable();
    while octets.peek().is_some() {
        let piece: Vec<u8> = octets.by_ref().take(PIECE_BYTES).collect();
        // A server that has had enough stops reading; what it said about that is still to be heard.
        if line.send(&piece).await.is_err() {
            break;
        }
        talk.sent += piece.len() as u64;
        // Or each would wait for the other to read.
        while let Ok(heard) = timeout(Duration::ZERO, line.hear()).await {
            if let Some(end) = note(heard?, &mut line, talk) {
                return Ok(end);
            }
        }
    }
    let _ = line.finish().await; // the server may be faster, and gone
    loop {
        let heard = timeout(caller.introduction.reply_timeout, line.hear()).await??;
        if let Some(end) = note(heard, &mut line, talk) {
            return Ok(end);
        }
    }
}

/// Some once it is over.
fn note(heard: usize, line: &mut Line, talk: &mut Talk) -> Option<&'static str> {
    match (take_replies(line, talk), heard) {
        (true, _) => Some("not SMTP"),
        (false, 0) => Some("closed"),
        (false, _) => None,
    }
}

/// True once something was no reply.
fn take_replies(line: &mut Line, talk: &mut Talk) -> bool {
    loop {
        match parse_reply(line.heard()) {
            Parsed::Reply { code, len } => {
                *talk.replies.entry(code).or_default() += 1;
                line.take(len);
            }
            Parsed::Partial => return false,
            Parsed::NotSmtp => {
                talk.not_smtp = Some(shown(line.heard()));
                return true;
            }
        }
    }
}

const COMMANDS: &[u8] =
    b"EHLO a.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nBDAT 3\r\na\r\nDATA\r\nx\r\n.\r\nRSET\r\nVRFY x\r\nAUTH PLAIN AGEAYg==\r\nSTARTTLS\r\nBDAT 0 LAST\r\n";

/// The octets of one connection.
struct Octets {
    state: u64,
    kind: u64,
    at: usize,
    len: usize,
}

impl Octets {
    fn new(seed: u64, number: u64, len: usize) -> Octets {
        Octets { state: mix(seed ^ mix(number)), kind: number % 4, at: 0, len }
    }
}

impl Iterator for Octets {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        if self.at == self.len {
            return None;
        }
        self.state = mix(self.state);
        let [any, dice, ..] = self.state.to_le_bytes();
        let octet = match (self.kind, dice) {
            (1, 0..8) => b'\n',
            (1, 8..12) => b'\r',
            (2, 26..) => COMMANDS[self.at % COMMANDS.len()],
            (3, _) => *b"\x16\x03\x01\x02\x00\x01".get(self.at).unwrap_or(&any),
            _ => any,
        };
        self.at += 1;
        Some(octet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_says_the_same() {
        for number in 0..4 {
            let said = |seed| Octets::new(seed, number, 500).collect::<Vec<u8>>();
            assert_eq!(said(1), said(1));
            assert_ne!(said(1), said(2));
            assert_eq!(said(1).len(), 500);
        }
    }

    #[test]
    fn spoiled_commands_are_mostly_commands() {
        let said: Vec<u8> = Octets::new(1, 2, 10_000).collect();
        let same = said.iter().zip(COMMANDS.iter().cycle()).filter(|(a, b)| a == b).count();
        assert!((8500..9500).contains(&same), "{same}");
    }
}
