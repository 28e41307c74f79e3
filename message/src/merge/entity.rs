//! One part of a message as it came: its header, and what that says of its body (RFC 2045, RFC 2183).

use crate::compose::token::unfold;
use crate::header::{fields, header_len, skip_comments};

/// A part, or the message itself.
#[derive(Debug)]
pub(super) struct Entity<'a> {
    /// With the empty line that ends it, if there is one.
    pub header: &'a [u8],
    pub body: &'a [u8],
    pub media: Media,
    pub coding: TransferCoding,
    pub is_attachment: bool,
}

/// What a part is to a template.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Media {
    Text(TextType),
    /// Its parts are parted by this boundary.
    Multipart {
        boundary: Vec<u8>,
        of_messages: bool,
    },
    /// Anything else: goes out as it came.
    Other,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct TextType {
    /// `text/plain`
    pub name: String,
    pub is_html: bool,
    /// Empty if none is said.
    pub charset: String,
    /// All other parameters as they stand: `format=flowed`.
    pub parameters: Vec<String>,
}

/// RFC 2045 §6.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum TransferCoding {
    Identity,
    QuotedPrintable,
    Base64,
    Unknown(String),
}

impl<'a> Entity<'a> {
    /// Takes `bytes` apart. What no field says is as RFC 2045 §5.2 has it, or in a multipart/digest a message.
    pub(super) fn of(bytes: &'a [u8], in_digest: bool) -> Entity<'a> {
        let (header, body) = bytes.split_at(header_len(bytes));
        let media = match value_of(header, "content-type") {
            Some(value) => media(&value),
            None if in_digest => Media::Other,
            None => Media::Text(TextType::plain()),
        };
        let coding = value_of(header, "content-transfer-encoding");
        let disposition = value_of(header, "content-disposition").unwrap_or_default();
        Entity {
            header,
            body,
            media,
            coding: coding.map_or(TransferCoding::Identity, |value| transfer_coding(&value)),
            is_attachment: word(&disposition).0.eq_ignore_ascii_case("attachment"),
        }
    }
}

impl TextType {
    fn plain() -> TextType {
        TextType { name: "text/plain".into(), is_html: false, charset: String::new(), parameters: Vec::new() }
    }
}

/// The value of the first field of that name, unfolded.
fn value_of(header: &[u8], name: &str) -> Option<String> {
    let field = fields(header).find(|field| field.name.eq_ignore_ascii_case(name.as_bytes()))?;
    Some(String::from_utf8_lossy(&unfold(&field.whole[field.name.len() + 1..])).into_owned())
}

fn transfer_coding(value: &str) -> TransferCoding {
    let (name, _) = word(value);
    match name.to_ascii_lowercase().as_str() {
        "" | "7bit" | "8bit" | "binary" => TransferCoding::Identity,
        "quoted-printable" => TransferCoding::QuotedPrintable,
        "base64" => TransferCoding::Base64,
        other => TransferCoding::Unknown(other.chars().take(40).collect()),
    }
}

fn media(value: &str) -> Media {
    let (name, rest) = word(value);
    let name = name.to_ascii_lowercase();
    let parameters = parameters(rest);
    let value_of = |wanted: &str| {
        let found = parameters.iter().find(|parameter| parameter.name.eq_ignore_ascii_case(wanted));
        found.map(|parameter| parameter.value.clone()).unwrap_or_default()
    };
    match name.as_str() {
        "text/plain" | "text/html" | "text/x-amp-html" => Media::Text(TextType {
            is_html: name != "text/plain",
            charset: value_of("charset"),
            parameters: parameters
                .iter()
                .filter(|parameter| !parameter.name.eq_ignore_ascii_case("charset"))
                .map(|parameter| parameter.whole.to_owned())
                .collect(),
            name,
        }),
        // What is signed or encrypted must stay as it is (RFC 1847).
        "multipart/signed" | "multipart/encrypted" => Media::Other,
        _ if name.starts_with("multipart/") && !value_of("boundary").is_empty() => Media::Multipart {
            boundary: value_of("boundary").into_bytes(),
            of_messages: name == "multipart/digest",
        },
        _ => Media::Other,
    }
}

/// `name=value` of a structured field.
struct Parameter<'a> {
    name: &'a str,
    /// Without quotation marks and backslashes.
    value: String,
    whole: &'a str,
}

/// The parameters behind the first semicolon. What is no parameter is passed over.
fn parameters(text: &str) -> Vec<Parameter<'_>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(';') {
        rest = without_comments(&rest[at + 1..]);
        let Some((name, tail)) = rest.split_once('=').filter(|(name, _)| !name.contains([';', '"'])) else {
            continue;
        };
        let (value, len) = value(tail);
        let whole = &rest[..name.len() + 1 + len];
        found.push(Parameter { name: name.trim(), value, whole });
        rest = &rest[whole.len()..];
    }
    found
}

/// A quoted string, or all up to white space or a semicolon; and its length.
fn value(text: &str) -> (String, usize) {
    let Some(inner) = text.strip_prefix('"') else {
        let len = text.find(|char: char| char == ';' || char.is_ascii_whitespace()).unwrap_or(text.len());
        return (text[..len].to_owned(), len);
    };
    let (mut value, mut chars) = (String::new(), inner.char_indices());
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return (value, at + 2),
            '\\' => value.extend(chars.next().map(|(_, char)| char)),
            char => value.push(char),
        }
    }
    (value, text.len())
}

/// The first word of a structured field, and what follows it.
fn word(text: &str) -> (&str, &str) {
    let text = without_comments(text);
    let end = |char: char| char.is_ascii_whitespace() || ";(".contains(char);
    text.split_at(text.find(end).unwrap_or(text.len()))
}

fn without_comments(text: &str) -> &str {
    let rest = skip_comments(text.as_bytes());
    &text[text.len() - rest.len()..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(header: &str) -> Entity<'_> {
        Entity::of(header.as_bytes(), false)
    }

    #[test]
    fn a_part_says_what_it_is() {
        let entity = of("Content-Type: (a) Text/HTML;\r\n charset=\"UTF-8\"; format=flowed\r\n\
                         content-transfer-encoding: Quoted-Printable (x)\r\n\r\nbody");
        let Media::Text(text) = &entity.media else { panic!("{entity:?}") };
        assert_eq!((text.name.as_str(), text.is_html, text.charset.as_str()), ("text/html", true, "UTF-8"));
        assert_eq!(text.parameters, ["format=flowed"]);
        assert_eq!(entity.coding, TransferCoding::QuotedPrintable);
        assert_eq!(entity.body, b"body");
    }

    #[test]
    fn boundaries_may_be_quoted_and_have_specials() {
        let boundary = |header: &str| match of(header).media {
            Media::Multipart { boundary, .. } => String::from_utf8(boundary).unwrap(),
            other => panic!("{other:?}"),
        };
        assert_eq!(boundary("Content-Type: multipart/mixed; boundary=\"a b;\\\"c\"\r\n"), "a b;\"c");
        assert_eq!(boundary("Content-Type: multipart/x;a=1 ;\r\n\tBOUNDARY==_x:y\r\n"), "=_x:y");
    }

    #[test]
    fn what_is_signed_or_unknown_is_left_alone() {
        for header in [
            "Content-Type: multipart/signed; boundary=a\r\n",
            "Content-Type: multipart/mixed\r\n",
            "Content-Type: message/rfc822\r\n",
            "Content-Type: text/calendar\r\n",
            "Content-Type: ;;;=\r\n",
        ] {
            assert_eq!(of(header).media, Media::Other, "{header}");
        }
        assert_eq!(of("Subject: x\r\n").media, Media::Text(TextType::plain()));
        assert_eq!(Entity::of(b"\r\n", true).media, Media::Other);
        assert!(of("Content-Disposition: ATTACHMENT; filename=x\r\n").is_attachment);
        assert!(!of("Content-Disposition: inline\r\n").is_attachment);
    }

    proptest::proptest! {
        #[test]
        fn reading_never_panics(value in "([;=\"\\\\() ]|text/plain|charset|multipart/|boundary|\\PC){0,40}") {
            media(&value);
            word(&value);
        }
    }
}
