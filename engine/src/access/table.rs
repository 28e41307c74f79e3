//! The rules of `[access]`, compiled: which is the first that matches a client?
//!
//! Rules with networks are found by their addresses' bits, rules with a name alone by that name. Cost of a look-up: a hash
//! for each length of prefix that occurs in the rules and for each label of the client's name, and a look at each rule that
//! has neither condition; no allocation. Bound: as many rules as the configuration may have.

use super::found::ReverseName;
use crate::config::{CertificateIs, NameIs, Network, Rule, UserIs};
use smallvec::SmallVec;
use smtp_in::door::Certificate;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;

/// Rules, ascending.
type Places = SmallVec<[u32; 2]>;

/// What is known of a client.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Canonical; `None` for a process of this machine.
    pub address: Option<IpAddr>,
    pub uid: Option<u32>,
    pub name: &'a ReverseName,
    pub ident: Option<&'a str>,
    pub login: Option<&'a str>,
    pub certificate: Option<&'a Certificate>,
    /// The listener's name; `None` for the Unix socket.
    pub listener: Option<&'a str>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Table {
    rules: Vec<Rule>,
    by_network: Vec<Prefixes>,
    /// Rules with a name and without networks.
    by_name: HashMap<Box<str>, Places>,
    /// Key with its leading dot.
    below: HashMap<Box<str>, Places>,
    rest: Places,
    /// Rules with conditions that need look-ups.
    named: Vec<u32>,
    idented: Vec<u32>,
    edition: u16,
}

/// Networks of one family and length.
#[derive(Debug)]
struct Prefixes {
    is_v6: bool,
    len: u8,
    rules: HashMap<u128, Places>,
}

impl Table {
    pub fn new<'a>(rules: impl Iterator<Item = &'a Rule>) -> Table {
        let mut table = Table::default();
        let mut hasher = DefaultHasher::new();
        for (rule, place) in rules.zip(0_u32..) {
            table.index(rule, place);
            // Not for ever: a session holds it, and a process's hashes are all alike.
            format!("{rule:?}").hash(&mut hasher);
            table.rules.push(rule.clone());
        }
        table.by_network.sort_by_key(|prefixes| (prefixes.is_v6, prefixes.len));
        table.edition = (hasher.finish() >> 48) as u16;
        table
    }

    fn index(&mut self, rule: &Rule, place: u32) {
        if rule.name.is_some() {
            self.named.push(place);
        }
        if rule.ident.is_some() {
            self.idented.push(place);
        }
        if !rule.from.is_empty() {
            return rule.from.0.iter().for_each(|network| self.index_network(*network, place));
        }
        match &rule.name {
            Some(NameIs::Exactly(name)) => self.by_name.entry(name.clone()).or_default().push(place),
            Some(NameIs::Below(name)) => self.below.entry(name.clone()).or_default().push(place),
            Some(NameIs::Any | NameIs::Missing) | None => self.rest.push(place),
        }
    }

    fn index_network(&mut self, network: Network, place: u32) {
        let (is_v6, len) = (network.is_v6(), network.prefix_len());
        let is_it = |prefixes: &Prefixes| prefixes.is_v6 == is_v6 && prefixes.len == len;
        let at = self.by_network.iter().position(is_it).unwrap_or_else(|| {
            self.by_network.push(Prefixes { is_v6, len, rules: HashMap::new() });
            self.by_network.len() - 1
        });
        let places = self.by_network[at].rules.entry(network.bits()).or_default();
        if places.last() != Some(&place) {
            places.push(place);
        }
    }

    /// Another number for other rules, but for chance.
    pub fn edition(&self) -> u16 {
        self.edition
    }

    pub fn len(&self) -> usize {
        self.rules.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub fn rule(&self, place: u32) -> Option<&Rule> {
        self.rules.get(place as usize)
    }

    /// The first rule that matches.
    pub fn find(&self, facts: &Facts<'_>) -> Option<u32> {
        let mut first = None;
        let mut look = |places: &[u32]| {
            let before = |place: &&u32| first.is_none_or(|first| **place < first);
            let found = places.iter().take_while(before).find(|place| self.matches(**place, facts));
            first = found.copied().or(first);
        };
        look(&self.rest);
        if let Some(address) = facts.address {
            for prefixes in self.by_network.iter().filter(|prefixes| prefixes.is_v6 == address.is_ipv6()) {
                if let Some(places) = prefixes.rules.get(&crate::config::bits_of(address, prefixes.len)) {
                    look(places);
                }
            }
        }
        if let Some(name) = facts.name.as_deref() {
            if let Some(places) = self.by_name.get(name) {
                look(places);
            }
            for (at, _) in name.match_indices('.') {
                if let Some(places) = self.below.get(&name[at..]) {
                    look(places);
                }
            }
        }
        first
    }

    /// True if a rule before the one that matches now would need the client's name, or what its ident service says.
    pub fn wants(&self, facts: &Facts<'_>) -> Wants {
        let until = self.find(facts).unwrap_or(u32::MAX);
        let may = |places: &[u32]| {
            let mut places = places.iter().take_while(|place| **place < until);
            places.any(|place| self.rules.get(*place as usize).is_some_and(|rule| may_match(rule, facts)))
        };
        Wants { name: may(&self.named), ident: may(&self.idented) }
    }

    fn matches(&self, place: u32, facts: &Facts<'_>) -> bool {
        self.rule(place).is_some_and(|rule| {
            may_match(rule, facts)
                && rule.name.as_ref().is_none_or(|name| name.holds(facts.name))
                && rule.ident.as_deref().is_none_or(|ident| facts.ident == Some(ident))
        })
    }
}

/// What must be looked up before the right rule is known.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Wants {
    pub name: bool,
    pub ident: bool,
}

/// All conditions hold that need no look-up.
fn may_match(rule: &Rule, facts: &Facts<'_>) -> bool {
    // tcprules speaks of clients by the network alone: `:deny` is no word about our own processes.
    if facts.address.is_none() && rule.source.0.is_some() {
        return false;
    }
    let is_from = |address: IpAddr| rule.from.0.iter().any(|network| network.contains(address));
    (rule.from.is_empty() || facts.address.is_some_and(is_from))
        && rule.uid.is_none_or(|uid| facts.uid == Some(uid))
        && rule.certificate.as_ref().is_none_or(|wanted| wanted.holds(facts.certificate))
        && rule.user.as_ref().is_none_or(|user| user.holds(facts.login))
        && rule.listener.as_deref().is_none_or(|name| facts.listener == Some(name))
}

impl NameIs {
    fn holds(&self, name: &ReverseName) -> bool {
        match (self, name) {
            (NameIs::Missing, ReverseName::Missing) | (NameIs::Any, ReverseName::Is(_)) => true,
            (NameIs::Exactly(wanted), ReverseName::Is(name)) => **wanted == **name,
            (NameIs::Below(wanted), ReverseName::Is(name)) => name.ends_with(&**wanted),
            (_, _) => false,
        }
    }
}

impl CertificateIs {
    fn holds(&self, shown: Option<&Certificate>) -> bool {
        shown.is_some_and(|shown| match self {
            CertificateIs::Verified => shown.is_verified,
            CertificateIs::Sha256(digest) => shown.sha256 == *digest,
        })
    }
}

impl UserIs {
    fn holds(&self, login: Option<&str>) -> bool {
        login.is_some_and(|login| match self {
            UserIs::Any => true,
            UserIs::Exactly(name) => **name == *login,
        })
    }
}
