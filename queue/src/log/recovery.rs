//! Reads a segment back, which is the ordinary start: there is no other repair.
//!
//! A sealed segment is read by its index: no content. One without (the daemon died before it was full) is walked from
//! record to record, content included. A record that fails its checks is either part of the last commit, which was
//! torn (nobody was told that it is safe), or damage: damage is reported with its place and stepped over.
//! Bound: one read buffer; the index, or the meta part of one record at a time.

use crate::log::index::{FOOT_LEN, Foot, Groups, IndexWriter, next_entry};
use crate::log::record::{HEAD_LEN, Head, MAGIC, Meta};
use crate::log::writer::{BLOCK, BLOCK_LEN, SegmentHead, decode_segment_head};
use crate::source::{ReadError, Source, Window};
use message::MessageId;
use std::ops::Range;

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
            walk(&mut reader, life, len, has_successor, &mut scan, on_message)?;
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

/// True if it is a head of this life of the file, and its record ends in the file: what it says is read into memory.
fn belongs(head: &Head, life: &Life) -> bool {
    let end = head.bound.location.offset() + head.record_len();
    head.bound.location.generation == life.generation && head.bound.salt == life.salt && end <= life.len
}

/// From record to record, without an index.
fn walk(
    reader: &mut Window<'_>,
    life: &Life,
    len: u64,
    has_successor: bool,
    scan: &mut Scan,
    on_message: OnMessage<'_>,
) -> Result<(), ScanError> {
    let (mut at, mut broken, mut broken_end, mut last_commit) = (BLOCK, None, 0, 0);
    let mut damaged: Vec<Range<u64>> = life.is_head_damaged.then_some(0..BLOCK).into_iter().collect();
    let mut index = IndexWriter::default();
    while let Some(place) = next_head(reader, at, life)? {
        let start = match broken.take() {
            Some(start) => start,
            None => behind_padding(reader, at, place)?,
        };
        if start < place {
            damaged.push(start..place);
        }
        let head = head_at(reader, place, life)?.expect("next_head() saw it");
        let mut list = |head: &Head, groups: Groups<'_>| {
            index.push(&head.encode(), groups.iter());
            on_message(head, groups);
        };
        if hand_out_record(reader, &head, &mut list)? {
            (at, last_commit) = (place + head.record_len(), head.bound.commit_at());
            scan.end = at;
        } else {
            (at, broken) = (place + MessageId::PLACE_UNIT, Some(place));
            broken_end = place + head.record_len();
        }
    }
    // The last commit may have been torn: then none of it was acknowledged, and what is broken in it is no damage.
    damaged.extend(broken.map(|start| start..len.min(broken_end)));
    damaged.retain(|damage| has_successor || damage.start < last_commit);
    scan.damaged.extend(damaged);
    // Damage is to be found again by the next start, until it has been moved aside: no index hides it.
    let index_len = index.len_with(0);
    if life.version >= 2
        && len.is_multiple_of(BLOCK)
        && index.count() > 0
        && scan.damaged.is_empty()
        && scan.end.next_multiple_of(BLOCK) + index_len <= len
    {
        scan.index = Some((len - index_len, index.finish(life.generation, life.salt)));
    }
    Ok(())
}

/// Where the next commit begins: behind the zeros that fill up the last block of the one before, if there are only those.
fn behind_padding(reader: &mut Window<'_>, at: u64, place: u64) -> Result<u64, ScanError> {
    let end = at.next_multiple_of(BLOCK).min(place);
    let len = usize::try_from(end - at).expect("less than a block");
    let is_zero = reader.bytes(at, len)?.iter().all(|byte| *byte == 0);
    Ok(if is_zero { end } else { at })
}

/// Hands out the record if it is whole; else false.
fn hand_out_record(
    reader: &mut Window<'_>,
    head: &Head,
    on_message: OnMessage<'_>,
) -> Result<bool, ScanError> {
    if !content_is_whole(reader, head)? {
        return Ok(false);
    }
    let meta = reader.bytes(head.meta_offset(), head.meta_len as usize)?;
    if meta.len() != head.meta_len as usize || crc32c::crc32c(meta) != head.meta_crc {
        return Ok(false);
    }
    let Some(parsed) = Meta::parse(meta, head.layout) else { return Ok(false) };
    on_message(head, Groups::Meta(meta, parsed));
    Ok(true)
}

/// Checks the content part in pieces.
fn content_is_whole(reader: &mut Window<'_>, head: &Head) -> Result<bool, ScanError> {
    let (mut at, mut left, mut crc) = (head.content_offset(), u64::from(head.content_len), 0);
    while left > 0 {
        let piece = reader.bytes(at, usize::try_from(left.min(READ_LEN as u64)).unwrap_or(READ_LEN))?;
        if piece.is_empty() {
            return Ok(false);
        }
        crc = crc32c::crc32c_append(crc, piece);
        at += piece.len() as u64;
        left -= piece.len() as u64;
    }
    Ok(crc == head.content_crc)
}

/// The next place at or behind `from` where a record of this generation begins.
///
/// The usual case looks at `from` and at the next block only; when both have nothing, the rest is searched, which
/// is what tells a torn end from damage.
fn next_head(reader: &mut Window<'_>, from: u64, life: &Life) -> Result<Option<u64>, ScanError> {
    for place in [from, from.next_multiple_of(BLOCK)] {
        if head_at(reader, place, life)?.is_some() {
            return Ok(Some(place));
        }
    }
    let mut place = from;
    loop {
        let window = reader.bytes(place, READ_LEN)?;
        if window.len() < HEAD_LEN {
            return Ok(None);
        }
        let units = window.len() / HEAD_LEN;
        let found = window
            .chunks_exact(HEAD_LEN)
            .position(|bytes| Head::decode(bytes).is_some_and(|head| belongs(&head, life)));
        match found {
            Some(unit) if head_at(reader, place + (unit * HEAD_LEN) as u64, life)?.is_some() => {
                return Ok(Some(place + (unit * HEAD_LEN) as u64));
            }
            // A head at a place that is not its own is content that looks like one.
            Some(unit) => place += (unit as u64 + 1) * HEAD_LEN as u64,
            None => place += (units * HEAD_LEN) as u64,
        }
    }
}

const READ_LEN: usize = 1 << 20;
const _: () = assert!(HEAD_LEN as u64 == MessageId::PLACE_UNIT, "records begin where heads are looked for");

/// The head at `place` if it belongs to this life of the file and says that it stands there.
fn head_at(reader: &mut Window<'_>, place: u64, life: &Life) -> Result<Option<Head>, ScanError> {
    let head = Head::decode(reader.bytes(place, HEAD_LEN)?);
    Ok(head.filter(|head| belongs(head, life) && head.bound.location.offset() == place))
}

/// For the fuzzer: any octets as a segment file, as they are and with their checksums mended, since no mutation would
/// guess those.
pub fn fuzz_segment(bytes: &[u8]) {
    read_all(bytes);
    let mut mended = bytes.to_vec();
    mend(&mut mended);
    read_all(&mended);
}

fn read_all(bytes: &[u8]) {
    let len = bytes.len() as u64;
    let Ok(life) = read_life(&mut { bytes }, len) else { return };
    for (depth, has_successor) in
        [(Depth::Index, false), (Depth::Index, true), (Depth::Contents, false), (Depth::Contents, true)]
    {
        let mut on_message = |head: &Head, groups: Groups<'_>| {
            assert!(head.bound.location.offset() + head.record_len() <= len, "a record ends in its segment");
            let recipients: u64 = groups.iter().map(|group| u64::from(group.count)).sum();
            assert!(recipients <= u64::from(head.meta_len), "each recipient has a name");
        };
        let Ok(scan) = scan_segment(&mut { bytes }, (&life, len), depth, has_successor, &mut on_message)
        else {
            continue;
        };
        assert!(scan.end <= len && scan.damaged.iter().all(|stretch| stretch.end <= len));
        assert!(scan.index.is_none_or(|(at, index)| at + index.len() as u64 == len));
    }
}

/// Makes every checksum right that stands at its place.
fn mend(bytes: &mut [u8]) {
    let seal = |part: &mut [u8], at: usize| {
        let crc = crc32c::crc32c(&part[at + 4..]);
        part[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    };
    for at in (BLOCK_LEN..bytes.len().saturating_sub(HEAD_LEN)).step_by(HEAD_LEN) {
        mend_record(&mut bytes[at..], &seal);
    }
    if let Some(head) = bytes.get_mut(..BLOCK_LEN) {
        seal(head, 8);
    }
    let Some(foot_at) = bytes.len().checked_sub(FOOT_LEN) else { return };
    seal(&mut bytes[foot_at..], 8);
    let Some(foot) = Foot::decode(&bytes[foot_at..]) else { return };
    let list = bytes.len().checked_sub(usize::try_from(foot.index_len()).unwrap_or(usize::MAX));
    let entries = list.and_then(|at| bytes.get(at..at + usize::try_from(foot.len).ok()?));
    if let Some(crc) = entries.map(crc32c::crc32c) {
        bytes[foot_at + 20..foot_at + 24].copy_from_slice(&crc.to_le_bytes());
        seal(&mut bytes[foot_at..], 8);
    }
}

fn mend_record(bytes: &mut [u8], seal: &dyn Fn(&mut [u8], usize)) {
    let head = bytes.first_chunk::<HEAD_LEN>().copied();
    let Some(head) = head.filter(|head| head[..4] == MAGIC.to_le_bytes()) else { return };
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
    let meta_end = HEAD_LEN.saturating_add(word(32));
    for (crc_at, part) in [(36, HEAD_LEN..meta_end), (44, meta_end..meta_end.saturating_add(word(40)))] {
        if let Some(crc) = bytes.get(part).map(crc32c::crc32c) {
            bytes[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
        }
    }
    seal(&mut bytes[..HEAD_LEN], 4);
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "sizes in these tests are small")]
mod tests {
    use super::*;
    use crate::log::NewMessage;
    use crate::log::record::{
        meta_of,
        tests::{envelope, message},
    };
    use crate::log::writer::{AppendToken, FoundSegment, Log, LogConfig, LogOutput, SegmentNumber};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// A disk that does what it is told.
    #[derive(Default)]
    pub(crate) struct Disk(BTreeMap<SegmentNumber, Vec<u8>>);

    impl Disk {
        fn run(&mut self, log: &mut Log) -> Vec<AppendToken> {
            let mut committed = Vec::new();
            loop {
                log.start_commit();
                let Some(output) = log.poll_output() else { break };
                match output {
                    LogOutput::Prepare { segment, len, .. } => {
                        self.0.insert(segment, vec![0; len as usize]);
                        log.handle_prepared(segment, true);
                    }
                    LogOutput::Write { segment, offset, bytes } => {
                        let at = offset as usize;
                        self.0.get_mut(&segment).unwrap()[at..at + bytes.len()].copy_from_slice(&bytes);
                        log.handle_written(true, bytes);
                    }
                    LogOutput::Committed(messages) => {
                        committed.extend(messages.iter().map(|(token, _)| *token))
                    }
                    LogOutput::Refused(tokens) => panic!("{tokens:?} refused"),
                    LogOutput::Remove { segment } => drop(self.0.remove(&segment)),
                }
            }
            committed
        }

        fn life(&self, segment: SegmentNumber) -> Life {
            read_life(&mut &self.0[&segment][..], self.0[&segment].len() as u64).unwrap()
        }

        fn scan(&self, segment: SegmentNumber) -> (Scan, Vec<Head>) {
            self.scan_to(segment, Depth::Contents, false)
        }

        fn scan_to(&self, segment: SegmentNumber, depth: Depth, has_successor: bool) -> (Scan, Vec<Head>) {
            let (mut heads, len) = (Vec::new(), self.0[&segment].len() as u64);
            let mut source = &self.0[&segment][..];
            let life = read_life(&mut source, len).unwrap();
            let mut on_message = |head: &Head, _: Groups<'_>| heads.push(*head);
            let scan =
                scan_segment(&mut source, (&life, len), depth, has_successor, &mut on_message).unwrap();
            (scan, heads)
        }
    }

    fn log() -> Log {
        let config =
            LogConfig { partition: 0, segment_len: 64 * 1024, spares: 1, pending_max: 1 << 20, salt: 9 };
        Log::new(config, Vec::new(), 1)
    }

    fn append(log: &mut Log, content: &[u8], token: u64) -> MessageId {
        let meta = meta_of(&envelope(&["ann@example.net"]));
        log.append(&message(&meta, content), AppendToken(token)).unwrap()
    }

    #[test]
    fn what_was_committed_is_found_again() {
        let (mut log, mut disk) = (log(), Disk::default());
        let mut ids = Vec::new();
        for round in 0..5 {
            ids.push(append(&mut log, &[b'a'; 700], round * 2));
            ids.push(append(&mut log, &[b'b'; 5000], round * 2 + 1));
            assert_eq!(disk.run(&mut log), [AppendToken(round * 2), AppendToken(round * 2 + 1)]);
        }
        let (scan, heads) = disk.scan(log.segment_of(ids[0].generation()).unwrap());
        assert_eq!(heads.iter().map(|head| head.id).collect::<Vec<_>>(), ids);
        assert_eq!(scan.damaged, []);
    }

    #[test]
    fn torn_end_is_silently_dropped_but_damage_is_reported() {
        let (mut log, mut disk) = (log(), Disk::default());
        let ids: Vec<_> = (0..3)
            .map(|token| {
                let id = append(&mut log, &[b'x'; 900], token);
                disk.run(&mut log);
                id
            })
            .collect();
        let number = log.segment_of(ids[0].generation()).unwrap();
        let whole = disk.0[&number].clone();
        let first = ids[1].place()..ids[2].place();
        for (victim, damaged, left) in [(2, vec![], 2), (1, vec![first], 2)] {
            disk.0.insert(number, whole.clone());
            disk.0.get_mut(&number).unwrap()[ids[victim].place() as usize + 200] ^= 1;
            let (scan, heads) = disk.scan(number);
            assert_eq!((scan.damaged, heads.len()), (damaged, left), "victim {victim}");
        }
    }

    #[test]
    fn damaged_first_block_hides_no_message() {
        let (mut log, mut disk) = (log(), Disk::default());
        let id = append(&mut log, &[b'x'; 900], 0);
        disk.run(&mut log);
        append(&mut log, &[b'y'; 900], 1);
        disk.run(&mut log);
        let number = log.segment_of(id.generation()).unwrap();
        disk.0.get_mut(&number).unwrap()[9] ^= 1;
        let (scan, heads) = disk.scan(number);
        assert_eq!(scan.damaged, vec![0..BLOCK]);
        assert_eq!((disk.life(number).generation, heads.len()), (id.generation(), 2));
    }

    #[test]
    fn first_block_torn_with_its_only_commit_is_no_damage_once_the_segment_has_an_index() {
        let (mut log, mut disk) = (log(), Disk::default());
        let id = append(&mut log, &[b'x'; 900], 0);
        disk.run(&mut log);
        let number = log.segment_of(id.generation()).unwrap();
        disk.0.get_mut(&number).unwrap()[9] ^= 1;
        let (offset, index) = disk.scan(number).0.index.unwrap();
        disk.0.get_mut(&number).unwrap()[offset as usize..][..index.len()].copy_from_slice(&index);
        let (scan, heads) = disk.scan_to(number, Depth::Index, true);
        assert_eq!((scan.damaged, heads.len()), (vec![], 1));
    }

    #[test]
    fn file_that_was_torn_while_it_was_made_gets_no_index() {
        let (mut log, mut disk) = (log(), Disk::default());
        let id = append(&mut log, &[b'x'; 900], 0);
        disk.run(&mut log);
        let number = log.segment_of(id.generation()).unwrap();
        disk.0.get_mut(&number).unwrap().truncate(63 * 1024);
        let (scan, heads) = disk.scan_to(number, Depth::Index, true);
        assert!(scan.index.is_none() && scan.damaged.is_empty() && !scan.lacks_index && heads.len() == 1);
    }

    #[test]
    fn broken_head_before_another_commit_is_damage_not_padding() {
        let (mut log, mut disk) = (log(), Disk::default());
        let first = append(&mut log, &[b'x'; 900], 0);
        disk.run(&mut log);
        append(&mut log, &[b'y'; 900], 1);
        disk.run(&mut log);
        let number = log.segment_of(first.generation()).unwrap();
        disk.0.get_mut(&number).unwrap()[first.place() as usize + 5] ^= 1;
        let (scan, heads) = disk.scan(number);
        assert_eq!((scan.damaged.len(), scan.damaged[0].start, heads.len()), (1, first.place(), 1));
    }

    #[test]
    fn recovery_reads_each_byte_about_once() {
        let (mut log, mut disk) = (log(), Disk::default());
        let id = append(&mut log, &[b'x'; 900], 0);
        for token in 1..30 {
            append(&mut log, &[b'x'; 900], token);
        }
        disk.run(&mut log);
        let number = log.segment_of(id.generation()).unwrap();
        let life = disk.life(number);
        let mut counted = Counted(&disk.0[&number], 0);
        scan_segment(&mut counted, (&life, 64 * 1024), Depth::Index, false, &mut |_, _| {}).unwrap();
        assert!(counted.1 < 4 * 64 * 1024, "{} bytes read of a segment of 64 KiB", counted.1);
    }

    struct Counted<'a>(&'a [u8], usize);

    impl Source for Counted<'_> {
        fn read(&mut self, offset: u64, bytes: &mut [u8]) -> std::io::Result<usize> {
            let len = self.0.read(offset, bytes)?;
            self.1 += len;
            Ok(len)
        }
    }

    #[test]
    fn recycled_segment_shows_nothing_of_its_earlier_life() {
        let (mut log, mut disk) = (log(), Disk::default());
        let mut reused = 0;
        let mut seen = std::collections::BTreeSet::new();
        for token in 0..200 {
            let id = append(&mut log, &vec![b'z'; 3000], token);
            disk.run(&mut log);
            let number = log.segment_of(id.generation()).unwrap();
            let (scan, heads) = disk.scan(number);
            let of_this_life = |head: &Head| head.bound.location.generation == id.generation();
            assert!(heads.iter().all(of_this_life) && scan.damaged.is_empty());
            reused += u32::from(!seen.insert((number, id.generation())) as u32 == 0 && id.generation() > 4);
            log.end_record(heads.last().unwrap().bound.location, heads.last().unwrap().record_len());
            disk.run(&mut log);
        }
        assert!(reused > 5 && disk.0.len() <= 3, "{} files", disk.0.len());
    }

    #[test]
    fn record_longer_than_a_segment_gets_its_own() {
        let (mut log, mut disk) = (log(), Disk::default());
        let id = append(&mut log, &vec![b'q'; 300_000], 1);
        assert_eq!(disk.run(&mut log), [AppendToken(1)]);
        let (_, heads) = disk.scan(log.segment_of(id.generation()).unwrap());
        assert_eq!(heads.len(), 1);
    }

    #[test]
    fn failed_write_poisons_the_log() {
        let (mut log, mut disk) = (log(), Disk::default());
        append(&mut log, b"one\r\n", 1);
        disk.run(&mut log);
        append(&mut log, b"two\r\n", 2);
        log.start_commit();
        let Some(LogOutput::Write { bytes, .. }) = log.poll_output() else { panic!() };
        append(&mut log, b"three\r\n", 3);
        log.handle_written(false, bytes);
        assert!(
            matches!(log.poll_output(), Some(LogOutput::Refused(tokens)) if tokens == [AppendToken(2), AppendToken(3)])
        );
        assert!(log.is_poisoned());
    }

    #[test]
    fn no_message_is_committed_before_its_sync() {
        let (mut log, mut disk) = (log(), Disk::default());
        append(&mut log, b"one\r\n", 1);
        disk.run(&mut log);
        append(&mut log, b"two\r\n", 2);
        log.start_commit();
        let Some(LogOutput::Write { bytes, .. }) = log.poll_output() else { panic!() };
        append(&mut log, b"three\r\n", 3);
        assert!(log.poll_output().is_none(), "one commit at a time");
        log.handle_written(true, bytes);
        assert!(matches!(log.poll_output(), Some(LogOutput::Committed(messages)) if messages.len() == 1));
    }

    /// Fills segments until the one of the first message is sealed; all its messages are alive.
    fn sealed() -> (Disk, SegmentNumber, Vec<MessageId>) {
        let (mut log, mut disk) = (log(), Disk::default());
        let mut ids: Vec<MessageId> = Vec::new();
        while ids.iter().all(|id| id.generation() == ids[0].generation()) {
            ids.push(append(&mut log, &[b'x'; 900], ids.len() as u64));
            disk.run(&mut log);
        }
        let first = ids[0].generation();
        ids.retain(|id| id.generation() == first);
        (disk, log.segment_of(first).unwrap(), ids)
    }

    #[test]
    fn sealed_segment_is_read_by_its_index_alone() {
        let (disk, number, ids) = sealed();
        let life = disk.life(number);
        assert!(life.is_sealed() && ids.len() > 5);
        let (scan, heads) = disk.scan_to(number, Depth::Index, true);
        assert_eq!(heads.iter().map(|head| head.id).collect::<Vec<_>>(), ids);
        assert_eq!((scan.damaged, scan.index.is_none()), (vec![], true));
        let mut counted = Counted(&disk.0[&number], 0);
        scan_segment(&mut counted, (&life, 64 * 1024), Depth::Index, true, &mut |_, _| {}).unwrap();
        assert!(counted.1 < 8 * 1024, "{} bytes read", counted.1);
    }

    #[test]
    fn walk_makes_the_index_that_is_missing() {
        let (mut disk, number, _) = sealed();
        let whole = disk.0[&number].clone();
        let foot = whole.len() - 1;
        disk.0.get_mut(&number).unwrap()[foot] ^= 1;
        let (scan, _) = disk.scan_to(number, Depth::Index, false);
        let (offset, bytes) = scan.index.unwrap();
        assert_eq!(whole[offset as usize..], bytes);
        assert_eq!(scan.damaged, [], "its last write may have been torn");
        let (scan, heads) = disk.scan_to(number, Depth::Index, true);
        assert!(scan.lacks_index && heads.len() > 5, "not if a later segment was written to");
    }

    #[test]
    fn any_flipped_byte_of_a_sealed_segment_is_found() {
        let (disk, number, ids) = sealed();
        let (scan, heads) = disk.scan_to(number, Depth::Contents, true);
        let last = heads.last().unwrap();
        let used =
            last.bound.location.offset() + HEAD_LEN as u64 + u64::from(last.meta_len + last.content_len);
        let index_at = 64 * 1024 - 4096;
        assert!(scan.damaged.is_empty() && ids.len() < 30);
        // Not the zeros between records and in the head block: a whole block is under the head's own CRC.
        let in_record = |at: u64| {
            at < 4096
                || heads.iter().any(|head| {
                    let start = head.bound.location.offset();
                    (start..start + HEAD_LEN as u64 + u64::from(head.meta_len + head.content_len))
                        .contains(&at)
                })
        };
        for at in (0..used)
            .filter(|at| in_record(*at))
            .step_by(7)
            .chain(64 * 1024 - 64..64 * 1024)
            .chain(index_at..index_at + 500)
        {
            let mut bad = Disk(disk.0.clone());
            bad.0.get_mut(&number).unwrap()[at as usize] ^= 0x10;
            let (scan, found) = bad.scan_to(number, Depth::Contents, true);
            assert_eq!(scan.damaged.len() + usize::from(scan.lacks_index), 1, "byte {at}");
            assert!(found.len() + 1 >= ids.len(), "byte {at}: the others are all there");
        }
    }

    #[test]
    fn torn_commit_of_several_records_is_no_damage() {
        let (mut log, mut disk) = (log(), Disk::default());
        append(&mut log, &[b'x'; 900], 0);
        disk.run(&mut log);
        let torn: Vec<_> = (1..4).map(|token| append(&mut log, &[b'y'; 900], token)).collect();
        disk.run(&mut log);
        let number = log.segment_of(torn[0].generation()).unwrap();
        disk.0.get_mut(&number).unwrap()[torn[0].place() as usize + 300] ^= 1;
        let (scan, heads) = disk.scan(number);
        assert_eq!((scan.damaged, heads.len()), (vec![], 3), "nobody was told that any of the three is safe");
    }

    #[test]
    fn content_made_to_look_like_a_record_is_not_taken_for_one() {
        let (mut log, mut disk) = (log(), Disk::default());
        // As somebody would who knows place and generation, but not the salt.
        let mut forged = Vec::new();
        let meta = meta_of(&envelope(&["eve@example.net"]));
        let place = BLOCK + 8192;
        let bound = crate::log::record::Bound::new(crate::log::Location::new(1, place), BLOCK, 0);
        crate::log::record::encode(
            &message(&meta, b"forged"),
            MessageId::new(0, 1, place).unwrap(),
            bound,
            &mut forged,
        );
        let victim = append(&mut log, &[b'x'; 900], 0);
        disk.run(&mut log);
        let number = log.segment_of(victim.generation()).unwrap();
        disk.0.get_mut(&number).unwrap()[place as usize..place as usize + forged.len()]
            .copy_from_slice(&forged);
        assert_eq!(disk.scan(number).1.len(), 1);
    }

    #[test]
    fn copy_keeps_its_id_and_the_emptiest_segment_is_the_victim() {
        let (mut log, mut disk) = (log(), Disk::default());
        let mut heads = Vec::new();
        for token in 0..120 {
            append(&mut log, &[b'x'; 900], token);
            disk.run(&mut log);
            let number = log.segment_of(log.next_generation() - 1).unwrap();
            heads.push(*disk.scan(number).1.last().unwrap());
        }
        // Of each segment, one message in five stays; of the second, one alone.
        let second = heads[0].bound.location.generation + 1;
        let mut kept = None;
        for (at, head) in heads.iter().enumerate() {
            let location = head.bound.location;
            let stays = if location.generation == second { kept.is_none() } else { at % 5 == 0 };
            if stays && location.generation == second {
                kept = Some(*head);
            }
            if !stays {
                log.end_record(location, head.record_len());
            }
        }
        assert_eq!(log.victim(&|_| false), Some(second));
        let (meta, kept) = (meta_of(&envelope(&["ann@example.net"])), kept.unwrap());
        let copy = NewMessage { moved: Some(kept.id), ..message(&meta, &[b'x'; 900]) };
        assert_eq!(log.append(&copy, AppendToken(999)), Ok(kept.id));
        disk.run(&mut log);
        let number = log.segment_of(log.next_generation() - 1).unwrap();
        let found = *disk.scan(number).1.last().unwrap();
        assert_eq!(found.id, kept.id);
        assert!(found.bound.location != kept.bound.location && log.committed() > kept.id);
        log.end_record(kept.bound.location, kept.record_len());
        assert_eq!(log.segment_of(second), None);
    }

    #[test]
    fn found_segments_are_taken_up_again() {
        let config =
            LogConfig { partition: 0, segment_len: 64 * 1024, spares: 1, pending_max: 1 << 20, salt: 9 };
        let found = |number, generation, live| FoundSegment {
            number: SegmentNumber(number),
            generation,
            len: 64 * 1024,
            live,
            live_len: 0,
            index: None,
        };
        let mut log = Log::new(config, vec![found(3, 7, 2), found(4, 8, 0)], 9);
        let id = append(&mut log, b"x\r\n", 1);
        assert_eq!(
            (id.generation(), log.segment_of(id.generation())),
            (9, Some(SegmentNumber(4))),
            "the empty file is used first"
        );
        assert_eq!(log.segment_of(7), Some(SegmentNumber(3)));
    }

    #[test]
    fn record_that_ends_behind_its_segment_is_none() {
        let (mut disk, number, ids) = sealed();
        let file = disk.0.get_mut(&number).unwrap();
        let at = ids[0].place() as usize;
        file[at + 40..at + 44].copy_from_slice(&u32::MAX.to_le_bytes());
        let crc = crc32c::crc32c(&file[at + 8..at + HEAD_LEN]);
        file[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
        let (scan, heads) = disk.scan_to(number, Depth::Contents, true);
        assert_eq!((scan.damaged.len(), heads.len()), (1, ids.len() - 1));
    }

    proptest! {
        #[test]
        fn fuzz_smoke(changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..20), len in 0..=65_536_usize) {
            let (disk, number, _) = sealed();
            let mut bytes = disk.0[&number].clone();
            for (at, byte) in changes {
                // Heads and index are where it matters.
                let at = if at % 2 == 0 { at - at % 4096 + at % 200 } else { at };
                bytes[usize::from(at)] = byte;
            }
            fuzz_segment(&bytes);
            bytes.drain(..65_536 - len);
            fuzz_segment(&bytes);
        }
    }
}
