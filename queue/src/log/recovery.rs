//! Reads a segment back, which is the ordinary start: there is no other repair.
//!
//! A sealed segment is read by its index: no content. One without (the daemon died before it was full) is walked from
//! record to record, content included. A record that fails its checks is either part of the last commit, which was
//! torn (nobody was told that it is safe), or damage: damage is reported with its place and stepped over.
//! Bound: one read buffer; the index, or the meta part of one record at a time.

mod fuzz;
mod records;
#[cfg(test)]
mod tests;
mod walk;

pub use fuzz::fuzz_segment;

use crate::log::index::{FOOT_LEN, Foot, Groups, next_entry};
use crate::log::record::{HEAD_LEN, Head};
use crate::log::writer::{BLOCK, BLOCK_LEN, SegmentHead, decode_segment_head};
use crate::source::{ReadError, Source, Window};
use records::{READ_LEN, belongs, hand_out_record, head_at};
use std::ops::Range;
use walk::walk;

#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("written by a newer format than this program reads; run the version that wrote it")]
    TooNew,
}

/// What a segment's first block and its foot say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Life {
    /// 0 if the segment was never committed to.
    pub generation: u32,
    pub salt: u32,
    /// Of the format.
    pub version: u8,
    /// The first block is not whole; the rest was told from what follows.
    pub is_head_damaged: bool,
    /// Bytes of the file.
    len: u64,
    foot: Option<Foot>,
}

impl Life {
    const NEVER: Life =
        Life { generation: 0, salt: 0, version: 1, is_head_damaged: false, len: 0, foot: None };

    /// True if an index says what is in it.
    pub fn is_sealed(&self) -> bool {
        self.foot.is_some()
    }
}

/// What a segment holds, besides the messages that were handed out one by one.
#[derive(Debug, Default)]
pub struct Scan {
    /// Stretches that should be records, or the index, and are not.
    pub damaged: Vec<Range<u64>>,
    /// Offset behind the last record.
    pub end: u64,
    /// The segment was sealed, unless nothing in it was owed any more, and yet its index cannot be read.
    pub lacks_index: bool,
    /// The index that the segment should end in and does not, and where to write it.
    pub index: Option<(u64, Vec<u8>)>,
}

/// How a segment is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Depth {
    /// By its index if it has one: what is owed is known, contents are not looked at.
    Index,
    /// Every record, every byte.
    Contents,
}

/// Hands out each message of a segment.
pub type OnMessage<'a> = &'a mut dyn FnMut(&Head, Groups<'_>);

/// Which life of its file a segment of `len` bytes is in.
pub fn read_life(source: &mut dyn Source, len: u64) -> Result<Life, ScanError> {
    let mut reader = Window::new(source, BLOCK_LEN);
    let head = decode_segment_head(reader.bytes(0, BLOCK_LEN)?);
    let foot_at = len.saturating_sub(FOOT_LEN as u64);
    let foot = Foot::decode(reader.bytes(foot_at, FOOT_LEN)?).filter(|foot| foot.index_len() + BLOCK <= len);
    match head {
        SegmentHead::Unknown => Err(ScanError::TooNew),
        SegmentHead::Written { version, generation, salt, .. } => {
            // A foot of another generation is of the file's earlier life. Version 1 had none.
            let is_own = |foot: &Foot| foot.generation == generation && foot.salt == salt && version >= 2;
            let foot = foot.filter(is_own);
            Ok(Life { generation, salt, version, is_head_damaged: false, len, foot })
        }
        SegmentHead::Blank => {
            let Some(record) = first_record(&mut reader)? else { return Ok(Life::NEVER) };
            let (generation, salt) = (record.bound.location.generation, record.bound.salt);
            let foot = foot.filter(|foot| foot.generation == generation && foot.salt == salt);
            Ok(Life { generation, salt, version: 2, is_head_damaged: true, len, foot })
        }
    }
}

/// A segment whose first block is damaged still has its records: theirs is the generation.
fn first_record(reader: &mut Window<'_>) -> Result<Option<Head>, ScanError> {
    let head = Head::decode(reader.bytes(BLOCK, HEAD_LEN)?);
    Ok(head.filter(|head| head.bound.location.offset() == BLOCK))
}

/// Hands each message, in order, to `on_message`. `has_successor`: a later segment of the partition has a record, so
/// everything in this one was committed, its index included, and nothing that is missing was torn.
pub fn scan_segment(
    source: &mut dyn Source,
    (life, len): (&Life, u64),
    depth: Depth,
    has_successor: bool,
    on_message: OnMessage<'_>,
) -> Result<Scan, ScanError> {
    let mut scan = Scan::default();
    if life.generation == 0 {
        return Ok(scan);
    }
    // Version 1 had no index, and left torn ends where they were. A file that is not whole blocks long was torn while it
    // was made: nothing in it was acknowledged, and no index can be written to its end.
    let has_successor = has_successor && life.version >= 2 && len.is_multiple_of(BLOCK);
    let mut reader = Window::new(source, READ_LEN);
    let listed = match life.foot {
        Some(foot) => read_index(&mut reader, life, len, foot)?,
        None => None,
    };
    if life.is_head_damaged && listed.as_deref().is_some_and(has_second_commit) {
        scan.damaged.push(0..BLOCK);
    }
    match (&listed, depth) {
        (Some(entries), Depth::Index) => hand_out(entries, life, &mut scan, on_message),
        (Some(entries), Depth::Contents) => check_listed(&mut reader, entries, life, &mut scan, on_message)?,
        (None, _) => {
            scan.lacks_index = has_successor && !life.is_head_damaged;
            walk(&mut reader, life, has_successor, &mut scan, on_message)?;
        }
    }
    Ok(scan)
}

/// The entries of the index, if they are whole.
fn read_index(
    reader: &mut Window<'_>,
    life: &Life,
    len: u64,
    foot: Foot,
) -> Result<Option<Vec<u8>>, ScanError> {
    let at = len - foot.index_len();
    let entries_len = usize::try_from(foot.len).unwrap_or(usize::MAX);
    let entries = reader.bytes(at, entries_len)?;
    Ok((foot.matches(entries) && foot.generation == life.generation).then(|| entries.to_vec()))
}

/// Without a second commit the first block may have been torn with the first, before the index was written by a start
/// that found records of it all the same.
fn has_second_commit(mut entries: &[u8]) -> bool {
    std::iter::from_fn(|| next_entry(&mut entries)).any(|(head, _)| head.bound.commit_at() > 0)
}

fn hand_out(mut entries: &[u8], life: &Life, scan: &mut Scan, on_message: OnMessage<'_>) {
    while let Some((head, groups)) = next_entry(&mut entries) {
        if belongs(&head, life) {
            scan.end = head.bound.location.offset() + head.record_len();
            on_message(&head, groups);
        }
    }
}

/// Every record that the index names is read; what is not whole is damage.
fn check_listed(
    reader: &mut Window<'_>,
    mut entries: &[u8],
    life: &Life,
    scan: &mut Scan,
    on_message: OnMessage<'_>,
) -> Result<(), ScanError> {
    while let Some((listed, _)) = next_entry(&mut entries) {
        if !belongs(&listed, life) {
            continue;
        }
        let place = listed.bound.location.offset();
        scan.end = place + listed.record_len();
        let is_there = head_at(reader, place, life)? == Some(listed);
        if !is_there || !hand_out_record(reader, &listed, on_message)? {
            scan.damaged.push(place..scan.end);
        }
    }
    Ok(())
}
