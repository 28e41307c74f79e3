//! What a message's content is like, found once when it comes in, so that nobody scans it again per delivery.

use crate::header::needs_no_tls;
use memchr::{memchr, memchr2, memmem};

/// Facts about content that decide how a peer can be given it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ContentFacts(u8);

impl ContentFacts {
    const EIGHT_BIT: u8 = 1;
    const DOT_LINES: u8 = 2;
    const BARE_NEWLINES: u8 = 4;
    const OPEN_END: u8 = 8;
    const SMUGGLING: u8 = 16;
    const BINARY: u8 = 32;
    const TLS_OPTIONAL: u8 = 64;

    /// Looks at the whole content once, and once more at its header.
    pub fn of(content: &[u8]) -> ContentFacts {
        let mut facts = 0;
        if !content.is_ascii() {
            facts |= Self::EIGHT_BIT;
        }
        if content.first() == Some(&b'.') || memmem::find(content, b"\r\n.").is_some() {
            facts |= Self::DOT_LINES;
        }
        if !content.ends_with(b"\r\n") {
            facts |= Self::OPEN_END;
        }
        if memchr(0, content).is_some() {
            facts |= Self::BINARY;
        }
        if needs_no_tls(content) {
            facts |= Self::TLS_OPTIONAL;
        }
        ContentFacts(facts | Self::newlines(content))
    }

    /// Finds CR and LF that are not together. Cost: one search per line.
    fn newlines(content: &[u8]) -> u8 {
        let (mut facts, mut at) = (0, 0);
        while let Some(found) = memchr2(b'\r', b'\n', &content[at..]) {
            let place = at + found;
            if content[place..].starts_with(b"\r\n") {
                at = place + 2;
                continue;
            }
            facts |= Self::BARE_NEWLINES;
            if content.get(place + 1) == Some(&b'.') {
                return facts | Self::SMUGGLING;
            }
            at = place + 1;
        }
        facts
    }

    pub fn from_bits(bits: u8) -> ContentFacts {
        ContentFacts(bits)
    }

    pub fn bits(self) -> u8 {
        self.0
    }

    /// An octet above 127: a peer must offer 8BITMIME (RFC 6152).
    pub fn has_eight_bit(self) -> bool {
        self.0 & Self::EIGHT_BIT != 0
    }

    /// A line starts with a dot: DATA needs it doubled (RFC 5321 §4.5.2), BDAT does not.
    pub fn has_dot_lines(self) -> bool {
        self.0 & Self::DOT_LINES != 0
    }

    /// A CR or LF stands alone (RFC 5321 §2.3.8 forbids it over DATA).
    pub fn has_bare_newlines(self) -> bool {
        self.0 & Self::BARE_NEWLINES != 0
    }

    /// A lone CR or LF is followed by a dot: over DATA, a lax peer could take what follows for a new message.
    pub fn could_smuggle(self) -> bool {
        self.0 & Self::SMUGGLING != 0
    }

    /// The last line is not ended: DATA would add a CR LF.
    pub fn has_open_end(self) -> bool {
        self.0 & Self::OPEN_END != 0
    }

    /// A NUL octet.
    pub fn has_nul(self) -> bool {
        self.0 & Self::BINARY != 0
    }

    /// Its header says that it would rather go without TLS than not at all (RFC 8689 §3). REQUIRETLS goes before that.
    pub fn is_tls_optional(self) -> bool {
        self.0 & Self::TLS_OPTIONAL != 0
    }
}

/// Doubles the dot that begins a line (RFC 5321 §4.5.2) and ends an open last line.
pub fn dot_stuff(content: &[u8]) -> Vec<u8> {
    let mut stuffed = Vec::with_capacity(content.len() + 64);
    if content.first() == Some(&b'.') {
        stuffed.push(b'.');
    }
    let mut from = 0;
    for line_end in memmem::find_iter(content, b"\r\n.") {
        stuffed.extend_from_slice(&content[from..line_end + 3]);
        stuffed.push(b'.');
        from = line_end + 3;
    }
    stuffed.extend_from_slice(&content[from..]);
    if !content.is_empty() && !content.ends_with(b"\r\n") {
        stuffed.extend_from_slice(b"\r\n");
    }
    stuffed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_content_has_no_special_facts() {
        assert_eq!(ContentFacts::of(b"Subject: x\r\n\r\nhello\r\n"), ContentFacts::default());
    }

    #[test]
    fn each_fact_is_found() {
        assert!(ContentFacts::of(b"\xc3\xa9\r\n").has_eight_bit());
        assert!(ContentFacts::of(b".a\r\n").has_dot_lines());
        assert!(ContentFacts::of(b"a\r\n..\r\n").has_dot_lines());
        assert!(ContentFacts::of(b"a\nb\r\n").has_bare_newlines());
        assert!(ContentFacts::of(b"a\rb\r\n").has_bare_newlines());
        assert!(!ContentFacts::of(b"a\nb\r\n").could_smuggle());
        assert!(ContentFacts::of(b"a\n.\r\n").could_smuggle());
        assert!(ContentFacts::of(b"a\r.\r\n").could_smuggle());
        assert!(ContentFacts::of(b"a\r\nb").has_open_end());
        assert!(ContentFacts::of(b"a\0\r\n").has_nul());
        assert!(ContentFacts::of(b"TLS-Required: No\r\n\r\na\r\n").is_tls_optional());
    }

    #[test]
    fn dots_at_line_starts_are_doubled_and_nothing_else() {
        assert_eq!(dot_stuff(b".a\r\n.\r\nb.c\r\n"), b"..a\r\n..\r\nb.c\r\n");
        assert_eq!(dot_stuff(b"a\r\n."), b"a\r\n..\r\n");
        assert_eq!(dot_stuff(b""), b"");
    }
}
