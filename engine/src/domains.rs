//! The domains that a core has mail for, and the sites that their mail goes to.
//!
//! Bound: a domain is forgotten when nothing is owed at it and more than [`DOMAINS_KEPT`] are known; so the table is
//! as large as the queue has domains, or this.

use message::Reply;
use message::address::shown_domain;
use queue::Range;
use queue::range::DomainKey;
use slab::Slab;
use smtp_out::TlsPolicy;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// Domains that are kept although nothing is owed there.
const DOMAINS_KEPT: usize = 50_000;

/// A host of a site.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Host {
    pub name: Arc<str>,
    pub address: SocketAddr,
    /// How connections to it are protected.
    pub tls: Arc<TlsPolicy>,
}

/// Why the hosts of a domain are protected as they are, and what a report says of it (RFC 8460 §4.2).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Basis {
    /// Domains of one site with the same tag make the same demands on all of its hosts, and share connections.
    pub tag: Arc<str>,
    pub kind: BasisKind,
    /// The policy as it was published: lines of the MTA-STS policy, or the TLSA records.
    pub policy: Vec<String>,
    /// The MX patterns of the MTA-STS policy.
    pub mx: Vec<String>,
}

/// Whose demands they are.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum BasisKind {
    /// Nobody's: whatever works.
    #[default]
    None,
    /// The operator's.
    Configured,
    /// The domain's (RFC 8461).
    Sts,
    /// The hosts' TLSA records (RFC 7672).
    Dane,
}

/// Where a domain's mail goes.
#[derive(Clone, Debug)]
pub enum Resolution {
    /// Hosts in the order in which they are to be tried. Domains with the same `site` share its connections.
    Site {
        site: Arc<str>,
        hosts: Vec<Host>,
        basis: Arc<Basis>,
        ttl_secs: u64,
        /// If what the domain publishes makes a difference.
        relaxed: Option<Relaxed>,
    },
    /// What the domain publishes bars all of its hosts.
    Barred { reply: Reply, site: Arc<str>, relaxed: Relaxed, ttl_secs: u64 },
    /// The domain takes no mail: null MX, no such domain.
    Failed(Reply),
    /// No answer now.
    Deferred(Reply),
}

/// A site's hosts for mail that is not held to what its domain publishes about TLS (RFC 8689).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Relaxed {
    pub hosts: Vec<Host>,
    pub basis: Arc<Basis>,
}

/// A site's number in its core's table.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct SiteKey(pub(crate) u32);

/// A way's number in its core's table.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct WayKey(pub(crate) u32);

#[derive(Clone, Copy, Debug)]
pub(crate) enum Routed {
    Unknown,
    Asked,
    Way(WayKey),
}

#[derive(Debug)]
pub(crate) struct Domain {
    /// As it is written and spoken of.
    pub(crate) name: Arc<str>,
    /// As the queue has it: those of its addresses that go another way are a domain of their own, with a dot behind its name.
    pub(crate) queued: Arc<str>,
    pub(crate) routed: Routed,
    /// Where mail goes that is not held to what the domain publishes, if that makes a difference.
    pub(crate) relaxed: Option<WayKey>,
    /// When the answer should be asked for again; the old one serves meanwhile.
    pub(crate) expires: Option<Instant>,
    /// The control thread has the question, or will when others have been answered.
    pub(crate) is_asked: bool,
    /// Ranges that wait for the answer.
    pub(crate) waiting: Vec<Range>,
    /// Recipients owed here, wherever their ranges are.
    owed: u64,
}

impl Domain {
    pub(crate) fn owed(&self) -> u64 {
        self.owed
    }

    /// Every way that its mail may go.
    pub(crate) fn ways(&self) -> impl Iterator<Item = WayKey> {
        let routed = match self.routed {
            Routed::Way(way) => Some(way),
            Routed::Unknown | Routed::Asked => None,
        };
        routed.into_iter().chain(self.relaxed)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Domains {
    by_name: HashMap<Arc<str>, DomainKey>,
    domains: Slab<Domain>,
}

impl Domains {
    /// The domain's number; `owed` more recipients are owed there. `queued` as the queue has it, in lower case.
    pub(crate) fn owe(&mut self, queued: &str, owed: u32) -> DomainKey {
        let key = match self.by_name.get(queued) {
            Some(key) => *key,
            None => self.insert(queued),
        };
        self.domains[key.0 as usize].owed += u64::from(owed);
        key
    }

    fn insert(&mut self, queued: &str) -> DomainKey {
        let (shown, queued): (&str, Arc<str>) = (shown_domain(queued), queued.into());
        let name = if shown.len() == queued.len() { Arc::clone(&queued) } else { shown.into() };
        let domain = Domain {
            name,
            queued: Arc::clone(&queued),
            routed: Routed::Unknown,
            relaxed: None,
            expires: None,
            is_asked: false,
            waiting: Vec::new(),
            owed: 0,
        };
        let key =
            DomainKey(u32::try_from(self.domains.insert(domain)).expect("as many as recipients at most"));
        self.by_name.insert(queued, key);
        key
    }

    /// `count` recipients fewer are owed there. The domain, if it was forgotten for it.
    #[must_use]
    pub(crate) fn settle(&mut self, key: DomainKey, count: u32) -> Option<Domain> {
        let domain = self.domains.get_mut(key.0 as usize)?;
        domain.owed = domain.owed.saturating_sub(u64::from(count));
        let is_unused = domain.owed == 0 && !domain.is_asked;
        if !is_unused || self.domains.len() <= DOMAINS_KEPT {
            return None;
        }
        let domain = self.domains.remove(key.0 as usize);
        self.by_name.remove(&domain.queued);
        Some(domain)
    }

    /// By its name as the queue has it, in lower case.
    pub(crate) fn find(&self, name: &str) -> Option<DomainKey> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn get(&self, key: DomainKey) -> &Domain {
        &self.domains[key.0 as usize]
    }

    /// `None` if the domain was forgotten meanwhile, or another has its number.
    pub(crate) fn get_named(&mut self, key: DomainKey, queued: &str) -> Option<&mut Domain> {
        self.domains.get_mut(key.0 as usize).filter(|domain| &*domain.queued == queued)
    }

    /// Domains have numbers below this.
    pub(crate) fn places(&self) -> u32 {
        u32::try_from(self.domains.capacity()).unwrap_or(u32::MAX)
    }

    pub(crate) fn try_get_mut(&mut self, key: DomainKey) -> Option<&mut Domain> {
        self.domains.get_mut(key.0 as usize)
    }

    pub(crate) fn get_mut(&mut self, key: DomainKey) -> &mut Domain {
        &mut self.domains[key.0 as usize]
    }

    /// All ranges that wait for an answer about their domain.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &Range> {
        self.domains.iter().flat_map(|(_, domain)| &domain.waiting)
    }

    /// Takes the ranges that wait for an answer about the domain at that place of the table. `None` behind the last.
    pub(crate) fn take_waiting_at(&mut self, place: usize) -> Option<Vec<Range>> {
        if place >= self.domains.capacity() {
            return None;
        }
        Some(
            self.domains.get_mut(place).map(|domain| std::mem::take(&mut domain.waiting)).unwrap_or_default(),
        )
    }

    pub(crate) fn keys(&self) -> Vec<DomainKey> {
        self.domains.iter().map(|(key, _)| DomainKey(u32::try_from(key).unwrap_or(u32::MAX))).collect()
    }
}
