//! XCLIENT's attributes, as Postfix defines them: on whose behalf a front server comes.
//!
//! Values are xtext. `[UNAVAILABLE]` and `[TEMPUNAVAIL]` say that nothing is known, which is more than saying nothing.
//! Bound: a command line.

use crate::sasl::user_of;
use crate::xtext;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Octets of a client's name by DNS, and of what it called itself.
const NAME_MAX: usize = 255;

/// Who a front server says its client is. The outer `None`: it does not say; the inner: it does not know.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Attributes {
    pub(crate) name: Option<Option<Box<str>>>,
    pub(crate) address: Option<Option<IpAddr>>,
    pub(crate) port: Option<Option<u16>>,
    pub(crate) helo: Option<Option<Box<str>>>,
    /// PROTO: ESMTP, not SMTP.
    pub(crate) is_extended: Option<bool>,
    pub(crate) login: Option<Option<Box<str>>>,
}

/// `None` for anything that is wrong: who says nonsense of its client is not to be believed the rest.
pub(crate) fn parse(argument: &[u8]) -> Option<Attributes> {
    let mut attributes = Attributes::default();
    let words = argument.split(|octet| *octet == b' ').filter(|word| !word.is_empty());
    for word in words {
        let equals = memchr::memchr(b'=', word)?;
        let value = read_value(&word[equals + 1..])?;
        attributes.take(&word[..equals].to_ascii_uppercase(), value)?;
    }
    (attributes != Attributes::default()).then_some(attributes)
}

/// `Some(None)`: nothing is known.
fn read_value(value: &[u8]) -> Option<Option<String>> {
    if value.eq_ignore_ascii_case(b"[UNAVAILABLE]") || value.eq_ignore_ascii_case(b"[TEMPUNAVAIL]") {
        return Some(None);
    }
    let octets = xtext::decode(value).filter(|octets| !octets.is_empty())?;
    String::from_utf8(octets).ok().map(Some)
}

impl Attributes {
    fn take(&mut self, keyword: &[u8], value: Option<String>) -> Option<()> {
        match keyword {
            b"NAME" => set(&mut self.name, value, |name| name.is_ascii().then(|| word(name))?),
            b"ADDR" => set(&mut self.address, value, parse_address),
            b"PORT" => set(&mut self.port, value, |port| port.parse().ok()),
            b"HELO" => set(&mut self.helo, value, word),
            b"LOGIN" => set(&mut self.login, value, |login| user_of(login.as_bytes()).map(Into::into)),
            b"PROTO" => {
                let is_extended = match value?.to_ascii_uppercase().as_str() {
                    "ESMTP" => true,
                    "SMTP" => false,
                    _ => return None,
                };
                self.is_extended.replace(is_extended).is_none().then_some(())
            }
            _ => None,
        }
    }
}

/// Once each.
fn set<T>(
    place: &mut Option<Option<T>>,
    value: Option<String>,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Option<()> {
    let parsed = match value {
        Some(value) => Some(parse(&value)?),
        None => None,
    };
    place.replace(parsed).is_none().then_some(())
}

fn word(text: &str) -> Option<Box<str>> {
    let is_bad = |char: char| char.is_whitespace() || char.is_control();
    (text.len() <= NAME_MAX && !text.contains(is_bad)).then(|| text.into())
}

/// `192.0.2.1`, `IPV6:2001:db8::1`; without the prefix too, as some fronts write it.
fn parse_address(text: &str) -> Option<IpAddr> {
    let v6 = text.split_at_checked(5).filter(|(prefix, _)| prefix.eq_ignore_ascii_case("IPV6:"));
    let v6 = v6.map_or(text, |(_, address)| address).parse::<Ipv6Addr>().map(IpAddr::V6);
    let address = v6.or_else(|_| text.parse::<Ipv4Addr>().map(IpAddr::V4)).ok()?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_told_from_each_other() {
        let attributes =
            parse(b"NAME=spike.example.com addr=IPV6:2001:db8::1 PORT=1024 HELO=a+2Bb PROTO=smtp LOGIN=ann");
        let attributes = attributes.unwrap();
        assert_eq!(attributes.name, Some(Some("spike.example.com".into())));
        assert_eq!(attributes.address, Some(Some("2001:db8::1".parse().unwrap())));
        assert_eq!((attributes.port, attributes.is_extended), (Some(Some(1024)), Some(false)));
        assert_eq!((attributes.helo, attributes.login), (Some(Some("a+b".into())), Some(Some("ann".into()))));
    }

    #[test]
    fn unknown_is_not_unsaid() {
        let attributes = parse(b"ADDR=[UNAVAILABLE] NAME=[tempunavail]").unwrap();
        assert_eq!((attributes.address, attributes.name, attributes.login), (Some(None), Some(None), None));
    }

    #[test]
    fn nonsense_is_refused_whole() {
        for bad in [
            "",
            " ",
            "ADDR",
            "ADDR=",
            "ADDR=192.0.2.300",
            "ADDR=192.0.2.1 ADDR=192.0.2.2",
            "PORT=65536",
            "PORT=-1",
            "PROTO=LMTP",
            "PROTO=[UNAVAILABLE]",
            "NAME=a+0Ab",
            "NAME=a+20b",
            "NAME=+C3+A9",
            "HELO=+FF",
            "LOGIN=a+00",
            "WHO=ann",
            "NAME=a=b",
            "PROTO=SMTP PROTO=SMTP",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
