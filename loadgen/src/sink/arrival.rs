//! A message's content as it arrives: the end of data found, dots unstuffed, token and digest taken.
//!
//! The digest covers the content from the line `X-Loadgen:` on, because what a relay adds goes above it; without
//! that line, the whole. Only CRLF "." CRLF ends the data: a bare LF ends nothing. Content is stored only if that
//! is asked for; what is held back else is at most `HEAD_MAX` bytes of a header in which the token is still to come.

use std::sync::LazyLock;

use memchr::memmem::{self, Finder};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::content::TOKEN_HEADER;

const HEAD_MAX: usize = 64 * 1024;
const TOKEN_MAX: usize = 64;

static TOKEN_LINE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(TOKEN_HEADER));
static STUFFED: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n."));

/// One message's content, reused for the next.
pub(crate) struct Arrival {
    /// The header so far, while the token may still come.
    head: Vec<u8>,
    seeking: bool,
    hash: Xxh3,
    /// Some when the only piece hashed so far needed no state: one call of the one-shot function.
    single: Option<u64>,
    token: [u8; TOKEN_MAX],
    token_len: usize,
    size_bytes: u64,
    keeps: bool,
    /// All of it, if it is kept.
    kept: Vec<u8>,
}

impl Arrival {
    pub(crate) fn new(keeps: bool) -> Arrival {
        let (head, hash) = (Vec::new(), Xxh3::new());
        Arrival {
            head,
            seeking: true,
            hash,
            single: None,
            token: [0; TOKEN_MAX],
            token_len: 0,
            size_bytes: 0,
            keeps,
            kept: Vec::new(),
        }
    }

    pub(crate) fn clear(&mut self) {
        if !self.seeking && self.single.is_none() {
            self.hash.reset();
        }
        self.head.clear();
        self.kept.clear();
        (self.seeking, self.single, self.token_len, self.size_bytes) = (true, None, 0, 0);
    }

    pub(crate) fn token(&self) -> &[u8] {
        &self.token[..self.token_len]
    }

    /// Empty unless it is kept.
    pub(crate) fn kept(&self) -> &[u8] {
        &self.kept
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.count(bytes);
        match (self.seeking, self.head.is_empty()) {
            (false, _) => self.hash.update(bytes),
            (true, true) => self.seek(bytes, false),
            (true, false) => self.seek_in_head(bytes, false),
        }
    }

    /// Takes the last piece and gives the digest. One pass and no state where it is also the first.
    pub(crate) fn finish(&mut self, bytes: &[u8]) -> u64 {
        self.count(bytes);
        match (self.seeking, self.head.is_empty()) {
            (false, _) => self.hash.update(bytes),
            (true, true) => self.seek(bytes, true),
            (true, false) => self.seek_in_head(bytes, true),
        }
        self.single.unwrap_or_else(|| self.hash.digest())
    }

    fn count(&mut self, bytes: &[u8]) {
        self.size_bytes += bytes.len() as u64;
        if self.keeps {
            self.kept.extend_from_slice(bytes);
        }
    }

    fn seek_in_head(&mut self, bytes: &[u8], is_last: bool) {
        let mut head = std::mem::take(&mut self.head);
        head.extend_from_slice(bytes);
        self.seek(&head, is_last);
        if self.head.is_empty() {
            head.clear();
            self.head = head;
        }
    }

    fn seek(&mut self, bytes: &[u8], is_last: bool) {
        let start = match locate(bytes) {
            Located::Token { start, value } => {
                self.take_token(value);
                start
            }
            Located::Absent => 0,
            Located::Later if is_last || bytes.len() > HEAD_MAX => 0,
            Located::Later => return self.head.extend_from_slice(bytes),
        };
        self.seeking = false;
        match is_last {
            true => self.single = Some(xxh3_64(&bytes[start..])),
            false => self.hash.update(&bytes[start..]),
        }
    }

    /// A token that would not fit its field in the audit file is no token of ours.
    fn take_token(&mut self, value: &[u8]) {
        let value = value.trim_ascii();
        if value.len() <= TOKEN_MAX && value.iter().all(u8::is_ascii_graphic) {
            self.token[..value.len()].copy_from_slice(value);
            self.token_len = value.len();
        }
    }
}

enum Located<'a> {
    Token {
        start: usize,
        value: &'a [u8],
    },
    /// The header is over without one.
    Absent,
    /// The header goes on.
    Later,
}

fn locate(bytes: &[u8]) -> Located<'_> {
    let at_line_start = |at: &usize| *at == 0 || bytes[*at - 1] == b'\n';
    let start = memmem_iter(&TOKEN_LINE, bytes).find(at_line_start);
    let header = &bytes[..start.unwrap_or(bytes.len())];
    if header.starts_with(b"\r\n") || memmem::find(header, b"\r\n\r\n").is_some() {
        return Located::Absent;
    }
    let Some(start) = start else { return Located::Later };
    let value = &bytes[start + TOKEN_HEADER.len()..];
    memchr::memchr(b'\n', value).map_or(Located::Later, |end| Located::Token { start, value: &value[..end] })
}

fn memmem_iter<'h>(finder: &'h Finder<'static>, bytes: &'h [u8]) -> impl Iterator<Item = usize> + 'h {
    finder.find_iter(bytes)
}

/// Where the last byte left us in the line structure of DATA.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum DataPlace {
    LineStart,
    Middle,
    Cr,
    Dot,
    DotCr,
}

impl DataPlace {
    /// Feeds `arrival` the unstuffed content. At the end of data: how many bytes that took, and the digest.
    pub(crate) fn take(&mut self, bytes: &[u8], arrival: &mut Arrival) -> Option<(usize, u64)> {
        let (mut at, mut from) = (0, 0);
        while at < bytes.len() {
            match (*self, bytes[at]) {
                (DataPlace::LineStart, b'.') => {
                    // The piece before the dot is fed once we know that it is not the last.
                    if let Some(len) = ends_at(&bytes[at..]) {
                        return Some((at + len, arrival.finish(&bytes[from..at])));
                    }
                    arrival.feed_some(&bytes[from..at]);
                    (*self, from, at) = (DataPlace::Dot, at + 1, at + 1);
                }
                (DataPlace::DotCr, b'\n') => return Some((at + 1, arrival.finish(b""))),
                (DataPlace::DotCr, _) => {
                    arrival.feed(b"\r");
                    (*self, from) = (DataPlace::Cr, at);
                }
                (DataPlace::Dot, b'\r') => (*self, from, at) = (DataPlace::DotCr, at + 1, at + 1),
                (DataPlace::Cr, b'\n') => (*self, at) = (DataPlace::LineStart, at + 1),
                (DataPlace::LineStart | DataPlace::Dot | DataPlace::Cr, _) => *self = DataPlace::Middle,
                (DataPlace::Middle, _) => (*self, at) = skip_to_dot(bytes, at),
            }
        }
        arrival.feed_some(&bytes[from..]);
        None
    }
}

impl Arrival {
    fn feed_some(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.feed(bytes);
        }
    }
}

/// "." CRLF at once, if all of it is here.
fn ends_at(bytes: &[u8]) -> Option<usize> {
    bytes.starts_with(b".\r\n").then_some(3)
}

/// From the middle of a line to the next line that begins with a dot, or to the end of what is here.
fn skip_to_dot(bytes: &[u8], at: usize) -> (DataPlace, usize) {
    match STUFFED.find(&bytes[at..]) {
        Some(found) => (DataPlace::LineStart, at + found + 2),
        None if bytes[at..].ends_with(b"\r\n") => (DataPlace::LineStart, bytes.len()),
        None if bytes.ends_with(b"\r") => (DataPlace::Cr, bytes.len()),
        None => (DataPlace::Middle, bytes.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digest, token and rest that come out when `wire` arrives in pieces of `piece` bytes.
    fn data(wire: &[u8], piece: usize) -> (u64, Vec<u8>, usize) {
        let (mut arrival, mut place, mut used) = (Arrival::new(true), DataPlace::LineStart, 0);
        for bytes in wire.chunks(piece) {
            if let Some((took, digest)) = place.take(bytes, &mut arrival) {
                assert!(
                    !arrival.token().is_empty() || xxh3_64(arrival.kept()) == digest,
                    "all of it is kept"
                );
                return (digest, arrival.token().to_vec(), used + took);
            }
            used += bytes.len();
        }
        panic!("no end of data in {wire:?} by {piece}");
    }

    #[test]
    fn data_is_unstuffed_however_it_is_cut() {
        let cases: [(&[u8], &[u8]); 8] = [
            (b"a\r\nb\r\n.\r\n", b"a\r\nb\r\n"),
            (b".\r\n", b""),
            (b"..\r\n.\r\n", b".\r\n"),
            (b"a\n.\nb\r\n.\r\n", b"a\n.\nb\r\n"),
            (b"a\r\n.x\r\n..\r\r\n.\r\n", b"a\r\nx\r\n.\r\r\n"),
            (b".\rx\r\n.\r\n", b"\rx\r\n"),
            (b"\r\r\n..a\r\n\r\n.\r\n", b"\r\r\n.a\r\n\r\n"),
            (b"x\r\n.\r\r\n.\r\n", b"x\r\n\r\r\n"),
        ];
        for (wire, content) in cases {
            let mut followed = wire.to_vec();
            followed.extend_from_slice(b"MAIL");
            for piece in 1..=followed.len() {
                assert_eq!(
                    data(&followed, piece),
                    (xxh3_64(content), vec![], wire.len()),
                    "{wire:?} by {piece}"
                );
            }
        }
    }

    #[test]
    fn the_digest_begins_at_the_token_below_what_relays_added() {
        let ours = b"X-Loadgen: ab-7\r\nSubject: x\r\n\r\nX-Loadgen: not this\r\n";
        let wire = [&b"Received: by a\r\n\tX-Loadgen: nor this\r\n"[..], ours, b".\r\n"].concat();
        for piece in 1..=wire.len() {
            assert_eq!(data(&wire, piece), (xxh3_64(ours), b"ab-7".to_vec(), wire.len()));
        }
    }

    #[test]
    fn without_a_token_the_whole_counts() {
        for content in [
            &b"A: b\r\n\r\nX-Loadgen: in-1\r\n"[..],
            b"\r\nX-Loadgen: in-1\r\n",
            b"A: b\r\n",
            b"X-Loadgen: x",
        ] {
            for piece in 1..=content.len() {
                let mut arrival = Arrival::new(false);
                let pieces: Vec<_> = content.chunks(piece).collect();
                pieces[..pieces.len() - 1].iter().for_each(|bytes| arrival.feed(bytes));
                assert_eq!(arrival.finish(pieces[pieces.len() - 1]), xxh3_64(content));
                assert_eq!(arrival.token(), b"");
            }
        }
    }

    #[test]
    fn a_cleared_arrival_starts_over() {
        let mut arrival = Arrival::new(false);
        for content in [&b"one\r\n\r\nfirst"[..], b"X-Loadgen: a-1\r\n", b"three\r\n\r\n"] {
            arrival.clear();
            arrival.feed(&content[..3]);
            assert_eq!(arrival.finish(&content[3..]), xxh3_64(content));
            arrival.clear();
            assert_eq!(arrival.finish(content), xxh3_64(content));
        }
    }

    #[test]
    fn an_endless_header_is_not_held_back_beyond_its_bound() {
        let mut arrival = Arrival::new(false);
        for _ in 0..3000 {
            arrival.feed(&[b'x'; 100]);
            assert!(arrival.head.len() <= HEAD_MAX);
        }
        assert_eq!(arrival.size_bytes(), 300_000);
    }
}
