//! The message's header: which fields may have references, and what they are compiled to.
//!
//! A field without references stays as it is, whatever it has. A text is unfolded and its encoded words are decoded
//! before references are looked for: some writers encode the braces as well, or fold between them.

use super::body::{Recoded, position};
use super::compiler::Compiler;
use super::error::{Place, Problem, TemplateError};
use super::syntax::{self, Wrong};
use super::{HeaderPiece, Item, Segment};
use crate::coding::encoded_word;
use crate::coding::line::UNIT_MAX;
use crate::compose::role::{Known, Role};
use crate::header::{Field, fields};

/// Literal text that a unit with references may have: the rest is for values.
const LITERAL_MAX: usize = UNIT_MAX - 200;

/// What the value of a field is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Text,
    /// Display names and addresses.
    Addresses,
    /// Message ids in angles.
    Ids,
    /// URLs in angles (RFC 2369).
    Urls,
    /// What nobody but us, or nobody at all, may vary.
    Fixed,
}

impl Kind {
    fn of(name: &[u8]) -> Kind {
        let lower = name.to_ascii_lowercase();
        match lower.as_slice() {
            b"mime-version" | b"received" | b"dkim-signature" | b"authentication-results" => Kind::Fixed,
            b"received-spf" | b"list-unsubscribe-post" | b"return-path" => Kind::Fixed,
            b"in-reply-to" | b"references" => Kind::Ids,
            b"list-unsubscribe" | b"list-subscribe" | b"list-help" | b"list-post" => Kind::Urls,
            b"list-owner" | b"list-archive" | b"archived-at" => Kind::Urls,
            b"list-id" | b"disposition-notification-to" | b"mail-reply-to" => Kind::Addresses,
            name if name.starts_with(b"content-") || name.starts_with(b"arc-") => Kind::Fixed,
            name => match Known::of(name).role {
                Role::Date => Kind::Fixed,
                Role::MessageId => Kind::Ids,
                Role::FollowupTo => Kind::Addresses,
                role if role.has_addresses() => Kind::Addresses,
                _ => Kind::Text,
            },
        }
    }
}

impl Compiler<'_> {
    /// The header of the message, with the empty line.
    pub(super) fn message_header(
        &mut self,
        header: &[u8],
        recoded: Option<&Recoded>,
    ) -> Result<(), TemplateError> {
        let mut is_mime = false;
        let mut len = 0;
        for field in fields(header) {
            len += field.whole.len();
            is_mime |= field.name.eq_ignore_ascii_case(b"mime-version");
            if !recoded.is_some_and(|recoded| recoded.replaces(field.name)) {
                self.header_field(&field)?;
            }
        }
        let rest = header[len..].trim_ascii();
        if !rest.is_empty() {
            return Err(self.header_error(&header[len..], Wrong { at: 0, problem: Problem::NoField }));
        }
        if let Some(recoded) = recoded {
            let mut lines = Vec::new();
            if !is_mime {
                lines.extend_from_slice(b"MIME-Version: 1.0\r\n");
            }
            recoded.put_fields(&mut lines);
            self.header_lines(&lines);
        }
        self.header_lines(b"\r\n");
        Ok(())
    }

    fn header_field(&mut self, field: &Field<'_>) -> Result<(), TemplateError> {
        let value = &field.whole[field.name.len() + 1..];
        if !may_have_expressions(value) {
            self.put_whole(field);
            return Ok(());
        }
        let before = self.expressions;
        let items = match self.items(field.name, value) {
            // What is wrong with a field is no concern of ours if it has no references.
            Err(wrong) if wrong.problem.is_syntax() && self.expressions == before => Vec::new(),
            items => items.map_err(|wrong| self.header_error(value, wrong))?,
        };
        if self.expressions == before {
            self.put_whole(field);
        } else {
            let name = self.literal(field.name);
            self.header.push(HeaderPiece::Field { name, items: items.into() });
        }
        Ok(())
    }

    fn items(&mut self, name: &[u8], value: &[u8]) -> Result<Vec<Item>, Wrong> {
        let kind = Kind::of(name);
        let text = std::str::from_utf8(value).map_err(|_| Wrong { at: 0, problem: Problem::NotUtf8 })?;
        let mut items = match kind {
            Kind::Text => self.text_field(text)?,
            Kind::Addresses => self.address_field(text, false)?,
            Kind::Ids => self.address_field(text, true)?,
            Kind::Urls => self.url_field(text)?,
            Kind::Fixed => match syntax::Pieces::of(text).marker() {
                Some(at) => {
                    let name = String::from_utf8_lossy(name).into_owned();
                    return Err(Wrong { at, problem: Problem::FixedField(name) });
                }
                None => Vec::new(),
            },
        };
        measure(&mut items)?;
        Ok(items)
    }

    fn put_whole(&mut self, field: &Field<'_>) {
        self.header_lines(field.whole);
        if !field.whole.ends_with(b"\n") {
            self.header_lines(b"\r\n");
        }
    }

    fn text_field(&mut self, value: &str) -> Result<Vec<Item>, Wrong> {
        let (mut segments, mut at, mut after_blank) = (Vec::new(), 0, true);
        while let Some(first) = value[at..].chars().next() {
            let rest = &value[at..];
            let len = match first {
                '{' if syntax::begins(rest) => self.expression(rest, at, &mut segments)?,
                '=' if after_blank => self.words(rest, at, &mut segments)?,
                '\r' | '\n' => 1,
                _ => 0,
            };
            if len == 0 {
                self.segment_text(&rest[..first.len_utf8()], &mut segments);
            }
            at += len.max(first.len_utf8());
            after_blank = first.is_ascii_whitespace();
        }
        Ok(vec![Item::Text(segments.into())])
    }

    /// The reference that `rest` begins with, and its length.
    pub(super) fn expression(
        &mut self,
        rest: &str,
        at: usize,
        segments: &mut Vec<Segment>,
    ) -> Result<usize, Wrong> {
        let (found, len) = syntax::expression(rest).map_err(|wrong| wrong.behind(at))?;
        self.segment(found, at, segments)?;
        Ok(len)
    }

    /// The encoded words that `rest` begins with, and their length; 0 if there are none.
    pub(super) fn words(
        &mut self,
        rest: &str,
        at: usize,
        segments: &mut Vec<Segment>,
    ) -> Result<usize, Wrong> {
        let Some((text, len)) = encoded_word::read(rest) else { return Ok(0) };
        self.segments(&text, segments).map_err(|wrong| Wrong { at, problem: wrong.problem })?;
        Ok(len)
    }

    /// `rest` is in the content.
    fn header_error(&self, rest: &[u8], wrong: Wrong) -> TemplateError {
        let from = rest.as_ptr().addr() - self.content.as_ptr().addr();
        let (line, column) = position(self.content, from + wrong.at);
        TemplateError { place: Place::Header { line, column }, problem: wrong.problem }
    }
}

/// Cheap, and right about most fields: braces, or encoded words that may hide some.
fn may_have_expressions(value: &[u8]) -> bool {
    [b"{{", b"{%", b"{#", b"=?"].iter().any(|sign| memchr::memmem::find(value, *sign).is_some())
}

/// Says for each exact value how much literal text follows it before the line can be folded.
fn measure(items: &mut [Item]) -> Result<(), Wrong> {
    let mut unit = 0;
    for item in items.iter_mut().rev() {
        match item {
            Item::Literal(span) => unit += span.len as usize,
            Item::Exact { after, .. } => *after = u16::try_from(unit).unwrap_or(u16::MAX),
            Item::Text(_) | Item::Phrase(_) | Item::Space => unit = 0,
        }
        if unit > LITERAL_MAX {
            return Err(Wrong { at: 0, problem: Problem::Unfoldable });
        }
    }
    Ok(())
}
