//! A client and an engine in memory, told what to do by the lines of a transcript.

// A test may panic; not every test uses all of this.
#![allow(clippy::unwrap_used, dead_code)]

pub(crate) mod door;
pub(crate) mod settings;
pub(crate) mod words;

use door::Doorkeeper;
use message::MessageId;
use settings::Settings;
use smtp_in::door::{Answer, Question, Refusal, Rights, ScramKeys};
use smtp_in::{Gate, Output, Session, Stored, TransactionKey};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The client's and the engine's side of a session.
pub(crate) struct Dialog {
    pub(crate) session: Session,
    pub(crate) now: Instant,
    pub(crate) door: Doorkeeper,
    /// Answers who comes by itself.
    rights: Option<Rights>,
    piece_len: usize,
    /// Sent, but not yet used.
    pub(crate) sent: Vec<u8>,
    in_flight: Vec<TransactionKey>,
    pub(crate) heard: Vec<String>,
}

impl Dialog {
    pub(crate) fn new(settings: Settings, piece_len: usize) -> Dialog {
        let now = Instant::now();
        let rights = (!settings.asks).then_some(settings.rights);
        let mut dialog = Dialog {
            session: Session::new(now, Arc::new(settings.policy), settings.arrival),
            now,
            door: Doorkeeper { gate: Gate::Open },
            rights,
            piece_len,
            sent: Vec::new(),
            in_flight: Vec::new(),
            heard: Vec::new(),
        };
        if dialog.rights.is_some() {
            dialog.settle();
            dialog.heard.retain(|line| line != "S: 220 mx.example.org ESMTP ringpost");
        }
        dialog
    }

    /// Lets the session read until it wants no more; what it says and wants stands in `heard` after.
    pub(crate) fn settle(&mut self) {
        loop {
            let mut used = 0;
            while used < self.sent.len() {
                let end = self.sent.len().min(used + self.piece_len);
                match self.session.handle_bytes(self.now, &mut self.door, &self.sent[used..end]) {
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
        let (before, mut any) = (self.heard.len(), self.drain_outputs());
        let mut replies = Vec::new();
        any |= self.session.take_replies(&mut replies);
        self.heard.extend(words::reply_lines(&replies));
        any |= self.drain_outputs();
        any || self.heard.len() > before
    }

    /// True if there was any.
    fn drain_outputs(&mut self) -> bool {
        let mut any = false;
        while let Some(output) = self.session.poll_output() {
            any = true;
            match (output, &self.rights) {
                (Output::Ask(Question::Introduce(_)), Some(rights)) => {
                    self.session.handle_answer(self.now, Answer::Welcome(rights.clone()));
                }
                (Output::Store(submission), _) => {
                    self.in_flight.push(submission.transaction);
                    self.heard.push(words::describe(&submission));
                }
                (output, _) => self.heard.push(words::output(output)),
            }
        }
        any
    }

    pub(crate) fn act(&mut self, action: &str) {
        let words: Vec<&str> = action.split(' ').collect();
        match words[..] {
            ["gate", gate] => self.door.gate = door::gate(gate),
            ["shutdown"] => self.session.handle_shutdown(self.now),
            ["stored", outcome] => self.end_store(0, outcome),
            ["stored", outcome, key] => {
                let key = TransactionKey(key.parse().expect("a key"));
                let at = self.in_flight.iter().position(|open| *open == key).expect("a key in flight");
                self.end_store(at, outcome);
            }
            _ => self.session.handle_answer(self.now, answer(&words)),
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

    pub(crate) fn wait(&mut self, span: &str) {
        let secs = span.strip_prefix('+').and_then(|span| span.strip_suffix('s')).expect("@ +1s");
        self.now += Duration::from_secs(secs.parse().expect("seconds"));
        if self.session.poll_timeout().is_some_and(|deadline| deadline <= self.now) {
            self.session.handle_timeout(self.now);
        }
    }
}

fn answer(words: &[&str]) -> Answer {
    match words {
        ["welcome", rights @ ..] => Answer::Welcome(settings::rights(rights)),
        ["turned", code, enhanced, text @ ..] => Answer::Turned(refusal(code, enhanced, &text.join(" "))),
        ["logged-in", rights @ ..] => Answer::LoggedIn(settings::rights(rights)),
        ["wrong-login"] => Answer::WrongLogin,
        ["unavailable"] => Answer::Unavailable,
        ["keys-of-pencil"] => Answer::Scram(keys_of_pencil()),
        ["turning"] => Answer::Turning,
        ["nothing-waits"] => Answer::NothingWaits,
        ["turn-denied"] => Answer::TurnDenied,
        _ => panic!("no action {words:?}"),
    }
}

pub(crate) fn refusal(code: &str, enhanced: &str, text: &str) -> Refusal {
    let mut parts = enhanced.split('.').skip(1).map(|part| part.parse().expect("a number"));
    let enhanced = (parts.next().expect("a subject"), parts.next().expect("a detail"));
    Refusal { code: code.parse().expect("a code"), enhanced, text: text.into() }
}

/// RFC 7677 §3: what a server keeps of the password `pencil`.
fn keys_of_pencil() -> ScramKeys {
    let key = |digits: &str| {
        let pair = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal");
        (0..64).step_by(2).map(pair).collect::<Vec<u8>>().try_into().expect("32 octets")
    };
    ScramKeys {
        salt: b"\x5b\x6d\x99\x68\x9d\x12\x35\x8e\xec\xa0\x4b\x14\x12\x36\xfa\x81".to_vec(),
        iterations: 4096,
        stored_key: key("586e5df283e6dceb5c3e791d8b8528ec191e664045ce971792e2e6b5bb13e2a6"),
        server_key: key("c1f3cbc1c13a9d35a14c0990eed97629ea225863e566a4314ab99f3f00e5d9d5"),
    }
}
