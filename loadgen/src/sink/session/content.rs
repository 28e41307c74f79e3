//! The content of a transaction and what it is answered: DATA, chunks, LMTP's reply for each recipient.

use super::super::arrival::DataPlace;
use super::super::faults::{FaultAction, Stage};
use super::super::replies;
use super::turn::Turn;
use super::{Books, Flow, Phase, Session, State};
use crate::records::Received;

impl Session {
    pub(super) fn open_data(&mut self, turn: &mut Turn<'_>) -> Flow {
        let paths = std::mem::take(&mut self.forward_paths);
        let flow = self.strike(Stage::Data, first_of(&paths), turn);
        self.forward_paths = paths;
        flow.unwrap_or_else(|| {
            self.phase = Phase::Data(DataPlace::LineStart);
            turn.say(replies::GO_AHEAD)
        })
    }

    /// RFC 3030 §2: the octets of a refused chunk follow all the same, and are thrown away.
    pub(super) fn open_chunk(&mut self, len: u64, is_last: bool, turn: &mut Turn<'_>) -> Flow {
        let kept = turn.policy.chunking
            && match self.state {
                State::Transaction => self.recipients > 0,
                State::Chunks => true,
                State::New | State::Ready | State::ChunksRefused => false,
            };
        match self.struck(Stage::Chunk, b"", turn) {
            Some(action @ (FaultAction::Reply(_) | FaultAction::Say(..))) if kept => {
                self.chunk_fault = Some(action.clone());
            }
            Some(action) if kept => return turn.suffer(action, Stage::Chunk).unwrap_or(Flow::Continue),
            _ => {}
        }
        let kept = kept && self.chunk_fault.is_none();
        self.phase = Phase::Chunk { left: len, is_last, kept };
        match len {
            0 => self.end_chunk(b"", is_last, kept, turn),
            _ => Flow::Continue,
        }
    }

    pub(super) fn take_chunk(
        &mut self,
        left: u64,
        is_last: bool,
        kept: bool,
        bytes: &[u8],
        turn: &mut Turn<'_>,
    ) -> (usize, Flow) {
        if let (true, Some(flow)) = (kept, self.strike_content(turn)) {
            return (bytes.len(), flow);
        }
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

    /// Once per content, at its first octets. All that can be planned there ends the connection.
    fn strike_content(&mut self, turn: &mut Turn<'_>) -> Option<Flow> {
        if std::mem::replace(&mut self.content_begun, true) || !turn.policy.faults.any_at(Stage::Content) {
            return None;
        }
        let paths = std::mem::take(&mut self.forward_paths);
        let flow = self.strike(Stage::Content, first_of(&paths), turn);
        self.forward_paths = paths;
        flow
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
        let fault = self.chunk_fault.take();
        let in_transaction = !matches!(self.state, State::New | State::Ready);
        if in_transaction && is_last {
            self.end_transaction();
        } else if in_transaction {
            self.state = State::ChunksRefused;
        }
        match fault {
            Some(action) => turn.say_refusal(&action, Stage::Chunk),
            None => turn.say(reply),
        }
    }

    pub(super) fn take_data(
        &mut self,
        mut place: DataPlace,
        bytes: &[u8],
        turn: &mut Turn<'_>,
    ) -> (usize, Flow) {
        if let Some(flow) = self.strike_content(turn) {
            return (bytes.len(), flow);
        }
        let Some((used, digest)) = place.take(bytes, &mut self.arrival) else {
            self.phase = Phase::Data(place);
            return (bytes.len(), Flow::Continue);
        };
        self.phase = Phase::Command;
        (used, self.end_content(digest, turn))
    }

    /// The one place where a message is accepted.
    fn end_content(&mut self, digest: u64, turn: &mut Turn<'_>) -> Flow {
        let paths = std::mem::take(&mut self.forward_paths);
        let flow = match turn.policy.lmtp {
            true => self.answer_each(digest, &paths, turn),
            false => self.answer_once(digest, &paths, turn),
        };
        self.forward_paths = paths;
        self.end_transaction();
        match flow {
            Flow::Continue if self.messages == turn.policy.close_after && self.messages > 0 => Flow::Finish,
            flow => flow,
        }
    }

    fn answer_once(&mut self, digest: u64, paths: &[u8], turn: &mut Turn<'_>) -> Flow {
        let fault = self.struck(Stage::Dot, first_of(paths), turn);
        if let Some(FaultAction::BreakAfterAccept(_)) = fault {
            self.record(digest, paths, self.recipients, turn.books);
        }
        if let Some(flow) = fault.and_then(|action| turn.suffer(action, Stage::Dot)) {
            return flow;
        }
        if self.arrival.size_bytes() > turn.policy.size_max {
            return turn.say(replies::TOO_BIG);
        }
        self.record(digest, paths, self.recipients, turn.books);
        self.messages += 1;
        turn.say(replies::TAKEN)
    }

    /// RFC 2033 §4.2: a reply for each recipient that was taken, in their order.
    fn answer_each(&mut self, digest: u64, paths: &[u8], turn: &mut Turn<'_>) -> Flow {
        let (mut flow, mut taken, mut count) = (Flow::Continue, Vec::new(), 0);
        for path in paths.split_inclusive(|&byte| byte == b'\n') {
            let fault = self.struck(Stage::Dot, first_of(path), turn);
            let refusal = fault.and_then(|action| turn.suffer(action, Stage::Dot));
            if refusal.is_none() && self.arrival.size_bytes() > turn.policy.size_max {
                turn.say(replies::TOO_BIG);
                continue;
            }
            if refusal.is_none() || matches!(fault, Some(FaultAction::BreakAfterAccept(_))) {
                taken.extend_from_slice(path);
                count += 1;
            }
            flow = refusal.unwrap_or_else(|| turn.say(replies::TAKEN));
            if flow != Flow::Continue {
                break;
            }
        }
        if count > 0 {
            self.record(digest, &taken, count, turn.books);
            self.messages += 1;
        }
        flow
    }

    fn record(&self, digest: u64, paths: &[u8], recipients: u64, books: &mut Books) {
        let Books { log, tally, peers, contents, now_ns, .. } = books;
        tally.transactions += 1;
        tally.recipients += recipients;
        tally.bytes += self.arrival.size_bytes();
        peers.note_message(self.pair, *now_ns, recipients);
        contents.keep(self.arrival.kept());
        let token = self.arrival.token();
        let shared =
            Received { time_ns: *now_ns, digest, token, reverse_path: &self.reverse_path, forward_path: b"" };
        log.record(&shared, paths);
    }
}

/// The first of the paths, each of which ends with a line feed.
fn first_of(paths: &[u8]) -> &[u8] {
    &paths[..memchr::memchr(b'\n', paths).unwrap_or(paths.len())]
}
