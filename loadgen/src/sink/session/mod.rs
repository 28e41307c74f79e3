//! One SMTP session of the sink, as a machine without I/O.
//!
//! Bytes in, replies out: whatever a buffer holds is answered in one flight, be it half a line or twenty
//! transactions. A command is decided in one `match` over (where we are, what was said). Trusts nothing that a
//! client sends. Bounds: a line of `LINE_MAX` bytes, `recipients_max` recipients; content is not kept, unless
//! a test wants it.

mod auth;
mod content;
mod turn;

use std::net::IpAddr;

use super::arrival::{Arrival, DataPlace};
use super::command::Command;
use super::contents::Contents;
use super::faults::{Dice, FaultAction, Faults, Place, Stage};
use super::log::Log;
use super::peers::{Pair, Peers};
use super::replies::{self, Reply, Texts};
use super::tally::Tally;
use turn::Turn;

pub(crate) use super::faults::Break;
pub use auth::Account;

const LINE_MAX: usize = 4096;
const KEPT_MAX: usize = 1 << 20; // a buffer that one huge transaction grew is given back after it

/// What every session of a sink follows.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) texts: Texts,
    pub(crate) lmtp: bool,
    pub(crate) starttls: bool,
    /// No MAIL and no AUTH in the clear.
    pub(crate) tls_required: bool,
    /// No MAIL before this account has been proved.
    pub(crate) account: Option<Account>,
    pub(crate) chunking: bool,
    pub(crate) size_max: u64,
    pub(crate) recipients_max: u64,
    /// Messages per connection; 0 is without limit.
    pub(crate) close_after: u64,
    pub(crate) faults: Faults,
    pub(crate) seed: u64,
    /// Contents are gathered in memory, for [`Books::contents`].
    pub(crate) keeps_contents: bool,
}

/// What the sessions of one thread share.
pub(crate) struct Books {
    pub(crate) log: Log,
    pub(crate) tally: Tally,
    pub(crate) peers: Peers,
    /// One line per connection.
    pub(crate) connections: Log,
    pub(crate) contents: Contents,
    pub(crate) now_ns: u64,
}

impl Books {
    pub(crate) fn new(log: Log, connections: Log) -> Books {
        let (tally, peers, contents) = (Tally::new(), Peers::default(), Contents::default());
        Books { log, tally, peers, connections, contents, now_ns: 0 }
    }

    fn note_mail(&mut self, pair: Pair) {
        self.peers.note_mail(pair, self.now_ns);
    }
}

/// Whether the connection goes on once the replies are out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Flow {
    Continue,
    /// Say what is to be said, then close politely.
    Finish,
    /// Say what is to be said, then begin TLS.
    StartTls,
    /// Say what was to be said before, then no more.
    Break(Break),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Command,
    Data(DataPlace),
    Chunk {
        left: u64,
        is_last: bool,
        kept: bool,
    },
    /// In a line longer than we keep, until its end.
    TooLong,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// Connected, no greeting from the client yet.
    New,
    Ready,
    /// MAIL was accepted.
    Transaction,
    /// At least one chunk was accepted, the last is to come.
    Chunks,
    /// A chunk was refused; the rest of them are too.
    ChunksRefused,
}

pub(crate) struct Session {
    phase: Phase,
    state: State,
    line: Vec<u8>,
    reverse_path: Vec<u8>,
    /// Forward-paths, each ended by a line feed.
    forward_paths: Vec<u8>,
    recipients: u64,
    arrival: Arrival,
    /// Octets of this content have met the faults planned for it.
    content_begun: bool,
    /// What the chunk that is being thrown away will be answered.
    chunk_fault: Option<FaultAction>,
    /// An AUTH exchange waits for this line.
    auth: Option<auth::Step>,
    is_authenticated: bool,
    under_tls: bool,
    source: IpAddr,
    pair: Pair,
    helo: Vec<u8>,
    mails: u64,
    messages: u64,
    said_quit: bool,
    dice: Dice,
}

/// What is worth a line in the record of connections.
pub(crate) struct Facts<'a> {
    pub(crate) pair: Pair,
    pub(crate) helo: &'a [u8],
    pub(crate) is_authenticated: bool,
    pub(crate) said_quit: bool,
    /// MAIL commands accepted.
    pub(crate) mails: u64,
    /// Transactions accepted.
    pub(crate) messages: u64,
}

impl Session {
    /// `source` is where the client says or is seen to be, `pair` that in the book of peers.
    pub(crate) fn new(policy: &Policy, number: u64, source: IpAddr, pair: Pair) -> Session {
        Session {
            phase: Phase::Command,
            state: State::New,
            line: Vec::new(),
            reverse_path: Vec::new(),
            forward_paths: Vec::new(),
            recipients: 0,
            arrival: Arrival::new(policy.keeps_contents),
            content_begun: false,
            chunk_fault: None,
            auth: None,
            is_authenticated: false,
            under_tls: false,
            source,
            pair,
            helo: Vec::new(),
            mails: 0,
            messages: 0,
            said_quit: false,
            dice: Dice::new(policy.seed, number),
        }
    }

    pub(crate) fn facts(&self) -> Facts<'_> {
        let Session { pair, is_authenticated, said_quit, mails, messages, .. } = *self;
        Facts { pair, helo: &self.helo, is_authenticated, said_quit, mails, messages }
    }

    /// The connection is open: greet.
    pub(crate) fn handle_connect(&mut self, policy: &Policy, books: &mut Books, out: &mut Vec<u8>) -> Flow {
        let mut turn = Turn::new(policy, books, out);
        match self.strike(Stage::Connect, b"", &mut turn) {
            Some(Flow::Continue) => Flow::Finish, // refused: RFC 5321 §3.1 lets the client wait for QUIT, we do not
            Some(flow) => flow,
            None => turn.say(Reply(220, &policy.texts.greeting)),
        }
    }

    /// The handshake is about to begin: whether it does.
    pub(crate) fn handle_handshake(&mut self, policy: &Policy, books: &mut Books, out: &mut Vec<u8>) -> Flow {
        let mut turn = Turn::new(policy, books, out);
        self.strike(Stage::Handshake, b"", &mut turn).unwrap_or(Flow::Continue)
    }

    /// RFC 3207 §4.2: under TLS all that was said before is forgotten.
    pub(crate) fn handle_secured(&mut self) {
        self.end_transaction();
        (self.state, self.under_tls) = (State::New, true);
        self.helo.clear();
    }

    /// Answers everything in `bytes`.
    pub(crate) fn handle_bytes(
        &mut self,
        policy: &Policy,
        books: &mut Books,
        mut bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Flow {
        let mut turn = Turn::new(policy, books, out);
        while !bytes.is_empty() {
            let (used, flow) = match self.phase {
                Phase::Command => self.take_line(bytes, &mut turn),
                Phase::Data(place) => self.take_data(place, bytes, &mut turn),
                Phase::Chunk { left, is_last, kept } => {
                    self.take_chunk(left, is_last, kept, bytes, &mut turn)
                }
                Phase::TooLong => self.skip_line(bytes, &mut turn),
            };
            if flow != Flow::Continue {
                turn.books.tally.tls.injected += u64::from(flow == Flow::StartTls && used < bytes.len());
                return flow;
            }
            bytes = &bytes[used..];
        }
        Flow::Continue
    }

    /// The flow of a fault, if one strikes. Where nothing is planned this costs one look.
    fn strike(&mut self, stage: Stage, address: &[u8], turn: &mut Turn<'_>) -> Option<Flow> {
        let action = self.struck(stage, address, turn)?;
        turn.suffer(action, stage)
    }

    fn struck<'p>(&mut self, stage: Stage, address: &[u8], turn: &Turn<'p>) -> Option<&'p FaultAction> {
        let policy = turn.policy;
        if !policy.faults.any_at(stage) {
            return None;
        }
        let place = Place { address, source: Some(self.source), helo: &self.helo };
        policy.faults.strike(stage, place, &mut self.dice)
    }

    fn take_line(&mut self, bytes: &[u8], turn: &mut Turn<'_>) -> (usize, Flow) {
        let Some(end) = memchr::memchr(b'\n', bytes) else { return self.keep_line(bytes) };
        let used = end + 1;
        if self.line.is_empty() {
            return (used, self.on_line(&bytes[..end], turn));
        }
        let mut line = std::mem::take(&mut self.line);
        line.extend_from_slice(&bytes[..end]);
        let flow = self.on_line(&line, turn);
        line.clear();
        self.line = line;
        (used, flow)
    }

    /// The line ends in a later buffer.
    fn keep_line(&mut self, bytes: &[u8]) -> (usize, Flow) {
        if self.line.len() + bytes.len() > LINE_MAX {
            self.line.clear();
            self.phase = Phase::TooLong;
        } else {
            self.line.extend_from_slice(bytes);
        }
        (bytes.len(), Flow::Continue)
    }

    fn skip_line(&mut self, bytes: &[u8], turn: &mut Turn<'_>) -> (usize, Flow) {
        let Some(end) = memchr::memchr(b'\n', bytes) else { return (bytes.len(), Flow::Continue) };
        self.phase = Phase::Command;
        (end + 1, turn.say(replies::LINE_TOO_LONG))
    }

    fn on_line(&mut self, line: &[u8], turn: &mut Turn<'_>) -> Flow {
        if line.len() > LINE_MAX {
            return turn.say(replies::LINE_TOO_LONG);
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match self.auth.take() {
            Some(step) => self.continue_auth(step, line, turn),
            None => self.on_command(Command::parse(line), turn),
        }
    }

    fn on_command(&mut self, command: Command<'_>, turn: &mut Turn<'_>) -> Flow {
        match (self.state, command) {
            (_, Command::Ehlo { .. } | Command::Helo { .. }) if turn.policy.lmtp => {
                turn.say(replies::LHLO_ONLY)
            }
            (_, Command::Lhlo { .. }) if !turn.policy.lmtp => turn.say(replies::UNKNOWN_COMMAND),
            (_, Command::Ehlo { name } | Command::Lhlo { name }) => self.greet(name, true, turn),
            (_, Command::Helo { name }) => self.greet(name, false, turn),
            (_, Command::StartTls) => self.start_tls(turn),
            (_, Command::Auth { .. } | Command::Mail { .. })
                if turn.policy.tls_required && !self.under_tls =>
            {
                turn.say(replies::TLS_FIRST)
            }
            (State::New, Command::Auth { .. }) => turn.say(replies::HELLO_FIRST),
            (State::Ready, Command::Auth { mechanism, initial }) => self.begin_auth(mechanism, initial, turn),
            (_, Command::Auth { .. }) => turn.say(replies::NESTED_MAIL),
            (State::Ready, Command::Mail { .. }) if self.lacks_auth(turn) => turn.say(replies::AUTH_FIRST),
            (State::Ready, Command::Mail { requires_tls: true, .. }) if !self.under_tls => {
                turn.say(replies::REQUIRETLS_UNKNOWN)
            }
            (State::Ready, Command::Mail { path, size_bytes, requires_tls }) => {
                self.open_transaction(path, size_bytes, requires_tls, turn)
            }
            (State::New, Command::Mail { .. }) => turn.say(replies::HELLO_FIRST),
            (_, Command::Mail { .. }) => turn.say(replies::NESTED_MAIL),
            (State::Transaction, Command::Rcpt { path }) => self.add_recipient(path, turn),
            (State::Chunks | State::ChunksRefused, Command::Rcpt { .. }) => turn.say(replies::CHUNKS_BEGUN),
            (_, Command::Rcpt { .. }) => turn.say(replies::MAIL_FIRST),
            (State::Transaction, Command::Data) if self.recipients > 0 => self.open_data(turn),
            (State::Transaction, Command::Data) => turn.say(replies::NO_RECIPIENTS),
            (State::Chunks | State::ChunksRefused, Command::Data) => turn.say(replies::CHUNKS_BEGUN),
            (_, Command::Data) => turn.say(replies::MAIL_FIRST),
            (_, Command::Bdat { len, is_last }) => self.open_chunk(len, is_last, turn),
            (_, Command::Rset) => self.reset(turn),
            (_, Command::Noop) => turn.say(replies::OK),
            (_, Command::Vrfy) => turn.say(replies::CANNOT_VERIFY),
            (_, Command::Quit) => self.quit(turn),
            (_, Command::Malformed) => turn.say(replies::SYNTAX),
            (_, Command::Unknown) => turn.say(replies::UNKNOWN_COMMAND),
        }
    }

    fn greet(&mut self, name: &[u8], is_extended: bool, turn: &mut Turn<'_>) -> Flow {
        self.helo.clear();
        self.helo.extend_from_slice(name);
        if let Some(flow) = self.strike(Stage::Ehlo, b"", turn) {
            return flow;
        }
        turn.books.peers.note_helo(self.pair, name);
        self.end_transaction();
        self.state = State::Ready;
        let texts = &turn.policy.texts;
        turn.say(Reply(
            250,
            match (is_extended, self.under_tls) {
                (false, _) => &texts.helo,
                (true, false) => &texts.ehlo,
                (true, true) => &texts.ehlo_tls,
            },
        ))
    }

    fn start_tls(&mut self, turn: &mut Turn<'_>) -> Flow {
        if !turn.policy.starttls {
            return turn.say(replies::UNKNOWN_COMMAND);
        }
        if self.under_tls {
            return turn.say(replies::TLS_ACTIVE);
        }
        if let Some(flow) = self.strike(Stage::StartTls, b"", turn) {
            return flow;
        }
        turn.say(replies::TLS_READY);
        Flow::StartTls
    }

    fn lacks_auth(&self, turn: &Turn<'_>) -> bool {
        turn.policy.account.is_some() && !self.is_authenticated
    }

    fn begin_auth(&mut self, mechanism: &[u8], initial: Option<&[u8]>, turn: &mut Turn<'_>) -> Flow {
        let Some(account) = &turn.policy.account else { return turn.say(replies::UNKNOWN_COMMAND) };
        if self.is_authenticated {
            return turn.say(replies::AUTH_DONE);
        }
        let nonce = self.dice.roll();
        self.follow_auth(auth::begin(account, mechanism, initial, nonce), turn)
    }

    fn continue_auth(&mut self, step: auth::Step, line: &[u8], turn: &mut Turn<'_>) -> Flow {
        let account = turn.policy.account.as_ref().expect("without an account no exchange begins");
        self.follow_auth(auth::answer(account, step, line), turn)
    }

    fn follow_auth(&mut self, next: auth::Next, turn: &mut Turn<'_>) -> Flow {
        match next {
            auth::Next::Ask(step, words) => {
                self.auth = Some(step);
                turn.say(Reply(334, &format!("334 {words}\r\n")))
            }
            auth::Next::Accepted => self.end_auth(turn),
            auth::Next::Refused => {
                turn.books.tally.auth_refused += 1;
                turn.say(replies::AUTH_REFUSED)
            }
            auth::Next::Malformed => turn.say(replies::AUTH_MALFORMED),
            auth::Next::UnknownMechanism => turn.say(replies::AUTH_MECHANISM),
        }
    }

    fn end_auth(&mut self, turn: &mut Turn<'_>) -> Flow {
        if let Some(flow) = self.strike(Stage::Auth, b"", turn) {
            return flow;
        }
        turn.books.tally.auth_accepted += 1;
        self.is_authenticated = true;
        turn.say(replies::AUTH_OK)
    }

    fn open_transaction(
        &mut self,
        path: &[u8],
        size_bytes: u64,
        requires_tls: bool,
        turn: &mut Turn<'_>,
    ) -> Flow {
        turn.books.note_mail(self.pair);
        if let Some(flow) = self.strike(Stage::Mail, path, turn) {
            return flow;
        }
        if size_bytes > turn.policy.size_max {
            return turn.say(replies::TOO_BIG);
        }
        self.reverse_path.clear();
        self.reverse_path.extend_from_slice(path);
        self.state = State::Transaction;
        self.mails += 1;
        turn.books.tally.requiretls += u64::from(requires_tls);
        turn.say(replies::SENDER_OK)
    }

    fn add_recipient(&mut self, path: &[u8], turn: &mut Turn<'_>) -> Flow {
        if let Some(flow) = self.strike(Stage::Rcpt, path, turn) {
            return flow;
        }
        if self.recipients >= turn.policy.recipients_max {
            return turn.say(replies::TOO_MANY_RECIPIENTS);
        }
        self.forward_paths.extend_from_slice(path);
        self.forward_paths.push(b'\n');
        self.recipients += 1;
        turn.say(replies::RECIPIENT_OK)
    }

    fn quit(&mut self, turn: &mut Turn<'_>) -> Flow {
        self.said_quit = true;
        match self.strike(Stage::Quit, b"", turn) {
            Some(flow) => flow,
            None => turn.finish(replies::BYE),
        }
    }

    fn reset(&mut self, turn: &mut Turn<'_>) -> Flow {
        self.end_transaction();
        turn.say(replies::OK)
    }

    fn end_transaction(&mut self) {
        if self.state != State::New {
            self.state = State::Ready;
        }
        self.forward_paths.clear();
        self.forward_paths.shrink_to(KEPT_MAX);
        self.recipients = 0;
        (self.content_begun, self.chunk_fault) = (false, None);
        self.arrival.clear();
    }
}

#[cfg(test)]
mod tests;
