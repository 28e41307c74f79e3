//! What can be found out about who sent a message: SPF (RFC 7208), DKIM (RFC 6376), DMARC (RFC 9989); told in an
//! `Authentication-Results` field (RFC 8601) on top of it.
//!
//! Nothing is refused: the field is for whoever reads the message later. Silence of the name servers, too little time
//! and too many messages at a time are `temperror`. `Received-SPF` is not written: RFC 7208 §9 lets a server choose, and
//! one field that has everything is enough.
//! Strangers' fields under our name are for [`message::results::strip_forged`], also where nothing is verified.

mod body;
mod field;
mod names;
mod verifier;

pub use field::{Dkim, Finding, Findings, Signature};
pub use verifier::{Letter, Verifier};
