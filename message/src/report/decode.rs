//! Encodings of mail undone, leniently: base64, quoted-printable, encoded words, HTML's marks.
//!
//! What is wrong in them is left out or left as it is: nobody will send it again. No output is longer than what went in
//! (text of one octet a character: twice that).

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// RFC 2045 §6.8, up to the first `=`; what is no letter of it is passed over.
pub(super) fn base64(coded: &[u8]) -> Vec<u8> {
    let letters = coded.iter().copied().take_while(|octet| *octet != b'=');
    let mut letters: Vec<u8> =
        letters.filter(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'+' | b'/')).collect();
    if letters.len() % 4 == 1 {
        letters.pop();
    }
    LENIENT.decode(letters).unwrap_or_default()
}

/// RFC 2045 §6.7, of a text whose lines end in LF. A `=` that begins nothing stays.
pub(super) fn quoted_printable(coded: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(coded.len());
    let mut rest = coded;
    while let Some((octet, tail)) = rest.split_first() {
        rest = match (octet, tail) {
            (b'=', [b'\n', after @ ..]) => after,
            (b'=', [high, low, after @ ..]) if let Some(octet) = hex_pair(*high, *low) => {
                out.push(octet);
                after
            }
            _ => {
                out.push(*octet);
                tail
            }
        };
    }
    out
}

fn hex_pair(high: u8, low: u8) -> Option<u8> {
    let digit = |octet: u8| char::from(octet).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

/// UTF-8 as it is; else each octet is a character, as in the character sets of the West.
pub(super) fn text(octets: &[u8]) -> String {
    match std::str::from_utf8(octets) {
        Ok(text) => text.to_owned(),
        Err(_) => octets.iter().copied().map(char::from).collect(),
    }
}

/// Encoded words (RFC 2047) as what they say; blanks between two of them go.
pub(super) fn words(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let (mut rest, mut was_word) = (value, false);
    while let Some(start) = rest.find("=?") {
        let (before, from) = rest.split_at(start);
        let word = word(from);
        if !(was_word && word.is_some() && before.trim().is_empty()) {
            out.push_str(before);
        }
        was_word = word.is_some();
        rest = match word {
            Some((said, tail)) => {
                out.push_str(&said);
                tail
            }
            None => {
                out.push_str("=?");
                &from[2..]
            }
        };
    }
    out + rest
}

/// `=?charset?B?text?=` at the front, and what follows it.
fn word(from: &str) -> Option<(String, &str)> {
    let (_charset, rest) = from.strip_prefix("=?")?.split_once('?')?;
    let (kind, rest) = rest.split_once('?')?;
    let (coded, tail) = rest.split_once("?=")?;
    let octets = match kind {
        "B" | "b" => base64(coded.as_bytes()),
        "Q" | "q" => quoted_printable(coded.replace('_', " ").as_bytes()),
        _ => return None,
    };
    Some((text(&octets), tail))
}

/// Elements that begin a line of their own.
const LINES: [&str; 11] = ["br", "p", "div", "tr", "li", "table", "h1", "h2", "h3", "pre", "hr"];

/// HTML as text: lines where it has lines, nothing of its marks, its styles and its scripts.
pub(super) fn without_marks(html: &str) -> String {
    let mut out = String::with_capacity(html.len());
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        push_entities(&rest[..start], &mut out);
        let (mark, tail) = rest[start + 1..].split_once('>').unwrap_or((&rest[start + 1..], ""));
        let name: String =
            mark.trim_start_matches('/').chars().take_while(char::is_ascii_alphanumeric).collect();
        let name = name.to_ascii_lowercase();
        if LINES.contains(&name.as_str()) {
            out.push('\n');
        }
        rest = match name.as_str() {
            "style" | "script" if !mark.starts_with('/') => tail.find("</").map_or("", |end| &tail[end..]),
            _ => tail,
        };
    }
    push_entities(rest, &mut out);
    out
}

fn push_entities(text: &str, out: &mut String) {
    const NAMED: [(&str, &str); 6] =
        [("lt;", "<"), ("gt;", ">"), ("amp;", "&"), ("quot;", "\""), ("nbsp;", " "), ("#39;", "'")];
    let mut pieces = text.split('&');
    out.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        match NAMED.iter().find_map(|(name, says)| Some((piece.strip_prefix(name)?, says))) {
            Some((tail, says)) => {
                out.push_str(says);
                out.push_str(tail);
            }
            None => {
                out.push('&');
                out.push_str(piece);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn broken_base64_gives_what_it_has() {
        assert_eq!(base64(b"aGVs\nbG8=\nmore"), b"hello");
        assert_eq!(base64(b"aGVsbG8"), b"hello");
        assert_eq!(base64(b"a"), b"");
    }

    #[test]
    fn quoted_printable_joins_soft_lines_and_keeps_what_is_none() {
        assert_eq!(quoted_printable(b"a=3Db=\nc=zz=e9="), b"a=bc=zz\xe9=");
    }

    #[test]
    fn encoded_words_say_what_they_mean() {
        assert_eq!(words("=?utf-8?Q?R=C3=A9ponse?= =?utf-8?B?IGF1dG8=?= x"), "Réponse auto x");
        assert_eq!(words("=?iso-8859-1?q?R=E9ponse_a?="), "Réponse a");
        assert_eq!(words("a =?b c =?x?y?z?= d"), "a =?b c =?x?y?z?= d");
    }

    #[test]
    fn html_is_read_as_lines() {
        let html = "<html><style>p{}</style><p>Not &lt;delivered&gt;<br/>to a&amp;b</p><b>x</b>&copy;";
        assert_eq!(without_marks(html), "\nNot <delivered>\nto a&b\nx&copy;");
    }

    proptest! {
        #[test]
        fn any_octets_decode_to_no_more_than_they_are(octets in proptest::collection::vec(any::<u8>(), 0..200), html in "[<>/a-z&;=? ]{0,80}") {
            prop_assert!(base64(&octets).len() <= octets.len());
            prop_assert!(quoted_printable(&octets).len() <= octets.len());
            prop_assert!(without_marks(&html).len() <= html.len());
            let _ = words(&html);
        }
    }
}
