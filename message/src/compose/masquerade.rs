//! Whose mail goes out under another address: a map from users and hosts to addresses and hosts (Q11).

use crate::address::{AddressError, Domain, Mailbox};
use std::collections::HashMap;

/// An entry that means nothing.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("masquerade \"{from}\" as \"{to}\": {reason}")]
pub struct MasqueradeError {
    pub from: String,
    pub to: String,
    pub reason: AddressError,
}

/// What senders become. An address is looked for as it is, then by its user if it is at the default host, then by its
/// host, then by the domains above its host; the first that is found counts, and what it says is not looked for again.
#[derive(Clone, Debug, Default)]
pub struct Masquerade {
    addresses: HashMap<Box<str>, Mailbox>,
    /// Local parts at the default host.
    users: HashMap<Box<str>, Mailbox>,
    /// Hosts in lower case; those with a dot in front stand for every name below.
    hosts: HashMap<Box<str>, Domain>,
}

impl Masquerade {
    pub fn new() -> Masquerade {
        Masquerade::default()
    }

    /// Adds one entry: `ann@host.example` or `ann` (at the default host) → an address; `@host.example` → a host;
    /// `@.example` (every host below) → a host. A host may be written with or without its `@` on the right side.
    pub fn add(&mut self, from: &str, to: &str) -> Result<(), MasqueradeError> {
        let wrong = |reason| MasqueradeError { from: from.to_owned(), to: to.to_owned(), reason };
        match from.strip_prefix('@') {
            Some(host) => {
                let name = Domain::parse(host.strip_prefix('.').unwrap_or(host)).map_err(wrong)?;
                let dot = if host.starts_with('.') { "." } else { "" };
                let to = Domain::parse(to.strip_prefix('@').unwrap_or(to)).map_err(wrong)?;
                self.hosts.insert(format!("{dot}{name}").into(), to);
            }
            None if !from.contains('@') => {
                // The host is only there to have the user checked.
                let user = Mailbox::parse(&format!("{from}@host.invalid")).map_err(wrong)?;
                self.users.insert(user.local_part().into(), Mailbox::parse(to).map_err(wrong)?);
            }
            None => {
                let mailbox = Mailbox::parse(from).map_err(wrong)?;
                self.addresses.insert(mailbox.as_str().into(), Mailbox::parse(to).map_err(wrong)?);
            }
        }
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.users.is_empty() && self.hosts.is_empty()
    }

    /// What `mailbox` becomes; silent if it stays. Cost: one look-up for each label of its host.
    pub fn of(&self, mailbox: &Mailbox, default_host: &str) -> Option<Mailbox> {
        let own = || self.users.get(mailbox.local_part());
        let at_home = mailbox.domain().eq_ignore_ascii_case(default_host);
        let whole = self.addresses.get(mailbox.as_str());
        if let Some(found) = whole.or_else(|| at_home.then(own).flatten()) {
            return Some(found.clone());
        }
        let host = self.host(mailbox.domain())?;
        Mailbox::parse(&format!("{}@{host}", mailbox.local_part())).ok()
    }

    fn host(&self, domain: &str) -> Option<&Domain> {
        let above = domain.match_indices('.').map(|(dot, _)| &domain[dot..]);
        std::iter::once(domain).chain(above).find_map(|name| self.hosts.get(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_entry_counts_once() {
        let mut map = Masquerade::new();
        for (from, to) in [
            ("ann@a.example", "Ann.Example@example.org"),
            ("@a.example", "b.example"),
            ("@b.example", "@c.example"),
            ("@.a.example", "below.example"),
            ("cy", "cy@example.org"),
        ] {
            map.add(from, to).unwrap();
        }
        let of = |text: &str| {
            map.of(&Mailbox::parse(text).unwrap(), "home.example").map(|mailbox| mailbox.to_string())
        };
        assert_eq!(of("ann@A.example").as_deref(), Some("Ann.Example@example.org"));
        assert_eq!(of("bob@a.example").as_deref(), Some("bob@b.example"));
        assert_eq!(of("ann@x.y.a.example").as_deref(), Some("ann@below.example"));
        assert_eq!(of("cy@home.example").as_deref(), Some("cy@example.org"));
        assert_eq!(of("cy@away.example"), None);
    }

    #[test]
    fn an_entry_that_means_nothing_says_so() {
        let error = Masquerade::new().add("@a b", "c").unwrap_err();
        assert_eq!(
            error.to_string(),
            "masquerade \"@a b\" as \"c\": the domain has an octet that no domain may have"
        );
        assert!(Masquerade::new().add("a b", "ann@example.org").is_err());
    }
}
