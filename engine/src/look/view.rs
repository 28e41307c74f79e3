//! What is shown: rows of sites and hosts, and the explanation of a domain; how the cores' parts become one.
//!
//! Pure. Times are Unix milliseconds, `None` where nothing is waited for. Rows that several cores have are one row:
//! what each counts is added up, what all know alike stays, and of what holds a site back the strongest is shown.

use crate::domains::{Basis, BasisKind};
use serde::{Deserialize, Serialize};
use smtp_out::TlsPolicy;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// The answer to a look.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum View {
    Explain(Box<Explanation>),
    Sites {
        sites: Vec<SiteRow>,
        has_more: bool,
    },
    Hosts {
        hosts: Vec<HostRow>,
        has_more: bool,
    },
    /// Addresses that no longer rest.
    Forgotten(u64),
    /// All cores tell what they do for this domain from now on; lines follow.
    Tracing(String),
}

/// What a site is doing, the weakest first: a row of several cores shows the strongest.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SiteState {
    /// Nothing is to be done.
    #[default]
    Idle,
    /// Work waits for a connection of its own or of another core's.
    Ready,
    /// Work waits for one of the core's connections to other sites to end.
    NoRoom,
    Connecting,
    /// A short wait of one core, between rounds of failures.
    Pauses,
    /// A rate is used up until then.
    Rate,
    Sending,
    /// Failures in a row: nothing goes there until then.
    Waits,
    /// A rule for its provider said so.
    Suspended,
    /// The operator wants nothing to go there.
    Held,
}

/// One site from one source, protected in one way.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct SiteRow {
    /// The set of its hosts.
    pub site: String,
    /// Where mail comes from; empty: the only source there is.
    pub source: String,
    pub basis: BasisView,
    /// Connections of this row over all cores, those on their way included.
    pub connections: u32,
    pub connecting: u32,
    /// Connections that are up and have nothing to do.
    pub idle: u32,
    /// Connections that the site may have now, and at most.
    pub slots: u32,
    pub limit: u32,
    /// Recipients that are ready to go.
    pub ready: u64,
    /// There are more than that.
    pub ready_is_least: bool,
    /// Failures in a row.
    pub failures: u32,
    pub state: SiteState,
    pub until_ms: Option<u64>,
    /// The reply that the site failed with last, if nothing worked since.
    pub why: String,
    /// Cores that this row is of.
    pub cores: u32,
}

/// On what basis hosts are protected.
#[derive(Clone, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct BasisView {
    /// `none`, `configured`, `mta-sts` or `dane`.
    pub kind: String,
    pub tag: String,
    /// The policy as it was published, and its MX patterns.
    pub policy: Vec<String>,
    pub mx: Vec<String>,
}

impl From<&Basis> for BasisView {
    fn from(basis: &Basis) -> BasisView {
        let kind = match basis.kind {
            BasisKind::None => "none",
            BasisKind::Configured => "configured",
            BasisKind::Sts => "mta-sts",
            BasisKind::Dane => "dane",
        };
        let (policy, mx) = (basis.policy.clone(), basis.mx.clone());
        BasisView { kind: kind.into(), tag: basis.tag.to_string(), policy, mx }
    }
}

/// A host that rests.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct HostRow {
    pub address: SocketAddr,
    /// Its name, if that is known: hosts that cannot be connected to are kept by address.
    pub name: String,
    /// The core that it rests for; `None`: all, because it cannot be connected to.
    pub core: Option<usize>,
    /// `None`: it has rested, and one connection will try it out.
    pub rests_until_ms: Option<u64>,
    /// Two time-outs with time between them.
    pub is_down: bool,
    /// Failures to connect since it last answered.
    pub failures: u32,
    pub why: String,
}

/// What is known of a domain.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Explanation {
    pub domain: String,
    /// Unix time of the answer, in milliseconds.
    pub at_ms: u64,
    pub route: RouteView,
    pub resolved: Resolved,
    pub limits: Limits,
    pub cores: Vec<CoreView>,
    /// Where its mail goes, or went until now.
    pub sites: Vec<SiteRow>,
}

/// How the configuration says that mail goes.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "by")]
pub enum RouteView {
    Mx,
    /// The domain is an address.
    Literal,
    /// This machine's mailboxes.
    Local,
    Relay {
        to: String,
    },
}

/// What the name servers say now, as far as they are asked.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Resolved {
    /// Why no mail can go there: for good (5xx), or now (4xx).
    pub refusal: Option<String>,
    /// The domain's MX records: preference, host.
    pub exchanges: Vec<(u16, String)>,
    pub site: String,
    /// In the order in which they are tried.
    pub hosts: Vec<HostView>,
    pub basis: BasisView,
    /// Mail that says `TLS-Required: No` is held to less than that: it goes where other mail is refused.
    #[serde(default)]
    pub relaxes: bool,
    /// `None`: no name server was asked.
    pub ttl_secs: Option<u64>,
}

/// A host of the domain.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct HostView {
    pub name: String,
    pub address: SocketAddr,
    /// How connections to it are protected, in words.
    pub tls: String,
    /// It may be sent to in plain text.
    pub allows_plain: bool,
    /// It could not be connected to.
    pub trouble: Option<HostRow>,
}

/// What may go to the domain's site at most.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Limits {
    /// Whose limits they are, if a provider's.
    pub provider: Option<String>,
    pub connections_max: u32,
    pub connections_initial: u32,
    pub messages_per_connection: u32,
    pub recipients_per_transaction: usize,
    pub failures_max: u32,
    pub backoff_secs: u64,
    pub backoff_max_secs: u64,
    /// In words.
    pub rates: Vec<String>,
}

/// What one core has for the domain.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CoreView {
    pub core: usize,
    /// Recipients owed, those among them that it does for another core: a fan-out that is shared counts twice.
    pub owed: u64,
    pub routed: RoutedView,
    /// Recipients that wait for an answer about the domain.
    pub waiting: u64,
    /// When the answer that serves now is asked for again.
    pub expires_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoutedView {
    /// The core has had no mail for it, or nobody takes it.
    Unknown,
    /// The name servers are being asked.
    Asked,
    /// It knows where mail goes.
    Known,
}

impl SiteRow {
    /// What tells one row from another.
    fn key(&self) -> (&str, &str, &str, &str) {
        (&self.site, &self.source, &self.basis.kind, &self.basis.tag)
    }

    /// Takes another core's row of the same site in.
    fn merge(&mut self, other: SiteRow) {
        self.connections += other.connections;
        self.connecting += other.connecting;
        self.idle += other.idle;
        self.ready += other.ready;
        self.ready_is_least |= other.ready_is_least;
        self.cores += other.cores;
        self.slots = self.slots.max(other.slots);
        self.limit = self.limit.max(other.limit);
        self.failures = self.failures.max(other.failures);
        if (other.state, other.until_ms) > (self.state, self.until_ms) {
            (self.state, self.until_ms) = (other.state, other.until_ms);
        }
        if self.why.is_empty() {
            self.why = other.why;
        }
    }
}

/// The cores' rows as one table, the busiest first. `is_cut`: some core left rows out, so a row that not all `cores`
/// have may lack something.
pub fn merge_sites(rows: Vec<SiteRow>, cores: usize, is_cut: bool, limit: usize) -> (Vec<SiteRow>, bool) {
    let mut merged: Vec<SiteRow> = Vec::with_capacity(rows.len());
    let mut rows = rows;
    rows.sort_by(|a, b| a.key().cmp(&b.key()));
    for row in rows {
        match merged.last_mut() {
            Some(last) if last.key() == row.key() => last.merge(row),
            _ => merged.push(row),
        }
    }
    for row in &mut merged {
        row.ready_is_least |= is_cut && (row.cores as usize) < cores;
    }
    // Stable: rows that are equally busy stay in the order of their names.
    merged.sort_by_key(|row| Reverse((row.connections, row.ready)));
    let has_more = is_cut || merged.len() > limit;
    merged.truncate(limit);
    (merged, has_more)
}

/// Hosts by address; those that rest longest first.
pub fn merge_hosts(rows: Vec<HostRow>, is_cut: bool, limit: usize) -> (Vec<HostRow>, bool) {
    // A host of two sites on one core is one host: the longer rest is shown.
    let mut by_place: BTreeMap<(SocketAddr, Option<usize>), HostRow> = BTreeMap::new();
    for row in rows {
        match by_place.get_mut(&(row.address, row.core)) {
            Some(known) if known.rests_until_ms >= row.rests_until_ms => {}
            Some(known) => *known = row,
            None => drop(by_place.insert((row.address, row.core), row)),
        }
    }
    let mut merged: Vec<HostRow> = by_place.into_values().collect();
    merged.sort_by_key(|row| Reverse(row.rests_until_ms));
    let has_more = is_cut || merged.len() > limit;
    merged.truncate(limit);
    (merged, has_more)
}

/// How a connection is protected, in words.
pub fn tls_words(policy: &TlsPolicy) -> String {
    match policy {
        TlsPolicy::Never => "plain text".into(),
        TlsPolicy::May => "encrypted if it offers that".into(),
        TlsPolicy::Encrypt => "encrypted, or not at all".into(),
        TlsPolicy::Verify { names, enforced } => {
            let names = if names.is_empty() { "its own name".into() } else { names.join(" or ") };
            let otherwise = if *enforced { "or not at all" } else { "and the mail goes even if not" };
            format!("encrypted, with a certificate for {names}, {otherwise}")
        }
        TlsPolicy::Fingerprint { sha256 } => {
            format!("encrypted, with one of {} certificates, or not at all", sha256.len())
        }
        TlsPolicy::Dane { records, .. } => {
            format!("encrypted, as one of {} TLSA records says, or not at all", records.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(site: &str, connections: u32, ready: u64) -> SiteRow {
        let basis = BasisView { kind: "none".into(), ..BasisView::default() };
        SiteRow { site: site.into(), basis, connections, ready, cores: 1, slots: 5, ..SiteRow::default() }
    }

    fn host(last: u8, core: Option<usize>, until: Option<u64>) -> HostRow {
        let address = SocketAddr::from(([192, 0, 2, last], 25));
        let (name, why) = (String::new(), String::new());
        HostRow { address, name, core, rests_until_ms: until, is_down: false, failures: 1, why }
    }

    #[test]
    fn row_of_two_cores_is_one_row_with_the_strongest_state() {
        let mut first = row("a", 3, 10);
        (first.state, first.why) = (SiteState::Sending, "450 busy".into());
        let mut second = row("a", 2, 5);
        (second.state, second.until_ms) = (SiteState::Waits, Some(99));
        let (rows, has_more) = merge_sites(vec![first, second, row("b", 0, 1)], 2, false, 10);
        assert!(!has_more);
        let found: Vec<_> =
            rows.iter().map(|row| (row.site.as_str(), row.connections, row.ready, row.cores)).collect();
        assert_eq!(found, [("a", 5, 15, 2), ("b", 0, 1, 1)]);
        assert_eq!((rows[0].state, rows[0].until_ms), (SiteState::Waits, Some(99)));
        assert_eq!((rows[0].why.as_str(), rows[0].slots), ("450 busy", 5));
    }

    #[test]
    fn sources_and_bases_of_a_site_are_rows_of_their_own() {
        let mut other_source = row("a", 1, 0);
        other_source.source = "192.0.2.1".into();
        let mut other_basis = row("a", 1, 0);
        other_basis.basis.tag = "sts:x".into();
        assert_eq!(merge_sites(vec![row("a", 1, 0), other_source, other_basis], 1, false, 10).0.len(), 3);
    }

    #[test]
    fn busiest_come_first_and_what_was_left_out_is_said() {
        let rows = vec![row("c", 0, 1), row("b", 1, 0), row("a", 0, 9), row("d", 0, 1)];
        let (rows, has_more) = merge_sites(rows, 2, true, 3);
        let names: Vec<_> = rows.iter().map(|row| row.site.as_str()).collect();
        assert_eq!((names, has_more), (vec!["b", "a", "c"], true));
        assert!(rows.iter().all(|row| row.ready_is_least), "the other core may have left some out");
    }

    #[test]
    fn host_rests_longest_first_and_once_for_each_core() {
        let rows = vec![
            host(1, None, Some(5)),
            host(2, Some(0), Some(9)),
            host(2, Some(0), Some(7)),
            host(2, Some(1), None),
        ];
        let (rows, has_more) = merge_hosts(rows, false, 2);
        let found: Vec<_> = rows.iter().map(|row| (row.core, row.rests_until_ms)).collect();
        assert_eq!((found, has_more), (vec![(Some(0), Some(9)), (None, Some(5))], true));
    }

    #[test]
    fn every_protection_has_its_words() {
        let names = vec!["mx.test".into(), "*.b.test".into()];
        let policies = [
            (TlsPolicy::Never, "plain text"),
            (TlsPolicy::May, "if it offers"),
            (TlsPolicy::Encrypt, "not at all"),
            (TlsPolicy::Verify { names, enforced: true }, "mx.test or *.b.test, or not at all"),
            (
                TlsPolicy::Verify { names: vec![], enforced: false },
                "its own name, and the mail goes even if not",
            ),
            (TlsPolicy::Fingerprint { sha256: vec![[0; 32]] }, "one of 1 certificates"),
            (TlsPolicy::Dane { records: vec![], names: vec![] }, "0 TLSA records"),
        ];
        for (policy, words) in policies {
            assert!(tls_words(&policy).contains(words), "{policy:?}: {}", tls_words(&policy));
        }
    }
}
