//! All reading of the queue's files for an operator: whole records, what is owed of them, one message by its id.
//!
//! Reads beside a daemon that writes: what was ended or overwritten meanwhile is not found, and that is an answer.
//! Every part is checked against its CRC. Bound: one record's meta part at a time, one content for `cat`.

use super::QueueError;
use super::filter::{Filter, HEADER_MAX};
use crate::recovery::{self, Journals, RecoverError, SegmentFile, what_is_left};
use crate::steer::order::{CHOSEN_MAX, Chosen};
use message::MessageId;
use queue::journal::Waiting;
use queue::log::record::{HEAD_LEN, Head, Meta, checksum};
use queue::log::scan_segment;
use queue::log::writer::{BLOCK_LEN, SegmentHead, decode_segment_head};
use ring::{Access, Ring as _, Uring};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// A record as it stands in its segment.
pub(super) struct Record<'a> {
    pub(super) head: Head,
    pub(super) meta: &'a [u8],
    path: &'a Path,
}

impl Record<'_> {
    /// The recipients that the filter chooses, whether they are still owed or not.
    pub(super) fn choose(&self, filter: &Filter, on_chosen: &mut dyn FnMut(Chosen)) {
        let Some(meta) = Meta::parse(self.meta, self.head.verp) else { return };
        filter.choose(&self.head, &meta, self.meta, &mut || self.header(), on_chosen);
    }

    /// The beginning of the content, where the header is. Empty if it is gone by now.
    pub(super) fn header(&self) -> Vec<u8> {
        let len = (self.head.content_len as usize).min(HEADER_MAX);
        read_at(self.path, self.head.content_offset(), len).unwrap_or_default()
    }
}

/// A message's head and envelope, found by its id.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) head: Head,
    pub(super) meta: Vec<u8>,
    path: PathBuf,
}

impl Found {
    pub(super) fn record(&self) -> Record<'_> {
        Record { head: self.head, meta: &self.meta, path: &self.path }
    }

    /// The whole content; `None` if it is damaged, or overwritten by now.
    pub(super) fn content(&self) -> io::Result<Option<Vec<u8>>> {
        let len = self.head.content_len as usize;
        let content = read_at(&self.path, self.head.content_offset(), len)?;
        Ok(Some(content).filter(|content| content.len() == len && checksum(content) == self.head.content_crc))
    }
}

/// The files of one queue.
pub(super) struct Files {
    ring: Uring,
    queue: PathBuf,
    /// Where each partition's generations lie.
    segments: BTreeMap<(u8, u32), PathBuf>,
}

pub(super) type OnChunk<'a> = &'a mut dyn FnMut(Option<&[Chosen]>) -> Result<(), QueueError>;
type OnRecord<'a> = &'a mut dyn FnMut(&Record<'_>) -> Result<(), QueueError>;
/// Ranges of a message that are owed, each with its domain.
pub(super) type Left = Vec<(String, Waiting)>;

type OnOwed<'a> = &'a mut dyn FnMut(&Record<'_>, Left) -> Result<(), QueueError>;

impl Files {
    pub(super) fn open(queue: &Path) -> Result<Files, QueueError> {
        let ring = crate::supervise::small_ring()?;
        Ok(Files { ring, queue: queue.to_owned(), segments: BTreeMap::new() })
    }

    /// Every whole record, those of ended messages too.
    pub(super) fn each_record(&mut self, on_record: OnRecord<'_>) -> Result<(), QueueError> {
        for path in self.segment_paths()? {
            self.each_in_segment(&path, on_record)?;
        }
        Ok(())
    }

    /// Every message that is owed to somebody, and which ranges of it are, as the journals have it.
    pub(super) fn each_owed(&mut self, on_owed: OnOwed<'_>) -> Result<(), QueueError> {
        let journals: Journals = recovery::read_journals(&mut self.ring, &self.queue)?;
        self.each_record(&mut |record| {
            let left = what_is_left(&record.head, record.meta, &journals.fold);
            if left.is_empty() { Ok(()) } else { on_owed(record, left) }
        })
    }

    /// One message and what is owed of it, as the journals have it.
    pub(super) fn owed_of(&mut self, id: MessageId) -> Result<Option<(Found, Left)>, QueueError> {
        let journals: Journals = recovery::read_journals(&mut self.ring, &self.queue)?;
        let Some(found) = self.find(id)? else { return Ok(None) };
        let left = what_is_left(&found.head, &found.meta, &journals.fold);
        Ok(Some((found, left)).filter(|(_, left)| !left.is_empty()))
    }

    /// Spans of recipients that the filter chooses, in chunks that one order can name. `None`: all.
    pub(super) fn each_chunk(queue: &Path, filter: &Filter, on_chunk: OnChunk<'_>) -> Result<(), QueueError> {
        if !filter.needs_disk() {
            if filter.ids.is_empty() {
                return on_chunk(None);
            }
            let all: Vec<Chosen> = filter.ids.iter().copied().map(Chosen::message).collect();
            return all.chunks(CHOSEN_MAX).try_for_each(|chunk| on_chunk(Some(chunk)));
        }
        let mut files = Files::open(queue)?;
        let mut chosen = Vec::new();
        let mut on_record = |record: &Record<'_>| {
            record.choose(filter, &mut |span| chosen.push(span));
            // A message's spans go into one order as far as they can: counts of messages are right then.
            if chosen.len() >= CHOSEN_MAX / 2 {
                chosen.chunks(CHOSEN_MAX).try_for_each(|chunk| on_chunk(Some(chunk)))?;
                chosen.clear();
            }
            Ok(())
        };
        if filter.ids.is_empty() {
            files.each_record(&mut on_record)?;
        } else {
            for id in &filter.ids {
                if let Some(found) = files.find(*id)? {
                    on_record(&found.record())?;
                }
            }
        }
        chosen.chunks(CHOSEN_MAX).try_for_each(|chunk| on_chunk(Some(chunk)))
    }

    fn segment_paths(&mut self) -> Result<Vec<PathBuf>, QueueError> {
        let mut paths = Vec::new();
        for folder in self.ring.list(&self.queue)?.iter().filter(|name| name.starts_with("core-")) {
            let folder = self.queue.join(folder);
            let names = self.ring.list(&folder)?;
            let data = names.iter().filter(|name| recovery::numbered(name, "data-").is_some());
            paths.extend(data.map(|name| folder.join(name)));
        }
        Ok(paths)
    }

    fn each_in_segment(&mut self, path: &Path, on_record: OnRecord<'_>) -> Result<(), QueueError> {
        let file = match self.ring.open_now(path, Access::Read) {
            Ok(file) => file,
            // The daemon just removed it: nothing in it is owed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(recovery::io_error(path)(error).into()),
        };
        let mut outcome = Ok(());
        let mut on_message = |head: Head, meta: &[u8]| {
            if outcome.is_ok() {
                outcome = on_record(&Record { head, meta, path });
            }
        };
        scan_segment(&mut SegmentFile { ring: &mut self.ring, file }, &mut on_message)
            .map_err(|source| RecoverError::Segment { path: path.to_owned(), source })?;
        self.ring.close_file(file);
        outcome
    }

    /// The message's head and envelope. It may have ended: only journals and the daemon know.
    pub(super) fn find(&mut self, id: MessageId) -> Result<Option<Found>, QueueError> {
        let place = (id.partition(), id.generation());
        if let Some(found) = self.segments.get(&place).and_then(|path| found_at(path, id)) {
            return Ok(Some(found));
        }
        // Not seen yet, or the file has another life by now.
        for path in self.segment_paths()? {
            let Ok(block) = read_at(&path, 0, BLOCK_LEN) else { continue };
            if let SegmentHead::Written { generation, .. } = decode_segment_head(&block) {
                let folder = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
                let partition = folder.and_then(|name| name.strip_prefix("core-")?.parse().ok());
                self.segments.extend(partition.map(|partition| ((partition, generation), path)));
            }
        }
        Ok(self.segments.get(&place).and_then(|path| found_at(path, id)))
    }
}

fn found_at(path: &Path, id: MessageId) -> Option<Found> {
    let head = Head::decode(&read_at(path, id.place(), HEAD_LEN).ok()?).filter(|head| head.id == id)?;
    let meta = read_at(path, head.meta_offset(), head.meta_len as usize).ok()?;
    let is_whole = meta.len() == head.meta_len as usize && checksum(&meta) == head.meta_crc;
    is_whole.then(|| Found { head, meta, path: path.to_owned() })
}

/// Up to `len` bytes: fewer only at the file's end.
fn read_at(path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut bytes = vec![0; len];
    let mut have = 0;
    while have < len {
        match file.read_at(&mut bytes[have..], offset + have as u64)? {
            0 => break,
            got => have += got,
        }
    }
    bytes.truncate(have);
    Ok(bytes)
}
