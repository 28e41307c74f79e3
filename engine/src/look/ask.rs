//! What is asked: one JSON object a line, whose key `look` says which look it is.
//!
//! Comes over the control socket beside the orders of `steer/wire`. Trusts nothing that comes in: what is no domain and
//! what is too many is refused in words. Bounds: [`LOOK_MAX`] octets, [`ROWS_MAX`] rows, [`ADDRESSES_MAX`] addresses.

use crate::steer::condition::Pattern;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// Octets of a look. A longer line is no look.
pub const LOOK_MAX: usize = 64 << 10;

/// Rows of one core, and of an answer: each is put together within one turn.
pub const ROWS_MAX: usize = 5_000;

/// Addresses that one look may name: a core compares each with every host that it knows.
pub const ADDRESSES_MAX: usize = 100;

/// See the module.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "look", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Look {
    /// Where a domain's mail goes, how it is protected, what holds it back.
    Explain { domain: String },
    /// The busiest sites; `pattern` is compared with a site's name and with each host in it.
    Sites { pattern: Option<String>, limit: usize },
    /// Hosts that rest because they could not be connected to or would not serve us.
    Hosts { limit: usize },
    /// They need not rest any longer.
    Forget { addresses: Vec<Meant>, all: bool },
    /// The dialogue with a domain's hosts as it happens, until the client goes away.
    Trace { domain: String },
}

/// An address with a port, or one with whatever port.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Meant {
    Port(SocketAddr),
    Address(IpAddr),
}

impl Meant {
    pub fn is(self, address: SocketAddr) -> bool {
        match self {
            Meant::Port(meant) => meant == address,
            Meant::Address(meant) => meant == address.ip(),
        }
    }
}

impl FromStr for Meant {
    type Err = String;

    fn from_str(text: &str) -> Result<Meant, String> {
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        let address = bare.parse().map(Meant::Address);
        address
            .or_else(|_| text.parse().map(Meant::Port))
            .map_err(|_| format!("{text:?} is no address; write 192.0.2.1, 192.0.2.1:25 or [2001:db8::1]:25"))
    }
}

impl Look {
    /// Reads one line. `None`: it is no look.
    pub fn parse(line: &[u8]) -> Option<Result<Look, String>> {
        #[derive(Deserialize)]
        struct Key {
            look: Option<IgnoredAny>,
        }
        if line.len() > LOOK_MAX {
            return None;
        }
        serde_json::from_slice::<Key>(line).ok()?.look?;
        let look = serde_json::from_slice::<Look>(line).map_err(|error| format!("no look: {error}"));
        Some(look.and_then(Look::check))
    }

    /// Domains in lower case, rows within their bound.
    fn check(mut self) -> Result<Look, String> {
        match &mut self {
            Look::Explain { domain } | Look::Trace { domain } => *domain = domain_of(domain)?,
            Look::Sites { limit, .. } | Look::Hosts { limit } => *limit = (*limit).clamp(1, ROWS_MAX),
            Look::Forget { addresses, .. } if addresses.len() > ADDRESSES_MAX => {
                return Err(format!("more than {ADDRESSES_MAX} addresses"));
            }
            Look::Forget { addresses, all } if addresses.is_empty() && !*all => {
                return Err("say which: addresses, or all of them".into());
            }
            Look::Forget { .. } => {}
        }
        Ok(self)
    }
}

/// The domain in lower case, or why it is none.
pub fn domain_of(text: &str) -> Result<String, String> {
    let domain = message::Domain::parse(text).map_err(|error| format!("{text:?} is no domain: {error}"))?;
    Ok(domain.as_str().to_owned())
}

/// True if the pattern is the site's name, or that of a host in it.
pub fn names_site(pattern: &Pattern, site: &str) -> bool {
    pattern.matches(site) || site.split(',').any(|host| pattern.matches(host))
}

/// For the fuzzer: any octets as a look.
pub fn fuzz_look(bytes: &[u8]) {
    if let Some(Ok(look)) = Look::parse(bytes) {
        let line = serde_json::to_vec(&look).unwrap_or_default();
        // A name may grow past its bound when it is put into lower case.
        if let Some(Ok(again)) = Look::parse(&line) {
            assert_eq!(again, look, "what is said of a look must be that look");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(line: &str) -> Option<Result<Look, String>> {
        Look::parse(line.as_bytes())
    }

    #[test]
    fn line_with_the_key_is_a_look_and_others_are_not() {
        assert_eq!(
            parse(r#"{"look":"explain","domain":"A.Test"}"#),
            Some(Ok(Look::Explain { domain: "a.test".into() }))
        );
        assert_eq!(parse(r#"{"limit":0,"look":"sites"}"#), Some(Ok(Look::Sites { pattern: None, limit: 1 })));
        for other in [r#"{"action":"stat"}"#, "hello", "[]", r#"{"look":null}"#, ""] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn unknown_things_are_refused_in_words() {
        let error = |line: &str| parse(line).unwrap().unwrap_err();
        assert!(error(r#"{"look":"away"}"#).starts_with("no look: unknown variant `away`"));
        assert!(error(r#"{"look":"hosts","limit":1,"colour":1}"#).contains("unknown field `colour`"));
        assert!(error(r#"{"look":"trace","domain":"a b"}"#).starts_with("\"a b\" is no domain: "));
        assert!(error(r#"{"look":"forget","addresses":[],"all":false}"#).starts_with("say which"));
        let many = vec!["192.0.2.1"; ADDRESSES_MAX + 1];
        let many = serde_json::json!({ "look": "forget", "addresses": many, "all": false });
        assert_eq!(error(&many.to_string()), "more than 100 addresses");
    }

    #[test]
    fn address_is_meant_with_its_port_or_with_any() {
        let address: SocketAddr = "[2001:db8::1]:25".parse().unwrap();
        for meant in ["2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:25"] {
            assert!(meant.parse::<Meant>().unwrap().is(address), "{meant}");
        }
        assert!(!"[2001:db8::1]:26".parse::<Meant>().unwrap().is(address));
        assert!("mx.test".parse::<Meant>().unwrap_err().starts_with("\"mx.test\" is no address"));
    }

    #[test]
    fn pattern_finds_a_site_by_any_of_its_hosts() {
        let is_found = |pattern: &str| names_site(&Pattern::new(pattern), "mx1.a.test,mx2.b.test");
        assert!(is_found("mx2.*") && is_found("*a.test*") && is_found("mx1.a.test"));
        assert!(!is_found("mx2") && !is_found("a.test"));
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), domain in "\\PC{0,30}", which in 0..2) {
            fuzz_look(&bytes);
            let look = if which == 0 { Look::Explain { domain } } else { Look::Trace { domain } };
            fuzz_look(&serde_json::to_vec(&look).unwrap());
        }
    }
}
