//! What a server said: code, enhanced code, text (RFC 5321 §4.2, RFC 3463).
//!
//! Text from a peer is made safe to log and to quote in a bounce when it comes in: control characters become
//! spaces, bytes that are not UTF-8 become `?`. Bound: [`TEXT_MAX`] octets are kept.

use smallvec::SmallVec;
use std::fmt;

/// Octets of a reply's text that are kept; the rest helps nobody.
pub const TEXT_MAX: usize = 480;

/// `5.1.1`: class, subject, detail (RFC 3463 §2).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct EnhancedCode(pub u8, pub u16, pub u16);

impl EnhancedCode {
    /// Reads `5.1.1` at the start of a reply's text; returns it and the text after it.
    pub fn parse_prefix(text: &[u8]) -> Option<(EnhancedCode, &[u8])> {
        let end = memchr::memchr2(b' ', b'\r', text).unwrap_or(text.len());
        let mut parts = std::str::from_utf8(&text[..end]).ok()?.split('.');
        let class = parts.next().filter(|class| matches!(*class, "2" | "4" | "5"))?.parse().ok()?;
        let (subject, detail) = (number(parts.next()?)?, number(parts.next()?)?);
        let rest = text[end..].strip_prefix(b" ").unwrap_or(&text[end..]);
        parts.next().is_none().then_some((EnhancedCode(class, subject, detail), rest))
    }
}

fn number(text: &str) -> Option<u16> {
    (text.len() <= 3 && text.bytes().all(|octet| octet.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

impl fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// A reply, from a peer or made here in a peer's place (a refused connection is a `451` of ours).
/// No allocation while the text has at most 56 octets.
#[derive(Clone, Eq, PartialEq)]
pub struct Reply {
    pub code: u16,
    pub enhanced: Option<EnhancedCode>,
    /// UTF-8 without control characters; the lines of a multi-line reply are joined by a space.
    text: SmallVec<[u8; 56]>,
}

impl Reply {
    /// `text` may be anything; it is cut and cleaned.
    pub fn new(code: u16, enhanced: Option<EnhancedCode>, text: &[u8]) -> Reply {
        let mut reply = Reply { code, enhanced, text: SmallVec::new() };
        reply.push_text(text);
        reply
    }

    /// A reply of our own: code, enhanced code, text.
    pub fn ours(code: u16, enhanced: (u8, u16, u16), text: &str) -> Reply {
        Reply::new(code, Some(EnhancedCode(enhanced.0, enhanced.1, enhanced.2)), text.as_bytes())
    }

    /// Appends a further line's text.
    pub fn push_line(&mut self, text: &[u8]) {
        self.push_text(b" ");
        self.push_text(text);
    }

    fn push_text(&mut self, text: &[u8]) {
        let room = TEXT_MAX.saturating_sub(self.text.len());
        let text = &text[..text.len().min(room)];
        if text.iter().all(|octet| (32..127).contains(octet)) {
            self.text.extend_from_slice(text);
        } else {
            let clean = String::from_utf8_lossy(text).replace(char::is_control, " ").replace('\u{fffd}', "?");
            self.text.extend_from_slice(clean.as_bytes());
        }
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.text).unwrap_or("?")
    }

    pub fn is_positive(&self) -> bool {
        (200..400).contains(&self.code)
    }

    /// 5xx.
    pub fn is_permanent(&self) -> bool {
        (500..600).contains(&self.code)
    }
}

/// `550 5.1.1 No such user`.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
        }
        if self.text.is_empty() { Ok(()) } else { write!(f, " {}", self.text()) }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enhanced_code_is_taken_from_the_text() {
        assert_eq!(EnhancedCode::parse_prefix(b"5.1.1 No"), Some((EnhancedCode(5, 1, 1), &b"No"[..])));
        for text in [&b"3.1.1 x"[..], b"5.1", b"5.1.1111 x", b"5.1.1.1 x", b"No such user", b""] {
            assert_eq!(EnhancedCode::parse_prefix(text), None, "{text:?}");
        }
    }

    #[test]
    fn text_of_a_peer_is_made_safe() {
        let reply = Reply::new(550, None, b"bad\x00\x1b[31m \xff end");
        assert_eq!(reply.to_string(), "550 bad  [31m ? end");
        assert_eq!(Reply::new(250, None, &[b'a'; 9000]).text().len(), TEXT_MAX);
    }
}
