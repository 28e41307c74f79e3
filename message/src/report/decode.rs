//! Encodings of mail undone, leniently: base64, charsets, encoded words, HTML's marks.
//!
//! What is wrong in them is left out or left as it is: nobody will send it again. Octets of another charset take up to three
//! times their room as UTF-8; nothing else here is longer than what went in.

use crate::coding::{base64_lines, charset, encoded_word};

/// What base64 says up to the first `=`; what is no letter of it is passed over.
pub(super) fn base64(coded: &[u8]) -> Vec<u8> {
    let letters = coded.iter().copied().take_while(|octet| *octet != b'=');
    let mut letters: Vec<u8> =
        letters.filter(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'+' | b'/')).collect();
    if letters.len() % 4 == 1 {
        letters.pop();
    }
    base64_lines::decode(&letters).unwrap_or_default()
}

/// Octets as the charset has them; where that is not known or not kept to, as UTF-8, else each is a character, as in the
/// charsets of the West.
pub(super) fn text(charset: &str, octets: &[u8]) -> String {
    charset::decode(charset, octets).unwrap_or_else(|_| match std::str::from_utf8(octets) {
        Ok(text) => text.to_owned(),
        Err(_) => octets.iter().copied().map(char::from).collect(),
    })
}

/// Encoded words (RFC 2047) as what they say.
pub(super) fn words(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(start) = rest.find("=?") {
        out.push_str(&rest[..start]);
        let from = &rest[start..];
        let (said, len) = encoded_word::read(from).unwrap_or_else(|| ("=?".to_owned(), 2));
        out.push_str(&said);
        rest = &from[len..];
    }
    out + rest
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
    fn encoded_words_say_what_they_mean() {
        assert_eq!(words("=?utf-8?Q?R=C3=A9ponse?= =?utf-8?B?IGF1dG8=?= x"), "Réponse auto x");
        assert_eq!(words("=?iso-8859-1?q?R=E9ponse_a?="), "Réponse a");
        assert_eq!(words("a =?b c =?x?y?z?= d"), "a =?b c =?x?y?z?= d");
    }

    #[test]
    fn charset_that_is_not_known_or_not_kept_to_is_guessed() {
        assert_eq!(text("koi8-r", b"\xd0\xd2\xc9"), "при");
        assert_eq!(text("us-ascii", b"\xe9"), "é");
        assert_eq!(text("x-none", "é".as_bytes()), "é");
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
            prop_assert!(without_marks(&html).len() <= html.len());
            let _ = words(&html);
        }
    }
}
