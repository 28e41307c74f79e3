//! The queue as its files have it, read by the command line, from a daemon that runs or from none.
//!
//! Changes nothing. A daemon that runs meanwhile may end messages, empty segments and remove files; what is read is
//! bound to its place by checksums and generations, so the worst is that something is not there any more.
//! Bound: the journals' marks, the index of one segment, one id per record that was copied forward.

use crate::recovery::{
    self, Journals, RecoverError, RingFile, io_error, numbered, partition_folder, visit_left,
};
use message::MessageId;
use queue::journal::Waiting;
use queue::log::record::{Head, Location, Meta};
use queue::log::{Depth, Groups, Life, Scan, ScanError, read_life, scan_segment};
use queue::source::Source;
use ring::{Access, File, Ring, Uring};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

/// A message that is owed to somebody.
pub(crate) struct Entry<'a> {
    pub(crate) head: &'a Head,
    /// The segment that holds it.
    pub(crate) path: &'a Path,
    /// What is owed, with its domain.
    pub(crate) left: &'a [(String, Waiting)],
    source: &'a mut dyn Source,
}

impl Entry<'_> {
    /// The whole envelope. `None` if it is not whole.
    pub(crate) fn meta(&mut self) -> Option<Vec<u8>> {
        recovery::read_meta(self.source, self.head)
    }

    /// The reverse-path as it stands in the envelope. `None` if it cannot be read.
    pub(crate) fn reverse_path(&mut self) -> Option<String> {
        // Two octets of length, the longest path, two of VERP.
        let mut start = vec![0; 1024.min(self.head.meta_len as usize)];
        let got = self.source.read(self.head.meta_offset(), &mut start).ok()?;
        Some(Meta::parse(&start[..got], self.head.verp)?.reverse_path.to_owned())
    }

    /// Octets of the content, as they go out. `None` if they are not whole.
    pub(crate) fn content(&mut self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; self.head.content_len as usize];
        let at = self.head.content_offset();
        let mut have = 0;
        while have < bytes.len() {
            match self.source.read(at + have as u64, &mut bytes[have..]) {
                Ok(0) | Err(_) => return None,
                Ok(got) => have += got,
            }
        }
        (queue::log::record::checksum(&bytes) == self.head.content_crc).then_some(bytes)
    }
}

/// What is done with each message. An error ends the reading.
pub(crate) type Visitor<'a> = &'a mut dyn FnMut(Entry<'_>) -> io::Result<()>;

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
    journals: Journals,
    depth: Depth,
    pub(crate) damages: Vec<Damage>,
    pub(crate) extent: Extent,
}

struct Segment {
    path: PathBuf,
    file: File,
    len: u64,
    life: Life,
}

impl QueueFiles {
    /// Reads the journals. With [`Depth::Contents`] every record is checked when the messages are visited.
    pub(crate) fn open(queue: &Path, depth: Depth) -> anyhow::Result<QueueFiles> {
        let mut ring = crate::supervise::small_ring()?;
        let journals = recovery::read_journals(&mut ring, queue)?;
        let (damages, extent) =
            (Vec::new(), Extent { files: journals.old.len() as u64, ..Extent::default() });
        Ok(QueueFiles { ring, queue: queue.to_owned(), journals, depth, damages, extent })
    }

    pub(crate) fn journals(&self) -> &Journals {
        &self.journals
    }

    /// Shows every message that is owed to somebody to `visitor`: by partition, in the order of their segments.
    pub(crate) fn visit(&mut self, visitor: Visitor<'_>) -> anyhow::Result<()> {
        for partition in self.journals.partitions.clone() {
            let mut segments = self.segments(&partition_folder(&self.queue, partition))?;
            segments.sort_by_key(|segment| segment.life.generation);
            let copies = self.copies(&segments)?;
            let last = segments.last().map_or(0, |segment| segment.life.generation);
            for segment in &segments {
                let may_owe = self.journals.fold.may_owe(partition, segment.life.generation);
                let has_successor = segment.life.generation < last && may_owe;
                self.visit_segment(segment, has_successor, may_owe, &copies, visitor)?;
            }
            segments.iter().for_each(|segment| self.ring.close_file(segment.file));
        }
        Ok(())
    }

    fn segments(&mut self, folder: &Path) -> anyhow::Result<Vec<Segment>> {
        let mut segments = Vec::new();
        for name in self.ring.list(folder)? {
            if numbered(&name, "data-").is_none() {
                continue;
            }
            let path = folder.join(&name);
            let file = match self.ring.open_now(&path, Access::Read) {
                Ok(file) => file,
                // The daemon just removed it: nothing in it is owed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(io_error(&path)(error).into()),
            };
            let len = self.ring.file_len(file)?;
            let ring = RefCell::new(&mut self.ring);
            match read_life(&mut RingFile { ring: &ring, file }, len) {
                Ok(life) => segments.push(Segment { path, file, len, life }),
                Err(source @ ScanError::TooNew) => return Err(RecoverError::Segment { path, source }.into()),
                Err(ScanError::Read(error)) => {
                    let what = format!("cannot be read: {}", error.source);
                    self.damages.push(Damage { path, offset: error.offset, len: 0, what });
                }
            }
        }
        Ok(segments)
    }

    /// Records that were copied forward, with the place of the latest copy.
    fn copies(&mut self, segments: &[Segment]) -> anyhow::Result<HashMap<MessageId, Location>> {
        let mut copies = HashMap::new();
        for segment in segments {
            let ring = RefCell::new(&mut self.ring);
            let mut on_message = |head: &Head, _: Groups<'_>| {
                if head.id.generation() != head.bound.location.generation {
                    copies.insert(head.id, head.bound.location);
                }
            };
            let mut source = RingFile { ring: &ring, file: segment.file };
            let _ =
                scan_segment(&mut source, (&segment.life, segment.len), Depth::Index, false, &mut on_message);
        }
        Ok(copies)
    }

    fn visit_segment(
        &mut self,
        segment: &Segment,
        has_successor: bool,
        may_owe: bool,
        copies: &HashMap<MessageId, Location>,
        visitor: Visitor<'_>,
    ) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        let (mut records, mut is_live, fold) = (0, false, &self.journals.fold);
        let ring = RefCell::new(&mut self.ring);
        let (mut source, mut names) =
            (RingFile { ring: &ring, file: segment.file }, RingFile { ring: &ring, file: segment.file });
        let mut on_message = |head: &Head, groups: Groups<'_>| {
            records += 1;
            let is_copied = copies.get(&head.id).is_some_and(|latest| *latest != head.bound.location);
            if outcome.is_err() || is_copied {
                return;
            }
            let mut left = Vec::new();
            visit_left((head, groups), fold, &mut names, &mut |domain, waiting| {
                left.push((domain.to_owned(), *waiting));
            });
            if !left.is_empty() {
                is_live = true;
                outcome = visitor(Entry { head, path: &segment.path, left: &left, source: &mut names });
            }
        };
        let scan = scan_segment(
            &mut source,
            (&segment.life, segment.len),
            self.depth,
            has_successor,
            &mut on_message,
        );
        self.extent.files += 1;
        self.extent.octets += if self.depth == Depth::Contents { segment.len } else { 0 };
        self.extent.records += records;
        // What has ended may rot: its file is a spare.
        if is_live || may_owe {
            self.note_damage(segment, is_live, scan);
        }
        Ok(outcome?)
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
