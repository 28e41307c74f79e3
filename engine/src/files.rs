//! The queue as its files have it, read by the command line, from a daemon that runs or from none.
//!
//! Changes nothing. A daemon that runs meanwhile may end messages, empty segments and remove files; what is read is
//! bound to its place by checksums and generations, so the worst is that something is not there any more.
//! Bound: the journals' marks, the index of one segment, one id per record that was copied forward.

use crate::recovery::{
    self, Journals, RecoverError, RingFile, io_error, numbered, partition_folder, visit_left,
};
use message::MessageId;
use queue::journal::{Fold, Waiting};
use queue::log::record::{Head, Location};
use queue::log::{Depth, Groups, Life, Scan, ScanError, read_life, scan_segment};
use queue::source::Source;
use ring::{Access, File, Ring, Uring};
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

/// A record, as it is found.
pub(crate) struct Entry<'a> {
    pub(crate) head: &'a Head,
    /// The segment that holds it.
    pub(crate) path: &'a Path,
    /// What is owed, with its domain. Empty if the journals were not asked.
    pub(crate) left: Vec<(String, Waiting)>,
    meta: Option<&'a [u8]>,
    source: &'a mut dyn Source,
}

impl<'a> Entry<'a> {
    /// The whole envelope. `None` if it is not whole.
    pub(crate) fn meta(&mut self) -> Option<Cow<'a, [u8]>> {
        match self.meta {
            Some(meta) => Some(Cow::Borrowed(meta)),
            None => recovery::read_meta(self.source, self.head).ok().map(Cow::Owned),
        }
    }
}

/// What a reader must be able to say of files.
pub(crate) trait ReadFailure: From<RecoverError> + From<io::Error> + From<ring::StartError> {}

impl<E: From<RecoverError> + From<io::Error> + From<ring::StartError>> ReadFailure for E {}

/// What is done with each record. An error ends the reading.
pub(crate) type Visitor<'a, E> = &'a mut dyn FnMut(Entry<'_>) -> Result<(), E>;

/// Something in the queue that is not as it was written.
#[derive(Debug)]
pub(crate) struct Damage {
    pub(crate) path: PathBuf,
    pub(crate) offset: u64,
    /// 0 if it is not known where it ends.
    pub(crate) len: u64,
    pub(crate) what: String,
}

/// How much was read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extent {
    pub(crate) files: u64,
    pub(crate) octets: u64,
    pub(crate) records: u64,
}

/// See the module.
pub(crate) struct QueueFiles {
    ring: Uring,
    queue: PathBuf,
    pub(crate) damages: Vec<Damage>,
    pub(crate) extent: Extent,
}

struct Segment {
    path: PathBuf,
    file: File,
    len: u64,
    life: Life,
}

/// How the segments are read.
#[derive(Clone, Copy)]
struct Reading<'a> {
    depth: Depth,
    /// `None`: all records are shown.
    fold: Option<&'a Fold>,
    copies: &'a HashMap<MessageId, Location>,
    partition: u8,
    /// A later segment has a record.
    has_successor: bool,
}

impl QueueFiles {
    pub(crate) fn open<E: ReadFailure>(queue: &Path) -> Result<QueueFiles, E> {
        let ring = crate::daemon::small_ring()?;
        let (damages, extent) = (Vec::new(), Extent::default());
        Ok(QueueFiles { ring, queue: queue.to_owned(), damages, extent })
    }

    /// What the journals of all partitions say now.
    pub(crate) fn journals<E: ReadFailure>(&mut self) -> Result<Journals, E> {
        let journals = recovery::read_journals(&mut self.ring, &self.queue)?;
        self.extent.files += journals.old.len() as u64;
        Ok(journals)
    }

    /// Shows records to `visitor`: by partition, in the order of their segments. With [`Depth::Contents`] every byte is
    /// checked; what is not whole is in `damages` afterwards.
    pub(crate) fn visit<E: ReadFailure>(
        &mut self,
        depth: Depth,
        journals: Option<&Journals>,
        visitor: Visitor<'_, E>,
    ) -> Result<(), E> {
        for partition in self.partitions()? {
            let mut segments = self.segments(&partition_folder(&self.queue, partition))?;
            segments.sort_by_key(|segment| segment.life.generation);
            let copies = self.copies_in(&segments);
            let last = segments.last().map_or(0, |segment| segment.life.generation);
            for segment in &segments {
                let has_successor = segment.life.generation < last;
                let fold = journals.map(|journals| &journals.fold);
                let reading = Reading { depth, fold, copies: &copies, partition, has_successor };
                self.visit_segment(segment, reading, visitor)?;
            }
            segments.iter().for_each(|segment| self.ring.close_file(segment.file));
        }
        Ok(())
    }

    /// Every record that was copied forward: where its latest copy lies.
    pub(crate) fn copies<E: ReadFailure>(&mut self) -> Result<HashMap<MessageId, (PathBuf, Location)>, E> {
        let mut copies = HashMap::new();
        for partition in self.partitions()? {
            let mut segments = self.segments(&partition_folder(&self.queue, partition))?;
            segments.sort_by_key(|segment| segment.life.generation);
            for segment in &segments {
                for (id, location) in self.copies_in(std::slice::from_ref(segment)) {
                    copies.insert(id, (segment.path.clone(), location));
                }
            }
            segments.iter().for_each(|segment| self.ring.close_file(segment.file));
        }
        Ok(copies)
    }

    /// Each segment file with its partition and generation.
    pub(crate) fn lives<E: ReadFailure>(&mut self) -> Result<Vec<(u8, u32, PathBuf)>, E> {
        let mut lives = Vec::new();
        for partition in self.partitions()? {
            for segment in self.segments(&partition_folder(&self.queue, partition))? {
                self.ring.close_file(segment.file);
                lives.push((partition, segment.life.generation, segment.path));
            }
        }
        Ok(lives)
    }

    fn partitions(&mut self) -> Result<Vec<u8>, RecoverError> {
        let names = self.ring.list(&self.queue).map_err(io_error(&self.queue))?;
        Ok(names.iter().filter_map(|name| name.strip_prefix("core-")?.parse().ok()).collect())
    }

    fn segments(&mut self, folder: &Path) -> Result<Vec<Segment>, RecoverError> {
        let mut segments = Vec::new();
        for name in self.ring.list(folder).map_err(io_error(folder))? {
            if numbered(&name, "data-").is_none() {
                continue;
            }
            let path = folder.join(&name);
            let file = match self.ring.open_now(&path, Access::Read) {
                Ok(file) => file,
                // The daemon just removed it: nothing in it is owed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(io_error(&path)(error)),
            };
            let len = self.ring.file_len(file).map_err(io_error(&path))?;
            let ring = RefCell::new(&mut self.ring);
            match read_life(&mut RingFile { ring: &ring, file }, len) {
                Ok(life) => segments.push(Segment { path, file, len, life }),
                Err(source @ ScanError::TooNew) => return Err(RecoverError::Segment { path, source }),
                Err(ScanError::Read(error)) => {
                    let what = format!("cannot be read: {}", error.source);
                    self.damages.push(Damage { path, offset: error.offset, len: 0, what });
                }
            }
        }
        Ok(segments)
    }

    /// Records that were copied forward, with the place of the latest copy; segments in their order.
    fn copies_in(&mut self, segments: &[Segment]) -> HashMap<MessageId, Location> {
        let mut copies = HashMap::new();
        for segment in segments {
            let ring = RefCell::new(&mut self.ring);
            let mut on_message = |head: &Head, _: Groups<'_>| {
                if head.id.generation() != head.bound.location.generation {
                    copies.insert(head.id, head.bound.location);
                }
            };
            let mut source = RingFile { ring: &ring, file: segment.file };
            // What cannot be read is said when the records are shown.
            let life = (&segment.life, segment.len);
            let _ = scan_segment(&mut source, life, Depth::Index, false, &mut on_message);
        }
        copies
    }

    fn visit_segment<E: ReadFailure>(
        &mut self,
        segment: &Segment,
        reading: Reading<'_>,
        visitor: Visitor<'_, E>,
    ) -> Result<(), E> {
        let (mut outcome, mut records, mut is_live) = (Ok(()), 0, false);
        let may_owe =
            reading.fold.is_none_or(|fold| fold.may_owe(reading.partition, segment.life.generation));
        let ring = RefCell::new(&mut self.ring);
        let file = || RingFile { ring: &ring, file: segment.file };
        let (mut source, mut names) = (file(), file());
        let mut on_message = |head: &Head, groups: Groups<'_>| {
            records += 1;
            let is_copied = reading.copies.get(&head.id).is_some_and(|latest| *latest != head.bound.location);
            if outcome.is_err() || is_copied {
                return;
            }
            let mut left = Vec::new();
            if let Some(fold) = reading.fold {
                // What cannot be read of it is among the damages, or is found when its record is looked at.
                let _ = visit_left((head, groups), fold, &mut names, &mut |domain, waiting| {
                    left.push((domain.to_owned(), *waiting));
                });
            }
            if reading.fold.is_none() || !left.is_empty() {
                is_live = true;
                let (path, meta) = (segment.path.as_path(), groups.meta());
                outcome = visitor(Entry { head, path, left, meta, source: &mut names });
            }
        };
        let (life, has_successor) = ((&segment.life, segment.len), reading.has_successor && may_owe);
        let scan = scan_segment(&mut source, life, reading.depth, has_successor, &mut on_message);
        self.extent.files += 1;
        self.extent.octets += segment.len;
        self.extent.records += records;
        // What has ended may rot: its file is a spare.
        if is_live || may_owe {
            self.note_damage(segment, is_live, scan);
        }
        outcome
    }

    fn note_damage(&mut self, segment: &Segment, is_live: bool, scan: Result<Scan, ScanError>) {
        let path = segment.path.clone();
        if is_live && scan.as_ref().is_ok_and(|scan| scan.lacks_index) {
            let what = "the index at the end cannot be read; the records were read instead".to_owned();
            self.damages.push(Damage { path: path.clone(), offset: segment.len, len: 0, what });
        }
        match scan {
            Ok(scan) => self.damages.extend(scan.damaged.into_iter().map(|damage| Damage {
                path: path.clone(),
                offset: damage.start,
                len: damage.end - damage.start,
                what: what_stands_at(damage.start).to_owned(),
            })),
            Err(error) => self.damages.push(Damage { path, offset: 0, len: 0, what: error.to_string() }),
        }
    }
}

fn what_stands_at(offset: u64) -> &'static str {
    if offset == 0 {
        "the first block does not match its checksum; what follows told what it said"
    } else {
        "a record does not match its checksum"
    }
}
