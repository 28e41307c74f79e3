//! A log written by its writer, and what is found of it again: whole, torn, damaged, forged.

#![expect(clippy::cast_possible_truncation, reason = "sizes in these tests are small")]

use super::*;
use crate::log::NewMessage;
use crate::log::record::{
    meta_of,
    tests::{envelope, message},
};
use crate::log::writer::{AppendToken, FoundSegment, Log, LogConfig, LogOutput, SegmentNumber};
use message::MessageId;
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
                LogOutput::Committed(messages) => committed.extend(messages.iter().map(|(token, _)| *token)),
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
        let scan = scan_segment(&mut source, (&life, len), depth, has_successor, &mut on_message).unwrap();
        (scan, heads)
    }
}

fn log() -> Log {
    let config = LogConfig { partition: 0, segment_len: 64 * 1024, spares: 1, pending_max: 1 << 20, salt: 9 };
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
    let used = last.bound.location.offset() + HEAD_LEN as u64 + u64::from(last.meta_len + last.content_len);
    let index_at = 64 * 1024 - 4096;
    assert!(scan.damaged.is_empty() && ids.len() < 30);
    // Not the zeros between records and in the head block: a whole block is under the head's own CRC.
    let in_record = |at: u64| {
        at < 4096
            || heads.iter().any(|head| {
                let start = head.bound.location.offset();
                (start..start + HEAD_LEN as u64 + u64::from(head.meta_len + head.content_len)).contains(&at)
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
    disk.0.get_mut(&number).unwrap()[place as usize..place as usize + forged.len()].copy_from_slice(&forged);
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
    let config = LogConfig { partition: 0, segment_len: 64 * 1024, spares: 1, pending_max: 1 << 20, salt: 9 };
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
