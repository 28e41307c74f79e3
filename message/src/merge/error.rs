//! Why a message is no template, and a recipient none of its recipients.

use crate::coding::charset::CharsetError;
use std::fmt;

/// Why a message could not be compiled.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct TemplateError {
    pub place: Place,
    pub problem: Problem,
}

/// Where it is. Lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    Message,
    /// In the message's header.
    Header {
        line: usize,
        column: usize,
    },
    /// In the text of a part, after it was decoded.
    Part {
        number: PartNumber,
        line: usize,
        column: usize,
    },
    /// In a part as a whole.
    WholePart(PartNumber),
}

/// `1.2`: the second part of the first; a message that has no parts is `1` (RFC 3501 §6.4.5).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PartNumber(pub Vec<u16>);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Message => f.write_str("the message"),
            Place::Header { line, column } => write!(f, "header, line {line}, column {column}"),
            Place::Part { number, line, column } => {
                write!(f, "part {number}, line {line}, column {column}")
            }
            Place::WholePart(number) => write!(f, "part {number}"),
        }
    }
}

impl fmt::Display for PartNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("1");
        }
        for (at, number) in self.0.iter().enumerate() {
            write!(f, "{}{number}", if at > 0 { "." } else { "" })?;
        }
        Ok(())
    }
}

/// What is wrong there.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Problem {
    #[error("it is longer than {} octets", super::CONTENT_MAX)]
    ContentTooLong,
    #[error("it has more than {} fields", super::FIELDS_MAX)]
    TooManyFields,
    #[error("it has more than {} references", super::REFERENCES_MAX)]
    TooManyReferences,
    #[error("the message has more than {} parts", super::PARTS_MAX)]
    TooManyParts,
    #[error("parts are nested deeper than {}", super::DEPTH_MAX)]
    TooDeep,
    #[error("this line is no header field")]
    NoField,

    #[error("{{{{ is not closed by }}}}; as a text it is written {{{{ \"{{{{\" }}}}")]
    Unclosed,
    #[error("{{%: loops, conditions and other statements are not supported")]
    Statement,
    #[error("{{# #}}: comments are not supported")]
    Comment,
    #[error("{{{{{0}: blocks, partials and white space control are not supported")]
    Block(char),
    #[error("the name of a field is expected: a letter, then letters, digits, dots, hyphens and underscores")]
    Name,
    #[error("the field's name is longer than {} octets", super::NAME_MAX)]
    NameTooLong,
    #[error("the filter {0} is not supported; there are default and safe")]
    Filter(String),
    #[error("default needs one text in quotation marks")]
    Default,
    #[error("the text in quotation marks does not end")]
    OpenText,
    #[error("only a field with default and safe may stand here")]
    Expression,

    #[error("{0} takes no references")]
    FixedField(String),
    #[error("the field is not UTF-8")]
    NotUtf8,
    #[error("a comment takes no references")]
    InComment,
    #[error("a quoted or encoded word takes no references here: it is no display name")]
    InQuotedWord,
    #[error("an address is expected: one reference, or a text without spaces")]
    Address,
    #[error("references may stand only between < and > here")]
    OutsideAngles,
    #[error("only a field may stand here, no text")]
    TextHere,
    #[error("the quoted text or comment does not end")]
    OpenQuote,
    #[error("the text around this reference has more than 700 octets without a space")]
    Unfoldable,

    #[error("the header of a part takes no references")]
    PartHeader,
    #[error("its Content-Transfer-Encoding, {0}, is not known")]
    TransferEncoding(String),
    #[error("it is not base64")]
    Base64,
    #[error(transparent)]
    Charset(#[from] CharsetError),
}

impl Problem {
    /// The field itself is not well-formed.
    pub(super) fn is_syntax(&self) -> bool {
        matches!(self, Problem::NotUtf8 | Problem::OpenQuote | Problem::Unfoldable)
    }
}

/// A recipient has no value for a field that has no default.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no value for the field {field}, which has no default")]
pub struct Missing {
    pub field: Box<str>,
}

/// A value that cannot stand where the template has it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the field {field}: its value is not {wanted}")]
pub struct ValueError {
    pub field: Box<str>,
    pub wanted: &'static str,
}
