//! Reverse-path and forward-path as they stand in MAIL and RCPT (RFC 5321 §4.1.1.2–3).
//!
//! Source routes are stripped as RFC 5321 appendix C advises. Trusts nothing that a peer sent.

use crate::address::{AddressError, Mailbox, MailboxRef};
use crate::verp::Verp;
use std::fmt;

/// Where bounces go. `Null` is `<>`: mail from it is never bounced (RFC 5321 §4.5.5).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum ReversePath {
    Null,
    Mailbox(Mailbox),
}

impl ReversePath {
    pub fn as_str(&self) -> &str {
        match self {
            ReversePath::Null => "",
            ReversePath::Mailbox(mailbox) => mailbox.as_str(),
        }
    }
}

/// Prints with its angle brackets: `<>`, `<ann@example.net>`.
impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.as_str())
    }
}

/// Where mail goes. `Postmaster` is `<postmaster>` without a domain, which every server must take
/// (RFC 5321 §4.5.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ForwardPath<'a> {
    Postmaster,
    Mailbox(MailboxRef<'a>),
}

/// Parses `<…>` at the start of `text`; returns the path and what follows it.
///
/// qmail's `<pre@host-@[]>` is a reverse-path too: it asks for one sender per recipient, `pre` + recipient,
/// and comes back as the mailbox `pre@host` with its [`Verp`].
pub fn parse_reverse_path(text: &str) -> Result<(ReversePath, Option<Verp>, &str), AddressError> {
    let (inner, rest) = split_path(text)?;
    if inner.is_empty() {
        return Ok((ReversePath::Null, None, rest));
    }
    if let Some(base) = inner.strip_suffix("-@[]") {
        let mailbox = Mailbox::parse(strip_source_route(base))?;
        return Ok((ReversePath::Mailbox(mailbox), Some(Verp::QMAIL), rest));
    }
    Ok((ReversePath::Mailbox(Mailbox::parse(strip_source_route(inner))?), None, rest))
}

/// Parses `<…>` at the start of `text`; returns the path and what follows it.
pub fn parse_forward_path(text: &str) -> Result<(ForwardPath<'_>, &str), AddressError> {
    let (inner, rest) = split_path(text)?;
    if inner.eq_ignore_ascii_case("postmaster") {
        return Ok((ForwardPath::Postmaster, rest));
    }
    Ok((ForwardPath::Mailbox(MailboxRef::parse(strip_source_route(inner))?), rest))
}

/// Finds the closing bracket, which a quoted local part may hide. Cost: one pass.
fn split_path(text: &str) -> Result<(&str, &str), AddressError> {
    let body = text.strip_prefix('<').ok_or(AddressError::Unopened)?;
    let (mut quoted, mut escaped) = (false, false);
    for (at, octet) in body.bytes().enumerate() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Ok((&body[..at], &body[at + 1..])),
            _ => {}
        }
    }
    Err(AddressError::Unclosed)
}

/// `@relay.example,@other.example:ann@example.net` → `ann@example.net`.
fn strip_source_route(path: &str) -> &str {
    match path.strip_prefix('@').and_then(|route| route.split_once(':')) {
        Some((_, mailbox)) => mailbox,
        None => path,
    }
}

/// For the fuzzer: any octets, both kinds of path.
pub fn fuzz_path(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = parse_reverse_path(text);
        let _ = parse_forward_path(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_reverse_path_is_null() {
        assert_eq!(parse_reverse_path("<> SIZE=1"), Ok((ReversePath::Null, None, " SIZE=1")));
    }

    #[test]
    fn qmail_form_asks_for_verp() {
        let (path, verp, rest) = parse_reverse_path("<list-@example.org-@[]>").unwrap();
        assert_eq!((path.as_str(), verp, rest), ("list-@example.org", Some(Verp::QMAIL), ""));
    }

    #[test]
    fn source_routes_are_stripped() {
        let (path, _) = parse_forward_path("<@a.example,@b.example:ann@example.net>").unwrap();
        assert_eq!(path, ForwardPath::Mailbox(MailboxRef { local_part: "ann", domain: "example.net" }));
    }

    #[test]
    fn bracket_inside_quotes_does_not_close_the_path() {
        let (path, rest) = parse_forward_path("<\"a>b\"@example.net> X").unwrap();
        assert_eq!(path, ForwardPath::Mailbox(MailboxRef { local_part: "\"a>b\"", domain: "example.net" }));
        assert_eq!(rest, " X");
    }

    #[test]
    fn postmaster_needs_no_domain() {
        assert_eq!(parse_forward_path("<Postmaster>"), Ok((ForwardPath::Postmaster, "")));
    }

    proptest::proptest! {
        #[test]
        fn fuzz_smoke(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            fuzz_path(&bytes);
        }
    }
}
