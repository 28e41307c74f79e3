//! Runs the dialogs in `tests/transcripts/smtp-out`. What a host and the engine do stands in a file as it is;
//! what the session does about it is generated and compared, and `UPDATE_EXPECT=1` writes it into the file.
//!
//! ```text
//! = window=8 max=0 habit_window=4 no_chunking no_pipelining helo_only      how the session is made (first line)
//! = tls=may|encrypt|verify|testing tls_broken implicit lmtp mailboxes traced login=password|token plain_login
//! = cert=good|wrong_name|expired|self_signed tls12 choosy                  what the host is; wants our certificate
//! S: 250 ok                      the host says it; lines with nothing between come in one segment
//! > offer 1 from=a@b to=c@d,e@f len=12 8bit dots open smuggle utf8          if there is capacity
//!     ret=FULL envid=x notify=NEVER|SUCCESS orcpt=rfc822;a@b|     the last two for each recipient
//! > custody                      who tells of success
//! > quit | eof why | capacity | habits | habits+idle
//! > hold | sent                  from here on a flight stays under way until `> sent`
//! > go                           lets a flight go before the next offer
//! @ +300s                        time passes
//! > tls                          the host's side of a handshake, and whatever else its TLS has to say
//! > tls_eof | tls_alert | tls_garbage      its TLS ends; an alert that refuses; octets that are no TLS
//! C: …   C.                      what we say; the end of a flight; {TLS} is ciphertext by itself
//! ! …                            what the session tells the engine
//! ```
//!
//! Once a handshake is done `S:` and `C:` lines are what lies inside TLS: the host seals the ones and opens the others.

// A test may panic, and its numbers are small.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod tls_host;

use message::{
    ContentFacts, EnvelopeId, MailAsked, MailboxRef, Notify, OriginalRecipient, RecipientAsked, Ret,
};
use smtp_out::{
    Asked, Config, Flight, FlightPiece, Habits, Link, Login, Offered, Output, Protection, Protocol, Secret,
    Session, Timeouts, TlsPolicy, Transaction, WhyPlain,
};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tls_host::{TlsHost, World, choosy_server, server};

#[test]
fn every_dialog_goes_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/transcripts/smtp-out");
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 30, "only {} dialogs found", paths.len());
    for path in paths {
        let written = std::fs::read_to_string(&path).unwrap();
        let happened = Dialog::run(&written);
        if update {
            std::fs::write(&path, &happened).unwrap();
        } else {
            assert!(happened == written, "{}:\n--- happened\n{happened}", path.display());
        }
    }
}

struct Dialog {
    session: Session,
    now: Instant,
    flight: Flight,
    is_holding: bool,
    /// What the host has for TLS.
    host: TlsHost,
    has_protection: bool,
    lens: BTreeMap<u32, u64>,
    log: String,
}

impl Dialog {
    fn run(written: &str) -> String {
        // Our lines are kept as "!": they end a segment of the host's.
        let lines: Vec<&str> = written.lines().map(|line| if is_ours(line) { "!" } else { line }).collect();
        let settings = lines.iter().find_map(|line| line.strip_prefix("= ")).unwrap_or("");
        let mut dialog = Dialog::new(settings);
        let mut at = 0;
        while at < lines.len() {
            if lines[at] == "!" {
                at += 1;
                continue;
            }
            at += dialog.play(&lines[at..]);
            if lines[at - 1].starts_with('#') {
                continue;
            }
            dialog.drain();
            let next = lines[at..].iter().find(|line| **line != "!");
            if !next.is_some_and(|line| line.starts_with("> offer")) {
                dialog.fly();
                // The end of a session whose last record had to go out.
                dialog.drain();
            }
        }
        dialog.log
    }

    fn new(settings: &str) -> Dialog {
        let settings = Words::of(settings);
        let config = Config {
            helo: "us.example".to_owned(),
            timeouts: Timeouts::RFC_5321,
            window_max: settings.number("window", 8) as u16,
            transactions_max: settings.number("max", 1000) as u32,
        };
        let habits = Habits {
            no_pipelining: settings.has("no_pipelining"),
            no_chunking: settings.has("no_chunking"),
            window: settings.number("habit_window", 0) as u16,
            helo_only: settings.has("helo_only"),
            tls_broken: settings.has("tls_broken"),
        };
        let world = World::new();
        let now = Instant::now();
        let session = Session::new(now, Arc::new(config), habits, link(&settings, &world));
        let identity = world.by_name(settings.text("cert"));
        Dialog {
            session,
            now,
            flight: Flight::default(),
            is_holding: false,
            host: TlsHost::new(match settings.has("choosy") {
                true => choosy_server(identity, world.root.der()),
                false => server(identity, settings.has("tls12")),
            }),
            has_protection: false,
            lens: BTreeMap::new(),
            log: String::new(),
        }
    }

    /// Does what the first line says, or the first lines of the host together; returns how many it took.
    fn play(&mut self, lines: &[&str]) -> usize {
        let line = lines[0];
        if line.starts_with("S:") {
            return self.hear(lines);
        }
        writeln!(self.log, "{line}").unwrap();
        if let Some(command) = line.strip_prefix("> ") {
            self.command(command);
        } else if let Some(seconds) = line.strip_prefix("@ +") {
            self.now += Duration::from_secs(seconds.trim_end_matches('s').parse().unwrap());
            self.session.handle_timeout(self.now);
        }
        1
    }

    fn hear(&mut self, lines: &[&str]) -> usize {
        let mut segment = String::new();
        let said: Vec<_> = lines.iter().take_while(|line| line.starts_with("S:")).collect();
        for line in &said {
            writeln!(self.log, "{line}").unwrap();
            write!(segment, "{}\r\n", line[2..].trim_start()).unwrap();
        }
        match self.session.is_sealing() {
            false => self.session.handle_bytes(self.now, segment.as_bytes()),
            true => self.say_sealed(segment.as_bytes()),
        }
        said.len()
    }

    fn say_sealed(&mut self, plain: &[u8]) {
        let sealed = self.host.say(plain);
        self.session.handle_bytes(self.now, &sealed);
    }

    fn end_tls(&mut self) {
        let sealed = self.host.close();
        self.session.handle_bytes(self.now, &sealed);
    }

    fn command(&mut self, command: &str) {
        match command.split_once(' ').unwrap_or((command, "")) {
            ("offer", rest) => self.offer(rest),
            ("quit", _) => self.session.quit(self.now),
            ("eof", why) => self.session.handle_closed(self.now, why),
            ("capacity", _) => self.tell(&format!("capacity {}", self.session.capacity())),
            ("habits", _) => self.tell(&format!("{:?}", self.session.habits())),
            ("custody", _) => self.tell(&format!("custody {:?}", self.session.custody())),
            ("idle", _) => self.tell(&format!("idle {}", self.session.is_idle())),
            ("hold", _) => self.is_holding = true,
            ("sent", _) => self.session.handle_sent(self.now),
            ("go", _) => {}
            ("tls", _) => self.say_sealed(b""),
            ("tls_eof", _) => self.end_tls(),
            // handshake_failure(40), fatal
            ("tls_alert", _) => self.session.handle_bytes(self.now, &[21, 3, 3, 0, 2, 2, 40]),
            ("tls_garbage", _) => self.session.handle_bytes(self.now, &[0x55; 40]),
            _ => panic!("unknown command: {command}"),
        }
    }

    fn offer(&mut self, rest: &str) {
        if self.session.capacity() == 0 {
            return self.tell("no capacity");
        }
        let words = Words::of(rest);
        let recipients: Vec<_> =
            words.text("to").split(',').map(|to| MailboxRef::parse(to).unwrap()).collect();
        let key = rest.split(' ').next().unwrap().parse().unwrap();
        let said = said(&words, recipients.len());
        let offered = self.session.offer(&Transaction {
            key,
            reverse_path: words.text("from"),
            recipients: &recipients,
            content_len: words.number("len", 12),
            facts: facts(&words),
            smtputf8: words.has("utf8"),
            requires_tls: words.has("requiretls"),
            asked: said.as_ref().map(|(mail, said)| Asked { mail, recipients: said }),
        });
        self.lens.insert(key, words.number("len", 12));
        if let Offered::Refused(verdict, scope) = offered {
            self.tell(&format!("refused {key} {} {scope:?} {}", verdict.name(), verdict.reply()));
        }
    }

    fn tell(&mut self, what: &str) {
        writeln!(self.log, "! {what}").unwrap();
    }

    fn drain(&mut self) {
        while let Some(output) = self.session.poll_output() {
            if let Output::Protection(_) = output {
                assert!(!std::mem::replace(&mut self.has_protection, true), "protection is told twice");
            }
            assert!(output != Output::Ready || self.has_protection, "protection is told before Ready");
            let told = match output {
                // Said in nearly every dialog, where nothing else is to be expected.
                Output::Protection(Protection::Plain(WhyPlain::Policy)) => continue,
                Output::Protection(protection) => format!("{protection}"),
                Output::Trace { direction, text } => format!("trace {direction:?} {text}"),
                Output::Ready => "ready".to_owned(),
                Output::Verdict { key, recipient, verdict, scope } => {
                    format!("verdict {key}/{recipient} {} {scope:?} {}", verdict.name(), verdict.reply())
                }
                Output::Finished { key, ambiguous: false } => format!("finished {key}"),
                Output::Finished { key, ambiguous: true } => format!("finished {key} ambiguous"),
                Output::Returned { key } => format!("returned {key}"),
                Output::Closed { verdict: None } => "closed".to_owned(),
                Output::Closed { verdict: Some((verdict, scope)) } => {
                    format!("closed {} {scope:?} {}", verdict.name(), verdict.reply())
                }
            };
            self.tell(&told);
        }
    }

    fn fly(&mut self) {
        let mut flight = std::mem::take(&mut self.flight);
        while self.session.take_flight(self.now, &mut flight) {
            self.log.push_str(&print(&flight));
            self.carry(&flight);
            if !self.is_holding {
                self.session.handle_sent(self.now);
            }
        }
        self.flight = flight;
        assert!(self.log.ends_with('\n'));
    }
}

impl Dialog {
    /// Ciphertext goes to the host, which must find in it what the flight says.
    fn carry(&mut self, flight: &Flight) {
        if flight.is_raw {
            return self.host.hear(&flight.own);
        }
        if !self.session.is_sealing() {
            return;
        }
        let (mut plain, mut sealed) = (Vec::new(), Vec::new());
        for piece in &flight.pieces {
            match piece {
                FlightPiece::Own(range) => {
                    plain.extend_from_slice(&flight.own[range.start as usize..range.end as usize]);
                }
                FlightPiece::Content { key, .. } => {
                    plain.resize(plain.len() + self.lens[key] as usize, b'x');
                }
            }
        }
        // In slices, as for a content that is larger than a buffer.
        plain.chunks(1000).for_each(|slice| self.session.seal(slice, &mut sealed));
        self.host.hear(&sealed);
        let opened = std::mem::take(&mut self.host.opened);
        assert!(opened == plain || self.host.error.is_some(), "the host opens something else");
    }
}

fn link(settings: &Words<'_>, world: &World) -> Link {
    let policy = match settings.text("tls") {
        "may" => TlsPolicy::May,
        "encrypt" => TlsPolicy::Encrypt,
        "verify" => TlsPolicy::Verify { names: Vec::new(), enforced: true },
        "testing" => TlsPolicy::Verify { names: Vec::new(), enforced: false },
        _ => TlsPolicy::Never,
    };
    let secret = match settings.text("login") {
        "token" => Some(Secret::Token("ya29".to_owned())),
        "password" => Some(Secret::Password("tanstaaf".to_owned())),
        _ => None,
    };
    let login =
        |secret| Login { user: "tim".to_owned(), secret, allow_plain_text: settings.has("plain_login") };
    Link {
        host: "mx.example".into(),
        tls: world.base().client(&policy),
        is_tls_implicit: settings.has("implicit"),
        protocol: match (settings.has("lmtp"), settings.has("mailboxes")) {
            (_, true) => Protocol::Mailboxes,
            (true, false) => Protocol::Lmtp,
            (false, false) => Protocol::Smtp,
        },
        login: secret.map(login).map(Arc::new),
        is_traced: settings.has("traced"),
    }
}

fn is_ours(line: &str) -> bool {
    line.starts_with("C:") || line == "C." || line.starts_with('!')
}

fn print(flight: &Flight) -> String {
    let mut text = String::new();
    if flight.is_raw {
        return "C: {TLS}\nC.\n".to_owned();
    }
    for piece in &flight.pieces {
        match piece {
            FlightPiece::Own(range) => {
                let own = &flight.own[range.start as usize..range.end as usize];
                let own = std::str::from_utf8(own).unwrap().strip_suffix("\r\n").expect("whole lines");
                own.split("\r\n").for_each(|line| writeln!(text, "C: {line}").unwrap());
            }
            FlightPiece::Content { key, stuffed: false } => writeln!(text, "C: {{content {key}}}").unwrap(),
            FlightPiece::Content { key, stuffed: true } => writeln!(text, "C: {{stuffed {key}}}").unwrap(),
        }
    }
    text + "C.\n"
}

fn facts(words: &Words<'_>) -> ContentFacts {
    let mut content = "Subject: x\r\n\r\n".to_owned();
    let parts =
        [("8bit", "é\r\n"), ("dots", ".dot\r\n"), ("smuggle", "x\n.\r\n"), ("nul", "\0\r\n"), ("open", "x")];
    parts.iter().filter(|(word, _)| words.has(word)).for_each(|(_, text)| content.push_str(text));
    ContentFacts::of(content.as_bytes())
}

/// What the offer says of notifications; nothing, if it has no word of them.
fn said<'a>(words: &Words<'a>, recipients: usize) -> Option<(MailAsked, Vec<RecipientAsked<'a>>)> {
    if !["ret", "envid", "notify", "orcpt"].iter().any(|word| words.has(word)) {
        return None;
    }
    let mail =
        MailAsked { ret: Ret::parse(words.text("ret")), envelope_id: EnvelopeId::parse(words.text("envid")) };
    let of = |name: &str, at| words.text(name).split('|').nth(at).unwrap_or_default();
    let asked = |at| RecipientAsked {
        notify: Notify::parse(of("notify", at)).unwrap_or_default(),
        original: OriginalRecipient::parse(of("orcpt", at)),
    };
    Some((mail, (0..recipients).map(asked).collect()))
}

/// `name=value` and `name`.
struct Words<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Words<'a> {
    fn of(text: &'a str) -> Words<'a> {
        Words(text.split_whitespace().map(|word| word.split_once('=').unwrap_or((word, ""))).collect())
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn text(&self, name: &str) -> &'a str {
        self.0.get(name).copied().unwrap_or_default()
    }

    fn number(&self, name: &str, otherwise: u64) -> u64 {
        self.0.get(name).map_or(otherwise, |value| value.parse().unwrap())
    }
}
