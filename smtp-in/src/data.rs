//! Content that comes by DATA: finds its end and takes the doubled dots out (RFC 5321 §4.5.2).
//!
//! Only CR LF `.` CR LF ends content, and only a dot after CR LF (or at the very start) is a doubled one. A CR or
//! LF that stands alone is content like any other octet: servers that took `LF . LF` or `LF . CR LF` for an end,
//! or `CR LF . LF`, let a message smuggle in another.
//!
//! Holds no content, only where the last octet stood, so that content may be cut anywhere.

use crate::transaction::Content;
use memchr::memmem::Finder;

/// What came just before the next octet. The dot and the CR of `AfterDot` and `AfterDotCr` are held back:
/// they are content only if what follows does not make them an end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    Text,
    AfterCr,
    LineStart,
    AfterDot,
    AfterDotCr,
}

/// Where we are in content that comes by DATA.
#[derive(Debug)]
pub(crate) struct DataReader {
    place: Place,
}

/// How far a read went.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Progress {
    /// All octets are used; more content follows.
    More,
    /// The content ended; so many octets were used, its final dot line included.
    End(usize),
}

impl DataReader {
    pub(crate) fn new() -> DataReader {
        DataReader { place: Place::LineStart }
    }

    /// Appends to `content` in slices. Cost: one search per line that begins with a dot.
    pub(crate) fn read(&mut self, bytes: &[u8], content: &mut Content) -> Progress {
        let dot_line = Finder::new(b"\r\n.");
        let mut at = 0;
        while at < bytes.len() {
            match (self.place, bytes[at]) {
                (Place::AfterDotCr, b'\n') => return Progress::End(at + 1),
                (Place::LineStart, b'.') => self.step(&mut at, Place::AfterDot),
                (Place::AfterDot, b'\r') => self.step(&mut at, Place::AfterDotCr),
                (Place::AfterCr, b'\n') => {
                    content.append(b"\n");
                    self.step(&mut at, Place::LineStart);
                }
                (Place::AfterDotCr, _) => {
                    content.append(b"\r");
                    self.place = Place::AfterCr;
                }
                // The dot was a doubled one and goes.
                (Place::AfterDot, _) => self.place = Place::Text,
                (Place::Text | Place::AfterCr | Place::LineStart, _) => {
                    at += self.read_text(&dot_line, &bytes[at..], content);
                }
            }
        }
        Progress::More
    }

    fn step(&mut self, at: &mut usize, place: Place) {
        *at += 1;
        self.place = place;
    }

    /// Everything up to the next line that begins with a dot.
    fn read_text(&mut self, dot_line: &Finder<'_>, text: &[u8], content: &mut Content) -> usize {
        if let Some(found) = dot_line.find(text) {
            content.append(&text[..found + 2]);
            self.place = Place::AfterDot;
            return found + 3;
        }
        content.append(text);
        self.place = match text {
            [.., b'\r', b'\n'] => Place::LineStart,
            [.., b'\r'] => Place::AfterCr,
            _ => Place::Text,
        };
        text.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The content and how many octets were used, if it ended.
    fn read(wire: &[u8], piece_len: usize) -> (Vec<u8>, Option<usize>) {
        let (mut reader, mut content) = (DataReader::new(), Content::with_len_max(1000));
        for (index, piece) in wire.chunks(piece_len).enumerate() {
            if let Progress::End(used) = reader.read(piece, &mut content) {
                return (content.into_vec(), Some(index * piece_len + used));
            }
        }
        (content.into_vec(), None)
    }

    /// `wire` ends in an end; what follows it stays unread.
    fn reads_as(wire: &[u8], expected: &[u8]) {
        let followed = [wire, b"QUIT\r\n"].concat();
        for piece_len in 1..=followed.len() {
            let (content, used) = read(&followed, piece_len);
            assert_eq!(
                content.escape_ascii().to_string(),
                expected.escape_ascii().to_string(),
                "{piece_len}"
            );
            assert_eq!(used, Some(wire.len()), "{piece_len}");
        }
    }

    #[test]
    fn only_cr_lf_dot_cr_lf_ends_content() {
        for false_end in [
            &b"\n.\n"[..],
            b"\r.\r",
            b"\n.\r\n",
            b"\r.\r\n",
            b"\r\n.\n",
            b"\r\n.\r",
            b"\r\n.\rx\n",
            b"\r\n.\r\r\n",
            b"\r\n. \r\n",
            b"\r\n\0.\r\n",
        ] {
            let mut wire = [b"a", false_end, b"b"].concat();
            assert_eq!(read(&wire, wire.len()).1, None, "{}", false_end.escape_ascii());
            wire.extend_from_slice(b"\r\n.\r\nQUIT");
            for piece_len in 1..=wire.len() {
                let end = wire.len() - 4;
                assert_eq!(read(&wire, piece_len).1, Some(end), "{} {piece_len}", false_end.escape_ascii());
            }
        }
    }

    #[test]
    fn doubled_dots_are_halved_at_line_starts_alone() {
        reads_as(b"..a\r\n..\r\nb..\r\n\n..c\r\n.\r\n", b".a\r\n.\r\nb..\r\n\n..c\r\n");
    }

    #[test]
    fn bare_cr_and_lf_are_content() {
        reads_as(b"a\rb\nc\r\n.\rd\r\r\n.\ne\r\n.\r\n", b"a\rb\nc\r\n\rd\r\r\n\ne\r\n");
    }

    #[test]
    fn content_may_be_empty() {
        reads_as(b".\r\n", b"");
    }

    #[test]
    fn what_dot_stuffing_made_comes_back() {
        let content = b".\r\n..\r\nx\r\n.y\r\n\r\n.\r\n";
        let wire = [message::content::dot_stuff(content), b".\r\n".to_vec()].concat();
        reads_as(&wire, content);
    }

    proptest::proptest! {
        #[test]
        fn cuts_change_nothing(
            wire in proptest::collection::vec(proptest::sample::select(b"\r\n.a".as_slice()), 0..60),
            piece_len in 1..60usize,
        ) {
            proptest::prop_assert_eq!(read(&wire, piece_len), read(&wire, wire.len().max(1)));
        }

        /// The plainest reader there is: walk line by line.
        #[test]
        fn agrees_with_a_reader_that_splits_lines(
            wire in proptest::collection::vec(proptest::sample::select(b"\r\n.a".as_slice()), 0..60),
        ) {
            let wire = [wire, b"\r\n.\r\n".to_vec()].concat();
            let (mut plain, mut at) = (Vec::new(), 0);
            loop {
                let line_len = memchr::memmem::find(&wire[at..], b"\r\n").unwrap() + 2;
                let line = &wire[at..at + line_len];
                at += line_len;
                if line == b".\r\n" {
                    break;
                }
                plain.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
            }
            proptest::prop_assert_eq!(read(&wire, wire.len()), (plain, Some(at)));
        }
    }
}
