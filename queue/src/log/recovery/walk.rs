//! A segment without an index: read from record to record, content included.
//!
//! What is broken in the last commit was torn, and nobody was told that it is safe; before it, it is damage.

use super::records::{READ_LEN, belongs, hand_out_record, head_at};
use super::{Life, OnMessage, Scan, ScanError};
use crate::log::index::{Groups, IndexWriter};
use crate::log::record::{HEAD_LEN, Head};
use crate::log::writer::BLOCK;
use crate::source::Window;
use message::MessageId;
use std::ops::Range;

/// From record to record, without an index.
pub(super) fn walk(
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
