//! One connection of an injector: what it sends is a queue of steps, what it waits for a queue of replies.
//!
//! Without PIPELINING a step waits for the reply to the one before it. With it, steps go out together up to the
//! next one that must be waited for; the seed decides how a session uses what it is offered.

use super::super::actor::Io;
use super::super::ledger::Place;
use super::super::letter::{Intake, Letter};
use super::super::net::Link;
use super::super::rng::Rng;
use memchr::memmem;
use message::Verp;
use message::content::dot_stuff;
use std::collections::VecDeque;
use std::time::Duration;

/// What the next reply is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Expect {
    Greeting,
    Hello,
    Mail,
    /// Index in the transaction.
    Rcpt(usize),
    Data,
    Chunk,
    /// The reply that is the promise.
    Commit,
    Reset,
    Quit,
}

struct Step {
    bytes: Vec<u8>,
    expect: Expect,
}

struct Transaction {
    letter: usize,
    attempts: u32,
    /// Recipients by index in the letter; what RCPT was answered.
    recipients: Vec<(usize, Option<u16>)>,
    offered: bool,
    /// Cannot succeed; it is over when the replies to what was sent of it are in.
    abandoned: bool,
}

/// How this session behaves; a wish is granted only if the server offers it.
struct Manners {
    pipelining: bool,
    chunking: bool,
    /// Sends the next letter's commands behind the end of this one.
    eager: bool,
    chunks: usize,
    messages_max: u32,
}

pub(super) struct Session {
    link: Link,
    input: Vec<u8>,
    expected: VecDeque<Expect>,
    steps: VecDeque<Step>,
    transactions: VecDeque<Transaction>,
    returned: Vec<(usize, u32)>,
    manners: Manners,
    eight_bit: bool,
    xverp: bool,
    priorities: bool,
    replies: u64,
    messages: u32,
    pause: Option<Duration>,
    pausing: bool,
    said_helo: bool,
    quitting: bool,
    ended: bool,
}

impl Session {
    pub(super) fn new(link: Link, rng: &mut Rng) -> Session {
        let manners = Manners {
            pipelining: rng.below(4) != 0,
            chunking: rng.coin(),
            eager: rng.coin(),
            chunks: 1 + rng.index(3),
            messages_max: *rng.pick(&[1, 3, 10, 1_000]),
        };
        Session {
            link,
            input: Vec::new(),
            expected: VecDeque::from([Expect::Greeting]),
            steps: VecDeque::new(),
            transactions: VecDeque::new(),
            returned: Vec::new(),
            manners,
            eight_bit: false,
            xverp: false,
            priorities: false,
            replies: 0,
            messages: 0,
            pause: None,
            pausing: false,
            said_helo: false,
            quitting: false,
            ended: false,
        }
    }

    pub(super) fn replies(&self) -> u64 {
        self.replies
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn is_pausing(&self) -> bool {
        self.pausing
    }

    pub(super) fn poll_pause(&mut self) -> Option<Duration> {
        self.pause.take()
    }

    /// Letters whose transaction is over, for whatever is left of them.
    pub(super) fn take_returned(&mut self) -> Vec<(usize, u32)> {
        std::mem::take(&mut self.returned)
    }

    pub(super) fn handle_pause_over(&mut self) {
        self.pausing = false;
    }

    // ---- sending ----

    pub(super) fn work(&mut self, io: &mut Io<'_>, queue: &mut VecDeque<(usize, u32)>) {
        while !self.ended && !self.pausing {
            self.plan_more(io, queue);
            if !self.may_send_next() {
                return;
            }
            if io.hits(|weather| weather.injector_drops) {
                return self.give_up(io);
            }
            if io.hits(|weather| weather.injector_stalls) {
                let span = io.rng().pick(&[10..3_000, 30_000..400_000]).clone();
                self.pause = Some(Duration::from_millis(io.rng().range(&span)));
                self.pausing = true;
            }
            self.send_next(io);
        }
    }

    fn may_send_next(&self) -> bool {
        let behind_barrier = self
            .expected
            .iter()
            .any(|expect| matches!(expect, Expect::Greeting | Expect::Hello | Expect::Data | Expect::Quit));
        !self.steps.is_empty() && (self.expected.is_empty() || self.manners.pipelining && !behind_barrier)
    }

    fn send_next(&mut self, io: &mut Io<'_>) {
        let step = self.steps.pop_front().expect("may_send_next looked");
        self.expected.push_back(step.expect);
        if step.expect == Expect::Commit {
            self.offer(io);
        }
        io.send(self.link, &step.bytes);
    }

    /// From here on the core may take the letter without our knowing.
    fn offer(&mut self, io: &mut Io<'_>) {
        let Some(transaction) = self.transactions.back_mut() else { return };
        transaction.offered = true;
        for place in transaction.open_places() {
            io.ledger().offered(place);
        }
    }

    /// Appends the next letter's steps when it is time for them.
    fn plan_more(&mut self, io: &mut Io<'_>, queue: &mut VecDeque<(usize, u32)>) {
        let greeted = !self.expected.iter().any(|expect| matches!(expect, Expect::Greeting | Expect::Hello));
        let all_offered = self.transactions.iter().all(|transaction| transaction.offered);
        let free =
            self.transactions.is_empty() || self.manners.eager && self.manners.pipelining && all_offered;
        if !greeted || !self.steps.is_empty() || !free || self.quitting {
            return;
        }
        while self.messages < self.manners.messages_max
            && let Some((letter, attempts)) = queue.pop_front()
        {
            let owed = io.ledger().owed(letter);
            if !owed.is_empty() {
                return self.plan_letter(io, letter, attempts, owed);
            }
        }
        if self.transactions.is_empty() {
            self.quitting = true;
            self.step("QUIT\r\n", Expect::Quit);
        }
    }

    fn step(&mut self, bytes: impl Into<Vec<u8>>, expect: Expect) {
        self.steps.push_back(Step { bytes: bytes.into(), expect });
    }

    fn plan_letter(&mut self, io: &mut Io<'_>, index: usize, attempts: u32, owed: Vec<usize>) {
        self.messages += 1;
        let letter = &io.ledger().letters[index];
        self.step(self.mail(letter), Expect::Mail);
        for (at, recipient) in owed.iter().enumerate() {
            self.step(format!("RCPT TO:<{}>\r\n", letter.recipients[*recipient].address), Expect::Rcpt(at));
        }
        if self.manners.chunking {
            self.plan_chunks(&letter.content)
        } else {
            self.step("DATA\r\n", Expect::Data)
        }
        let recipients = owed.into_iter().map(|recipient| (recipient, None)).collect();
        self.transactions.push_back(Transaction {
            letter: index,
            attempts: attempts + 1,
            recipients,
            offered: false,
            abandoned: false,
        });
    }

    fn mail(&self, letter: &Letter) -> String {
        let body = if self.eight_bit && letter.has_eight_bit() { " BODY=8BITMIME" } else { "" };
        let body = format!("{body}{}", self.priority(letter));
        match letter.verp.map(|verp| (verp, verp.to_bytes())) {
            Some((Verp::QMAIL, _)) => {
                let (local, domain) = letter.sender.split_once('@').expect("a VERP letter has a sender");
                format!("MAIL FROM:<{local}@{domain}-@[]>{body}\r\n")
            }
            Some((Verp::DEFAULT, _)) if self.xverp => {
                format!("MAIL FROM:<{}>{body} XVERP\r\n", letter.sender)
            }
            Some((_, [before, after])) if self.xverp => {
                format!(
                    "MAIL FROM:<{}>{body} XVERP={}{}\r\n",
                    letter.sender,
                    char::from(before),
                    char::from(after)
                )
            }
            _ => format!("MAIL FROM:<{}>{body}\r\n", letter.sender),
        }
    }

    /// Letters of all lanes: the rest are bulk with VERP, and normal without.
    fn priority(&self, letter: &Letter) -> &'static str {
        match letter.token % 4 {
            1 if self.priorities => " MT-PRIORITY=4",
            2 if self.priorities => " MT-PRIORITY=-4",
            _ => "",
        }
    }

    fn plan_chunks(&mut self, content: &[u8]) {
        let len = content.len().div_ceil(self.manners.chunks).max(1);
        let mut chunks = content.chunks(len).peekable();
        while let Some(chunk) = chunks.next() {
            let (last, expect) =
                if chunks.peek().is_none() { (" LAST", Expect::Commit) } else { ("", Expect::Chunk) };
            let mut bytes = format!("BDAT {}{last}\r\n", chunk.len()).into_bytes();
            bytes.extend_from_slice(chunk);
            self.step(bytes, expect);
        }
    }

    // ---- replies ----

    pub(super) fn handle_bytes(&mut self, io: &mut Io<'_>, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        while let Some((code, text)) = self.next_reply() {
            self.replies += 1;
            let Some(expect) = self.expected.pop_front() else {
                // RFC 5321 §3.8: 421 may come at any time.
                if code != 421 {
                    io.ledger().corrupt(format!("SMTP: the core said {code} to nothing: {text}"));
                }
                return self.give_up(io);
            };
            self.on_reply(io, expect, code, &text);
            if self.ended {
                return;
            }
            self.end_abandoned();
        }
    }

    /// A whole reply, with all its lines.
    fn next_reply(&mut self) -> Option<(u16, String)> {
        let mut end = 0;
        loop {
            let line_len = memmem::find(&self.input[end..], b"\r\n")? + 2;
            let goes_on = self.input.get(end + 3) == Some(&b'-');
            end += line_len;
            if !goes_on {
                break;
            }
        }
        let text: Vec<u8> = self.input.drain(..end).collect();
        let text = String::from_utf8_lossy(&text).into_owned();
        let code = text.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0);
        Some((code, text))
    }

    fn on_reply(&mut self, io: &mut Io<'_>, expect: Expect, code: u16, text: &str) {
        if matches!(expect, Expect::Mail | Expect::Commit) {
            io.ledger().replied(code);
        }
        match (expect, code / 100) {
            (_, _) if code == 421 => self.give_up(io),
            (Expect::Greeting, 2) => self.step("EHLO injector.example\r\n", Expect::Hello),
            (Expect::Hello, 2) => self.on_hello(text),
            (Expect::Hello, 5) if !self.said_helo => {
                self.said_helo = true;
                self.step("HELO injector.example\r\n", Expect::Hello);
            }
            (Expect::Greeting | Expect::Hello, _) => self.give_up(io),
            (Expect::Mail, 2) | (Expect::Chunk, 2) | (Expect::Reset, _) => {}
            (Expect::Mail, 5) => self.refuse_all(io),
            (Expect::Mail | Expect::Chunk, _) => self.abandon(),
            (Expect::Rcpt(at), _) => self.on_rcpt(io, at, code),
            (Expect::Data, 3) => self.send_data(io),
            (Expect::Data, _) => self.abandon(),
            (Expect::Commit, _) => self.on_commit(io, code),
            (Expect::Quit, _) => {
                io.close(self.link);
                self.ended = true;
            }
        }
    }

    fn on_hello(&mut self, text: &str) {
        let offers = |name: &str| {
            text.lines().any(|line| line.get(4..).is_some_and(|rest| rest.split(' ').next() == Some(name)))
        };
        self.manners.pipelining &= offers("PIPELINING");
        self.manners.chunking &= offers("CHUNKING");
        self.eight_bit = offers("8BITMIME");
        self.xverp = offers("XVERP");
        self.priorities = offers("MT-PRIORITY");
    }

    fn on_rcpt(&mut self, io: &mut Io<'_>, at: usize, code: u16) {
        let Some(transaction) = self.transactions.front_mut() else { return };
        transaction.recipients[at].1 = Some(code);
        // A refused MAIL makes every RCPT behind it a 503: that says nothing about the recipient.
        if code / 100 == 5 && code != 503 {
            let place = (transaction.letter, transaction.recipients[at].0);
            io.ledger().intake(place, Intake::Refused);
        }
        let answered = transaction.recipients.iter().all(|(_, code)| code.is_some());
        if answered && transaction.open_places().is_empty() && self.expected.is_empty() {
            self.abandon();
        }
    }

    fn send_data(&mut self, io: &mut Io<'_>) {
        let Some(transaction) = self.transactions.front() else { return };
        // RFC 2920 §3.1: with no recipient taken, all that may follow 354 is the dot.
        let mut bytes = match transaction.open_places().is_empty() {
            true => Vec::new(),
            false => dot_stuff(&io.ledger().letters[transaction.letter].content),
        };
        bytes.extend_from_slice(b".\r\n");
        self.steps.push_front(Step { bytes, expect: Expect::Commit });
    }

    fn on_commit(&mut self, io: &mut Io<'_>, code: u16) {
        let Some(transaction) = self.transactions.pop_front() else { return };
        for place in transaction.open_places() {
            match code / 100 {
                2 => io.ledger().intake(place, Intake::Accepted),
                // 503 follows a refusal that said what was wrong: of MAIL, or of a chunk before this one (a full disk's
                // 452). So does 554 5.5.1 of RCPT, so only a clean transaction is refused for good.
                5 if code != 503 && transaction.is_clean() => io.ledger().intake(place, Intake::Refused),
                _ => {}
            }
        }
        self.returned.push((transaction.letter, transaction.attempts));
    }

    fn refuse_all(&mut self, io: &mut Io<'_>) {
        if let Some(transaction) = self.transactions.front() {
            for place in transaction.open_places() {
                io.ledger().intake(place, Intake::Refused);
            }
        }
        self.abandon();
    }

    /// The transaction in front cannot succeed: what of it is not sent yet is not sent.
    fn abandon(&mut self) {
        if let Some(front) = self.transactions.front_mut().filter(|front| !front.offered) {
            front.abandoned = true;
            self.steps.clear();
        }
    }

    fn end_abandoned(&mut self) {
        let over = self.expected.is_empty() && self.steps.is_empty();
        if let Some(transaction) =
            self.transactions.pop_front_if(|front| over && front.abandoned && !front.offered)
        {
            self.returned.push((transaction.letter, transaction.attempts));
            self.step("RSET\r\n", Expect::Reset);
        }
    }

    // ---- ending ----

    /// Breaks the connection from this side.
    pub(super) fn give_up(&mut self, io: &mut Io<'_>) {
        if io.rng().coin() {
            io.reset(self.link)
        } else {
            io.close(self.link)
        }
        self.handle_ended(io);
    }

    pub(super) fn handle_ended(&mut self, io: &mut Io<'_>) {
        self.ended = true;
        for transaction in std::mem::take(&mut self.transactions) {
            if transaction.offered {
                for place in transaction.open_places() {
                    io.ledger().ambiguous(place);
                }
            }
            self.returned.push((transaction.letter, transaction.attempts));
        }
    }
}

impl Transaction {
    /// Recipients that this transaction may still be accepted for.
    fn open_places(&self) -> Vec<Place> {
        let open = self.recipients.iter().filter(|(_, code)| code.is_none_or(|code| code / 100 == 2));
        open.map(|(recipient, _)| (self.letter, *recipient)).collect()
    }

    /// Every recipient was taken.
    fn is_clean(&self) -> bool {
        self.recipients.iter().all(|(_, code)| code.is_some_and(|code| code / 100 == 2))
    }
}
