//! One SMTP session of the sink, as a machine without I/O.
//!
//! Bytes in, replies out: whatever a buffer holds is answered in one flight, be it half a line or twenty
//! transactions. A command is decided in one `match` over (where we are, what was said). Trusts nothing that a
//! client sends. Bounds: a line of `LINE_MAX` bytes, `recipients_max` recipients, content is never kept.

use super::arrival::{Arrival, DataPlace};
use super::command::Command;
use super::faults::{Dice, FaultAction, Faults, Stage};
use super::log::Log;
use super::replies::{self, Reply};
use super::tally::Tally;
use crate::records::Received;

const LINE_MAX: usize = 4096;
const KEPT_MAX: usize = 1 << 20; // a buffer that one huge transaction grew is given back after it

/// What every session of a sink follows.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) ehlo: String,
    pub(crate) chunking: bool,
    pub(crate) size_max: u64,
    pub(crate) recipients_max: u64,
    /// Messages per connection; 0 is without limit.
    pub(crate) close_after: u64,
    pub(crate) faults: Faults,
    pub(crate) seed: u64,
}

/// What the sessions of one thread share.
pub(crate) struct Books {
    pub(crate) log: Log,
    pub(crate) tally: Tally,
    pub(crate) now_ns: u64,
}

/// Whether the connection goes on once the replies are out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Flow {
    Continue,
    /// Say what is to be said, then close politely.
    Finish,
    /// Say what was to be said before, then close at once.
    Drop,
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
    messages: u64,
    dice: Dice,
}

impl Session {
    pub(crate) fn new(policy: &Policy, number: u64) -> Session {
        Session {
            phase: Phase::Command,
            state: State::New,
            line: Vec::new(),
            reverse_path: Vec::new(),
            forward_paths: Vec::new(),
            recipients: 0,
            arrival: Arrival::new(),
            messages: 0,
            dice: Dice::new(policy.seed, number),
        }
    }

    /// The connection is open: greet.
    pub(crate) fn handle_connect(&mut self, policy: &Policy, books: &mut Books, out: &mut Vec<u8>) -> Flow {
        let mut turn = Turn { policy, books, out };
        match policy.faults.strike(Stage::Connect, b"", &mut self.dice) {
            None => turn.say(replies::GREETING),
            Some(FaultAction::Reply(code)) => {
                turn.say_fault(code, Stage::Connect);
                Flow::Finish
            }
            Some(_) => turn.drop_connection(),
        }
    }

    /// Answers everything in `bytes`.
    pub(crate) fn handle_bytes(
        &mut self,
        policy: &Policy,
        books: &mut Books,
        mut bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Flow {
        let mut turn = Turn { policy, books, out };
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
                return flow;
            }
            bytes = &bytes[used..];
        }
        Flow::Continue
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
        self.on_command(Command::parse(line.strip_suffix(b"\r").unwrap_or(line)), turn)
    }

    fn on_command(&mut self, command: Command<'_>, turn: &mut Turn<'_>) -> Flow {
        match (self.state, command) {
            (_, Command::Ehlo) => self.greet(turn, true),
            (_, Command::Helo) => self.greet(turn, false),
            (State::Ready, Command::Mail { path, size_bytes }) => {
                self.open_transaction(path, size_bytes, turn)
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
            (_, Command::Quit) => turn.finish(replies::BYE),
            (_, Command::Malformed) => turn.say(replies::SYNTAX),
            (_, Command::Unknown) => turn.say(replies::UNKNOWN_COMMAND),
        }
    }

    fn greet(&mut self, turn: &mut Turn<'_>, is_extended: bool) -> Flow {
        if let Some(flow) = turn.strike(Stage::Ehlo, b"", &mut self.dice) {
            return flow;
        }
        self.end_transaction();
        self.state = State::Ready;
        match is_extended {
            true => turn.say(Reply(250, &turn.policy.ehlo)),
            false => turn.say(replies::HELO),
        }
    }

    fn open_transaction(&mut self, path: &[u8], size_bytes: u64, turn: &mut Turn<'_>) -> Flow {
        if let Some(flow) = turn.strike(Stage::Mail, path, &mut self.dice) {
            return flow;
        }
        if size_bytes > turn.policy.size_max {
            return turn.say(replies::TOO_BIG);
        }
        self.reverse_path.clear();
        self.reverse_path.extend_from_slice(path);
        self.state = State::Transaction;
        turn.say(replies::SENDER_OK)
    }

    fn add_recipient(&mut self, path: &[u8], turn: &mut Turn<'_>) -> Flow {
        if let Some(flow) = turn.strike(Stage::Rcpt, path, &mut self.dice) {
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

    fn open_data(&mut self, turn: &mut Turn<'_>) -> Flow {
        if let Some(flow) = turn.strike(Stage::Data, b"", &mut self.dice) {
            return flow;
        }
        self.phase = Phase::Data(DataPlace::LineStart);
        turn.say(replies::GO_AHEAD)
    }

    /// RFC 3030 §2: the octets of a refused chunk follow all the same, and are thrown away.
    fn open_chunk(&mut self, len: u64, is_last: bool, turn: &mut Turn<'_>) -> Flow {
        let kept = turn.policy.chunking
            && match self.state {
                State::Transaction => self.recipients > 0,
                State::Chunks => true,
                State::New | State::Ready | State::ChunksRefused => false,
            };
        self.phase = Phase::Chunk { left: len, is_last, kept };
        match len {
            0 => self.end_chunk(b"", is_last, kept, turn),
            _ => Flow::Continue,
        }
    }

    fn take_chunk(
        &mut self,
        left: u64,
        is_last: bool,
        kept: bool,
        bytes: &[u8],
        turn: &mut Turn<'_>,
    ) -> (usize, Flow) {
        let take = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let left = left - take as u64;
        if left == 0 {
            return (take, self.end_chunk(&bytes[..take], is_last, kept, turn));
        }
        if kept {
            self.arrival.feed(&bytes[..take]);
        }
        self.phase = Phase::Chunk { left, is_last, kept };
        (take, Flow::Continue)
    }

    fn end_chunk(&mut self, bytes: &[u8], is_last: bool, kept: bool, turn: &mut Turn<'_>) -> Flow {
        self.phase = Phase::Command;
        match (kept, is_last) {
            (true, true) => {
                let digest = self.arrival.finish(bytes);
                self.end_content(digest, turn)
            }
            (true, false) => {
                self.arrival.feed(bytes);
                self.state = State::Chunks;
                turn.say(replies::OK)
            }
            (false, _) => self.refuse_chunk(is_last, turn),
        }
    }

    /// With the last chunk the transaction is over, so that what is pipelined behind it can begin anew.
    fn refuse_chunk(&mut self, is_last: bool, turn: &mut Turn<'_>) -> Flow {
        let reply = match self.state {
            _ if !turn.policy.chunking => replies::UNKNOWN_COMMAND,
            State::Transaction => replies::NO_RECIPIENTS,
            State::New | State::Ready => replies::MAIL_FIRST,
            State::Chunks | State::ChunksRefused => replies::CHUNK_LOST,
        };
        let in_transaction = !matches!(self.state, State::New | State::Ready);
        if in_transaction && is_last {
            self.end_transaction();
        } else if in_transaction {
            self.state = State::ChunksRefused;
        }
        turn.say(reply)
    }

    fn take_data(&mut self, mut place: DataPlace, bytes: &[u8], turn: &mut Turn<'_>) -> (usize, Flow) {
        let Some((used, digest)) = place.take(bytes, &mut self.arrival) else {
            self.phase = Phase::Data(place);
            return (bytes.len(), Flow::Continue);
        };
        self.phase = Phase::Command;
        (used, self.end_content(digest, turn))
    }

    /// The one place where a message is accepted.
    fn end_content(&mut self, digest: u64, turn: &mut Turn<'_>) -> Flow {
        let fault = turn.policy.faults.strike(Stage::Dot, b"", &mut self.dice);
        let flow = match fault {
            Some(FaultAction::DropAfterAccept) => {
                self.record(digest, turn);
                turn.drop_connection()
            }
            Some(FaultAction::Drop) => turn.drop_connection(),
            Some(FaultAction::Reply(code)) => turn.say_fault(code, Stage::Dot),
            None if self.arrival.size_bytes() > turn.policy.size_max => turn.say(replies::TOO_BIG),
            None => self.accept(digest, turn),
        };
        self.end_transaction();
        flow
    }

    fn accept(&mut self, digest: u64, turn: &mut Turn<'_>) -> Flow {
        self.record(digest, turn);
        self.messages += 1;
        match turn.say(replies::TAKEN) {
            _ if self.messages == turn.policy.close_after => Flow::Finish,
            flow => flow,
        }
    }

    fn record(&mut self, digest: u64, turn: &mut Turn<'_>) {
        let Books { log, tally, now_ns } = &mut *turn.books;
        tally.transactions += 1;
        tally.recipients += self.recipients;
        tally.bytes += self.arrival.size_bytes();
        let token = self.arrival.token();
        let shared =
            Received { time_ns: *now_ns, digest, token, reverse_path: &self.reverse_path, forward_path: b"" };
        log.record(&shared, &self.forward_paths);
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
        self.arrival.clear();
    }
}

/// What one call of `handle_*` works with.
struct Turn<'a> {
    policy: &'a Policy,
    books: &'a mut Books,
    out: &'a mut Vec<u8>,
}

impl Turn<'_> {
    fn say(&mut self, Reply(code, text): Reply<'_>) -> Flow {
        self.out.extend_from_slice(text.as_bytes());
        self.books.tally.count_reply(code);
        Flow::Continue
    }

    fn finish(&mut self, reply: Reply<'_>) -> Flow {
        self.say(reply);
        Flow::Finish
    }

    fn drop_connection(&mut self) -> Flow {
        self.books.tally.dropped += 1;
        Flow::Drop
    }

    /// The flow of a fault, if one strikes.
    fn strike(&mut self, stage: Stage, address: &[u8], dice: &mut Dice) -> Option<Flow> {
        let flow = match self.policy.faults.strike(stage, address, dice)? {
            FaultAction::Reply(code) => self.say_fault(code, stage),
            FaultAction::Drop | FaultAction::DropAfterAccept => self.drop_connection(),
        };
        Some(flow)
    }

    fn say_fault(&mut self, code: u16, stage: Stage) -> Flow {
        use std::io::Write;
        let class = code / 100;
        let _infallible = write!(self.out, "{code} {class}.7.1 Asked to fault at {}\r\n", stage.name());
        self.books.tally.count_reply(code);
        if code == 421 { Flow::Finish } else { Flow::Continue }
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
