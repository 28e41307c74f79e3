//! One connection on which a client gives us mail (RFC 5321).
//!
//! Decides, for each command, whether it is due; for each message, whether it goes to the queue; and when a
//! client has tried our patience. The caller passes the time, a [`Door`] that knows who may do what, and what the peer
//! sent; what takes longer to find out is a question ([`Output::Ask`]), and until it is answered we read no more.
//!
//! A message is answered only after its store: until then its reply is a gap, later replies wait behind it, and
//! the client may go on, so that a pipelined window of messages shares one sync.
//!
//! Trusts nothing that the peer sent. What a peer sends after our goodbye is thrown away unread.
//! Bounds: [`crate::Limits`]. At `stores_in_flight_max` and `replies_max` we stop reading, and TCP slows the peer.

mod commands;
mod content;
mod introduction;
mod reading;
mod refusing;
mod securing;
mod turning;

use crate::data::DataReader;
use crate::door::{Answer, Arrival, Client, Door};
use crate::limits::Policy;
use crate::line::Lines;
use crate::output::{Output, Rejection, Stage, Stored, Submission, TransactionKey};
use crate::replies::{self, Sentence};
use crate::reply_queue::ReplyQueue;
use crate::tls::{Encrypted, Tunnel};
use crate::transaction::Transaction;
use introduction::After;
use securing::Securing;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The SMTP server side of one connection.
#[derive(Debug)]
pub struct Session {
    policy: Arc<Policy>,
    client: Arc<Client>,
    nonce: [u8; 16],
    /// `None` until EHLO or HELO.
    helo: Option<Helo>,
    reading: Reading,
    waiting: Waiting,
    lines: Lines,
    transaction: Option<Box<Transaction>>,
    replies: ReplyQueue,
    stores: VecDeque<Box<Submission>>,
    /// Until it is taken we read no more.
    due: Option<Box<Output>>,
    rejections: VecDeque<Box<Rejection>>,
    securing: Securing,
    tunnel: Option<Box<Tunnel>>,
    encrypted: Option<Encrypted>,
    /// Where the command stands that is carried out, for rejections.
    stage: Stage,
    next_key: u32,
    /// Bad commands since the last message that went to the queue.
    errors_count: u32,
    /// Commands since then that brought no mail on.
    idle_count: u32,
    ending: Ending,
    deadline: Instant,
    /// The client did what wins it more time.
    progressed: bool,
    /// Octets of content until the next one wins more time.
    block_left: u64,
    is_greeted: bool,
    /// Opened octets wait in the tunnel.
    has_plain: bool,
}

/// How the client introduced itself.
#[derive(Debug)]
struct Helo {
    name: Box<str>,
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

/// What must come before we read on.
#[derive(Debug)]
enum Waiting {
    Nothing,
    /// Who the client is; then this.
    Introduction(After),
    /// The time of the greeting, which is `deadline`.
    Greeting,
}

/// How far the session is from its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ending {
    Open,
    /// We read no more, and say goodbye when the last store ended.
    Draining,
    /// The client said by TLS that it sends no more: closed without a word when the last store ended.
    Leaving,
    /// Goodbye is said; we close when it was taken.
    Closing,
    Closed,
}

impl Session {
    /// Asks who comes, behind its PROXY header and its handshake where these come first; the greeting follows the
    /// answer.
    pub fn new(now: Instant, policy: Arc<Policy>, arrival: Arrival) -> Session {
        let mut session = Session {
            deadline: now,
            block_left: policy.timeouts.data_block_len,
            policy,
            client: Arc::new(Client {
                origin: arrival.origin,
                rights: Default::default(),
                login: None,
                certificate: None,
                is_encrypted: false,
            }),
            nonce: arrival.nonce,
            helo: None,
            reading: Reading::Commands,
            waiting: Waiting::Nothing,
            lines: Lines::default(),
            transaction: None,
            replies: ReplyQueue::default(),
            stores: VecDeque::new(),
            due: None,
            rejections: VecDeque::new(),
            securing: Securing::Plain,
            tunnel: None,
            encrypted: None,
            stage: Stage::Connect,
            next_key: 0,
            errors_count: 0,
            idle_count: 0,
            ending: Ending::Open,
            progressed: false,
            is_greeted: false,
            has_plain: false,
        };
        session.arrive();
        session.restart_deadline(now);
        session
    }

    /// Returns how many octets it used. It uses fewer when a bound is reached or something is asked; the caller keeps the
    /// rest and calls again after `handle_stored`, `handle_answer`, `poll_output` or once replies were taken. The octets
    /// may be none, see [`Session::wants_turn`].
    pub fn handle_bytes(&mut self, now: Instant, door: &mut dyn Door, bytes: &[u8]) -> usize {
        let used = self.read_wire(door, bytes);
        if std::mem::take(&mut self.progressed) {
            self.restart_deadline(now);
        }
        if self.ending == Ending::Open { used } else { bytes.len() }
    }

    /// True if octets wait inside that `handle_bytes` would read now, though the caller has none to give: those of a TLS
    /// record that came whole while the session could not read on.
    pub fn wants_turn(&self) -> bool {
        self.has_plain && self.ending == Ending::Open && !self.is_blocked()
    }

    /// Answers what was asked last. An answer that comes too late changes nothing; one of another kind is taken as no.
    pub fn handle_answer(&mut self, now: Instant, answer: Answer) {
        if self.ending != Ending::Open {
            return;
        }
        match std::mem::replace(&mut self.waiting, Waiting::Nothing) {
            Waiting::Introduction(after) => self.on_introduced(now, after, answer),
            waiting @ (Waiting::Nothing | Waiting::Greeting) => self.waiting = waiting,
        }
    }

    /// Answers a message. A key that is not in flight is a bug of the caller's and changes nothing.
    pub fn handle_stored(&mut self, now: Instant, transaction: TransactionKey, outcome: Stored) {
        self.replies.fill(transaction, outcome);
        self.restart_deadline(now);
        self.close_if_drained();
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|deadline| deadline > now) {
            return;
        }
        match self.waiting {
            Waiting::Greeting => self.greet(now),
            _ => self.close_with(replies::IDLE),
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
        if let Some(rejection) = self.rejections.pop_front() {
            return Some(Output::Rejected(rejection));
        }
        if let Some(output) = self.due.take() {
            return Some(*output);
        }
        // An idle session keeps no room for what it once had.
        (self.stores, self.rejections) = (VecDeque::new(), VecDeque::new());
        if self.ending == Ending::Closing && self.has_said_all() {
            self.ending = Ending::Closed;
            return Some(Output::Close);
        }
        None
    }

    /// Who the client is, as far as it is known now.
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// `None` while the client waits for us: a store is in flight, a question is open, or goodbye is said.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let waits_for_us = self.replies.gap_count() > 0 || matches!(self.waiting, Waiting::Introduction(_));
        (self.ending == Ending::Open && !waits_for_us).then_some(self.deadline)
    }

    /// Memory held for the open transaction: content and recipients.
    pub fn buffered_len(&self) -> usize {
        self.transaction.as_ref().map_or(0, |transaction| transaction.len_bytes())
    }

    /// True between transactions with nothing in flight, nothing to send and no command begun.
    pub fn is_idle(&self) -> bool {
        let at_rest = matches!(self.reading, Reading::Commands) && self.lines.is_empty();
        let nothing_open = matches!(self.waiting, Waiting::Nothing) && self.due.is_none();
        at_rest && nothing_open && self.transaction.is_none() && self.replies.is_empty()
    }

    /// True at a bound that `handle_stored`, `handle_answer`, `poll_output` or `take_replies` lifts.
    fn is_blocked(&self) -> bool {
        let limits = &self.policy.limits;
        self.replies.gap_count() >= limits.stores_in_flight_max.max(1)
            || self.replies.len() >= limits.replies_max.max(1)
            || self.due.is_some()
            || self.rejections.len() >= refusing::REJECTIONS_MAX
            || !matches!(self.waiting, Waiting::Nothing)
    }

    fn restart_deadline(&mut self, now: Instant) {
        let timeouts = &self.policy.timeouts;
        let secs = match self.reading {
            _ if !self.can_speak() => timeouts.handshake_secs,
            Reading::Data(_) | Reading::Chunk(_) => timeouts.data_secs,
            Reading::Commands if self.is_in_chunks() => timeouts.data_secs,
            Reading::Commands => timeouts.command_secs,
        };
        self.block_left = timeouts.data_block_len;
        self.deadline = now + Duration::from_secs(secs);
    }

    fn close_if_drained(&mut self) {
        match self.ending {
            _ if self.replies.gap_count() > 0 => {}
            Ending::Draining => self.close_with(replies::SHUTTING_DOWN),
            Ending::Leaving => self.stop_reading(Ending::Closing),
            Ending::Open | Ending::Closing | Ending::Closed => {}
        }
    }

    /// Without a word where none would be understood: in a handshake, and before a PROXY header.
    fn close_with(&mut self, goodbye: Sentence) {
        if self.can_speak() {
            self.say(goodbye);
        } else {
            self.tell_unsaid(goodbye.cow());
        }
        self.stop_reading(Ending::Closing);
    }

    fn stop_reading(&mut self, ending: Ending) {
        self.ending = ending;
        self.reading = Reading::Commands;
        self.waiting = Waiting::Nothing;
        self.lines = Lines::default();
        self.transaction = None;
        self.due = None;
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
