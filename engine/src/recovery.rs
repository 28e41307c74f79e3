//! The ordinary start: what log and journals in the queue's folder amount to.
//!
//! The folder has one sub-folder per partition, `core-N`, with segments `data-NNNNNNNN` and journals
//! `journal-NNNNNNNN`. All journals are read first, by whoever starts the cores, because one core may have recorded
//! what another core's message is owed; then each core reads the segments of its partitions.

use message::UnixMillis;
use queue::Attempts;
use queue::journal::{self, Fold, JournalFile, Left, Mark, Span, Waiting};
use queue::log::SegmentSource;
use queue::log::record::{Head, Meta};
use ring::{Access, File, Ring};
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

/// Reads all journals of all partitions.
pub fn read_journals<R: Ring>(ring: &mut R, queue: &Path) -> Result<Journals, RecoverError> {
    let (mut files, mut old, mut partitions, mut damaged) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut next_generation = 1;
    for name in ring.list(queue).map_err(io_error(queue))? {
        let Some(partition) = name.strip_prefix("core-").and_then(|number| number.parse::<u8>().ok()) else {
            continue;
        };
        partitions.push(partition);
        let folder = queue.join(&name);
        for name in ring.list(&folder).map_err(io_error(&folder))? {
            if numbered(&name, "journal-").is_none() {
                continue;
            }
            let path = folder.join(&name);
            let (read, marks) = read_journal(ring, &path)?;
            next_generation = next_generation.max(read.next_generation);
            damaged.extend(read.damaged_at.map(|at| format!("{}: damaged at byte {at}", path.display())));
            files.push(JournalFile { writer: partition, epoch: read.epoch, number: read.number, marks });
            old.push(path);
        }
    }
    if partitions.len() > queue::site_table::CORES_MAX {
        return Err(RecoverError::Partitions { path: queue.to_owned() });
    }
    let epoch = files.iter().map(|file| file.epoch + 1).max().unwrap_or(1);
    let named = old.iter().filter_map(|path| numbered(path.file_name()?.to_str()?, "journal-"));
    let next_number = named.map(|number| number + 1).max().unwrap_or(0);
    let fold = Fold::new(files);
    next_generation = fold.generation_max.values().map(|max| max + 1).max().unwrap_or(1).max(next_generation);
    Ok(Journals { fold, epoch, next_number, old, partitions, next_generation, damaged })
}

fn read_journal<R: Ring>(ring: &mut R, path: &Path) -> Result<(journal::Read, Vec<Mark>), RecoverError> {
    let file = ring.open_now(path, Access::Read).map_err(io_error(path))?;
    let bytes = read_until_zeros(ring, file).map_err(io_error(path))?;
    ring.close_file(file);
    let mut marks = Vec::new();
    let read = journal::read(&bytes, &mut |mark| marks.push(mark))
        .map_err(|source| RecoverError::Journal { path: path.to_owned(), source })?;
    Ok((read, marks))
}

/// A journal's space is reserved ahead: behind its last frame there are only zeros.
fn read_until_zeros<R: Ring>(ring: &mut R, file: File) -> io::Result<Vec<u8>> {
    const PIECE: usize = 2 * journal::FRAME_MAX;
    let mut bytes = Vec::new();
    loop {
        let at = bytes.len();
        bytes.resize(at + PIECE, 0);
        let got = ring.read_now(file, at as u64, &mut bytes[at..])?;
        bytes.truncate(at + got);
        if got < PIECE || bytes[at..].iter().all(|byte| *byte == 0) {
            return Ok(bytes);
        }
    }
}

/// A segment file as recovery reads it.
pub(crate) struct SegmentFile<'a, R> {
    pub(crate) ring: &'a mut R,
    pub(crate) file: File,
}

impl<R: Ring> SegmentSource for SegmentFile<'_, R> {
    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        self.ring.read_now(self.file, offset, bytes)
    }
}

/// A message's ranges that are still owed, with their domains.
pub(crate) fn what_is_left(head: &Head, meta: &[u8], fold: &Fold) -> Vec<(String, Waiting)> {
    let Some(parsed) = Meta::parse(meta, head.verp) else { return Vec::new() };
    let groups: Vec<_> = parsed.groups().collect();
    let whole: Vec<Waiting> = groups
        .iter()
        .map(|group| Waiting {
            span: Span { id: head.id, first: group.first, count: group.count },
            name_offset: group.name_offset,
            attempts: Attempts::NONE,
            due: UnixMillis(0),
        })
        .collect();
    let next_offset = |offset: u32| Some(offset + 1 + u32::from(*meta.get(offset as usize)?));
    let left = match fold.left(head.id, &whole, &next_offset) {
        Left::All => whole,
        Left::Some(left) => left,
    };
    let domain_of = |waiting: &Waiting| {
        let at = groups.partition_point(|group| group.first <= waiting.span.first);
        groups[at.saturating_sub(1)].domain.to_owned()
    };
    left.into_iter().map(|waiting| (domain_of(&waiting), waiting)).collect()
}
