//! One connection on which a client gives us mail (RFC 5321).
//!
//! Decides, for each command, whether it is due; for each message, whether it goes to the queue; and when a
//! client has tried our patience. The caller passes the time, the gate of the queue and what the peer sent.
//!
//! A message is answered only after its store: until then its reply is a gap, later replies wait behind it, and
//! the client may go on, so that a pipelined window of messages shares one sync.
//!
//! Trusts nothing that the peer sent. What a peer sends after our goodbye is thrown away unread.
//! Bounds: [`crate::Limits`]. At `stores_in_flight_max` and `replies_max` we stop reading, and TCP slows the peer.

mod content;

use crate::command::{self, Command, Mail, Rcpt};
use crate::data::DataReader;
use crate::limits::{Client, Gate, Policy};
use crate::line::{Line, Lines};
use crate::output::{Flush, Output, Stored, Submission, TransactionKey};
use crate::replies::{self, Sentence};
use crate::reply_queue::ReplyQueue;
use crate::transaction::Transaction;
use message::{BodyKind, ForwardPath, MailboxRef};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The SMTP server side of one connection.
#[derive(Debug)]
pub struct Session {
    policy: Arc<Policy>,
    client: Client,
    /// `None` until EHLO or HELO.
    helo: Option<Helo>,
    reading: Reading,
    lines: Lines,
    transaction: Option<Box<Transaction>>,
    replies: ReplyQueue,
    stores: VecDeque<Box<Submission>>,
    /// Until it is taken we read no more.
    flush: Option<Box<Flush>>,
    next_key: u32,
    /// Bad commands since the last message that went to the queue.
    errors_count: u32,
    ending: Ending,
    deadline: Instant,
    /// The client did what wins it more time.
    progressed: bool,
    /// Octets of content until the next one wins more time.
    block_left: u64,
}

/// How the client introduced itself.
#[derive(Debug)]
struct Helo {
    name: String,
    extended: bool,
}

/// What the next octets are.
#[derive(Debug)]
enum Reading {
    Commands,
    Data(DataReader),
    Chunk(OpenChunk),
}

/// A chunk whose octets still come.
#[derive(Debug)]
struct OpenChunk {
    len: u64,
    left: u64,
    last: bool,
    /// Its octets are skipped, and this is said at their end.
    refusal: Option<Sentence>,
}

/// How far the session is from its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ending {
    Open,
    /// We read no more, and say goodbye when the last store ended.
    Draining,
    /// Goodbye is said; we close when it was taken.
    Closing,
    Closed,
}

/// What has been agreed on so far; decides which commands are due.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// Before EHLO or HELO.
    Start,
    Ready,
    /// After MAIL.
    Envelope,
    /// After a first BDAT.
    Chunks,
}

impl Session {
    /// The greeting is queued.
    pub fn new(now: Instant, policy: Arc<Policy>, client: Client) -> Session {
        let mut replies = ReplyQueue::default();
        replies::greeting(&policy, replies.tail());
        Session {
            deadline: now + Duration::from_secs(policy.timeouts.command_secs),
            block_left: policy.timeouts.data_block_len,
            policy,
            client,
            helo: None,
            reading: Reading::Commands,
            lines: Lines::default(),
            transaction: None,
            replies,
            stores: VecDeque::new(),
            flush: None,
            next_key: 0,
            errors_count: 0,
            ending: Ending::Open,
            progressed: false,
        }
    }

    /// Returns how many octets it used. It uses fewer when a bound is reached; the caller keeps the rest and
    /// calls again after `handle_stored` or once replies were taken.
    pub fn handle_bytes(&mut self, now: Instant, gate: Gate, bytes: &[u8]) -> usize {
        let mut used = 0;
        while used < bytes.len() && self.ending == Ending::Open && !self.is_blocked() {
            used += self.read(gate, &bytes[used..]);
        }
        if std::mem::take(&mut self.progressed) {
            self.restart_deadline(now);
        }
        if self.ending == Ending::Open { used } else { bytes.len() }
    }

    /// Answers a message. A key that is not in flight is a bug of the caller's and changes nothing.
    pub fn handle_stored(&mut self, now: Instant, transaction: TransactionKey, outcome: Stored) {
        self.replies.fill(transaction, outcome);
        self.restart_deadline(now);
        self.close_if_drained();
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|deadline| deadline <= now) {
            self.close_with(replies::IDLE);
        }
    }

    /// The daemon stops: what is in flight is still answered, then `421`.
    pub fn handle_shutdown(&mut self, _now: Instant) {
        if self.ending == Ending::Open {
            self.stop_reading(Ending::Draining);
            self.close_if_drained();
        }
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(submission) = self.stores.pop_front() {
            return Some(Output::Store(submission));
        }
        if let Some(flush) = self.flush.take() {
            return Some(Output::Flush(*flush));
        }
        if self.ending == Ending::Closing && self.replies.is_empty() {
            self.ending = Ending::Closed;
            return Some(Output::Close);
        }
        None
    }

    /// Appends what may be sent now to `out`; true if there was anything.
    pub fn take_replies(&mut self, out: &mut Vec<u8>) -> bool {
        self.replies.take(out)
    }

    /// `None` while the client waits for us: a store is in flight, or goodbye is said.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (self.ending == Ending::Open && self.replies.gap_count() == 0).then_some(self.deadline)
    }

    /// Memory held for the open transaction: content and recipients.
    pub fn buffered_len(&self) -> usize {
        self.transaction.as_ref().map_or(0, |transaction| transaction.len_bytes())
    }

    /// True between transactions with nothing in flight, nothing to send and no command begun.
    pub fn is_idle(&self) -> bool {
        let at_rest = matches!(self.reading, Reading::Commands) && self.lines.is_empty();
        at_rest && self.transaction.is_none() && self.replies.is_empty()
    }

    /// True at a bound that `handle_stored`, `poll_output` or `take_replies` lifts.
    fn is_blocked(&self) -> bool {
        let limits = &self.policy.limits;
        self.replies.gap_count() >= limits.stores_in_flight_max.max(1)
            || self.replies.len() >= limits.replies_max.max(1)
            || self.flush.is_some()
    }

    fn restart_deadline(&mut self, now: Instant) {
        let timeouts = &self.policy.timeouts;
        let secs = match self.reading {
            Reading::Commands => timeouts.command_secs,
            Reading::Data(_) | Reading::Chunk(_) => timeouts.data_secs,
        };
        self.block_left = timeouts.data_block_len;
        self.deadline = now + Duration::from_secs(secs);
    }

    fn close_if_drained(&mut self) {
        if self.ending == Ending::Draining && self.replies.gap_count() == 0 {
            self.close_with(replies::SHUTTING_DOWN);
        }
    }

    fn close_with(&mut self, goodbye: Sentence) {
        self.say(goodbye);
        self.stop_reading(Ending::Closing);
    }

    fn stop_reading(&mut self, ending: Ending) {
        self.ending = ending;
        self.reading = Reading::Commands;
        self.lines = Lines::default();
        self.transaction = None;
    }

    fn say(&mut self, sentence: Sentence) {
        self.replies.say(sentence);
    }

    /// Says no to a command that no client in its right mind sends, and counts it.
    fn refuse(&mut self, sentence: Sentence) {
        self.errors_count += 1;
        if self.errors_count >= self.policy.limits.errors_max {
            self.close_with(replies::TOO_MANY_ERRORS);
        } else {
            self.say(sentence);
        }
    }
}

/// Octets in: lines, content, chunks.
impl Session {
    /// Uses at least one octet.
    fn read(&mut self, gate: Gate, bytes: &[u8]) -> usize {
        match self.reading {
            Reading::Commands => self.read_line(gate, bytes),
            Reading::Data(_) => self.read_data(bytes),
            Reading::Chunk(_) => self.read_chunk(bytes),
        }
    }

    fn read_line(&mut self, gate: Gate, bytes: &[u8]) -> usize {
        let (used, line) = self.lines.take(bytes, self.policy.limits.command_line_max);
        self.progressed |= line.is_some();
        match line {
            Some(Line::InPlace(line)) => self.on_line(gate, line),
            Some(Line::Joined(line)) => self.on_line(gate, &line),
            Some(Line::TooLong) => self.refuse(replies::LINE_TOO_LONG),
            None => {}
        }
        used
    }
}

/// Commands.
impl Session {
    fn on_line(&mut self, gate: Gate, line: &[u8]) {
        match command::parse(line) {
            Ok(command) => self.on_command(gate, command),
            Err(sentence) => self.refuse(sentence),
        }
    }

    /// What is out of turn is not counted as an error: whoever pipelines cannot know that what it builds on
    /// was refused.
    fn on_command(&mut self, gate: Gate, command: Command<'_>) {
        use Phase::{Chunks, Envelope, Ready, Start};
        match (self.phase(), command) {
            (Envelope, Command::Rcpt(path)) => self.on_rcpt(path),
            (Start | Ready, Command::Rcpt(_)) => self.say(replies::MAIL_FIRST),
            (Chunks, Command::Rcpt(_)) => self.say(replies::CHUNKS_BEGUN),
            (Ready, Command::Mail(mail)) => self.on_mail(gate, mail),
            (Start, Command::Mail(_)) => self.say(replies::HELO_FIRST),
            (Envelope | Chunks, Command::Mail(_)) => self.say(replies::NESTED_MAIL),
            (Envelope, Command::Data) => self.on_data(gate),
            (Start | Ready, Command::Data) => self.say(replies::MAIL_FIRST),
            (Chunks, Command::Data) => self.say(replies::CHUNKS_BEGUN),
            (_, Command::Bdat(chunk)) => self.on_bdat(gate, chunk),
            (_, Command::UnsizedBdat) => self.close_with(replies::BDAT_SYNTAX),
            (_, Command::Ehlo(name)) => self.on_helo(name, true),
            (_, Command::Helo(name)) => self.on_helo(name, false),
            (_, Command::Rset) => self.on_rset(),
            (_, Command::Noop) => self.say(replies::NOTHING_DONE),
            (_, Command::Vrfy) => self.say(replies::CANNOT_VERIFY),
            (_, Command::Help) => self.say(replies::HELP),
            (_, Command::Quit) => self.close_with(replies::BYE),
            (Ready, Command::Etrn(flush)) => self.on_etrn(flush),
            (Start, Command::Etrn(_)) => self.say(replies::HELO_FIRST),
            (Envelope | Chunks, Command::Etrn(_)) => self.say(replies::ETRN_IN_TRANSACTION),
            (_, Command::NotOffered) => self.refuse(replies::NOT_OFFERED),
            (_, Command::WebRequest) => self.close_with(replies::NOT_A_WEB_SERVER),
        }
    }

    fn phase(&self) -> Phase {
        match (&self.helo, &self.transaction) {
            (None, _) => Phase::Start,
            (Some(_), None) => Phase::Ready,
            (Some(_), Some(transaction)) if transaction.chunks_begun => Phase::Chunks,
            (Some(_), Some(_)) => Phase::Envelope,
        }
    }

    /// RFC 5321 §4.1.4: a later EHLO is also a RSET.
    fn on_helo(&mut self, name: &str, extended: bool) {
        self.transaction = None;
        self.helo = Some(Helo { name: name.to_owned(), extended });
        let tail = self.replies.tail();
        match extended {
            true => replies::ehlo(&self.policy, self.client.may_flush, tail),
            false => replies::helo(&self.policy, tail),
        }
    }

    /// Whether anything waits is not known here: RFC 1985 §5.3 lets us say that it begins.
    fn on_etrn(&mut self, flush: Result<Flush, Sentence>) {
        match flush {
            _ if !self.client.may_flush => self.refuse(replies::ETRN_DENIED),
            Ok(flush) => {
                self.flush = Some(Box::new(flush));
                self.say(replies::FLUSH_BEGUN);
            }
            Err(sentence) => self.refuse(sentence),
        }
    }

    fn on_rset(&mut self) {
        self.transaction = None;
        self.say(replies::RESET);
    }

    fn on_mail(&mut self, gate: Gate, mail: Result<Mail, Sentence>) {
        let mail = match mail {
            Ok(mail) => mail,
            Err(sentence) => return self.refuse(sentence),
        };
        match self.check_mail(gate, &mail) {
            Ok(()) => {
                self.transaction = Some(Box::new(Transaction::new(mail, self.policy.limits.size_max)));
                self.say(replies::SENDER_OK);
            }
            Err(sentence) => self.say(sentence),
        }
    }

    fn check_mail(&self, gate: Gate, mail: &Mail) -> Result<(), Sentence> {
        if mail.body == BodyKind::BinaryMime && !self.policy.offer_chunking {
            return Err(replies::BAD_PARAMETER);
        }
        if mail.size.is_some_and(|size| size > self.policy.limits.size_max) {
            return Err(replies::TOO_BIG);
        }
        check_gate(gate)
    }

    /// The hot path of a large list: no allocation beyond the list's own growth.
    fn on_rcpt(&mut self, rcpt: Result<Rcpt<'_>, Sentence>) {
        match rcpt.and_then(|rcpt| self.add_recipient(&rcpt)) {
            Ok(()) => self.say(replies::RECIPIENT_OK),
            Err(sentence) => self.refuse_recipient(sentence),
        }
    }

    fn add_recipient(&mut self, rcpt: &Rcpt<'_>) -> Result<(), Sentence> {
        if !self.client.may_relay {
            return Err(replies::RELAY_DENIED);
        }
        let Some(transaction) = &mut self.transaction else {
            return Err(replies::MAIL_FIRST);
        };
        let mailbox = match rcpt.path {
            ForwardPath::Mailbox(mailbox) => mailbox,
            ForwardPath::Postmaster => {
                MailboxRef { local_part: "postmaster", domain: &self.policy.host_name }
            }
        };
        transaction.add_recipient(mailbox, rcpt.asked, self.policy.limits.recipients_max)
    }

    /// The list of a client that may relay can have any number of bad addresses; whoever may not is guessing.
    fn refuse_recipient(&mut self, sentence: Sentence) {
        if let Some(transaction) = &mut self.transaction {
            transaction.note_refused_recipient();
        }
        if self.client.may_relay { self.say(sentence) } else { self.refuse(sentence) }
    }

    fn on_data(&mut self, gate: Gate) {
        let Some(transaction) = &mut self.transaction else {
            return self.say(replies::MAIL_FIRST);
        };
        let check = match transaction.envelope.body {
            BodyKind::BinaryMime => Err(replies::BINARY_NEEDS_BDAT),
            BodyKind::SevenBit | BodyKind::EightBitMime => transaction.check_recipients(),
        };
        match check.and_then(|()| check_gate(gate)) {
            Ok(()) => {
                transaction.reserve();
                self.reading = Reading::Data(DataReader::new());
                self.say(replies::SEND_DATA);
            }
            Err(sentence) => self.say(sentence),
        }
    }
}

fn check_gate(gate: Gate) -> Result<(), Sentence> {
    match gate {
        Gate::Open => Ok(()),
        Gate::Full => Err(replies::QUEUE_FULL),
        Gate::Broken => Err(replies::QUEUE_BROKEN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{Limits, Timeouts};
    use std::net::{IpAddr, Ipv4Addr};

    fn session(now: Instant) -> Session {
        let limits = Limits {
            size_max: 1000,
            recipients_max: 100_000,
            command_line_max: 2048,
            errors_max: 10,
            hops_max: 100,
            stores_in_flight_max: 16,
            replies_max: 1000,
        };
        let timeouts = Timeouts { command_secs: 300, data_secs: 180, data_block_len: 1024 };
        let policy = Policy {
            host_name: "mx.example.org".to_owned(),
            limits,
            timeouts,
            bulk_recipients: 100,
            offer_chunking: true,
        };
        Session::new(
            now,
            Arc::new(policy),
            Client { address: IpAddr::V4(Ipv4Addr::LOCALHOST), may_relay: true, may_flush: false },
        )
    }

    fn taken(session: &mut Session) -> String {
        let mut out = Vec::new();
        session.take_replies(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn greets_before_the_client_speaks() {
        let mut session = session(Instant::now());
        assert!(!session.is_idle());
        assert_eq!(taken(&mut session), "220 mx.example.org ESMTP ringpost\r\n");
        assert!(session.is_idle());
    }

    #[test]
    fn unread_replies_stop_the_reading() {
        let now = Instant::now();
        let mut session = session(now);
        let commands = b"NOOP\r\n".repeat(200);
        let (mut at, mut replies) = (0, String::new());
        while at < commands.len() {
            let used = session.handle_bytes(now, Gate::Open, &commands[at..]);
            assert!(used.is_multiple_of(6) && used <= 6 * 80, "{used} octets at once");
            assert_eq!(session.handle_bytes(now, Gate::Open, &commands[at + used..]), 0);
            at += used;
            replies += &taken(&mut session);
        }
        assert_eq!(replies.matches("250 2.0.0 Ok\r\n").count(), 200);
    }

    #[test]
    fn open_transaction_tells_what_it_holds_and_gives_it_back() {
        let now = Instant::now();
        let mut session = session(now);
        session.handle_bytes(
            now,
            Gate::Open,
            b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<ann@example.net>\r\nBDAT 500\r\n",
        );
        session.handle_bytes(now, Gate::Open, &[b'x'; 500]);
        assert!(session.buffered_len() >= 500 + 16, "{}", session.buffered_len());
        session.handle_bytes(now, Gate::Open, b"RSET\r\n");
        assert_eq!(session.buffered_len(), 0);
    }

    #[test]
    fn close_comes_once_and_after_the_last_reply() {
        let now = Instant::now();
        let mut session = session(now);
        assert_eq!(session.handle_bytes(now, Gate::Open, b"QUIT\r\nNOOP\r\n"), 12);
        assert!(session.poll_output().is_none());
        assert!(taken(&mut session).ends_with("221 2.0.0 Bye\r\n"));
        assert!(matches!(session.poll_output(), Some(Output::Close)));
        assert!(session.poll_output().is_none());
        assert_eq!((session.handle_bytes(now, Gate::Open, b"NOOP\r\n"), session.poll_timeout()), (6, None));
    }

    #[test]
    fn time_out_that_is_not_due_does_nothing() {
        let now = Instant::now();
        let mut session = session(now);
        taken(&mut session);
        session.handle_timeout(now + Duration::from_secs(299));
        assert_eq!(taken(&mut session), "");
    }

    #[test]
    fn idle_session_is_small() {
        assert!(size_of::<Session>() <= 512, "{}", size_of::<Session>());
    }
}
