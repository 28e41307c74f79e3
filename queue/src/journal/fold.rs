//! The state that all journals amount to: asked once per message, at start-up.
//!
//! For each partition the newest whole state counts, and the marks made after it. Settled beats deferred, more attempts
//! beat fewer, among equals the later mark of the partition's own core wins. So the journals are read twice: to find
//! the states, then to take the marks that count. Trusts the marks as far as their frames were whole; a state with a
//! gap in it is no state; a range beyond the message's groups is none. Bound: 32 bytes per mark that counts, and a slot
//! per recipient of one message at a time.

use super::{Mark, Span, Spent, Waiting};
use crate::range::Attempts;
use message::{MessageId, UnixMillis};
use std::collections::HashMap;
use std::ops::Range;

/// Who wrote a journal file, in the order in which files count.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Origin {
    /// Which start of the daemon.
    pub epoch: u32,
    pub number: u32,
    /// The core, by its own partition.
    pub writer: u8,
}

/// Everything that the journals of all cores say, folded.
#[derive(Debug, Default)]
pub struct Fold {
    /// By message; in the order of the marks within each.
    entries: Vec<Entry>,
    /// Per partition: what its newest whole state covers.
    covers: HashMap<u8, MessageId>,
    /// What was spent of allowances: by key, partition and hour.
    pub spent: HashMap<(u64, u8, u32), u32>,
    /// The highest generation that any mark speaks of.
    pub generation_max: HashMap<u8, u32>,
}

/// Reads the journals' marks, twice.
#[derive(Debug, Default)]
pub struct FoldBuilder {
    fold: Fold,
    /// Per partition: where its newest whole state stands.
    states: HashMap<u8, State>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Settled,
    /// Marked by the core whose state counts, or by another.
    Deferred {
        is_foreign: bool,
    },
    Owed,
}

/// A mark that counts.
#[derive(Clone, Copy, Debug)]
struct Entry {
    id: MessageId,
    due: UnixMillis,
    first: u32,
    count: u32,
    name_offset: u32,
    attempts: Attempts,
    kind: Kind,
}

const _: () = assert!(size_of::<Entry>() <= 32);

#[derive(Clone, Copy, Debug)]
struct State {
    covers: MessageId,
    origin: Origin,
    /// Places of its first and last mark in the file.
    begins: usize,
    ends: usize,
}

impl FoldBuilder {
    /// First reading, of all files in the order of their origins: finds the states. One that a crash cut short is none.
    pub fn look_at(&mut self, origin: Origin, marks: &mut dyn Iterator<Item = Mark>) {
        let mut finder = self.finder(origin);
        marks.for_each(|mark| finder.look_at(&mark));
    }

    /// As [`FoldBuilder::look_at`], one mark at a time.
    pub fn finder(&mut self, origin: Origin) -> StateFinder<'_> {
        StateFinder { builder: self, origin, at: 0, open: None }
    }

    /// Second reading, in the same order: takes what counts.
    pub fn take(&mut self, origin: Origin, marks: &mut dyn Iterator<Item = Mark>) {
        let mut taker = self.taker(origin);
        marks.for_each(|mark| taker.take(&mark));
    }

    /// As [`FoldBuilder::take`], one mark at a time.
    pub fn taker(&mut self, origin: Origin) -> MarkTaker<'_> {
        MarkTaker { builder: self, origin, at: 0 }
    }

    pub fn finish(mut self) -> Fold {
        // Stable: the order of one core's marks is kept.
        self.fold.entries.sort_by_key(|entry| entry.id);
        self.fold.covers = self.states.iter().map(|(partition, state)| (*partition, state.covers)).collect();
        self.fold
    }
}

/// See [`FoldBuilder::finder`].
#[derive(Debug)]
pub struct StateFinder<'a> {
    builder: &'a mut FoldBuilder,
    origin: Origin,
    at: usize,
    open: Option<(usize, MessageId)>,
}

impl StateFinder<'_> {
    pub fn look_at(&mut self, mark: &Mark) {
        match mark {
            Mark::StateBegins { covers } => self.open = Some((self.at, *covers)),
            Mark::StateEnds => {
                if let Some((begins, covers)) = self.open.take() {
                    let state = State { covers, origin: self.origin, begins, ends: self.at };
                    self.builder.states.insert(covers.partition(), state);
                }
            }
            Mark::Gap => self.open = None,
            Mark::Settled(_) | Mark::Deferred(_) | Mark::Owed(_) | Mark::Spent(_) => {}
        }
        self.at += 1;
    }
}

/// See [`FoldBuilder::taker`].
#[derive(Debug)]
pub struct MarkTaker<'a> {
    builder: &'a mut FoldBuilder,
    origin: Origin,
    at: usize,
}

impl MarkTaker<'_> {
    pub fn take(&mut self, mark: &Mark) {
        let at = self.at;
        self.at += 1;
        let (span, waiting) = match *mark {
            Mark::Settled(span) => (span, None),
            Mark::Deferred(waiting) | Mark::Owed(waiting) => (waiting.span, Some(waiting)),
            Mark::StateBegins { covers } => return self.saw(covers),
            Mark::Spent(spent) => return self.spent(spent),
            Mark::StateEnds | Mark::Gap => return,
        };
        self.saw(span.id);
        let state = self.builder.states.get(&span.id.partition());
        let is_foreign = state.is_some_and(|state| state.origin.writer != self.origin.writer);
        let (counts, kind) = match mark {
            Mark::Settled(_) => (counts(state, self.origin, at), Kind::Settled),
            Mark::Owed(_) => (state.is_some_and(|state| state.holds(self.origin, at)), Kind::Owed),
            _ => (counts(state, self.origin, at), Kind::Deferred { is_foreign }),
        };
        if counts {
            self.builder.fold.entries.push(Entry::new(span, waiting, kind));
        }
    }

    fn spent(&mut self, Spent { key, partition, hour, total }: Spent) {
        let known = self.builder.fold.spent.entry((key, partition, hour)).or_default();
        *known = total.max(*known);
    }

    fn saw(&mut self, id: MessageId) {
        let max = self.builder.fold.generation_max.entry(id.partition()).or_default();
        *max = id.generation().max(*max);
    }
}

impl State {
    fn holds(&self, origin: Origin, at: usize) -> bool {
        self.origin == origin && (self.begins..=self.ends).contains(&at)
    }
}

/// True if a mark adds to the partition's state: it was made after it, or by another core while the state's own
/// core lived (a share of a fan-out is marked where it is delivered, and that repeats nothing if the state has it).
fn counts(state: Option<&State>, origin: Origin, at: usize) -> bool {
    let Some(state) = state else { return true };
    if origin.writer != state.origin.writer {
        return origin.epoch >= state.origin.epoch;
    }
    (origin, at) > (state.origin, state.ends)
}

impl Waiting {
    /// Behind the last recipient.
    fn end(&self) -> u64 {
        u64::from(self.span.first) + u64::from(self.span.count)
    }
}

impl Entry {
    fn new(span: Span, waiting: Option<Waiting>, kind: Kind) -> Entry {
        let Span { id, first, count } = span;
        let none = Waiting { span, name_offset: 0, attempts: Attempts::NONE, due: UnixMillis(0) };
        let Waiting { name_offset, attempts, due, .. } = waiting.unwrap_or(none);
        Entry { id, due, first, count, name_offset, attempts, kind }
    }

    /// It is part of a state, and not the place of damage.
    fn names(&self) -> bool {
        self.kind == Kind::Owed && self.count > 0
    }

    fn waiting(&self) -> Waiting {
        let Entry { id, due, first, count, name_offset, attempts, .. } = *self;
        Waiting { span: Span { id, first, count }, name_offset, attempts, due }
    }

    fn range(&self) -> Range<usize> {
        self.first as usize..self.first.saturating_add(self.count) as usize
    }
}

/// From a name's offset to the next one's. Asked only where a range begins in the middle of another, because the names
/// may have to be read for it.
pub type NextName<'a> = &'a mut dyn FnMut(u32) -> Option<u32>;

impl Fold {
    /// What is left of a message whose groups are `groups` is appended to `left`; nothing, if the message has ended.
    pub fn left(&self, id: MessageId, groups: &[Waiting], next_name: NextName<'_>, left: &mut Vec<Waiting>) {
        let entries = self.entries_of(id);
        let is_covered = self.covers.get(&id.partition()).is_some_and(|covers| id <= *covers);
        if entries.is_empty() {
            return left.extend_from_slice(if is_covered { &[] } else { groups });
        }
        if is_covered {
            let end = groups.iter().map(Waiting::end).max().unwrap_or(0);
            let is_there = |waiting: &Waiting| waiting.end() <= end;
            let owed = entries.iter().filter(|entry| entry.kind == Kind::Owed).map(Entry::waiting);
            let owed = owed.filter(is_there);
            subtract(owed, entries, next_name, left);
        } else {
            subtract(groups.iter().copied(), entries, next_name, left);
        }
    }

    /// True if [`Fold::left`] says that the message has ended, without a look at its groups.
    pub fn has_ended(&self, id: MessageId) -> bool {
        let is_covered = self.covers.get(&id.partition()).is_some_and(|covers| id <= *covers);
        is_covered && self.entries_of(id).is_empty()
    }

    /// True if the partition's state says that the message is owed to somebody.
    pub fn names(&self, id: MessageId) -> bool {
        self.entries_of(id).iter().any(Entry::names)
    }

    /// How many messages of the partition its state names, less those that have ended since.
    pub fn named(&self, partition: u8) -> usize {
        let of_partition = |entry: &&[Entry]| entry[0].id.partition() == partition;
        let messages = self.entries.chunk_by(|a, b| a.id == b.id).filter(of_partition);
        messages.filter(|entries| entries.iter().any(Entry::names) && !has_ended(entries)).count()
    }

    /// False if nothing can be owed of what was first written in this life of a segment of the partition.
    pub fn may_owe(&self, partition: u8, generation: u32) -> bool {
        let low = MessageId(u64::from(partition) << 56 | u64::from(generation) << 24);
        let high = MessageId(low.0 | 0xff_ffff);
        if self.covers.get(&partition).is_none_or(|covers| *covers < high) {
            return true;
        }
        let from = self.entries.partition_point(|entry| entry.id < low);
        let to = self.entries.partition_point(|entry| entry.id <= high);
        self.entries[from..to].chunk_by(|a, b| a.id == b.id).any(owes)
    }

    fn entries_of(&self, id: MessageId) -> &[Entry] {
        let from = self.entries.partition_point(|entry| entry.id < id);
        let count = self.entries[from..].iter().take_while(|entry| entry.id == id).count();
        &self.entries[from..from + count]
    }
}

/// True if the state names recipients or a place of damage that no mark has settled since.
fn owes(entries: &[Entry]) -> bool {
    let has = |kind: Kind| entries.iter().any(|entry| entry.kind == kind && entry.count == 0);
    has(Kind::Owed) && !has(Kind::Settled) || entries.iter().any(Entry::names) && !has_ended(entries)
}

/// True if marks have settled everything that the state names of a message.
fn has_ended(entries: &[Entry]) -> bool {
    if entries.iter().all(|entry| entry.kind != Kind::Settled) {
        return false;
    }
    let owed = entries.iter().filter(|entry| entry.kind == Kind::Owed).map(Entry::waiting);
    let mut left = Vec::new();
    subtract(owed, entries, &mut |offset| Some(offset), &mut left);
    left.is_empty()
}

/// A recipient's fate, as the marks have it.
#[derive(Clone, Copy)]
enum Fate {
    Unmarked,
    Settled,
    /// Index into the entries.
    Deferred(u32),
}

fn subtract(
    base: impl Iterator<Item = Waiting> + Clone,
    entries: &[Entry],
    next_name: NextName<'_>,
    left: &mut Vec<Waiting>,
) {
    if entries.iter().all(|entry| entry.kind == Kind::Owed) {
        // The usual case: nothing happened since the state.
        return left.extend(base);
    }
    let end = base.clone().map(|waiting| waiting.end()).max().unwrap_or(0);
    let fates = fates(entries, usize::try_from(end).unwrap_or(usize::MAX));
    for waiting in base {
        cut(&waiting, &fates, entries, next_name, left);
    }
}

/// Settled beats all, then more attempts beat fewer, then later beats earlier.
fn fates(entries: &[Entry], end: usize) -> Vec<Fate> {
    let mut fates = vec![Fate::Unmarked; end];
    for (at, entry) in entries.iter().enumerate() {
        for fate in slots(&mut fates, entry.range()) {
            match (entry.kind, *fate) {
                (Kind::Settled, _) => *fate = Fate::Settled,
                (Kind::Deferred { .. }, Fate::Deferred(other)) if !entry.beats(&entries[other as usize]) => {}
                (Kind::Deferred { .. }, Fate::Unmarked | Fate::Deferred(_)) => {
                    *fate = Fate::Deferred(u32::try_from(at).unwrap_or(u32::MAX));
                }
                (Kind::Deferred { .. }, Fate::Settled) | (Kind::Owed, _) => {}
            }
        }
    }
    fates
}

impl Entry {
    /// Among deferred marks of one recipient, `self` being the later one.
    fn beats(&self, other: &Entry) -> bool {
        let is_foreign = self.kind == Kind::Deferred { is_foreign: true };
        // What its own core said knows of what another said with as many attempts.
        self.attempts > other.attempts || self.attempts == other.attempts && !is_foreign
    }

    /// True if a deferred mark says something that the base does not know yet.
    fn adds_to(&self, base: &Waiting) -> bool {
        let is_foreign = self.kind == Kind::Deferred { is_foreign: true };
        self.attempts > base.attempts || self.attempts == base.attempts && !is_foreign
    }
}

fn slots(fates: &mut [Fate], range: Range<usize>) -> &mut [Fate] {
    let end = range.end.min(fates.len());
    fates.get_mut(range.start..end).unwrap_or_default()
}

/// Cuts one base range into what is left of it, neighbours of one fate together.
fn cut(base: &Waiting, fates: &[Fate], entries: &[Entry], next_name: NextName<'_>, left: &mut Vec<Waiting>) {
    let from = left.len();
    // The last name whose offset is known.
    let mut known = (base.span.first, base.name_offset);
    for index in base.span.first..base.span.first + base.span.count {
        let (attempts, due) = match fates[index as usize] {
            Fate::Settled => continue,
            Fate::Unmarked => (base.attempts, base.due),
            Fate::Deferred(at) => {
                let entry = &entries[at as usize];
                if entry.first == index {
                    known = (index, entry.name_offset);
                }
                if entry.adds_to(base) { (entry.attempts, entry.due) } else { (base.attempts, base.due) }
            }
        };
        if let Some(last) = left[from..].last_mut()
            && last.span.first + last.span.count == index
            && (last.attempts, last.due) == (attempts, due)
        {
            last.span.count += 1;
            continue;
        }
        while known.0 < index {
            known = (known.0 + 1, next_name(known.1).unwrap_or(known.1));
        }
        let span = Span { id: base.span.id, first: index, count: 1 };
        left.push(Waiting { span, name_offset: known.1, attempts, due });
    }
}

/// For the fuzzer: any octets as the marks of three journals of two cores, folded, and asked for some messages.
pub fn fuzz_fold(bytes: &[u8]) {
    let third = bytes.len() / 3;
    let origins =
        [(0, 1, 0), (1, 1, 1), (0, 2, 2)].map(|(writer, epoch, number)| Origin { epoch, number, writer });
    let files = [&bytes[..third], &bytes[third..2 * third], &bytes[2 * third..]].map(marks_of);
    let mut builder = FoldBuilder::default();
    for (origin, marks) in origins.iter().zip(&files) {
        builder.look_at(*origin, &mut marks.iter().copied());
    }
    for (origin, marks) in origins.iter().zip(&files) {
        builder.take(*origin, &mut marks.iter().copied());
    }
    let fold = builder.finish();
    let ids: Vec<MessageId> =
        fold.entries.iter().map(|entry| entry.id).chain(fold.covers.values().copied()).collect();
    ids.into_iter().take(64).for_each(|id| ask(&fold, id));
}

fn marks_of(mut bytes: &[u8]) -> Vec<Mark> {
    std::iter::from_fn(|| super::mark::decode(&mut bytes)).collect()
}

/// What is left of a message to ten recipients at two domains is some of them.
fn ask(fold: &Fold, id: MessageId) {
    let group = |first, count| Waiting {
        span: Span { id, first, count },
        name_offset: first * 10,
        attempts: Attempts::NONE,
        due: UnixMillis(0),
    };
    let (mut left, mut is_left) = (Vec::new(), [false; 10]);
    let mut next_name = |offset: u32| offset.checked_add(10);
    fold.left(id, &[group(0, 6), group(6, 4)], &mut next_name, &mut left);
    let _ = fold.may_owe(id.partition(), id.generation());
    assert!(!fold.has_ended(id) || left.is_empty());
    for index in left.iter().flat_map(|waiting| waiting.span.first..waiting.span.first + waiting.span.count) {
        is_left[index as usize] = true;
    }
}
