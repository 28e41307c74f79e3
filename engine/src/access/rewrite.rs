//! Recipients under another address: a suffix for clients that relay, the percent hack, bang paths, address literals that
//! are ours.
//!
//! Each is applied before it is decided whether mail may go there, so that none of them opens a way around that.

use message::{AddressError, Mailbox, MailboxRef};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `user%domain@here` is `user@domain`. `None` if there is no `%`, or what comes out is no mailbox.
pub(super) fn percent_hack(recipient: MailboxRef<'_>) -> Option<Mailbox> {
    if recipient.local_part.starts_with('"') {
        return None;
    }
    let (local_part, domain) = recipient.local_part.rsplit_once('%')?;
    Mailbox::parse(&format!("{local_part}@{domain}")).ok()
}

/// `a!b!user@here` is `b!user@a.uucp`; a first host with dots is a whole name already (RFC 976 §2.4). `None` if there is no
/// `!`, or what comes out is no mailbox.
pub(super) fn bang_path(recipient: MailboxRef<'_>) -> Option<Mailbox> {
    if recipient.local_part.starts_with('"') {
        return None;
    }
    let (host, rest) = recipient.local_part.split_once('!')?;
    let ending = if host.contains('.') { "" } else { ".uucp" };
    Mailbox::parse(&format!("{rest}@{host}{ending}")).ok()
}

/// The address of `[192.0.2.1]` or `[IPv6:2001:db8::1]`.
pub(super) fn literal(domain: &str) -> Option<IpAddr> {
    let inner = domain.strip_prefix('[')?.strip_suffix(']')?;
    match inner.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => {
            inner[5..].parse::<Ipv6Addr>().ok().map(|address| IpAddr::V6(address).to_canonical())
        }
        _ => inner.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

/// qmail's RELAYCLIENT: `suffix` is appended to the whole address, whose last `@` then divides it. What was an address becomes
/// a quoted local part: `ann@example.net` with `@gw.test` is `"ann@example.net"@gw.test`.
pub(super) fn with_suffix(recipient: MailboxRef<'_>, suffix: &str) -> Result<Mailbox, AddressError> {
    let Some(host) = suffix.strip_prefix('@') else {
        return Mailbox::parse(&format!("{recipient}{suffix}"));
    };
    let mut local_part = String::with_capacity(recipient.local_part.len() + recipient.domain.len() + 8);
    local_part.push('"');
    for char in unquoted(recipient.local_part).chars().chain(['@']).chain(recipient.domain.chars()) {
        if matches!(char, '"' | '\\') {
            local_part.push('\\');
        }
        local_part.push(char);
    }
    local_part.push('"');
    Mailbox::parse(&format!("{local_part}@{host}"))
}

/// A local part without the quotes and backslashes of RFC 5321.
pub(crate) fn unquoted(local_part: &str) -> String {
    let Some(inner) = local_part.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return local_part.to_owned();
    };
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(char) = chars.next() {
        out.push(if char == '\\' { chars.next().unwrap_or(char) } else { char });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn suffixed(address: &str, suffix: &str) -> String {
        with_suffix(MailboxRef::parse(address).unwrap(), suffix).unwrap().as_str().to_owned()
    }

    #[test]
    fn a_suffix_makes_the_address_a_local_part() {
        assert_eq!(suffixed("ann@example.net", "@gw.test"), r#""ann@example.net"@gw.test"#);
        assert_eq!(suffixed(r#""a \"b"@example.net"#, "@gw.test"), r#""a \"b@example.net"@gw.test"#);
        assert_eq!(suffixed("ann@example.net", ".uucp"), "ann@example.net.uucp");
        let long = format!("{}@example.net", "a".repeat(250));
        assert!(with_suffix(MailboxRef::parse(&long).unwrap(), "@gw.test").is_err());
    }

    #[test]
    fn the_last_percent_divides() {
        let hacked = |address: &str| percent_hack(MailboxRef::parse(address).unwrap());
        assert_eq!(hacked("a%b%c.test@d.test").unwrap().as_str(), "a%b@c.test");
        for address in ["a@d.test", "%c.test@d.test", "a%@d.test", "\"a%b\"@d.test"] {
            assert_eq!(hacked(address), None, "{address}");
        }
    }

    #[test]
    fn the_first_host_of_a_path_is_where_it_goes() {
        let turned = |address: &str| bang_path(MailboxRef::parse(address).unwrap());
        assert_eq!(turned("a!b!user@here.test").unwrap().as_str(), "b!user@a.uucp");
        assert_eq!(turned("a!user@here.test").unwrap().as_str(), "user@a.uucp");
        assert_eq!(turned("mx.a.test!b!user@here.test").unwrap().as_str(), "b!user@mx.a.test");
        for address in
            ["user@here.test", "!user@here.test", "a!@here.test", "a_b..c!u@d.test", "\"a!b\"@d.test"]
        {
            assert_eq!(turned(address), None, "{address}");
        }
    }

    #[test]
    fn literals_are_addresses() {
        assert_eq!(literal("[192.0.2.1]"), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(literal("[IPV6:2001:db8::1]"), Some("2001:db8::1".parse().unwrap()));
        assert_eq!(literal("[IPv6:::ffff:192.0.2.1]"), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(literal("example.net"), None);
    }

    proptest! {
        #[test]
        fn what_is_suffixed_is_a_mailbox_at_the_host(local in "[a-z\\\\\" @]{1,20}") {
            let address = format!("\"{}\"@example.net", local.replace('\\', "\\\\").replace('"', "\\\""));
            let mailbox = with_suffix(MailboxRef::parse(&address).unwrap(), "@gw.test").unwrap();
            prop_assert_eq!(mailbox.domain(), "gw.test");
            prop_assert_eq!(unquoted(mailbox.local_part()), format!("{local}@example.net"));
        }
    }
}
