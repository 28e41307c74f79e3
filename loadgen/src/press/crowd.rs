//! Many connections that stay: they greet and then idle, or say one octet at a time.
//!
//! Each ends in one of three ways: refused before it could stay, cut by the server (with what the server said), or
//! alive when the run is over; an idle one is alive only if it then answers NOOP with 250. Bounds: those of `press`;
//! `OPENING_MAX` connections are opened at a time, `CUTS_MAX` are told of one by one.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::reasons::{Reasons, Spread, reason_of};
use super::{PressError, block_on, check, source_of};
use crate::client::{Caller, Introduction, Line, Reply, last_words};
use crate::stop::Stop;

const OPENING_MAX: usize = 64;
const CUTS_MAX: usize = 1000;
const EVENTS_MAX: usize = 1024;
const CHUNK_LEN: u64 = 16 << 20; // more than any drip lives to say

/// What is said one octet at a time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Drip {
    /// One command that never ends.
    Command,
    /// Whole commands, one after the other: each is answered.
    Commands,
    /// Content after DATA.
    Data,
    /// Content of a chunk.
    Bdat,
    /// A TLS record in place of the handshake.
    Handshake,
}

/// What a connection does once it is open.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stay {
    /// Nothing, after EHLO.
    Idle,
    Drip {
        of: Drip,
        every: Duration,
    },
}

#[derive(Clone, Debug)]
pub struct CrowdConfig {
    pub introduction: Introduction,
    /// They take turns; empty leaves it to the kernel.
    pub sources: Vec<IpAddr>,
    pub connections: usize,
    pub stay: Stay,
    /// From when all are open, or were refused.
    pub hold: Duration,
    /// Whom content is for, without brackets.
    pub recipient: String,
}

impl CrowdConfig {
    pub fn new(introduction: Introduction, connections: usize, stay: Stay) -> CrowdConfig {
        CrowdConfig {
            introduction,
            sources: Vec::new(),
            connections,
            stay,
            hold: Duration::from_secs(60),
            recipient: "u000000@d001.test".into(),
        }
    }
}

/// One that the server cut.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cut {
    /// Since it was open.
    pub after_secs: f64,
    /// Of its drip.
    pub octets: u64,
    /// The last 4xx or 5xx, or how the connection ended without one.
    pub said: String,
}

/// What became of a crowd: `refused`, `cut` and `alive` are all there were.
#[derive(Clone, Debug, Serialize)]
pub struct CrowdReport {
    pub connections: usize,
    /// Never got as far as staying, and why.
    pub refused: Reasons,
    pub alive: u64,
    pub cut: u64,
    /// To those that were cut.
    pub said: Reasons,
    pub cut_after_secs: Option<Spread>,
    /// Of the drips that were cut.
    pub cut_after_octets: Option<Spread>,
    /// The first thousand that were cut.
    pub cuts: Vec<Cut>,
    /// Until all were open or refused.
    pub opened_secs: f64,
    pub held_secs: f64,
}

enum Event {
    Opened,
    Refused(String),
    Cut(Cut),
    Alive,
}

/// Blocks until the crowd has been held as long as asked, all of it is gone, or `stop`; `held` is called with the
/// number that are open once that is known of all.
pub fn run(config: &CrowdConfig, stop: &Stop, held: impl FnOnce(u64)) -> Result<CrowdReport, PressError> {
    check(&config.sources, config.connections, config.hold)?;
    let caller = Arc::new(Caller::new(&config.introduction)?);
    block_on(gather(config, caller, stop, held))
}

async fn gather(
    config: &CrowdConfig,
    caller: Arc<Caller>,
    stop: &Stop,
    held: impl FnOnce(u64),
) -> CrowdReport {
    let (start, over) = (Instant::now(), watch::Sender::new(false));
    let (mut heard, mut books) = (invite(config, &caller, &over), Books::default());
    let mut stopped = stop.subscribe();
    let mut asked = std::pin::pin!(stopped.wait_for(|stopped| *stopped));
    let mut is_asked = false;
    while !is_asked && books.settled() < config.connections {
        tokio::select! {
            Some(event) = heard.recv() => books.note(event),
            _ = &mut asked => is_asked = true,
        }
    }
    let opened = start.elapsed();
    held(books.open());
    let mut hold = std::pin::pin!(tokio::time::sleep(config.hold));
    while !is_asked && books.open() > 0 {
        tokio::select! {
            Some(event) = heard.recv() => books.note(event),
            () = &mut hold => break,
            _ = &mut asked => is_asked = true,
        }
    }
    let held_secs = start.elapsed().saturating_sub(opened).as_secs_f64();
    over.send_replace(true);
    while let Some(event) = heard.recv().await {
        books.note(event);
    }
    books.report(config.connections, opened.as_secs_f64(), held_secs)
}

/// Sends all of them on their way; what becomes of them is heard until none is left.
fn invite(config: &CrowdConfig, caller: &Arc<Caller>, over: &watch::Sender<bool>) -> mpsc::Receiver<Event> {
    let (opening, (events, heard)) = (Arc::new(Semaphore::new(OPENING_MAX)), mpsc::channel(EVENTS_MAX));
    for number in 0..config.connections {
        let guest = Guest {
            caller: caller.clone(),
            source: source_of(&config.sources, number),
            stay: config.stay,
            recipient: config.recipient.clone(),
            events: events.clone(),
            over: over.subscribe(),
        };
        tokio::spawn(guest.visit(opening.clone()));
    }
    heard
}

#[derive(Default)]
struct Books {
    opened: usize,
    refused: Reasons,
    alive: u64,
    cuts: Vec<Cut>,
}

impl Books {
    fn note(&mut self, event: Event) {
        match event {
            Event::Opened => self.opened += 1,
            Event::Refused(why) => self.refused.add(why),
            Event::Cut(cut) => self.cuts.push(cut),
            Event::Alive => self.alive += 1,
        }
    }

    /// Open at some time, or refused.
    fn settled(&self) -> usize {
        self.opened + usize::try_from(self.refused.count()).unwrap_or(usize::MAX)
    }

    fn open(&self) -> u64 {
        (self.opened - self.cuts.len()) as u64
    }

    fn report(mut self, connections: usize, opened_secs: f64, held_secs: f64) -> CrowdReport {
        let mut said = Reasons::default();
        self.cuts.iter().for_each(|cut| said.add(cut.said.clone()));
        #[allow(clippy::cast_precision_loss, reason = "octets that a drip lived to say are few")]
        let octets = Spread::of(self.cuts.iter().map(|cut| cut.octets as f64));
        let cut_after_secs = Spread::of(self.cuts.iter().map(|cut| cut.after_secs));
        let cut = self.cuts.len() as u64;
        self.cuts.truncate(CUTS_MAX);
        CrowdReport {
            connections,
            refused: self.refused,
            alive: self.alive,
            cut,
            said,
            cut_after_secs,
            cut_after_octets: octets.filter(|octets| octets.max > 0.0),
            cuts: self.cuts,
            opened_secs,
            held_secs,
        }
    }
}

/// One connection of the crowd.
struct Guest {
    caller: Arc<Caller>,
    source: Option<IpAddr>,
    stay: Stay,
    recipient: String,
    events: mpsc::Sender<Event>,
    over: watch::Receiver<bool>,
}

impl Guest {
    async fn visit(mut self, opening: Arc<Semaphore>) {
        let line = {
            let _place = opening.acquire().await;
            self.open().await
        };
        let end = match line {
            Ok(Ok(line)) => {
                self.tell(Event::Opened).await;
                self.stay_on(line).await
            }
            Ok(Err(reply)) => Event::Refused(reply.text),
            Err(error) => Event::Refused(reason_of(&error)),
        };
        self.tell(end).await;
    }

    async fn tell(&self, event: Event) {
        let _ = self.events.send(event).await; // nobody listens once the run is over
    }

    async fn open(&self) -> std::io::Result<Result<Line, Reply>> {
        if matches!(self.stay, Stay::Drip { of: Drip::Handshake, .. }) {
            return self.caller.call_until_tls(self.source).await;
        }
        let mut line = match self.caller.call(self.source).await? {
            Ok((line, _)) => line,
            Err(reply) => return Ok(Err(reply)),
        };
        for (command, expected) in prelude(self.stay, &self.recipient) {
            let reply = line.ask(command.as_bytes()).await?;
            if reply.code != expected {
                return Ok(Err(reply));
            }
        }
        if let Stay::Drip { of: Drip::Bdat, .. } = self.stay {
            line.send(format!("BDAT {CHUNK_LEN} LAST\r\n").as_bytes()).await?;
        }
        Ok(Ok(line))
    }

    async fn stay_on(&mut self, mut line: Line) -> Event {
        let (opened, mut octets) = (Instant::now(), 0);
        let mut drip = match self.stay {
            Stay::Idle => None,
            Stay::Drip { of, every } => Some((of, clock(every))),
        };
        loop {
            tokio::select! {
                heard = line.hear() => match heard {
                    Ok(1..) => line.forget_all_but_the_end(),
                    end => return cut(opened, octets, said(&line, &end)),
                },
                octet = next_octet(&mut drip, octets) => match line.send(&[octet]).await {
                    Ok(()) => octets += 1,
                    Err(_) => drip = None, // what was said about it is still to be heard
                },
                _ = self.over.changed() => break,
            }
        }
        match self.stay {
            Stay::Drip { .. } => Event::Alive,
            Stay::Idle => match line.ask(b"NOOP\r\n").await {
                Ok(reply) if reply.code == 250 => Event::Alive,
                Ok(reply) => cut(opened, 0, reply.text),
                Err(error) => cut(opened, 0, reason_of(&error)),
            },
        }
    }
}

fn cut(opened: Instant, octets: u64, said: String) -> Event {
    Event::Cut(Cut { after_secs: opened.elapsed().as_secs_f64(), octets, said })
}

/// The commands before the drip, and the code that each needs.
fn prelude(stay: Stay, recipient: &str) -> Vec<(String, u16)> {
    let Stay::Drip { of, .. } = stay else { return Vec::new() };
    let transaction = [("MAIL FROM:<>\r\n".to_owned(), 250), (format!("RCPT TO:<{recipient}>\r\n"), 250)];
    match of {
        Drip::Command | Drip::Commands | Drip::Handshake => Vec::new(),
        Drip::Bdat => transaction.to_vec(),
        Drip::Data => [&transaction[..], &[("DATA\r\n".to_owned(), 354)]].concat(),
    }
}

fn clock(every: Duration) -> Interval {
    let mut interval = interval(every.max(Duration::from_millis(1)));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Waits for its time; for ever where nothing drips.
async fn next_octet(drip: &mut Option<(Drip, Interval)>, at: u64) -> u8 {
    match drip {
        None => std::future::pending().await,
        Some((of, interval)) => {
            interval.tick().await;
            octet(*of, at)
        }
    }
}

fn octet(of: Drip, at: u64) -> u8 {
    let cycle = |text: &[u8]| text[usize::try_from(at % text.len() as u64).unwrap_or(0)];
    match of {
        Drip::Command => *b"NOOP ".get(usize::try_from(at).unwrap_or(usize::MAX)).unwrap_or(&b'x'),
        Drip::Commands => cycle(b"NOOP\r\n"),
        Drip::Data | Drip::Bdat => cycle(b"X-Drip: one octet at a time\r\n"),
        // A handshake record of 16,384 octets (RFC 8446 §5.1), which never comes to its end.
        Drip::Handshake => {
            *b"\x16\x03\x01\x40\x00".get(usize::try_from(at).unwrap_or(usize::MAX)).unwrap_or(&0)
        }
    }
}

/// The server's last word if it was a refusal, else how it ended.
fn said(line: &Line, end: &std::io::Result<usize>) -> String {
    let words = last_words(line.heard());
    match end {
        _ if words.starts_with(['4', '5']) => words,
        Ok(_) => "closed without a word".into(),
        Err(error) => reason_of(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drip(of: Drip, len: u64) -> Vec<u8> {
        (0..len).map(|at| octet(of, at)).collect()
    }

    #[test]
    fn drips_are_what_they_are_called() {
        assert_eq!(drip(Drip::Command, 8), b"NOOP xxx");
        assert_eq!(drip(Drip::Commands, 8), b"NOOP\r\nNO");
        assert_eq!(drip(Drip::Handshake, 7), b"\x16\x03\x01\x40\0\0\0");
        assert!(drip(Drip::Data, 60).ends_with(b"a time\r\nX-"));
    }

    #[test]
    fn content_needs_a_transaction() {
        let every = Duration::from_secs(1);
        let codes = |of| -> Vec<u16> {
            prelude(Stay::Drip { of, every }, "a@b.test").iter().map(|(_, code)| *code).collect()
        };
        assert_eq!(codes(Drip::Data), [250, 250, 354]);
        assert_eq!(codes(Drip::Bdat), [250, 250]);
        assert!(codes(Drip::Command).is_empty() && prelude(Stay::Idle, "").is_empty());
    }
}
