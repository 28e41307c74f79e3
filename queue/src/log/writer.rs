//! Appends messages to segments and makes them durable in groups.
//!
//! One commit is under way at a time; whatever arrives meanwhile goes into the next, so a serial submitter waits
//! for one sync and a thousand sessions share one. A commit is written once, padded to whole blocks, never
//! again. Segments are prepared ahead (reserved and written through once) because overwriting commits two to five
//! times as fast as growing a file; a reclaimed one is overwritten in its turn under a new generation.
//!
//! After a failed write or sync the log is poisoned: nothing more is accepted, because the page cache may have
//! dropped what it could not write, and a retry that "succeeds" would prove nothing. A restart recovers.
//! Bounds: `pending_max` bytes wait for a commit, `spares` segments wait for use.

use crate::log::record::{self, Head, NewMessage};
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
    ready: bool,
}

#[derive(Debug)]
struct Batch {
    segment: SegmentNumber,
    offset: u64,
    bytes: Vec<u8>,
    messages: Vec<(AppendToken, Head)>,
}

/// The segment that records go to.
#[derive(Clone, Copy, Debug)]
struct Active {
    segment: SegmentNumber,
    generation: u32,
    /// Where the next record goes.
    tail: u64,
    len: u64,
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
    in_flight: Option<Vec<(AppendToken, Head)>>,
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
        for FoundSegment { number, generation, len, live } in found {
            log.segments.insert(number, Segment { generation, len, live, ready: true });
            log.retire_if_empty(number);
        }
        log.prepare_spares();
        log
    }

    /// Takes a message into the next commit. `Committed` or `Refused` follows with the same token.
    pub fn append(&mut self, message: &NewMessage<'_>, token: AppendToken) -> Result<MessageId, AppendError> {
        if self.poisoned {
            return Err(AppendError::Poisoned);
        }
        let record_len = record::record_len(message);
        if record_len > record::RECORD_MAX - 2 * BLOCK {
            return Err(AppendError::TooLong);
        }
        let active = self.active_with_room(record_len)?;
        let place = active.tail;
        let id =
            MessageId::new(self.config.partition, active.generation, place).ok_or(AppendError::TooLong)?;
        let batch = self.open_batch(active);
        let before = batch.bytes.len();
        let head = record::encode(message, id, active.generation, &mut batch.bytes);
        batch.messages.push((token, head));
        let grown = batch.bytes.len() - before;
        self.pending_len += grown;
        self.grow_active(active, head.record_len());
        Ok(id)
    }

    fn grow_active(&mut self, mut active: Active, by: u64) {
        active.tail += by;
        self.active = Some(active);
        let segment = self.segments.get_mut(&active.segment).expect("the active segment is in the table");
        segment.live += 1;
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

    /// The file that holds a message, found by its generation.
    pub fn segment_of(&self, id: MessageId) -> Option<SegmentNumber> {
        let generation = id.generation();
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

    /// All recipients of the message are settled, and the journal that says so is durable.
    pub fn end_message(&mut self, id: MessageId) {
        let Some(number) = self.segment_of(id) else { return };
        let segment = self.segments.get_mut(&number).expect("it was just found");
        segment.live -= 1;
        self.retire_if_empty(number);
    }

    /// What is to be done. A commit is among it only after [`Log::start_commit`].
    pub fn poll_output(&mut self) -> Option<LogOutput> {
        let output = self.outputs.pop_front()?;
        if let LogOutput::Committed(messages) = &output {
            self.committed = messages.last().map_or(self.committed, |(_, head)| head.id);
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
        let Some(messages) = self.in_flight.take() else { return };
        if ok {
            self.outputs.push_back(LogOutput::Committed(messages));
        } else {
            self.poison(messages);
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

    fn poison(&mut self, messages: Vec<(AppendToken, Head)>) {
        self.poisoned = true;
        let waiting = self.batches.drain(..).flat_map(|batch| batch.messages);
        let tokens = messages.into_iter().chain(waiting).map(|(token, _)| token).collect();
        self.outputs.push_back(LogOutput::Refused(tokens));
    }

    /// The active segment if the record fits, else the next one.
    fn active_with_room(&mut self, record_len: u64) -> Result<Active, AppendError> {
        if let Some(active) = self.active
            && active.tail + record_len <= active.len
        {
            return Ok(active);
        }
        self.seal_active();
        let (number, len) = self.take_file(record_len + BLOCK)?;
        let generation = self.next_generation;
        self.next_generation += 1;
        // One of `live` stands for being written to, until it is sealed.
        let segment =
            self.segments.entry(number).or_insert(Segment { generation, len, live: 0, ready: true });
        (segment.generation, segment.live) = (generation, 1);
        let active = Active { segment: number, generation, tail: BLOCK, len };
        self.active = Some(active);
        self.batches.push_back(Batch {
            segment: number,
            offset: 0,
            bytes: segment_head(self.config.partition, generation, len),
            messages: Vec::new(),
        });
        self.prepare_spares();
        Ok(active)
    }

    fn seal_active(&mut self) {
        let Some(active) = self.active.take() else { return };
        if let Some(segment) = self.segments.get_mut(&active.segment) {
            segment.live -= 1;
        }
        self.retire_if_empty(active.segment);
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
        self.segments.insert(number, Segment { generation: 0, len, live: 0, ready: false });
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
            let len = segment.len;
            self.segments.remove(&number);
            self.spares.push_back((number, len));
            self.prepare_spares();
        }
    }

    /// The file could not be made: what was to go into it is refused, the rest goes on.
    fn drop_unprepared(&mut self, number: SegmentNumber) {
        self.segments.remove(&number);
        if self.active.is_some_and(|active| active.segment == number) {
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
        if segment.live > 0 || !segment.ready {
            return;
        }
        let len = segment.len;
        self.segments.remove(&number);
        if len == self.config.segment_len && self.spares.len() < self.config.spares {
            self.spares.push_back((number, len));
        } else {
            self.outputs.push_back(LogOutput::Remove { segment: number });
        }
    }

    /// The batch that the active segment's next record joins.
    fn open_batch(&mut self, active: Active) -> &mut Batch {
        let joins = self.batches.back().is_some_and(|batch| batch.segment == active.segment);
        if !joins {
            let bytes = self.buffers.pop().map_or_else(Vec::new, |mut buffer| {
                buffer.clear();
                buffer
            });
            self.batches.push_back(Batch {
                segment: active.segment,
                offset: active.tail,
                bytes,
                messages: Vec::new(),
            });
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
        self.in_flight = Some(batch.messages);
        self.outputs.push_back(LogOutput::Write {
            segment: batch.segment,
            offset: batch.offset,
            bytes: batch.bytes,
        });
    }
}

const SEGMENT_MAGIC: &[u8; 8] = b"RPSEG\x00\x01\n";

/// The first block of a segment, written with its first commit.
fn segment_head(partition: u8, generation: u32, len: u64) -> Vec<u8> {
    let mut block = vec![0; BLOCK_LEN];
    block[..8].copy_from_slice(SEGMENT_MAGIC);
    block[12..16].copy_from_slice(&generation.to_le_bytes());
    block[16..24].copy_from_slice(&len.to_le_bytes());
    block[24] = partition;
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
        generation: u32,
        partition: u8,
    },
    /// A format that this program does not know.
    Unknown,
}

pub fn decode_segment_head(block: &[u8]) -> SegmentHead {
    let Some(block) = block.get(..BLOCK_LEN) else { return SegmentHead::Blank };
    if &block[..6] == b"RPSEG\x00" && &block[..8] != SEGMENT_MAGIC {
        return SegmentHead::Unknown;
    }
    let word = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    if &block[..8] != SEGMENT_MAGIC || word(8) != crc32c::crc32c(&block[12..]) {
        return SegmentHead::Blank;
    }
    SegmentHead::Written { generation: word(12), partition: block[24] }
}
