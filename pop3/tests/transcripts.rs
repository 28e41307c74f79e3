//! Runs the dialogs in `tests/transcripts/pop3`, each whole and cut into pieces.
//!
//! ```text
//! # a comment
//! % tls offer             a setting, before anything is said: tls (none, offer, implicit), from (local, afar),
//!                         plain_logins, apop, errors_max, logins_max, removed (how many stay)
//! + connects              nothing; the greeting stands below
//! + ann's mailbox         as if ann had logged in, without a word
//! m 1.a "A: b\n\nc\n"     a message in it
//! C: NOOP                 the client sends a line with CR LF; client lines without another line between
//! C* a\r\n.\n             them go in one segment. C* sends just these octets: \r \n \t \0 \\ \xHH
//! C= a                    as C:, in base64
//! C^ PASS 300            as C:, with so many x in the place of the number
//! S: +OK                  we say this
//! ! check ann: secret     we want this done, and read no more until
//! > right                 it is answered: right, wrong, unavailable, missing, failed, vanished, breaks, encrypted
//! @ +600s                 time passes
//! ```
//! A maildrop is opened, messages are read and removed without another word. `UPDATE_EXPECT=1 cargo test -p pop3` rewrites
//! the `S:` and `!` lines.

// A test may panic.
#![allow(clippy::unwrap_used)]

#[path = "../../tests/transcripts/reader.rs"]
mod reader;

use base64::Engine as _;
use pop3::maildrop::{Entry, Folder, Maildrop};
use pop3::{
    Arrival, Attempt, Count, Limits, Login, Output, Policy, Session, TlsUse, Unavailable, Unreadable,
};
use reader::unescape;
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Settings {
    policy: Policy,
    arrival: Arrival,
    removed: usize,
}

impl Settings {
    fn new() -> Settings {
        let policy =
            Policy { limits: Limits::default(), tls_use: TlsUse::None, plain_logins: false, idle_secs: 600 };
        let arrival = Arrival { is_local: true, is_encrypted: false, stamp: None };
        Settings { policy, arrival, removed: 0 }
    }

    fn set(&mut self, line: &str) {
        let (key, value) = line.split_once(' ').expect("% key value");
        match (key, value) {
            ("tls", "offer") => self.policy.tls_use = TlsUse::Offer,
            ("tls", "implicit") => {
                (self.policy.tls_use, self.arrival.is_encrypted) = (TlsUse::Offer, true);
            }
            ("from", "afar") => self.arrival.is_local = false,
            ("plain_logins", "yes") => self.policy.plain_logins = true,
            ("apop", stamp) => self.arrival.stamp = Some(stamp.into()),
            ("errors_max", count) => self.policy.limits.errors_max = count.parse().unwrap(),
            ("logins_max", count) => self.policy.limits.logins_max = count.parse().unwrap(),
            ("removed", left) => self.removed = left.parse().unwrap(),
            _ => panic!("no setting {line}"),
        }
    }
}

/// A client and a caller in memory.
struct Dialog {
    session: Session,
    now: Instant,
    piece_len: usize,
    messages: Vec<(String, Vec<u8>)>,
    /// What is said of the next message or maildrop instead of giving it.
    trouble: Option<String>,
    left: usize,
    sent: Vec<u8>,
    heard: Vec<String>,
}

impl Dialog {
    fn new(settings: Settings, piece_len: usize) -> Dialog {
        let now = Instant::now();
        let session = Session::new(now, Arc::new(settings.policy), settings.arrival);
        let (messages, left) = (Vec::new(), settings.removed);
        Dialog { session, now, piece_len, messages, trouble: None, left, sent: Vec::new(), heard: Vec::new() }
    }

    /// Lets the session read until it wants no more; what it says and wants stands in `heard` after.
    fn settle(&mut self) {
        loop {
            let mut used = 0;
            while used < self.sent.len() {
                let end = self.sent.len().min(used.saturating_add(self.piece_len));
                match self.session.handle_bytes(self.now, &self.sent[used..end]) {
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
        let mut any = self.hear();
        while let Some(output) = self.session.poll_output() {
            any = true;
            self.carry_out(output);
            self.hear();
        }
        any
    }

    fn hear(&mut self) -> bool {
        let mut replies = Vec::new();
        while self.session.take_replies(&mut replies) {}
        let text = String::from_utf8(replies).expect("these dialogs are text");
        let lines = text.split_inclusive('\n');
        self.heard.extend(lines.map(|line| match line.strip_suffix("\r\n") {
            Some(line) => format!("S: {line}"),
            None => format!("S: {line} (cut off)"),
        }));
        !text.is_empty()
    }

    fn carry_out(&mut self, output: Output) {
        let now = self.now;
        match output {
            Output::Check(Attempt::Password { user, password }) => {
                self.heard.push(format!("! check {user}: {}", password.octets().escape_ascii()));
            }
            Output::Check(Attempt::Apop { user, stamp, digest }) => {
                self.heard.push(format!("! check {user}: {:032x} of {stamp}", u128::from_be_bytes(digest)));
            }
            Output::Open(_) => {
                let opened = match self.trouble.take().as_deref() {
                    Some("missing") => Err(Unavailable::Missing),
                    Some(_) => Err(Unavailable::Failed),
                    None => Ok(self.maildrop()),
                };
                self.session.handle_maildrop(now, opened);
            }
            Output::Read(index) => self.read(index),
            Output::Remove(marked) => {
                let numbers: Vec<String> = marked.iter().map(|index| (index + 1).to_string()).collect();
                self.heard.push(format!("! remove {}", numbers.join(" ")));
                self.session.handle_removed(now, self.left);
            }
            Output::BeginTls => self.heard.push("! begin TLS".to_owned()),
            Output::Close => self.heard.push("! close".to_owned()),
        }
    }

    fn read(&mut self, index: usize) {
        match self.trouble.take().as_deref() {
            Some("vanished") => return self.session.handle_unreadable(self.now, Unreadable::Vanished),
            Some("failed") => return self.session.handle_unreadable(self.now, Unreadable::Failed),
            Some("breaks") => {
                self.session.handle_content(&self.messages[index].1[..3]);
                return self.session.handle_unreadable(self.now, Unreadable::Failed);
            }
            _ => {}
        }
        for piece in self.messages[index].1.chunks(self.piece_len) {
            if self.session.wants_content() {
                self.session.handle_content(piece);
            }
        }
        self.session.handle_content_end(self.now);
    }

    fn maildrop(&self) -> Maildrop {
        let of = |(name, content): &(String, Vec<u8>)| {
            let mut count = Count::default();
            count.add(content);
            (Entry { folder: Folder::Cur, name: name.as_bytes().into() }, count.len())
        };
        Maildrop::new(self.messages.iter().map(of))
    }

    fn act(&mut self, action: &str) {
        match action {
            "right" => self.session.handle_login(self.now, Login::Right),
            "wrong" => self.session.handle_login(self.now, Login::Wrong),
            "unavailable" => self.session.handle_login(self.now, Login::Unavailable),
            "encrypted" => self.session.handle_encrypted(self.now),
            "missing" | "failed" | "vanished" | "breaks" => self.trouble = Some(action.to_owned()),
            _ => panic!("no action {action}"),
        }
    }

    fn log_in(&mut self) {
        self.sent.extend_from_slice(b"USER ann\r\nPASS secret\r\n");
        self.settle();
        self.session.handle_login(self.now, Login::Right);
        self.settle();
        self.heard.clear();
    }

    fn wait(&mut self, span: &str) {
        let secs = span.strip_prefix('+').and_then(|span| span.strip_suffix('s')).expect("@ +1s");
        self.now += Duration::from_secs(secs.parse().expect("seconds"));
        self.session.handle_timeout(self.now);
    }
}

/// The text as a run of its client's lines makes it.
fn run(text: &str, piece_len: usize) -> String {
    let mut settings = Settings::new();
    text.lines().filter_map(|line| line.strip_prefix("% ")).for_each(|line| settings.set(line));
    let (mut dialog, mut out) = (Dialog::new(settings, piece_len), String::new());
    dialog.messages = text.lines().filter_map(|line| line.strip_prefix("m ")).map(message).collect();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("S:") || line.starts_with('!') {
            continue;
        }
        out += &format!("{line}\n");
        match line.split_at_checked(3) {
            Some(("C: ", sent)) => dialog.sent.extend_from_slice(format!("{sent}\r\n").as_bytes()),
            Some(("C* ", sent)) => dialog.sent.extend(unescape(sent)),
            Some(("C= ", sent)) => {
                let encoded = base64::engine::general_purpose::STANDARD.encode(unescape(sent));
                dialog.sent.extend(format!("{encoded}\r\n").into_bytes());
            }
            Some(("C^ ", sent)) => {
                let (start, count) = sent.rsplit_once(' ').expect("C^ text count");
                dialog.sent.extend_from_slice(start.as_bytes());
                dialog.sent.extend(std::iter::repeat_n(b'x', count.parse().expect("a count")));
                dialog.sent.extend_from_slice(b"\r\n");
            }
            _ if line == "+ ann's mailbox" => dialog.log_in(),
            _ if line.starts_with("@ ") => dialog.wait(&line[2..]),
            _ if line.starts_with("> ") => dialog.act(&line[2..]),
            _ => assert!(line.is_empty() || line.starts_with(['#', '%', '+', 'm']), "what is {line:?}?"),
        }
        let same_segment = line.starts_with('C') && lines.peek().is_some_and(|next| next.starts_with('C'));
        if !same_segment && !line.starts_with(['#', '%', 'm']) {
            dialog.settle();
            dialog.heard.drain(..).for_each(|heard| out += &format!("{heard}\n"));
        }
    }
    out
}

/// `1.a "A: b\n"`.
fn message(line: &str) -> (String, Vec<u8>) {
    let (name, quoted) = line.split_once(' ').expect("m name \"content\"");
    let content = quoted.strip_prefix('"').and_then(|quoted| quoted.strip_suffix('"')).expect("in quotes");
    (name.to_owned(), unescape(content))
}

#[test]
fn transcripts_hold_wherever_the_stream_is_cut() {
    reader::hold_wherever_the_stream_is_cut("pop3", 25, run);
}
