//! What was noted with each key: read from the logs, which stay for it, and from what was kept of older ones.
//!
//! A note counts while the set says of its key what the note's record says, kind and time: a key that was taken out and
//! put in again has another time. When more than half of what the files hold counts no longer, those that do are written
//! into one file, `notes-NNNNNNNN`, which stands for the logs up to that number. Bound: a window of one file.

use super::frames::{Found, Framer, Frames, Record, sealed_count};
use super::log::{self, HEAD_LEN, numbered};
use super::merge::{logs_up_to, names};
use super::reader::Shared;
use super::{Key, KeySetError, Reader, Value, io_error, sync_folder};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Records that may count no longer before it is worth while.
const DEAD_MAX: u64 = 100_000;

/// Octets of frames that are written at a time.
const PIECE_LEN: usize = 1 << 20;

/// A key that is there, with its note.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Note<'a> {
    pub key: Key,
    pub value: Value,
    pub note: &'a [u8],
}

/// See the module. What comes into the set later is not in it.
#[derive(Debug)]
pub struct Notes {
    files: Vec<(PathBuf, File, u64)>,
    reader: Reader,
}

impl Notes {
    pub(super) fn open(shared: &Arc<Shared>) -> Result<Notes, KeySetError> {
        // None of them goes meanwhile.
        let _files = shared.files.lock();
        let reader = Reader::new(shared);
        if !shared.folder.is_dir() {
            return Ok(Notes { files: Vec::new(), reader });
        }
        let paths = paths_up_to(&shared.folder, u32::MAX)?;
        let files = paths.into_iter().map(open).collect::<Result<_, _>>()?;
        Ok(Notes { files, reader })
    }

    /// Octets of the files that are read.
    pub fn octets(&self) -> u64 {
        self.files.iter().map(|(_, _, len)| len).sum()
    }

    /// Shows each to `visit`, with the octets read so far. Says how many places could not be read.
    pub fn each<E: From<KeySetError>>(
        mut self,
        mut visit: impl FnMut(&Note<'_>, u64) -> Result<(), E>,
    ) -> Result<u64, E> {
        let (mut damaged, mut octets) = (0, 0);
        for (place, (path, file, len)) in self.files.iter().enumerate() {
            self.reader.refresh();
            let is_last_file = place + 1 == self.files.len();
            let mut frames = Frames::new(file, HEAD_LEN, *len);
            while let Some(found) = frames.next().map_err(io_error(path))? {
                let records = match found {
                    Found::Frame { records, .. } => records,
                    // It is being written to.
                    Found::Nothing { is_last: true, .. } if is_last_file => break,
                    Found::Nothing { .. } => {
                        damaged += 1;
                        continue;
                    }
                };
                for record in records.iter().filter(|record| is_live(&self.reader, record)) {
                    let Record { key, value, note } = *record;
                    visit(&Note { key, value, note }, octets)?;
                }
            }
            octets += len;
        }
        Ok(damaged)
    }
}

/// Where it cannot be told it is.
fn is_live(reader: &Reader, record: &Record<'_>) -> bool {
    let is_noted = record.value.is_there() && !record.note.is_empty();
    is_noted && reader.get(record.key).map_or(true, |value| value == Some(record.value))
}

fn open(path: PathBuf) -> Result<(PathBuf, File, u64), KeySetError> {
    let file = File::open(&path).map_err(io_error(&path))?;
    let len = file.metadata().map_err(io_error(&path))?.len();
    Ok((path, file, len))
}

/// The files that hold the notes of logs up to `last`, in their order.
fn paths_up_to(folder: &Path, last: u32) -> Result<Vec<PathBuf>, KeySetError> {
    let names = names(folder)?;
    let newest = names.iter().filter_map(|name| numbered(name, "notes-")).max();
    let logs = logs_up_to(&names, last).into_iter().filter(|number| Some(*number) > newest);
    let kept = newest.map(notes_name).into_iter();
    Ok(kept.chain(logs.map(log::name_of)).map(|name| folder.join(name)).collect())
}

fn notes_name(number: u32) -> String {
    format!("notes-{number:08}")
}

/// Logs up to `last` are in a sorted file, and nobody wants their notes.
pub(super) fn remove(shared: &Shared, last: u32) -> Result<(), KeySetError> {
    let _files = shared.files.lock();
    let folder = &shared.folder;
    let names = names(folder)?;
    let notes = names.iter().filter(|name| numbered(name, "notes-").is_some()).cloned();
    for name in logs_up_to(&names, last).into_iter().map(log::name_of).chain(notes) {
        let path = folder.join(name);
        std::fs::remove_file(&path).map_err(io_error(&path))?;
    }
    Ok(())
}

/// Writes what counts of the logs up to `last` into one file, if much does not.
pub(super) fn compact_if_due(shared: &Arc<Shared>, owner: u64, last: u32) -> Result<(), KeySetError> {
    let folder = &shared.folder;
    let files: Vec<_> = paths_up_to(folder, last)?.into_iter().map(open).collect::<Result<_, _>>()?;
    let mut records = 0;
    for (path, file, len) in &files {
        records += count(file, *len).map_err(io_error(path))?;
    }
    if records <= 2 * shared.len.load(Ordering::Relaxed) + DEAD_MAX {
        return Ok(());
    }
    let path = folder.join(notes_name(last));
    let half = path.with_extension("new");
    write(Notes { files, reader: Reader::new(shared) }, shared, &half, owner)?;
    std::fs::rename(&half, &path).map_err(io_error(&path))?;
    sync_folder(&path)?;
    remove_older(shared, last)
}

fn write(notes: Notes, shared: &Shared, half: &Path, owner: u64) -> Result<(), KeySetError> {
    let wrap = io_error(half);
    let created = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(half);
    let mut out = BufWriter::new(created.map_err(&wrap)?);
    out.write_all(&log::head(owner)).map_err(&wrap)?;
    let mut framer = Framer::default();
    notes.each(|note, _| {
        let Note { key, value, note } = *note;
        framer.push(&Record { key, value, note });
        if shared.is_closing.load(Ordering::Relaxed) {
            return Err(wrap(io::ErrorKind::Interrupted.into()));
        }
        if framer.len() < PIECE_LEN {
            return Ok(());
        }
        out.write_all(&framer.take().0).map_err(&wrap)
    })?;
    out.write_all(&framer.take().0).map_err(&wrap)?;
    framer.seal();
    out.write_all(&framer.take().0).map_err(&wrap)?;
    let file = out.into_inner().map_err(|error| wrap(error.into_error()))?;
    file.sync_all().map_err(&wrap)
}

/// What `notes-LAST` stands for.
fn remove_older(shared: &Shared, last: u32) -> Result<(), KeySetError> {
    let _files = shared.files.lock();
    let folder = &shared.folder;
    let names = names(folder)?;
    let notes = names.iter().filter_map(|name| numbered(name, "notes-")).filter(|number| *number < last);
    let logs = logs_up_to(&names, last).into_iter().map(log::name_of);
    for name in logs.chain(notes.map(notes_name)) {
        let path = folder.join(name);
        std::fs::remove_file(&path).map_err(io_error(&path))?;
    }
    Ok(())
}

/// Records of a file, additions and removals.
fn count(file: &File, len: u64) -> io::Result<u64> {
    if let Some(count) = sealed_count(file, len)? {
        return Ok(count.into());
    }
    let (mut frames, mut count) = (Frames::new(file, HEAD_LEN, len), 0);
    while let Some(found) = frames.next()? {
        if let Found::Frame { records, .. } = found {
            count += records.len() as u64;
        }
    }
    Ok(count)
}
