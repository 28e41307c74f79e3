//! Where a domain's mail goes: MX hosts and their addresses (RFC 5321 §5.1, RFC 7505), and how connections to them are
//! protected (RFC 7672, RFC 8461).
//!
//! A hard failure is one that the name servers answer for; silence and disorder are soft. Bounds: [`ADDRESSES_MAX`]
//! addresses of a host, those of `exchanges`, and `delivery.questions_max` questions on the wire.

mod dane;
mod exchanges;
mod gate;
mod own;
mod questions;

pub use questions::StartError;
pub(crate) use questions::{Answer, Lack, Questions};

use super::sts::{Policies, Policy};
use crate::crossing::Target;
use crate::demands::{self, Candidate, StsDemand};
use crate::domains::{Basis, BasisKind, Host, Resolution};
use crate::settings::Settings;
use crate::tlsrpt::{Failure, TlsNote};
use dane::Association;
use exchanges::Exchanges;
use message::Reply;
use own::Own;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

/// Addresses of a host that are tried.
const ADDRESSES_MAX: usize = 8;

/// An answer is kept at least and at most this long.
const TTL_MIN_SECS: u64 = 60;
const TTL_MAX_SECS: u64 = 24 * 3600;

/// What takes the news of a policy that could not be applied.
type Notes = Box<dyn Fn(TlsNote)>;

/// See the module.
pub struct Resolver {
    settings: Arc<Settings>,
    /// `None`: every question gets a soft failure.
    questions: Option<Rc<Questions>>,
    policies: Option<Rc<Policies>>,
    own: Own,
    notes: Notes,
}

/// What the name servers say of a domain, before its own policy is heard.
struct Found {
    site: Arc<str>,
    hosts: Vec<FoundHost>,
    secs: u64,
}

struct FoundHost {
    name: Arc<str>,
    addresses: Vec<SocketAddr>,
    dane: Option<Association>,
}

/// An exchange with what was found of it.
struct Looked {
    addresses: Vec<SocketAddr>,
    answer: Answer<IpAddr>,
}

impl Resolver {
    /// Uses the configured name servers, or the system's. `notes` hears of policies that could not be applied.
    pub fn new(settings: &Arc<Settings>, notes: impl Fn(TlsNote) + 'static) -> Result<Resolver, StartError> {
        let questions = Rc::new(Questions::new(settings)?);
        let config = &settings.config;
        let policies = config.tls.mta_sts.then(|| Rc::new(Policies::new(config, Rc::clone(&questions))));
        Ok(Resolver {
            policies,
            questions: Some(questions),
            own: Own::new(&config.host_name, &config.listen),
            notes: Box::new(notes),
            settings: Arc::clone(settings),
        })
    }

    /// Answers every question with a soft failure.
    pub fn none(settings: &Arc<Settings>) -> Resolver {
        let settings = Arc::clone(settings);
        Resolver { settings, questions: None, policies: None, own: Own::default(), notes: Box::new(drop) }
    }

    pub(crate) fn questions(&self) -> Option<&Rc<Questions>> {
        self.questions.as_ref()
    }

    /// `domain` in lower case. `place` is given back when the name servers have answered: a policy's host may be slow,
    /// and other domains need not wait for it.
    pub async fn resolve<P>(&self, domain: &str, target: &Target, place: P) -> Resolution {
        let Some(questions) = &self.questions else { return soft("no name servers are configured") };
        let by_name = demands::configured(&self.settings.config.tls, domain);
        let (found, policy) = match target {
            Target::Host { name, port } => (self.relay(questions, name, *port).await, None),
            Target::Mx => {
                let policies = self.policies.as_ref().filter(|_| by_name.is_none());
                let hint = async {
                    match policies {
                        Some(policies) => Some((policies, policies.hint(domain).await)),
                        None => None,
                    }
                };
                futures_util::future::join(self.by_mx(questions, domain), hint).await
            }
        };
        drop(place);
        let mut found = match found {
            Ok(found) => found,
            Err(resolution) => return resolution,
        };
        let by_name = by_name.or_else(|| match target {
            Target::Host { name, .. } => demands::configured(&self.settings.config.tls, name),
            Target::Mx => None,
        });
        let policy = match policy {
            Some((policies, hint)) => policies.of(domain, hint, &mut found.secs, &*self.notes).await,
            None => None,
        };
        self.protect(domain, found, by_name, policy.as_deref().map(|kept| &kept.policy))
    }

    // ---- where ----

    async fn relay(&self, questions: &Questions, name: &str, port: u16) -> Result<Found, Resolution> {
        let looked = look_up(questions, name, port).await.map_err(|lack| refusal(name, &lack))?;
        let dane =
            self.dane_of(questions, name, &looked.answer, port, name).await.map_err(|what| soft(&what))?;
        Ok(one_host(name, port, looked, dane))
    }

    async fn by_mx(&self, questions: &Questions, domain: &str) -> Result<Found, Resolution> {
        match questions.exchanges(domain).await {
            Ok(answer) => self.by_exchanges(questions, domain, answer).await,
            // No MX: the domain is its own host (RFC 5321 §5.1).
            Err(Lack::Type) => {
                let port = self.settings.config.delivery.port;
                let looked = look_up(questions, domain, port).await.map_err(|lack| refusal(domain, &lack))?;
                if looked.addresses.iter().any(|address| self.own.is_address(*address)) {
                    return Err(ourselves());
                }
                let dane = self.dane_of(questions, domain, &looked.answer, port, domain).await;
                Ok(one_host(domain, port, looked, dane.map_err(|what| soft(&what))?))
            }
            Err(lack) => Err(refusal(domain, &lack)),
        }
    }

    async fn by_exchanges(
        &self,
        questions: &Questions,
        domain: &str,
        answer: Answer<(u16, String)>,
    ) -> Result<Found, Resolution> {
        let Exchanges::Hosts(hosts) = Exchanges::of(answer.records) else {
            let text = "the domain takes no mail (null MX, RFC 7505)";
            return Err(Resolution::Failed(Reply::ours(556, (5, 1, 10), text)));
        };
        let hosts = exchanges::before_own(hosts, |name| self.own.is_name(name));
        let port = self.settings.config.delivery.port;
        let names = exchanges::looked_at(&hosts).iter().map(|(_, name)| look_up(questions, name, port));
        let looked = futures_util::future::join_all(names).await;
        let is_own = |name: &str| {
            let mut with_names = hosts.iter().zip(&looked).filter(|((_, host), _)| host == name);
            with_names.any(|(_, looked)| self.leads_here(looked))
        };
        let others = exchanges::before_own(hosts.clone(), is_own);
        if others.is_empty() {
            return Err(ourselves());
        }
        let looked = hosts.iter().zip(looked).filter(|(host, _)| others.contains(host));
        let mut found =
            Found { site: exchanges::site_of(&others).into(), hosts: Vec::new(), secs: answer.secs };
        let mut trouble = None;
        for ((_, name), looked) in looked {
            match self.usable(questions, name, looked, answer.secure.then_some(domain)).await {
                Ok((host, secs)) => {
                    found.secs = found.secs.min(secs);
                    found.hosts.push(host);
                }
                Err(Lack::Trouble(what)) => trouble = Some(soft(&format!("looking up {name}: {what}"))),
                Err(Lack::Name | Lack::Type) => {}
            }
        }
        if !found.hosts.is_empty() {
            return Ok(found);
        }
        Err(trouble.unwrap_or_else(|| {
            Resolution::Failed(Reply::ours(550, (5, 4, 4), &format!("no MX of {domain} has an address")))
        }))
    }

    fn leads_here(&self, looked: &Result<Looked, Lack>) -> bool {
        let addresses = looked.iter().flat_map(|looked| &looked.addresses);
        addresses.into_iter().any(|address| self.own.is_address(*address))
    }

    /// A host that may be tried. `signed_for`: the domain, if its MX records are signed; without that a host's TLSA
    /// records protect nothing (RFC 7672 §2.2.1).
    async fn usable(
        &self,
        questions: &Questions,
        name: &str,
        looked: Result<Looked, Lack>,
        signed_for: Option<&str>,
    ) -> Result<(FoundHost, u64), Lack> {
        let looked = looked?;
        let port = self.settings.config.delivery.port;
        let dane = match signed_for {
            Some(domain) => {
                let dane = self.dane_of(questions, name, &looked.answer, port, domain).await;
                dane.inspect_err(|what| self.note_untold(domain, name, what)).map_err(Lack::Trouble)?
            }
            None => None,
        };
        let secs = dane.as_ref().map_or(looked.answer.secs, |dane| dane.secs.min(looked.answer.secs));
        Ok((FoundHost { name: name.into(), addresses: looked.addresses, dane }, secs))
    }

    async fn dane_of(
        &self,
        questions: &Questions,
        host: &str,
        addresses: &Answer<IpAddr>,
        port: u16,
        next_hop: &str,
    ) -> Result<Option<Association>, String> {
        if !self.settings.config.tls.dane {
            return Ok(None);
        }
        dane::association(questions, host, addresses, port, next_hop).await
    }

    // ---- how ----

    fn protect(
        &self,
        domain: &str,
        found: Found,
        by_name: Option<smtp_out::TlsPolicy>,
        policy: Option<&Policy>,
    ) -> Resolution {
        let Found { site, mut hosts, secs } = found;
        let candidates: Vec<Candidate> = hosts
            .iter_mut()
            .map(|host| {
                let (dane, lines) =
                    host.dane.take().map_or((None, Vec::new()), |dane| (Some(dane.policy), dane.lines));
                Candidate { name: Arc::clone(&host.name), dane, lines }
            })
            .collect();
        let sts = policy.and_then(Policy::demand);
        let demands = demands::decide(&self.settings.config.tls, by_name, &candidates, sts);
        let mut left = Vec::new();
        for (host, policy) in hosts.into_iter().zip(demands.policies) {
            match policy {
                Some(tls) => left.extend(host.addresses.iter().map(|address| Host {
                    name: Arc::clone(&host.name),
                    address: *address,
                    tls: Arc::clone(&tls),
                })),
                None => self.note_unnamed(domain, &host, sts),
            }
        }
        if left.is_empty() {
            let text = format!("none of the MX hosts of {domain} is named by its MTA-STS policy");
            return Resolution::Deferred(Reply::ours(451, (4, 7, 5), &text));
        }
        let ttl_secs = secs.clamp(TTL_MIN_SECS, TTL_MAX_SECS);
        Resolution::Site { site, hosts: left, basis: demands.basis, ttl_secs }
    }

    /// A host whose TLSA records cannot be had.
    fn note_untold(&self, domain: &str, host: &str, what: &str) {
        (self.notes)(TlsNote {
            domain: domain.into(),
            basis: Arc::new(Basis { kind: BasisKind::Dane, ..Basis::default() }),
            host: host.into(),
            receiving: None,
            sending: None,
            result: Err((Failure::Dnssec, what.into())),
        });
    }

    fn note_unnamed(&self, domain: &str, host: &FoundHost, sts: Option<StsDemand<'_>>) {
        let Some(sts) = sts else { return };
        let (policy, mx) = (sts.lines.to_vec(), sts.patterns.to_vec());
        let basis = Basis { tag: Arc::default(), kind: BasisKind::Sts, policy, mx };
        let text = "the host is not among those that the policy names";
        (self.notes)(TlsNote {
            domain: domain.into(),
            basis: Arc::new(basis),
            host: Arc::clone(&host.name),
            receiving: host.addresses.first().map(SocketAddr::ip),
            sending: None,
            result: Err((Failure::Validation, text.into())),
        });
    }
}

async fn look_up(questions: &Questions, name: &str, port: u16) -> Result<Looked, Lack> {
    let answer = questions.addresses(name).await?;
    let mut addresses: Vec<SocketAddr> = answer.records.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
    addresses = own::reachable(addresses);
    addresses.truncate(ADDRESSES_MAX);
    Ok(Looked { addresses, answer })
}

fn one_host(name: &str, port: u16, looked: Looked, dane: Option<Association>) -> Found {
    let secs = dane.as_ref().map_or(looked.answer.secs, |dane| dane.secs.min(looked.answer.secs));
    let host = FoundHost { name: name.into(), addresses: looked.addresses, dane };
    Found { site: format!("{name}:{port}").into(), hosts: vec![host], secs }
}

fn soft(what: &str) -> Resolution {
    Resolution::Deferred(Reply::ours(451, (4, 4, 3), what))
}

fn ourselves() -> Resolution {
    let text = "the best MX of the domain is this host, which does not take its mail";
    Resolution::Failed(Reply::ours(554, (5, 4, 6), text))
}

/// A name that does not exist is a hard failure; silence and disorder are soft ones.
fn refusal(name: &str, lack: &Lack) -> Resolution {
    match lack {
        Lack::Name => Resolution::Failed(Reply::ours(550, (5, 1, 2), &format!("{name} does not exist"))),
        Lack::Type => Resolution::Failed(Reply::ours(550, (5, 4, 4), &format!("{name} has no address"))),
        Lack::Trouble(what) => soft(&format!("looking up {name}: {what}")),
    }
}
