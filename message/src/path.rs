//! Reverse-path and forward-path as they stand in MAIL and RCPT (RFC 5321 §4.1.1.2–3).
//!
//! Source routes are stripped as RFC 5321 appendix C advises. Trusts nothing that a peer sent.

use crate::address::{AddressError, Mailbox, MailboxRef};
use crate::verp::Verp;
use std::fmt;

/// qmail's sender of a double bounce. No mailbox is called that: `[]` is no address.
const DOUBLE_BOUNCE: &str = "#@[]";

/// Where bounces go. `Null` is `<>`: mail from it is never bounced to its sender (RFC 5321 §4.5.5).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum ReversePath {
    Null,
    /// `<#@[]>`: this is a double bounce, which tells of mail from `<>` that failed. If it fails too, nobody is told.
    DoubleBounce,
    Mailbox(Mailbox),
}

impl ReversePath {
    /// What stands between the brackets, as [`ReversePath::as_str`] gives it: no source route, no VERP.
    pub fn parse(text: &str) -> Result<ReversePath, AddressError> {
        match text {
            "" => Ok(ReversePath::Null),
            DOUBLE_BOUNCE => Ok(ReversePath::DoubleBounce),
            _ => Mailbox::parse(text).map(ReversePath::Mailbox),
        }
    }

    pub fn as_str(&self) -> &str {
        match self {
            ReversePath::Null => "",
            ReversePath::DoubleBounce => DOUBLE_BOUNCE,
            ReversePath::Mailbox(mailbox) => mailbox.as_str(),
        }
    }

    /// As it is said to other hosts. `#@[]` is no address (RFC 5321 §4.1.2), and many hosts refuse it; qmail-remote says it
    /// all the same. A host that we say `<>` to tells nobody either, which is what the other form is for.
    pub fn on_the_wire(&self) -> &str {
        self.mailbox().map_or("", Mailbox::as_str)
    }

    /// Whom bounces go to, if to anybody.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            ReversePath::Null | ReversePath::DoubleBounce => None,
            ReversePath::Mailbox(mailbox) => Some(mailbox),
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
    if let Some(base) = inner.strip_suffix("-@[]") {
        let mailbox = Mailbox::parse(strip_source_route(base))?;
        return Ok((ReversePath::Mailbox(mailbox), Some(Verp::QMAIL), rest));
    }
    Ok((ReversePath::parse(strip_source_route(inner))?, None, rest))
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
        if let Ok((path, ..)) = parse_reverse_path(text) {
            assert_eq!(ReversePath::parse(path.as_str()), Ok(path));
        }
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
    fn double_bounce_has_a_path_of_its_own_that_no_other_host_sees() {
        let (path, verp, rest) = parse_reverse_path("<#@[]> X").unwrap();
        assert_eq!((&path, verp, rest), (&ReversePath::DoubleBounce, None, " X"));
        assert_eq!((path.as_str(), path.on_the_wire(), path.mailbox()), ("#@[]", "", None));
        assert_eq!(path.to_string(), "<#@[]>");
        assert!(Mailbox::parse("#@[]").is_err(), "it is nobody's address");
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
