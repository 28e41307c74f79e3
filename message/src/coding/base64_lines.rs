//! Base64 in lines of 76 (RFC 2045 §6.8), read and written.
//!
//! A text of many pieces is one stream of groups of three octets, so what a piece looks like depends on how many octets
//! before it wait for their group: none, one or two. A long piece that is written again and again is coded for each of
//! the three before ([`Block`]) and copied; it begins a new line, because a line may be shorter than 76.
//! No allocation beyond the buffer's growth.

use base64::Engine as _;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::ops::Range;

const LINE_MAX: usize = 76;

/// A piece shorter than this is coded as it is written: there is little to gain.
pub(crate) const BLOCK_MIN: usize = 48;

/// A long piece of text, coded for each number of octets that may wait before it.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    /// For 0, 1 and 2 octets waiting: where its lines stand in the memory that they were coded to.
    lines: [Range<u32>; 3],
    /// Octets of the last line of each.
    last: [u8; 3],
}

/// Octets that fill up a group in which `waiting` are already.
fn missing(waiting: usize) -> usize {
    (3 - waiting) % 3
}

impl Block {
    /// Codes `text` into `memory`. Silent if that passes 4 GiB.
    pub(crate) fn code(text: &[u8], memory: &mut Vec<u8>) -> Option<Block> {
        let mut block = Block { lines: [0..0, 0..0, 0..0], last: [0; 3] };
        for waiting in 0..3 {
            let rest = text.get(missing(waiting)..).unwrap_or_default();
            let from = u32::try_from(memory.len()).ok()?;
            let mut writer = Writer::new(memory);
            writer.put(&rest[..rest.len() / 3 * 3]);
            block.last[waiting] = u8::try_from(writer.column()).ok()?;
            block.lines[waiting] = from..u32::try_from(memory.len()).ok()?;
        }
        Some(block)
    }
}

pub(crate) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    /// Where the line begins in `out`.
    start: usize,
    waiting: [u8; 2],
    waiting_len: usize,
}

impl<'a> Writer<'a> {
    /// `out` is at the beginning of a line.
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Writer<'a> {
        Writer { start: out.len(), out, waiting: [0; 2], waiting_len: 0 }
    }

    pub(crate) fn put(&mut self, text: &[u8]) {
        for octet in text {
            match self.waiting_len {
                2 => {
                    self.put_group([self.waiting[0], self.waiting[1], *octet], 4);
                    self.waiting_len = 0;
                }
                len => {
                    self.waiting[len] = *octet;
                    self.waiting_len += 1;
                }
            }
        }
    }

    /// `text`, which is coded as `block` in `memory`.
    pub(crate) fn put_block(&mut self, text: &[u8], block: &Block, memory: &[u8]) {
        let waiting = self.waiting_len;
        let begin = missing(waiting).min(text.len());
        self.put(&text[..begin]);
        let Range { start, end } = block.lines[waiting];
        let lines = memory.get(start as usize..end as usize).unwrap_or_default();
        if !lines.is_empty() {
            if self.column() > 0 {
                self.end_line();
            }
            self.out.extend_from_slice(lines);
            self.start = self.out.len() - usize::from(block.last[waiting]);
        }
        let rest = &text[begin..];
        self.put(&rest[rest.len() / 3 * 3..]);
    }

    /// The end of the text: its last group is filled up.
    pub(crate) fn end(&mut self) {
        let [first, second] = self.waiting;
        match std::mem::take(&mut self.waiting_len) {
            0 => return,
            1 => self.put_group([first, 0, 0], 2),
            _ => self.put_group([first, second, 0], 3),
        }
        let padding = self.out.len() - self.start;
        self.out.resize(self.start + padding.next_multiple_of(4), b'=');
    }

    fn column(&self) -> usize {
        self.out.len() - self.start
    }

    fn end_line(&mut self) {
        self.out.extend_from_slice(b"\r\n");
        self.start = self.out.len();
    }

    /// The first `count` letters of a group.
    fn put_group(&mut self, group: [u8; 3], count: usize) {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        if self.column() == LINE_MAX {
            self.end_line();
        }
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        let letters = [18, 12, 6, 0].map(|shift| LETTERS[(bits >> shift & 63) as usize]);
        self.out.extend_from_slice(&letters[..count]);
    }
}

/// What `text` says, whatever stands between its letters as white space and whether it is filled up or not.
pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    const LAX: GeneralPurpose = GeneralPurpose::new(
        &ALPHABET,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );
    let letters: Vec<u8> = text.iter().copied().filter(|octet| !octet.is_ascii_whitespace()).collect();
    LAX.decode(letters).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_have_76_octets() {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        writer.put(&[0; 58]);
        writer.end();
        assert_eq!(String::from_utf8(out).unwrap(), format!("{}\r\nAA==", "A".repeat(76)));
    }

    #[test]
    fn what_real_mail_has_is_read() {
        assert_eq!(decode(b"YW\r\nI=\r\n").unwrap(), b"ab");
        assert_eq!(decode(b"YWI").unwrap(), b"ab");
        assert_eq!(decode(b"").unwrap(), b"");
        assert_eq!(decode(b"Y*I="), None);
    }

    proptest! {
        #[test]
        fn pieces_meet_anywhere_and_read_the_same(
            pieces in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..150), any::<bool>()), 0..8)
        ) {
            let (mut out, mut plain, mut memory) = (Vec::new(), Vec::new(), Vec::new());
            let mut writer = Writer::new(&mut out);
            for (text, is_block) in &pieces {
                plain.extend_from_slice(text);
                if *is_block {
                    let block = Block::code(text, &mut memory).unwrap();
                    writer.put_block(text, &block, &memory);
                } else {
                    writer.put(text);
                }
            }
            writer.end();
            prop_assert_eq!(decode(&out), Some(plain));
            let text = String::from_utf8(out).unwrap();
            prop_assert!(text.split("\r\n").all(|line| line.len() <= LINE_MAX && line.len() % 4 == 0), "{}", text);
            prop_assert!(!text.contains("\r\n\r\n"));
        }
    }
}
