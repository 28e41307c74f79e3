//! One connection to one host, from its greeting to its end.
//!
//! Three ways to send, by what the host offers and what is remembered of it:
//! - *Windowed* (CHUNKING and PIPELINING): `MAIL RCPT… BDAT n LAST` and the content in one flight, the next
//!   transactions right behind it. How many are in flight is earned: 1 at first, twice as many after each
//!   window of clean replies, 1 again after any surprise.
//! - *Paired* (PIPELINING alone): a content, its dot and the next transaction's `MAIL RCPT… DATA` in one flight
//!   (RFC 2920 §3.1), so that a message costs one exchange here too.
//! - *Lock-step* (neither): each command waits for its reply.
//!
//! ```text
//! Greeting ──220──▶ HelloDue ──flight──▶ Hello ──250──▶ Ready ──quit, nothing in flight──▶ Quit ──▶ Closed
//!                      ▲  STARTTLS ──220──▶ handshake ◀──┤ ▲
//!                      └─────────────────────────┘       └─▶ AUTH ──235
//!     any of them: 421, end of stream, time-out, protocol error ──────────────────────────────────▶ Closed
//! ```
//!
//! `session/securing.rs` and `session/login.rs` have the two detours. An encrypted session ends by way of `Farewell`,
//! so that its last record gets out.
//!
//! Replies answer commands in order: `expected` holds what was sent and not answered, `transactions` whom it was
//! for, and the first of those is always the one that the next reply is about. A wrong match would report one
//! recipient's fate as another's, so a reply that its command cannot have ends the session.
//!
//! Trusts nothing that the host sends. Bounds: `window_max` transactions (3 when paired, 1 in lock-step) of
//! [`RECIPIENTS_MAX`](crate::RECIPIENTS_MAX) recipients; replies as in `reply.rs`; one output or two per reply.

mod ending;
mod lmtp;
mod login;
mod replies;
mod securing;
mod sending;
mod trace;

use crate::config::{Config, Habits};
use crate::extensions::Extensions;
use crate::link::{Link, Protocol};
use crate::protection::Protection;
use crate::reply::{Part, Reader};
use crate::sasl::Exchange;
use crate::tls::Channel;
use crate::transaction::{InFlight, Offered, Progress, Transaction};
use message::{Scope, Verdict};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// From this window on, capacity opens in halves, so that a send carries several transactions.
const BATCHED_WINDOW: u16 = 4;

/// A content of this length, begun or whole, has `data_block` to go out (about 6 KB/s at the RFC's 180 s).
const BLOCK_LEN: u64 = 1 << 20;

/// Memory that an idle session may keep per buffer; what a large transaction needed beyond it is given back.
const KEPT_LEN: usize = 2048;
const KEPT_OUTPUTS: usize = 32;

/// What the caller learns.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Output {
    /// How the connection is protected: once, before `Ready`, or before `Closed` where that is why.
    Protection(Protection),
    /// EHLO or HELO is done; said once. `capacity()` may be above 0 from here on.
    Ready,
    /// Exactly one per recipient of a transaction that is not returned.
    Verdict { key: u32, recipient: u16, verdict: Verdict, scope: Scope },
    /// After a transaction's last verdict. A flight still under way keeps its contents all the same.
    /// `ambiguous`: the final octet had gone out when the connection ended, so the host may have the message.
    Finished { key: u32, ambiguous: bool },
    /// Taken, but not attempted: offer it elsewhere, it counts as no attempt.
    Returned { key: u32 },
    /// Close the socket. `verdict` is about the host, where no recipient's verdict says it.
    Closed { verdict: Option<(Verdict, Scope)> },
    /// A line of the dialog, without its end, where `Link::is_traced`. At most 1,000 octets; no secret, no content.
    Trace { direction: Direction, text: String },
}

/// Whose line it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    Sent,
    Received,
    /// Nobody's: what the session remarks.
    Note,
}

/// Who tells the sender of a success, if it asked to be told (RFC 3461).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Custody {
    /// The host: it offers DSN and was told what was asked.
    Reporting,
    /// The caller, now: the host passes mail on and tells nobody (§5.2.2: relayed).
    Silent,
    /// The caller, now: the host took it into a mailbox (LMTP without DSN: delivered).
    Final,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Greeting,
    HelloDue,
    Hello,
    StartTlsDue,
    StartTls,
    /// The host lets the handshake begin.
    HandshakeDue,
    Handshake,
    LoginDue,
    Login,
    Ready,
    Quit,
    /// The last record is on its way; what `Closed` will say is known.
    Farewell,
    Closed,
}

/// How this host is sent to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    Windowed,
    Paired,
    LockStep,
}

/// What the host owes us a reply to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Expected {
    Greeting,
    /// Or LHLO.
    Ehlo,
    Helo,
    StartTls,
    Auth,
    Rset,
    Mail,
    Rcpt,
    Data,
    Dot,
    Bdat,
    Quit,
}

/// A flight that the kernel has not taken whole.
#[derive(Clone, Copy, Debug)]
struct UnderWay {
    /// Its last octet is the last one of the newest transaction.
    ends_whole: bool,
    /// Blocks of [`BLOCK_LEN`] in its contents.
    blocks: u32,
}

#[derive(Debug)]
pub struct Session {
    config: Arc<Config>,
    habits: Habits,
    link: Link,
    /// TLS, from the handshake's beginning on.
    channel: Option<Box<Channel>>,
    /// The handshake is done: everything that goes out is sealed.
    is_sealed: bool,
    /// The host has proven to be who it should be.
    is_verified: bool,
    has_told_protection: bool,
    handshake_until: Option<Instant>,
    exchange: Option<Box<Exchange>>,
    /// What `Closed` will say, in `Farewell`.
    leave_taken: Option<(Verdict, Scope)>,
    phase: Phase,
    form: Form,
    /// EHLO was refused, now or on an earlier connection.
    says_helo: bool,
    extensions: Extensions,
    reader: Reader,
    /// What was sent and is not answered, in order.
    expected: VecDeque<Expected>,
    /// What was taken and is not finished, in order; the first `begun` of them have begun to be sent.
    transactions: VecDeque<InFlight>,
    begun: usize,
    /// MAIL and RCPT of the transactions that have not been sent.
    envelopes: Vec<u8>,
    under_way: Option<UnderWay>,
    /// Transactions taken so far.
    taken: u32,
    window: u16,
    /// Clean transactions since the window last changed.
    clean: u16,
    /// A failed transaction may have left its reverse-path behind: RSET goes before the next MAIL.
    is_reset_due: bool,
    /// The transaction before the one that is being answered failed.
    has_predecessor_failed: bool,
    /// The way of sending has worked once on this connection.
    is_proven: bool,
    /// Some transaction of this connection has had its verdicts.
    has_answered: bool,
    is_quitting: bool,
    deadline: Option<Instant>,
    outputs: VecDeque<Output>,
}

impl Session {
    /// The connection is up; the host speaks first, but for implicit TLS.
    pub fn new(now: Instant, config: Arc<Config>, habits: Habits, link: Link) -> Session {
        // Whoever delivers here speaks as we do; that it once ended in the middle says nothing of how.
        let habits = if link.protocol == Protocol::Mailboxes { Habits::default() } else { habits };
        let mut session = Session {
            config,
            habits,
            channel: None,
            is_sealed: false,
            is_verified: false,
            has_told_protection: false,
            handshake_until: None,
            exchange: None,
            leave_taken: None,
            phase: Phase::Greeting,
            form: Form::LockStep,
            says_helo: habits.helo_only && !needs_ehlo(&link),
            link,
            extensions: Extensions::default(),
            reader: Reader::default(),
            expected: VecDeque::from([Expected::Greeting]),
            transactions: VecDeque::new(),
            begun: 0,
            envelopes: Vec::new(),
            under_way: None,
            taken: 0,
            window: 1,
            clean: 0,
            is_reset_due: false,
            has_predecessor_failed: false,
            is_proven: false,
            has_answered: false,
            is_quitting: false,
            deadline: None,
            outputs: VecDeque::new(),
        };
        if session.link.is_tls_implicit {
            session.begin_handshake();
        }
        session.restart_deadline(now);
        session
    }

    /// A connection that the host made, to fetch its mail (RFC 2645): it logged in, asked, and was told that the roles are
    /// reversed now. It speaks first. `sealed`: the TLS of the connection, which stays.
    pub fn reversed(
        now: Instant,
        config: Arc<Config>,
        habits: Habits,
        link: Link,
        sealed: Option<rustls::ServerConnection>,
    ) -> Session {
        let mut session = Session::new(now, config, habits, link);
        if let Some(connection) = sealed {
            session.take_over(now, connection);
        }
        session
    }

    /// The host sent something.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) {
        match self.channel.is_some() {
            false => self.hear(now, bytes),
            true => self.hear_sealed(now, bytes),
        }
    }

    /// Octets of the dialog itself.
    fn hear(&mut self, now: Instant, bytes: &[u8]) {
        // The lines borrow from the reader, so it stands outside while they are acted on.
        let mut reader = std::mem::take(&mut self.reader);
        let mut rest = bytes;
        let mut has_answer = false;
        while self.listens() {
            let Some(part) = reader.next_part(&mut rest) else { break };
            has_answer |= matches!(part, Part::Answer(_));
            self.on_part(part);
        }
        self.reader = reader;
        if self.phase == Phase::HandshakeDue {
            self.on_starttls_accepted(rest);
        }
        // Not for a part of a reply: a host that sends an octet a minute is not alive.
        if has_answer {
            self.restart_deadline(now);
        }
    }

    fn listens(&self) -> bool {
        !matches!(self.phase, Phase::Closed | Phase::Farewell | Phase::HandshakeDue)
    }

    fn on_part(&mut self, part: Part<'_>) {
        if self.link.is_traced {
            self.trace_part(&part);
        }
        match part {
            Part::Continued { is_first, text, .. } => {
                if !is_first && self.expected.front() == Some(&Expected::Ehlo) {
                    self.extensions.learn(text);
                }
            }
            Part::Answer(answer) => self.on_answer(answer),
            Part::Garbage(why) => self.fail_protocol(why),
        }
    }

    /// The flight taken last is with the kernel.
    pub fn handle_sent(&mut self, now: Instant) {
        self.under_way = None;
        self.restart_deadline(now);
        self.settle_farewell();
    }

    /// End of stream, a reset, an error in sending.
    pub fn handle_closed(&mut self, _now: Instant, why: &str) {
        self.on_lost(why);
    }

    /// Does nothing before `poll_timeout()`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.on_stalled();
        }
    }

    /// How many transactions it takes right now.
    pub fn capacity(&self) -> usize {
        if self.phase != Phase::Ready || self.is_quitting {
            return 0;
        }
        let room = match self.form {
            Form::Windowed => self.room_in_window(),
            // One ahead of what is being sent: its envelope goes in the flight of the content before it.
            Form::Paired => usize::from(self.waiting() == 0),
            Form::LockStep => usize::from(self.transactions.is_empty()),
        };
        room.min(self.transactions_left())
    }

    fn room_in_window(&self) -> usize {
        let window = usize::from(self.window);
        let room = window.saturating_sub(self.transactions.len());
        let is_batch = self.waiting() > 0 || room >= window / 2;
        if self.window < BATCHED_WINDOW || is_batch { room } else { 0 }
    }

    fn transactions_left(&self) -> usize {
        let limits = [self.config.transactions_max, self.extensions.mail_max];
        let limit = limits.into_iter().filter(|limit| *limit != 0).min();
        limit.map_or(usize::MAX, |limit| limit.saturating_sub(self.taken) as usize)
    }

    /// Taken, but nothing of it sent.
    fn waiting(&self) -> usize {
        self.transactions.len() - self.begun
    }

    /// Recipients per transaction that the host said it takes (RFC 9422); none said: no limit.
    pub fn recipients_max(&self) -> Option<u32> {
        Some(self.extensions.rcpt_max).filter(|limit| *limit != 0)
    }

    /// Of mail that the host takes. Known once the session is `Ready`.
    pub fn custody(&self) -> Custody {
        match (self.extensions.dsn, self.link.protocol.is_lmtp()) {
            (true, _) => Custody::Reporting,
            (false, false) => Custody::Silent,
            (false, true) => Custody::Final,
        }
    }

    /// Hands over a transaction. Beyond `capacity()` it comes back as `Returned`.
    /// Copies the envelope once; no allocation once the session has sent a few.
    pub fn offer(&mut self, transaction: &Transaction<'_>) -> Offered {
        if self.capacity() == 0 {
            self.outputs.push_back(Output::Returned { key: transaction.key });
            return Offered::Taken;
        }
        if let Some(reply) = transaction.obstacle(&self.extensions, self.can_chunk(), self.is_verified) {
            return Offered::Refused(Verdict::Failed(reply), Scope::Message);
        }
        let start = self.envelopes.len();
        transaction.write_envelope(&self.extensions, &mut self.envelopes);
        self.transactions.push_back(InFlight::new(transaction, start..self.envelopes.len()));
        self.taken = self.taken.saturating_add(1);
        Offered::Taken
    }

    fn can_chunk(&self) -> bool {
        self.extensions.chunking && !self.habits.no_chunking
    }

    /// QUIT as soon as nothing is in flight. What was taken is still sent.
    pub fn quit(&mut self, _now: Instant) {
        self.is_quitting = true;
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        if output.is_none() && self.outputs.capacity() > KEPT_OUTPUTS {
            self.outputs.shrink_to(KEPT_OUTPUTS);
        }
        output
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// What to remember about the host.
    pub fn habits(&self) -> Habits {
        match self.form {
            Form::Windowed => Habits { window: self.window, ..self.habits },
            Form::Paired | Form::LockStep => self.habits,
        }
    }

    /// Ready, with nothing in flight.
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Ready && self.transactions.is_empty() && self.expected.is_empty()
    }

    /// Transactions taken and not finished.
    pub fn in_flight(&self) -> usize {
        self.transactions.len()
    }

    /// A session that waits for nothing has no deadline: how long it may idle is the caller's to say.
    fn restart_deadline(&mut self, now: Instant) {
        if self.phase == Phase::Handshake {
            let until = now.checked_add(self.config.timeouts.tls);
            self.handshake_until = self.handshake_until.or(until);
            self.deadline = self.handshake_until;
            return;
        }
        self.deadline = self.patience().and_then(|patience| now.checked_add(patience));
    }

    fn patience(&self) -> Option<Duration> {
        let timeouts = &self.config.timeouts;
        match self.phase {
            Phase::Closed => return None,
            Phase::Farewell => return Some(timeouts.quit),
            _ => {}
        }
        let next = self.expected.front();
        if let Some(UnderWay { blocks, .. }) = self.under_way.filter(|_| next != Some(&Expected::Quit)) {
            return Some(timeouts.data_block.saturating_mul(blocks));
        }
        Some(match next? {
            Expected::Greeting => timeouts.greeting,
            Expected::Ehlo | Expected::Helo | Expected::StartTls | Expected::Auth => timeouts.ehlo,
            Expected::Rset | Expected::Mail => timeouts.mail,
            Expected::Rcpt => timeouts.rcpt,
            Expected::Data => timeouts.data_begin,
            Expected::Dot | Expected::Bdat => timeouts.data_end,
            Expected::Quit => timeouts.quit,
        })
    }

    /// The reply about this one comes next.
    fn current(&mut self) -> &mut InFlight {
        self.transactions
            .front_mut()
            .expect("expected has MAIL, RCPT, DATA, dot or BDAT only for a transaction in flight")
    }

    /// Halves would do against congestion; this is about a host that we have misunderstood.
    fn note_surprise(&mut self) {
        self.window = 1;
        self.clean = 0;
    }

    fn note_clean(&mut self) {
        self.clean += 1;
        if self.clean >= self.window {
            self.clean = 0;
            self.window = self.window.saturating_mul(2).min(self.config.window_max.max(1));
        }
    }

    /// The current transaction has had its last reply.
    fn finish(&mut self, ambiguous: bool) {
        let Some(done) = self.transactions.pop_front() else { return };
        self.begun = self.begun.saturating_sub(1);
        self.has_predecessor_failed = !done.is_clean;
        if done.is_clean && !ambiguous {
            self.note_clean();
        }
        self.has_answered = true;
        self.outputs.push_back(Output::Finished { key: done.key, ambiguous });
    }

    /// The current transaction was not attempted.
    fn give_back(&mut self) {
        let Some(done) = self.transactions.pop_front() else { return };
        self.begun = self.begun.saturating_sub(1);
        self.has_predecessor_failed |= done.progress != Progress::Waiting;
        self.outputs.push_back(Output::Returned { key: done.key });
    }

    /// Gives every recipient of the current transaction that has none yet this verdict.
    fn decide_open(&mut self, verdict: Verdict, scope: Scope) {
        let Some(transaction) = self.transactions.front_mut() else { return };
        let key = transaction.key;
        let Some(mut recipient) = transaction.take_open() else { return };
        while let Some(next) = transaction.take_open() {
            self.outputs.push_back(Output::Verdict { key, recipient, verdict: verdict.clone(), scope });
            recipient = next;
        }
        self.outputs.push_back(Output::Verdict { key, recipient, verdict, scope });
    }
}

/// What the connection needs is offered in the reply to EHLO alone.
fn needs_ehlo(link: &Link) -> bool {
    let needs_tls = link.tls.as_ref().is_some_and(|client| !client.allows_plain());
    needs_tls || link.login.is_some() || link.protocol.is_lmtp()
}
