//! From a message to a template: takes the message apart and keeps what the parts are compiled to.

use super::body::Recoded;
use super::entity::{Entity, Media};
use super::error::{PartNumber, Place, Problem, TemplateError};
use super::multipart::{Stretch, stretches};
use super::syntax::{self, Found, Pieces, Wrong};
use super::{
    BodyPiece, CONTENT_MAX, DEPTH_MAX, FIELDS_MAX, Field, HeaderPiece, PARTS_MAX, REFERENCES_MAX, Reference,
    ReferenceIndex, Segment, Span, Template,
};
use crate::compose::header::put_lines;
use std::borrow::Cow;
use std::collections::HashMap;

/// What has been compiled so far.
pub(super) struct Compiler<'c> {
    pub content: &'c [u8],
    pub text: Vec<u8>,
    pub header: Vec<HeaderPiece>,
    pub body: Vec<BodyPiece>,
    references: Vec<Reference>,
    fields: Vec<Field>,
    /// Where each name stands among the fields.
    names: HashMap<String, u8>,
    parts: usize,
    /// How many were found: references, and texts that are written as expressions.
    pub expressions: usize,
}

pub(super) fn compile(content: &[u8]) -> Result<Template, TemplateError> {
    if content.len() > CONTENT_MAX {
        return Err(TemplateError { place: Place::Message, problem: Problem::ContentTooLong });
    }
    let mut compiler = Compiler {
        content,
        text: Vec::with_capacity(content.len() + content.len() / 8),
        header: Vec::new(),
        body: Vec::new(),
        references: Vec::new(),
        fields: Vec::new(),
        names: HashMap::new(),
        parts: 0,
        expressions: 0,
    };
    let root = Entity::of(content, false);
    let recoded = compiler.body_of(&root, &mut PartNumber::default())?;
    compiler.message_header(root.header, recoded.as_ref())?;
    Ok(compiler.finish())
}

impl Compiler<'_> {
    fn finish(self) -> Template {
        Template {
            text: self.text.into(),
            header: self.header.into(),
            body: self.body.into(),
            references: self.references.into(),
            fields: self.fields.into(),
        }
    }

    // ---- text ----

    pub(super) fn literal(&mut self, octets: &[u8]) -> Span {
        let at = self.text.len();
        self.text.extend_from_slice(octets);
        self.span_from(at)
    }

    /// What was appended to the text from `at` on. A template is bounded so that it fits.
    pub(super) fn span_from(&self, at: usize) -> Span {
        let fit = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        Span { at: fit(at), len: fit(self.text.len() - at) }
    }

    /// Appends whole lines to the literal that the header ends in.
    pub(super) fn header_lines(&mut self, lines: &[u8]) {
        let at = self.text.len();
        put_lines(lines, &mut self.text);
        let more = self.span_from(at);
        match self.header.last_mut() {
            Some(HeaderPiece::Literal(span)) if span.ends_at(more) => span.len += more.len,
            _ => self.header.push(HeaderPiece::Literal(more)),
        }
    }

    /// Appends lines to the literal that the body ends in.
    pub(super) fn body_lines(&mut self, lines: &[u8]) {
        let at = self.text.len();
        put_lines(lines, &mut self.text);
        let more = self.span_from(at);
        match self.body.last_mut() {
            Some(BodyPiece::Literal(span)) if span.ends_at(more) => span.len += more.len,
            _ => self.body.push(BodyPiece::Literal(more)),
        }
    }

    // ---- references ----

    pub(super) fn reference(
        &mut self,
        found: syntax::Reference<'_>,
        html: bool,
    ) -> Result<ReferenceIndex, Problem> {
        if self.references.len() == REFERENCES_MAX {
            return Err(Problem::TooManyReferences);
        }
        let field = self.field(found.name, found.default.is_some())?;
        let default = found.default.map(|text| self.literal(text.as_bytes()));
        self.expressions += 1;
        self.references.push(Reference { field, default, html: html && !found.raw });
        Ok(ReferenceIndex::try_from(self.references.len() - 1).expect("REFERENCES_MAX is less"))
    }

    fn field(&mut self, name: &str, has_default: bool) -> Result<u8, Problem> {
        if let Some(field) = self.names.get(name) {
            self.fields[usize::from(*field)].has_default &= has_default;
            return Ok(*field);
        }
        if self.fields.len() == FIELDS_MAX {
            return Err(Problem::TooManyFields);
        }
        let index = u8::try_from(self.fields.len()).expect("FIELDS_MAX is less");
        self.names.insert(name.to_owned(), index);
        self.fields.push(Field { name: name.into(), has_default });
        Ok(index)
    }

    /// The pieces of a text in a header.
    pub(super) fn segments(&mut self, text: &str, into: &mut Vec<Segment>) -> Result<(), Wrong> {
        for piece in Pieces::of(text) {
            let (at, found) = piece?;
            self.segment(found, at, into)?;
        }
        Ok(())
    }

    /// Text next to text becomes one segment.
    pub(super) fn segment(
        &mut self,
        found: Found<'_>,
        at: usize,
        into: &mut Vec<Segment>,
    ) -> Result<(), Wrong> {
        match found {
            Found::Text(text) => {
                self.expressions += usize::from(matches!(text, Cow::Owned(_)));
                self.segment_text(&text, into);
            }
            Found::Field(found) => {
                let index = self.reference(found, false).map_err(|problem| Wrong { at, problem })?;
                into.push(Segment::Reference(index));
            }
        }
        Ok(())
    }

    pub(super) fn segment_text(&mut self, text: &str, into: &mut Vec<Segment>) {
        let more = self.literal(text.as_bytes());
        match into.last_mut() {
            Some(Segment::Text(span)) if span.ends_at(more) => span.len += more.len,
            _ if more.len == 0 => {}
            _ => into.push(Segment::Text(more)),
        }
    }

    // ---- parts ----

    /// The body of a part: what it is rendered to, if that is not what it came as.
    fn body_of(
        &mut self,
        entity: &Entity<'_>,
        number: &mut PartNumber,
    ) -> Result<Option<Recoded>, TemplateError> {
        match &entity.media {
            Media::Text(text) if !entity.is_attachment => {
                if let Some((pieces, recoded)) = self.text_part(entity, text, number)? {
                    self.body.push(pieces);
                    return Ok(Some(recoded));
                }
                self.body_lines(entity.body);
            }
            Media::Multipart { boundary, of_messages } => {
                self.multipart(entity.body, boundary, *of_messages, number)?;
            }
            _ => self.body_lines(entity.body),
        }
        Ok(None)
    }

    fn multipart(
        &mut self,
        body: &[u8],
        boundary: &[u8],
        in_digest: bool,
        number: &mut PartNumber,
    ) -> Result<(), TemplateError> {
        let wrong = |number: &PartNumber, problem| {
            Err(TemplateError { place: Place::WholePart(number.clone()), problem })
        };
        if number.0.len() == DEPTH_MAX {
            return wrong(number, Problem::TooDeep);
        }
        number.0.push(0);
        for stretch in stretches(body, boundary) {
            match stretch {
                Stretch::Between(lines) => self.body_lines(lines),
                Stretch::Part(_) if self.parts == PARTS_MAX => return wrong(number, Problem::TooManyParts),
                Stretch::Part(bytes) => {
                    self.parts += 1;
                    *number.0.last_mut().expect("it was pushed above") += 1;
                    self.part(&Entity::of(bytes, in_digest), number)?;
                }
            }
        }
        number.0.pop();
        Ok(())
    }

    /// A part's header goes before its body and is known only after it.
    fn part(&mut self, entity: &Entity<'_>, number: &mut PartNumber) -> Result<(), TemplateError> {
        match &entity.media {
            Media::Text(text) if !entity.is_attachment => {
                let compiled = self.text_part(entity, text, number)?;
                self.part_header(entity.header, compiled.as_ref().map(|(_, recoded)| recoded));
                match compiled {
                    Some((pieces, _)) => self.body.push(pieces),
                    None => self.body_lines(entity.body),
                }
                Ok(())
            }
            _ => {
                self.body_lines(entity.header);
                self.body_of(entity, number).map(|_| ())
            }
        }
    }
}

impl Span {
    /// `next` follows this one at once.
    fn ends_at(self, next: Span) -> bool {
        self.at + self.len == next.at
    }
}
