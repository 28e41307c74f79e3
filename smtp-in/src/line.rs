//! Command lines out of a stream that may be cut anywhere.
//!
//! Only CR LF ends a line. A CR or LF that stands alone stays in the line, where the command parser refuses it:
//! whoever took it for a line end would read commands that nobody sent.
//! Bound: `len_max` octets are held; a longer line is skipped to its end and reported once, there.

use memchr::memchr_iter;

/// Holds the part of a line that came so far.
#[derive(Default)]
pub(crate) struct Lines {
    partial: Vec<u8>,
    /// The line is too long already; its octets go to nobody.
    skipping: bool,
    /// The last octet that came was a CR.
    after_cr: bool,
}

/// A line without its CR LF.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Line<'a> {
    /// It came whole: the usual case, without a copy.
    InPlace(&'a [u8]),
    Joined(Vec<u8>),
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
    pub(crate) fn take<'a>(&mut self, bytes: &'a [u8], len_max: usize) -> (usize, Option<Line<'a>>) {
        let Some(end) = line_end(bytes, self.after_cr) else {
            self.keep(bytes, len_max);
            return (bytes.len(), None);
        };
        let Lines { mut partial, skipping, .. } = std::mem::take(self);
        let line = if skipping || partial.len() + end > len_max {
            Line::TooLong
        } else if partial.is_empty() {
            Line::InPlace(&bytes[..end - 2])
        } else {
            partial.extend_from_slice(&bytes[..end]);
            partial.truncate(partial.len() - 2);
            Line::Joined(partial)
        };
        (end, Some(line))
    }

    fn keep(&mut self, bytes: &[u8], len_max: usize) {
        self.after_cr = bytes.last().map_or(self.after_cr, |octet| *octet == b'\r');
        self.skipping |= self.partial.len() + bytes.len() > len_max;
        if self.skipping {
            self.partial = Vec::new();
        } else {
            self.partial.extend_from_slice(bytes);
        }
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.partial.capacity()
    }

    /// True between two lines.
    pub(crate) fn is_empty(&self) -> bool {
        self.partial.is_empty() && !self.skipping
    }
}

/// Where the first line ends, its CR LF included.
fn line_end(bytes: &[u8], after_cr: bool) -> Option<usize> {
    memchr_iter(b'\n', bytes)
        .find(|at| at.checked_sub(1).map_or(after_cr, |before| bytes[before] == b'\r'))
        .map(|at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes all lines from pieces of `piece_len` octets.
    fn lines(bytes: &[u8], piece_len: usize) -> Vec<Option<Vec<u8>>> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for piece in bytes.chunks(piece_len) {
            let mut at = 0;
            while at < piece.len() {
                let (used, line) = lines.take(&piece[at..], 10);
                at += used;
                found.extend(line.map(|line| match line {
                    Line::InPlace(line) => Some(line.to_vec()),
                    Line::Joined(line) => Some(line),
                    Line::TooLong => None,
                }));
            }
        }
        found
    }

    #[test]
    fn only_cr_lf_ends_a_line_wherever_it_is_cut() {
        let expected = [b"a\nb".as_slice(), b"", b"c\rd\r"].map(|line| Some(line.to_vec()));
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
    fn too_long_line_holds_no_memory() {
        let mut lines = Lines::default();
        lines.take(&[b'a'; 1000], 10);
        assert_eq!(lines.partial.capacity(), 0);
        assert!(!lines.is_empty());
    }
}
