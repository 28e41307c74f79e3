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
    has_successor: bool,
    scan: &mut Scan,
    on_message: OnMessage<'_>,
) -> Result<(), ScanError> {
    let (mut walk, mut index) = (Walk::new(life), IndexWriter::default());
    let mut list = |head: &Head, groups: Groups<'_>| {
        index.push(&head.encode(), groups.iter());
        on_message(head, groups);
    };
    while let Some(place) = next_head(reader, walk.at, life)? {
        walk.arrive(reader, place)?;
        let head = head_at(reader, place, life)?.expect("next_head() saw it");
        let is_whole = hand_out_record(reader, &head, &mut list)?;
        walk.pass(&head, is_whole);
    }
    scan.end = walk.end;
    scan.damaged.extend(walk.damage(life, has_successor));
    scan.index = missing_index(index, life, scan);
    Ok(())
}

/// How far the walk has come, and what it met.
struct Walk {
    at: u64,
    /// Behind the last record that is whole.
    end: u64,
    /// A record that is not whole, from where it begins to where it would end; what follows it belongs to it until another
    /// head is found.
    broken: Option<Range<u64>>,
    /// Where the commit of the last whole record begins.
    last_commit: u64,
    damaged: Vec<Range<u64>>,
}

impl Walk {
    fn new(life: &Life) -> Walk {
        let damaged = life.is_head_damaged.then_some(0..BLOCK).into_iter().collect();
        Walk { at: BLOCK, end: 0, broken: None, last_commit: 0, damaged }
    }

    /// The next head stands at `place`: between it and the last whole record there may be padding, and nothing else.
    fn arrive(&mut self, reader: &mut Window<'_>, place: u64) -> Result<(), ScanError> {
        let start = match self.broken.take() {
            Some(broken) => broken.start,
            None => behind_padding(reader, self.at, place)?,
        };
        if start < place {
            self.damaged.push(start..place);
        }
        Ok(())
    }

    fn pass(&mut self, head: &Head, is_whole: bool) {
        let place = head.bound.location.offset();
        let end = place + head.record_len();
        if is_whole {
            (self.at, self.end, self.last_commit) = (end, end, head.bound.commit_at());
        } else {
            (self.at, self.broken) = (place + MessageId::PLACE_UNIT, Some(place..end));
        }
    }

    /// The last commit may have been torn: then none of it was acknowledged, and what is broken in it is no damage.
    fn damage(self, life: &Life, has_successor: bool) -> impl Iterator<Item = Range<u64>> {
        let broken = self.broken.map(|broken| broken.start..life.len.min(broken.end));
        let all = self.damaged.into_iter().chain(broken);
        all.filter(move |damage| has_successor || damage.start < self.last_commit)
    }
}

/// The index that the segment should end in, and where it goes. Damage is to be found again by the next start, until it has
/// been moved aside: no index hides it.
fn missing_index(index: IndexWriter, life: &Life, scan: &Scan) -> Option<(u64, Vec<u8>)> {
    let index_len = index.len_with(0);
    let has_room = scan.end.next_multiple_of(BLOCK) + index_len <= life.len;
    let may_have_one = life.version >= 2 && life.len.is_multiple_of(BLOCK);
    (may_have_one && has_room && index.count() > 0 && scan.damaged.is_empty())
        .then(|| (life.len - index_len, index.finish(life.generation, life.salt)))
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
