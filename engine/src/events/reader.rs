//! Reads the event log from a place on, over files that grow, that are complete and that are packed.
//!
//! Lines come in the order in which they stand in their files, files in the order of their numbers. A reader goes on to the
//! next file only when the one before it is complete, so no event comes late. What is damaged is skipped and counted.
//! Blocks on the disk: for threads that may. Bounds: a chunk of [`CHUNK`] octets and a line, besides what it unpacks with.

use super::Kind;
use super::cursor::Position;
use super::event::LINE_MAX;
use super::folder::{self, Source};
use super::line::Head;
use std::io;
use std::path::PathBuf;

/// Octets that are read at a time.
const CHUNK: usize = 64 << 10;

/// A set of kinds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Kinds(u16);

impl Kinds {
    /// Also those that this version does not know.
    pub const ALL: Kinds = Kinds(u16::MAX);

    /// None named: all. Names that there are none of are left out.
    pub fn of_names(names: &[String]) -> Kinds {
        if names.is_empty() {
            return Kinds::ALL;
        }
        let kinds = names.iter().filter_map(|name| Kind::of_name(name));
        Kinds(kinds.fold(0, |set, kind| set | 1 << kind as u16))
    }

    pub fn has(self, kind: Option<Kind>) -> bool {
        kind.map_or(self == Kinds::ALL, |kind| self.0 >> kind as u16 & 1 == 1)
    }
}

/// Events that stand together, whole lines.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Batch {
    pub lines: Vec<u8>,
    pub events: usize,
    /// When the first of them was logged.
    pub first_at_ms: u64,
    /// Where it begins and ends, what nobody wants included.
    pub from: Position,
    pub to: Position,
}

impl Batch {
    /// An empty one, to be filled from there on.
    pub fn at(place: Position) -> Batch {
        Batch { from: place, to: place, ..Batch::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.events == 0
    }
}

/// What a batch holds at most. The last line may go beyond the octets.
#[derive(Clone, Copy, Debug)]
pub struct BatchMax {
    pub events: usize,
    pub octets: usize,
}

impl BatchMax {
    pub fn is_reached(self, batch: &Batch) -> bool {
        batch.events >= self.events || batch.lines.len() >= self.octets
    }
}

/// What is done at the end of a file that is not complete.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AtEnd {
    /// More will come.
    Wait,
    /// The next file, if there is one: for who looks once.
    GoOn,
}

/// See the module.
pub struct Reader {
    folder: PathBuf,
    at_end: AtEnd,
    /// Of the first octet that was not handed out.
    place: Position,
    source: Option<Source>,
    /// What was read and not handed out begins at `from`.
    chunk: Vec<u8>,
    from: usize,
    /// In the middle of a line that is too long to be one.
    is_skipping: bool,
    /// Lines that were none.
    pub damaged: u64,
}

impl Reader {
    pub fn new(folder: PathBuf, place: Position, at_end: AtEnd) -> Reader {
        Reader {
            folder,
            at_end,
            place,
            source: None,
            chunk: Vec::new(),
            from: 0,
            is_skipping: false,
            damaged: 0,
        }
    }

    pub fn place(&self) -> Position {
        self.place
    }

    /// Adds lines to the batch until it is full, or until there is no more now.
    pub fn read(&mut self, batch: &mut Batch, wanted: Kinds, most: BatchMax) -> io::Result<()> {
        loop {
            while !most.is_reached(batch)
                && let Some(len) = self.line_len()
            {
                self.take_line(len, batch, wanted);
            }
            batch.to = self.place;
            if most.is_reached(batch) || !self.fill()? {
                return Ok(());
            }
        }
    }

    fn line_len(&self) -> Option<usize> {
        memchr::memchr(b'\n', &self.chunk[self.from..]).map(|at| at + 1)
    }

    fn take_line(&mut self, len: usize, batch: &mut Batch, wanted: Kinds) {
        let line = &self.chunk[self.from..self.from + len];
        match Head::find(line).filter(|_| !self.is_skipping) {
            Some(head) if wanted.has(head.kind) => {
                if batch.is_empty() {
                    batch.first_at_ms = head.at_ms;
                }
                batch.lines.extend_from_slice(&line[head.start..]);
                batch.events += 1;
            }
            Some(_) => {}
            None => self.damaged += 1,
        }
        self.is_skipping = false;
        self.place.events += 1;
        self.pass(len);
    }

    fn pass(&mut self, len: usize) {
        self.from += len;
        self.place.offset += len as u64;
    }

    /// Reads on, in this file or in the next. False: there is no more now.
    fn fill(&mut self) -> io::Result<bool> {
        self.chunk.drain(..self.from);
        self.from = 0;
        if self.chunk.len() >= LINE_MAX {
            self.is_skipping = true;
            self.pass(self.chunk.len());
            return Ok(true);
        }
        if self.source.is_none() {
            // What was read of a line already is read again.
            self.chunk.clear();
            self.source = Source::open(&self.folder, self.place.file, self.place.offset)?;
        }
        let Some(source) = &mut self.source else { return self.go_on() };
        // Before the read: what is written between the two would be missed.
        let may_go_on = self.at_end == AtEnd::GoOn || source.is_complete()?;
        let before = self.chunk.len();
        self.chunk.resize(before + CHUNK, 0);
        let read = source.read(&mut self.chunk[before..]);
        self.chunk.truncate(before + *read.as_ref().unwrap_or(&0));
        match read? {
            0 if may_go_on => self.go_on(),
            len => Ok(len > 0),
        }
    }

    /// To the next file. A line without its end, at the end of a file, was never wholly written.
    fn go_on(&mut self) -> io::Result<bool> {
        let Some(next) = folder::next_after(&self.folder, self.place.file)? else { return Ok(false) };
        self.damaged += u64::from(!self.chunk.is_empty());
        self.chunk.clear();
        (self.from, self.is_skipping, self.source) = (0, false, None);
        self.place = Position::start_of(next);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::folder::{Form, complete, pack, path_of};
    use crate::events::{Event, Stamp};
    use message::UnixMillis;
    use proptest::prelude::*;
    use std::fs::OpenOptions;
    use std::io::Write as _;
    use std::path::Path;

    const MOST: BatchMax = BatchMax { events: 7, octets: 1 << 20 };

    fn line(id: u64) -> Vec<u8> {
        let kind = Kind::ALL[usize::try_from(id).unwrap() % Kind::ALL.len()];
        let mut out = Vec::new();
        Event::new(kind).render(Stamp { id: Some(id), at: UnixMillis(id) }, &mut out);
        out
    }

    fn append(folder: &Path, file: u32, octets: &[u8]) {
        let path = path_of(folder, file, Form::Plain);
        OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(octets).unwrap();
    }

    /// Everything that is there now, in batches of at most seven.
    fn ids(reader: &mut Reader, wanted: Kinds) -> Vec<u64> {
        let mut ids = Vec::new();
        loop {
            let mut batch = Batch::default();
            reader.read(&mut batch, wanted, MOST).unwrap();
            assert!(batch.events <= MOST.events);
            for line in batch.lines.split_inclusive(|octet| *octet == b'\n') {
                let value: serde_json::Value = serde_json::from_slice(line).unwrap();
                ids.push(u64::from_str_radix(value["id"].as_str().unwrap(), 16).unwrap());
            }
            if batch.is_empty() {
                return ids;
            }
        }
    }

    #[test]
    fn file_that_grows_is_read_to_its_end_before_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        append(path, 1, &line(1));
        append(path, 2, &line(3));
        let mut reader = Reader::new(path.to_owned(), Position::start_of(1), AtEnd::Wait);
        assert_eq!(ids(&mut reader, Kinds::ALL), [1]);
        let late = line(2);
        append(path, 1, &late[..9]);
        assert_eq!(ids(&mut reader, Kinds::ALL), [0; 0], "half a line is none yet");
        append(path, 1, &late[9..]);
        complete(path, 1).unwrap();
        pack(path, 1).unwrap();
        assert_eq!(ids(&mut reader, Kinds::ALL), [2, 3]);
        assert_eq!((reader.place().file, reader.place().events, reader.damaged), (2, 1, 0));
    }

    #[test]
    fn torn_line_at_the_end_and_one_that_is_too_long_are_skipped_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        append(path, 1, &[&line(1)[..], &[b'x'; LINE_MAX + CHUNK], b"\n", &line(2)].concat());
        append(path, 1, &[b"\0\0\n", &line(3)[..], &line(9)[..20]].concat());
        complete(path, 1).unwrap();
        append(path, 4, &[&line(9)[..20], &line(4)].concat());
        let mut reader = Reader::new(path.to_owned(), Position::start_of(1), AtEnd::Wait);
        assert_eq!(ids(&mut reader, Kinds::ALL), [1, 2, 3, 4]);
        assert_eq!(reader.damaged, 3);
    }

    #[test]
    fn file_that_is_gone_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        append(folder.path(), 5, &line(5));
        let place = Position { file: 2, offset: 1000, events: 10 };
        let mut reader = Reader::new(folder.path().to_owned(), place, AtEnd::Wait);
        assert_eq!(ids(&mut reader, Kinds::ALL), [5]);
    }

    #[test]
    fn kinds_that_nobody_wants_are_passed() {
        let folder = tempfile::tempdir().unwrap();
        let later = b"{\"id\":\"0000000000000008\",\"kind\":\"opened\",\"at\":5}\n";
        append(folder.path(), 1, &[(1..8).flat_map(line).collect(), later.to_vec()].concat());
        let read = |wanted| {
            ids(&mut Reader::new(folder.path().to_owned(), Position::start_of(1), AtEnd::Wait), wanted)
        };
        assert_eq!(read(Kinds::of_names(&["failed".into(), "bounced".into()])), [3, 6]);
        assert_eq!(read(Kinds::ALL), [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    /// What a history of files is made of.
    #[derive(Clone, Debug)]
    enum Step {
        Lines(u8),
        /// A writer died or the disk was full in the middle of a line.
        Torn(u8),
        NextFile {
            is_packed: bool,
        },
        /// The reader reads what is there, and may be opened anew where it is.
        Read {
            is_reopened: bool,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1..40u8).prop_map(Step::Lines),
            (1..60u8).prop_map(Step::Torn),
            any::<bool>().prop_map(|is_packed| Step::NextFile { is_packed }),
            any::<bool>().prop_map(|is_reopened| Step::Read { is_reopened }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_line_comes_once_and_in_order_over_any_files(steps in proptest::collection::vec(step(), 1..20)) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path();
            let (mut file, mut next, mut found) = (1, 1u64, Vec::new());
            append(path, file, b"");
            let mut reader = Reader::new(path.to_owned(), Position::start_of(1), AtEnd::Wait);
            for step in steps.into_iter().chain([Step::Read { is_reopened: true }]) {
                match step {
                    Step::Lines(count) => {
                        for _ in 0..count {
                            append(path, file, &line(next));
                            next += 1;
                        }
                    }
                    Step::Torn(len) => {
                        let torn = line(next);
                        append(path, file, &torn[..usize::from(len).min(torn.len() - 2)]);
                    }
                    Step::NextFile { is_packed } => {
                        append(path, file + 1, b"");
                        complete(path, file).unwrap();
                        if is_packed {
                            pack(path, file).unwrap();
                        }
                        file += 1;
                    }
                    Step::Read { is_reopened } => {
                        if is_reopened {
                            reader = Reader::new(path.to_owned(), reader.place(), AtEnd::Wait);
                        }
                        found.extend(ids(&mut reader, Kinds::ALL));
                    }
                }
            }
            prop_assert_eq!(found, (1..next).collect::<Vec<_>>());
        }
    }
}
