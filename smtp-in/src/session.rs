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
mod login;
mod reading;
mod refusing;
mod securing;
mod turning;

use crate::data::DataReader;
use crate::door::{Answer, Arrival, Client, Door, Origin};
use crate::limits::Policy;
use crate::line::Lines;
use crate::output::{Output, Rejection, Stage, Stored, Submission, TransactionKey};
use crate::proxy::HeaderReader;
use crate::replies::{self, Sentence};
use crate::reply_queue::ReplyQueue;
use crate::sasl::Exchange;
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
    /// Who the client is, as a front server says.
    named: Option<Box<Named>>,
    reading: Reading,
    waiting: Waiting,
    /// Of an AUTH whose next response is the client's to give.
    exchange: Option<Box<Exchange>>,
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
    /// Wrong passwords.
    logins_count: u32,
    challenges_count: u32,
    ending: Ending,
    deadline: Instant,
    /// The client did what wins it more time.
    progressed: bool,
    /// Octets of content until the next one wins more time.
    block_left: u64,
    is_greeted: bool,
    /// It may say by XCLIENT for whom it comes, however often.
    is_front: bool,
    /// Opened octets wait in the tunnel.
    has_plain: bool,
}

/// How the client introduced itself.
#[derive(Debug)]
struct Helo {
    name: Box<str>,
    extended: bool,
}

/// What XCLIENT said of a client's EHLO.
#[derive(Debug)]
struct Named {
    /// Who said so.
    front: Origin,
    helo: Option<Box<str>>,
    is_extended: Option<bool>,
}

/// What the next octets are.
#[derive(Debug)]
enum Reading {
    /// A PROXY header.
    Header(Box<HeaderReader>),
    Commands,
    /// A response of an AUTH.
    Response,
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
    /// Whether the password is right, or what that is to be seen by.
    Login(Box<Exchange>),
    /// Whether mail goes the other way now.
    Turn,
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
    /// The last reply is said; the connection is the caller's when it was taken.
    HandingOver,
    HandedOver,
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
            named: None,
            reading: Reading::Commands,
            waiting: Waiting::Nothing,
            exchange: None,
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
            logins_count: 0,
            challenges_count: 0,
            ending: Ending::Open,
            progressed: false,
            is_greeted: false,
            is_front: false,
            has_plain: false,
        };
        if arrival.is_proxied {
            session.reading = Reading::Header(Box::default());
        } else {
            session.arrive();
        }
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
        match self.ending {
            Ending::Open | Ending::HandingOver | Ending::HandedOver => used,
            Ending::Draining | Ending::Leaving | Ending::Closing | Ending::Closed => bytes.len(),
        }
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
            Waiting::Login(exchange) => self.on_login_answer(now, *exchange, answer),
            Waiting::Turn => self.on_turn_answer(now, &answer),
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
        let (next, output) = match self.ending {
            Ending::Closing => (Ending::Closed, Output::Close),
            Ending::HandingOver => (Ending::HandedOver, Output::HandOver),
            _ => return None,
        };
        self.has_said_all().then(|| {
            self.ending = next;
            output
        })
    }

    /// Who the client is, as far as it is known now.
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// `None` while the client waits for us: a store is in flight, a question is open, or goodbye is said.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let is_asking = !matches!(self.waiting, Waiting::Nothing | Waiting::Greeting);
        let waits_for_us = self.replies.gap_count() > 0 || is_asking;
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
        at_rest && nothing_open && self.can_speak() && self.transaction.is_none() && self.replies.is_empty()
    }

    /// Gives up the room that messages and replies had. The next message makes it anew: for a session that has been idle for
    /// some time, not for one between two messages.
    pub fn shrink(&mut self) {
        self.stores.shrink_to_fit();
        self.rejections.shrink_to_fit();
        self.replies.shrink();
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
            Reading::Header(_) => timeouts.handshake_secs,
            Reading::Commands | Reading::Response => timeouts.command_secs,
        };
        self.deadline = now + Duration::from_secs(secs);
    }

    fn close_if_drained(&mut self) {
        match self.ending {
            _ if self.replies.gap_count() > 0 => {}
            Ending::Draining => self.close_with(replies::SHUTTING_DOWN),
            Ending::Leaving => self.stop_reading(Ending::Closing),
            _ => {}
        }
    }

    /// Without a word where none would be understood: in a handshake, and before a PROXY header.
    fn close_with(&mut self, goodbye: Sentence) {
        if self.can_speak() {
            self.say(goodbye);
        } else {
            self.tell_unsaid(goodbye.without_codes().into());
        }
        self.stop_reading(Ending::Closing);
    }

    fn stop_reading(&mut self, ending: Ending) {
        self.ending = ending;
        self.reading = Reading::Commands;
        (self.waiting, self.exchange, self.due) = (Waiting::Nothing, None, None);
        self.lines = Lines::default();
        self.transaction = None;
    }
}

#[cfg(test)]
mod tests;
