//! Lists of domains and of mailboxes that mail is held against: `relay_to`, `bad_senders`, `bad_recipients`.
//!
//! Letters match in either case. Cost of a look-up: a hash for each label of the domain; no allocation for an address
//! of ASCII up to 320 octets. Bounds: those of the configuration's lists and files.

use message::cdb::Cdb;
use smallvec::SmallVec;
use std::collections::HashSet;

/// Octets in lower case.
type Lowered = SmallVec<[u8; 320]>;

fn lowered(parts: &[&str]) -> Lowered {
    let mut out = Lowered::new();
    for part in parts {
        if part.is_ascii() {
            out.extend(part.bytes().map(|octet| octet.to_ascii_lowercase()));
        } else {
            out.extend_from_slice(part.to_lowercase().as_bytes());
        }
    }
    out
}

/// The domain's own ends, longest first: `.b.c` and `.c` of `a.b.c`. What is below a domain is not the domain.
fn ends(domain: &[u8]) -> impl Iterator<Item = &[u8]> {
    domain.iter().enumerate().filter(|(_, octet)| **octet == b'.').map(|(at, _)| &domain[at..])
}

/// Domains, and what is below domains.
#[derive(Debug, Default)]
pub struct Domains {
    /// Those that begin with a dot stand for what is below.
    names: HashSet<Box<[u8]>>,
    database: Option<Cdb>,
    is_everything: bool,
}

impl Domains {
    /// Entries as the configuration has checked them: `example.net`, `.example.net`, `*`.
    pub fn new<'a>(entries: impl Iterator<Item = &'a String>, database: Option<Cdb>) -> Domains {
        let mut domains = Domains { database, ..Domains::default() };
        for entry in entries {
            if entry == "*" {
                domains.is_everything = true;
            } else {
                domains.names.insert(lowered(&[entry]).into_boxed_slice());
            }
        }
        domains
    }

    pub fn contains(&self, domain: &str) -> bool {
        if self.is_everything {
            return true;
        }
        if self.is_empty() {
            return false;
        }
        let domain = lowered(&[domain]);
        self.has(&domain) || ends(&domain).any(|end| self.has(end))
    }

    fn has(&self, key: &[u8]) -> bool {
        self.names.contains(key) || self.database.as_ref().is_some_and(|database| database.contains(key))
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.database.is_none() && !self.is_everything
    }

    /// Entries; `None`: everything.
    pub fn count(&self) -> Option<usize> {
        let of_database = self.database.as_ref().map_or(0, Cdb::count);
        (!self.is_everything).then_some(self.names.len() + of_database)
    }
}

/// Mailboxes, and domains of mailboxes.
#[derive(Debug, Default)]
pub struct Mailboxes {
    mailboxes: HashSet<Box<[u8]>>,
    domains: Domains,
}

impl Mailboxes {
    /// Entries as the configuration has checked them: `ann@example.net`, `@example.net`, `@.example.net`.
    pub fn new<'a>(entries: impl Iterator<Item = &'a String>) -> Mailboxes {
        let mut all = Mailboxes::default();
        for entry in entries {
            match entry.strip_prefix('@') {
                Some(domain) => all.domains.names.insert(lowered(&[domain]).into_boxed_slice()),
                None => all.mailboxes.insert(lowered(&[entry]).into_boxed_slice()),
            };
        }
        all
    }

    pub fn contains(&self, local_part: &str, domain: &str) -> bool {
        if !self.domains.is_empty() && self.domains.contains(domain) {
            return true;
        }
        !self.mailboxes.is_empty() && self.mailboxes.contains(&*lowered(&[local_part, "@", domain]))
    }

    pub fn is_empty(&self) -> bool {
        self.mailboxes.is_empty() && self.domains.is_empty()
    }

    pub fn count(&self) -> usize {
        self.mailboxes.len() + self.domains.names.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn strings(entries: &[&str]) -> Vec<String> {
        entries.iter().map(ToString::to_string).collect()
    }

    fn domains(entries: &[&str]) -> Domains {
        Domains::new(strings(entries).iter(), None)
    }

    #[test]
    fn a_dot_in_front_is_what_lies_below() {
        let listed = domains(&["Example.NET", ".example.org", "[192.0.2.1]"]);
        for domain in ["example.net", "EXAMPLE.net", "a.example.org", "a.B.example.org", "[192.0.2.1]"] {
            assert!(listed.contains(domain), "{domain}");
        }
        for domain in ["example.org", "a.example.net", "notexample.net", "net", "xexample.org", "[192.0.2.2]"]
        {
            assert!(!listed.contains(domain), "{domain}");
        }
        assert!(domains(&["*"]).contains("any.test"));
        assert!(domains(&[]).is_empty() && !domains(&[]).contains("any.test"));
        assert!(domains(&["bücher.test"]).contains("BÜCHER.test"));
    }

    #[test]
    fn mailboxes_match_in_either_case_and_by_domain() {
        let entries = strings(&["Ann@example.net", "@bad.test", "@.worse.test"]);
        let listed = Mailboxes::new(entries.iter());
        for (local, domain) in [("ann", "EXAMPLE.net"), ("x", "Bad.test"), ("x", "a.b.worse.test")] {
            assert!(listed.contains(local, domain), "{local}@{domain}");
        }
        for (local, domain) in [("bob", "example.net"), ("x", "a.bad.test"), ("x", "worse.test")] {
            assert!(!listed.contains(local, domain), "{local}@{domain}");
        }
    }

    proptest! {
        #[test]
        fn the_same_as_going_over_the_list(
            entries in proptest::collection::vec("\\.?[ab]{1,2}(\\.[ab]{1,2}){0,2}", 0..6),
            domain in "[abAB]{1,2}(\\.[abAB]{1,2}){0,3}",
        ) {
            let listed = Domains::new(entries.iter(), None);
            let lower = domain.to_lowercase();
            let expected = entries.iter().any(|entry| match entry.strip_prefix('.') {
                Some(_) => lower.ends_with(entry.as_str()) && lower.len() > entry.len(),
                None => lower == *entry,
            });
            prop_assert_eq!(listed.contains(&domain), expected);
        }
    }
}
