//! A message's content as it goes over the wire: lines end in CR LF, a dot is put before a dot that begins a line.
//!
//! An LF without a CR before it gets one; what ends in CR LF stays as it is, and so does a CR that stands alone. Content
//! without an end to its last line gets that end, and nothing else: no blank line is added (RFC 1939's clients count
//! octets). Streams: any content goes through in pieces, cut anywhere, with no more held than a few counters.

use memchr::{memchr, memchr_iter};

/// Counts the octets that a content will have, without its dots and its final dot.
#[derive(Clone, Debug, Default)]
pub struct Count {
    len: u64,
    last: Option<u8>,
}

impl Count {
    pub fn add(&mut self, content: &[u8]) {
        let bare = memchr_iter(b'\n', content)
            .filter(|at| at.checked_sub(1).map_or(self.last, |before| Some(content[before])) != Some(b'\r'))
            .count();
        self.len += content.len() as u64 + bare as u64;
        self.last = content.last().copied().or(self.last);
    }

    /// The whole.
    pub fn len(&self) -> u64 {
        let is_whole = matches!(self.last, None | Some(b'\n'));
        self.len + if is_whole { 0 } else { 2 }
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Writes a content, or its top.
#[derive(Debug)]
pub(crate) struct Encoder {
    /// Octets of the line so far, without its LF.
    line_len: u64,
    after_cr: bool,
    top: Option<Top>,
}

/// How much of a message TOP wants still.
#[derive(Debug)]
struct Top {
    in_header: bool,
    lines_left: u64,
}

impl Encoder {
    /// `lines`: of the body, if it is not wanted whole.
    pub(crate) fn new(lines: Option<u64>) -> Encoder {
        let top = lines.map(|lines_left| Top { in_header: true, lines_left });
        Encoder { line_len: 0, after_cr: false, top }
    }

    /// No more is wanted.
    pub(crate) fn is_done(&self) -> bool {
        self.top.as_ref().is_some_and(|top| !top.in_header && top.lines_left == 0)
    }

    pub(crate) fn write(&mut self, mut content: &[u8], out: &mut Vec<u8>) {
        while !content.is_empty() && !self.is_done() {
            let end = memchr(b'\n', content);
            let text = &content[..end.unwrap_or(content.len())];
            self.write_text(text, out);
            if end.is_some() {
                self.end_line(out);
            }
            content = &content[text.len() + usize::from(end.is_some())..];
        }
    }

    /// Ends the last line, and says that it was the last.
    pub(crate) fn finish(mut self, out: &mut Vec<u8>) {
        if self.line_len > 0 {
            // Whatever its last octet was: a CR without its LF is part of the line.
            self.after_cr = false;
            self.end_line(out);
        }
        out.extend_from_slice(b".\r\n");
    }

    fn write_text(&mut self, text: &[u8], out: &mut Vec<u8>) {
        if self.line_len == 0 && text.first() == Some(&b'.') {
            out.push(b'.');
        }
        out.extend_from_slice(text);
        self.line_len += text.len() as u64;
        self.after_cr = text.last().map_or(self.after_cr, |last| *last == b'\r');
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        if !self.after_cr {
            out.push(b'\r');
        }
        out.push(b'\n');
        let is_blank = self.line_len == u64::from(self.after_cr);
        (self.line_len, self.after_cr) = (0, false);
        match &mut self.top {
            Some(top) if top.in_header => top.in_header = !is_blank,
            Some(top) => top.lines_left -= 1,
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(content: &[u8], lines: Option<u64>, piece_len: usize) -> String {
        let (mut encoder, mut out) = (Encoder::new(lines), Vec::new());
        content.chunks(piece_len).for_each(|piece| encoder.write(piece, &mut out));
        encoder.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_end_in_cr_lf_and_dots_are_doubled() {
        for piece_len in 1..20 {
            let is = |content: &str, wanted: &str| {
                assert_eq!(encoded(content.as_bytes(), None, piece_len), wanted, "pieces of {piece_len}");
            };
            is("", ".\r\n");
            is("a\n.\n..b\nc.d\n", "a\r\n..\r\n...b\r\nc.d\r\n.\r\n");
            is("a\r\n.b\r\n", "a\r\n..b\r\n.\r\n");
            is("no end", "no end\r\n.\r\n");
            is("\n\n", "\r\n\r\n.\r\n");
            is(".", "..\r\n.\r\n");
            is("a\rb\n\r\r\nc\r", "a\rb\r\n\r\r\nc\r\r\n.\r\n");
        }
    }

    #[test]
    fn top_is_the_header_its_blank_line_and_so_many_lines() {
        for piece_len in 1..20 {
            let is = |content: &str, lines: u64, wanted: &str| {
                let found = encoded(content.as_bytes(), Some(lines), piece_len);
                assert_eq!(found, wanted, "{lines} lines in pieces of {piece_len}");
            };
            is("A: b\n\nc\nd\n", 0, "A: b\r\n\r\n.\r\n");
            is("A: b\r\n\r\nc\r\nd\r\n", 1, "A: b\r\n\r\nc\r\n.\r\n");
            is("A: b\n\nc\nd\n", 2, "A: b\r\n\r\nc\r\nd\r\n.\r\n");
            is("A: b\n\nc\nd", u64::MAX, "A: b\r\n\r\nc\r\nd\r\n.\r\n");
            is("A: b\n", 5, "A: b\r\n.\r\n");
            is("\nc\nd\n", 1, "\r\nc\r\n.\r\n");
        }
    }

    #[test]
    fn the_count_is_what_is_sent_without_its_dots() {
        for content in ["", "a", "a\n", "a\r\nb", "\n\n", "a\r", "\r\n\r", "a\rb\n", "\r\r\n"] {
            for piece_len in 1..6 {
                let mut count = Count::default();
                content.as_bytes().chunks(piece_len).for_each(|piece| count.add(piece));
                let sent = encoded(content.as_bytes(), None, piece_len).len() - 3;
                assert_eq!(count.len(), sent as u64, "{content:?} in pieces of {piece_len}");
            }
        }
    }
}
