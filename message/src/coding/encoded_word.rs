//! Encoded words: text beyond ASCII in a header (RFC 2047).
//!
//! Written in UTF-8, by Q where most of it is ASCII and by B else; a word never parts a character, and is one that may
//! stand in a phrase (§5 (3)). Read in any charset; words of one charset that follow one another are read as one
//! text, because some writers part characters between them. More is read than may be written: a word may be longer than
//! 75 octets and have spaces in it.

use super::{charset, quoted_printable};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Longest encoded word (§2).
pub(crate) const WORD_MAX: usize = 75;

/// `=?UTF-8?Q?` and `?=`.
const FRAME: usize = 12;

/// Room that a word must have: for its frame and a character of four octets.
pub(crate) const ROOM_MIN: usize = FRAME + 12;

/// Longest word that is read.
const READ_MAX: usize = 4096;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Coding {
    Q,
    B,
}

impl Coding {
    /// Q can be read by people, while at most half of it is escaped.
    pub(crate) fn of(text: &str) -> Coding {
        let escaped = text.bytes().filter(|octet| !is_safe(*octet) && *octet != b' ').count();
        if escaped * 2 > text.len() { Coding::B } else { Coding::Q }
    }
}

/// Octets that stand for themselves anywhere an encoded word may stand.
fn is_safe(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"!*+-/".contains(&octet)
}

/// Appends a word of at most `max` octets, but at least [`ROOM_MIN`], for the beginning of `text`. Returns how many
/// octets of `text` it says: at least one character.
pub(crate) fn put(coding: Coding, text: &str, max: usize, out: &mut Vec<u8>) -> usize {
    let room = max.clamp(ROOM_MIN, WORD_MAX) - FRAME;
    let said = match coding {
        Coding::Q => {
            out.extend_from_slice(b"=?UTF-8?Q?");
            put_q(text, room, out)
        }
        Coding::B => {
            out.extend_from_slice(b"=?UTF-8?B?");
            put_b(text, room, out)
        }
    };
    out.extend_from_slice(b"?=");
    said
}

fn put_q(text: &str, room: usize, out: &mut Vec<u8>) -> usize {
    let end = out.len() + room;
    for (at, char) in text.char_indices() {
        let safe = char.is_ascii() && (is_safe(char as u8) || char == ' ');
        if out.len() + if safe { 1 } else { 3 * char.len_utf8() } > end {
            return at;
        }
        for octet in char.encode_utf8(&mut [0; 4]).bytes() {
            match octet {
                b' ' => out.push(b'_'),
                _ if safe => out.push(octet),
                _ => out.extend_from_slice(&quoted_printable::hex(octet)),
            }
        }
    }
    text.len()
}

fn put_b(text: &str, room: usize, out: &mut Vec<u8>) -> usize {
    let said = text.floor_char_boundary(room / 4 * 3);
    let mut coded = [0; WORD_MAX];
    let len = STANDARD.encode_slice(&text[..said], &mut coded).unwrap_or(0); // 45 octets are 60 letters
    out.extend_from_slice(&coded[..len]);
    said
}

/// The text of the encoded words that `text` begins with, and their length with what is between them. Silent if it does
/// not begin with one that can be read.
pub(crate) fn read(text: &str) -> Option<(String, usize)> {
    let (mut read, mut len) = (String::new(), 0);
    let mut open: Option<(&str, Vec<u8>)> = None;
    while let Some(word) = Word::at(&text[len..], len > 0) {
        let octets = word.octets()?;
        match &mut open {
            Some((charset, all)) if charset.eq_ignore_ascii_case(word.charset) => all.extend(octets),
            _ => {
                flush(&mut open, &mut read)?;
                open = Some((word.charset, octets));
            }
        }
        len += word.len;
    }
    flush(&mut open, &mut read)?;
    (len > 0).then_some((read, len))
}

fn flush(open: &mut Option<(&str, Vec<u8>)>, read: &mut String) -> Option<()> {
    if let Some((label, octets)) = open.take() {
        read.push_str(&charset::decode(label, &octets).ok()?);
    }
    Some(())
}

/// One word, taken apart.
struct Word<'a> {
    charset: &'a str,
    coding: Coding,
    text: &'a str,
    /// Octets with the white space before it.
    len: usize,
}

impl<'a> Word<'a> {
    /// The word that `text` begins with; behind another one, with white space before it.
    fn at(text: &'a str, follows: bool) -> Option<Word<'a>> {
        let trimmed = text.trim_start_matches([' ', '\t', '\r', '\n']);
        let blanks = text.len() - trimmed.len();
        if follows != (blanks > 0) {
            return None;
        }
        let near = &trimmed[..trimmed.floor_char_boundary(READ_MAX)];
        let (charset, rest) = near.strip_prefix("=?")?.split_once('?')?;
        let (coding, rest) = rest.split_once('?')?;
        let coded = &rest[..rest.find("?=")?];
        let coding = match coding {
            "q" | "Q" => Coding::Q,
            "b" | "B" => Coding::B,
            _ => return None,
        };
        let is_token = |char: char| char.is_ascii_graphic() && !"()<>@,;:\"/[]?=".contains(char);
        if charset.is_empty() || !charset.chars().all(is_token) || coded.contains(['\r', '\n']) {
            return None;
        }
        // RFC 2231 §5: a language may follow the charset.
        let charset = charset.split_once('*').map_or(charset, |(charset, _)| charset);
        let len = coded.as_ptr().addr() + coded.len() + 2 - text.as_ptr().addr();
        Some(Word { charset, coding, text: coded, len })
    }

    fn octets(&self) -> Option<Vec<u8>> {
        match self.coding {
            Coding::B => super::base64_lines::decode(self.text.as_bytes()),
            Coding::Q => {
                let spaced = self.text.replace('_', " ");
                Some(quoted_printable::decode(spaced.as_bytes()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(text: &str, max: usize) -> Vec<String> {
        let (mut rest, mut words) = (text, Vec::new());
        while !rest.is_empty() {
            let mut out = Vec::new();
            let said = put(Coding::of(text), rest, max, &mut out);
            rest = &rest[said..];
            words.push(String::from_utf8(out).unwrap());
        }
        words
    }

    #[test]
    fn mostly_ascii_is_q_and_the_rest_is_b() {
        assert_eq!(words("Grüße an alle, Ann", 75), ["=?UTF-8?Q?Gr=C3=BC=C3=9Fe_an_alle=2C_Ann?="]);
        assert_eq!(words("привет", 75), ["=?UTF-8?B?0L/RgNC40LLQtdGC?="]);
    }

    #[test]
    fn words_of_any_charset_are_read() {
        let read = |text: &str| read(text).map(|(text, len)| format!("{text}|{len}"));
        assert_eq!(read("=?iso-8859-1?q?Zo=EB_?= x").as_deref(), Some("Zoë |23"));
        assert_eq!(read("=?utf-8*de?B?w6k=?=\r\n =?UTF-8?Q?_a?=").as_deref(), Some("é a|36"));
        // A character in two words.
        assert_eq!(read("=?utf-8?Q?=C3?= =?utf-8?Q?=A9?=").as_deref(), Some("é|31"));
        assert_eq!(read("=?utf-8?Q?a?==?utf-8?Q?b?=").as_deref(), Some("a|13"));
        for none in
            ["=?", "=?x", "=?utf-8?Q?a", "=?utf-8?X?a?=", "=?x-none?Q?a?=", " =?utf-8?Q?a?=", "=??Q?a?="]
        {
            assert_eq!(read(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(text in "\\PC{1,200}", max in 0usize..90) {
            let words = words(&text, max);
            for word in &words {
                prop_assert!(word.len() <= WORD_MAX.min(max.max(ROOM_MIN)), "{}", word);
            }
            let joined = words.join(" ");
            prop_assert_eq!(read(&joined), Some((text, joined.len())));
        }

        #[test]
        fn reading_never_panics(text in "(=\\?|[uUtTfF8?QqBb_=*-]|\\PC){0,60}") {
            let _ = read(&text);
        }
    }
}
