//! Sessions against a host that is a model of SMTP and does, within it, what it likes: refuses, keeps state that
//! it should have cleared, hangs up, cuts its replies anywhere.
//!
//! Known after each run: every recipient has exactly one verdict or its transaction was returned exactly once;
//! what was reported delivered was delivered and nothing else of it; and no content ever went out under the
//! reverse-path of another transaction. One run in four goes through TLS. A failure prints its seed; `seed_repeats` runs one alone, PROPTEST_CASES=100000 runs many.

// A test may panic, and its numbers are small.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod tls_host;

use message::{ContentFacts, MailboxRef, Verdict};
use proptest::prelude::*;
use rustls::ServerConfig;
use smtp_out::{
    Config, Flight, FlightPiece, Habits, Link, Offered, Output, Session, Timeouts, TlsClient, TlsPolicy,
    Transaction,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tls_host::TlsHost;

/// xorshift64*: the same run for the same seed on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides
    }

    fn one_in(&mut self, sides: u64) -> bool {
        sides != 0 && self.roll(sides) == 0
    }
}

/// How bad a host is. Each number is "once in so many", 0 is never.
#[derive(Debug)]
struct Temper {
    pipelining: bool,
    chunking: bool,
    refuses: u64,
    hangs_up: u64,
    closes: u64,
    /// Says anything at all instead of what it did.
    lies: u64,
    keeps_failed_transactions: bool,
    data_without_recipients: bool,
}

impl Temper {
    fn of(dice: &mut Dice) -> Temper {
        Temper {
            pipelining: !dice.one_in(4),
            chunking: dice.one_in(2),
            refuses: [0, 3, 8, 40][dice.roll(4) as usize],
            hangs_up: [0, 0, 60][dice.roll(3) as usize],
            closes: [0, 0, 60][dice.roll(3) as usize],
            lies: [0, 0, 0, 40][dice.roll(4) as usize],
            keeps_failed_transactions: dice.one_in(2),
            data_without_recipients: dice.one_in(2),
        }
    }
}

enum Mode {
    Commands,
    Data(Vec<u8>),
    Chunk(usize),
}

/// A transaction as the host got it.
struct Delivery {
    reverse_path: String,
    recipients: Vec<String>,
    content: Vec<u8>,
}

struct Host {
    temper: Temper,
    mode: Mode,
    input: Vec<u8>,
    replies: Vec<u8>,
    reverse_path: Option<String>,
    recipients: Vec<String>,
    deliveries: Vec<Delivery>,
    has_hung_up: bool,
    has_lied: bool,
}

impl Host {
    fn new(temper: Temper) -> Host {
        Host {
            temper,
            mode: Mode::Commands,
            input: Vec::new(),
            replies: b"220 host\r\n".to_vec(),
            reverse_path: None,
            recipients: Vec::new(),
            deliveries: Vec::new(),
            has_hung_up: false,
            has_lied: false,
        }
    }

    fn hear(&mut self, dice: &mut Dice, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        while !self.has_hung_up && self.step(dice) {}
    }

    /// One command, content or line of content; false if it is not whole.
    fn step(&mut self, dice: &mut Dice) -> bool {
        if let Mode::Chunk(left) = self.mode {
            return self.input.len() >= left && self.take_chunk(dice, left);
        }
        let Some(end) = self.input.windows(2).position(|pair| pair == b"\r\n") else { return false };
        let line: Vec<u8> = self.input.drain(..end + 2).collect();
        match &mut self.mode {
            Mode::Data(_) if line == b".\r\n" => self.end_data(dice),
            Mode::Data(content) => content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line)),
            Mode::Commands | Mode::Chunk(_) => self.command(dice, &String::from_utf8_lossy(&line[..end])),
        }
        true
    }

    fn say(&mut self, dice: &mut Dice, reply: &str) {
        const LIES: [&str; 9] =
            ["250 ok", "354 go", "550 no", "451 no", "503 no", "250-x\r\n250 y", "", "x", "199 a"];
        if dice.one_in(self.temper.hangs_up) {
            self.has_hung_up = true;
            return;
        }
        if dice.one_in(self.temper.closes) {
            self.replies.extend_from_slice(b"421 4.3.2 closing\r\n");
            self.has_hung_up = true;
            return;
        }
        let lies = dice.one_in(self.temper.lies);
        self.has_lied |= lies;
        let reply = if lies { LIES[dice.roll(9) as usize] } else { reply };
        self.replies.extend_from_slice(format!("{reply}\r\n").as_bytes());
    }

    fn refuses(&mut self, dice: &mut Dice) -> bool {
        dice.one_in(self.temper.refuses)
    }

    fn refusal(&mut self, dice: &mut Dice) -> &'static str {
        ["550 5.7.1 no", "451 4.3.0 later", "452-4.5.3 many\r\n452 4.5.3 many", "554 no"]
            [dice.roll(4) as usize]
    }

    fn command(&mut self, dice: &mut Dice, line: &str) {
        let (verb, rest) = line.split_at(4.min(line.len()));
        match verb {
            "EHLO" => self.say_extensions(dice),
            "HELO" => self.say(dice, "250 host"),
            "MAIL" => self.mail(dice, rest),
            "RCPT" => self.rcpt(dice, rest),
            "DATA" => self.data(dice),
            "BDAT" => {
                let len = rest.trim().strip_suffix(" LAST").expect("one chunk is all").parse().unwrap();
                self.mode = Mode::Chunk(len);
            }
            "RSET" => {
                self.clear();
                self.say(dice, "250 reset");
            }
            "QUIT" => {
                self.replies.extend_from_slice(b"221 bye\r\n");
                self.has_hung_up = true;
            }
            // Who says 354 without meaning it gets content for commands.
            _ if self.has_lied => self.say(dice, "500 5.5.2 what"),
            _ => panic!("content or nonsense was sent as a command: {line:?}"),
        }
    }

    fn say_extensions(&mut self, dice: &mut Dice) {
        let pipelining = if self.temper.pipelining { "250-PIPELINING\r\n" } else { "" };
        let chunking = if self.temper.chunking { "250-CHUNKING\r\n" } else { "" };
        self.say(dice, &format!("250-host\r\n{pipelining}{chunking}250 SIZE"));
    }

    fn mail(&mut self, dice: &mut Dice, rest: &str) {
        if self.reverse_path.is_some() {
            return self.say(dice, "503 5.5.1 nested MAIL");
        }
        if self.refuses(dice) {
            let refusal = self.refusal(dice);
            return self.say(dice, refusal);
        }
        self.reverse_path = Some(inside(rest));
        self.say(dice, "250 ok");
    }

    fn rcpt(&mut self, dice: &mut Dice, rest: &str) {
        if self.reverse_path.is_none() {
            return self.say(dice, "503 5.5.1 MAIL first");
        }
        if self.refuses(dice) {
            let refusal = self.refusal(dice);
            return self.say(dice, refusal);
        }
        self.recipients.push(inside(rest));
        self.say(dice, "250 ok");
    }

    fn data(&mut self, dice: &mut Dice) {
        let is_void = self.recipients.is_empty() && !self.temper.data_without_recipients;
        if is_void || self.refuses(dice) {
            return self.say(dice, "554 5.5.1 no valid recipients");
        }
        self.mode = Mode::Data(Vec::new());
        self.say(dice, "354 go");
    }

    fn end_data(&mut self, dice: &mut Dice) {
        let Mode::Data(content) = std::mem::replace(&mut self.mode, Mode::Commands) else { return };
        self.end(dice, content);
    }

    fn take_chunk(&mut self, dice: &mut Dice, left: usize) -> bool {
        let content: Vec<u8> = self.input.drain(..left).collect();
        self.mode = Mode::Commands;
        self.end(dice, content);
        true
    }

    fn end(&mut self, dice: &mut Dice, content: Vec<u8>) {
        if self.recipients.is_empty() || self.refuses(dice) {
            if !self.temper.keeps_failed_transactions {
                self.clear();
            }
            return self.say(dice, "554 5.5.1 not taken");
        }
        let reverse_path = self.reverse_path.take().expect("recipients come after a reverse-path");
        self.deliveries.push(Delivery {
            reverse_path,
            recipients: std::mem::take(&mut self.recipients),
            content,
        });
        self.say(dice, "250 2.0.0 queued");
    }

    fn clear(&mut self) {
        self.reverse_path = None;
        self.recipients.clear();
    }
}

fn inside(path: &str) -> String {
    path[path.find('<').unwrap() + 1..path.find('>').unwrap()].to_owned()
}

/// The engine's side: what was offered, what came back.
#[derive(Default)]
struct Engine {
    offered: BTreeMap<u32, u16>,
    contents: BTreeMap<u32, Vec<u8>>,
    verdicts: BTreeMap<(u32, u16), Verdict>,
    returned: BTreeSet<u32>,
    finished: BTreeSet<u32>,
    is_ready: bool,
    is_closed: bool,
    has_ambiguous: bool,
}

impl Engine {
    fn offer(&mut self, session: &mut Session, dice: &mut Dice) {
        let key = self.offered.len() as u32;
        let count = 1 + if dice.one_in(3) { dice.roll(4) as u16 } else { 0 };
        let reverse_path = format!("s{key}@a.example");
        let names: Vec<String> = (0..count).map(|index| format!("r{key}-{index}")).collect();
        let recipients: Vec<_> =
            names.iter().map(|name| MailboxRef { local_part: name, domain: "b.example" }).collect();
        let tail = ["", ".\r\n", "\r\n.x\r\nRCPT TO:<x>\r\n", "no end"][dice.roll(4) as usize];
        let content = format!("message {key}\r\n{tail}").into_bytes();
        let transaction = Transaction {
            key,
            reverse_path: &reverse_path,
            recipients: &recipients,
            content_len: content.len() as u64,
            facts: ContentFacts::of(&content),
            smtputf8: false,
            requires_tls: false,
            asked: None,
        };
        assert_eq!(session.offer(&transaction), Offered::Taken);
        self.offered.insert(key, count);
        self.contents.insert(key, content);
    }

    fn drain(&mut self, session: &mut Session) {
        while let Some(output) = session.poll_output() {
            assert!(!self.is_closed, "{output:?} after Closed");
            match output {
                Output::Protection(_) | Output::Trace { .. } => {}
                Output::Ready => assert!(!std::mem::replace(&mut self.is_ready, true)),
                Output::Verdict { key, recipient, verdict, .. } => {
                    assert!(!self.finished.contains(&key) && !self.returned.contains(&key));
                    assert!(self.verdicts.insert((key, recipient), verdict).is_none(), "two verdicts");
                }
                Output::Finished { key, ambiguous } => {
                    self.has_ambiguous |= ambiguous;
                    assert!(self.finished.insert(key));
                }
                Output::Returned { key } => assert!(self.returned.insert(key)),
                Output::Closed { .. } => self.is_closed = true,
            }
        }
    }

    fn render(&self, flight: &Flight) -> Vec<u8> {
        let mut bytes = Vec::new();
        for piece in &flight.pieces {
            match piece {
                FlightPiece::Own(range) => {
                    bytes.extend_from_slice(&flight.own[range.start as usize..range.end as usize]);
                }
                FlightPiece::Content { key, stuffed: false } => bytes.extend_from_slice(&self.contents[key]),
                FlightPiece::Content { key, stuffed: true } => {
                    bytes.extend_from_slice(&message::content::dot_stuff(&self.contents[key]));
                }
            }
        }
        bytes
    }
}

/// The wire and the clock between the three.
struct World {
    dice: Dice,
    host: Host,
    engine: Engine,
    session: Session,
    now: Instant,
    flight: Flight,
    is_under_way: bool,
    idle_rounds: u32,
    tls: Option<TlsHost>,
    /// What the host has sent and we have not received.
    wire: Vec<u8>,
}

impl World {
    fn new(mut dice: Dice) -> World {
        let config = Config {
            helo: "us.example".to_owned(),
            timeouts: Timeouts::RFC_5321,
            window_max: 8,
            transactions_max: dice.roll(40) as u32,
        };
        let habits =
            Habits { window: dice.roll(20) as u16, no_chunking: dice.one_in(8), ..Habits::default() };
        let now = Instant::now();
        let tls = dice.one_in(4).then(|| TlsHost::new(Arc::clone(&encrypted().1)));
        World {
            wire: Vec::new(),
            host: Host::new(Temper::of(&mut dice)),
            engine: Engine::default(),
            session: Session::new(now, Arc::new(config), habits, link(tls.is_some())),
            tls,
            now,
            flight: Flight::default(),
            is_under_way: false,
            idle_rounds: 0,
            dice,
        }
    }

    /// One round of the engine's loop: completions, outputs, offers, the next flight.
    fn round(&mut self) {
        if self.is_under_way && !self.dice.one_in(3) {
            self.session.handle_sent(self.now);
            self.is_under_way = false;
        }
        let mut has_moved = self.listen();
        self.engine.drain(&mut self.session);
        while self.engine.offered.len() < 60 && self.session.capacity() > 0 && !self.dice.one_in(6) {
            self.engine.offer(&mut self.session, &mut self.dice);
            has_moved = true;
        }
        has_moved |= self.fly();
        self.idle_rounds = if has_moved { 0 } else { self.idle_rounds + 1 };
    }

    /// What the host said, cut anywhere; its end of stream once all of that is read.
    fn listen(&mut self) -> bool {
        self.say();
        let said = self.wire.len();
        if said == 0 {
            if self.host.has_hung_up {
                self.session.handle_closed(self.now, "end of stream");
            }
            return false;
        }
        let len = if self.dice.one_in(2) { said } else { 1 + self.dice.roll(said as u64) as usize };
        let segment: Vec<u8> = self.wire.drain(..len).collect();
        self.session.handle_bytes(self.now, &segment);
        true
    }

    /// What the host says gets onto the wire.
    fn say(&mut self) {
        match &mut self.tls {
            None => self.wire.append(&mut self.host.replies),
            Some(tls) => {
                let replies = if tls.is_up() { std::mem::take(&mut self.host.replies) } else { Vec::new() };
                self.wire.extend(tls.say(&replies));
            }
        }
    }

    fn fly(&mut self) -> bool {
        if !self.session.take_flight(self.now, &mut self.flight) {
            return false;
        }
        assert!(!self.is_under_way, "two flights at once");
        self.is_under_way = true;
        let plain = self.engine.render(&self.flight);
        let Some(tls) = &mut self.tls else {
            self.host.hear(&mut self.dice, &plain);
            return true;
        };
        let mut sealed = Vec::new();
        match self.flight.is_raw {
            true => sealed.extend_from_slice(&self.flight.own),
            false => plain.chunks(50).for_each(|slice| self.session.seal(slice, &mut sealed)),
        }
        tls.hear(&sealed);
        let opened = std::mem::take(&mut tls.opened);
        self.host.hear(&mut self.dice, &opened);
        true
    }

    /// Nothing moves any more: quit, and if that is no end, time passes.
    fn settle(&mut self) {
        if self.idle_rounds > 20 && self.session.is_idle() {
            self.session.quit(self.now);
        }
        if self.idle_rounds > 40 {
            self.now += Duration::from_secs(700);
            self.session.handle_timeout(self.now);
            self.engine.drain(&mut self.session);
        }
    }
}

/// Certificates take longer than a run.
fn encrypted() -> &'static (Arc<TlsClient>, Arc<ServerConfig>) {
    static ENCRYPTED: OnceLock<(Arc<TlsClient>, Arc<ServerConfig>)> = OnceLock::new();
    ENCRYPTED.get_or_init(|| {
        let world = tls_host::World::new();
        let policy = TlsPolicy::Verify { names: Vec::new(), enforced: true };
        (world.base().client(&policy).unwrap(), tls_host::server(world.by_name("good"), false))
    })
}

fn link(is_tls: bool) -> Link {
    let tls = is_tls.then(|| Arc::clone(&encrypted().0));
    Link { host: "mx.example".into(), tls, is_tls_implicit: is_tls, ..Link::default() }
}

fn run(seed: u64) {
    let mut world = World::new(Dice(seed | 1));
    for _ in 0..4000 {
        world.round();
        if world.engine.is_closed {
            return check(&world.engine, &world.session, &world.host);
        }
        world.settle();
    }
    panic!("the session does not end");
}

fn check(engine: &Engine, session: &Session, host: &Host) {
    assert_eq!((session.in_flight(), session.capacity(), session.poll_timeout()), (0, 0, None));
    for (&key, &count) in &engine.offered {
        let decided = engine.verdicts.range((key, 0)..=(key, u16::MAX)).count();
        let expected = if engine.returned.contains(&key) { 0 } else { usize::from(count) };
        assert_eq!(decided, expected, "transaction {key}");
        assert_ne!(engine.finished.contains(&key), engine.returned.contains(&key), "transaction {key}");
    }
    if !host.has_lied {
        check_deliveries(engine, host);
    }
}

fn check_deliveries(engine: &Engine, host: &Host) {
    let mut delivered = BTreeSet::new();
    for delivery in &host.deliveries {
        let key: u32 = delivery.reverse_path[1..delivery.reverse_path.find('@').unwrap()].parse().unwrap();
        let content = &engine.contents[&key];
        let is_whole = delivery.content == *content || delivery.content == [content, &b"\r\n"[..]].concat();
        assert!(is_whole, "another content went out under the reverse-path of {key}");
        for recipient in &delivery.recipients {
            let (of, index) = recipient[1..recipient.find('@').unwrap()].split_once('-').unwrap();
            assert_eq!(
                of,
                key.to_string(),
                "a recipient of {of} was reached under the reverse-path of {key}"
            );
            assert!(delivered.insert((key, index.parse::<u16>().unwrap())), "delivered twice");
        }
    }
    for (place, verdict) in &engine.verdicts {
        let is_said = matches!(verdict, Verdict::Delivered(_));
        assert!(!is_said || delivered.contains(place), "{place:?} is reported delivered and is not");
    }
    // The other way round only a lost connection may come between.
    let unsaid = |place: &&(u32, u16)| !matches!(engine.verdicts.get(*place), Some(Verdict::Delivered(_)));
    let unsaid = delivered.iter().find(unsaid);
    assert!(unsaid.is_none() || host.has_hung_up, "{unsaid:?} is delivered and not reported");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases * 16, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_host_gets_a_content_under_anothers_reverse_path(seed in any::<u64>()) {
        run(seed);
    }
}

/// `SEED=… cargo test -p smtp-out seed_repeats`
#[test]
fn seed_repeats() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    run(seed);
}
