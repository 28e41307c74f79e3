//! Values that cannot be encoded where they stand: in addresses, message ids and URLs.

use super::error::ValueError;
use super::{Bound, Exact, HeaderPiece, Item, ReferenceIndex};
use crate::address::MailboxRef;
use crate::coding::header_text::Text;
use crate::coding::line::LINE_MAX;
use crate::coding::url::{is_of_url, is_unreserved, percent_encoded};
use crate::compose::token::is_atext;

/// Longest address (RFC 5321 §4.5.3.1: 64 octets, `@` and 255).
const ADDRESS_MAX: usize = 320;

/// Appends what of `value` may stand there, and something harmless for the rest; at most `room` octets.
pub(super) fn put(kind: Exact, value: &str, room: usize, out: &mut Text) {
    match kind {
        Exact::Address if is_address(value) => out.extend_from_slice(value.as_bytes()),
        Exact::Address => out.extend(value.chars().map(|char| atom_octet(char, b".@"))),
        Exact::AddressPart => out.extend(value.chars().map(|char| atom_octet(char, b"."))),
        Exact::Url => out.extend(percent_encoded(value, is_of_url)),
        Exact::UrlPart => out.extend(percent_encoded(value, is_unreserved)),
    }
    let text = std::str::from_utf8(out).unwrap_or_default();
    out.truncate(text.floor_char_boundary(room));
}

fn atom_octet(char: char, also: &[u8]) -> u8 {
    match u8::try_from(char) {
        Ok(octet) if octet.is_ascii() && (is_atext(octet) || also.contains(&octet)) => octet,
        _ => b'_',
    }
}

fn is_address(value: &str) -> bool {
    value.len() <= ADDRESS_MAX && MailboxRef::parse(value).is_ok()
}

/// What a value must be, if it is not.
fn wanted(kind: Exact, value: &str) -> Option<&'static str> {
    let (good, wanted) = match kind {
        Exact::Address => (is_address(value), "an address"),
        Exact::AddressPart => {
            let good = value.bytes().all(|octet| octet.is_ascii() && (is_atext(octet) || octet == b'.'));
            (good && !value.is_empty(), "a part of an address: letters, digits, dots and the like")
        }
        Exact::Url => (!value.is_empty() && value.bytes().all(is_of_url), "a URL"),
        Exact::UrlPart => (true, ""),
    };
    (!good).then_some(wanted)
}

pub(super) fn check(bound: &Bound, values: &[&str]) -> Result<(), ValueError> {
    for piece in &bound.template.header {
        if let HeaderPiece::Field { items, .. } = piece {
            check_items(bound, items, values)?;
        }
    }
    Ok(())
}

fn check_items(bound: &Bound, items: &[Item], values: &[&str]) -> Result<(), ValueError> {
    let mut unit = 1;
    for item in items {
        match item {
            Item::Literal(span) => unit += span.len as usize,
            Item::Text(_) | Item::Phrase(_) | Item::Space => unit = 1,
            Item::Exact { reference, kind, after } => {
                let wrong = |wanted| Err(ValueError { field: field_name(bound, *reference), wanted });
                let (value, _) = bound.value_at(*reference, values);
                if let Some(wanted) = wanted(*kind, value) {
                    return wrong(wanted);
                }
                let mut text = Text::new();
                put(*kind, value, usize::MAX, &mut text);
                unit += text.len();
                if unit + usize::from(*after) > LINE_MAX {
                    return wrong("short enough for a line");
                }
            }
        }
    }
    Ok(())
}

fn field_name(bound: &Bound, reference: ReferenceIndex) -> Box<str> {
    let field = bound.template.references.get(usize::from(reference)).map(|reference| reference.field);
    let field = field.and_then(|field| bound.template.fields.get(usize::from(field)));
    field.map(|field| field.name.clone()).unwrap_or_default()
}
