//! One record at a place of a segment: whether it is there, of this life of the file, and whole.

use super::{Life, OnMessage, ScanError};
use crate::log::index::Groups;
use crate::log::record::{HEAD_LEN, Head, Meta};
use crate::source::Window;
use message::MessageId;

pub(super) const READ_LEN: usize = 1 << 20;
const _: () = assert!(HEAD_LEN as u64 == MessageId::PLACE_UNIT, "records begin where heads are looked for");

/// True if it is a head of this life of the file, and its record ends in the file: what it says is read into memory.
pub(super) fn belongs(head: &Head, life: &Life) -> bool {
    let end = head.bound.location.offset() + head.record_len();
    head.bound.location.generation == life.generation && head.bound.salt == life.salt && end <= life.len
}

/// The head at `place` if it belongs to this life of the file and says that it stands there.
pub(super) fn head_at(reader: &mut Window<'_>, place: u64, life: &Life) -> Result<Option<Head>, ScanError> {
    let head = Head::decode(reader.bytes(place, HEAD_LEN)?);
    Ok(head.filter(|head| belongs(head, life) && head.bound.location.offset() == place))
}

/// Hands out the record if it is whole; else false.
pub(super) fn hand_out_record(
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
