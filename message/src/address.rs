//! Mailboxes and domains (RFC 5321 §4.1.2, RFC 6531 §3.3).
//!
//! A mailbox keeps its local part exactly as it came (only its host may interpret it, RFC 5321 §2.4) and its
//! domain in lower case, so that equal domains are equal bytes. More is accepted than the grammar allows where
//! real mailboxes are known to break it: dots at the ends of a local part or in a row.
//! Bound: a local part is at most [`LOCAL_PART_MAX`] octets, a domain at most [`DOMAIN_MAX`].

use std::fmt;

/// Longest local part that is taken, in octets. RFC 5321 §4.5.3.1.1 asks for 64; senders made by VERP elsewhere
/// are longer, and refusing them would refuse their bounces.
pub const LOCAL_PART_MAX: usize = 255;

/// Longest domain, in octets (RFC 5321 §4.5.3.1.2).
pub const DOMAIN_MAX: usize = 255;

/// Why a mailbox was refused. The text ends a `501`, `553` or an error about the configuration.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AddressError {
    #[error("the address is empty")]
    Empty,
    #[error("the address has no @")]
    NoAt,
    #[error("the local part is empty")]
    EmptyLocalPart,
    #[error("the local part is longer than 255 octets")]
    LocalPartTooLong,
    #[error("the local part has an octet that must be quoted")]
    LocalPartSyntax,
    #[error("the domain is empty or has an empty label")]
    EmptyLabel,
    #[error("the domain is longer than 255 octets or a label longer than 63")]
    DomainTooLong,
    #[error("the domain has an octet that no domain may have")]
    DomainSyntax,
    #[error("the address literal is not an IP address")]
    Literal,
    #[error("the address is not UTF-8")]
    NotUtf8,
    #[error("the path does not end in >")]
    Unclosed,
    #[error("the path does not begin with <")]
    Unopened,
}

/// A domain in lower case, or an address literal with its brackets: `example.net`, `[192.0.2.1]`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Domain(Box<str>);

impl Domain {
    /// Parses and lower-cases a domain name or address literal.
    pub fn parse(text: &str) -> Result<Domain, AddressError> {
        check_domain(text)?;
        Ok(Domain(text.to_lowercase().into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `local@domain`, in one allocation.
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct Mailbox {
    text: Box<str>,
    /// Octets before the `@`: at most [`LOCAL_PART_MAX`].
    local_len: u8,
}

impl Mailbox {
    /// Parses `local@domain`, as it stands inside a path's angle brackets.
    pub fn parse(text: &str) -> Result<Mailbox, AddressError> {
        MailboxRef::parse(text).map(|mailbox| mailbox.to_owned())
    }

    pub fn local_part(&self) -> &str {
        &self.text[..usize::from(self.local_len)]
    }

    pub fn domain(&self) -> &str {
        &self.text[usize::from(self.local_len) + 1..]
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn as_ref(&self) -> MailboxRef<'_> {
        MailboxRef { local_part: self.local_part(), domain: self.domain() }
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.text)
    }
}

/// A mailbox that lives in somebody else's memory: a recipient list, a command line.
/// The domain of one that [`MailboxRef::parse`] made may still have upper-case letters; `to_owned` and
/// `Recipients::push` lower them.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct MailboxRef<'a> {
    pub local_part: &'a str,
    pub domain: &'a str,
}

impl<'a> MailboxRef<'a> {
    /// Parses `local@domain` without copying it.
    pub fn parse(text: &'a str) -> Result<MailboxRef<'a>, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        // The last @ divides: a quoted local part may hold others.
        let at = memchr::memrchr(b'@', text.as_bytes()).ok_or(AddressError::NoAt)?;
        let (local_part, domain) = (&text[..at], &text[at + 1..]);
        check_local_part(local_part)?;
        check_domain(domain)?;
        Ok(MailboxRef { local_part, domain })
    }

    pub fn to_owned(self) -> Mailbox {
        let local_len =
            u8::try_from(self.local_part.len()).expect("a parsed local part is at most 255 octets");
        let mut text = String::with_capacity(self.local_part.len() + 1 + self.domain.len());
        text.push_str(self.local_part);
        text.push('@');
        text.extend(self.domain.chars().flat_map(char::to_lowercase));
        Mailbox { text: text.into(), local_len }
    }

    /// The same address with a dot behind its domain: so the queue tells who goes another way than the rest of a domain. No
    /// parser makes one, and [`shown_domain`] is what everybody else is to see.
    pub fn with_other_way(self) -> Mailbox {
        let mailbox = self.to_owned();
        Mailbox { text: format!("{}.", mailbox.text).into(), ..mailbox }
    }

    /// True if only a peer that offers SMTPUTF8 can take this address (RFC 6531).
    pub fn needs_smtputf8(self) -> bool {
        !self.local_part.is_ascii() || !self.domain.is_ascii()
    }
}

impl fmt::Display for MailboxRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local_part, self.domain)
    }
}

/// The domain without what [`MailboxRef::with_other_way`] puts behind it.
pub fn shown_domain(queued: &str) -> &str {
    queued.strip_suffix('.').unwrap_or(queued)
}

/// `atext` of RFC 5321, the dot, and everything beyond ASCII (RFC 6531 §3.3).
pub(crate) fn is_dot_atom_octet(octet: u8) -> bool {
    matches!(octet, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | 128..)
        || b"!#$%&'*+-/=?^_`{|}~".contains(&octet)
}

fn check_local_part(local: &str) -> Result<(), AddressError> {
    if local.is_empty() {
        return Err(AddressError::EmptyLocalPart);
    }
    if local.len() > LOCAL_PART_MAX {
        return Err(AddressError::LocalPartTooLong);
    }
    let legal = match local.strip_prefix('"') {
        Some(rest) => is_quoted_rest(rest.as_bytes()),
        None => local.bytes().all(is_dot_atom_octet),
    };
    if legal { Ok(()) } else { Err(AddressError::LocalPartSyntax) }
}

/// True if `rest` is what follows the opening quote of a quoted string, closing quote included.
fn is_quoted_rest(rest: &[u8]) -> bool {
    let mut at = 0;
    while at < rest.len() {
        match rest[at] {
            b'"' => return at + 1 == rest.len(),
            b'\\' if rest.get(at + 1).is_some_and(|octet| (32..=126).contains(octet)) => at += 2,
            b'\\' => return false,
            32..=126 | 128.. => at += 1,
            _ => return false,
        }
    }
    false
}

fn check_domain(domain: &str) -> Result<(), AddressError> {
    if domain.len() > DOMAIN_MAX {
        return Err(AddressError::DomainTooLong);
    }
    if let Some(literal) = domain.strip_prefix('[') {
        return check_literal(literal);
    }
    for label in domain.split('.') {
        if label.is_empty() {
            return Err(AddressError::EmptyLabel);
        }
        if label.len() > 63 {
            return Err(AddressError::DomainTooLong);
        }
        if !label.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | 128..)) {
            return Err(AddressError::DomainSyntax);
        }
    }
    Ok(())
}

/// RFC 5321 §4.1.3: `[192.0.2.1]` or `[IPv6:2001:db8::1]`; `rest` is what follows the bracket.
fn check_literal(rest: &str) -> Result<(), AddressError> {
    let inner = rest.strip_suffix(']').ok_or(AddressError::Literal)?;
    let is_ip = match inner.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => inner[5..].parse::<std::net::Ipv6Addr>().is_ok(),
        _ => inner.parse::<std::net::Ipv4Addr>().is_ok(),
    };
    if is_ip { Ok(()) } else { Err(AddressError::Literal) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_local_part_and_lowers_the_domain() {
        let mailbox = Mailbox::parse("Ann.B@Example.NET").unwrap();
        assert_eq!(mailbox.as_str(), "Ann.B@example.net");
        assert_eq!((mailbox.local_part(), mailbox.domain()), ("Ann.B", "example.net"));
    }

    #[test]
    fn quoted_local_part_may_hold_an_at_and_escapes() {
        let mailbox = Mailbox::parse(r#""a@b \"c"@example.net"#).unwrap();
        assert_eq!(mailbox.local_part(), r#""a@b \"c""#);
        assert_eq!(Mailbox::parse(r#""a"b@example.net"#), Err(AddressError::LocalPartSyntax));
    }

    #[test]
    fn literals_must_be_addresses() {
        assert!(Mailbox::parse("a@[192.0.2.1]").is_ok());
        assert!(Mailbox::parse("a@[IPv6:2001:db8::1]").is_ok());
        assert_eq!(Mailbox::parse("a@[300.1.1.1]"), Err(AddressError::Literal));
        assert_eq!(Mailbox::parse("a@[1.2.3.4"), Err(AddressError::Literal));
    }

    #[test]
    fn refuses_what_could_break_a_command_line() {
        for bad in ["a b@c.d", "a@b c", "a\r@b.c", "a@b\n.c", "a@b..c", "@b.c", "a@", "a", "a<b@c.d", "a@b>c"]
        {
            assert!(Mailbox::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics_and_what_parses_prints_back(text in "\\PC{0,80}") {
            if let Ok(mailbox) = Mailbox::parse(&text) {
                proptest::prop_assert_eq!(mailbox.as_str().to_lowercase(), text.to_lowercase());
            }
        }
    }
}
