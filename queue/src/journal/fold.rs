//! The state that all journals amount to: asked once per message, at start-up.
//!
//! For each partition the newest whole state counts, and the marks made after it. Marks need no order: settled beats
//! deferred, more attempts beat fewer. Trusts the marks as far as their frames were whole; a state with a gap in it is
//! no state. Bound: memory for the marks of messages that the journals speak of, and a slot per recipient of one
//! message at a time.

use super::{Mark, Span, Waiting};
use message::MessageId;
use std::collections::HashMap;

/// A journal file, read.
#[derive(Clone, Debug, Default)]
pub struct JournalFile {
    /// The core that wrote it, by its own partition.
    pub writer: u8,
    /// Which start of the daemon wrote it.
    pub epoch: u32,
    pub number: u32,
    pub marks: Vec<Mark>,
}

/// Everything that the journals of all cores say, folded; asked once per message at start-up.
#[derive(Debug, Default)]
pub struct Fold {
    marks: HashMap<MessageId, Marks>,
    /// Per partition: the newest whole state.
    states: HashMap<u8, State>,
    /// The highest generation that any mark speaks of.
    pub generation_max: HashMap<u8, u32>,
}

#[derive(Clone, Debug, Default)]
struct Marks {
    settled: Vec<(u32, u32)>,
    deferred: Vec<Waiting>,
    owed: Vec<Waiting>,
}

/// Where a partition's newest whole state stands.
#[derive(Clone, Copy, Debug)]
struct State {
    covers: MessageId,
    writer: u8,
    /// Epoch and number of the file, place of its first and last mark.
    file: (u32, u32),
    begins: usize,
    ends: usize,
}

/// What is left of a message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Left {
    /// No recipient was tried.
    All,
    /// These ranges; none means that the message has ended.
    Some(Vec<Waiting>),
}

impl Fold {
    pub fn new(mut files: Vec<JournalFile>) -> Fold {
        files.sort_by_key(|file| (file.epoch, file.number));
        let mut fold = Fold::default();
        for file in &files {
            fold.find_states(file);
        }
        for file in files {
            for (at, mark) in file.marks.iter().enumerate() {
                fold.take(&file, at, mark);
            }
        }
        fold
    }

    /// A state that a crash cut short is no state.
    fn find_states(&mut self, file: &JournalFile) {
        let mut open = None;
        for (at, mark) in file.marks.iter().enumerate() {
            match mark {
                Mark::StateBegins { covers } => open = Some((at, *covers)),
                Mark::StateEnds => {
                    let Some((begins, covers)) = open.take() else { continue };
                    let state = State {
                        covers,
                        writer: file.writer,
                        file: (file.epoch, file.number),
                        begins,
                        ends: at,
                    };
                    self.states.insert(covers.partition(), state);
                }
                Mark::Gap => open = None,
                Mark::Settled(_) | Mark::Deferred(_) | Mark::Owed(_) => {}
            }
        }
    }

    fn take(&mut self, file: &JournalFile, at: usize, mark: &Mark) {
        let (Mark::Settled(Span { id, .. })
        | Mark::Deferred(Waiting { span: Span { id, .. }, .. })
        | Mark::Owed(Waiting { span: Span { id, .. }, .. })
        | Mark::StateBegins { covers: id }) = *mark
        else {
            return;
        };
        let max = self.generation_max.entry(id.partition()).or_default();
        *max = id.generation().max(*max);
        let state = self.states.get(&id.partition()).copied();
        match mark {
            Mark::Settled(span) if counts(state, file, at) => {
                self.of(id).settled.push((span.first, span.count))
            }
            Mark::Deferred(waiting) if counts(state, file, at) => self.of(id).deferred.push(*waiting),
            Mark::Owed(waiting) if state.is_some_and(|state| state.holds(file, at)) => {
                self.of(id).owed.push(*waiting)
            }
            Mark::Settled(_)
            | Mark::Deferred(_)
            | Mark::Owed(_)
            | Mark::StateBegins { .. }
            | Mark::StateEnds
            | Mark::Gap => {}
        }
    }

    fn of(&mut self, id: MessageId) -> &mut Marks {
        self.marks.entry(id).or_default()
    }

    /// What is left of a message whose groups are `groups`: (first index, count, offset of the first name).
    /// `next_offset` walks from a name to the next: it is given an offset and returns the following one.
    pub fn left(&self, id: MessageId, groups: &[Waiting], next_offset: &dyn Fn(u32) -> Option<u32>) -> Left {
        let marks = self.marks.get(&id);
        let covered = self.states.get(&id.partition()).is_some_and(|state| id <= state.covers);
        if !covered && marks.is_none() {
            return Left::All;
        }
        let none = Marks::default();
        let marks = marks.unwrap_or(&none);
        let base = if covered { &marks.owed } else { groups };
        Left::Some(subtract(base, marks, next_offset))
    }
}

impl State {
    fn holds(&self, file: &JournalFile, at: usize) -> bool {
        self.writer == file.writer
            && self.file == (file.epoch, file.number)
            && (self.begins..=self.ends).contains(&at)
    }
}

/// True if a mark adds to the partition's state: it was made after it, or by another core while the state's own
/// core lived (a share of a fan-out is marked where it is delivered, and that repeats nothing if the state has it).
fn counts(state: Option<State>, file: &JournalFile, at: usize) -> bool {
    let Some(state) = state else { return true };
    if file.writer != state.writer {
        return file.epoch >= state.file.0;
    }
    (file.epoch, file.number, at) > (state.file.0, state.file.1, state.ends)
}

/// A recipient's fate, as the marks have it. Settled beats all, then more attempts beat fewer.
#[derive(Clone, Copy)]
enum Fate {
    Unmarked,
    Settled,
    /// Index into `deferred`.
    Deferred(u32),
}

fn subtract(base: &[Waiting], marks: &Marks, next_offset: &dyn Fn(u32) -> Option<u32>) -> Vec<Waiting> {
    let end = base.iter().map(|waiting| waiting.span.first + waiting.span.count).max().unwrap_or(0) as usize;
    let mut fates = vec![Fate::Unmarked; end];
    for (at, waiting) in marks.deferred.iter().enumerate() {
        for fate in slots(&mut fates, waiting.span.first, waiting.span.count) {
            let beaten = match fate {
                Fate::Deferred(other) => marks.deferred[*other as usize].attempts <= waiting.attempts,
                Fate::Unmarked => true,
                Fate::Settled => false,
            };
            if beaten {
                *fate = Fate::Deferred(u32::try_from(at).unwrap_or(u32::MAX));
            }
        }
    }
    for (first, count) in &marks.settled {
        slots(&mut fates, *first, *count).fill_with(|| Fate::Settled);
    }
    let mut left = Vec::new();
    for waiting in base {
        cut(waiting, &fates, &marks.deferred, next_offset, &mut left);
    }
    left
}

fn slots(fates: &mut [Fate], first: u32, count: u32) -> &mut [Fate] {
    let end = (first.saturating_add(count) as usize).min(fates.len());
    fates.get_mut(first as usize..end).unwrap_or_default()
}

/// Cuts one base range into what is left of it, neighbours of one fate together.
fn cut(
    base: &Waiting,
    fates: &[Fate],
    deferred: &[Waiting],
    next_offset: &dyn Fn(u32) -> Option<u32>,
    left: &mut Vec<Waiting>,
) {
    let mut offset = base.name_offset;
    let from = left.len();
    for index in base.span.first..base.span.first + base.span.count {
        let (attempts, due) = match fates[index as usize] {
            Fate::Settled => {
                (offset, _) = (next_offset(offset).unwrap_or(offset), ());
                continue;
            }
            Fate::Unmarked => (base.attempts, base.due),
            Fate::Deferred(at) if deferred[at as usize].attempts < base.attempts => (base.attempts, base.due),
            Fate::Deferred(at) => (deferred[at as usize].attempts, deferred[at as usize].due),
        };
        match left[from..].last_mut() {
            Some(last)
                if last.span.first + last.span.count == index
                    && (last.attempts, last.due) == (attempts, due) =>
            {
                last.span.count += 1;
            }
            _ => left.push(Waiting {
                span: Span { id: base.span.id, first: index, count: 1 },
                name_offset: offset,
                attempts,
                due,
            }),
        }
        offset = next_offset(offset).unwrap_or(offset);
    }
}
