//! DKIM signatures (RFC 6376, RFC 8463): made, not verified.
//!
//! relaxed/relaxed with SHA-256, by RSA, Ed25519 or both. What costs is shared: a body is hashed once for all messages that
//! have it ([`BodyHash`]), the signed fields once for all keys of a domain. [`Signers`] says who signs a message, by the
//! domain of its author; [`DomainSigners::sign`] appends the fields that go on top of it.
//!
//! Lines may end in LF alone: they are signed as if it were CRLF (see [`crate::canonical`]). A message without an empty
//! line has no body, which is signed as an empty one. A header with a line that is no field is not signed: readers do not
//! agree where such a header ends.
//!
//! Pure. Trusts nothing in the message. Bounds: [`HEADER_MAX`] octets of header, [`FIELDS_MAX`] signed fields, 16 KiB of `From`;
//! what has more goes out unsigned.

mod body;
mod fields;
mod fuzz;
mod key;
mod record;
#[cfg(test)]
mod samples;
mod sign;
mod signers;
mod tags;

pub use body::{BodyHash, BodyHasher};
pub use fields::Terms;
pub use fuzz::fuzz_sign;
pub use key::{Algorithm, Key, KeyError};
pub use record::{Objection, name_of, objections, zone_lines};
pub use sign::{DomainSigners, SelectorKey};
pub use signers::{Signed, Signers};

use crate::compose::header::RawFields;

/// Octets of a header. Nobody reads a larger one.
pub const HEADER_MAX: usize = 256 << 10;

/// Names in a signature's `h=`.
pub const FIELDS_MAX: usize = 256;

/// Why a message with signers is not signed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SignError {
    #[error("its header is longer than 256 KiB, or has more than 256 fields to sign")]
    TooLarge,
    #[error("its header has a line that is no field")]
    NoHeader,
    #[error("the cryptographic library refused")]
    Library,
}

/// Header and body, without the empty line between them.
pub fn split(content: &[u8]) -> Result<(&[u8], &[u8]), SignError> {
    let mut fields = RawFields::of(content);
    while fields.next().is_some() {
        check_len(content.len() - fields.rest().len())?;
    }
    let rest = fields.rest();
    let body = match rest {
        [] => rest,
        [b'\r', b'\n', body @ ..] | [b'\n', body @ ..] => body,
        _ => return Err(SignError::NoHeader),
    };
    Ok((&content[..content.len() - rest.len()], body))
}

fn check_len(header_len: usize) -> Result<(), SignError> {
    if header_len > HEADER_MAX { Err(SignError::TooLarge) } else { Ok(()) }
}
