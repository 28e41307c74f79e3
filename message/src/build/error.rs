//! Why a message could not be made.

use crate::address::AddressError;
use crate::compose::token::SyntaxError;

/// What is wrong, and with which field of the description: `attachments[0].data: it is not base64`.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct BuildError {
    pub field: String,
    pub problem: BuildProblem,
}

#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BuildProblem {
    #[error("it is missing; a message has an author")]
    Missing,
    #[error("text_body or html_body is needed")]
    NoBody,
    #[error("a header field's name has 1 to 76 visible ASCII characters and no colon")]
    Name,
    #[error("this field is made from the rest, or not sent")]
    Reserved,
    #[error("this field may be there only once")]
    Twice,
    #[error("a line end or another control character cannot be in it")]
    Control,
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("{0}")]
    AddressList(#[from] SyntaxError),
    #[error("an address is needed")]
    NoAddress,
    #[error("it is not base64")]
    Base64,
    #[error("a type and a subtype are needed, as in image/png")]
    ContentType,
    #[error("messages and multiparts cannot be attached")]
    Composite,
    #[error("it has more than {0} octets")]
    TooLong(usize),
    #[error("a Content-ID has no spaces and no angles")]
    ContentId,
}

impl BuildError {
    pub(super) fn new(field: impl Into<String>, problem: impl Into<BuildProblem>) -> BuildError {
        BuildError { field: field.into(), problem: problem.into() }
    }
}
