//! Where a domain's mail goes: MX hosts and their addresses (RFC 5321 §5.1, RFC 7505).
//!
//! hickory caches, asks equal questions once, and keeps to its time limits. Trusts no answer further than its form.
//! Bounds: [`HOSTS_MAX`] hosts of a domain, [`ADDRESSES_MAX`] addresses of a host.

use crate::crossing::Target;
use crate::domains::{Host, Resolution};
use crate::settings::Settings;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, Record};
use message::Reply;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Hosts of a domain that are looked at, best first.
const HOSTS_MAX: usize = 12;

/// Addresses of a host that are tried.
const ADDRESSES_MAX: usize = 8;

/// An answer is kept at least and at most this long.
const TTL_MIN_SECS: u64 = 60;
const TTL_MAX_SECS: u64 = 24 * 3600;

/// See the module.
pub(crate) struct Resolver {
    resolver: Option<TokioResolver>,
    /// Our own name: in an MX set it cuts the list, so that mail does not loop.
    own_name: String,
    port: u16,
}

impl Resolver {
    /// Uses the configured name servers, or the system's.
    pub(crate) fn new(settings: &Settings) -> Result<Resolver, NetError> {
        let servers = &settings.config.delivery.name_servers;
        let provider = TokioRuntimeProvider::default();
        let mut builder = if servers.is_empty() {
            TokioResolver::builder(provider)?
        } else {
            let servers = servers.iter().map(|server| name_server(*server)).collect();
            TokioResolver::builder_with_config(
                ResolverConfig::from_parts(None, Vec::new(), servers),
                provider,
            )
        };
        let options = builder.options_mut();
        (options.ndots, options.cache_size, options.timeout, options.attempts) =
            (0, 1 << 16, Duration::from_secs(5), 2);
        options.use_hosts_file = ResolveHosts::Auto;
        options.negative_min_ttl = Some(Duration::from_secs(TTL_MIN_SECS));
        let own_name = settings.config.host_name.to_lowercase();
        Ok(Resolver { resolver: Some(builder.build()?), own_name, port: settings.config.delivery.port })
    }

    /// Answers every question with a soft failure.
    pub(crate) fn none() -> Resolver {
        Resolver { resolver: None, own_name: String::new(), port: 0 }
    }

    pub(crate) async fn resolve(&self, domain: &str, target: &Target) -> Resolution {
        let Some(resolver) = &self.resolver else {
            return Resolution::Deferred(Reply::ours(451, (4, 4, 3), "no name servers are configured"));
        };
        match target {
            Target::Host { name, port } => one_host(resolver, name, *port).await,
            Target::Mx => self.by_mx(resolver, domain).await,
        }
    }

    /// The domain's MX records as they are, best first, for somebody to read.
    pub(crate) async fn exchanges(&self, domain: &str) -> Vec<(u16, String)> {
        let Some(resolver) = &self.resolver else { return Vec::new() };
        let answer = resolver.mx_lookup(format!("{domain}.")).await;
        let mut exchanges = answer.map(|answer| exchanges_of(&answer)).unwrap_or_default();
        exchanges.sort();
        exchanges
    }

    async fn by_mx(&self, resolver: &TokioResolver, domain: &str) -> Resolution {
        let answer = match resolver.mx_lookup(format!("{domain}.")).await {
            Ok(answer) => answer,
            // No MX: the domain is its own host (RFC 5321 §5.1).
            Err(NetError::Dns(DnsError::NoRecordsFound(none)))
                if none.response_code == ResponseCode::NoError =>
            {
                return one_host(resolver, domain, self.port).await;
            }
            Err(error) => return refusal(domain, &error),
        };
        let mut exchanges = exchanges_of(&answer);
        if exchanges.iter().all(|(_, name)| name.is_empty()) {
            return Resolution::Failed(Reply::ours(
                556,
                (5, 1, 10),
                "the domain takes no mail (null MX, RFC 7505)",
            ));
        }
        exchanges.retain(|(_, name)| !name.is_empty());
        sort_exchanges(&mut exchanges);
        if let Some((own, _)) = exchanges.iter().find(|(_, name)| *name == self.own_name).cloned() {
            exchanges.retain(|(preference, _)| *preference < own);
        }
        if exchanges.is_empty() {
            return Resolution::Failed(Reply::ours(
                554,
                (5, 4, 6),
                "the best MX of the domain is this host, which does not take its mail",
            ));
        }
        let ttl = answer.valid_until().saturating_duration_since(crate::clock::now());
        self.hosts_of(resolver, domain, exchanges, ttl.as_secs()).await
    }

    async fn hosts_of(
        &self,
        resolver: &TokioResolver,
        domain: &str,
        exchanges: Vec<(u16, String)>,
        ttl_secs: u64,
    ) -> Resolution {
        let mut hosts = Vec::new();
        let mut trouble = None;
        for (_, name) in exchanges.iter().take(HOSTS_MAX) {
            match addresses_of(resolver, name).await {
                Ok(addresses) => hosts.extend(hosts_at(name, &addresses, self.port)),
                Err(error) => trouble = Some(error),
            }
        }
        if hosts.is_empty() {
            return trouble.map_or_else(
                || {
                    Resolution::Failed(Reply::ours(
                        550,
                        (5, 4, 4),
                        &format!("no MX of {domain} has an address"),
                    ))
                },
                |error| refusal(domain, &error),
            );
        }
        let mut names: Vec<&str> = exchanges.iter().map(|(_, name)| name.as_str()).collect();
        names.sort_unstable();
        let site = names.join(",").into();
        Resolution::Site {
            site,
            hosts,
            basis: Arc::default(),
            ttl_secs: ttl_secs.clamp(TTL_MIN_SECS, TTL_MAX_SECS),
        }
    }
}

/// (preference, host), hosts in lower case without the last dot; the root is empty.
fn exchanges_of(answer: &Lookup) -> Vec<(u16, String)> {
    let exchange = |record: &Record| match &record.data {
        RData::MX(mx) => Some((mx.preference, mx.exchange.to_ascii().trim_end_matches('.').to_lowercase())),
        _ => None,
    };
    answer.answers().iter().filter_map(exchange).collect()
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

/// By preference; equals in an order of chance, which spreads the load (RFC 5321 §5.1).
fn sort_exchanges(exchanges: &mut [(u16, String)]) {
    use std::hash::{BuildHasher as _, RandomState};
    let chance = RandomState::new();
    exchanges.sort_by_cached_key(|(preference, name)| (*preference, chance.hash_one(name)));
}

async fn one_host(resolver: &TokioResolver, name: &str, port: u16) -> Resolution {
    match addresses_of(resolver, name).await {
        Ok(addresses) if !addresses.is_empty() => {
            let site: Arc<str> = format!("{name}:{port}").into();
            Resolution::Site {
                site,
                hosts: hosts_at(name, &addresses, port),
                basis: Arc::default(),
                ttl_secs: 300,
            }
        }
        Ok(_) => Resolution::Failed(Reply::ours(550, (5, 4, 4), &format!("{name} has no address"))),
        Err(error) => refusal(name, &error),
    }
}

async fn addresses_of(resolver: &TokioResolver, name: &str) -> Result<Vec<IpAddr>, NetError> {
    let mut addresses: Vec<IpAddr> = resolver.lookup_ip(format!("{name}.")).await?.iter().collect();
    addresses.truncate(ADDRESSES_MAX);
    Ok(addresses)
}

fn hosts_at(name: &str, addresses: &[IpAddr], port: u16) -> Vec<Host> {
    let name: Arc<str> = name.into();
    let host = |ip: &IpAddr| Host {
        name: Arc::clone(&name),
        address: SocketAddr::new(*ip, port),
        tls: Arc::default(),
    };
    addresses.iter().map(host).collect()
}

/// A name that does not exist is a hard failure; silence and disorder are soft ones.
fn refusal(name: &str, error: &NetError) -> Resolution {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NXDomain => {
            Resolution::Failed(Reply::ours(550, (5, 1, 2), &format!("{name} does not exist")))
        }
        NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NoError => {
            Resolution::Failed(Reply::ours(550, (5, 4, 4), &format!("{name} has no address")))
        }
        error => Resolution::Deferred(Reply::ours(451, (4, 4, 3), &format!("looking up {name}: {error}"))),
    }
}
