//! A journal file read back: its head, its frames, and what is missing between them.
//!
//! Bound: one window of [`PIECE`] octets.

use super::mark::decode;
use super::{FRAME_HEAD_LEN, FRAME_MAGIC, FRAME_MAX, HEAD_LEN, JournalNumber, MAGIC, Mark, frame_crc};
use crate::source::{ReadError, Source, Window};

/// Why a journal could not be read at all.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("written by a newer format than this program reads; run the version that wrote it")]
    TooNew,
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// What a journal file held.
#[derive(Clone, Copy, Debug, Default)]
pub struct Read {
    /// 0 in an empty file.
    pub next_generation: u32,
    pub epoch: u32,
    pub number: u32,
    pub marks: u64,
    /// A frame failed its check although frames follow it: what it said is lost, which repeats deliveries.
    pub damaged_at: Option<u64>,
}

/// What a journal's first bytes say; zeros if it is empty or they are damaged.
pub fn read_head(source: &mut dyn Source) -> Result<Read, JournalError> {
    let mut window = Window::new(source, HEAD_LEN);
    decode_head(&mut window)
}

fn decode_head(window: &mut Window<'_>) -> Result<Read, JournalError> {
    let mut read = Read::default();
    let head = window.bytes(0, HEAD_LEN)?;
    if head.len() < HEAD_LEN {
        return Ok(read);
    }
    let is_ours = head[..6] == MAGIC[..6] && head[7] == MAGIC[7];
    if is_ours && !(1..=MAGIC[6]).contains(&head[6]) {
        return Err(JournalError::TooNew);
    }
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if !is_ours || word(8) != crc32c::crc32c(&head[12..]) {
        read.damaged_at = head.iter().any(|byte| *byte != 0).then_some(0);
        return Ok(read);
    }
    (read.next_generation, read.epoch, read.number) = (word(16), word(24), word(12));
    Ok(read)
}

/// Hands the marks of a journal file to `on_mark`, in order.
pub fn read(source: &mut dyn Source, on_mark: &mut dyn FnMut(Mark)) -> Result<Read, JournalError> {
    let mut window = Window::new(source, PIECE);
    let mut read = decode_head(&mut window)?;
    if read.epoch == 0 {
        return Ok(read);
    }
    let number = JournalNumber(read.number);
    let mut at = HEAD_LEN as u64;
    loop {
        while let Some(mut payload) = frame_at(&mut window, at, number)? {
            at += (FRAME_HEAD_LEN + payload.len()) as u64;
            while let Some(mark) = decode(&mut payload) {
                read.marks += 1;
                on_mark(mark);
            }
        }
        // A torn write is the end, or there is more behind it: pages reach the disk in any order.
        let Some(next) = next_frame(&mut window, at + 1, number)? else { return Ok(read) };
        read.damaged_at.get_or_insert(at);
        on_mark(Mark::Gap);
        at = next;
    }
}

/// Bytes that are read at a time. No frame is half as long, so as many zeros are what was reserved ahead.
const PIECE: usize = 2 * FRAME_MAX;

/// The next place from `from` on where a whole frame stands.
fn next_frame(
    window: &mut Window<'_>,
    mut from: u64,
    number: JournalNumber,
) -> Result<Option<u64>, ReadError> {
    loop {
        let bytes = window.bytes(from, PIECE)?;
        let is_last = bytes.len() < PIECE;
        if bytes.len() < FRAME_HEAD_LEN || bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let magic = FRAME_MAGIC.to_le_bytes();
        let Some(found) = memchr::memmem::find(&bytes[8..], &magic) else {
            if is_last {
                return Ok(None);
            }
            from += (PIECE - FRAME_HEAD_LEN) as u64;
            continue;
        };
        let place = from + found as u64;
        if frame_at(window, place, number)?.is_some() {
            return Ok(Some(place));
        }
        from = place + 1;
    }
}

/// The payload of the frame at `at`, if a whole one stands there.
fn frame_at<'a>(
    window: &'a mut Window<'_>,
    at: u64,
    number: JournalNumber,
) -> Result<Option<&'a [u8]>, ReadError> {
    let head = window.bytes(at, FRAME_HEAD_LEN)?;
    if head.len() < FRAME_HEAD_LEN {
        return Ok(None);
    }
    let word = |from: usize| u32::from_le_bytes([head[from], head[from + 1], head[from + 2], head[from + 3]]);
    let (len, crc, magic) = (word(0) as usize, word(4), word(8));
    if magic != FRAME_MAGIC || len > FRAME_MAX {
        return Ok(None);
    }
    let payload = window.bytes(at + FRAME_HEAD_LEN as u64, len)?;
    Ok((payload.len() == len && crc == frame_crc(number, at, payload)).then_some(payload))
}

/// For the fuzzer: any octets as a journal file.
pub fn fuzz_journal(bytes: &[u8]) {
    let _ = read(&mut &*bytes, &mut |_| {});
    let mut rest = bytes;
    while decode(&mut rest).is_some() {}
}
