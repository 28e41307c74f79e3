//! Reads a segment back, which is the ordinary start: there is no other repair.
//!
//! Walks from record to record. A record that fails its checks is either the torn end of the last commit (nothing
//! valid of this generation follows; nobody was told that it is safe) or damage (something valid follows): damage
//! is reported with its place, stepped over, and its file is kept. Content is read once, for its checksum.
//! Bound: one read buffer, and the meta part of one record at a time.

use crate::log::record::{HEAD_LEN, Head};
use crate::log::writer::{BLOCK, BLOCK_LEN, SegmentHead, decode_segment_head};
use message::MessageId;

/// Where a segment's bytes come from.
pub trait SegmentSource {
    /// Fills `bytes` from `offset`; returns how many there were.
    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> std::io::Result<usize>;
}

#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    #[error("reading at byte {offset}: {source}")]
    Read { offset: u64, source: std::io::Error },
    #[error("written by a newer format than this program reads; run the version that wrote it")]
    TooNew,
}

/// What a segment holds, besides the messages that were handed out one by one.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Scan {
    /// 0 if the segment was never committed to.
    pub generation: u32,
    /// Where bytes stand that should be a record and are not: offset of each stretch.
    pub damaged: Vec<u64>,
    /// Offset behind the last valid record.
    pub end: u64,
}

/// Hands each valid message, in order, to `on_message` with its meta part.
pub fn scan_segment(
    source: &mut dyn SegmentSource,
    on_message: &mut dyn FnMut(Head, &[u8]),
) -> Result<Scan, ScanError> {
    let mut reader = Reader { source, buffer: Vec::new(), start: 0 };
    let head = decode_segment_head(reader.bytes(0, BLOCK_LEN)?);
    let generation = match head {
        SegmentHead::Blank => match generation_of_records(&mut reader)? {
            None => return Ok(Scan::default()),
            Some(generation) => generation,
        },
        SegmentHead::Unknown => return Err(ScanError::TooNew),
        SegmentHead::Written { generation, .. } => generation,
    };
    let mut scan = Scan { generation, damaged: Vec::new(), end: BLOCK };
    if head == SegmentHead::Blank {
        scan.damaged.push(0);
    }
    let mut at = BLOCK;
    while let Some(place) = next_head(&mut reader, at, generation)? {
        // Behind a record that failed, the rest of it is no second damage.
        let is_reported = scan.damaged.last().is_some_and(|last| last + MessageId::PLACE_UNIT == at);
        if !is_reported && !is_padding(&mut reader, at, place)? {
            scan.damaged.push(at);
        }
        at = take_record(&mut reader, place, &mut scan, on_message)?;
    }
    // A broken record at the very end was never acknowledged: a torn commit, not damage.
    scan.damaged.retain(|offset| *offset < scan.end);
    Ok(scan)
}

/// A segment whose first block is damaged still has its records: theirs is the generation.
fn generation_of_records(reader: &mut Reader<'_>) -> Result<Option<u32>, ScanError> {
    let head = Head::decode(reader.bytes(BLOCK, HEAD_LEN)?);
    Ok(head
        .filter(|head| head.id.place() == BLOCK && head.id.generation() == head.generation)
        .map(|head| head.generation))
}

/// True if nothing, or only the zeros that fill a commit's last block, stand between two records.
fn is_padding(reader: &mut Reader<'_>, from: u64, to: u64) -> Result<bool, ScanError> {
    let len = usize::try_from(to - from).unwrap_or(usize::MAX);
    Ok(len < BLOCK_LEN && reader.bytes(from, len)?.iter().all(|byte| *byte == 0))
}

/// Hands out the record at `place` if it is whole; returns where the next one should be.
fn take_record(
    reader: &mut Reader<'_>,
    place: u64,
    scan: &mut Scan,
    on_message: &mut dyn FnMut(Head, &[u8]),
) -> Result<u64, ScanError> {
    let head = reader.head(place, scan.generation)?.expect("next_head() saw it");
    if !content_is_whole(reader, &head)? {
        scan.damaged.push(place);
        return Ok(place + MessageId::PLACE_UNIT);
    }
    let meta = reader.bytes(place + HEAD_LEN as u64, head.meta_len as usize)?;
    if meta.len() != head.meta_len as usize || crc32c::crc32c(meta) != head.meta_crc {
        scan.damaged.push(place);
        return Ok(place + MessageId::PLACE_UNIT);
    }
    on_message(head, meta);
    scan.end = place + head.record_len();
    Ok(scan.end)
}

/// Checks the content part in pieces.
fn content_is_whole(reader: &mut Reader<'_>, head: &Head) -> Result<bool, ScanError> {
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
fn next_head(reader: &mut Reader<'_>, from: u64, generation: u32) -> Result<Option<u64>, ScanError> {
    for place in [from, from.next_multiple_of(BLOCK)] {
        if reader.head(place, generation)?.is_some() {
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
            .position(|bytes| Head::decode(bytes).is_some_and(|head| head.generation == generation));
        match found {
            Some(unit) if reader.head(place + (unit * HEAD_LEN) as u64, generation)?.is_some() => {
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

/// A window on the segment that moves forward.
struct Reader<'a> {
    source: &'a mut dyn SegmentSource,
    buffer: Vec<u8>,
    start: u64,
}

impl Reader<'_> {
    /// Up to `len` bytes at `offset`: fewer only at the segment's end.
    fn bytes(&mut self, offset: u64, len: usize) -> Result<&[u8], ScanError> {
        let inside = offset >= self.start && offset + len as u64 <= self.start + self.buffer.len() as u64;
        if !inside {
            self.fill(offset, len.max(READ_LEN))?;
        }
        let from = usize::try_from(offset - self.start).unwrap_or(usize::MAX).min(self.buffer.len());
        Ok(&self.buffer[from..(from + len).min(self.buffer.len())])
    }

    fn fill(&mut self, offset: u64, len: usize) -> Result<(), ScanError> {
        self.start = offset;
        self.buffer.resize(len, 0);
        let mut have = 0;
        while have < len {
            let place = offset + have as u64;
            let got = self
                .source
                .read(place, &mut self.buffer[have..])
                .map_err(|source| ScanError::Read { offset: place, source })?;
            if got == 0 {
                break;
            }
            have += got;
        }
        self.buffer.truncate(have);
        Ok(())
    }

    /// The head at `place` if it is one of this generation and says that it belongs there.
    fn head(&mut self, place: u64, generation: u32) -> Result<Option<Head>, ScanError> {
        let head = Head::decode(self.bytes(place, HEAD_LEN)?);
        Ok(head.filter(|head| {
            head.generation == generation && head.id.place() == place && head.id.generation() == generation
        }))
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "sizes in these tests are small")]
mod tests {
    use super::*;
    use crate::log::record::{
        meta_of,
        tests::{envelope, message},
    };
    use crate::log::writer::{AppendToken, FoundSegment, Log, LogConfig, LogOutput, SegmentNumber};
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

        fn scan(&self, segment: SegmentNumber) -> (Scan, Vec<Head>) {
            let mut heads = Vec::new();
            let scan = scan_segment(&mut Bytes(&self.0[&segment]), &mut |head, _| heads.push(head)).unwrap();
            (scan, heads)
        }
    }

    struct Bytes<'a>(&'a [u8]);

    impl SegmentSource for Bytes<'_> {
        fn read(&mut self, offset: u64, bytes: &mut [u8]) -> std::io::Result<usize> {
            let rest = self.0.get(offset as usize..).unwrap_or(&[]);
            let len = rest.len().min(bytes.len());
            bytes[..len].copy_from_slice(&rest[..len]);
            Ok(len)
        }
    }

    fn log() -> Log {
        let config = LogConfig { partition: 0, segment_len: 64 * 1024, spares: 1, pending_max: 1 << 20 };
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
        let (scan, heads) = disk.scan(log.segment_of(ids[0]).unwrap());
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
        let number = log.segment_of(ids[0]).unwrap();
        let whole = disk.0[&number].clone();
        for (victim, damaged, left) in [(2, vec![], 2), (1, vec![ids[1].place()], 2)] {
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
        let number = log.segment_of(id).unwrap();
        disk.0.get_mut(&number).unwrap()[9] ^= 1;
        let (scan, heads) = disk.scan(number);
        assert_eq!((scan.damaged, scan.generation, heads.len()), (vec![0], id.generation(), 1));
    }

    #[test]
    fn broken_head_before_another_commit_is_damage_not_padding() {
        let (mut log, mut disk) = (log(), Disk::default());
        let first = append(&mut log, &[b'x'; 900], 0);
        disk.run(&mut log);
        append(&mut log, &[b'y'; 900], 1);
        disk.run(&mut log);
        let number = log.segment_of(first).unwrap();
        disk.0.get_mut(&number).unwrap()[first.place() as usize + 5] ^= 1;
        let (scan, heads) = disk.scan(number);
        assert_eq!((scan.damaged, heads.len()), (vec![first.place()], 1));
    }

    #[test]
    fn recovery_reads_each_byte_about_once() {
        let (mut log, mut disk) = (log(), Disk::default());
        let id = append(&mut log, &[b'x'; 900], 0);
        for token in 1..30 {
            append(&mut log, &[b'x'; 900], token);
        }
        disk.run(&mut log);
        let mut counted = Counted(Bytes(&disk.0[&log.segment_of(id).unwrap()]), 0);
        scan_segment(&mut counted, &mut |_, _| {}).unwrap();
        assert!(counted.1 < 4 * 64 * 1024, "{} bytes read of a segment of 64 KiB", counted.1);
    }

    struct Counted<'a>(Bytes<'a>, usize);

    impl SegmentSource for Counted<'_> {
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
            let number = log.segment_of(id).unwrap();
            let (scan, heads) = disk.scan(number);
            assert!(heads.iter().all(|head| head.generation == id.generation()) && scan.damaged.is_empty());
            reused += u32::from(!seen.insert((number, id.generation())) as u32 == 0 && id.generation() > 4);
            log.end_message(id);
            disk.run(&mut log);
        }
        assert!(reused > 5 && disk.0.len() <= 3, "{} files", disk.0.len());
    }

    #[test]
    fn record_longer_than_a_segment_gets_its_own() {
        let (mut log, mut disk) = (log(), Disk::default());
        let id = append(&mut log, &vec![b'q'; 300_000], 1);
        assert_eq!(disk.run(&mut log), [AppendToken(1)]);
        let (_, heads) = disk.scan(log.segment_of(id).unwrap());
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

    #[test]
    fn found_segments_are_taken_up_again() {
        let config = LogConfig { partition: 0, segment_len: 64 * 1024, spares: 1, pending_max: 1 << 20 };
        let found = |number, generation, live| FoundSegment {
            number: SegmentNumber(number),
            generation,
            len: 64 * 1024,
            live,
        };
        let mut log = Log::new(config, vec![found(3, 7, 2), found(4, 8, 0)], 9);
        let id = append(&mut log, b"x\r\n", 1);
        assert_eq!(
            (id.generation(), log.segment_of(id)),
            (9, Some(SegmentNumber(4))),
            "the empty file is used first"
        );
        assert_eq!(log.segment_of(MessageId::new(0, 7, 4096).unwrap()), Some(SegmentNumber(3)));
    }
}
