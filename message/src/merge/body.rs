//! A text part with references, and the header that it is sent with.
//!
//! The part is decoded, its references are found, and what is between them is coded again: in quoted-printable, or in
//! base64 where the part was that or has much beyond ASCII. So a reference is found however the part was coded and
//! folded, and the declared encoding is true for any value.

use super::compiler::Compiler;
use super::entity::{Entity, TextType, TransferCoding};
use super::error::{PartNumber, Place, Problem, TemplateError};
use super::syntax::{self, Found, Pieces, Wrong};
use super::{Base64Piece, BodyPiece, QuotedPiece, ReferenceIndex};
use crate::coding::base64_lines::{self, BLOCK_MIN, Block};
use crate::coding::line::Line;
use crate::coding::{TextCoding, charset, quoted_printable, with_crlf};
use crate::header::fields;
use std::borrow::Cow;

/// What a part's header must say of its body.
pub(super) struct Recoded {
    text: TextType,
    coding: TextCoding,
}

/// A text between references, with the line ends of mail, or a reference.
enum TextPiece {
    Text(String),
    Reference(ReferenceIndex),
}

impl Compiler<'_> {
    /// Silent if there are no references.
    pub(super) fn text_part(
        &mut self,
        entity: &Entity<'_>,
        text: &TextType,
        number: &PartNumber,
    ) -> Result<Option<(BodyPiece, Recoded)>, TemplateError> {
        let whole = |problem| TemplateError { place: Place::WholePart(number.clone()), problem };
        let Some(decoded) = decoded(entity, text).map_err(whole)? else { return Ok(None) };
        if !number.0.is_empty() && header_has_marker(entity.header) {
            return Err(whole(Problem::PartHeader));
        }
        let pieces = self.text_pieces(&decoded, text.is_html).map_err(|wrong| {
            let (line, column) = position(decoded.as_bytes(), wrong.at);
            let place = Place::Part { number: number.clone(), line, column };
            TemplateError { place, problem: wrong.problem }
        })?;
        let coding = match entity.coding {
            TransferCoding::Base64 => TextCoding::Base64,
            TransferCoding::Identity => TextCoding::of(&decoded),
            _ => TextCoding::QuotedPrintable,
        };
        let piece = match coding {
            TextCoding::QuotedPrintable => BodyPiece::Quoted(self.quoted(pieces)),
            TextCoding::Base64 => BodyPiece::Base64(self.base64(pieces)),
        };
        Ok(Some((piece, Recoded { text: text.clone(), coding })))
    }

    fn text_pieces(&mut self, text: &str, html: bool) -> Result<Vec<TextPiece>, Wrong> {
        let mut pieces: Vec<TextPiece> = Vec::new();
        for piece in Pieces::of(text) {
            let (at, found) = piece?;
            match (found, pieces.last_mut()) {
                (Found::Text(text), Some(TextPiece::Text(before))) => before.push_str(&text),
                (Found::Text(text), _) => pieces.push(TextPiece::Text(text.into_owned())),
                (Found::Field(found), _) => {
                    let index = self.reference(found, html).map_err(|problem| Wrong { at, problem })?;
                    pieces.push(TextPiece::Reference(index));
                }
            }
        }
        Ok(pieces)
    }

    fn quoted(&mut self, pieces: Vec<TextPiece>) -> Box<[QuotedPiece]> {
        let piece = |piece| match piece {
            TextPiece::Reference(index) => QuotedPiece::Reference(index),
            TextPiece::Text(text) => {
                let at = self.text.len();
                let coded = quoted_printable::code(text.as_bytes(), &mut self.text);
                QuotedPiece::Text(self.span_from(at), coded)
            }
        };
        pieces.into_iter().map(piece).collect()
    }

    fn base64(&mut self, pieces: Vec<TextPiece>) -> Box<[Base64Piece]> {
        let piece = |piece| match piece {
            TextPiece::Reference(index) => Base64Piece::Reference(index),
            TextPiece::Text(text) => {
                let mut lines = Vec::with_capacity(text.len());
                with_crlf(text.as_bytes(), |line| lines.extend_from_slice(line));
                let span = self.literal(&lines);
                match Block::code(&lines, &mut self.text).filter(|_| lines.len() >= BLOCK_MIN) {
                    Some(block) => Base64Piece::Long(span, block),
                    None => Base64Piece::Short(span),
                }
            }
        };
        pieces.into_iter().map(piece).collect()
    }

    /// The header of a part within the message.
    pub(super) fn part_header(&mut self, header: &[u8], recoded: Option<&Recoded>) {
        let Some(recoded) = recoded else { return self.body_lines(header) };
        let mut lines = Vec::with_capacity(header.len() + 80);
        let mut len = 0;
        for field in fields(header) {
            len += field.whole.len();
            if !recoded.replaces(field.name) {
                lines.extend_from_slice(field.whole);
            }
        }
        end_line(&mut lines);
        recoded.put_fields(&mut lines);
        lines.extend_from_slice(&header[len..]);
        if len == header.len() {
            lines.extend_from_slice(b"\r\n");
        }
        self.body_lines(&lines);
    }
}

impl Recoded {
    /// A field of the part as it came that is no longer true.
    pub(super) fn replaces(&self, name: &[u8]) -> bool {
        let names = [&b"content-type"[..], b"content-transfer-encoding", b"content-length"];
        names.iter().any(|replaced| name.eq_ignore_ascii_case(replaced))
    }

    /// Appends the fields that are.
    pub(super) fn put_fields(&self, out: &mut Vec<u8>) {
        let mut line = Line::field(b"Content-Type", out);
        line.put(self.text.name.as_bytes());
        line.put(b";");
        line.space();
        line.put(b"charset=utf-8");
        for parameter in &self.text.parameters {
            line.put(b";");
            line.space();
            line.put(parameter.as_bytes());
        }
        line.end();
        let mut line = Line::field(b"Content-Transfer-Encoding", out);
        line.put(self.coding.name().as_bytes());
        line.end();
    }
}

/// The text of a part that has references. What cannot be read has none, or is refused if it looks like some.
fn decoded(entity: &Entity<'_>, text: &TextType) -> Result<Option<String>, Problem> {
    let looks_like = |octets: &[u8]| syntax::has_marker(&String::from_utf8_lossy(octets));
    let octets = match &entity.coding {
        TransferCoding::Identity => Cow::Borrowed(entity.body),
        TransferCoding::QuotedPrintable => Cow::Owned(quoted_printable::decode(entity.body)),
        TransferCoding::Base64 => Cow::Owned(base64_lines::decode(entity.body).ok_or(Problem::Base64)?),
        TransferCoding::Unknown(name) if looks_like(entity.body) => {
            return Err(Problem::TransferEncoding(name.clone()));
        }
        TransferCoding::Unknown(_) => return Ok(None),
    };
    match charset::decode(&text.charset, &octets) {
        Ok(text) => Ok(syntax::has_marker(&text).then_some(text)),
        Err(_) if !looks_like(&octets) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn header_has_marker(header: &[u8]) -> bool {
    syntax::has_marker(&String::from_utf8_lossy(header))
}

fn end_line(lines: &mut Vec<u8>) {
    if !lines.is_empty() && !lines.ends_with(b"\n") {
        lines.extend_from_slice(b"\r\n");
    }
}

/// Line and column of an octet, from 1, the column in characters.
pub(super) fn position(text: &[u8], at: usize) -> (usize, usize) {
    let before = &text[..at.min(text.len())];
    let line = memchr::memrchr(b'\n', before).map_or(0, |lf| lf + 1);
    let lines = memchr::memchr_iter(b'\n', before).count();
    (lines + 1, String::from_utf8_lossy(&before[line..]).chars().count() + 1)
}
