//! One connection to a sink.

use super::super::actor::Io;
use super::super::ledger::Place;
use super::super::letter::GONE;
use super::super::net::Link;
use super::Offers;
use memchr::memmem;
use std::time::Duration;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Greeting,
    Command,
    Data,
    Chunk { len: usize, last: bool },
    Ended,
}

pub(super) struct Session {
    link: Link,
    stage: Stage,
    input: Vec<u8>,
    greeted: bool,
    reverse_path: Option<String>,
    recipients: Vec<String>,
    content: Vec<u8>,
    messages: u32,
    stall: Option<Duration>,
    stalled: bool,
    /// Rolls of the dice that this command has behind it: a stall that is over does not start again.
    spared: bool,
    /// For each message taken: octets sent up to the end of its 250, and whom it was for.
    unheard: Vec<(u64, Vec<Place>)>,
}

/// True if the recipient is to come back later, as the sink's offers have it.
fn is_early(io: &mut Io<'_>, offers: &Offers, forward_path: &str) -> bool {
    let now = io.elapsed();
    !offers.defers_for.is_zero()
        && io.ledger().first_heard(forward_path, now).is_some_and(|first| now < first + offers.defers_for)
}

/// RFC 5321 §4.5.3.2 lets a client wait minutes; the longest stall is longer than any of them.
const STALLS_MS: [std::ops::Range<u64>; 3] = [50..2_000, 2_000..60_000, 300_000..1_500_000];

impl Session {
    pub(super) fn new(link: Link) -> Session {
        Session {
            link,
            stage: Stage::Greeting,
            input: Vec::new(),
            greeted: false,
            reverse_path: None,
            recipients: Vec::new(),
            content: Vec::new(),
            messages: 0,
            stall: None,
            stalled: false,
            spared: false,
            unheard: Vec::new(),
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    pub(super) fn poll_stall(&mut self) -> Option<Duration> {
        self.stall.take()
    }

    pub(super) fn handle_stall_over(&mut self) {
        self.stalled = false;
    }

    pub(super) fn handle_bytes(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// The connection is over: replies that the client never read are noted.
    pub(super) fn handle_ended(&mut self, io: &mut Io<'_>) {
        let (_, read) = io.written_and_read(self.link);
        for (end, places) in self.unheard.drain(..) {
            if read < end {
                io.ledger().unheard(&places);
            }
        }
        self.stage = Stage::Ended;
    }

    pub(super) fn work(&mut self, io: &mut Io<'_>, offers: &Offers) {
        loop {
            let went_on = !self.stalled
                && match self.stage {
                    Stage::Greeting => self.greet(io, offers),
                    Stage::Command => self.take_command(io, offers),
                    Stage::Data => self.take_data(io, offers),
                    Stage::Chunk { len, last } => self.take_chunk(io, offers, len, last),
                    Stage::Ended => false,
                };
            if !went_on {
                return;
            }
        }
    }

    // ---- chance ----

    /// True if something went wrong before this command could be looked at.
    fn is_disturbed(&mut self, io: &mut Io<'_>) -> bool {
        if std::mem::take(&mut self.spared) {
            return false;
        }
        if io.hits(|weather| weather.sink_drops) {
            self.drop_link(io);
            return true;
        }
        if io.hits(|weather| weather.sink_stalls) {
            let span = io.rng().pick(&STALLS_MS).clone();
            self.stall = Some(Duration::from_millis(io.rng().range(&span)));
            (self.stalled, self.spared) = (true, true);
            return true;
        }
        false
    }

    fn drop_link(&mut self, io: &mut Io<'_>) {
        self.handle_ended(io);
        if io.rng().coin() { io.reset(self.link) } else { io.close(self.link) }
    }

    fn defers(&mut self, io: &mut Io<'_>) -> bool {
        io.hits(|weather| weather.sink_defers)
    }

    /// Bounces are never refused for good, or the audit could not tell them from lost ones.
    fn fails(&mut self, io: &mut Io<'_>) -> bool {
        self.reverse_path.as_deref() != Some("") && io.hits(|weather| weather.sink_fails)
    }

    // ---- commands ----

    fn say(&mut self, io: &mut Io<'_>, offers: &Offers, reply: &str) {
        let (code, text) = reply.split_at(3);
        let first = if offers.multiline && io.rng().below(8) == 0 {
            format!("{code}-more follows\r\n")
        } else {
            String::new()
        };
        io.send(self.link, format!("{first}{code}{text}\r\n").as_bytes());
    }

    fn blame(&mut self, io: &mut Io<'_>, what: &str) {
        io.ledger().corrupt(format!("SMTP: the client of a sink {what}"));
    }

    fn greet(&mut self, io: &mut Io<'_>, offers: &Offers) -> bool {
        if !self.spared && !self.input.is_empty() {
            self.blame(io, "spoke before the greeting");
        }
        if self.is_disturbed(io) {
            return true;
        }
        self.stage = Stage::Command;
        if self.defers(io) {
            self.say(io, offers, "421 4.3.2 not now");
            self.drop_link(io);
        } else {
            self.say(io, offers, "220 sink.example ESMTP");
        }
        true
    }

    fn take_command(&mut self, io: &mut Io<'_>, offers: &Offers) -> bool {
        let Some(end) = memmem::find(&self.input, b"\r\n") else { return false };
        if self.is_disturbed(io) {
            return true;
        }
        let line = String::from_utf8_lossy(&self.input[..end]).into_owned();
        self.input.drain(..end + 2);
        let (verb, argument) = line.split_once(' ').unwrap_or((&line, ""));
        let verb = verb.to_ascii_uppercase();
        if !self.input.is_empty() && !may_be_followed(&verb, argument, offers) {
            self.blame(io, &format!("sent more behind {line:?}, to a host with {offers:?}"));
        }
        self.on_command(io, offers, &verb, argument);
        true
    }

    fn on_command(&mut self, io: &mut Io<'_>, offers: &Offers, verb: &str, argument: &str) {
        match verb {
            "EHLO" if !offers.ehlo => self.say(io, offers, "502 5.5.1 HELO is all we know"),
            "EHLO" | "HELO" => self.on_hello(io, offers, verb),
            "MAIL" => self.on_mail(io, offers, argument),
            "RCPT" => self.on_rcpt(io, offers, argument),
            "DATA" => self.on_data(io, offers),
            "BDAT" => self.on_bdat(io, offers, argument),
            "RSET" => {
                self.forget_transaction();
                self.say(io, offers, "250 2.0.0 forgotten");
            }
            "NOOP" => self.say(io, offers, "250 2.0.0 ok"),
            "QUIT" => self.on_quit(io, offers),
            _ => {
                self.blame(io, &format!("said {verb:?}"));
                self.say(io, offers, "500 5.5.2 what?");
            }
        }
    }

    fn on_hello(&mut self, io: &mut Io<'_>, offers: &Offers, verb: &str) {
        self.greeted = true;
        self.forget_transaction();
        if verb == "HELO" {
            return self.say(io, offers, "250 sink.example");
        }
        let mut reply = String::from("250-sink.example\r\n");
        for (offered, name) in [
            (offers.pipelining, "PIPELINING"),
            (offers.chunking, "CHUNKING"),
            (offers.multiline, "X-WHATEVER 1 2"),
        ] {
            if offered {
                reply.push_str(&format!("250-{name}\r\n"));
            }
        }
        reply.push_str("250-SIZE 50000000\r\n250-ENHANCEDSTATUSCODES\r\n250 8BITMIME\r\n");
        io.send(self.link, reply.as_bytes());
    }

    fn on_mail(&mut self, io: &mut Io<'_>, offers: &Offers, argument: &str) {
        let Some(path) = path_of(argument, "FROM:") else {
            self.blame(io, &format!("said MAIL {argument:?}"));
            return self.say(io, offers, "501 5.5.4 MAIL FROM:<path>");
        };
        if !self.greeted || self.reverse_path.is_some() {
            self.blame(io, "said MAIL out of turn");
            self.say(io, offers, "503 5.5.1 not now");
        } else if self.messages >= offers.messages_max {
            self.say(io, offers, "421 4.7.0 enough for one connection");
            self.handle_ended(io);
            io.close(self.link);
        } else if self.defers(io) {
            self.say(io, offers, "451 4.3.0 later");
        } else {
            self.reverse_path = Some(path);
            self.say(io, offers, "250 2.1.0 ok");
        }
    }

    fn on_rcpt(&mut self, io: &mut Io<'_>, offers: &Offers, argument: &str) {
        let Some(path) = path_of(argument, "TO:") else {
            self.blame(io, &format!("said RCPT {argument:?}"));
            return self.say(io, offers, "501 5.5.4 RCPT TO:<path>");
        };
        if self.reverse_path.is_none() {
            // Behind a refused MAIL this is what pipelining does.
            self.say(io, offers, "503 5.5.1 MAIL first");
        } else if path.starts_with(GONE) || self.fails(io) {
            io.ledger().failed(&path);
            self.say(io, offers, "550 5.1.1 no such mailbox");
        } else if self.recipients.len() >= offers.recipients_max {
            self.say(io, offers, "452 4.5.3 too many recipients");
        } else if self.defers(io) || is_early(io, offers, &path) {
            self.say(io, offers, "450 4.2.1 later");
        } else {
            self.recipients.push(path);
            self.say(io, offers, "250 2.1.5 ok");
        }
    }

    fn on_data(&mut self, io: &mut Io<'_>, offers: &Offers) {
        // RFC 2920 §3.1: a server may say 354 even if it took no recipient.
        let takes_anyway = self.reverse_path.is_some() && io.rng().below(4) == 0;
        if self.recipients.is_empty() && !takes_anyway {
            self.say(io, offers, "554 5.5.1 no valid recipients");
        } else if self.defers(io) {
            self.forget_transaction();
            self.say(io, offers, "451 4.3.0 later");
        } else {
            self.stage = Stage::Data;
            self.say(io, offers, "354 go ahead");
        }
    }

    fn on_bdat(&mut self, io: &mut Io<'_>, offers: &Offers, argument: &str) {
        let mut words = argument.split_ascii_whitespace();
        let len = words.next().and_then(|word| word.parse().ok());
        let last = words.next().is_some_and(|word| word.eq_ignore_ascii_case("LAST"));
        match len {
            Some(len) if offers.chunking => self.stage = Stage::Chunk { len, last },
            _ => {
                self.blame(io, &format!("said BDAT {argument:?} to a host with {offers:?}"));
                self.say(io, offers, "502 5.5.1 no");
            }
        }
    }

    fn on_quit(&mut self, io: &mut Io<'_>, offers: &Offers) {
        self.say(io, offers, "221 2.0.0 bye");
        self.stage = Stage::Ended;
        io.close(self.link);
    }

    // ---- content ----

    fn take_data(&mut self, io: &mut Io<'_>, offers: &Offers) -> bool {
        let end = match memmem::find(&self.input, b"\r\n.\r\n") {
            _ if self.input.starts_with(b".\r\n") => 0,
            Some(at) => at + 2,
            None => return false,
        };
        let taken: Vec<u8> = self.input.drain(..end + 3).collect();
        if !self.input.is_empty() && !offers.pipelining {
            self.blame(io, "sent more behind the final dot, to a host without PIPELINING");
        }
        self.content = unstuffed(&taken[..end]);
        self.stage = Stage::Command;
        self.end_message(io, offers);
        true
    }

    fn take_chunk(&mut self, io: &mut Io<'_>, offers: &Offers, len: usize, last: bool) -> bool {
        if self.input.len() < len {
            return false;
        }
        self.stage = Stage::Command;
        self.content.extend(self.input.drain(..len));
        if self.recipients.is_empty() {
            self.forget_transaction();
            self.say(io, offers, "503 5.5.1 no valid recipients");
        } else if last {
            self.end_message(io, offers);
        } else {
            self.say(io, offers, "250 2.0.0 go on");
        }
        true
    }

    fn end_message(&mut self, io: &mut Io<'_>, offers: &Offers) {
        if self.recipients.is_empty() {
            self.say(io, offers, "554 5.5.1 no valid recipients");
        } else if self.defers(io) {
            self.say(io, offers, "451 4.3.0 later");
        } else if self.fails(io) {
            for recipient in &self.recipients {
                io.ledger().failed(recipient);
            }
            self.say(io, offers, "554 5.7.1 we do not want this");
        } else {
            self.accept_message(io, offers);
        }
        self.forget_transaction();
    }

    fn accept_message(&mut self, io: &mut Io<'_>, offers: &Offers) {
        self.messages += 1;
        let from = self.reverse_path.clone().unwrap_or_default();
        let places: Vec<Place> =
            self.recipients.iter().filter_map(|to| io.ledger().delivered(&from, to, &self.content)).collect();
        io.note("delivered", places.len() as u64);
        if io.hits(|weather| weather.sink_drops_after_accept) {
            io.ledger().unheard(&places);
            return self.drop_link(io);
        }
        self.say(io, offers, "250 2.0.0 taken");
        let (written, _) = io.written_and_read(self.link);
        self.unheard.push((written, places));
    }

    fn forget_transaction(&mut self) {
        self.reverse_path = None;
        self.recipients.clear();
        self.content.clear();
    }
}

/// RFC 2920 §3.1: EHLO, DATA, QUIT and NOOP end a group; RFC 3030 adds nothing to that for BDAT, whose octets follow.
fn may_be_followed(verb: &str, argument: &str, offers: &Offers) -> bool {
    match verb {
        "BDAT" => !argument.starts_with("0 ") || offers.pipelining,
        "MAIL" | "RCPT" | "RSET" => offers.pipelining,
        _ => false,
    }
}

/// `FROM:<ann@example.net> SIZE=1` → `ann@example.net`.
fn path_of(argument: &str, keyword: &str) -> Option<String> {
    let rest = argument
        .get(..keyword.len())
        .filter(|start| start.eq_ignore_ascii_case(keyword))
        .map(|_| &argument[keyword.len()..])?;
    let (path, _) = rest.strip_prefix('<')?.split_once('>')?;
    Some(path.to_owned())
}

/// RFC 5321 §4.5.2: a dot that begins a line is not content.
fn unstuffed(data: &[u8]) -> Vec<u8> {
    let mut content = Vec::with_capacity(data.len());
    for line in data.split_inclusive(|octet| *octet == b'\n') {
        content.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
    content
}
