//! Runs the dialogs in `tests/transcripts/smtp-in`, each whole and cut into pieces.
//!
//! ```text
//! # a comment
//! % size_max 100          a setting, before anything is said (see `Settings`)
//! C: NOOP                 the client sends a line with CR LF; client lines without another line between
//! C* a\r\n.\n             them go in one segment. C* sends just these octets: \r \n \t \0 \\ \xHH
//! S: 250 2.0.0 Ok         we say this
//! ! store 0 ...           we want this stored (0 is its key), and this is its content
//! ! flush a.test          we want what waits for that domain tried now
//! ! close                 we want to close
//! @ +300s                 time passes
//! > stored accepted 1     the store of key 1 ended (accepted, full, failed; no key: the oldest)
//! > gate full             the queue takes no more (open, full, broken)
//! > shutdown              the daemon stops
//! ```
//! The greeting is left out. `UPDATE_EXPECT=1 cargo test -p smtp-in` rewrites the `S:` and `!` lines.

use message::{BodyKind, EnvelopeId, Lane, MailboxRef, MessageId, Notify, RecipientAsked, Ret};
use smtp_in::{Client, Gate, Limits, Output, Policy, Session, Stored, Submission, Timeouts, TransactionKey};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A settings line's key and value change one of these.
struct Settings {
    policy: Policy,
    may_relay: bool,
    may_flush: bool,
}

impl Settings {
    fn new() -> Settings {
        let limits = Limits {
            size_max: 1_000_000,
            recipients_max: 1000,
            command_line_max: 2048,
            errors_max: 5,
            hops_max: 3,
            stores_in_flight_max: 16,
            replies_max: 65_536,
        };
        let timeouts = Timeouts { command_secs: 300, data_secs: 180, data_block_len: 100 };
        let host_name = "mx.example.org".to_owned();
        Settings {
            policy: Policy { host_name, limits, timeouts, bulk_recipients: 100, offer_chunking: true },
            may_relay: true,
            may_flush: false,
        }
    }

    fn set(&mut self, line: &str) {
        let (key, value) = line.split_once(' ').expect("% key value");
        let (number, limits) = (value.parse().unwrap_or(0), &mut self.policy.limits);
        match key {
            "size_max" => limits.size_max = number as u64,
            "recipients_max" => limits.recipients_max = u32::try_from(number).expect("32 bits"),
            "command_line_max" => limits.command_line_max = number,
            "errors_max" => limits.errors_max = u32::try_from(number).expect("32 bits"),
            "stores_in_flight_max" => limits.stores_in_flight_max = number,
            "replies_max" => limits.replies_max = number,
            "bulk_recipients" => self.policy.bulk_recipients = u32::try_from(number).expect("32 bits"),
            "may_flush" => self.may_flush = value == "yes",
            "may_relay" => self.may_relay = value == "yes",
            "offer_chunking" => self.policy.offer_chunking = value == "yes",
            _ => panic!("no setting {key}"),
        }
    }
}

/// The client's and the engine's side of a session.
struct Dialog {
    session: Session,
    now: Instant,
    gate: Gate,
    piece_len: usize,
    /// Sent, but not yet used.
    sent: Vec<u8>,
    in_flight: Vec<TransactionKey>,
    heard: Vec<String>,
}

impl Dialog {
    fn new(settings: Settings, piece_len: usize) -> Dialog {
        let (may_relay, may_flush) = (settings.may_relay, settings.may_flush);
        let client = Client { address: IpAddr::V4(Ipv4Addr::LOCALHOST), may_relay, may_flush };
        let now = Instant::now();
        let mut session = Session::new(now, Arc::new(settings.policy), client);
        let mut greeting = Vec::new();
        session.take_replies(&mut greeting);
        assert_eq!(greeting, b"220 mx.example.org ESMTP ringpost\r\n");
        Dialog {
            session,
            now,
            gate: Gate::Open,
            piece_len,
            sent: Vec::new(),
            in_flight: Vec::new(),
            heard: Vec::new(),
        }
    }

    /// Lets the session read until it wants no more; what it says and wants stands in `heard` after.
    fn settle(&mut self) {
        loop {
            let mut used = 0;
            while used < self.sent.len() {
                let end = self.sent.len().min(used + self.piece_len);
                match self.session.handle_bytes(self.now, self.gate, &self.sent[used..end]) {
                    0 => break,
                    more => used += more,
                }
            }
            self.sent.drain(..used);
            if !self.drain() {
                return;
            }
        }
    }

    /// Takes what there is; false if that is nothing.
    fn drain(&mut self) -> bool {
        let before = self.heard.len();
        self.drain_outputs();
        let mut replies = Vec::new();
        self.session.take_replies(&mut replies);
        let replies = String::from_utf8(replies).expect("replies are ASCII");
        self.heard.extend(replies.lines().map(|line| format!("S: {line}")));
        self.drain_outputs();
        self.heard.len() > before
    }

    fn drain_outputs(&mut self) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Store(submission) => {
                    self.in_flight.push(submission.transaction);
                    self.heard.push(describe(&submission));
                }
                Output::Flush(flush) => {
                    let below = if flush.with_subdomains { " and below" } else { "" };
                    self.heard.push(format!("! flush {}{below}", flush.domain));
                }
                Output::Close => self.heard.push("! close".to_owned()),
            }
        }
    }

    fn act(&mut self, action: &str) {
        let words: Vec<&str> = action.split(' ').collect();
        match words[..] {
            ["gate", "open"] => self.gate = Gate::Open,
            ["gate", "full"] => self.gate = Gate::Full,
            ["gate", "broken"] => self.gate = Gate::Broken,
            ["shutdown"] => self.session.handle_shutdown(self.now),
            ["stored", outcome] => self.end_store(0, outcome),
            ["stored", outcome, key] => {
                let key = TransactionKey(key.parse().expect("a key"));
                let at = self.in_flight.iter().position(|open| *open == key).expect("a key in flight");
                self.end_store(at, outcome);
            }
            _ => panic!("no action {action}"),
        }
    }

    fn end_store(&mut self, at: usize, outcome: &str) {
        let key = self.in_flight.remove(at);
        let outcome = match outcome {
            "accepted" => Stored::Accepted(MessageId(u64::from(key.0) + 0x100)),
            "full" => Stored::Full,
            "failed" => Stored::Failed,
            _ => panic!("no outcome {outcome}"),
        };
        self.session.handle_stored(self.now, key, outcome);
    }

    fn wait(&mut self, span: &str) {
        let secs = span.strip_prefix('+').and_then(|span| span.strip_suffix('s')).expect("@ +1s");
        self.now += Duration::from_secs(secs.parse().expect("seconds"));
        if self.session.poll_timeout().is_some_and(|deadline| deadline <= self.now) {
            self.session.handle_timeout(self.now);
        }
    }
}

/// `! store key <reverse-path> to … | protocol helo | what is special | "content"`.
fn describe(submission: &Submission) -> String {
    let envelope = &submission.envelope;
    let recipients: Vec<String> =
        envelope.recipients.iter_asked().map(|(mailbox, asked)| named(&mailbox, &asked)).collect();
    let mut line = format!(
        "! store {} {} to {} | {} {} |",
        submission.transaction.0,
        envelope.reverse_path,
        recipients.join(" "),
        submission.with,
        submission.helo
    );
    match envelope.body {
        BodyKind::SevenBit => {}
        body => line += &format!(" {body:?}"),
    }
    let verp = envelope.verp.map(|verp| verp.to_bytes().escape_ascii().to_string());
    let (facts, envelope_id) = (submission.facts, envelope.asked.envelope_id.as_ref());
    let special = [
        (envelope.lane != Lane::Normal, envelope.lane.name().to_owned()),
        (envelope.smtputf8, "SMTPUTF8".to_owned()),
        (envelope.asked.ret.is_some(), format!("RET={}", envelope.asked.ret.map_or("", Ret::as_str))),
        (envelope_id.is_some(), format!("ENVID={}", envelope_id.map_or("", EnvelopeId::as_str))),
        (verp.is_some(), format!("XVERP={}", verp.unwrap_or_default())),
        (facts.has_eight_bit(), "8-bit".to_owned()),
        (facts.has_dot_lines(), "dots".to_owned()),
        (facts.has_bare_newlines(), "bare-newlines".to_owned()),
        (facts.could_smuggle(), "could-smuggle".to_owned()),
        (facts.has_open_end(), "open-end".to_owned()),
        (facts.has_nul(), "nul".to_owned()),
    ];
    special.iter().filter(|(is, _)| *is).for_each(|(_, word)| line += &format!(" {word}"));
    line + &format!(" | \"{}\"", submission.content.escape_ascii())
}

/// The recipient, and what was said of it.
fn named(mailbox: &MailboxRef<'_>, asked: &RecipientAsked<'_>) -> String {
    let mut text = mailbox.to_string();
    if asked.notify != Notify::UNSAID {
        text += &format!(" NOTIFY={}", asked.notify.as_str());
    }
    asked.original.iter().for_each(|original| text += &format!(" ORCPT={}", original.as_str()));
    text
}

/// The text as a run of its client's lines makes it.
fn run(text: &str, piece_len: usize) -> String {
    let mut settings = Settings::new();
    text.lines().filter_map(|line| line.strip_prefix("% ")).for_each(|line| settings.set(line));
    let (mut dialog, mut out) = (Dialog::new(settings, piece_len), String::new());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if is_expectation(line) {
            continue;
        }
        out += &format!("{line}\n");
        match line.split_at_checked(3) {
            Some(("C: ", sent)) => dialog.sent.extend_from_slice(format!("{sent}\r\n").as_bytes()),
            Some(("C* ", sent)) => dialog.sent.extend(unescape(sent)),
            _ if line.starts_with("@ ") => dialog.wait(&line[2..]),
            _ if line.starts_with("> ") => dialog.act(&line[2..]),
            _ => assert!(line.is_empty() || line.starts_with(['#', '%']), "what is {line:?}?"),
        }
        let same_segment = line.starts_with('C') && lines.peek().is_some_and(|next| next.starts_with('C'));
        if !same_segment {
            dialog.settle();
            dialog.heard.drain(..).for_each(|heard| out += &format!("{heard}\n"));
        }
    }
    out
}

fn is_expectation(line: &str) -> bool {
    line.starts_with("S:") || line.starts_with('!')
}

fn unescape(text: &str) -> Vec<u8> {
    let (mut octets, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, tail)) = rest.split_first() {
        let (octet, used) = match (first, tail.first()) {
            (b'\\', Some(b'r')) => (b'\r', 1),
            (b'\\', Some(b'n')) => (b'\n', 1),
            (b'\\', Some(b't')) => (b'\t', 1),
            (b'\\', Some(b'0')) => (0, 1),
            (b'\\', Some(b'\\')) => (b'\\', 1),
            (b'\\', Some(b'x')) => {
                let digits = std::str::from_utf8(&tail[1..3]).expect("two digits");
                (u8::from_str_radix(digits, 16).expect("hexadecimal"), 3)
            }
            (b'\\', _) => panic!("no such escape in {text}"),
            _ => (*first, 0),
        };
        octets.push(octet);
        rest = &tail[used..];
    }
    octets
}

fn transcripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/transcripts/smtp-in");
    let entries = std::fs::read_dir(folder).expect("the folder of transcripts");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

#[test]
fn transcripts_hold_wherever_the_stream_is_cut() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let paths = transcripts();
    assert!(paths.len() >= 30, "transcripts are missing");
    for path in paths {
        let mut text = std::fs::read_to_string(&path).unwrap();
        let whole = run(&text, usize::MAX / 2);
        if update {
            std::fs::write(&path, &whole).unwrap();
            text = whole;
        }
        for piece_len in [usize::MAX / 2, 1, 2, 3, 5, 11] {
            let found = run(&text, piece_len);
            assert!(found == text, "{} in pieces of {piece_len} went like this:\n{found}", path.display());
        }
    }
}
