//! What became of recipients since their messages were written: an append-only file of marks.
//!
//! Marks are put into the page cache in the same turn in which the verdict came, and synced within some
//! milliseconds: the death of the process repeats at most the transactions in flight, the death of the machine
//! those and the last few milliseconds. When a journal has grown, the next one begins with the whole state (every
//! range that is owed); once that is durable the older ones are removed.
//!
//! Marks may be read in any order and more than once: settled beats deferred, more attempts beat fewer. That is
//! what lets another core record its share of a fan-out in its own journal.
//! Bound: a frame is at most [`FRAME_MAX`] bytes; a journal is turned over at `turn_len`; one window when it is read.

pub mod fold;
mod mark;
mod reading;
#[cfg(test)]
mod tests;

pub use fold::{Fold, FoldBuilder, Origin};
pub use mark::{HELD, Mark, Span, Spent, Waiting};
pub use reading::{JournalError, Read, fuzz_journal, read, read_head};

use mark::encode;
use message::MessageId;

/// A journal file's number: its name. They only rise.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct JournalNumber(pub u32);

/// Longest frame, its head included.
pub const FRAME_MAX: usize = 1 << 20;

/// Bytes before the first frame.
pub const HEAD_LEN: usize = 32;

/// Byte 6 is the format's version.
const MAGIC: &[u8; 8] = b"RPJRN\x00\x03\n";
const FRAME_HEAD_LEN: usize = 12;

/// Collects marks and says where they go. One per core.
#[derive(Debug)]
pub struct Journal {
    writer: Writer,
    number: JournalNumber,
    /// Where the next frame goes in the current file.
    offset: u64,
    frame: Vec<u8>,
    /// The last mark in the frame, if a settled neighbour can join it: where it stands.
    joinable: Option<(usize, Span)>,
    /// Bytes put and bytes synced since the start, over all files.
    put: u64,
    synced: u64,
}

/// Who writes: a core, by its own partition, in one life of the daemon. Each start takes a higher epoch.
#[derive(Clone, Copy, Debug)]
pub struct Writer {
    pub partition: u8,
    pub epoch: u32,
}

/// A place in the journal's life: durable once [`Journal::is_durable`] says so.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Position(u64);

impl Journal {
    /// Starts on an empty file, whose head is the first thing to be put.
    pub fn new(writer: Writer, number: JournalNumber, next_generation: u32) -> Journal {
        let mut journal =
            Journal { writer, number, offset: 0, frame: Vec::new(), joinable: None, put: 0, synced: 0 };
        journal.begin_file(number, next_generation);
        journal
    }

    fn begin_file(&mut self, number: JournalNumber, next_generation: u32) {
        (self.number, self.offset, self.joinable) = (number, 0, None);
        self.frame.clear();
        self.frame.extend_from_slice(&file_head(self.writer, number, next_generation));
        self.begin_frame();
    }

    fn begin_frame(&mut self) {
        let end = self.frame.len() + FRAME_HEAD_LEN;
        self.frame.resize(end, 0);
        self.joinable = None;
    }

    /// Where the payload of the frame under way begins: behind the file's head if that is still to be put.
    fn frame_start(&self) -> usize {
        if self.offset == 0 { HEAD_LEN } else { 0 }
    }

    pub fn number(&self) -> JournalNumber {
        self.number
    }

    /// Bytes of the current file.
    pub fn len(&self) -> u64 {
        self.offset
    }

    pub fn is_empty(&self) -> bool {
        self.offset == 0
    }

    /// One recipient is settled. A few nanoseconds; neighbours share a mark.
    pub fn settled(&mut self, id: MessageId, index: u32) {
        if let Some((at, span)) = &mut self.joinable
            && span.id == id
            && span.first + span.count == index
        {
            span.count += 1;
            self.frame[*at + 13..*at + 17].copy_from_slice(&span.count.to_le_bytes());
            return;
        }
        let at = self.frame.len();
        let span = Span { id, first: index, count: 1 };
        self.mark(&Mark::Settled(span));
        self.joinable = Some((at, span));
    }

    pub fn mark(&mut self, mark: &Mark) {
        self.joinable = None;
        encode(mark, &mut self.frame);
    }

    /// True if the frame under way should be put before more is added.
    pub fn frame_is_full(&self) -> bool {
        self.frame.len() > FRAME_MAX - 64
    }

    /// The bytes to put now, and where, if there are any; [`Journal::frame_put`] afterwards.
    pub fn frame(&mut self) -> Option<(u64, &[u8])> {
        let start = self.frame_start();
        let payload = start + FRAME_HEAD_LEN;
        if self.frame.len() == payload && start == 0 {
            return None;
        }
        let len = u32::try_from(self.frame.len() - payload).expect("a frame is at most 1 MiB");
        let crc = frame_crc(self.number, self.offset + start as u64, &self.frame[payload..]);
        self.frame[start..start + 4].copy_from_slice(&len.to_le_bytes());
        self.frame[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
        self.frame[start + 8..payload].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
        Some((self.offset, &self.frame))
    }

    /// What [`Journal::frame`] gave is in the page cache.
    pub fn frame_put(&mut self) {
        self.offset += self.frame.len() as u64;
        self.put += self.frame.len() as u64;
        self.frame.clear();
        self.begin_frame();
    }

    /// Where the marks made so far will be.
    pub fn position(&self) -> Position {
        // A frame without marks is never put: nothing may wait for it.
        let under_way = if self.frame.len() == FRAME_HEAD_LEN { 0 } else { self.frame.len() as u64 };
        Position(self.put + under_way)
    }

    /// Put but not yet synced.
    pub fn has_unsynced(&self) -> bool {
        self.put > self.synced
    }

    /// What a sync that starts now will have made durable.
    pub fn put_position(&self) -> Position {
        Position(self.put)
    }

    pub fn handle_synced(&mut self, up_to: Position) {
        self.synced = self.synced.max(up_to.0);
    }

    pub fn is_durable(&self, position: Position) -> bool {
        position.0 <= self.synced
    }

    /// Goes over to a new file. The caller then marks the whole state, from `StateBegins` to `StateEnds`, in this
    /// same turn, and removes the older files once [`Journal::position`] after it is durable.
    pub fn turn_over(&mut self, number: JournalNumber, next_generation: u32) {
        debug_assert_eq!(self.frame.len(), FRAME_HEAD_LEN, "the last frame was put");
        self.begin_file(number, next_generation);
    }
}

const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"RPJF");

/// Binds a frame to its file and place, so that no other file's frame can be taken for it.
fn frame_crc(number: JournalNumber, offset: u64, payload: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&number.0.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &offset.to_le_bytes());
    crc32c::crc32c_append(crc, payload)
}

fn file_head(writer: Writer, number: JournalNumber, next_generation: u32) -> [u8; HEAD_LEN] {
    let mut head = [0; HEAD_LEN];
    head[..8].copy_from_slice(MAGIC);
    head[12..16].copy_from_slice(&number.0.to_le_bytes());
    head[16..20].copy_from_slice(&next_generation.to_le_bytes());
    head[20] = writer.partition;
    head[24..28].copy_from_slice(&writer.epoch.to_le_bytes());
    let crc = crc32c::crc32c(&head[12..]);
    head[8..12].copy_from_slice(&crc.to_le_bytes());
    head
}
