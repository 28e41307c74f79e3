//! The ordinary start: what log and journals in the queue's folder amount to.
//!
//! The folder has one sub-folder per partition, `core-N`, with segments `data-NNNNNNNN` and journals
//! `journal-NNNNNNNN`. All journals are read first, by whoever starts the cores, because one core may have recorded
//! what another core's message is owed; then each core reads the segments of its partitions (their indexes, where they
//! have them), all cores at the same time.

use crate::campaigns::books::BooksError;
use message::UnixMillis;
use queue::Attempts;
use queue::journal::{self, Fold, FoldBuilder, Origin, Span, Waiting};
use queue::log::record::{Group, Head, Meta, name_len};
use queue::log::{Groups, record};
use queue::source::Source;
use ring::{Access, File, Ring};
use smallvec::SmallVec;
use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};

/// Why the queue could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error("{path}: {source}", path = .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: {source}", path = .path.display())]
    Journal { path: PathBuf, source: journal::JournalError },
    #[error("{path}: {source}", path = .path.display())]
    Segment { path: PathBuf, source: queue::log::ScanError },
    #[error("{path}: more than 64 partitions", path = .path.display())]
    Partitions { path: PathBuf },
    #[error(transparent)]
    Campaigns(#[from] BooksError),
}

impl RecoverError {
    /// True if trying again is no use: the program is too old for the queue, or may not read it.
    pub fn is_the_operators(&self) -> bool {
        match self {
            RecoverError::Io { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            RecoverError::Journal { source, .. } => matches!(source, journal::JournalError::TooNew),
            RecoverError::Segment { source, .. } => matches!(source, queue::log::ScanError::TooNew),
            RecoverError::Partitions { .. } => true,
            RecoverError::Campaigns(error) => error.is_the_operators(),
        }
    }
}

/// What the journals say.
#[derive(Debug)]
pub struct Journals {
    pub fold: Fold,
    /// Above every epoch that wrote here before.
    pub epoch: u32,
    /// Above every journal's number.
    pub next_number: u32,
    /// Files of earlier starts, to be removed when the new ones are durable.
    pub old: Vec<PathBuf>,
    /// Partitions that exist on disk.
    pub partitions: Vec<u8>,
    pub next_generation: u32,
    /// Places where a journal is damaged.
    pub damaged: Vec<String>,
}

pub(crate) fn partition_folder(queue: &Path, partition: u8) -> PathBuf {
    queue.join(format!("core-{partition}"))
}

pub(crate) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> RecoverError + '_ {
    move |source| RecoverError::Io { path: path.to_owned(), source }
}

/// `data-00000012` → 12.
pub(crate) fn numbered(name: &str, prefix: &str) -> Option<u32> {
    name.strip_prefix(prefix).filter(|digits| digits.len() == 8)?.parse().ok()
}

/// Reads all journals of all partitions: their heads, then their marks, twice.
pub fn read_journals<R: Ring>(ring: &mut R, queue: &Path) -> Result<Journals, RecoverError> {
    let ring = RefCell::new(ring);
    let (mut found, partitions) = find_journals(&ring, queue)?;
    if partitions.len() > queue::site_table::CORES_MAX {
        return Err(RecoverError::Partitions { path: queue.to_owned() });
    }
    let named = found.iter().filter_map(|(_, path)| numbered(path.file_name()?.to_str()?, "journal-"));
    let next_number = named.map(|number| number + 1).max().unwrap_or(0);
    let epoch = found.iter().map(|(origin, _)| origin.epoch + 1).max().unwrap_or(1);
    found.sort();
    let (mut builder, mut damaged, mut next_generation) = (FoldBuilder::default(), Vec::new(), 1);
    for (origin, path) in &found {
        let mut finder = builder.finder(*origin);
        let read = read_journal(&ring, path, &mut |mark| finder.look_at(&mark))?;
        next_generation = next_generation.max(read.next_generation);
        damaged.extend(read.damaged_at.map(|at| format!("{}: damaged at byte {at}", path.display())));
    }
    for (origin, path) in &found {
        let mut taker = builder.taker(*origin);
        read_journal(&ring, path, &mut |mark| taker.take(&mark))?;
    }
    let fold = builder.finish();
    next_generation = fold.generation_max.values().map(|max| max + 1).max().unwrap_or(1).max(next_generation);
    let old = found.into_iter().map(|(_, path)| path).collect();
    Ok(Journals { fold, epoch, next_number, old, partitions, next_generation, damaged })
}

/// Journals of all partitions, and the partitions.
type FoundJournals = (Vec<(Origin, PathBuf)>, Vec<u8>);

fn find_journals<R: Ring>(ring: &RefCell<&mut R>, queue: &Path) -> Result<FoundJournals, RecoverError> {
    let (mut found, mut partitions) = (Vec::new(), Vec::new());
    let list = |folder: &Path| ring.borrow_mut().list(folder).map_err(io_error(folder));
    for name in list(queue)? {
        let Some(partition) = name.strip_prefix("core-").and_then(|number| number.parse::<u8>().ok()) else {
            continue;
        };
        partitions.push(partition);
        let folder = queue.join(&name);
        for name in list(&folder)?.iter().filter(|name| numbered(name, "journal-").is_some()) {
            let path = folder.join(name);
            let read = with_file(ring, &path, &mut |file| journal::read_head(file))?;
            let origin = Origin { epoch: read.epoch, number: read.number, writer: partition };
            found.push((origin, path));
        }
    }
    Ok((found, partitions))
}

fn read_journal<R: Ring>(
    ring: &RefCell<&mut R>,
    path: &Path,
    on_mark: &mut dyn FnMut(journal::Mark),
) -> Result<journal::Read, RecoverError> {
    with_file(ring, path, &mut |file| journal::read(file, on_mark))
}

fn with_file<R: Ring>(
    ring: &RefCell<&mut R>,
    path: &Path,
    read: &mut dyn FnMut(&mut dyn Source) -> Result<journal::Read, journal::JournalError>,
) -> Result<journal::Read, RecoverError> {
    let file = ring.borrow_mut().open_now(path, Access::Read).map_err(io_error(path))?;
    let result = read(&mut RingFile { ring, file });
    ring.borrow_mut().close_file(file);
    result.map_err(|source| RecoverError::Journal { path: path.to_owned(), source })
}

/// A file as recovery reads it. Several may be read in turn, hence the cell.
pub(crate) struct RingFile<'a, 'r, R> {
    pub(crate) ring: &'a RefCell<&'r mut R>,
    pub(crate) file: File,
}

impl<R: Ring> Source for RingFile<'_, '_, R> {
    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        self.ring.borrow_mut().read_now(self.file, offset, bytes)
    }
}

/// Why it is not known whom a record is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Unknown {
    /// Its meta part is not as it was written.
    Damaged,
    /// It could not be read this time; the next start may.
    Unread,
}

/// Reads a message's meta part when an index does not say enough of it.
pub(crate) fn read_meta(source: &mut dyn Source, head: &Head) -> Result<Vec<u8>, Unknown> {
    let mut bytes = vec![0; head.meta_len as usize];
    let mut have = 0;
    while have < bytes.len() {
        match source.read(head.meta_offset() + have as u64, &mut bytes[have..]) {
            Ok(0) => return Err(Unknown::Damaged),
            Ok(got) => have += got,
            Err(_) => return Err(Unknown::Unread),
        }
    }
    if record::checksum(&bytes) == head.meta_crc { Ok(bytes) } else { Err(Unknown::Damaged) }
}

/// Shows each range of a message that is still owed to `visit`, with its domain. Nothing, if the message has ended.
/// An error if the meta part had to be read for that and could not; what was shown until then counts for nothing.
pub(crate) fn visit_left(
    (head, groups): (&Head, Groups<'_>),
    fold: &Fold,
    source: &mut dyn Source,
    visit: &mut dyn FnMut(&str, &Waiting),
) -> Result<(), Unknown> {
    if fold.has_ended(head.id) {
        return Ok(());
    }
    let mut meta: Option<Result<Vec<u8>, Unknown>> = None;
    let elsewhere = if groups.is_elsewhere() { Some(read_meta(source, head)?) } else { None };
    let groups = match &elsewhere {
        None => groups,
        Some(bytes) => Groups::Meta(bytes, Meta::parse(bytes, head.layout).ok_or(Unknown::Damaged)?),
    };
    let groups_found: SmallVec<[Group<'_>; 4]> = groups.iter().collect();
    let whole: SmallVec<[Waiting; 4]> = groups_found.iter().map(|group| all_of(head, group)).collect();
    let mut next_name = |offset: u32| {
        let len_at = |meta: &[u8]| Some(offset + name_len(meta.get(offset as usize..)?, head.layout)?);
        match groups.meta() {
            Some(meta) => len_at(meta),
            None => len_at(meta.get_or_insert_with(|| read_meta(source, head)).as_deref().ok()?),
        }
    };
    let mut left = Vec::new();
    fold.left(head.id, &whole, &mut next_name, &mut left);
    for waiting in &left {
        let at = groups_found.partition_point(|group| group.first <= waiting.span.first);
        if let Some(group) = groups_found.get(at.saturating_sub(1)) {
            visit(group.domain, waiting);
        }
    }
    // Without the names, ranges cannot be told apart.
    meta.map_or(Ok(()), |meta| meta.map(|_| ()))
}

/// All recipients of a group, none tried.
fn all_of(head: &Head, group: &Group<'_>) -> Waiting {
    let span = Span { id: head.id, first: group.first, count: group.count };
    Waiting { span, name_offset: group.name_offset, attempts: Attempts::NONE, due: UnixMillis(0) }
}
