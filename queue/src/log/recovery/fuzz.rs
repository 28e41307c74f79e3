//! Any octets as a segment file.

use super::{Depth, read_life, scan_segment};
use crate::log::index::{FOOT_LEN, Foot, Groups};
use crate::log::record::{HEAD_LEN, Head, MAGIC};
use crate::log::writer::BLOCK_LEN;

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
