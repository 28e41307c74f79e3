//! The hosts of an MX set in the order in which they are tried (RFC 5321 §5.1). Pure, but for chance.
//!
//! Bounds: [`EXCHANGES_MAX`] of a set count, [`HOSTS_MAX`] are looked at.

use std::hash::{BuildHasher as _, RandomState};

/// Hosts of a domain that are looked at, best first.
const HOSTS_MAX: usize = 12;

/// Hosts of a set that make its name.
const EXCHANGES_MAX: usize = 64;

/// A domain's MX hosts.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Exchanges {
    /// The only one is the root: the domain takes no mail (RFC 7505).
    Null,
    /// At least one.
    Hosts(Vec<(u16, String)>),
}

impl Exchanges {
    /// By preference; equals in an order of chance, which spreads the load. Names in lower case without the last dot.
    pub(super) fn of(records: Vec<(u16, String)>) -> Exchanges {
        let mut hosts: Vec<(u16, String)> =
            records.into_iter().filter(|(_, name)| !name.is_empty()).collect();
        if hosts.is_empty() {
            return Exchanges::Null;
        }
        hosts.sort_unstable();
        hosts.dedup_by(|after, before| after.1 == before.1 && after.0 == before.0);
        hosts.truncate(EXCHANGES_MAX);
        let chance = RandomState::new();
        hosts.sort_by_cached_key(|(preference, name)| (*preference, chance.hash_one(name)));
        Exchanges::Hosts(hosts)
    }
}

/// Those before the first one that is ourselves: mail that came past it must not come back (RFC 5321 §5.1).
pub(super) fn before_own(mut hosts: Vec<(u16, String)>, is_own: impl Fn(&str) -> bool) -> Vec<(u16, String)> {
    let own = hosts.iter().filter(|(_, name)| is_own(name)).map(|(preference, _)| *preference).min();
    hosts.retain(|(preference, _)| own.is_none_or(|own| *preference < own));
    hosts
}

/// Those that are looked at.
pub(super) fn looked_at(hosts: &[(u16, String)]) -> &[(u16, String)] {
    &hosts[..hosts.len().min(HOSTS_MAX)]
}

/// The name under which domains with the same hosts share connections.
pub(super) fn site_of(hosts: &[(u16, String)]) -> String {
    let mut names: Vec<&str> = hosts.iter().map(|(_, name)| name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn records(records: &[(u16, &str)]) -> Vec<(u16, String)> {
        records.iter().map(|(preference, name)| (*preference, (*name).to_owned())).collect()
    }

    fn hosts(of: &[(u16, &str)]) -> Vec<(u16, String)> {
        match Exchanges::of(records(of)) {
            Exchanges::Hosts(hosts) => hosts,
            Exchanges::Null => panic!("no hosts"),
        }
    }

    #[test]
    fn lowest_preference_is_first_and_equals_change_places() {
        let mut firsts = HashSet::new();
        for _ in 0..200 {
            let hosts = hosts(&[(20, "c"), (10, "a"), (10, "b")]);
            assert_eq!(hosts[2], (20, "c".to_owned()));
            firsts.insert(hosts[0].1.clone());
        }
        assert_eq!(firsts.len(), 2, "200 times the same one");
    }

    #[test]
    fn only_the_root_is_a_null_mx() {
        assert_eq!(Exchanges::of(records(&[(0, "")])), Exchanges::Null);
        assert_eq!(hosts(&[(0, ""), (10, "a")]), records(&[(10, "a")]));
    }

    #[test]
    fn own_host_cuts_itself_its_equals_and_all_behind() {
        let all = hosts(&[(10, "a"), (20, "own"), (20, "b"), (30, "c")]);
        assert_eq!(before_own(all.clone(), |name| name == "own"), records(&[(10, "a")]));
        assert_eq!(before_own(all.clone(), |name| name == "a"), records(&[]));
        assert_eq!(before_own(all.clone(), |_| false), all);
    }

    #[test]
    fn a_site_is_named_by_its_hosts_whatever_their_order() {
        assert_eq!(site_of(&hosts(&[(10, "b"), (20, "a")])), "a,b");
        assert_eq!(site_of(&hosts(&[(5, "a"), (5, "b"), (9, "a")])), "a,b");
    }
}
