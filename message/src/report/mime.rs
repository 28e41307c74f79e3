//! A message's parts (RFC 2046), in the order in which they stand.
//!
//! Multiparts are opened, messages within the message are not: those are what came back. Lines end in LF here.
//! Bounds: [`PARTS_MAX`] parts, [`DEPTH_MAX`] levels; what lies beyond them is not looked at.

use super::{decode, values};
use crate::coding::quoted_printable;
use crate::header::{fields, header_len};
use std::borrow::Cow;

const PARTS_MAX: usize = 32;
const DEPTH_MAX: usize = 8;

/// Longest boundary (RFC 2046 §5.1.1 says 70; some make longer ones).
const BOUNDARY_MAX: usize = 256;

/// A part that is no multipart.
#[derive(Debug)]
pub(super) struct Part<'a> {
    /// `text/plain`, in lower case.
    pub(super) kind: String,
    /// Of a text; may be empty.
    pub(super) charset: String,
    /// Without its transfer encoding.
    pub(super) body: Cow<'a, [u8]>,
}

/// The parts of a message; one without any is a part itself.
pub(super) fn parts(message: &[u8]) -> Vec<Part<'_>> {
    let mut found = Vec::new();
    collect(message, 0, &mut found);
    found
}

fn collect<'a>(entity: &'a [u8], depth: usize, found: &mut Vec<Part<'a>>) {
    let (header, body) = split(entity);
    let content_type = values(header, "content-type").next().unwrap_or_default();
    let kind = kind_of(&content_type);
    let boundary =
        parameter(&content_type, "boundary").filter(|text| (1..=BOUNDARY_MAX).contains(&text.len()));
    if let Some(boundary) = boundary.filter(|_| kind.starts_with("multipart/")) {
        for inner in split_multipart(body, &boundary) {
            if found.len() < PARTS_MAX && depth < DEPTH_MAX {
                collect(inner, depth + 1, found);
            }
        }
        return;
    }
    let encoding = values(header, "content-transfer-encoding").next().unwrap_or_default();
    let body = match encoding.trim().to_ascii_lowercase().as_str() {
        "base64" => Cow::Owned(without_cr(decode::base64(body))),
        "quoted-printable" => Cow::Owned(without_cr(quoted_printable::decode(body))),
        _ => Cow::Borrowed(body),
    };
    let charset = parameter(&content_type, "charset").unwrap_or_default();
    found.push(Part { kind, charset, body });
}

/// What was encoded had line ends of its own.
fn without_cr(mut body: Vec<u8>) -> Vec<u8> {
    body.retain(|octet| *octet != b'\r');
    body
}

/// Header and body. An entity that begins with no field has no header.
fn split(entity: &[u8]) -> (&[u8], &[u8]) {
    match fields(entity).next() {
        Some(_) => entity.split_at(header_len(entity)),
        None => (&[], entity.strip_prefix(b"\n").unwrap_or(entity)),
    }
}

/// Type and subtype; RFC 2045 §5.2's default for what is none.
fn kind_of(content_type: &str) -> String {
    let kind = content_type.split([';', ' ', '(']).next().unwrap_or_default().trim();
    if kind.contains('/') { kind.to_ascii_lowercase() } else { "text/plain".to_owned() }
}

/// A parameter's value, in quotes or not.
fn parameter(content_type: &str, name: &str) -> Option<String> {
    let mut rest = content_type;
    loop {
        rest = &rest[after_parameter(rest)?..];
        let (found, value) = rest.split_once('=')?;
        if found.trim().eq_ignore_ascii_case(name) {
            let value = value.trim_start();
            return Some(match value.strip_prefix('"') {
                Some(quoted) => unquoted(quoted),
                None => value.split([';', ' ']).next().unwrap_or_default().to_owned(),
            });
        }
    }
}

/// Behind the next semicolon that stands in no quotes.
fn after_parameter(text: &str) -> Option<usize> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, octet) in text.bytes().enumerate() {
        match octet {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b';' if !is_quoted => return Some(at + 1),
            _ => {}
        }
    }
    None
}

fn unquoted(quoted: &str) -> String {
    let (mut out, mut is_escaped) = (String::new(), false);
    for char in quoted.chars() {
        match char {
            '\\' if !is_escaped => is_escaped = true,
            '"' if !is_escaped => break,
            _ => {
                out.push(char);
                is_escaped = false;
            }
        }
    }
    out
}

/// What stands between the delimiter lines; without the last one, up to the end.
fn split_multipart<'a>(body: &'a [u8], boundary: &str) -> Vec<&'a [u8]> {
    let mut entities = Vec::new();
    let (mut start, mut at) = (None, 0);
    for line in body.split_inclusive(|octet| *octet == b'\n') {
        let end = at + line.len();
        if let Some(is_last) = delimiter(line, boundary) {
            entities.extend(start.map(|start: usize| &body[start..at]));
            start = (!is_last).then_some(end);
            if is_last || entities.len() >= PARTS_MAX {
                return entities;
            }
        }
        at = end;
    }
    entities.extend(start.map(|start| &body[start..]));
    entities
}

/// Whether the line is a delimiter, and if so whether it is the last.
fn delimiter(line: &[u8], boundary: &str) -> Option<bool> {
    let rest = line.strip_prefix(b"--")?.strip_prefix(boundary.as_bytes())?.trim_ascii_end();
    match rest {
        b"" => Some(false),
        b"--" => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinds(message: &str) -> Vec<(String, String)> {
        let found = parts(message.as_bytes());
        found
            .iter()
            .map(|part| (part.kind.clone(), String::from_utf8_lossy(&part.body).into_owned()))
            .collect()
    }

    #[test]
    fn nested_parts_come_in_their_order() {
        let message = "Content-Type: multipart/mixed; x=\"a;b\"; BOUNDARY=\"a\\\"b\"\n\nintro\n--a\"b\n\nplain\n\
                       --a\"bc\n--a\"b\nContent-Type: Multipart/Report; boundary=in\n\n--in\nContent-Type: TEXT/HTML\n\
                       Content-Transfer-Encoding: Base64\n\nPGI+\n--in\nContent-Type: message/rfc822\n\n\
                       Content-Type: multipart/mixed; boundary=q\n\n--q\n\n--in--\n--a\"b--\nepilogue\n";
        let found = kinds(message);
        let names: Vec<&str> = found.iter().map(|(kind, _)| kind.as_str()).collect();
        assert_eq!(names, ["text/plain", "text/html", "message/rfc822"]);
        assert_eq!((found[0].1.as_str(), found[1].1.as_str()), ("plain\n--a\"bc\n", "<b>"));
    }

    #[test]
    fn message_without_parts_is_one() {
        assert_eq!(kinds("Subject: x\n\nhello\n"), [("text/plain".into(), "hello\n".into())]);
        assert_eq!(kinds("Content-Type: multipart/mixed\n\nx\n"), [("multipart/mixed".into(), "x\n".into())]);
        assert_eq!(kinds(""), [("text/plain".into(), String::new())]);
    }

    #[test]
    fn last_part_needs_no_end() {
        let message = "Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b\n\ntwo";
        assert_eq!(kinds(message).len(), 2);
    }

    #[test]
    fn depth_and_number_are_bounded() {
        let deep: String = (0..50).map(|_| "Content-Type: multipart/mixed; boundary=b\n\n--b\n").collect();
        assert!(kinds(&deep).is_empty());
        let wide = "Content-Type: multipart/mixed; boundary=b\n\n".to_owned() + &"--b\n\nx\n".repeat(1000);
        assert!(kinds(&wide).len() <= PARTS_MAX);
    }

    proptest! {
        #[test]
        fn what_is_put_together_comes_apart(bodies in proptest::collection::vec("[a-z\\n]{0,20}", 1..6)) {
            let mut message = "Content-Type: multipart/mixed; boundary=\"=_1\"\n\n".to_owned();
            for body in &bodies {
                message += &format!("--=_1\nContent-Type: text/plain\n\n{body}\n");
            }
            message += "--=_1--\n";
            let found: Vec<String> = kinds(&message).into_iter().map(|(_, body)| body).collect();
            let wanted: Vec<String> = bodies.iter().map(|body| format!("{body}\n")).collect();
            prop_assert_eq!(found, wanted);
        }
    }
}
