//! How text is coded in mail: charsets, encoded words (RFC 2047), quoted-printable and base64 (RFC 2045), folded lines.
//!
//! Readers take what real mail has, writers write what every reader takes: UTF-8, no line above 76 octets where it can
//! be folded, and none that begins with a hyphen or a dot where a text is quoted-printable, so that no text can end a
//! part or a message. Nothing here panics on any octets.

pub(crate) mod base64_lines;
pub(crate) mod charset;
pub(crate) mod encoded_word;
pub(crate) mod header_text;
pub(crate) mod line;
pub(crate) mod quoted_printable;
pub(crate) mod url;

/// How a text is sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum TextCoding {
    QuotedPrintable,
    Base64,
}

impl TextCoding {
    /// The shorter one: an octet beyond ASCII is three in quoted-printable, and any is four thirds in base64.
    pub(crate) fn of(text: &str) -> TextCoding {
        let beyond_ascii = text.bytes().filter(|octet| !octet.is_ascii()).count();
        if beyond_ascii * 6 > text.len() { TextCoding::Base64 } else { TextCoding::QuotedPrintable }
    }

    /// What `Content-Transfer-Encoding` says of it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            TextCoding::QuotedPrintable => "quoted-printable",
            TextCoding::Base64 => "base64",
        }
    }
}

/// Gives `each` the text with line ends of any kind as CR LF.
pub(crate) fn with_crlf(text: &[u8], mut each: impl FnMut(&[u8])) {
    let mut rest = text;
    while let Some(at) = memchr::memchr2(b'\r', b'\n', rest) {
        each(&rest[..at]);
        each(b"\r\n");
        rest = &rest[at + if rest[at..].starts_with(b"\r\n") { 2 } else { 1 }..];
    }
    each(rest);
}
