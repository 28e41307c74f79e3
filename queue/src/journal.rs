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

pub use fold::{Fold, FoldBuilder, Origin};

use crate::range::Attempts;
use crate::source::{ReadError, Source, Window};
use message::{MessageId, UnixMillis};

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
const KIND_SETTLED: u8 = 1;
const KIND_DEFERRED: u8 = 2;
const KIND_STATE_BEGINS: u8 = 3;
const KIND_OWED: u8 = 4;
const KIND_STATE_ENDS: u8 = 5;

/// Recipients of a message, by index.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Span {
    pub id: MessageId,
    pub first: u32,
    pub count: u32,
}

/// The due time of recipients that an operator holds back: never, until they are released.
pub const HELD: UnixMillis = UnixMillis(u64::MAX);

/// Recipients that wait for another attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Waiting {
    pub span: Span,
    pub name_offset: u32,
    pub attempts: Attempts,
    /// 0: at once; [`HELD`]: not until they are released.
    pub due: UnixMillis,
}

/// One mark.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mark {
    /// Delivered, or failed with its bounce durable.
    Settled(Span),
    Deferred(Waiting),
    /// What follows, up to `StateEnds`, is everything that is owed of this partition's messages up to this id;
    /// marks that this partition made before are void.
    StateBegins {
        covers: MessageId,
    },
    Owed(Waiting),
    StateEnds,
    /// Not on disk: said by [`read`] where frames are missing. A state around it is not whole.
    Gap,
}

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

fn encode(mark: &Mark, out: &mut Vec<u8>) {
    let span = |kind: u8, span: &Span, out: &mut Vec<u8>| {
        out.push(kind);
        out.extend_from_slice(&span.id.0.to_le_bytes());
        out.extend_from_slice(&span.first.to_le_bytes());
        out.extend_from_slice(&span.count.to_le_bytes());
    };
    match mark {
        Mark::Settled(settled) => span(KIND_SETTLED, settled, out),
        Mark::Deferred(waiting) | Mark::Owed(waiting) => {
            let kind = if matches!(mark, Mark::Owed(_)) { KIND_OWED } else { KIND_DEFERRED };
            span(kind, &waiting.span, out);
            out.extend_from_slice(&waiting.name_offset.to_le_bytes());
            out.extend_from_slice(&waiting.attempts.to_bits().to_le_bytes());
            out.extend_from_slice(&waiting.due.0.to_le_bytes());
        }
        Mark::StateBegins { covers } => {
            out.push(KIND_STATE_BEGINS);
            out.extend_from_slice(&covers.0.to_le_bytes());
        }
        Mark::StateEnds => out.push(KIND_STATE_ENDS),
        Mark::Gap => debug_assert!(false, "a gap is found, not written"),
    }
}

/// Takes one mark off the front of `bytes`.
fn decode(bytes: &mut &[u8]) -> Option<Mark> {
    let kind = *bytes.first()?;
    let len = match kind {
        KIND_SETTLED => 17,
        KIND_DEFERRED | KIND_OWED => 31,
        KIND_STATE_BEGINS => 9,
        KIND_STATE_ENDS => 1,
        _ => return None,
    };
    let (mark, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    let word = |at: usize| u32::from_le_bytes([mark[at], mark[at + 1], mark[at + 2], mark[at + 3]]);
    let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
    let span = || Span { id: MessageId(long(1)), first: word(9), count: word(13) };
    let waiting = || Waiting {
        span: span(),
        name_offset: word(17),
        attempts: Attempts::from_bits(u16::from_le_bytes([mark[21], mark[22]])),
        due: UnixMillis(long(23)),
    };
    Some(match kind {
        KIND_SETTLED => Mark::Settled(span()),
        KIND_DEFERRED => Mark::Deferred(waiting()),
        KIND_OWED => Mark::Owed(waiting()),
        KIND_STATE_BEGINS => Mark::StateBegins { covers: MessageId(long(1)) },
        _ => Mark::StateEnds,
    })
}

/// Why a journal could not be read at all.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("written by a newer format than this program reads; run the version that wrote it")]
    TooNew,
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// What a journal file held.
#[derive(Clone, Copy, Debug, Default)]
pub struct Read {
    /// 0 in an empty file.
    pub next_generation: u32,
    pub epoch: u32,
    pub number: u32,
    pub marks: u64,
    /// A frame failed its check although frames follow it: what it said is lost, which repeats deliveries.
    pub damaged_at: Option<u64>,
}

/// What a journal's first bytes say; zeros if it is empty or they are damaged.
pub fn read_head(source: &mut dyn Source) -> Result<Read, JournalError> {
    let mut window = Window::new(source, HEAD_LEN);
    decode_head(&mut window)
}

fn decode_head(window: &mut Window<'_>) -> Result<Read, JournalError> {
    let mut read = Read::default();
    let head = window.bytes(0, HEAD_LEN)?;
    if head.len() < HEAD_LEN {
        return Ok(read);
    }
    let is_ours = head[..6] == MAGIC[..6] && head[7] == MAGIC[7];
    if is_ours && !(1..=MAGIC[6]).contains(&head[6]) {
        return Err(JournalError::TooNew);
    }
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if !is_ours || word(8) != crc32c::crc32c(&head[12..]) {
        read.damaged_at = head.iter().any(|byte| *byte != 0).then_some(0);
        return Ok(read);
    }
    (read.next_generation, read.epoch, read.number) = (word(16), word(24), word(12));
    Ok(read)
}

/// Hands the marks of a journal file to `on_mark`, in order.
pub fn read(source: &mut dyn Source, on_mark: &mut dyn FnMut(Mark)) -> Result<Read, JournalError> {
    let mut window = Window::new(source, PIECE);
    let mut read = decode_head(&mut window)?;
    if read.epoch == 0 {
        return Ok(read);
    }
    let number = JournalNumber(read.number);
    let mut at = HEAD_LEN as u64;
    loop {
        while let Some(mut payload) = frame_at(&mut window, at, number)? {
            at += (FRAME_HEAD_LEN + payload.len()) as u64;
            while let Some(mark) = decode(&mut payload) {
                read.marks += 1;
                on_mark(mark);
            }
        }
        // A torn write is the end, or there is more behind it: pages reach the disk in any order.
        let Some(next) = next_frame(&mut window, at + 1, number)? else { return Ok(read) };
        read.damaged_at.get_or_insert(at);
        on_mark(Mark::Gap);
        at = next;
    }
}

/// Bytes that are read at a time. No frame is half as long, so as many zeros are what was reserved ahead.
const PIECE: usize = 2 * FRAME_MAX;

/// The next place from `from` on where a whole frame stands.
fn next_frame(
    window: &mut Window<'_>,
    mut from: u64,
    number: JournalNumber,
) -> Result<Option<u64>, ReadError> {
    loop {
        let bytes = window.bytes(from, PIECE)?;
        let is_last = bytes.len() < PIECE;
        if bytes.len() < FRAME_HEAD_LEN || bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let magic = FRAME_MAGIC.to_le_bytes();
        let Some(found) = memchr::memmem::find(&bytes[8..], &magic) else {
            if is_last {
                return Ok(None);
            }
            from += (PIECE - FRAME_HEAD_LEN) as u64;
            continue;
        };
        let place = from + found as u64;
        if frame_at(window, place, number)?.is_some() {
            return Ok(Some(place));
        }
        from = place + 1;
    }
}

/// The payload of the frame at `at`, if a whole one stands there.
fn frame_at<'a>(
    window: &'a mut Window<'_>,
    at: u64,
    number: JournalNumber,
) -> Result<Option<&'a [u8]>, ReadError> {
    let head = window.bytes(at, FRAME_HEAD_LEN)?;
    if head.len() < FRAME_HEAD_LEN {
        return Ok(None);
    }
    let word = |from: usize| u32::from_le_bytes([head[from], head[from + 1], head[from + 2], head[from + 3]]);
    let (len, crc, magic) = (word(0) as usize, word(4), word(8));
    if magic != FRAME_MAGIC || len > FRAME_MAX {
        return Ok(None);
    }
    let payload = window.bytes(at + FRAME_HEAD_LEN as u64, len)?;
    Ok((payload.len() == len && crc == frame_crc(number, at, payload)).then_some(payload))
}

/// For the fuzzer: any octets as a journal file.
pub fn fuzz_journal(bytes: &[u8]) {
    let _ = read(&mut &*bytes, &mut |_| {});
    let mut rest = bytes;
    while decode(&mut rest).is_some() {}
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "sizes in these tests are small")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: MessageId = MessageId(1 << 24);

    fn span(first: u32, count: u32) -> Span {
        Span { id: ID, first, count }
    }

    fn waiting(first: u32, count: u32, attempts: u16) -> Waiting {
        // In these tests each name takes 10 bytes.
        Waiting {
            span: span(first, count),
            name_offset: first * 10,
            attempts: Attempts::new(attempts),
            due: UnixMillis(u64::from(attempts) * 1000),
        }
    }

    const WRITER: Writer = Writer { partition: 0, epoch: 1 };

    type JournalFile = (Origin, Vec<Mark>);

    fn file(writer: u8, epoch: u32, number: u32, marks: &[Mark]) -> JournalFile {
        (Origin { writer, epoch, number }, marks.to_vec())
    }

    fn fold(mut files: Vec<JournalFile>) -> Fold {
        files.sort_by_key(|(origin, _)| *origin);
        let mut builder = FoldBuilder::default();
        for (origin, marks) in &files {
            builder.look_at(*origin, &mut marks.iter().copied());
        }
        for (origin, marks) in &files {
            builder.take(*origin, &mut marks.iter().copied());
        }
        builder.finish()
    }

    /// With names of 9 octets.
    fn left_of(fold: &Fold, groups: &[Waiting]) -> Vec<Waiting> {
        let mut left = Vec::new();
        fold.left(ID, groups, &mut |offset| Some(offset + 10), &mut left);
        left
    }

    fn left(journals: &[Vec<Mark>]) -> Vec<Waiting> {
        let files = journals.iter().enumerate().map(|(number, marks)| file(0, 1, number as u32, marks));
        left_of(&fold(files.collect()), &[waiting(0, 6, 0), waiting(6, 4, 0)])
    }

    /// Runs a journal as the engine does: every frame is put into `file`.
    fn put(journal: &mut Journal, file: &mut Vec<u8>) {
        if let Some((offset, bytes)) = journal.frame() {
            file.resize(file.len().max(offset as usize + bytes.len()), 0);
            file[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
            journal.frame_put();
        }
    }

    fn marks(file: &[u8]) -> Vec<Mark> {
        let mut marks = Vec::new();
        read(&mut &*file, &mut |mark| marks.push(mark)).unwrap();
        marks
    }

    #[test]
    fn neighbours_share_a_mark_and_frames_read_back() {
        let (mut journal, mut file) = (Journal::new(WRITER, JournalNumber(3), 8), Vec::new());
        for index in [4, 5, 6, 9] {
            journal.settled(ID, index);
        }
        put(&mut journal, &mut file);
        journal.mark(&Mark::Deferred(waiting(7, 1, 2)));
        put(&mut journal, &mut file);
        put(&mut journal, &mut file);
        assert_eq!(
            marks(&file),
            [Mark::Settled(span(4, 3)), Mark::Settled(span(9, 1)), Mark::Deferred(waiting(7, 1, 2))]
        );
        assert_eq!(read(&mut &file[..], &mut |_| {}).unwrap().next_generation, 8);
    }

    #[test]
    fn torn_frame_ends_the_journal() {
        let (mut journal, mut file) = (Journal::new(WRITER, JournalNumber(3), 8), Vec::new());
        journal.settled(ID, 1);
        put(&mut journal, &mut file);
        let whole = file.len();
        journal.settled(ID, 2);
        put(&mut journal, &mut file);
        for cut in whole..file.len() {
            assert_eq!(marks(&file[..cut]), [Mark::Settled(span(1, 1))], "{cut}");
        }
        file[whole + 20] ^= 1;
        assert_eq!(marks(&file).len(), 1);
    }

    #[test]
    fn damage_is_stepped_over_and_a_state_around_it_is_no_state() {
        let (mut journal, mut file) = (Journal::new(WRITER, JournalNumber(3), 8), Vec::new());
        let mut places = Vec::new();
        for mark in [
            Mark::StateBegins { covers: ID },
            Mark::Owed(waiting(0, 3, 0)),
            Mark::StateEnds,
            Mark::Settled(span(0, 1)),
        ] {
            places.push(file.len());
            journal.mark(&mark);
            put(&mut journal, &mut file);
        }
        file[places[1] + 20] ^= 1;
        let mut found = Vec::new();
        assert_eq!(
            read(&mut &file[..], &mut |mark| found.push(mark)).unwrap().damaged_at,
            Some(places[1] as u64)
        );
        assert_eq!(
            found,
            [Mark::StateBegins { covers: ID }, Mark::Gap, Mark::StateEnds, Mark::Settled(span(0, 1))]
        );
        assert_eq!(left(&[found]), (vec![waiting(1, 5, 0), waiting(6, 4, 0)]));
    }

    #[test]
    fn position_is_durable_only_after_its_sync() {
        let mut journal = Journal::new(WRITER, JournalNumber(0), 1);
        journal.settled(ID, 1);
        let position = journal.position();
        journal.frame();
        journal.frame_put();
        assert!(!journal.is_durable(position) && journal.has_unsynced());
        journal.handle_synced(journal.put_position());
        assert!(journal.is_durable(position) && !journal.has_unsynced());
    }

    #[test]
    fn position_without_new_marks_is_that_of_the_last_ones() {
        let mut journal = Journal::new(WRITER, JournalNumber(0), 1);
        journal.settled(ID, 1);
        journal.frame();
        journal.frame_put();
        journal.handle_synced(journal.put_position());
        assert!(journal.is_durable(journal.position()));
    }

    #[test]
    fn unmarked_message_is_owed_to_all() {
        assert_eq!(left(&[]), [waiting(0, 6, 0), waiting(6, 4, 0)]);
    }

    #[test]
    fn settled_and_deferred_are_cut_out_of_the_groups() {
        let marks =
            vec![Mark::Settled(span(0, 2)), Mark::Deferred(waiting(3, 1, 1)), Mark::Settled(span(6, 4))];
        assert_eq!(left(&[marks]), (vec![waiting(2, 1, 0), waiting(3, 1, 1), waiting(4, 2, 0)]));
    }

    #[test]
    fn order_of_marks_does_not_matter() {
        let mut marks = vec![
            Mark::Deferred(waiting(3, 1, 1)),
            Mark::Deferred(waiting(3, 1, 2)),
            Mark::Settled(span(4, 1)),
            Mark::Deferred(waiting(4, 1, 5)),
        ];
        let forward = left(&[marks.clone()]);
        marks.reverse();
        assert_eq!(forward, left(&[marks]));
        assert_eq!(forward, (vec![waiting(0, 3, 0), waiting(3, 1, 2), waiting(5, 1, 0), waiting(6, 4, 0)]));
    }

    #[test]
    fn mark_of_a_warning_beats_the_one_it_repeats() {
        let waits = waiting(3, 1, 2);
        let warned = Waiting { attempts: waits.attempts.warned(), ..waits };
        let marks = vec![Mark::Deferred(warned), Mark::Deferred(waits)];
        let left = left(&[marks]);
        assert!(left.contains(&warned) && !left.contains(&waits));
        let mut bytes = Vec::new();
        encode(&Mark::Deferred(warned), &mut bytes);
        assert_eq!(decode(&mut &bytes[..]), Some(Mark::Deferred(warned)));
    }

    #[test]
    fn whole_state_replaces_what_came_before() {
        let old = vec![Mark::Settled(span(9, 1))];
        let new = vec![
            Mark::StateBegins { covers: ID },
            Mark::Owed(waiting(9, 1, 3)),
            Mark::StateEnds,
            Mark::Deferred(waiting(9, 1, 4)),
        ];
        assert_eq!(left(&[old.clone(), new.clone()]), (vec![waiting(9, 1, 4)]));
        // Cut short by a crash, it is no state.
        assert_eq!(left(&[old, new[..2].to_vec()]), (vec![waiting(0, 6, 0), waiting(6, 3, 0)]));
    }

    #[test]
    fn message_that_a_state_does_not_name_has_ended() {
        assert_eq!(left(&[vec![Mark::StateBegins { covers: ID }, Mark::StateEnds]]), (vec![]));
    }

    #[test]
    fn marks_of_another_core_count() {
        let fold = fold(vec![file(1, 1, 0, &[Mark::Settled(span(0, 6))])]);
        assert_eq!(left_of(&fold, &[waiting(0, 6, 0), waiting(6, 4, 0)]), [waiting(6, 4, 0)]);
    }

    #[test]
    fn state_of_a_later_start_voids_older_marks_of_all_cores() {
        let state = [Mark::StateBegins { covers: ID }, Mark::Owed(waiting(0, 3, 0)), Mark::StateEnds];
        let files = vec![
            file(1, 1, 0, &[Mark::Deferred(waiting(0, 1, 4))]),
            file(0, 2, 1, &state),
            file(1, 2, 1, &[Mark::Settled(span(1, 1))]),
        ];
        assert_eq!(
            left_of(&fold(files), &[waiting(0, 6, 0), waiting(6, 4, 0)]),
            (vec![waiting(0, 1, 0), waiting(2, 1, 0)])
        );
    }

    #[test]
    fn later_mark_of_the_states_own_core_wins_among_equal_attempts() {
        let held = Waiting { due: UnixMillis(u64::MAX), ..waiting(0, 3, 2) };
        let state = [Mark::StateBegins { covers: ID }, Mark::Owed(waiting(0, 3, 2)), Mark::StateEnds];
        let mut marks = state.to_vec();
        marks.push(Mark::Deferred(held));
        assert_eq!(left(&[marks.clone()]), [held]);
        marks.push(Mark::Deferred(waiting(0, 3, 2)));
        assert_eq!(left(&[marks]), [waiting(0, 3, 2)]);
    }

    #[test]
    fn another_cores_mark_that_the_state_has_taken_over_does_not_undo_what_came_since() {
        // Core 1 deferred a share; core 0 noted that, and then held it.
        let held = Waiting { due: UnixMillis(u64::MAX), ..waiting(0, 3, 1) };
        let state = [Mark::StateBegins { covers: ID }, Mark::Owed(held), Mark::StateEnds];
        let files = vec![file(0, 1, 3, &state), file(1, 1, 1, &[Mark::Deferred(waiting(0, 3, 1))])];
        assert_eq!(left_of(&fold(files), &[waiting(0, 6, 0), waiting(6, 4, 0)]), [held]);
    }

    #[test]
    fn range_of_more_recipients_than_the_message_has_is_none() {
        let state = [Mark::StateBegins { covers: ID }, Mark::Owed(waiting(4, u32::MAX, 0)), Mark::StateEnds];
        let mut marks = state.to_vec();
        marks.push(Mark::Settled(span(0, u32::MAX)));
        assert_eq!(left(&[marks]), []);
    }

    #[test]
    fn names_are_walked_only_where_a_range_begins_in_the_middle() {
        let state = [
            Mark::StateBegins { covers: ID },
            Mark::Owed(waiting(0, 6, 2)),
            Mark::StateEnds,
            Mark::Deferred(waiting(3, 2, 3)),
        ];
        let fold = fold(vec![file(0, 1, 0, &state)]);
        let (mut left, mut walked) = (Vec::new(), Vec::new());
        fold.left(
            ID,
            &[waiting(0, 6, 0)],
            &mut |offset| {
                walked.push(offset);
                Some(offset + 10)
            },
            &mut left,
        );
        assert_eq!(left, [waiting(0, 3, 2), waiting(3, 2, 3), waiting(5, 1, 2)]);
        assert_eq!(walked, [30, 40], "the deferred range says where it begins");
    }

    proptest! {
        #[test]
        fn fuzz_smoke(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            fuzz_journal(&bytes);
            fold::fuzz_fold(&bytes);
        }

        #[test]
        fn fold_smoke(marks in proptest::collection::vec((0u8..5, 0u64..4, 0u32..12, prop_oneof![0u32..12, any::<u32>()]), 0..40)) {
            let mut bytes = Vec::new();
            for (kind, id, first, count) in marks {
                let span = Span { id: MessageId((1 << 24) + id), first, count };
                let waits = Waiting { span, ..waiting(first, count, 1) };
                let covers = span.id;
                let all = [Mark::Settled(span), Mark::Deferred(waits), Mark::Owed(waits), Mark::StateBegins { covers }, Mark::StateEnds];
                encode(&all[usize::from(kind)], &mut bytes);
            }
            fold::fuzz_fold(&bytes);
        }
    }
}
