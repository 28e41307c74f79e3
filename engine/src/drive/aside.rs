//! Setting aside what cannot be read: bytes that should be a record are copied to the folder `quarantine`, with their
//! place in the name; only then may their segment be used again, only then are a message's recipients given up.
//!
//! One stretch at a time, a piece at a time; it never holds up a delivery. If it fails (a full disk), the segment is
//! kept and the message stays queued. Trusts nothing in the bytes: they are copied as they are.
//! Bound: [`STRETCHES_MAX`] wait; past it, the file or the message just stays where it is.

use crate::clock::Clock;
use crate::core::{Core, Kind, token_of};
use crate::events::Kind as EventKind;
use message::{MessageId, Reply};
use queue::Range;
use queue::journal::{Mark, Span};
use queue::log::SegmentNumber;
use queue::log::writer::FoundSegment;
use queue::store::Queued;
use ring::{Access, BLOCK, File, Ring};
use std::collections::{HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

/// Stretches that may wait.
const STRETCHES_MAX: usize = 10_000;

/// Bytes copied at a time.
const PIECE: u64 = 1 << 20;

/// A message that could not be set aside is tried again after this long.
const AGAIN_SECS: u64 = 3600;

/// Bytes that are no record.
#[derive(Debug)]
pub(crate) struct Stretch {
    /// Of the file in the quarantine.
    name: String,
    file: File,
    generation: u32,
    offset: u64,
    len: u64,
    owner: Owner,
}

/// What happens when the bytes are safe elsewhere.
#[derive(Debug)]
enum Owner {
    /// The segment is free of it.
    Segment(u8, SegmentNumber),
    /// The message ends; `ranges` are those that were found out so far.
    Message { id: MessageId, ranges: Vec<Range> },
}

impl Stretch {
    /// A part of a segment in which no record was found where one should be.
    pub(crate) fn of_segment(
        partition: u8,
        (path, file): (&Path, File),
        segment: &FoundSegment,
        damage: std::ops::Range<u64>,
    ) -> Stretch {
        tracing::error!(file = %path.display(), offset = damage.start, len = damage.end - damage.start, "damaged: no record can be read here; it is set aside");
        let name = name_of(partition, segment.number, segment.generation, damage.start);
        let len = damage.end.min(segment.len) - damage.start;
        let owner = Owner::Segment(partition, segment.number);
        Stretch { name, file, generation: segment.generation, offset: damage.start, len, owner }
    }

    fn of_message(queued: &Queued, (segment, file): (SegmentNumber, File), range: Range) -> Stretch {
        let (id, location) = (queued.id, queued.location);
        let name = name_of(id.partition(), segment, location.generation, location.offset());
        let owner = Owner::Message { id, ranges: vec![range] };
        let (generation, offset) = (location.generation, location.offset());
        Stretch { name, file, generation, offset, len: queued.record_len(), owner }
    }

    /// The place of damage in a segment, as an id: a state that names it keeps the next start from taking the segment for
    /// one that nobody needs.
    fn place(&self) -> Option<MessageId> {
        match self.owner {
            Owner::Segment(partition, _) => MessageId::new(partition, self.generation, self.offset),
            Owner::Message { .. } => None,
        }
    }

    fn ranges(&self) -> &[Range] {
        match &self.owner {
            Owner::Segment(..) => &[],
            Owner::Message { ranges, .. } => ranges,
        }
    }
}

fn name_of(partition: u8, segment: SegmentNumber, generation: u32, offset: u64) -> String {
    format!("core-{partition}-data-{:08}-life-{generation}-at-{offset}", segment.0)
}

/// How far the copy has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    Open,
    Read,
    Write,
    Sync,
    /// Its name is being made durable.
    Name,
}

#[derive(Debug)]
struct Work {
    stretch: Stretch,
    step: Step,
    out: Option<File>,
    /// Bytes copied.
    copied: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Aside {
    folder_path: PathBuf,
    folder: Option<File>,
    waiting: VecDeque<Stretch>,
    at_work: Option<Work>,
    /// Damage that could not be set aside in this life.
    kept: Vec<MessageId>,
    /// Messages that were set aside and of which some recipients may still be in a queue somewhere.
    done: HashSet<MessageId>,
}

impl Aside {
    pub(crate) fn new(queue: &Path) -> Aside {
        Aside {
            folder_path: queue.join("quarantine"),
            folder: None,
            waiting: VecDeque::new(),
            at_work: None,
            kept: Vec::new(),
            done: HashSet::new(),
        }
    }

    pub(crate) fn push_stretch(&mut self, stretch: Stretch) -> bool {
        let has_room = self.waiting.len() < STRETCHES_MAX;
        if has_room {
            self.waiting.push_back(stretch);
        } else {
            self.kept.extend(stretch.place());
        }
        has_room
    }

    /// Recipients that wait for their message to be set aside.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = &Range> {
        let at_work = self.at_work.iter().map(|work| &work.stretch);
        self.waiting.iter().chain(at_work).flat_map(Stretch::ranges)
    }

    /// Places of damage of which no copy is safe yet.
    pub(crate) fn places(&self) -> impl Iterator<Item = MessageId> {
        let at_work = self.at_work.iter().map(|work| &work.stretch);
        self.waiting.iter().chain(at_work).filter_map(Stretch::place).chain(self.kept.iter().copied())
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.at_work.is_none()
    }

    /// The list of a message's ranges, if it is being set aside already.
    fn ranges_of(&mut self, message: MessageId) -> Option<&mut Vec<Range>> {
        let at_work = self.at_work.iter_mut().map(|work| &mut work.stretch);
        self.waiting.iter_mut().chain(at_work).find_map(|stretch| match &mut stretch.owner {
            Owner::Message { id, ranges } if *id == message => Some(ranges),
            Owner::Message { .. } | Owner::Segment(..) => None,
        })
    }
}

impl<R: Ring, C: Clock> Core<R, C> {
    /// The range's message was read and is not what was written.
    pub(crate) fn set_aside(&mut self, queued: &Queued, range: Range) {
        let id = queued.id;
        if self.aside.done.contains(&id) {
            return self.give_up(id, range);
        }
        if let Some(ranges) = self.aside.ranges_of(id) {
            return ranges.push(range);
        }
        tracing::error!(msg = %id, "damaged: the message does not match its checksum; it is set aside and not delivered");
        self.counters.damaged.add(1);
        let Some(file) = self.logs.file_of(queued) else {
            return self.wait_or_hold(range, self.wall.plus_secs(AGAIN_SECS));
        };
        if !self.aside.push_stretch(Stretch::of_message(queued, file, range)) {
            self.wait_or_hold(range, self.wall.plus_secs(AGAIN_SECS));
        }
    }

    /// These recipients get nothing: what they were to get is in the quarantine.
    fn give_up(&mut self, id: MessageId, range: Range) {
        let reply = Reply::ours(554, (5, 3, 0), "the message was damaged on our disk and is set aside");
        self.log_unnamed(EventKind::Failed, id, &range, Some(&reply));
        self.mark(&Mark::Settled(Span { id, first: range.first, count: range.count }));
        self.settle_domain(range.domain, range.count);
        self.settle_own(range, range.count);
    }

    /// Begins with the next stretch.
    pub(crate) fn run_aside(&mut self) {
        if self.aside.at_work.is_some() || self.aside.waiting.is_empty() || self.halted {
            return;
        }
        if let Err(error) = self.open_quarantine() {
            tracing::error!(folder = %self.aside.folder_path.display(), %error, "nothing can be set aside");
            return self.put_back_waiting();
        }
        let Some(stretch) = self.aside.waiting.pop_front() else { return };
        let path = self.aside.folder_path.join(&stretch.name);
        self.ring.open(token_of(Kind::Aside, 0), &path, Access::Direct);
        self.aside.at_work = Some(Work { stretch, step: Step::Open, out: None, copied: 0 });
    }

    fn open_quarantine(&mut self) -> io::Result<()> {
        if self.aside.folder.is_none() {
            self.ring.list(&self.aside.folder_path)?;
            self.aside.folder = Some(self.ring.open_folder(&self.aside.folder_path)?);
        }
        Ok(())
    }

    fn put_back_waiting(&mut self) {
        for stretch in std::mem::take(&mut self.aside.waiting) {
            self.keep(&stretch);
        }
    }

    /// It could not be set aside: a segment is kept as it is, a message stays queued.
    fn keep(&mut self, stretch: &Stretch) {
        self.aside.kept.extend(stretch.place());
        for range in stretch.ranges() {
            self.wait_or_hold(*range, self.wall.plus_secs(AGAIN_SECS));
        }
    }

    pub(crate) fn on_aside_opened(&mut self, result: io::Result<File>) {
        let Some(work) = &mut self.aside.at_work else { return };
        match result {
            Ok(file) => {
                work.out = Some(file);
                self.next_piece();
            }
            Err(error) => self.aside_failed(&error),
        }
    }

    /// The next piece is read; when there is none, what was written is made durable.
    fn next_piece(&mut self) {
        let Some(Work { stretch, step, out: Some(out), copied }) = &mut self.aside.at_work else { return };
        let left = stretch.len - *copied;
        if left == 0 {
            *step = Step::Sync;
            return self.ring.sync(token_of(Kind::Aside, 0), *out, true);
        }
        *step = Step::Read;
        let piece = usize::try_from(left.min(PIECE)).expect("at most 1 MiB");
        self.ring.read(token_of(Kind::Aside, 0), stretch.file, stretch.offset + *copied, piece);
    }

    pub(crate) fn on_aside_read(&mut self, result: io::Result<Vec<u8>>) {
        let Some(Work { step, out: Some(out), copied, .. }) = &mut self.aside.at_work else { return };
        match result {
            Ok(mut bytes) if !bytes.is_empty() => {
                *step = Step::Write;
                let at = *copied;
                *copied += bytes.len() as u64;
                // Whole blocks are written; the name and the record's head say where the zeros begin.
                bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
                self.ring.write(token_of(Kind::Aside, 0), *out, at, bytes, false);
            }
            Ok(_) => self.aside_failed(&io::ErrorKind::UnexpectedEof.into()),
            Err(error) => self.aside_failed(&error),
        }
    }

    /// A write or a sync ended.
    pub(crate) fn on_aside_step(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            return self.aside_failed(&error);
        }
        let Some(work) = &mut self.aside.at_work else { return };
        match (work.step, self.aside.folder) {
            (Step::Write, _) => self.next_piece(),
            (Step::Sync, Some(folder)) => {
                work.step = Step::Name;
                self.ring.sync(token_of(Kind::Aside, 0), folder, true);
            }
            (Step::Name, _) => self.aside_is_safe(),
            (Step::Open | Step::Read | Step::Sync, _) => {}
        }
    }

    fn aside_is_safe(&mut self) {
        let Some(Work { stretch, out, .. }) = self.aside.at_work.take() else { return };
        out.into_iter().for_each(|out| self.ring.close_file(out));
        self.counters.set_aside.add(1);
        if let Some(id) = stretch.place() {
            // A state written in the meantime may name it.
            self.mark(&Mark::Settled(Span { id, first: 0, count: 0 }));
        }
        match stretch.owner {
            Owner::Segment(partition, segment) => self.logs.end_damage(partition, segment),
            Owner::Message { id, ranges } => {
                self.aside.done.insert(id);
                ranges.into_iter().for_each(|range| self.give_up(id, range));
            }
        }
    }

    fn aside_failed(&mut self, error: &io::Error) {
        let Some(Work { stretch, out, .. }) = self.aside.at_work.take() else { return };
        tracing::error!(file = stretch.name, %error, "damaged bytes cannot be set aside; they stay where they are");
        out.into_iter().for_each(|out| self.ring.close_file(out));
        self.keep(&stretch);
    }
}
