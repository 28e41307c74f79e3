//! Appends messages to segments and makes them durable in groups.
//!
//! One commit is under way at a time; whatever arrives meanwhile goes into the next, so a serial submitter waits
//! for one sync and a thousand sessions share one. A commit is written once, padded to whole blocks, never
//! again. Segments are prepared ahead (reserved and written through once) because overwriting commits two to five
//! times as fast as growing a file; a reclaimed one is overwritten in its turn under a new generation.
//!
//! After a failed write or sync the log is poisoned: nothing more is accepted, because the page cache may have
//! dropped what it could not write, and a retry that "succeeds" would prove nothing. A restart recovers.
//!
//! A full segment is sealed: an index of its messages is written at its end, for which room was kept. Old segments that
//! hold little are emptied by copying that little forward ([`Log::victim`]): a copy keeps its message's id.
//! Bounds: `pending_max` bytes wait for a commit, `spares` segments wait for use; the index of the active segment.

use crate::log::index::{ENTRY_LEN_MAX, IndexWriter};
use crate::log::record::{self, Bound, HEAD_LEN, Head, Location, Meta, NewMessage};
use message::MessageId;
use std::collections::{BTreeMap, VecDeque};

/// Commits, and therefore records' first bytes after a commit, stand at multiples of this.
pub const BLOCK: u64 = 4096;

/// [`BLOCK`], as memory is counted.
pub const BLOCK_LEN: usize = 4096;

/// A segment file's number: its name. The generation tells one life of the file from the next.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SegmentNumber(pub u32);

/// Whom to tell when a message is durable. The caller's to choose.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AppendToken(pub u64);

#[derive(Clone, Copy, Debug)]
pub struct LogConfig {
    pub partition: u8,
    /// Bytes of a segment; a longer record gets a segment of its own. At most 1 GiB.
    pub segment_len: u64,
    /// Segments kept ready beyond the active one.
    pub spares: usize,
    /// Bytes that may wait for a commit; past them [`Log::is_full`].
    pub pending_max: usize,
    /// Makes the segments' salts; a secret, so that nobody can write a content that passes for a record.
    pub salt: u64,
}

/// What the engine is to do, or to know.
#[derive(Debug)]
pub enum LogOutput {
    /// Create the file, reserve `len` bytes, write it through if `zero`, make its name durable; then
    /// [`Log::handle_prepared`].
    Prepare { segment: SegmentNumber, len: u64, zero: bool },
    /// Write and sync; then [`Log::handle_written`].
    Write { segment: SegmentNumber, offset: u64, bytes: Vec<u8> },
    /// These messages are durable.
    Committed(Vec<(AppendToken, Head)>),
    /// These are not, and the log takes no more. Said once for each token.
    Refused(Vec<AppendToken>),
    /// Remove the file.
    Remove { segment: SegmentNumber },
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AppendError {
    #[error("the log takes no more after a failed write; restart to recover")]
    Poisoned,
    #[error("the disk has no room for another segment")]
    NoSpace,
    #[error("the message is longer than a record can be")]
    TooLong,
}

#[derive(Debug)]
struct Segment {
    generation: u32,
    len: u64,
    /// Messages not yet settled, and one for being written to.
    live: u32,
    /// Bytes of their records.
    live_len: u64,
    ready: bool,
    /// Nothing more is written to it.
    sealed: bool,
}

#[derive(Debug)]
struct Batch {
    segment: SegmentNumber,
    offset: u64,
    bytes: Vec<u8>,
    messages: Vec<(AppendToken, Head)>,
    /// It is the segment's index: its last write.
    seals: bool,
}

impl Batch {
    fn new(segment: SegmentNumber, offset: u64, bytes: Vec<u8>) -> Batch {
        Batch { segment, offset, bytes, messages: Vec::new(), seals: false }
    }
}

/// The segment that records go to.
#[derive(Debug)]
struct Active {
    segment: SegmentNumber,
    generation: u32,
    salt: u32,
    /// Where the next record goes.
    tail: u64,
    len: u64,
    index: IndexWriter,
}

impl Active {
    /// True if the record fits, with the padding behind it and the index that then ends the segment.
    fn has_room(&self, record_len: u64) -> bool {
        let end = (self.tail + record_len).next_multiple_of(BLOCK);
        end + self.index.len_with(ENTRY_LEN_MAX) <= self.len
    }
}

/// A commit under way.
#[derive(Debug)]
struct InFlight {
    messages: Vec<(AppendToken, Head)>,
    seals: Option<SegmentNumber>,
}

/// See the module.
#[derive(Debug)]
pub struct Log {
    config: LogConfig,
    segments: BTreeMap<SegmentNumber, Segment>,
    /// Files ready for a new life: reserved, written through, holding nothing alive.
    spares: VecDeque<(SegmentNumber, u64)>,
    preparing: Option<SegmentNumber>,
    active: Option<Active>,
    batches: VecDeque<Batch>,
    in_flight: Option<InFlight>,
    next_generation: u32,
    next_number: u32,
    pending_len: usize,
    outputs: VecDeque<LogOutput>,
    poisoned: bool,
    no_space: bool,
    /// The last message that `Committed` was said of; everything that recovery found counts as before it.
    committed: MessageId,
    /// Buffers that came back, for the next batches.
    buffers: Vec<Vec<u8>>,
}

/// A segment that recovery found.
#[derive(Debug)]
pub struct FoundSegment {
    pub number: SegmentNumber,
    /// 0 if nothing valid was in it.
    pub generation: u32,
    pub len: u64,
    /// Messages still owed, and 1 more if the file must be kept for what could not be read in it.
    pub live: u32,
    /// Bytes of the records of those that are owed, padding included.
    pub live_len: u64,
    /// An index that is to be written at this offset, because the daemon died before it could.
    pub index: Option<(u64, Vec<u8>)>,
}

impl Log {
    /// `next_generation` must be above every one ever used in this partition.
    pub fn new(config: LogConfig, found: Vec<FoundSegment>, next_generation: u32) -> Log {
        let next_number = found.iter().map(|segment| segment.number.0 + 1).max().unwrap_or(0);
        let mut log = Log {
            config,
            segments: BTreeMap::new(),
            spares: VecDeque::new(),
            preparing: None,
            active: None,
            batches: VecDeque::new(),
            in_flight: None,
            next_generation,
            next_number,
            pending_len: 0,
            outputs: VecDeque::new(),
            poisoned: false,
            no_space: false,
            committed: MessageId(
                u64::from(config.partition) << 56 | (u64::from(next_generation) << 24).saturating_sub(1),
            ),
            buffers: Vec::new(),
        };
        for segment in found {
            log.take_up(segment);
        }
        log.prepare_spares();
        log
    }

    fn take_up(&mut self, found: FoundSegment) {
        let FoundSegment { number, generation, len, mut live, live_len, index } = found;
        if let Some((offset, bytes)) = index.filter(|_| live > 0) {
            // It is being written to once more.
            live += 1;
            self.push_batch(Batch { seals: true, ..Batch::new(number, offset, bytes) });
        }
        self.segments.insert(number, Segment { generation, len, live, live_len, ready: true, sealed: true });
        self.retire_if_empty(number);
    }

    /// Takes a message into the next commit. `Committed` or `Refused` follows with the same token.
    pub fn append(&mut self, message: &NewMessage<'_>, token: AppendToken) -> Result<MessageId, AppendError> {
        if self.poisoned {
            return Err(AppendError::Poisoned);
        }
        let record_len = record::record_len(message);
        if record_len > record::RECORD_MAX - 16 * BLOCK {
            return Err(AppendError::TooLong);
        }
        self.make_room(record_len)?;
        let active = self.active.as_ref().expect("make_room() saw to it");
        let (segment, place) = (active.segment, active.tail);
        let bound = (active.generation, active.salt);
        let id = match message.moved {
            Some(id) => id,
            None => MessageId::new(self.config.partition, bound.0, place).ok_or(AppendError::TooLong)?,
        };
        let batch = self.open_batch(segment, place);
        let (before, commit_at) = (batch.bytes.len(), batch.offset);
        let bound = Bound::new(Location::new(bound.0, place), commit_at, bound.1);
        let head = record::encode(message, id, bound, &mut batch.bytes);
        batch.messages.push((token, head));
        let record = &batch.bytes[before..];
        let (grown, head_bytes) =
            (record.len(), *record.first_chunk::<HEAD_LEN>().expect("it begins with its head"));
        self.pending_len += grown;
        self.grow_active(message, &head, &head_bytes);
        Ok(id)
    }

    fn grow_active(&mut self, message: &NewMessage<'_>, head: &Head, head_bytes: &[u8; HEAD_LEN]) {
        let active = self.active.as_mut().expect("the record was just put there");
        active.tail += head.record_len();
        let meta = Meta::parse(message.meta, message.layout);
        active.index.push(head_bytes, meta.into_iter().flat_map(|meta| meta.groups()));
        let segment = self.segments.get_mut(&active.segment).expect("the active segment is in the table");
        segment.live += 1;
        segment.live_len += head.record_len();
    }

    /// True when more would pass the bound on what waits for a commit.
    pub fn is_full(&self) -> bool {
        self.pending_len >= self.config.pending_max
    }

    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// True when the disk had no room for a segment the last time one was asked for.
    pub fn has_no_space(&self) -> bool {
        self.no_space
    }

    /// Nothing waits for the disk.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_none() && self.batches.is_empty()
    }

    /// The file that is in this life.
    pub fn segment_of(&self, generation: u32) -> Option<SegmentNumber> {
        // Few segments and rarely asked: by the time a body is read from disk, a search is nothing.
        self.segments.iter().find(|(_, segment)| segment.generation == generation).map(|(number, _)| *number)
    }

    /// No message with a higher id has been given to the caller as durable: what a whole state covers must be known
    /// to those who write it, not just to the disk.
    pub fn committed(&self) -> MessageId {
        self.committed
    }

    pub fn next_generation(&self) -> u32 {
        self.next_generation
    }

    /// Bytes of all segment files.
    pub fn disk_len(&self) -> u64 {
        self.segments.values().map(|segment| segment.len).chain(self.spares.iter().map(|spare| spare.1)).sum()
    }

    /// Bytes of records that somebody is owed.
    pub fn live_len(&self) -> u64 {
        self.segments.values().map(|segment| segment.live_len).sum()
    }

    /// A record is needed no more: all recipients of its message are settled, and the journal that says so is durable;
    /// or a copy of it is. `record_len` may be without the padding.
    pub fn end_record(&mut self, location: Location, record_len: u64) {
        let Some(number) = self.segment_of(location.generation) else { return };
        let segment = self.segments.get_mut(&number).expect("it was just found");
        segment.live -= 1;
        segment.live_len -= record_len.next_multiple_of(MessageId::PLACE_UNIT);
        self.retire_if_empty(number);
    }

    /// What could not be read in a segment has been moved aside: the file need not be kept for it.
    pub fn end_damage(&mut self, number: SegmentNumber) {
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.live -= 1;
            self.retire_if_empty(number);
        }
    }

    /// The generation of the segment to be emptied next by copying its messages forward, if the files have outgrown
    /// what they hold: beyond two segments (the active one and a spare) they may be half as long again as the live
    /// records, which leaves room up to twice that while copies are under way. The emptiest one is chosen, which
    /// copies the least for what it frees; one that is more than half full is never worth it. `excluded` tells those
    /// that were tried and did not empty.
    pub fn victim(&self, excluded: &dyn Fn(u32) -> bool) -> Option<u32> {
        if self.disk_len() <= 2 * self.config.segment_len + self.live_len() / 2 * 3 {
            return None;
        }
        let may_be =
            |segment: &&Segment| segment.sealed && segment.live_len > 0 && !excluded(segment.generation);
        let sealed = self.segments.values().filter(may_be);
        let share = |segment: &&Segment| segment.live_len * 1024 / segment.len.max(1);
        sealed.min_by_key(share).filter(|segment| share(segment) <= 512).map(|segment| segment.generation)
    }

    /// What is to be done. A commit is among it only after [`Log::start_commit`].
    pub fn poll_output(&mut self) -> Option<LogOutput> {
        let output = self.outputs.pop_front()?;
        if let LogOutput::Committed(messages) = &output {
            // Copies have old ids.
            self.committed = messages.iter().map(|(_, head)| head.id).fold(self.committed, MessageId::max);
        }
        Some(output)
    }

    /// Messages that wait for the next commit.
    pub fn waiting(&self) -> usize {
        self.batches.iter().map(|batch| batch.messages.len()).sum()
    }

    /// Something waits, nothing is under way, and its segment is ready.
    pub fn may_start_commit(&self) -> bool {
        let is_ready = |batch: &Batch| self.segments.get(&batch.segment).is_some_and(|segment| segment.ready);
        self.in_flight.is_none() && !self.poisoned && self.batches.front().is_some_and(is_ready)
    }

    /// The answer to `Prepare`.
    pub fn handle_prepared(&mut self, number: SegmentNumber, ok: bool) {
        if self.preparing == Some(number) {
            self.preparing = None;
        }
        if ok {
            self.no_space = false;
            self.segment_is_ready(number);
            return;
        }
        self.no_space = true;
        self.drop_unprepared(number);
    }

    /// The answer to `Write`. `bytes` is the buffer, for reuse.
    pub fn handle_written(&mut self, ok: bool, bytes: Vec<u8>) {
        let Some(InFlight { messages, seals }) = self.in_flight.take() else { return };
        if !ok {
            self.poison(messages);
        } else if let Some(number) = seals {
            self.end_writing(number);
        } else {
            self.outputs.push_back(LogOutput::Committed(messages));
        }
        // A buffer that a huge list stretched is not kept.
        if bytes.capacity() <= 1 << 20 && self.buffers.len() < 4 {
            self.buffers.push(bytes);
        }
    }

    /// The disk may have room again: try for a segment when one is next wanted.
    pub fn handle_space_freed(&mut self) {
        self.no_space = false;
    }

    /// What is written cannot become durable, for a reason outside the log: it takes no more.
    pub fn handle_unsafe(&mut self) {
        self.poison(Vec::new());
    }

    fn poison(&mut self, messages: Vec<(AppendToken, Head)>) {
        self.poisoned = true;
        let waiting = self.batches.drain(..).flat_map(|batch| batch.messages);
        let tokens = messages.into_iter().chain(waiting).map(|(token, _)| token).collect();
        self.outputs.push_back(LogOutput::Refused(tokens));
    }

    /// Goes over to another segment if the record does not fit into the active one.
    fn make_room(&mut self, record_len: u64) -> Result<(), AppendError> {
        if self.active.as_ref().is_some_and(|active| active.has_room(record_len)) {
            return Ok(());
        }
        self.seal_active();
        let index = IndexWriter::default();
        let (number, len) =
            self.take_file(BLOCK + record_len.next_multiple_of(BLOCK) + index.len_with(ENTRY_LEN_MAX))?;
        let generation = self.next_generation;
        self.next_generation += 1;
        // One of `live` stands for being written to, until it is sealed.
        let ready = self.segments.get(&number).is_none_or(|segment| segment.ready);
        self.segments.insert(number, Segment { generation, len, live: 1, live_len: 0, ready, sealed: false });
        let salt = salt_of(self.config.salt, self.config.partition, generation);
        let head = segment_head(self.config.partition, generation, len, salt);
        self.active = Some(Active { segment: number, generation, salt, tail: BLOCK, len, index });
        self.push_batch(Batch::new(number, 0, head));
        self.prepare_spares();
        Ok(())
    }

    /// The active segment gets its index, unless nothing in it is owed any more.
    fn seal_active(&mut self) {
        let Some(active) = self.active.take() else { return };
        let Some(segment) = self.segments.get_mut(&active.segment) else { return };
        segment.sealed = true;
        let is_written = self.batches.iter().all(|batch| batch.segment != active.segment);
        if segment.live == 1 && is_written && self.in_flight.is_none() {
            return self.end_writing(active.segment);
        }
        let bytes = active.index.finish(active.generation, active.salt);
        let offset = active.len - bytes.len() as u64;
        self.push_batch(Batch { seals: true, ..Batch::new(active.segment, offset, bytes) });
    }

    fn push_batch(&mut self, batch: Batch) {
        self.pending_len += batch.bytes.len();
        self.batches.push_back(batch);
    }

    /// The last write to a segment is over.
    fn end_writing(&mut self, number: SegmentNumber) {
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.live -= 1;
        }
        self.retire_if_empty(number);
    }

    /// A spare that is long enough, else a new file, which the commit will wait for.
    fn take_file(&mut self, len_min: u64) -> Result<(SegmentNumber, u64), AppendError> {
        if let Some(at) = self.spares.iter().position(|(_, len)| *len >= len_min) {
            return Ok(self.spares.remove(at).expect("position() found it"));
        }
        if self.no_space {
            return Err(AppendError::NoSpace);
        }
        let len = self.config.segment_len.max(len_min.next_multiple_of(BLOCK));
        let number = self.new_file(len);
        self.outputs.push_back(LogOutput::Prepare { segment: number, len, zero: false });
        Ok((number, len))
    }

    fn new_file(&mut self, len: u64) -> SegmentNumber {
        let number = SegmentNumber(self.next_number);
        self.next_number += 1;
        let segment = Segment { generation: 0, len, live: 0, live_len: 0, ready: false, sealed: false };
        self.segments.insert(number, segment);
        number
    }

    /// One at a time, so that preparing never takes the disk from commits.
    fn prepare_spares(&mut self) {
        if self.preparing.is_some() || self.no_space || self.spares.len() >= self.config.spares {
            return;
        }
        let len = self.config.segment_len;
        let number = self.new_file(len);
        self.preparing = Some(number);
        self.outputs.push_back(LogOutput::Prepare { segment: number, len, zero: true });
    }

    fn segment_is_ready(&mut self, number: SegmentNumber) {
        let Some(segment) = self.segments.get_mut(&number) else { return };
        segment.ready = true;
        if segment.generation == 0 {
            // Another may have become free meanwhile.
            self.make_spare(number);
            self.prepare_spares();
        }
    }

    /// The file could not be made: what was to go into it is refused, the rest goes on.
    fn drop_unprepared(&mut self, number: SegmentNumber) {
        self.segments.remove(&number);
        if self.active.as_ref().is_some_and(|active| active.segment == number) {
            self.active = None;
        }
        let (gone, kept) =
            self.batches.drain(..).partition::<VecDeque<_>, _>(|batch| batch.segment == number);
        self.batches = kept;
        self.pending_len -= gone.iter().map(|batch| batch.bytes.len()).sum::<usize>().min(self.pending_len);
        let tokens: Vec<_> =
            gone.into_iter().flat_map(|batch| batch.messages).map(|(token, _)| token).collect();
        self.outputs.push_back(LogOutput::Remove { segment: number });
        if !tokens.is_empty() {
            self.outputs.push_back(LogOutput::Refused(tokens));
        }
    }

    /// A file with nothing alive is kept as a spare or removed.
    fn retire_if_empty(&mut self, number: SegmentNumber) {
        let Some(segment) = self.segments.get(&number) else { return };
        if segment.live == 0 && segment.ready {
            self.make_spare(number);
        }
    }

    fn make_spare(&mut self, number: SegmentNumber) {
        let Some(Segment { len, .. }) = self.segments.remove(&number) else { return };
        if len == self.config.segment_len && self.spares.len() < self.config.spares {
            self.spares.push_back((number, len));
        } else {
            self.outputs.push_back(LogOutput::Remove { segment: number });
        }
    }

    /// The batch that the active segment's next record joins; a new one begins at `tail`.
    fn open_batch(&mut self, segment: SegmentNumber, tail: u64) -> &mut Batch {
        let joins = self.batches.back().is_some_and(|batch| batch.segment == segment);
        if !joins {
            let bytes = self.buffers.pop().map_or_else(Vec::new, |mut buffer| {
                buffer.clear();
                buffer
            });
            self.push_batch(Batch::new(segment, tail, bytes));
        }
        self.batches.back_mut().expect("one was just pushed")
    }

    /// Begins a commit of what waits, unless one is under way. The caller decides when it is worth it.
    pub fn start_commit(&mut self) {
        if !self.may_start_commit() {
            return;
        }
        let mut batch = self.batches.pop_front().expect("front() was there");
        self.pending_len = self.pending_len.saturating_sub(batch.bytes.len());
        let padded = batch.bytes.len().next_multiple_of(BLOCK_LEN);
        batch.bytes.resize(padded, 0);
        if let Some(active) = &mut self.active
            && active.segment == batch.segment
        {
            active.tail = batch.offset + padded as u64;
        }
        let seals = batch.seals.then_some(batch.segment);
        self.in_flight = Some(InFlight { messages: batch.messages, seals });
        self.outputs.push_back(LogOutput::Write {
            segment: batch.segment,
            offset: batch.offset,
            bytes: batch.bytes,
        });
    }
}

/// Byte 6 is the format's version.
const SEGMENT_MAGIC: &[u8; 8] = b"RPSEG\x00\x05\n";

/// The newest version of the format that this program reads, and the one that it writes.
pub const FORMAT_VERSION: u8 = SEGMENT_MAGIC[6];

/// A segment's salt: what nobody knows who does not know the log's. (The finaliser of splitmix64.)
fn salt_of(log: u64, partition: u8, generation: u32) -> u32 {
    let mut mixed =
        log ^ (u64::from(partition) << 32 | u64::from(generation)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    u32::try_from(mixed >> 32).expect("the upper half")
}

/// The first block of a segment, written with its first commit.
fn segment_head(partition: u8, generation: u32, len: u64, salt: u32) -> Vec<u8> {
    let mut block = vec![0; BLOCK_LEN];
    block[..8].copy_from_slice(SEGMENT_MAGIC);
    block[12..16].copy_from_slice(&generation.to_le_bytes());
    block[16..24].copy_from_slice(&len.to_le_bytes());
    block[24] = partition;
    block[28..32].copy_from_slice(&salt.to_le_bytes());
    let crc = crc32c::crc32c(&block[12..]);
    block[8..12].copy_from_slice(&crc.to_le_bytes());
    block
}

/// What a segment's first block says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SegmentHead {
    /// Never used, or its first commit was torn.
    Blank,
    Written {
        version: u8,
        generation: u32,
        partition: u8,
        salt: u32,
    },
    /// A format that this program does not know.
    Unknown,
}

pub fn decode_segment_head(block: &[u8]) -> SegmentHead {
    let Some(block) = block.get(..BLOCK_LEN) else { return SegmentHead::Blank };
    let is_ours = block[..6] == SEGMENT_MAGIC[..6] && block[7] == SEGMENT_MAGIC[7];
    if is_ours && !(1..=FORMAT_VERSION).contains(&block[6]) {
        return SegmentHead::Unknown;
    }
    let word = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    if !is_ours || word(8) != crc32c::crc32c(&block[12..]) {
        return SegmentHead::Blank;
    }
    // Zero in version 1, whose records have no salt either.
    SegmentHead::Written { version: block[6], generation: word(12), partition: block[24], salt: word(28) }
}
