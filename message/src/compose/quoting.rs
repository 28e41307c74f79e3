//! Text that must be quoted to stand in a structured field, and back (RFC 5322 §3.2.4, RFC 2047).

use super::token::{Kind, Token, is_atext};
use crate::coding::encoded_word::{self, Coding, WORD_MAX};

/// `text` as a quoted string.
pub(crate) fn quoted(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 2);
    out.push(b'"');
    escape_into(text, b"\"\\", &mut out);
    out.push(b'"');
    out
}

fn escape_into(text: &[u8], special: &[u8], out: &mut Vec<u8>) {
    for octet in text {
        if special.contains(octet) {
            out.push(b'\\');
        }
        out.push(*octet);
    }
}

/// What words say together.
pub(crate) fn meanings<'t>(words: impl IntoIterator<Item = &'t Token<'t>>) -> Vec<u8> {
    let mut said = Vec::new();
    for word in words {
        if word.space && !said.is_empty() {
            said.push(b' ');
        }
        said.extend(meaning(word));
    }
    said
}

/// What a word says, without quotes and backslashes.
pub(crate) fn meaning(token: &Token<'_>) -> Vec<u8> {
    match token.kind {
        Kind::Quoted => unquoted(token.text),
        _ => without_backslashes(token.text),
    }
}

/// What a quoted string says.
pub(crate) fn unquoted(text: &[u8]) -> Vec<u8> {
    match text {
        [b'"', inner @ .., b'"'] => without_backslashes(inner),
        text => without_backslashes(text),
    }
}

fn without_backslashes(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut octets = text.iter();
    while let Some(octet) = octets.next() {
        // A backslash is always followed by something: the token would not have ended otherwise.
        out.push(if *octet == b'\\' { *octets.next().unwrap_or(octet) } else { *octet });
    }
    out
}

/// True if `text` needs no quotes as a local part: words of `atext` with single dots between them.
pub(crate) fn is_dot_atom(text: &[u8]) -> bool {
    text.split(|octet| *octet == b'.').all(|word| !word.is_empty() && word.iter().copied().all(is_atext))
}

/// A local part from anywhere, quoted if it must be. One that comes in quotes stays as it is, and so does the
/// empty one, which is no local part.
pub(crate) fn local_part(text: &str) -> Vec<u8> {
    let is_quoted = text.len() > 1 && text.starts_with('"') && text.ends_with('"');
    if text.is_empty() || is_quoted || is_dot_atom(text.as_bytes()) {
        text.into()
    } else {
        quoted(text.as_bytes())
    }
}

/// A person's name in front of an address: words as they are, quoted, or encoded.
pub(crate) fn phrase(name: &str) -> Vec<u8> {
    let name = one_line(name);
    if !name.is_ascii() {
        return encoded(&name);
    }
    let plain = name.bytes().all(|octet| is_atext(octet) || octet == b' ');
    // What looks like an encoded word and is none would be decoded.
    if plain && !name.contains("=?") { name.into() } else { quoted(name.as_bytes()) }
}

/// A person's name behind an address.
pub(crate) fn comment(name: &str) -> Vec<u8> {
    let name = one_line(name);
    let mut out = vec![b'('];
    if name.is_ascii() {
        escape_into(name.as_bytes(), b"()\\", &mut out);
    } else {
        out.extend(encoded(&name));
    }
    out.push(b')');
    out
}

/// Control characters have no place in a name, line ends least of all.
fn one_line(name: &str) -> String {
    let clean: String = name.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    clean.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// As many encoded words as it takes.
fn encoded(text: &str) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::with_capacity(text.len() * 2), text);
    while !rest.is_empty() {
        if !out.is_empty() {
            out.push(b' ');
        }
        rest = &rest[encoded_word::put(Coding::Q, rest, WORD_MAX, &mut out)..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(octets: Vec<u8>) -> String {
        String::from_utf8(octets).unwrap()
    }

    #[test]
    fn names_are_quoted_as_little_as_they_can_be() {
        assert_eq!(text(phrase("Ann Example")), "Ann Example");
        assert_eq!(text(phrase("Ann B. Example")), "\"Ann B. Example\"");
        assert_eq!(text(phrase("A \"b\" \\c")), r#""A \"b\" \\c""#);
        assert_eq!(text(phrase("Zoë")), "=?UTF-8?Q?Zo=C3=AB?=");
        assert_eq!(text(phrase("=?x?q?y?=")), "\"=?x?q?y?=\"");
        assert_eq!(text(phrase("a\r\nBcc: b@c")), "\"a Bcc: b@c\"");
        assert_eq!(text(comment("Ann (home)")), r"(Ann \(home\))");
        assert_eq!(text(comment("Zoë (x)")), "(=?UTF-8?Q?Zo=C3=AB_=28x=29?=)");
    }

    #[test]
    fn long_names_take_several_encoded_words() {
        let name = "é".repeat(40);
        let words = text(phrase(&name));
        assert!(words.split(' ').all(|word| word.len() <= WORD_MAX), "{words}");
        assert_eq!(words.matches("=C3=A9").count(), 40);
    }

    #[test]
    fn local_parts_are_quoted_only_if_they_must_be() {
        assert_eq!(text(local_part("ann.b+c")), "ann.b+c");
        assert_eq!(text(local_part("a b@c")), "\"a b@c\"");
        assert_eq!(text(local_part("a..b")), "\"a..b\"");
        assert_eq!(text(local_part("\"a b\"")), "\"a b\"");
        assert_eq!(text(local_part("")), "");
    }
}
