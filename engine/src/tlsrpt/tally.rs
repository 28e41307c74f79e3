//! Sessions added up by day and domain, until they are reported.
//!
//! Pure: the caller passes the time. Bounds: [`DAYS_MAX`] days of [`DOMAINS_MAX`] domains, of each [`POLICIES_MAX`]
//! policies with [`DETAILS_MAX`] kinds of failures. A domain past the bound is not reported that day, a policy past it
//! counts with the first, a failure past it in the sums alone.

use super::{Failure, TlsNote};
use crate::domains::BasisKind;
use message::UnixMillis;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Today, and those whose reports are on their way.
const DAYS_MAX: usize = 3;

const DOMAINS_MAX: usize = 50_000;
const POLICIES_MAX: usize = 4;
const DETAILS_MAX: usize = 50;

/// Characters of a failure's text.
const TEXT_MAX: usize = 200;

pub const DAY_SECS: u64 = 24 * 3600;

/// See the module.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Tally {
    /// By days since 1970, in UTC.
    days: BTreeMap<u64, BTreeMap<String, Account>>,
}

/// A domain's day.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Account {
    pub policies: Vec<PolicySum>,
    /// Places that have their report.
    #[serde(default)]
    pub sent: Vec<String>,
    /// When it was last tried to send the rest, in seconds since 1970.
    #[serde(default)]
    pub tried: u64,
}

/// Sessions under one policy.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PolicySum {
    pub kind: PolicyKind,
    pub lines: Vec<String>,
    pub mx: Vec<String>,
    pub successes: u64,
    pub failures: u64,
    pub details: Vec<Detail>,
}

/// RFC 8460 §4.2.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum PolicyKind {
    #[serde(rename = "sts")]
    Sts,
    #[serde(rename = "tlsa")]
    Tlsa,
    #[serde(rename = "no-policy-found")]
    None,
}

/// Failures of one kind at one host.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Detail {
    pub result: Failure,
    pub host: String,
    pub receiving: Option<IpAddr>,
    pub sending: Option<IpAddr>,
    /// The first one's.
    pub text: String,
    pub count: u64,
}

impl Tally {
    /// Adds a session. False if there is no room for its domain.
    pub fn add(&mut self, note: &TlsNote, now: UnixMillis) -> bool {
        let domains = self.days.entry(now.seconds() / DAY_SECS).or_default();
        if domains.len() >= DOMAINS_MAX && !domains.contains_key(&*note.domain) {
            return false;
        }
        domains.entry(note.domain.to_string()).or_default().add(note);
        while self.days.len() > DAYS_MAX {
            self.days.pop_first();
        }
        true
    }

    /// Days that are over, with their domains: what is to be reported.
    pub fn over(&self, now: UnixMillis) -> impl Iterator<Item = (u64, &str, &Account)> {
        let today = now.seconds() / DAY_SECS;
        let over = self.days.range(..today);
        over.flat_map(|(day, domains)| domains.iter().map(|(name, account)| (*day, name.as_str(), account)))
    }

    pub fn account_mut(&mut self, day: u64, domain: &str) -> Option<&mut Account> {
        self.days.get_mut(&day)?.get_mut(domain)
    }

    /// The domain's day was reported, or nobody wants to know.
    pub fn forget(&mut self, day: u64, domain: &str) {
        if let Some(domains) = self.days.get_mut(&day) {
            domains.remove(domain);
            if domains.is_empty() {
                self.days.remove(&day);
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.days.is_empty()
    }
}

impl Account {
    fn add(&mut self, note: &TlsNote) {
        let kind = match note.basis.kind {
            BasisKind::Sts => PolicyKind::Sts,
            BasisKind::Dane => PolicyKind::Tlsa,
            BasisKind::None | BasisKind::Configured => PolicyKind::None,
        };
        let known = self.policies.iter().position(|sum| sum.kind == kind && sum.lines == note.basis.policy);
        let place = match known {
            Some(place) => place,
            None if self.policies.len() >= POLICIES_MAX => 0,
            None => {
                let (lines, mx) = (note.basis.policy.clone(), note.basis.mx.clone());
                let sum = PolicySum { kind, lines, mx, successes: 0, failures: 0, details: Vec::new() };
                self.policies.push(sum);
                self.policies.len() - 1
            }
        };
        self.policies[place].add(note);
    }
}

impl PolicySum {
    fn add(&mut self, note: &TlsNote) {
        let (result, text) = match &note.result {
            Ok(()) => return self.successes += 1,
            Err(failure) => failure,
        };
        self.failures += 1;
        let is_same = |detail: &&mut Detail| {
            detail.result == *result
                && *detail.host == *note.host
                && (detail.receiving, detail.sending) == (note.receiving, note.sending)
        };
        if let Some(detail) = self.details.iter_mut().find(is_same) {
            detail.count += 1;
        } else if self.details.len() < DETAILS_MAX {
            self.details.push(Detail {
                result: *result,
                host: note.host.to_string(),
                receiving: note.receiving,
                sending: note.sending,
                text: text.chars().filter(|char| !char.is_control()).take(TEXT_MAX).collect(),
                count: 1,
            });
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::domains::Basis;
    use std::sync::Arc;

    pub(in crate::tlsrpt) fn note(domain: &str, result: Result<(), Failure>) -> TlsNote {
        let policy = vec!["version: STSv1".to_owned(), "mode: testing".to_owned()];
        let basis = Basis { kind: BasisKind::Sts, policy, mx: vec!["*.a.test".into()], tag: Arc::default() };
        TlsNote {
            domain: domain.into(),
            basis: Arc::new(basis),
            host: "mx.a.test".into(),
            receiving: Some("192.0.2.1".parse().unwrap()),
            sending: Some("2001:db8::1".parse().unwrap()),
            result: result.map_err(|failure| (failure, "it is\r\nover".into())),
        }
    }

    fn account(tally: &Tally, now: UnixMillis) -> Account {
        tally.over(now.plus_secs(DAY_SECS)).next().unwrap().2.clone()
    }

    const NOON: UnixMillis = UnixMillis(1_795_348_800_000);

    #[test]
    fn equal_failures_are_one_line_and_sums_hold_all() {
        let mut tally = Tally::default();
        for result in [Ok(()), Err(Failure::Expired), Err(Failure::Expired), Err(Failure::NoStartTls)] {
            assert!(tally.add(&note("a.test", result), NOON));
        }
        let sum = &account(&tally, NOON).policies[0];
        assert_eq!((sum.successes, sum.failures, sum.details.len()), (1, 3, 2));
        assert_eq!((sum.details[0].count, sum.details[0].text.as_str()), (2, "it isover"));
    }

    #[test]
    fn a_day_is_over_at_midnight_and_is_forgotten_domain_by_domain() {
        let mut tally = Tally::default();
        tally.add(&note("a.test", Ok(())), NOON);
        tally.add(&note("b.test", Ok(())), NOON);
        let midnight = UnixMillis((NOON.seconds() / DAY_SECS + 1) * DAY_SECS * 1000);
        assert_eq!(tally.over(UnixMillis(midnight.0 - 1)).count(), 0);
        assert_eq!(tally.over(midnight).count(), 2);
        tally.forget(NOON.seconds() / DAY_SECS, "a.test");
        tally.forget(NOON.seconds() / DAY_SECS, "b.test");
        assert!(tally.is_empty());
    }

    #[test]
    fn nothing_grows_past_its_bound() {
        let mut tally = Tally::default();
        for day in 0..9 {
            tally.add(&note("a.test", Ok(())), NOON.plus_secs(day * DAY_SECS));
        }
        assert_eq!(tally.days.len(), DAYS_MAX);
        let mut tally = Tally::default();
        for number in 0..200_u8 {
            let mut note = note("a.test", Err(Failure::Validation));
            note.receiving = Some(std::net::Ipv4Addr::new(192, 0, 2, number).into());
            note.basis = Arc::new(Basis { policy: vec![number.to_string()], ..(*note.basis).clone() });
            tally.add(&note, NOON);
        }
        let account = account(&tally, NOON);
        assert_eq!(account.policies.len(), POLICIES_MAX);
        assert_eq!(account.policies[0].details.len(), DETAILS_MAX);
        assert_eq!(account.policies.iter().map(|sum| sum.failures).sum::<u64>(), 200);
    }
}
