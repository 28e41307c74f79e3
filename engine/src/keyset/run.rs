//! One sorted file of keys: written once, read for ever after.
//!
//! Pages of [`PAGE_LEN`] octets, each with its checksum, hold the entries in order; the first four octets of each page's
//! first key stand in memory (4 MB for 50,000,000 entries), so that a look-up reads one page; the filter
//! answers most look-ups without one. The entries stand in memory too if whoever opens the file has the room: the system takes
//! longer to hand out a page that it has in memory than all the rest of a look-up takes. `FORMAT.md` explains every octet. A
//! file is written under another name, synced, and renamed.
//! Trusts nothing that it reads: a page whose checksum is wrong is an error and no answer.

use super::filter::{BLOCK_LEN, Filter};
use super::{Counts, Key, KeySetError, SpanOfLogs, Value, io_error, sync_folder};
use queue::log::record::checksum;
use rustix::fs::Advice;
use rustix::io::{Errno, ReadWriteFlags};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, IoSliceMut, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Octets of a page, and of the head before the first. A quarter of the system's page: copying and checking more of it than
/// need be is most of what a look-up costs.
const PAGE_LEN: usize = 1024;

/// Checksum, and how many entries follow.
const PAGE_HEAD: usize = 8;

/// Key, kind, time.
const ENTRY_LEN: usize = 21;

const ENTRIES_PER_PAGE: usize = (PAGE_LEN - PAGE_HEAD) / ENTRY_LEN;

/// Magic and version.
const MAGIC: [u8; 8] = *b"RPKRUN\x01\n";

/// Octets of the head that say something.
const HEAD_LEN: usize = 200;

/// A file is read through in pieces of so many pages.
const PIECE_PAGES: usize = 256;

type Page = [u8; PAGE_LEN];

/// What a file is made of, and as of when.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct About {
    /// Whoever has another secret made other keys.
    pub(super) owner: u64,
    /// The logs whose changes are in it.
    pub(super) logs: SpanOfLogs,
    /// The whole set, as of the last of those logs.
    pub(super) counts: Counts,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Run {
    file: File,
    pub(super) path: PathBuf,
    pub(super) about: About,
    pub(super) entries: u64,
    /// The first octets of each page's first key.
    directory: Vec<u32>,
    filter: Filter,
    /// All entries, a page's behind those of the page before.
    held: Option<Box<[Entry]>>,
    /// The filesystem does not say whether a page is in memory: reads of it are reads.
    always_waits: bool,
}

/// Whether the answer may be waited for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Patience {
    /// Only what is in memory.
    None,
    Disk,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Silent {
    /// It would have to be read from the disk.
    Unread,
    Failed(io::Error),
}

impl Run {
    /// `room`: octets of memory that its entries may take.
    pub(super) fn open(path: &Path, room: u64) -> Result<Run, KeySetError> {
        let file = File::open(path).map_err(io_error(path))?;
        let len = file.metadata().map_err(io_error(path))?.len();
        let wrong = |what: &'static str| KeySetError::Damaged { path: path.to_owned(), what };
        let mut bytes = [0; HEAD_LEN];
        file.read_exact_at(&mut bytes, 0).map_err(|_| wrong("it is too short"))?;
        let head = Head::decode(&bytes).map_err(|error| match error {
            NoHead::TooNew(found) => KeySetError::TooNew { path: path.to_owned(), found },
            NoHead::Damaged => wrong("its head does not match its checksum"),
        })?;
        if len != head.file_len() {
            return Err(wrong("it is not as long as its head says"));
        }
        // A look-up is for one page, and what stands beside it is not asked for next.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::Random);
        let (directory, filter) = match head.read_tables(&file).map_err(io_error(path))? {
            Some(tables) => tables,
            None => {
                tracing::warn!(path = %path.display(), "damaged tables are made anew from the entries");
                head.tables_anew(path)?
            }
        };
        let held = if head.entries_len() <= room { head.read_entries(path) } else { None };
        let Head { about, entries, .. } = head;
        let path = path.to_owned();
        Ok(Run { always_waits: !can_tell(&file), file, path, about, entries, directory, filter, held })
    }

    /// Octets of memory that its tables take.
    pub(super) fn memory(&self) -> u64 {
        u64::from(self.filter.blocks()) * BLOCK_LEN as u64 + self.directory.len() as u64 * 4
    }

    /// Octets of memory that its entries take.
    pub(super) fn held_len(&self) -> u64 {
        self.held.as_ref().map_or(0, |entries| size_of_val(&**entries) as u64)
    }

    /// What it says of the key, if it says anything. A cache line if it does not, else a page of the file.
    #[inline]
    pub(super) fn get(&self, key: Key, patience: Patience) -> Result<Option<Value>, Silent> {
        if self.filter.may_have(key) { self.find(key, patience) } else { Ok(None) }
    }

    fn find(&self, key: Key, patience: Patience) -> Result<Option<Value>, Silent> {
        let Some(number) = self.page_of(key) else { return Ok(None) };
        match &self.held {
            Some(entries) => Ok(self.find_held(entries, number, key)),
            None => self.find_in_file(number, key, patience),
        }
    }

    fn find_in_file(&self, mut number: usize, key: Key, patience: Patience) -> Result<Option<Value>, Silent> {
        let mut page = [0; PAGE_LEN];
        loop {
            self.read_page(number, &mut page, patience)?;
            let entries = entries_of(&page).ok_or_else(|| Silent::Failed(self.damaged(number)))?;
            // Several pages may begin with the same octets; the last of them was read first.
            if number > 0 && entries.first().is_some_and(|entry| key_of(entry) > key) {
                number -= 1;
                continue;
            }
            let found = entries.binary_search_by_key(&key, key_of);
            return Ok(found.ok().map(|at| value_of(&entries[at])));
        }
    }

    /// Each cache line costs: an entry is looked for from where it would be if the page's keys were spread perfectly.
    fn find_held(&self, entries: &[Entry], mut number: usize, key: Key) -> Option<Value> {
        let prefix = prefix_of(key);
        loop {
            let start = number * ENTRIES_PER_PAGE;
            let page = entries.get(start..entries.len().min(start + ENTRIES_PER_PAGE))?;
            let first = self.directory[number];
            if number > 0 && first == prefix && page.first().is_some_and(|entry| key_of(entry) > key) {
                number -= 1;
                continue;
            }
            let next = self.directory.get(number + 1).copied().unwrap_or(u32::MAX);
            let (part, whole) = (prefix.saturating_sub(first), next.saturating_sub(first).max(1));
            let guess = u64::from(part) * page.len() as u64 / u64::from(whole);
            let mut at = page.len().checked_sub(1)?.min(usize::try_from(guess).unwrap_or_default());
            while at > 0 && key_of(&page[at]) > key {
                at -= 1;
            }
            while at + 1 < page.len() && key_of(&page[at]) < key {
                at += 1;
            }
            return (key_of(&page[at]) == key).then(|| value_of(&page[at]));
        }
    }

    /// The last page that may have the key. Keys are spread evenly, so it is near where it would be if they were spread
    /// perfectly: with a million pages, some 70 of them away.
    fn page_of(&self, key: Key) -> Option<usize> {
        let (prefix, firsts) = (prefix_of(key), self.directory.as_slice());
        let guess = usize::try_from((u64::from(prefix) * firsts.len() as u64) >> 32).unwrap_or_default();
        let (mut from, mut to, mut step) = (guess, guess, 16);
        while from > 0 && firsts[from] > prefix {
            (to, from, step) = (from, from.saturating_sub(step), step * 4);
        }
        while firsts.get(to).is_some_and(|first| *first <= prefix) {
            (from, to, step) = (to, (to + step).min(firsts.len()), step * 4);
        }
        let behind = from + firsts[from..to].partition_point(|first| *first <= prefix);
        behind.checked_sub(1)
    }

    fn read_page(&self, number: usize, page: &mut Page, patience: Patience) -> Result<(), Silent> {
        let offset = offset_of(number);
        if patience == Patience::Disk || self.always_waits {
            return self.file.read_exact_at(page, offset).map_err(Silent::Failed);
        }
        let mut pieces = [IoSliceMut::new(page)];
        match rustix::io::preadv2(&self.file, &mut pieces, offset, ReadWriteFlags::NOWAIT) {
            Ok(PAGE_LEN) => Ok(()),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Err(Silent::Unread),
            Err(error) => Err(Silent::Failed(error.into())),
        }
    }

    fn damaged(&self, number: usize) -> io::Error {
        let what = format!(
            "{}: the page at octet {} does not match its checksum",
            self.path.display(),
            offset_of(number)
        );
        io::Error::new(io::ErrorKind::InvalidData, what)
    }

    /// All entries in order, removed ones included.
    pub(super) fn scan(&self) -> io::Result<Scan> {
        Scan::new(&self.path, self.directory.len())
    }
}

/// Whether reads without waiting are known to the filesystem (not to tmpfs, where nothing waits).
fn can_tell(file: &File) -> bool {
    let mut octet = [0];
    let mut pieces = [IoSliceMut::new(&mut octet)];
    let result = rustix::io::preadv2(file, &mut pieces, 0, ReadWriteFlags::NOWAIT);
    !matches!(result, Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL))
}

fn offset_of(page: usize) -> u64 {
    (page as u64 + 1) * PAGE_LEN as u64
}

fn prefix_of(key: Key) -> u32 {
    (key.high() >> 32) as u32
}

type Entry = [u8; ENTRY_LEN];

/// The entries of a page, if it is as it was written.
fn entries_of(page: &Page) -> Option<&[Entry]> {
    let (sum, rest) = page.split_first_chunk()?;
    (checksum(rest) == u32::from_le_bytes(*sum)).then(|| counted(page))
}

/// The entries of a page that is known to be as it was written.
fn counted(page: &Page) -> &[Entry] {
    let count = usize::from(u16::from_le_bytes([page[4], page[5]]));
    let (entries, _) = page[PAGE_HEAD..].as_chunks();
    &entries[..count.min(ENTRIES_PER_PAGE)]
}

fn key_of(entry: &Entry) -> Key {
    let mut key = [0; 16];
    key.copy_from_slice(&entry[..16]);
    Key::from_bytes(key)
}

fn value_of(entry: &Entry) -> Value {
    let [.., kind, a, b, c, d] = *entry;
    Value { kind, at_secs: u32::from_le_bytes([a, b, c, d]) }
}

// ---- the head ----

#[derive(Debug)]
struct Head {
    about: About,
    entries: u64,
    pages: u32,
    blocks: u32,
    directory_sum: u32,
    filter_sum: u32,
}

enum NoHead {
    Damaged,
    TooNew(u8),
}

impl Head {
    fn encode(&self) -> [u8; HEAD_LEN] {
        let About { owner, logs, counts } = &self.about;
        let mut rest = Vec::with_capacity(HEAD_LEN);
        rest.extend_from_slice(&self.directory_sum.to_le_bytes());
        rest.extend_from_slice(&owner.to_le_bytes());
        rest.extend_from_slice(&logs.first.to_le_bytes());
        rest.extend_from_slice(&logs.last.to_le_bytes());
        rest.extend_from_slice(&self.entries.to_le_bytes());
        rest.extend_from_slice(&self.pages.to_le_bytes());
        rest.extend_from_slice(&self.blocks.to_le_bytes());
        rest.extend_from_slice(&self.filter_sum.to_le_bytes());
        rest.resize(COUNTS_AT - 12, 0);
        rest.extend(counts.0.iter().flat_map(|count| count.to_le_bytes()));
        let mut head = [0; HEAD_LEN];
        head[..8].copy_from_slice(&MAGIC);
        head[12..12 + rest.len()].copy_from_slice(&rest);
        let sum = checksum(&head[12..]);
        head[8..12].copy_from_slice(&sum.to_le_bytes());
        head
    }

    fn decode(head: &[u8; HEAD_LEN]) -> Result<Head, NoHead> {
        if head[..6] == MAGIC[..6] && head[6] > MAGIC[6] {
            return Err(NoHead::TooNew(head[6]));
        }
        let u32_at = |at: usize| head[at..].first_chunk().map_or(0, |word| u32::from_le_bytes(*word));
        let u64_at = |at: usize| head[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        if head[..8] != MAGIC || u32_at(8) != checksum(&head[12..]) {
            return Err(NoHead::Damaged);
        }
        let counts = Counts(std::array::from_fn(|kind| u64_at(COUNTS_AT + 8 * kind)));
        let logs = SpanOfLogs { first: u32_at(24), last: u32_at(28) };
        Ok(Head {
            about: About { owner: u64_at(16), logs, counts },
            entries: u64_at(32),
            pages: u32_at(40),
            blocks: u32_at(44),
            directory_sum: u32_at(12),
            filter_sum: u32_at(48),
        })
    }

    fn directory_at(&self) -> u64 {
        (u64::from(self.pages) + 1) * PAGE_LEN as u64
    }

    fn entries_len(&self) -> u64 {
        self.entries.saturating_mul(ENTRY_LEN as u64)
    }

    /// `None`: some page is not as it was written, or they cannot be read; who asks for such a page hears of it.
    fn read_entries(&self, path: &Path) -> Option<Box<[Entry]>> {
        let pages = self.pages as usize;
        let mut scan = Scan::new(path, pages).ok()?;
        let mut entries: Vec<Entry> = Vec::with_capacity(usize::try_from(self.entries).ok()?);
        for number in 0..pages {
            let page = counted(scan.page(number).ok()?);
            let is_full = page.len() == ENTRIES_PER_PAGE || number + 1 == pages;
            if !is_full || entries.len() + page.len() > entries.capacity() {
                return None;
            }
            entries.extend_from_slice(page);
        }
        // Once is enough.
        let _ = rustix::fs::fadvise(&scan.file, 0, None, Advice::DontNeed);
        Some(entries.into())
    }

    fn file_len(&self) -> u64 {
        self.directory_at() + u64::from(self.pages) * 4 + u64::from(self.blocks) * BLOCK_LEN as u64
    }

    /// Directory and filter. `None`: they are not as they were written.
    fn read_tables(&self, file: &File) -> io::Result<Option<(Vec<u32>, Filter)>> {
        let mut at = self.directory_at();
        let mut bytes = vec![0; self.pages as usize * 4];
        file.read_exact_at(&mut bytes, at)?;
        at += bytes.len() as u64;
        let mut sum = 0;
        let filter = Filter::read(self.blocks, |piece| {
            file.read_exact_at(piece, at)?;
            at += piece.len() as u64;
            sum = crc32c::crc32c_append(sum, piece);
            Ok::<(), io::Error>(())
        })?;
        let is_whole = checksum(&bytes) == self.directory_sum && sum == self.filter_sum && self.blocks > 0;
        let (words, _) = bytes.as_chunks();
        let directory = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
        Ok(is_whole.then_some((directory, filter)))
    }

    fn tables_anew(&self, path: &Path) -> Result<(Vec<u32>, Filter), KeySetError> {
        let mut tables = Tables::for_keys(self.entries);
        let mut scan = Scan::new(path, self.pages as usize).map_err(io_error(path))?;
        let mut count: usize = 0;
        while let Some((key, _)) = scan.next().map_err(io_error(path))? {
            tables.add(key, count.is_multiple_of(ENTRIES_PER_PAGE));
            count += 1;
        }
        Ok((tables.directory, tables.filter))
    }
}

/// Where the counts by kind stand.
const COUNTS_AT: usize = 72;

const _: () = assert!(COUNTS_AT + 16 * 8 == HEAD_LEN);

// ---- reading through ----

/// Reads a file from its beginning to its end. Bound: a piece of [`PIECE_PAGES`] pages.
#[derive(Debug)]
pub(super) struct Scan {
    file: File,
    path: PathBuf,
    pages: usize,
    /// The page under way, by its number; and the place of the next entry in it.
    page: usize,
    entry: usize,
    piece: Vec<Page>,
    piece_at: usize,
}

impl Scan {
    fn new(path: &Path, pages: usize) -> io::Result<Scan> {
        // A descriptor of its own, for which the system reads ahead.
        let file = File::open(path)?;
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::Sequential);
        let path = path.to_owned();
        Ok(Scan { file, path, pages, page: 0, entry: 0, piece: Vec::new(), piece_at: 0 })
    }

    pub(super) fn next(&mut self) -> io::Result<Option<(Key, Value)>> {
        while self.page < self.pages {
            let (number, entry) = (self.page, self.entry);
            if let Some(entry) = counted(self.page(number)?).get(entry) {
                let found = (key_of(entry), value_of(entry));
                self.entry += 1;
                return Ok(Some(found));
            }
            (self.page, self.entry) = (self.page + 1, 0);
        }
        Ok(None)
    }

    /// Pages are asked for in their order.
    fn page(&mut self, number: usize) -> io::Result<&Page> {
        if number >= self.piece_at + self.piece.len() {
            self.read_piece(number)?;
        }
        Ok(&self.piece[number - self.piece_at])
    }

    fn read_piece(&mut self, first: usize) -> io::Result<()> {
        let count = (self.pages - first).min(PIECE_PAGES);
        self.piece.resize(count, [0; PAGE_LEN]);
        self.piece_at = first;
        self.file.read_exact_at(self.piece.as_flattened_mut(), offset_of(first))?;
        match self.piece.iter().position(|page| entries_of(page).is_none()) {
            None => Ok(()),
            Some(at) => {
                let at = offset_of(first + at);
                let what =
                    format!("{}: the page at octet {at} does not match its checksum", self.path.display());
                Err(io::Error::new(io::ErrorKind::InvalidData, what))
            }
        }
    }
}

// ---- writing ----

#[derive(Debug)]
struct Tables {
    directory: Vec<u32>,
    filter: Filter,
}

impl Tables {
    fn for_keys(count: u64) -> Tables {
        Tables { directory: Vec::new(), filter: Filter::for_keys(count) }
    }

    fn add(&mut self, key: Key, begins_page: bool) {
        if begins_page {
            self.directory.push(prefix_of(key));
        }
        self.filter.insert(key);
    }
}

/// Writes a file of keys that come in order. Bound: its tables, and a page.
#[derive(Debug)]
pub(super) struct RunWriter {
    out: BufWriter<File>,
    path: PathBuf,
    about: About,
    tables: Tables,
    page: Page,
    in_page: usize,
    entries: u64,
}

impl RunWriter {
    /// `most`: the keys that may come. The file goes by another name until [`RunWriter::finish`].
    pub(super) fn create(folder: &Path, about: About, most: u64) -> Result<RunWriter, KeySetError> {
        let path = folder.join(name_of(about.logs));
        let half = path.with_extension("new");
        let open = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&half);
        let mut out = BufWriter::with_capacity(256 << 10, open.map_err(io_error(&half))?);
        out.write_all(&[0; PAGE_LEN]).map_err(io_error(&half))?;
        let tables = Tables::for_keys(most);
        Ok(RunWriter { out, path, about, tables, page: [0; PAGE_LEN], in_page: 0, entries: 0 })
    }

    pub(super) fn push(&mut self, key: Key, value: Value) -> io::Result<()> {
        self.tables.add(key, self.in_page == 0);
        let at = PAGE_HEAD + self.in_page * ENTRY_LEN;
        self.page[at..at + 16].copy_from_slice(&key.to_bytes());
        self.page[at + 16] = value.kind;
        self.page[at + 17..at + ENTRY_LEN].copy_from_slice(&value.at_secs.to_le_bytes());
        self.in_page += 1;
        self.entries += 1;
        if self.in_page == ENTRIES_PER_PAGE { self.end_page() } else { Ok(()) }
    }

    fn end_page(&mut self) -> io::Result<()> {
        let count = u16::try_from(std::mem::take(&mut self.in_page)).expect("fewer than fit into a page");
        self.page[4..6].copy_from_slice(&count.to_le_bytes());
        let sum = checksum(&self.page[4..]);
        self.page[..4].copy_from_slice(&sum.to_le_bytes());
        self.out.write_all(&self.page)?;
        self.page = [0; PAGE_LEN];
        Ok(())
    }

    /// Everything is in it: it is synced, gets its name, and is opened; `room` as for [`Run::open`].
    pub(super) fn finish(mut self, room: u64) -> Result<Run, KeySetError> {
        let (path, half) = (self.path.clone(), self.path.with_extension("new"));
        self.write_rest().map_err(io_error(&half))?;
        std::fs::rename(&half, &path).map_err(io_error(&path))?;
        sync_folder(&path)?;
        Run::open(&path, room)
    }

    fn write_rest(&mut self) -> io::Result<()> {
        if self.in_page > 0 {
            self.end_page()?;
        }
        let directory: Vec<u8> = self.tables.directory.iter().flat_map(|first| first.to_le_bytes()).collect();
        self.out.write_all(&directory)?;
        let mut filter_sum = 0;
        for piece in self.tables.filter.pieces() {
            filter_sum = crc32c::crc32c_append(filter_sum, &piece);
            self.out.write_all(&piece)?;
        }
        let head = Head {
            about: self.about.clone(),
            entries: self.entries,
            pages: u32::try_from(self.tables.directory.len()).map_err(io::Error::other)?,
            blocks: self.tables.filter.blocks(),
            directory_sum: checksum(&directory),
            filter_sum,
        };
        self.out.flush()?;
        let file = self.out.get_ref();
        file.write_all_at(&head.encode(), 0)?;
        file.sync_all()
    }
}

/// `run-FIRST-LAST`.
pub(super) fn name_of(logs: SpanOfLogs) -> String {
    format!("run-{:08}-{:08}", logs.first, logs.last)
}

/// The span that a file's name says, if it is the name of such a file.
pub(super) fn span_of(name: &str) -> Option<SpanOfLogs> {
    let (first, last) = name.strip_prefix("run-")?.split_once('-')?;
    let number = |text: &str| if text.len() == 8 { text.parse().ok() } else { None };
    let span = SpanOfLogs { first: number(first)?, last: number(last)? };
    (span.first <= span.last).then_some(span)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyset::tests::key;
    use proptest::prelude::*;

    /// The file, and itself once more with all entries in memory.
    fn run_of(folder: &Path, keys: &[Key]) -> [Run; 2] {
        let logs = SpanOfLogs { first: 1, last: 1 };
        let about = About { owner: 7, logs, counts: Counts::default() };
        let mut writer = RunWriter::create(folder, about, keys.len() as u64).unwrap();
        for key in keys {
            writer.push(*key, Value { kind: 1, at_secs: 5 }).unwrap();
        }
        let run = writer.finish(0).unwrap();
        let held = Run::open(&run.path, u64::MAX).unwrap();
        assert_eq!((run.held_len(), held.held_len()), (0, (keys.len() * ENTRY_LEN) as u64));
        [run, held]
    }

    fn assert_found(runs: &[Run], keys: &[Key], others: impl Iterator<Item = Key> + Clone) {
        for run in runs {
            for key in keys {
                assert!(run.find(*key, Patience::Disk).unwrap().is_some(), "{key:?}");
            }
            for key in others.clone().filter(|key| keys.binary_search(key).is_err()) {
                assert!(run.find(key, Patience::Disk).unwrap().is_none(), "{key:?}");
            }
        }
    }

    #[test]
    fn every_key_is_found_in_its_page_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let mut keys: Vec<Key> = (0..20_000).map(key).collect();
        keys.sort_unstable();
        let runs = run_of(folder.path(), &keys);
        let beside = keys.iter().flat_map(|key| [Key(key.0.wrapping_add(1)), Key(key.0.wrapping_sub(1))]);
        assert_found(&runs, &keys, beside.chain([Key(0), Key(u128::MAX)]));
        assert_eq!(runs[0].directory.len(), 20_000usize.div_ceil(ENTRIES_PER_PAGE));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Not spread at all: many pages may begin with the same octets.
        #[test]
        fn keys_that_are_not_spread_are_found_too(
            tops in proptest::collection::btree_set(0u32..6, 1..4),
            edge in any::<bool>(),
            count in 1u64..400,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let top = |top: u32| u128::from(if edge { u32::MAX - top } else { top }) << 96;
            let tail = |number: u64| u128::from(number) << 40;
            let mut keys: Vec<Key> =
                tops.iter().flat_map(|at| (0..count).map(|number| Key(top(*at) | tail(number)))).collect();
            keys.sort_unstable();
            let runs = run_of(folder.path(), &keys);
            let others = (0..7).flat_map(|at| [Key(top(at)), Key(top(at) | tail(count)), Key(top(at) | 1)]);
            assert_found(&runs, &keys, others);
        }
    }
}
