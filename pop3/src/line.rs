//! Command lines out of a stream that may be cut anywhere.
//!
//! LF ends a line; a CR before it belongs to the end. RFC 1939 has CR LF, but what is typed into a connection by hand has
//! LF alone, and here no line can be smuggled into another: nothing that a third party wrote travels this way.
//! Bound: `len_max` octets are held; a longer line is skipped to its end and reported once, there. What was held is wiped,
//! because it may be a password.

use memchr::memchr;
use zeroize::{Zeroize as _, Zeroizing};

/// Holds the part of a line that came so far.
#[derive(Default)]
pub(crate) struct Lines {
    partial: Zeroizing<Vec<u8>>,
    /// The line is too long already; its octets go to nobody.
    is_skipping: bool,
}

/// A line without its end.
pub(crate) enum Line {
    Whole(Zeroizing<Vec<u8>>),
    TooLong,
}

/// A line may be a password.
impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("len", &self.partial.len()).finish_non_exhaustive()
    }
}

impl Lines {
    /// Takes octets up to the end of a line, or all. Returns how many, and the line if it ended.
    pub(crate) fn take(&mut self, bytes: &[u8], len_max: usize) -> (usize, Option<Line>) {
        let end = memchr(b'\n', bytes).map(|at| at + 1);
        let used = end.unwrap_or(bytes.len());
        if self.is_skipping || self.partial.len() + used > len_max {
            self.partial.zeroize();
            self.is_skipping = true;
        } else {
            // At once, so that it does not move and leave a copy behind.
            let room = len_max - self.partial.len();
            self.partial.reserve_exact(room);
            self.partial.extend_from_slice(&bytes[..used]);
        }
        if end.is_none() {
            return (used, None);
        }
        let Lines { mut partial, is_skipping } = std::mem::take(self);
        if is_skipping {
            return (used, Some(Line::TooLong));
        }
        partial.pop();
        if partial.last() == Some(&b'\r') {
            partial.pop();
        }
        (used, Some(Line::Whole(partial)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes all lines from pieces of `piece_len` octets; `None` for one that is too long.
    fn lines(bytes: &[u8], piece_len: usize) -> Vec<Option<Vec<u8>>> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for piece in bytes.chunks(piece_len) {
            let mut at = 0;
            while at < piece.len() {
                let (used, line) = lines.take(&piece[at..], 10);
                at += used;
                found.extend(line.map(|line| match line {
                    Line::Whole(line) => Some(line.to_vec()),
                    Line::TooLong => None,
                }));
            }
        }
        found
    }

    #[test]
    fn lines_end_with_lf_or_cr_lf_wherever_they_are_cut() {
        let expected = [b"a".as_slice(), b"b", b"", b"c\rd\r"].map(|line| Some(line.to_vec()));
        for piece_len in 1..20 {
            assert_eq!(lines(b"a\nb\r\n\r\nc\rd\r\r\nrest", piece_len), expected, "pieces of {piece_len}");
        }
    }

    #[test]
    fn line_with_its_end_may_be_just_as_long_as_the_limit() {
        for piece_len in 1..30 {
            assert_eq!(lines(b"12345678\r\n", piece_len), [Some(b"12345678".to_vec())]);
            assert_eq!(lines(b"123456789\r\nb\r\n", piece_len), [None, Some(b"b".to_vec())]);
            assert_eq!(lines(b"1234567890123456789\r\nb\r\n", piece_len), [None, Some(b"b".to_vec())]);
        }
    }

    #[test]
    fn too_long_line_is_held_by_nobody() {
        let mut lines = Lines::default();
        lines.take(&[b'a'; 1000], 10);
        assert!(lines.partial.is_empty() && lines.is_skipping);
    }
}
