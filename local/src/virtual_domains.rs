//! Which addresses are this machine's, and whose (qmail-send's locals, virtualdomains, percenthack, envnoathost).
//!
//! In this order: an address without a host gets `no_at_host`; while its host is one of `percent_hack`, `user%host@it`
//! becomes `user@host`; a host among `locals` is ours; then `virtual_domains` is asked for the whole address, its
//! host, each part of the host that begins with a dot, and the empty word; the first that is there decides: its
//! prepended word makes the local part `word-local`, and an empty one says that the host is somebody else's after all.
//! All else is.
//!
//! Who sends mail on by its host alone asks [`Domains::is_local`]. Where the whole address decides otherwise
//! ([`Domains::is_exception`]), the host is written with a dot behind it from then on: the same host, and a different word.
//!
//! Pure. Bounds: [`ENTRIES_MAX`] entries of each list; a look-up asks once for each label of a host; the percent hack
//! ends because each round takes a `%` away.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// Entries of a list.
pub const ENTRIES_MAX: usize = 1 << 20;

/// Where mail for an address goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// To this machine. The host is the address's, whichever name of ours it is.
    Local { local: String, host: String },
    /// Elsewhere.
    Remote { address: String },
}

/// An entry that says nothing.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EntryError {
    #[error("{0:?}: an entry is domain:word, user@domain:word, .domain:word or :word")]
    NoColon(String),
    #[error("more than {ENTRIES_MAX} entries")]
    TooMany,
}

/// The lists. Letters match in either case.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Domains {
    locals: HashSet<String>,
    virtuals: HashMap<String, String>,
    percent_hack: HashSet<String>,
    no_at_host: String,
    /// Hosts of the entries that are about one address.
    address_hosts: HashSet<String>,
}

impl Domains {
    /// `no_at_host` completes what has no host at all.
    pub fn new(no_at_host: &str) -> Domains {
        Domains { no_at_host: no_at_host.to_owned(), ..Domains::default() }
    }

    pub fn with_locals<'a>(
        mut self,
        hosts: impl IntoIterator<Item = &'a str>,
    ) -> Result<Domains, EntryError> {
        take_up(&mut self.locals, hosts)?;
        Ok(self)
    }

    pub fn with_percent_hack<'a>(
        mut self,
        hosts: impl IntoIterator<Item = &'a str>,
    ) -> Result<Domains, EntryError> {
        take_up(&mut self.percent_hack, hosts)?;
        Ok(self)
    }

    /// Lines of `virtualdomains`. The first of two about one name counts.
    pub fn with_virtuals<'a>(
        mut self,
        entries: impl IntoIterator<Item = &'a str>,
    ) -> Result<Domains, EntryError> {
        for entry in entries {
            let (name, word) = entry.split_once(':').ok_or_else(|| EntryError::NoColon(entry.to_owned()))?;
            if let Some((_, host)) = name.rsplit_once('@') {
                self.address_hosts.insert(host.to_ascii_lowercase());
            }
            self.virtuals.entry(name.to_ascii_lowercase()).or_insert_with(|| word.to_owned());
            if self.virtuals.len() > ENTRIES_MAX {
                return Err(EntryError::TooMany);
            }
        }
        Ok(self)
    }

    /// Where mail for the address goes.
    pub fn place_of(&self, address: &str) -> Place {
        let mut address = address.to_owned();
        if !address.contains('@') {
            address = format!("{address}@{}", self.no_at_host);
        }
        while let Some(shorter) = self.hacked(&address) {
            address = shorter;
        }
        let address = address.strip_suffix('.').unwrap_or(&address);
        let (local, host) = address.rsplit_once('@').unwrap_or((address, ""));
        if self.locals.contains(&host.to_ascii_lowercase()) {
            return Place::Local { local: local.to_owned(), host: host.to_owned() };
        }
        match self.word_of(address, host).filter(|word| !word.is_empty()) {
            Some(word) => Place::Local { local: format!("{word}-{local}"), host: host.to_owned() },
            None => Place::Remote { address: address.to_owned() },
        }
    }

    /// Whether mail for that host is for this machine; with a dot behind it, for the addresses that are not as their host.
    pub fn is_local(&self, host: &str) -> bool {
        match host.strip_suffix('.') {
            Some(host) => !self.is_host_local(host),
            None => self.is_host_local(host),
        }
    }

    fn is_host_local(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        self.locals.contains(&host) || self.word_of_host(&host).is_some_and(|word| !word.is_empty())
    }

    /// Whether the host is one of `locals`.
    pub fn has_mailboxes(&self, host: &str) -> bool {
        self.locals.contains(&host.to_ascii_lowercase())
    }

    /// As [`Domains::is_local`], and some entry has the host in it: not everybody's mail comes here by it.
    pub fn is_named(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        self.is_host_local(&host) && (self.locals.contains(&host) || self.has_name(&host))
    }

    fn has_name(&self, host: &str) -> bool {
        names_of(host).any(|name| self.virtuals.contains_key(name))
    }

    /// Some entries are about one address: there may be exceptions.
    pub fn has_addresses(&self) -> bool {
        !self.address_hosts.is_empty()
    }

    /// True if the address goes another way than its host, which has no dot behind it. Asked for each recipient: most hosts
    /// have no such entry, and cost a look-up.
    pub fn is_exception(&self, local: &str, host: &str) -> bool {
        let host = &*lowered(host);
        if !self.address_hosts.contains(host) || self.locals.contains(host) {
            return false;
        }
        let address = format!("{local}@{host}").to_ascii_lowercase();
        let word = self.virtuals.get(&address);
        word.is_some_and(|word| word.is_empty() == self.is_host_local(host))
    }

    /// `user%host@ours` as `user@host`, if that is to be read so.
    fn hacked(&self, address: &str) -> Option<String> {
        let (local, host) = address.rsplit_once('@')?;
        let (user, next) = local.rsplit_once('%')?;
        self.percent_hack.contains(&host.to_ascii_lowercase()).then(|| format!("{user}@{next}"))
    }

    fn word_of(&self, address: &str, host: &str) -> Option<&str> {
        let (address, host) = (address.to_ascii_lowercase(), host.to_ascii_lowercase());
        self.virtuals.get(&address).map(String::as_str).or_else(|| self.word_of_host(&host))
    }

    fn word_of_host(&self, host: &str) -> Option<&str> {
        let everybodys = || self.virtuals.get("");
        names_of(host).find_map(|name| self.virtuals.get(name)).or_else(everybodys).map(String::as_str)
    }

    /// What `virtualdomains` would say, its lines in order.
    pub fn print_virtuals(&self) -> Vec<String> {
        let mut lines: Vec<String> =
            self.virtuals.iter().map(|(name, word)| format!("{name}:{word}")).collect();
        lines.sort();
        lines
    }
}

/// A host, and each part of it that begins with a dot.
fn names_of(host: &str) -> impl Iterator<Item = &str> {
    [host].into_iter().chain(host.match_indices('.').map(|(at, _)| &host[at..]))
}

fn take_up<'a>(
    list: &mut HashSet<String>,
    hosts: impl IntoIterator<Item = &'a str>,
) -> Result<(), EntryError> {
    for host in hosts {
        list.insert(host.to_ascii_lowercase());
        if list.len() > ENTRIES_MAX {
            return Err(EntryError::TooMany);
        }
    }
    Ok(())
}

/// For the fuzzer: any lines, any address. What is printed means the same; nothing local is without a host of its own.
pub fn fuzz_virtual_domains(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.lines();
    let address = lines.next().unwrap_or_default();
    let Ok(domains) = Domains::new("here.test").with_virtuals(lines.clone()) else { return };
    let domains = domains.with_percent_hack(lines.next()).expect("one host");
    let printed = domains.print_virtuals();
    let again = Domains::new("").with_virtuals(printed.iter().map(String::as_str)).expect("printed");
    assert_eq!(again.virtuals, domains.virtuals);
    match domains.place_of(address) {
        Place::Local { local, host } => assert!(local.contains('-') && !host.contains('@')),
        Place::Remote { address } => assert!(address.contains('@')),
    }
}

/// No copy of what is in lower case already.
fn lowered(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|octet| octet.is_ascii_uppercase()) {
        text.to_ascii_lowercase().into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn domains() -> Domains {
        Domains::new("mx.example.org")
            .with_locals(["mx.example.org", "Localhost"])
            .and_then(|domains| domains.with_percent_hack(["mx.example.org", "gate.test"]))
            .and_then(|domains| {
                domains.with_virtuals([
                    "example.org:joe",
                    "Ann@example.org:ann",
                    ".example.org:hosts",
                    "special.example.org:",
                    "nobody@example.org:",
                    ".uucp:alias-uucp",
                    "mx.example.org:never",
                ])
            })
            .unwrap()
    }

    fn place(address: &str) -> String {
        match domains().place_of(address) {
            Place::Local { local, host } => format!("local {local}@{host}"),
            Place::Remote { address } => format!("remote {address}"),
        }
    }

    #[test]
    fn locals_come_before_virtual_domains() {
        assert_eq!(place("Bob@MX.example.org"), "local Bob@MX.example.org");
        assert_eq!(place("bob@localhost"), "local bob@localhost");
        assert_eq!(place("bob"), "local bob@mx.example.org");
        assert!(domains().has_mailboxes("LOCALHOST") && !domains().has_mailboxes("example.org"));
    }

    #[test]
    fn virtual_domains_go_from_the_whole_address_to_the_wildcard() {
        assert_eq!(place("info@Example.org"), "local joe-info@Example.org");
        assert_eq!(place("ANN@example.org"), "local ann-ANN@example.org");
        assert_eq!(place("root@a.b.example.org"), "local hosts-root@a.b.example.org");
        assert_eq!(place("x!y@host.uucp"), "local alias-uucp-x!y@host.uucp");
        assert_eq!(place("ann@example.net"), "remote ann@example.net");
    }

    #[test]
    fn empty_word_is_an_exception() {
        assert_eq!(place("x@special.example.org"), "remote x@special.example.org");
        assert_eq!(place("nobody@example.org"), "remote nobody@example.org");
    }

    #[test]
    fn hosts_go_as_their_addresses_but_for_exceptions() {
        let domains = domains();
        for address in ["bob@mx.example.org", "info@example.org", "x@a.example.org", "a@special.example.org"]
        {
            let (local, host) = address.split_once('@').unwrap();
            let is_local = matches!(domains.place_of(address), Place::Local { .. });
            assert_eq!(domains.is_local(host), is_local, "{address}");
            assert!(!domains.is_exception(local, host), "{address}");
        }
        assert!(domains.is_exception("nobody", "Example.org") && !domains.is_local("example.org."));
        let one = Domains::new("h").with_virtuals(["ann@far.test:ann", ":catch", "far.test:"]).unwrap();
        assert!(
            one.is_exception("Ann", "far.test") && one.is_local("far.test.") && !one.is_local("far.test")
        );
        let ann = Place::Local { local: "ann-ann".into(), host: "far.test".into() };
        assert_eq!(one.place_of("ann@far.test."), ann);
        assert!(one.is_local("any.test") && !one.is_named("any.test") && domains.is_named("example.org"));
    }

    #[test]
    fn the_empty_name_is_everybodys() {
        let domains = Domains::new("h").with_virtuals([":catch", "kept.test:"]).unwrap();
        let local = |local: &str, host: &str| Place::Local { local: local.into(), host: host.into() };
        assert_eq!(domains.place_of("a@any.test"), local("catch-a", "any.test"));
        assert_eq!(domains.place_of("a@kept.test"), Place::Remote { address: "a@kept.test".into() });
    }

    #[test]
    fn percent_hack_is_done_again_while_the_host_is_listed() {
        assert_eq!(place("bob%example.net@mx.example.org"), "remote bob@example.net");
        assert_eq!(place("bob%far.test%gate.test@mx.example.org"), "remote bob@far.test");
        assert_eq!(place("bob%info.test%example.org@gate.test"), "local joe-bob%info.test@example.org");
        assert_eq!(place("bob%a.test@other.test"), "remote bob%a.test@other.test");
        assert_eq!(place("bob%mx.example.org@gate.test"), "local bob@mx.example.org");
    }

    #[test]
    fn a_line_without_a_colon_is_refused() {
        let error = Domains::new("h").with_virtuals(["example.org"]).unwrap_err();
        assert_eq!(error, EntryError::NoColon("example.org".into()));
    }

    proptest! {
        #[test]
        fn fuzz_smoke(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            text in "[a-c@%.]{0,12}\n([a-c@.]{0,5}:[a-c]{0,2}\n){0,5}",
        ) {
            fuzz_virtual_domains(&bytes);
            fuzz_virtual_domains(text.as_bytes());
        }
    }
}
