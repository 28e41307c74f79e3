//! Frames: how changes stand in a log, each with its checksum; and reading them back from a file that may be torn or damaged.
//!
//! What does not read as a frame is skipped up to the next one that does. Whether that was torn by a crash or damaged
//! later is the caller's to say: only behind the last sync can a crash tear. Trusts no octet of the file. Bound: one window of
//! [`WINDOW_LEN`] in memory.

use super::{Key, Value};
use queue::log::record::checksum;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Begins each frame.
const MAGIC: [u8; 4] = *b"RPKF";

/// Octets before a frame's records: magic, checksum, length of the records, how many records stand before them.
pub(super) const FRAME_HEAD: usize = 16;

/// Octets of a frame's records.
pub(super) const BODY_MAX: usize = 1 << 20;

/// Octets of a record without its note.
const RECORD_HEAD: usize = 23;

/// Octets of a note.
pub(super) const NOTE_MAX: usize = 4096;

const WINDOW_LEN: usize = 2 * (FRAME_HEAD + BODY_MAX);

/// One change of one key; `value.kind` 0 took it out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Record<'a> {
    pub(super) key: Key,
    pub(super) value: Value,
    pub(super) note: &'a [u8],
}

/// Puts records into frames.
#[derive(Debug, Default)]
pub(super) struct Framer {
    bytes: Vec<u8>,
    /// Where the frame under way begins.
    start: Option<usize>,
    /// Records before it, and in it.
    before: u32,
    count: u32,
}

impl Framer {
    /// `before`: records that the file has already.
    pub(super) fn new(before: u32) -> Framer {
        Framer { before, ..Framer::default() }
    }

    /// A note past its bound is left out.
    pub(super) fn push(&mut self, record: &Record<'_>) {
        let note = if record.note.len() <= NOTE_MAX { record.note } else { &[] };
        let is_full = self
            .start
            .is_some_and(|start| self.bytes.len() - start + RECORD_HEAD + note.len() > FRAME_HEAD + BODY_MAX);
        if is_full {
            self.seal();
        }
        self.start.get_or_insert_with(|| {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(&[0; FRAME_HEAD]);
            start
        });
        self.bytes.push(record.value.kind);
        self.bytes.extend_from_slice(&record.value.at_secs.to_le_bytes());
        self.bytes.extend_from_slice(&record.key.to_bytes());
        let note_len = u16::try_from(note.len()).expect("NOTE_MAX is below");
        self.bytes.extend_from_slice(&note_len.to_le_bytes());
        self.bytes.extend_from_slice(note);
        self.count += 1;
    }

    /// Ends the frame under way. A frame without records only says how many there are before it.
    pub(super) fn seal(&mut self) {
        let start = self.start.take().unwrap_or_else(|| {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(&[0; FRAME_HEAD]);
            start
        });
        let len = u32::try_from(self.bytes.len() - start - FRAME_HEAD).expect("BODY_MAX is below");
        let head = &mut self.bytes[start..start + FRAME_HEAD];
        head[..4].copy_from_slice(&MAGIC);
        head[8..12].copy_from_slice(&len.to_le_bytes());
        head[12..16].copy_from_slice(&self.before.to_le_bytes());
        let sum = checksum(&self.bytes[start + 8..]);
        self.bytes[start + 4..start + 8].copy_from_slice(&sum.to_le_bytes());
        self.before += std::mem::take(&mut self.count);
    }

    /// The frames so far, and how many records the file has with them.
    pub(super) fn take(&mut self) -> (Vec<u8>, u32) {
        if self.start.is_some() {
            self.seal();
        }
        (std::mem::take(&mut self.bytes), self.before)
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// What stands at a place of a file.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Found<'a> {
    /// `next`: records of the file up to its end.
    Frame { records: Vec<Record<'a>>, next: u32 },
    /// No frame until the next one, or until the end of the file.
    Nothing { start: u64, end: u64, is_last: bool },
}

/// Reads a file's frames in their order.
#[derive(Debug)]
pub(super) struct Frames<'f> {
    file: &'f File,
    at: u64,
    len: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<'f> Frames<'f> {
    /// From `at` to `len`.
    pub(super) fn new(file: &'f File, at: u64, len: u64) -> Frames<'f> {
        Frames { file, at, len, window: Vec::new(), window_at: 0 }
    }

    /// Where the next frame would begin.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    pub(super) fn next(&mut self) -> io::Result<Option<Found<'_>>> {
        if self.at >= self.len {
            return Ok(None);
        }
        let start = self.at;
        if let Some(len) = self.frame_len(start)? {
            self.at += len as u64;
            let from = self.place(start);
            return Ok(parse(&self.window[from..from + len]));
        }
        let mut end = start + 1;
        while end < self.len && self.frame_len(end)?.is_none() {
            end = self.next_magic(end + 1)?;
        }
        self.at = end.min(self.len);
        Ok(Some(Found::Nothing { start, end: self.at, is_last: self.at == self.len }))
    }

    /// Octets of the frame at `at`, all of it in the window, if there is one.
    fn frame_len(&mut self, at: u64) -> io::Result<Option<usize>> {
        let head = self.fill(at, FRAME_HEAD)?;
        let Some(len) = head.and_then(body_len) else { return Ok(None) };
        let Some(frame) = self.fill(at, FRAME_HEAD + len)? else { return Ok(None) };
        Ok(parse(frame).map(|_| FRAME_HEAD + len))
    }

    /// The first place from `at` on where a frame might begin; the end if there is none.
    fn next_magic(&mut self, mut at: u64) -> io::Result<u64> {
        while at + FRAME_HEAD as u64 <= self.len {
            let left = usize::try_from(self.len - at).unwrap_or(usize::MAX).min(WINDOW_LEN / 2);
            let Some(bytes) = self.fill(at, left)? else { break };
            match bytes.windows(MAGIC.len()).position(|four| four == MAGIC) {
                Some(place) => return Ok(at + place as u64),
                None => at += (left - MAGIC.len() + 1) as u64,
            }
        }
        Ok(self.len)
    }

    fn place(&self, at: u64) -> usize {
        usize::try_from(at - self.window_at).unwrap_or_default()
    }

    /// Those octets of the file. `None`: it ends before.
    fn fill(&mut self, at: u64, len: usize) -> io::Result<Option<&[u8]>> {
        if at + len as u64 > self.len {
            return Ok(None);
        }
        let has = at >= self.window_at && at + len as u64 <= self.window_at + self.window.len() as u64;
        if !has {
            let room = usize::try_from(self.len - at).unwrap_or(usize::MAX).min(WINDOW_LEN);
            self.window.resize(room, 0);
            self.window_at = at;
            if let Err(error) = self.file.read_exact_at(&mut self.window, at) {
                self.window.clear();
                return Err(error);
            }
        }
        let from = self.place(at);
        Ok(Some(&self.window[from..from + len]))
    }
}

/// The length of the records, if this is a frame's head.
fn body_len(head: &[u8]) -> Option<usize> {
    let len = u32::from_le_bytes(head.get(8..12)?.try_into().ok()?) as usize;
    (head.starts_with(&MAGIC) && len <= BODY_MAX).then_some(len)
}

/// A whole frame, if it is as it was written.
fn parse(frame: &[u8]) -> Option<Found<'_>> {
    let sum = u32::from_le_bytes(frame.get(4..8)?.try_into().ok()?);
    if checksum(frame.get(8..)?) != sum {
        return None;
    }
    let before = u32::from_le_bytes(frame.get(12..16)?.try_into().ok()?);
    let mut rest = frame.get(FRAME_HEAD..)?;
    let mut records = Vec::new();
    while !rest.is_empty() {
        let (head, tail) = rest.split_at_checked(RECORD_HEAD)?;
        let note_len = usize::from(u16::from_le_bytes(head[21..].try_into().ok()?));
        let (note, tail) = tail.split_at_checked(note_len)?;
        let value = Value { kind: head[0], at_secs: u32::from_le_bytes(head[1..5].try_into().ok()?) };
        records.push(Record { key: Key::from_bytes(head[5..21].try_into().ok()?), value, note });
        rest = tail;
    }
    let next = before.checked_add(u32::try_from(records.len()).ok()?)?;
    Some(Found::Frame { records, next })
}

/// How many records a sealed file has, from its last frame.
pub(super) fn sealed_count(file: &File, len: u64) -> io::Result<Option<u32>> {
    let Some(at) = len.checked_sub(FRAME_HEAD as u64) else { return Ok(None) };
    let mut head = [0; FRAME_HEAD];
    file.read_exact_at(&mut head, at)?;
    Ok(match parse(&head).filter(|_| body_len(&head) == Some(0)) {
        Some(Found::Frame { next, .. }) => Some(next),
        _ => None,
    })
}

/// For the fuzzer: any octets as a file of frames.
pub fn fuzz_keyset_frames(bytes: &[u8]) {
    let Ok(file) = tempfile::tempfile() else { return };
    if io::Write::write_all(&mut &file, bytes).is_err() {
        return;
    }
    let mut frames = Frames::new(&file, 0, bytes.len() as u64);
    let mut before = 0;
    while let Ok(Some(_)) = frames.next() {
        assert!(frames.at() > before, "each step goes on");
        before = frames.at();
    }
    assert_eq!(frames.at(), bytes.len() as u64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyset::tests::key;
    use proptest::prelude::*;
    use std::io::Write as _;

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    /// Keys in order, and places where nothing was.
    fn read(bytes: &[u8]) -> (Vec<u128>, Vec<(u64, u64, bool)>) {
        let file = file_of(bytes);
        let mut frames = Frames::new(&file, 0, bytes.len() as u64);
        let (mut keys, mut gaps) = (Vec::new(), Vec::new());
        while let Some(found) = frames.next().unwrap() {
            match found {
                Found::Frame { records, .. } => keys.extend(records.iter().map(|record| record.key.0)),
                Found::Nothing { start, end, is_last } => gaps.push((start, end, is_last)),
            }
        }
        (keys, gaps)
    }

    fn frames_of(sizes: &[usize]) -> (Vec<u8>, Vec<usize>) {
        let (mut framer, mut ends, mut number) = (Framer::new(0), Vec::new(), 0);
        for size in sizes {
            for _ in 0..*size {
                let value = Value { kind: 1, at_secs: 5 };
                framer.push(&Record { key: key(number), value, note: b"list\0ann@example.net" });
                number += 1;
            }
            framer.seal();
            ends.push(framer.len());
        }
        (framer.take().0, ends)
    }

    #[test]
    fn records_come_back_with_their_notes() {
        let mut framer = Framer::new(7);
        let value = Value { kind: 3, at_secs: u32::MAX };
        let record = Record { key: key(1), value, note: b"a note" };
        framer.push(&record);
        framer.push(&Record { note: &[b'x'; NOTE_MAX + 1], ..record });
        let (bytes, count) = framer.take();
        let file = file_of(&bytes);
        let mut frames = Frames::new(&file, 0, bytes.len() as u64);
        let records = vec![record, Record { note: b"", ..record }];
        assert_eq!(frames.next().unwrap(), Some(Found::Frame { records, next: 9 }));
        assert!(count == 9 && frames.next().unwrap().is_none());
    }

    #[test]
    fn many_records_make_several_frames() {
        let (bytes, _) = frames_of(&[100_000]);
        assert!(bytes.len() > 4 * BODY_MAX);
        let (keys, gaps) = read(&bytes);
        assert!(keys.len() == 100_000 && gaps.is_empty());
    }

    #[test]
    fn sealed_file_says_how_many_records_it_has() {
        let (bytes, _) = frames_of(&[3, 2, 0]);
        assert_eq!(sealed_count(&file_of(&bytes), bytes.len() as u64).unwrap(), Some(5));
        let (open, _) = frames_of(&[3, 2]);
        assert_eq!(sealed_count(&file_of(&open), open.len() as u64).unwrap(), None);
        assert_eq!(sealed_count(&file_of(b"short"), 5).unwrap(), None);
    }

    proptest! {
        #[test]
        fn what_is_cut_off_is_the_end_alone(sizes in proptest::collection::vec(1usize..5, 1..8), cut in any::<proptest::sample::Index>()) {
            let (bytes, ends) = frames_of(&sizes);
            let len = cut.index(bytes.len() + 1);
            let whole = ends.iter().filter(|end| **end <= len).count();
            let (keys, gaps) = read(&bytes[..len]);
            prop_assert_eq!(keys.len(), sizes[..whole].iter().sum::<usize>());
            let last = whole.checked_sub(1).map_or(0, |at| ends[at]);
            let gap = (last < len).then_some((last as u64, len as u64, true));
            prop_assert_eq!(gaps, gap.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn a_wrong_octet_costs_its_own_frame_alone(sizes in proptest::collection::vec(1usize..5, 2..8), at in any::<proptest::sample::Index>(), flip in 1u8..) {
            let (mut bytes, ends) = frames_of(&sizes);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let hit = ends.partition_point(|end| *end <= at);
            let (keys, gaps) = read(&bytes);
            prop_assert_eq!(keys.len(), sizes.iter().sum::<usize>() - sizes[hit]);
            let start = hit.checked_sub(1).map_or(0, |before| ends[before]) as u64;
            prop_assert_eq!(gaps, vec![(start, ends[hit] as u64, hit + 1 == sizes.len())]);
        }

        #[test]
        fn fuzz_smoke(bytes in proptest::collection::vec(any::<u8>(), 0..300), head in any::<bool>()) {
            let mut all = if head { MAGIC.to_vec() } else { Vec::new() };
            all.extend(bytes);
            fuzz_keyset_frames(&all);
        }
    }
}
