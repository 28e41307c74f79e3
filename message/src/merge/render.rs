//! From a template and a recipient's values to his copy.
//!
//! Literals are copied; a value is encoded as its place wants it. Nothing here fails, whatever the values are.

use super::{Base64Piece, BodyPiece, Bound, HeaderPiece, Item, QuotedPiece, Segment, value};
use crate::coding::header_text::{self, Text};
use crate::coding::line::Line;
use crate::coding::{base64_lines, quoted_printable, with_crlf};

pub(super) fn header(bound: &Bound, values: &[&str], out: &mut Vec<u8>) {
    let template = &bound.template;
    for piece in &template.header {
        match piece {
            HeaderPiece::Literal(span) => out.extend_from_slice(template.literal(*span)),
            HeaderPiece::Field { name, items } => {
                let mut line = Line::field(template.literal(*name), out);
                for item in items {
                    put_item(bound, item, values, &mut line);
                }
                line.end();
            }
        }
    }
}

fn put_item(bound: &Bound, item: &Item, values: &[&str], line: &mut Line<'_>) {
    match item {
        Item::Text(segments) => {
            let text = text_of(bound, segments, values);
            header_text::put_text(header_text::trimmed(&text), line);
        }
        Item::Phrase(segments) => {
            let text = text_of(bound, segments, values);
            header_text::put_phrase(header_text::trimmed(&text), line);
        }
        Item::Literal(span) => line.put(bound.template.literal(*span)),
        Item::Space => line.space(),
        Item::Exact { reference, kind, after } => {
            let mut text = Text::new();
            let room = line.room(usize::from(*after));
            value::put(*kind, bound.value_at(*reference, values).0, room, &mut text);
            line.put(&text);
        }
    }
}

fn text_of(bound: &Bound, segments: &[Segment], values: &[&str]) -> Text {
    let mut text = Text::new();
    for segment in segments {
        match segment {
            Segment::Text(span) => header_text::clean(bound.template.literal_text(*span), &mut text),
            Segment::Reference(index) => header_text::clean(bound.value_at(*index, values).0, &mut text),
        }
    }
    text
}

pub(super) fn body(bound: &Bound, values: &[&str], out: &mut Vec<u8>) {
    let from = out.len();
    for piece in &bound.template.body {
        match piece {
            BodyPiece::Literal(span) => out.extend_from_slice(bound.template.literal(*span)),
            BodyPiece::Quoted(pieces) => put_quoted(bound, pieces, values, out),
            BodyPiece::Base64(pieces) => put_base64(bound, pieces, values, out),
        }
    }
    if out.len() > from && !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
}

fn put_quoted(bound: &Bound, pieces: &[QuotedPiece], values: &[&str], out: &mut Vec<u8>) {
    let mut writer = quoted_printable::Writer::new(out);
    for piece in pieces {
        match piece {
            QuotedPiece::Text(span, coded) => writer.put_coded(bound.template.literal(*span), *coded),
            QuotedPiece::Reference(index) => {
                let (value, html) = bound.value_at(*index, values);
                for_each_run(value.as_bytes(), html, |run| writer.put(run));
            }
        }
    }
    writer.end();
}

fn put_base64(bound: &Bound, pieces: &[Base64Piece], values: &[&str], out: &mut Vec<u8>) {
    let template = &bound.template;
    let mut writer = base64_lines::Writer::new(out);
    for piece in pieces {
        match piece {
            Base64Piece::Short(span) => writer.put(template.literal(*span)),
            Base64Piece::Long(span, block) => {
                writer.put_block(template.literal(*span), block, &template.text)
            }
            Base64Piece::Reference(index) => {
                let (value, html) = bound.value_at(*index, values);
                // RFC 2045 §6.8: line ends of a text are CR LF here as well.
                for_each_run(value.as_bytes(), html, |run| with_crlf(run, |line| writer.put(line)));
            }
        }
    }
    writer.end();
}

/// The octets of a value; in HTML with entities for what means something there.
fn for_each_run(value: &[u8], html: bool, mut each: impl FnMut(&[u8])) {
    if !html {
        return each(value);
    }
    let mut rest = value;
    while let Some(at) = rest.iter().position(|octet| entity(*octet).is_some()) {
        each(&rest[..at]);
        each(entity(rest[at]).unwrap_or_default());
        rest = &rest[at + 1..];
    }
    each(rest);
}

fn entity(octet: u8) -> Option<&'static [u8]> {
    match octet {
        b'&' => Some(b"&amp;"),
        b'<' => Some(b"&lt;"),
        b'>' => Some(b"&gt;"),
        b'"' => Some(b"&quot;"),
        b'\'' => Some(b"&#39;"),
        _ => None,
    }
}

/// Six octets for a quotation mark in HTML, and what lines and groups add to that.
const BODY_FACTOR: usize = 9;

/// Three octets for one in an encoded word, and a frame of thirteen around every seven.
const HEADER_FACTOR: usize = 5;

pub(super) fn len_max(bound: &Bound, values: &[&str]) -> usize {
    let header: usize = bound.template.header.iter().map(|piece| header_len_max(bound, piece, values)).sum();
    let body: usize = bound.template.body.iter().map(|piece| body_len_max(bound, piece, values)).sum();
    header + body + 2
}

fn header_len_max(bound: &Bound, piece: &HeaderPiece, values: &[&str]) -> usize {
    let len_of = |segment: &Segment| match segment {
        Segment::Text(span) => span.len as usize,
        Segment::Reference(index) => bound.value_at(*index, values).0.len(),
    };
    let item_len = |item: &Item| match item {
        Item::Text(segments) | Item::Phrase(segments) => {
            segments.iter().map(len_of).sum::<usize>() * HEADER_FACTOR + 40
        }
        Item::Literal(span) => span.len as usize,
        Item::Space => 3,
        Item::Exact { reference, .. } => bound.value_at(*reference, values).0.len() * 3,
    };
    match piece {
        HeaderPiece::Literal(span) => span.len as usize,
        HeaderPiece::Field { name, items } => {
            name.len as usize + 6 + items.iter().map(item_len).sum::<usize>()
        }
    }
}

fn body_len_max(bound: &Bound, piece: &BodyPiece, values: &[&str]) -> usize {
    let value_len = |index| bound.value_at(index, values).0.len() * BODY_FACTOR + 8;
    match piece {
        BodyPiece::Literal(span) => span.len as usize,
        BodyPiece::Quoted(pieces) => {
            let len = |piece: &QuotedPiece| match piece {
                QuotedPiece::Text(span, _) => span.len as usize + 6,
                QuotedPiece::Reference(index) => value_len(*index),
            };
            pieces.iter().map(len).sum()
        }
        BodyPiece::Base64(pieces) => {
            let len = |piece: &Base64Piece| match piece {
                Base64Piece::Short(span) | Base64Piece::Long(span, _) => span.len as usize * 3 / 2 + 16,
                Base64Piece::Reference(index) => value_len(*index),
            };
            pieces.iter().map(len).sum()
        }
    }
}
