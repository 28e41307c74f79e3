//! What is asked about a client before it may go on, and what came out: between a core and the control thread.

use crate::config::{DnsList, ListOn};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A list of `[access.lists]`, with its name.
#[derive(Debug)]
pub struct List {
    pub name: Arc<str>,
    pub list: DnsList,
}

/// What to find out. Nothing in it is the client's word, but for names of `sender-domain` and `helo` lists.
#[derive(Clone, Debug)]
pub struct LookUp {
    /// Canonical.
    pub address: IpAddr,
    pub wants_name: bool,
    pub ident: Option<IdentPorts>,
    /// At most [`crate::config::LISTS_MAX`].
    pub lists: Vec<ListQuestion>,
}

/// Whose connection an ident service is asked about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IdentPorts {
    pub ours: SocketAddr,
    pub theirs: SocketAddr,
}

/// One question to one list.
#[derive(Clone, Debug)]
pub struct ListQuestion {
    pub list: Arc<List>,
    /// What is asked for, the list's zone included: `1.2.0.192.zen.example.org`.
    pub name: String,
}

/// What was found out. The default: nothing was asked.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub name: ReverseName,
    /// Printable ASCII, at most 64 octets.
    pub ident: Option<Arc<str>>,
    pub listed: Vec<Listed>,
}

impl Found {
    /// Worth to be remembered.
    pub fn is_something(&self) -> bool {
        self.name != ReverseName::Unknown || self.ident.is_some() || !self.listed.is_empty()
    }
}

/// The client's name, if one leads back to its address.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum ReverseName {
    /// Not asked, or nobody knows now.
    #[default]
    Unknown,
    /// There is none, and name servers vouch for it.
    Missing,
    /// In lower case, without the last dot.
    Is(Arc<str>),
}

/// The client, or a name of its, is in a list.
#[derive(Clone, Debug)]
pub struct Listed {
    pub list: Arc<List>,
    /// What the list says of it: printable ASCII, at most [`TEXT_MAX`] octets.
    pub text: Option<Arc<str>>,
}

/// Octets of a list's words that clients are told.
pub const TEXT_MAX: usize = 200;

impl ReverseName {
    pub fn as_deref(&self) -> Option<&str> {
        match self {
            ReverseName::Is(name) => Some(name),
            ReverseName::Unknown | ReverseName::Missing => None,
        }
    }
}

/// RFC 5782 §2.1 and §2.4: the address backwards, by octets or by nibbles.
pub(super) fn question_about_address(list: &Arc<List>, address: IpAddr) -> ListQuestion {
    let mut name = reversed(address);
    name.push('.');
    name.push_str(&list.list.zone);
    ListQuestion { list: Arc::clone(list), name }
}

/// `None` for an address literal, and for a name that is too long with the zone behind it.
pub(super) fn question_about_name(list: &Arc<List>, domain: &str) -> Option<ListQuestion> {
    let is_name = list.list.on != ListOn::Address && message::Domain::parse(domain).is_ok();
    let name = format!("{domain}.{}", list.list.zone);
    (is_name && !domain.starts_with('[') && name.len() <= 253)
        .then(|| ListQuestion { list: Arc::clone(list), name })
}

/// `192.0.2.1` as `1.2.0.192`; IPv6 by nibbles.
pub(crate) fn reversed(address: IpAddr) -> String {
    let parts: Vec<String> = match address {
        IpAddr::V4(v4) => v4.octets().iter().rev().map(ToString::to_string).collect(),
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().rev().flat_map(|octet| [octet & 15, octet >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}")).collect()
        }
    };
    parts.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_asked_for_backwards() {
        assert_eq!(reversed("192.0.2.1".parse().unwrap()), "1.2.0.192");
        let expected = format!("1.0.{}8.b.d.0.1.0.0.2", "0.".repeat(22));
        assert_eq!(reversed("2001:db8::1".parse().unwrap()), expected);
    }
}
