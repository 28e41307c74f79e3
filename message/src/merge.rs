//! Mail merge: a message that is stored once and rendered for each recipient as it is sent.
//!
//! A [`Template`] is a whole message (RFC 5322, MIME) with references in its header fields and in its text/plain, text/html
//! and text/x-amp-html parts. It is compiled once: whatever can be decided before a recipient is known is decided then, and an
//! injection hears of every error. [`Template::bind`] says in which column each field stands; [`Bound::render_header`]
//! and [`Bound::render_body`] then copy literals and encode values.
//!
//! References, the simple part of what Jinja and its like have:
//!
//! | written | means |
//! |---|---|
//! | `{{name}}`, `{{ name }}` | the field's value; escaped in HTML |
//! | `{{name\|default("you")}}`, `{{name\|default:"you"}}`, `{{name or "you"}}` | the text where the value is missing or empty |
//! | `{{{name}}}`, `{{name\|safe}}` | the value as it is, also in HTML |
//! | `{{ "{{" }}` | the text in the quotation marks: so two braces are written |
//!
//! Anything else in `{{ }}`, and `{% %}` and `{# #}`, is refused with its place. `email` and `name` are fields like others: who
//! binds gives their columns.
//!
//! What becomes of a value:
//! - *Unstructured fields*: the field's text is put together, encoded words of the template decoded before, and written as
//!   ASCII or as encoded words (RFC 2047), folded.
//! - *Display names*: words, a quoted string or encoded words.
//! - *Addresses, message ids, URLs of List-\* fields*: see [`Bound::check`]. What may not stand there is replaced by `_` or
//!   percent-encoded, and what makes a line too long is cut off.
//! - *Bodies*: parts with references are sent in UTF-8, quoted-printable or base64, whatever they came in. All other parts
//!   go out as they came: attachments, attached messages, signed and encrypted parts.
//!
//! Nobody's value can add a field, end a part, or make a line too long: control characters in fields become spaces, and
//! what a part is rendered to has no line that begins with a hyphen.
//!
//! Trusts nobody: template and values are a client's. Pure. Bounds: [`CONTENT_MAX`], [`FIELDS_MAX`],
//! [`REFERENCES_MAX`], [`PARTS_MAX`], [`DEPTH_MAX`]; a template takes at most some five times its content in
//! memory ([`Template::memory`]), a rendered copy [`Bound::len_max`]. Rendering allocates nothing once its buffer has grown, but for a
//! field's text of more than 512 octets.

mod address_field;
mod body;
mod compiler;
mod entity;
mod error;
pub mod fields;
mod header;
mod multipart;
mod render;
mod syntax;
mod url_field;
mod value;

pub use error::{Missing, Place, Problem, TemplateError, ValueError};
pub use syntax::{escaped, has_marker as has_reference};

use crate::coding::base64_lines::Block;
use crate::coding::quoted_printable::Coded;
use crate::content::ContentFacts;

/// Longest content, in octets.
pub const CONTENT_MAX: usize = 256 << 20;

/// Different fields in a template.
pub const FIELDS_MAX: usize = 255;

/// References in a template.
pub const REFERENCES_MAX: usize = 10_000;

/// Parts of a template, those that are untouched included.
pub const PARTS_MAX: usize = 1_000;

/// How deep multiparts are nested.
pub const DEPTH_MAX: usize = 16;

/// Longest name of a field, in octets.
pub const NAME_MAX: usize = 64;

/// The recipient's address.
pub const EMAIL: &str = "email";

/// The recipient's name.
pub const NAME: &str = "name";

/// A message with references, compiled.
#[derive(Clone, Debug)]
pub struct Template {
    /// All literal text, coded as its place wants it.
    text: Box<[u8]>,
    header: Box<[HeaderPiece]>,
    body: Box<[BodyPiece]>,
    references: Box<[Reference]>,
    fields: Box<[Field]>,
}

/// A field that a template refers to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Field {
    pub name: Box<str>,
    /// Each reference to it says what stands there if it is missing.
    pub has_default: bool,
}

/// A template whose fields have columns.
#[derive(Clone, Debug)]
pub struct Bound {
    template: Template,
    /// For each field; silent if it has defaults alone.
    columns: Box<[Option<u16>]>,
    facts: ContentFacts,
}

/// Octets of `Template::text`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Span {
    at: u32,
    len: u32,
}

/// Index of a reference.
type ReferenceIndex = u16;

#[derive(Clone, Copy, Debug)]
struct Reference {
    field: u8,
    default: Option<Span>,
    /// `&`, `<`, `>` and quotation marks become entities.
    html: bool,
}

#[derive(Clone, Debug)]
enum HeaderPiece {
    /// Whole lines.
    Literal(Span),
    Field {
        name: Span,
        items: Box<[Item]>,
    },
}

/// What a field with references is made of.
#[derive(Clone, Debug)]
enum Item {
    /// Text of an unstructured field.
    Text(Box<[Segment]>),
    /// A display name.
    Phrase(Box<[Segment]>),
    /// What must stand as it is.
    Literal(Span),
    /// The line may be folded.
    Space,
    /// A value that cannot be encoded.
    Exact { reference: ReferenceIndex, kind: Exact, after: u16 },
}

/// What a value must be that cannot be encoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Exact {
    /// A whole address or message id.
    Address,
    /// A part of one: letters, digits, dots and what else an atom may have.
    AddressPart,
    /// A whole URL.
    Url,
    /// A part of one, percent-encoded.
    UrlPart,
}

#[derive(Clone, Debug)]
enum Segment {
    Text(Span),
    Reference(ReferenceIndex),
}

#[derive(Clone, Debug)]
enum BodyPiece {
    /// Whole lines, or the beginning of one that another piece ends.
    Literal(Span),
    Quoted(Box<[QuotedPiece]>),
    Base64(Box<[Base64Piece]>),
}

#[derive(Clone, Debug)]
enum QuotedPiece {
    Text(Span, Coded),
    Reference(ReferenceIndex),
}

#[derive(Clone, Debug)]
enum Base64Piece {
    /// Text that is coded when it is rendered.
    Short(Span),
    Long(Span, Block),
    Reference(ReferenceIndex),
}

impl Template {
    /// Compiles a whole message. Lines may end in LF; they are rendered with CR LF. Cost: linear in the content, for
    /// each level of nesting.
    pub fn compile(content: &[u8]) -> Result<Template, TemplateError> {
        compiler::compile(content)
    }

    /// The fields that it refers to, each once, in order of their first reference.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// For one recipient, when he is injected: is there a value for each field that has no default? An empty value counts
    /// as one.
    pub fn check(&self, present: impl Fn(&str) -> bool) -> Result<(), Missing> {
        match self.fields.iter().find(|field| !field.has_default && !present(&field.name)) {
            Some(field) => Err(Missing { field: field.name.clone() }),
            None => Ok(()),
        }
    }

    /// Copies differ in their headers.
    pub fn has_header_fields(&self) -> bool {
        self.header.iter().any(HeaderPiece::has_reference)
    }

    /// Copies differ in their bodies. If they do not, one body hash does for all.
    pub fn has_body_fields(&self) -> bool {
        self.body.iter().any(BodyPiece::has_reference)
    }

    /// Octets that it takes in memory, about.
    pub fn memory(&self) -> usize {
        let pieces: usize = self.header.iter().map(HeaderPiece::memory).sum::<usize>()
            + self.body.iter().map(BodyPiece::memory).sum::<usize>();
        let fields: usize = self.fields.iter().map(|field| size_of::<Field>() + field.name.len()).sum();
        self.text.len() + pieces + size_of_val(&*self.references) + fields
    }

    /// Says in which column each field stands: the order of the values that it is rendered with. Columns that it does
    /// not refer to are no error; a field without column and default is one. Cost: a copy is rendered.
    pub fn bind(self, columns: &[&str]) -> Result<Bound, Missing> {
        self.check(|name| columns.contains(&name))?;
        let column = |field: &Field| {
            columns.iter().position(|name| **name == *field.name).and_then(|at| u16::try_from(at).ok())
        };
        let columns = self.fields.iter().map(column).collect();
        let mut bound = Bound { columns, template: self, facts: ContentFacts::default() };
        let mut copy = Vec::new();
        bound.render_header(&[], &mut copy);
        bound.render_body(&[], &mut copy);
        bound.facts = ContentFacts::of(&copy);
        Ok(bound)
    }

    fn literal(&self, span: Span) -> &[u8] {
        let at = span.at as usize;
        self.text.get(at..at + span.len as usize).unwrap_or_default()
    }

    fn literal_text(&self, span: Span) -> &str {
        std::str::from_utf8(self.literal(span)).unwrap_or_default()
    }
}

impl HeaderPiece {
    fn has_reference(&self) -> bool {
        let refers = |segments: &[Segment]| segments.iter().any(|one| matches!(one, Segment::Reference(_)));
        let in_item = |item: &Item| match item {
            Item::Text(segments) | Item::Phrase(segments) => refers(segments),
            Item::Exact { .. } => true,
            Item::Literal(_) | Item::Space => false,
        };
        matches!(self, HeaderPiece::Field { items, .. } if items.iter().any(in_item))
    }

    fn memory(&self) -> usize {
        let of_item = |item: &Item| match item {
            Item::Text(segments) | Item::Phrase(segments) => size_of_val(&**segments),
            Item::Literal(_) | Item::Space | Item::Exact { .. } => 0,
        };
        size_of::<HeaderPiece>()
            + match self {
                HeaderPiece::Literal(_) => 0,
                HeaderPiece::Field { items, .. } => {
                    size_of_val(&**items) + items.iter().map(of_item).sum::<usize>()
                }
            }
    }
}

impl BodyPiece {
    fn has_reference(&self) -> bool {
        match self {
            BodyPiece::Literal(_) => false,
            BodyPiece::Quoted(pieces) => pieces.iter().any(|one| matches!(one, QuotedPiece::Reference(_))),
            BodyPiece::Base64(pieces) => pieces.iter().any(|one| matches!(one, Base64Piece::Reference(_))),
        }
    }

    fn memory(&self) -> usize {
        size_of::<BodyPiece>()
            + match self {
                BodyPiece::Literal(_) => 0,
                BodyPiece::Quoted(pieces) => size_of_val(&**pieces),
                BodyPiece::Base64(pieces) => size_of_val(&**pieces),
            }
    }
}

impl Bound {
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// Appends the header with the empty line that ends it. `values` in the order of the columns; one that is not there is
    /// an empty one. Cost: the literals are copied, values and fields with references encoded, some nanoseconds an octet.
    pub fn render_header(&self, values: &[&str], out: &mut Vec<u8>) {
        render::header(self, values, out);
    }

    /// Appends the body; it ends in CR LF unless it is empty. Cost as above.
    pub fn render_body(&self, values: &[&str], out: &mut Vec<u8>) {
        render::body(self, values, out);
    }

    /// What every copy is like: no value changes it, but for an address beyond ASCII in the header, which makes that 8-bit
    /// (and needs SMTPUTF8).
    pub fn facts(&self) -> ContentFacts {
        self.facts
    }

    /// The most that a copy with these values may have, in octets: for an injection that must keep a bound.
    pub fn len_max(&self, values: &[&str]) -> usize {
        render::len_max(self, values)
    }

    /// When a recipient is injected: may his values stand where they cannot be encoded? An address, or a message id, must be
    /// one (`<{{email}}>`), a part of one (`<{{id}}@example.org>`) have only what an atom may have and dots, a URL only what
    /// a URL may have. What was not checked is rendered all the same, and harmless.
    pub fn check(&self, values: &[&str]) -> Result<(), ValueError> {
        value::check(self, values)
    }

    /// The value, or what stands for it.
    fn value<'a>(&'a self, reference: Reference, values: &[&'a str]) -> &'a str {
        let column = self.columns.get(usize::from(reference.field)).copied().flatten();
        let value = column.and_then(|column| values.get(usize::from(column))).copied().unwrap_or_default();
        match reference.default {
            Some(default) if value.is_empty() => self.template.literal_text(default),
            _ => value,
        }
    }

    fn value_at<'a>(&'a self, index: ReferenceIndex, values: &[&'a str]) -> (&'a str, bool) {
        match self.template.references.get(usize::from(index)) {
            Some(reference) => (self.value(*reference, values), reference.html),
            None => ("", false),
        }
    }
}

/// For the fuzzer: what compiles is rendered with any values, and none of them adds a field or ends the header.
pub fn fuzz_merge(bytes: &[u8]) {
    let Ok(template) = Template::compile(bytes) else { return };
    let names: Vec<Box<str>> = template.fields().iter().map(|field| field.name.clone()).collect();
    let columns: Vec<&str> = names.iter().map(|name| &**name).collect();
    let bound = template.bind(&columns).expect("each field has a column");
    let hostile = ["", "a", "a\r\nX: y\r\n\r\n--b\r\n.\r\n", "=?utf-8?Q?\u{e9}\u{0}.", "\"<>,;\\ "];
    let copies = hostile.map(|value| {
        let (values, mut copy) = (vec![value; columns.len()], Vec::new());
        bound.render_header(&values, &mut copy);
        assert_eq!(crate::header::header_len(&copy), copy.len(), "the header ends where it ends");
        let fields = crate::header::fields(&copy).count();
        bound.render_body(&values, &mut copy);
        assert!(copy.len() <= bound.len_max(&values), "the bound holds");
        assert_eq!(ContentFacts::of(&copy), bound.facts(), "the facts are those of each copy");
        fields
    });
    assert!(copies.iter().all(|fields| *fields == copies[0]), "the same fields: {copies:?}");
}
