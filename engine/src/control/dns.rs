//! Where a domain's mail goes: MX hosts and their addresses (RFC 5321 §5.1, RFC 7505), and how connections to them are
//! protected (RFC 7672, RFC 8461).
//!
//! `find` asks the name servers, `sts` the domain's own policy, `demands` decides. A hard failure is one that the name
//! servers answer for; silence and disorder are soft. Bounds: those of `find` and `exchanges`, and
//! `delivery.questions_max` questions on the wire.

mod dane;
mod exchanges;
mod find;
mod gate;
mod own;
mod questions;

pub(crate) use own::is_local;
pub use questions::StartError;
pub(crate) use questions::{Lack, Questions, ascii, unicode};

use super::sts::{Policies, Policy};
use crate::crossing::Target;
use crate::demands::{self, Candidate, Demands, StsDemand};
use crate::domains::{Basis, BasisKind, Host, Relaxed, Resolution};
use crate::settings::Settings;
use crate::tlsrpt::{Failure, TlsNote};
use find::{Found, FoundHost};
use message::Reply;
use own::Own;
use smtp_out::TlsPolicy;
use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

/// An answer is kept at least and at most this long.
const TTL_MIN_SECS: u64 = 60;
const TTL_MAX_SECS: u64 = 24 * 3600;

/// What takes the news of a policy that could not be applied.
type Notes = Box<dyn Fn(TlsNote)>;

/// See the module.
pub struct Resolver {
    settings: RefCell<Arc<Settings>>,
    /// `None`: every question gets a soft failure.
    questions: Option<Rc<Questions>>,
    policies: Option<Rc<Policies>>,
    own: Own,
    notes: Notes,
}

impl Resolver {
    /// Uses the configured name servers, or the system's. `notes` hears of policies that could not be applied.
    pub fn new(settings: &Arc<Settings>, notes: impl Fn(TlsNote) + 'static) -> Result<Resolver, StartError> {
        let questions = Rc::new(Questions::new(settings)?);
        let config = &settings.config;
        let policies = Rc::new(Policies::new(config, Rc::clone(&questions)));
        Ok(Resolver {
            policies: Some(policies),
            questions: Some(questions),
            own: Own::new(&config.host_name, &config.addresses()),
            notes: Box::new(notes),
            settings: RefCell::new(Arc::clone(settings)),
        })
    }

    /// Answers every question with a soft failure.
    pub fn none(settings: &Arc<Settings>) -> Resolver {
        let settings = RefCell::new(Arc::clone(settings));
        Resolver { settings, questions: None, policies: None, own: Own::default(), notes: Box::new(drop) }
    }

    /// After a reload. Name servers, trust anchors, authorities and whether answers are validated stay as they were.
    pub(crate) fn configure(&self, settings: &Arc<Settings>) {
        self.settings.replace(Arc::clone(settings));
    }

    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.borrow())
    }

    pub(crate) fn questions(&self) -> Option<&Rc<Questions>> {
        self.questions.as_ref()
    }

    /// `domain` in lower case. `place` is given back when the name servers have answered: a policy's host may be slow,
    /// and other domains need not wait for it.
    pub async fn resolve<P>(&self, domain: &str, target: &Target, place: P) -> Resolution {
        let Some(questions) = &self.questions else { return soft("no name servers are configured") };
        let by_name = self.configured(domain, target);
        let Some(domain) = &ascii(domain) else { return find::refusal(domain, &Lack::Name) };
        // The operator's word needs no policy of the domain's, and a relay is the operator's word as well.
        let is_open = by_name.is_none() && *target == Target::Mx && self.settings().config.tls.mta_sts;
        let policies = self.policies.as_ref().filter(|_| is_open);
        let found = async {
            match target {
                Target::Host { name, port } => self.find_relay(questions, name, *port).await,
                Target::Mx => self.find(questions, domain).await,
            }
        };
        let hint = async {
            match policies {
                Some(policies) => Some((policies, policies.hint(domain).await)),
                None => None,
            }
        };
        let (found, hint) = futures_util::future::join(found, hint).await;
        drop(place);
        let mut found = match found {
            Ok(found) => found,
            Err(resolution) => return resolution,
        };
        let kept = match hint {
            Some((policies, hint)) => policies.of(domain, hint, &mut found.secs, &*self.notes).await,
            None => None,
        };
        self.protect(domain, found, by_name, kept.as_deref().map(|kept| &kept.policy))
    }

    /// Senders may ask that what domains publish about TLS does not hold for their mail.
    pub(crate) fn obeys_tls_required(&self) -> bool {
        self.settings().config.tls.obey_tls_required
    }

    /// The domain's MX records as they are, best first, for somebody to read.
    pub(crate) async fn exchanges(&self, domain: &str) -> Vec<(u16, String)> {
        let (Some(questions), Some(domain)) = (&self.questions, ascii(domain)) else {
            return Vec::new();
        };
        let mut exchanges =
            questions.exchanges(&domain).await.map(|answer| answer.records).unwrap_or_default();
        exchanges.sort();
        exchanges
    }

    /// What the operator demands: of the domain, or of the relay that its mail goes to.
    fn configured(&self, domain: &str, target: &Target) -> Option<TlsPolicy> {
        let tls = &self.settings().config.tls;
        demands::configured(tls, domain).or_else(|| match target {
            Target::Host { name, .. } => demands::configured(tls, name),
            Target::Mx => None,
        })
    }

    fn protect(
        &self,
        domain: &str,
        found: Found,
        by_name: Option<TlsPolicy>,
        policy: Option<&Policy>,
    ) -> Resolution {
        let Found { site, mut hosts, secs } = found;
        let candidates: Vec<Candidate> = hosts.iter_mut().map(FoundHost::candidate).collect();
        let (sts, settings) = (policy.and_then(Policy::demand), self.settings());
        let demands = demands::decide(&settings.config.tls, by_name.clone(), &candidates, sts);
        let relaxed = demands::relax(&settings.config.tls, by_name.as_ref(), &candidates, &demands);
        let relaxed = relaxed.map(|demands| Relaxed { hosts: used(&hosts, &demands), basis: demands.basis });
        let barred = hosts.iter().zip(&demands.policies).filter(|(_, policy)| policy.is_none());
        barred
            .filter(|(host, _)| host.untold.is_none())
            .for_each(|(host, _)| self.note_unnamed(domain, host, sts));
        let ttl_secs = secs.clamp(TTL_MIN_SECS, TTL_MAX_SECS);
        let left = used(&hosts, &demands);
        match (left.is_empty(), relaxed) {
            (false, relaxed) => {
                Resolution::Site { site, hosts: left, basis: demands.basis, ttl_secs, relaxed }
            }
            (true, Some(relaxed)) => {
                let reply = barred_reply(domain, &hosts);
                Resolution::Barred { reply, site, relaxed, ttl_secs }
            }
            (true, None) => Resolution::Deferred(barred_reply(domain, &hosts)),
        }
    }

    /// A host whose TLSA records cannot be had.
    fn note_untold(&self, domain: &str, host: &str, what: &str) {
        let basis = Basis { kind: BasisKind::Dane, ..Basis::default() };
        self.note(domain, basis, (host, None), (Failure::Dnssec, what));
    }

    /// A host that the domain's policy forbids.
    fn note_unnamed(&self, domain: &str, host: &FoundHost, sts: Option<StsDemand<'_>>) {
        let Some(sts) = sts else { return };
        let (policy, mx) = (sts.lines.to_vec(), sts.patterns.to_vec());
        let basis = Basis { tag: Arc::default(), kind: BasisKind::Sts, policy, mx };
        let receiving = host.addresses.first().map(SocketAddr::ip);
        let text = "the host is not among those that the policy names";
        self.note(domain, basis, (&host.name, receiving), (Failure::Validation, text));
    }

    fn note(
        &self,
        domain: &str,
        basis: Basis,
        (host, receiving): (&str, Option<IpAddr>),
        (failure, text): (Failure, &str),
    ) {
        (self.notes)(TlsNote {
            domain: domain.into(),
            basis: Arc::new(basis),
            host: host.into(),
            receiving,
            sending: None,
            result: Err((failure, text.into())),
        });
    }
}

/// The hosts that may be used, in their order.
fn used(hosts: &[FoundHost], demands: &Demands) -> Vec<Host> {
    let policies = hosts.iter().zip(&demands.policies);
    policies.flat_map(|(host, tls)| tls.iter().flat_map(|tls| host.at_each_address(tls))).collect()
}

/// Why none may be used.
fn barred_reply(domain: &str, hosts: &[FoundHost]) -> Reply {
    match hosts.iter().find_map(|host| Some((&host.name, host.untold.as_ref()?))) {
        Some((name, what)) => soft_reply(&format!("looking up {name}: {what}")),
        None => {
            let text = format!("none of the MX hosts of {domain} is named by its MTA-STS policy");
            Reply::ours(451, (4, 7, 5), &text)
        }
    }
}

fn soft(what: &str) -> Resolution {
    Resolution::Deferred(soft_reply(what))
}

fn soft_reply(what: &str) -> Reply {
    Reply::ours(451, (4, 4, 3), what)
}
