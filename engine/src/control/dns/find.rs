//! What the name servers say of a domain: its hosts in the order in which they are tried, with their addresses and TLSA
//! records.
//!
//! Bound: [`ADDRESSES_MAX`] addresses of a host; those of `exchanges`.

use super::dane::{self, Association};
use super::exchanges::{self, Exchanges};
use super::questions::{Answer, Lack, Questions};
use super::{Resolver, own, soft};
use crate::demands::Candidate;
use crate::domains::{Host, Resolution};
use message::Reply;
use smtp_out::TlsPolicy;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Addresses of a host that are tried.
const ADDRESSES_MAX: usize = 8;

/// See the module.
pub(super) struct Found {
    pub(super) site: Arc<str>,
    pub(super) hosts: Vec<FoundHost>,
    /// How long all of it holds.
    pub(super) secs: u64,
}

/// A host that has addresses.
pub(super) struct FoundHost {
    pub(super) name: Arc<str>,
    pub(super) addresses: Vec<SocketAddr>,
    dane: Option<Association>,
    /// Why it cannot be told whether it has TLSA records.
    pub(super) untold: Option<String>,
    secs: u64,
}

/// An exchange with its addresses.
struct Looked {
    addresses: Vec<SocketAddr>,
    answer: Answer<IpAddr>,
}

/// A host's name, and what it was found for, which its certificate may name as well. `None`: the way to it is not
/// signed, and without that its TLSA records protect nothing (RFC 7672 §2.2.1).
#[derive(Clone, Copy)]
struct Sought<'a> {
    host: &'a str,
    signed_for: Option<&'a str>,
    port: u16,
}

impl FoundHost {
    /// What `demands` wants to know of it.
    pub(super) fn candidate(&mut self) -> Candidate {
        let dane = self.dane.take();
        let (dane, lines) = dane.map_or((None, Vec::new()), |dane| (Some(dane.policy), dane.lines));
        Candidate { name: Arc::clone(&self.name), dane, lines, is_untold: self.untold.is_some() }
    }

    pub(super) fn at_each_address(&self, tls: &Arc<TlsPolicy>) -> impl Iterator<Item = Host> {
        let host = |address: &SocketAddr| Host {
            name: Arc::clone(&self.name),
            address: *address,
            tls: Arc::clone(tls),
        };
        self.addresses.iter().map(host)
    }
}

impl Resolver {
    /// A host that the operator names.
    pub(super) async fn find_relay(
        &self,
        questions: &Questions,
        name: &str,
        port: u16,
    ) -> Result<Found, Resolution> {
        let looked = look_up(questions, name, port).await;
        self.one_host(questions, name, (looked, port)).await
    }

    /// A domain's hosts by MX; without MX records it is its own host (RFC 5321 §5.1).
    pub(super) async fn find(&self, questions: &Questions, domain: &str) -> Result<Found, Resolution> {
        match questions.exchanges(domain).await {
            Ok(answer) => self.by_exchanges(questions, domain, answer).await,
            Err(Lack::Type) => {
                let port = self.settings().config.delivery.port;
                let looked = look_up(questions, domain, port).await;
                if self.leads_here(&looked) {
                    return Err(ourselves());
                }
                self.one_host(questions, domain, (looked, port)).await
            }
            Err(lack) => Err(refusal(domain, &lack)),
        }
    }

    async fn one_host(
        &self,
        questions: &Questions,
        name: &str,
        (looked, port): (Result<Looked, Lack>, u16),
    ) -> Result<Found, Resolution> {
        let sought = Sought { host: name, signed_for: Some(name), port };
        let host = self.usable(questions, name, sought, looked).await.map_err(|lack| refusal(name, &lack))?;
        Ok(Found { site: format!("{name}:{port}").into(), secs: host.secs, hosts: vec![host] })
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
        let port = self.settings().config.delivery.port;
        let hosts = exchanges::before_own(hosts, |name| self.own.is_name(name));
        let names = exchanges::looked_at(&hosts).iter().map(|(_, name)| look_up(questions, name, port));
        let looked = futures_util::future::join_all(names).await;
        let leads_here = |name: &str| {
            let mut of_name = hosts.iter().zip(&looked).filter(|((_, host), _)| host == name);
            of_name.any(|(_, looked)| self.leads_here(looked))
        };
        let others = exchanges::before_own(hosts.clone(), leads_here);
        if others.is_empty() {
            return Err(ourselves());
        }
        let site = exchanges::site_of(&others).into();
        let signed_for = answer.secure.then_some(domain);
        let looked = hosts.iter().zip(looked).filter(|(host, _)| others.contains(host));
        let (mut hosts, mut trouble) = (Vec::new(), None);
        for ((_, name), looked) in looked {
            let sought = Sought { host: name, signed_for, port };
            match self.usable(questions, domain, sought, looked).await {
                Ok(host) => hosts.push(host),
                Err(Lack::Trouble(what)) => trouble = Some(soft(&format!("looking up {name}: {what}"))),
                Err(Lack::Name | Lack::Type) => {}
            }
        }
        if hosts.is_empty() {
            return Err(trouble.unwrap_or_else(|| nowhere(domain)));
        }
        let secs = hosts.iter().map(|host| host.secs).chain([answer.secs]).min().unwrap_or(0);
        Ok(Found { site, hosts, secs })
    }

    fn leads_here(&self, looked: &Result<Looked, Lack>) -> bool {
        let addresses = looked.iter().flat_map(|looked| &looked.addresses);
        addresses.into_iter().any(|address| self.own.is_address(*address))
    }

    /// The host with its addresses.
    async fn usable(
        &self,
        questions: &Questions,
        domain: &str,
        sought: Sought<'_>,
        looked: Result<Looked, Lack>,
    ) -> Result<FoundHost, Lack> {
        let Looked { addresses, answer } = looked?;
        let Sought { host, signed_for, port } = sought;
        let dane = match signed_for.filter(|_| self.settings().config.tls.dane) {
            Some(next_hop) => dane::association(questions, host, &answer, port, next_hop).await,
            None => Ok(None),
        };
        let (dane, untold) = match dane.inspect_err(|what| self.note_untold(domain, host, what)) {
            Ok(dane) => (dane, None),
            Err(what) => (None, Some(what)),
        };
        let secs = dane.as_ref().map_or(answer.secs, |dane| dane.secs.min(answer.secs));
        Ok(FoundHost { name: host.into(), addresses, dane, untold, secs })
    }
}

async fn look_up(questions: &Questions, name: &str, port: u16) -> Result<Looked, Lack> {
    let answer = questions.addresses(name).await?;
    let addresses = answer.records.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
    let mut addresses = own::reachable(addresses);
    addresses.truncate(ADDRESSES_MAX);
    Ok(Looked { addresses, answer })
}

fn ourselves() -> Resolution {
    let text = "the best MX of the domain is this host, which does not take its mail";
    Resolution::Failed(Reply::ours(554, (5, 4, 6), text))
}

fn nowhere(domain: &str) -> Resolution {
    Resolution::Failed(Reply::ours(550, (5, 4, 4), &format!("no MX of {domain} has an address")))
}

/// A name that does not exist is a hard failure; silence and disorder are soft ones.
pub(super) fn refusal(name: &str, lack: &Lack) -> Resolution {
    match lack {
        Lack::Name => Resolution::Failed(Reply::ours(550, (5, 1, 2), &format!("{name} does not exist"))),
        Lack::Type => Resolution::Failed(Reply::ours(550, (5, 4, 4), &format!("{name} has no address"))),
        Lack::Trouble(what) => soft(&format!("looking up {name}: {what}")),
    }
}
