//! How a domain's hosts must be protected, and on whose word: the operator's about the domain, else the hosts' TLSA
//! records, else the domain's MTA-STS policy, else the operator's in general.
//!
//! Pure. DANE goes before MTA-STS host by host (RFC 8461 §2); a host that the policy does not name is left out where
//! the policy is enforced, unless its TLSA records vouch for it.

use crate::config::{DomainTls, Tls, TlsMode};
use crate::domains::{Basis, BasisKind};
use aws_lc_rs::digest::{SHA256, digest};
use smtp_out::TlsPolicy;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

/// Octets of a tag's digest: nobody finds two sets of demands with the same one.
const TAG_LEN: usize = 16;

/// A policy of MTA-STS that binds (RFC 8461 §5).
#[derive(Clone, Copy, Debug)]
pub(crate) struct StsDemand<'a> {
    pub(crate) enforced: bool,
    pub(crate) lines: &'a [String],
    pub(crate) patterns: &'a [String],
}

/// A host, and what its TLSA records demand.
#[derive(Debug, Default)]
pub(crate) struct Candidate {
    pub(crate) name: Arc<str>,
    pub(crate) dane: Option<TlsPolicy>,
    /// The records, as they stand in the zone.
    pub(crate) lines: Vec<String>,
    /// Whether it has such records cannot be told, and so it must not be used.
    pub(crate) is_untold: bool,
}

/// What was decided: a policy for each candidate, `None` for one that must not be used.
#[derive(Debug)]
pub(crate) struct Demands {
    pub(crate) policies: Vec<Option<Arc<TlsPolicy>>>,
    pub(crate) basis: Arc<Basis>,
}

/// What the operator demands of this very domain, or of the nearest one above it that speaks for those below.
pub(crate) fn configured(tls: &Tls, domain: &str) -> Option<TlsPolicy> {
    if tls.domains.is_empty() {
        return None;
    }
    let dots = domain.match_indices('.').map(|(at, _)| &domain[at..]);
    std::iter::once(domain).chain(dots).find_map(|key| tls.domains.get(key)).map(of_entry)
}

fn of_entry(entry: &DomainTls) -> TlsPolicy {
    match entry.mode {
        TlsMode::Fingerprint => TlsPolicy::Fingerprint { sha256: entry.digests() },
        TlsMode::Verify => {
            let names = entry.names.iter().map(|name| name.to_lowercase().into()).collect();
            TlsPolicy::Verify { names, enforced: true }
        }
        mode => of_mode(mode),
    }
}

/// A mode that needs nothing else. (A fingerprint does; the configuration's check sees to that.)
pub(crate) fn of_mode(mode: TlsMode) -> TlsPolicy {
    match mode {
        TlsMode::Never => TlsPolicy::Never,
        TlsMode::May => TlsPolicy::May,
        TlsMode::Encrypt | TlsMode::Fingerprint => TlsPolicy::Encrypt,
        TlsMode::Verify => TlsPolicy::Verify { names: Vec::new(), enforced: true },
    }
}

/// What holds for a host that the configuration names by itself: `relay` is its name or address.
pub(crate) fn of_relay(tls: &Tls, domain: &str, relay: &str) -> (Arc<TlsPolicy>, Arc<Basis>) {
    let by_name = configured(tls, domain).or_else(|| configured(tls, relay));
    let candidate = Candidate { name: relay.into(), ..Candidate::default() };
    let demands = decide(tls, by_name, &[candidate], None);
    (demands.policies.into_iter().flatten().next().unwrap_or_default(), demands.basis)
}

/// `by_name`: what the operator demands of the domain.
pub(crate) fn decide(
    tls: &Tls,
    by_name: Option<TlsPolicy>,
    candidates: &[Candidate],
    sts: Option<StsDemand<'_>>,
) -> Demands {
    let general = of_mode(tls.mode);
    let policies: Vec<Option<TlsPolicy>> = candidates
        .iter()
        .map(|candidate| match (&by_name, &candidate.dane, sts) {
            _ if candidate.is_untold => None,
            (Some(policy), _, _) | (None, Some(policy), _) => Some(policy.clone()),
            (None, None, Some(sts)) => under_sts(sts, &candidate.name, &general),
            (None, None, None) => Some(general.clone()),
        })
        .collect();
    let tag = tag_of(candidates, &policies);
    let basis = match (&by_name, candidates.iter().find(|candidate| candidate.dane.is_some()), sts) {
        (Some(_), _, _) => Basis { tag, kind: BasisKind::Configured, ..Basis::default() },
        (None, Some(first), _) => Basis {
            tag,
            kind: BasisKind::Dane,
            policy: first.lines.clone(),
            mx: vec![first.name.to_string()],
        },
        (None, None, Some(sts)) => {
            Basis { tag, kind: BasisKind::Sts, policy: sts.lines.to_vec(), mx: sts.patterns.to_vec() }
        }
        (None, None, None) if tls.mode == TlsMode::May => Basis { tag, ..Basis::default() },
        (None, None, None) => Basis { tag, kind: BasisKind::Configured, ..Basis::default() },
    };
    let policies = policies.into_iter().map(|policy| policy.map(Arc::new)).collect();
    Demands { policies, basis: Arc::new(basis) }
}

/// The same for mail that is not held to what the domain publishes (RFC 8689 §3): the operator's word alone. `None`: that makes no
/// difference.
pub(crate) fn relax(
    tls: &Tls,
    by_name: Option<&TlsPolicy>,
    candidates: &[Candidate],
    strict: &Demands,
) -> Option<Demands> {
    let is_binding =
        |policy: &Option<Arc<TlsPolicy>>| !policy.as_ref().is_some_and(|policy| policy.allows_plain());
    if by_name.is_some() || !strict.policies.iter().any(is_binding) {
        return None;
    }
    let plain =
        |candidate: &Candidate| Candidate { name: Arc::clone(&candidate.name), ..Candidate::default() };
    let relaxed = decide(tls, None, &candidates.iter().map(plain).collect::<Vec<_>>(), None);
    (relaxed.policies != strict.policies).then_some(relaxed)
}

/// RFC 8461 §5: enforced, it forbids the hosts that it does not name; in testing, those get what they would get anyway.
fn under_sts(sts: StsDemand<'_>, host: &str, general: &TlsPolicy) -> Option<TlsPolicy> {
    if sts.patterns.iter().any(|pattern| names_host(pattern, host)) {
        return Some(TlsPolicy::Verify { names: Vec::new(), enforced: sts.enforced });
    }
    (!sts.enforced).then(|| general.clone())
}

/// `mail.example.net`, or `*.example.net` for one label more (RFC 8461 §4.1). Both in lower case.
pub(crate) fn names_host(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(parent) => host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
        None => pattern == host,
    }
}

/// Empty where nobody demands anything; else the same for the same demands on the same hosts, whoever makes them.
fn tag_of(candidates: &[Candidate], policies: &[Option<TlsPolicy>]) -> Arc<str> {
    if policies.iter().all(|policy| *policy == Some(TlsPolicy::May)) {
        return Arc::default();
    }
    let demands: BTreeSet<String> = candidates
        .iter()
        .zip(policies)
        .map(|(candidate, policy)| format!("{} {policy:?}\n", candidate.name))
        .collect();
    let text: String = demands.into_iter().collect();
    let mut tag = String::with_capacity(2 * TAG_LEN);
    for octet in &digest(&SHA256, text.as_bytes()).as_ref()[..TAG_LEN] {
        let _ = write!(tag, "{octet:02x}");
    }
    tag.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(text: &str) -> Tls {
        toml::from_str(text).unwrap()
    }

    fn hosts(names: &[&str]) -> Vec<Candidate> {
        names.iter().map(|name| Candidate { name: (*name).into(), ..Candidate::default() }).collect()
    }

    fn verify(enforced: bool) -> TlsPolicy {
        TlsPolicy::Verify { names: Vec::new(), enforced }
    }

    fn said(demands: &Demands) -> Vec<Option<TlsPolicy>> {
        demands.policies.iter().map(|policy| policy.as_deref().cloned()).collect()
    }

    #[test]
    fn the_nearest_entry_of_the_table_counts() {
        let tls = tls(
            "[domains.\"example.net\"]\nmode = \"never\"\n[domains.\".example.net\"]\nmode = \"encrypt\"\n\
             [domains.\".b.example.net\"]\nmode = \"verify\"\nnames = [\"*.MX.test\"]",
        );
        let of = |domain| configured(&tls, domain);
        assert_eq!(of("example.net"), Some(TlsPolicy::Never));
        assert_eq!(of("a.example.net"), Some(TlsPolicy::Encrypt));
        let names = vec!["*.mx.test".into()];
        assert_eq!(of("a.b.example.net"), Some(TlsPolicy::Verify { names, enforced: true }));
        assert_eq!((of("example.org"), of("anexample.net")), (None, None));
    }

    #[test]
    fn operator_then_dane_then_sts_then_mode() {
        let tls = tls("mode = \"encrypt\"");
        let mut hosts = hosts(&["a.test", "b.test"]);
        hosts[0].dane = Some(TlsPolicy::Dane { records: Vec::new(), names: Vec::new() });
        let patterns = ["*.test".to_owned()];
        let sts = Some(StsDemand { enforced: true, lines: &[], patterns: &patterns });
        let operator = decide(&tls, Some(TlsPolicy::Never), &hosts, sts);
        assert_eq!(said(&operator), [Some(TlsPolicy::Never), Some(TlsPolicy::Never)]);
        assert_eq!(operator.basis.kind, BasisKind::Configured);
        let both = decide(&tls, None, &hosts, sts);
        assert_eq!(said(&both), [hosts[0].dane.clone(), Some(verify(true))]);
        assert_eq!(both.basis.kind, BasisKind::Dane);
        hosts[0].dane = None;
        assert_eq!(decide(&tls, None, &hosts, sts).basis.kind, BasisKind::Sts);
        let general = decide(&tls, None, &hosts, None);
        assert_eq!(said(&general), [Some(TlsPolicy::Encrypt), Some(TlsPolicy::Encrypt)]);
    }

    #[test]
    fn an_enforced_policy_forbids_hosts_that_it_does_not_name_and_a_tested_one_does_not() {
        let hosts = hosts(&["mx.a.test", "mx.b.test"]);
        let patterns = ["*.a.test".to_owned()];
        let sts = |enforced| Some(StsDemand { enforced, lines: &[], patterns: &patterns });
        let usual = Tls::default();
        assert_eq!(said(&decide(&usual, None, &hosts, sts(true))), [Some(verify(true)), None]);
        let tested = decide(&usual, None, &hosts, sts(false));
        assert_eq!(said(&tested), [Some(verify(false)), Some(TlsPolicy::May)]);
    }

    #[test]
    fn mail_that_is_not_held_to_the_domains_word_is_held_to_the_operators() {
        let mut hosts = hosts(&["mx.a.test", "mx.b.test"]);
        let patterns = ["*.a.test".to_owned()];
        let sts = |enforced| Some(StsDemand { enforced, lines: &[], patterns: &patterns });
        let relaxed = |tls: &Tls, by_name: Option<TlsPolicy>, hosts: &[Candidate], sts| {
            let strict = decide(tls, by_name.clone(), hosts, sts);
            relax(tls, by_name.as_ref(), hosts, &strict).map(|relaxed| said(&relaxed))
        };
        let both = |policy: TlsPolicy| Some(vec![Some(policy.clone()), Some(policy)]);
        let (usual, strict) = (Tls::default(), tls("mode = \"encrypt\""));
        assert_eq!(relaxed(&usual, None, &hosts, sts(true)), both(TlsPolicy::May));
        assert_eq!(relaxed(&strict, None, &hosts, sts(true)), both(TlsPolicy::Encrypt));
        assert_eq!(relaxed(&usual, None, &hosts, sts(false)), None, "nothing is enforced");
        assert_eq!(relaxed(&usual, Some(verify(true)), &hosts, sts(true)), None, "the operator's word");
        assert_eq!((relaxed(&usual, None, &hosts, None), relaxed(&strict, None, &hosts, None)), (None, None));
        hosts[0].dane = Some(TlsPolicy::Dane { records: Vec::new(), names: Vec::new() });
        hosts[1].is_untold = true;
        assert_eq!(said(&decide(&usual, None, &hosts, None)), [hosts[0].dane.clone(), None]);
        assert_eq!(relaxed(&usual, None, &hosts, None), both(TlsPolicy::May));
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        assert!(names_host("*.a.test", "mx.a.test") && names_host("mx.a.test", "mx.a.test"));
        for host in ["a.test", "x.mx.a.test", ".a.test", "mx.b.test", "mxa.test"] {
            assert!(!names_host("*.a.test", host), "{host}");
        }
    }

    #[test]
    fn equal_demands_have_equal_tags_and_others_do_not() {
        let (usual, hosts) = (Tls::default(), hosts(&["mx.a.test"]));
        let (exact, wild) = (["mx.a.test".to_owned()], ["*.a.test".to_owned()]);
        let sts = |enforced, patterns| Some(StsDemand { enforced, lines: &[], patterns });
        let tag = |sts| decide(&usual, None, &hosts, sts).basis.tag.clone();
        assert_eq!(tag(sts(true, &exact)), tag(sts(true, &wild)));
        assert_ne!(tag(sts(true, &exact)), tag(sts(false, &exact)));
        assert_ne!(tag(sts(true, &exact)), tag(None));
        assert_eq!(&*tag(None), "");
    }
}
