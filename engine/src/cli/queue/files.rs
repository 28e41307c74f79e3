//! All reading of the queue's files for an operator: whole records, what is owed of them, one message by its id.
//!
//! Reads beside a daemon that writes: what was ended or overwritten meanwhile is not found, and that is an answer.
//! Every part is checked against its CRC. Bound: one record's meta part at a time, one content for `cat`.

use super::QueueError;
use super::filter::{Filter, HEADER_MAX};
use crate::campaigns::books::letter_path;
use crate::files::QueueFiles;
use crate::recovery::Journals;
use crate::steer::order::{CHOSEN_MAX, Chosen};
use message::MessageId;
use queue::journal::Waiting;
use queue::log::Depth;
use queue::log::record::{HEAD_LEN, Head, Location, Meta, checksum};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// A record as it stands in its segment.
pub(super) struct Record<'a> {
    pub(super) head: Head,
    pub(super) meta: &'a [u8],
    place: Place<'a>,
}

/// The segment that holds a record, and the queue.
#[derive(Clone, Copy)]
struct Place<'a> {
    path: &'a Path,
    queue: &'a Path,
}

impl Place<'_> {
    /// The first `len_max` octets of the content, or all there are. A campaign's message has none of its own: the letter
    /// stands with the campaign.
    fn content(self, head: &Head, len_max: usize) -> io::Result<Vec<u8>> {
        match head.class.campaign.filter(|_| head.content_len == 0) {
            Some(number) => read_at(&letter_path(self.queue, number), 0, len_max),
            None => read_at(self.path, head.content_offset(), len_max.min(head.content_len as usize)),
        }
    }
}

impl Record<'_> {
    /// The recipients that the filter chooses, whether they are still owed or not.
    pub(super) fn choose(&self, filter: &Filter, on_chosen: &mut dyn FnMut(Chosen)) {
        let Some(meta) = Meta::parse(self.meta, self.head.layout) else { return };
        filter.choose(&self.head, &meta, self.meta, &mut || self.header(), on_chosen);
    }

    /// The beginning of the content, where the header is. Empty if it is gone by now.
    pub(super) fn header(&self) -> Vec<u8> {
        self.place.content(&self.head, HEADER_MAX).unwrap_or_default()
    }
}

/// A message's head and envelope, found by its id.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) head: Head,
    pub(super) meta: Vec<u8>,
    path: PathBuf,
    queue: PathBuf,
}

impl Found {
    pub(super) fn record(&self) -> Record<'_> {
        Record { head: self.head, meta: &self.meta, place: self.place() }
    }

    fn place(&self) -> Place<'_> {
        Place { path: &self.path, queue: &self.queue }
    }

    /// The whole content, of a campaign's message as it is before it is filled in; `None` if it is damaged, or overwritten
    /// by now.
    pub(super) fn content(&self) -> io::Result<Option<Vec<u8>>> {
        let content = self.place().content(&self.head, usize::MAX)?;
        if self.head.content_len == 0 {
            return Ok(Some(content));
        }
        let is_whole =
            content.len() == self.head.content_len as usize && checksum(&content) == self.head.content_crc;
        Ok(Some(content).filter(|_| is_whole))
    }
}

/// The files of one queue.
pub(super) struct Files {
    files: QueueFiles,
    queue: PathBuf,
    /// Where each partition's generations lie.
    segments: BTreeMap<(u8, u32), PathBuf>,
    /// Where records lie that were copied forward; looked up when a message is not where it was first.
    copies: Option<HashMap<MessageId, (PathBuf, Location)>>,
}

pub(super) type OnChunk<'a> = &'a mut dyn FnMut(Option<&[Chosen]>) -> Result<(), QueueError>;
type OnRecord<'a> = &'a mut dyn FnMut(&Record<'_>) -> Result<(), QueueError>;
/// Ranges of a message that are owed, each with its domain.
pub(super) type Left = Vec<(String, Waiting)>;

type OnOwed<'a> = &'a mut dyn FnMut(&Record<'_>, Left) -> Result<(), QueueError>;

impl Files {
    pub(super) fn open(queue: &Path) -> Result<Files, QueueError> {
        let files = QueueFiles::open::<QueueError>(queue)?;
        Ok(Files { files, queue: queue.to_owned(), segments: BTreeMap::new(), copies: None })
    }

    /// Every record with a whole envelope, those of ended messages too.
    pub(super) fn each_record(&mut self, on_record: OnRecord<'_>) -> Result<(), QueueError> {
        self.each(None, &mut |record, _| on_record(record))
    }

    /// Every message that is owed to somebody, and which ranges of it are, as the journals have it.
    pub(super) fn each_owed(&mut self, on_owed: OnOwed<'_>) -> Result<(), QueueError> {
        let journals: Journals = self.files.journals::<QueueError>()?;
        self.each(Some(&journals), on_owed)
    }

    fn each(&mut self, journals: Option<&Journals>, on_owed: OnOwed<'_>) -> Result<(), QueueError> {
        self.files.visit(Depth::Index, journals, &mut |mut entry| {
            let Some(meta) = entry.meta() else { return Ok(()) };
            let place = Place { path: entry.path, queue: &self.queue };
            on_owed(&Record { head: *entry.head, meta: &meta, place }, entry.left)
        })
    }

    /// One message and what is owed of it, as the journals have it.
    pub(super) fn owed_of(&mut self, id: MessageId) -> Result<Option<(Found, Left)>, QueueError> {
        let mut found = None;
        self.each_owed(&mut |record, left| {
            if record.head.id == id {
                let Record { head, meta, place: Place { path, queue } } = *record;
                let (path, queue) = (path.to_owned(), queue.to_owned());
                found = Some((Found { head, meta: meta.to_owned(), path, queue }, left));
            }
            Ok(())
        })?;
        Ok(found)
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

    /// The message's head and envelope. It may have ended: only journals and the daemon know.
    pub(super) fn find(&mut self, id: MessageId) -> Result<Option<Found>, QueueError> {
        let place = (id.partition(), id.generation());
        if let Some(found) = self.segments.get(&place).and_then(|path| self.found_at(path, id.place(), id)) {
            return Ok(Some(found));
        }
        if let Some(found) = self.find_copy(id) {
            return Ok(Some(found));
        }
        // Not seen yet, or the file has another life by now.
        let lives = self.files.lives::<QueueError>()?;
        let by_life = |(partition, generation, path)| ((partition, generation), path);
        self.segments = lives.into_iter().map(by_life).collect();
        if let Some(found) = self.segments.get(&place).and_then(|path| self.found_at(path, id.place(), id)) {
            return Ok(Some(found));
        }
        if self.copies.is_none() {
            self.copies = Some(self.files.copies::<QueueError>()?);
        }
        Ok(self.find_copy(id))
    }

    fn find_copy(&self, id: MessageId) -> Option<Found> {
        let (path, location) = self.copies.as_ref()?.get(&id)?;
        self.found_at(path, location.offset(), id)
    }

    fn found_at(&self, path: &Path, offset: u64, id: MessageId) -> Option<Found> {
        let head = Head::decode(&read_at(path, offset, HEAD_LEN).ok()?).filter(|head| head.id == id)?;
        let meta = read_at(path, head.meta_offset(), head.meta_len as usize).ok()?;
        let is_whole = meta.len() == head.meta_len as usize && checksum(&meta) == head.meta_crc;
        is_whole.then(|| Found { head, meta, path: path.to_owned(), queue: self.queue.clone() })
    }
}

/// Up to `len` bytes: fewer only at the file's end.
fn read_at(path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let len = len.min(usize::try_from(file.metadata()?.len().saturating_sub(offset)).unwrap_or(len));
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
