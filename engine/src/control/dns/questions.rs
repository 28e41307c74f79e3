//! What is asked of the name servers: records, whether DNSSEC vouches for them, and for how long they hold.
//!
//! hickory caches answers and denials, sends equal questions once and keeps to its time limits. Each question on the
//! wire, those that validation adds included, takes one of `delivery.questions_max` places; the others wait, so a burst
//! of new domains is no burst at the name server. A question that stays without an answer is repeated in its place.
//! Trusts no answer further than its form, unless it is `secure`.

use super::gate::Gate;
use crate::config::Config;
use crate::settings::Settings;
use hickory_resolver::Resolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::dnssec::TrustAnchors;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use smtp_out::Tlsa;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A denial is kept at least this long, and at most an hour: who has just been given an address waits no longer.
const DENIAL_MIN: Duration = Duration::from_secs(60);
const DENIAL_MAX: Duration = Duration::from_secs(3600);

/// Answers that are kept.
const ANSWERS_MAX: u64 = 1 << 16;

/// An attempt at an answer; there are two.
const QUESTION_MAX: Duration = Duration::from_secs(5);
const CLIENT_QUESTION_MAX: Duration = Duration::from_secs(2);

/// Aliases in a row that are followed; hickory follows no more.
const ALIASES_MAX: usize = 8;

/// Why the name servers cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Servers(#[from] NetError),
    #[error(
        "tls.trust_anchors {path}: {what}; DNSKEY records are wanted, such as `. 3600 IN DNSKEY 257 3 8 ...`"
    )]
    Anchors { path: String, what: String },
}

/// Records of one type at a name.
#[derive(Clone, Debug)]
pub(crate) struct Answer<T> {
    pub(crate) records: Vec<T>,
    /// Every record on the way from the name to them is signed, up to a trust anchor.
    pub(crate) secure: bool,
    /// As far as that holds for what stands at the name itself, which may be an alias.
    pub(crate) name_secure: bool,
    /// Where the aliases lead. The name itself if it is none.
    pub(crate) canonical: String,
    /// How long it holds.
    pub(crate) secs: u64,
}

/// Why there are no records. With validation the first two are proven, or the zone is proven to be unsigned.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Lack {
    /// There is no such name.
    Name,
    /// The name has none of that type.
    Type,
    /// Nobody knows now: silence, disorder, or signatures that do not hold.
    Trouble(String),
}

/// See the module.
pub(crate) struct Questions {
    resolver: Resolver<Gate>,
}

impl Questions {
    /// Of the configured name servers, or the system's.
    pub(crate) fn new(settings: &Settings) -> Result<Questions, StartError> {
        let config = &settings.config;
        Questions::build(config, config.delivery.questions_max, QUESTION_MAX, config.tls.dane)
    }

    /// About clients that wait for the answer: with places of their own, less patience and no DNSSEC.
    pub(crate) fn about_clients(settings: &Settings) -> Result<Questions, StartError> {
        Questions::build(&settings.config, settings.config.access.questions_max, CLIENT_QUESTION_MAX, false)
    }

    fn build(
        config: &Config,
        places: usize,
        patience: Duration,
        is_validated: bool,
    ) -> Result<Questions, StartError> {
        let gate = Gate::new(places);
        let servers = &config.delivery.name_servers;
        let mut builder = if servers.is_empty() {
            Resolver::builder(gate)?
        } else {
            let servers = servers.iter().map(|server| name_server(*server)).collect();
            Resolver::builder_with_config(ResolverConfig::from_parts(None, Vec::new(), servers), gate)
        };
        let options = builder.options_mut();
        (options.ndots, options.cache_size, options.attempts) = (0, ANSWERS_MAX, 2);
        options.timeout = patience;
        // Only the gate says busy.
        options.max_active_requests = places;
        options.use_hosts_file = ResolveHosts::Auto;
        (options.negative_min_ttl, options.negative_max_ttl) = (Some(DENIAL_MIN), Some(DENIAL_MAX));
        options.validate = is_validated;
        if let Some(path) = config.tls.trust_anchors.as_deref().filter(|_| is_validated) {
            builder = builder.with_trust_anchor(Arc::new(anchors(path)?));
        }
        Ok(Questions { resolver: builder.build()? })
    }

    /// (preference, host), hosts in lower case without the last dot; the root is empty.
    pub(crate) async fn exchanges(&self, domain: &str) -> Result<Answer<(u16, String)>, Lack> {
        let take = |data: &RData| match data {
            RData::MX(mx) => Some((mx.preference, plain(&mx.exchange))),
            _ => None,
        };
        self.ask(domain, RecordType::MX, take).await
    }

    /// Both families at once. One that fails is no loss while the other answers.
    pub(crate) async fn addresses(&self, host: &str) -> Result<Answer<IpAddr>, Lack> {
        let take = |data: &RData| match data {
            RData::A(a) => Some(IpAddr::V4(a.0)),
            RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
            _ => None,
        };
        let (v6, v4) = futures_util::future::join(
            self.ask(host, RecordType::AAAA, take),
            self.ask(host, RecordType::A, take),
        )
        .await;
        both_families(v6, v4)
    }

    pub(crate) async fn ipv4_addresses(&self, name: &str) -> Result<Answer<Ipv4Addr>, Lack> {
        let take = |data: &RData| match data {
            RData::A(a) => Some(a.0),
            _ => None,
        };
        self.ask(name, RecordType::A, take).await
    }

    /// What PTR records say, in lower case without the last dot.
    pub(crate) async fn pointers(&self, name: &str) -> Result<Answer<String>, Lack> {
        let take = |data: &RData| match data {
            RData::PTR(pointer) => Some(plain(&pointer.0)),
            _ => None,
        };
        self.ask(name, RecordType::PTR, take).await
    }

    pub(crate) async fn tlsa(&self, name: &str) -> Result<Answer<Tlsa>, Lack> {
        let take = |data: &RData| match data {
            RData::TLSA(tlsa) => Some(Tlsa {
                usage: tlsa.cert_usage.into(),
                selector: tlsa.selector.into(),
                matching: tlsa.matching.into(),
                data: tlsa.cert_data.clone(),
            }),
            _ => None,
        };
        self.ask(name, RecordType::TLSA, take).await
    }

    /// Each record's strings put together (RFC 7208 §3.3, as RFC 8461 §3.1 and RFC 8460 §3 have it).
    pub(crate) async fn texts(&self, name: &str) -> Result<Answer<Vec<u8>>, Lack> {
        let take = |data: &RData| match data {
            RData::TXT(txt) => Some(txt.txt_data.concat()),
            _ => None,
        };
        self.ask(name, RecordType::TXT, take).await
    }

    async fn ask<T>(
        &self,
        name: &str,
        record_type: RecordType,
        take: impl Fn(&RData) -> Option<T>,
    ) -> Result<Answer<T>, Lack> {
        // What cannot be a name does not exist.
        let asked = Name::from_utf8(format!("{name}.")).map_err(|_| Lack::Name)?;
        let lookup = self.resolver.lookup(asked.clone(), record_type).await.map_err(|error| lack(&error))?;
        let records: Vec<T> = lookup.answers().iter().filter_map(|record| take(&record.data)).collect();
        if records.is_empty() {
            return Err(Lack::Type);
        }
        let signed: Vec<&Record> =
            lookup.answers().iter().filter(|record| !record.record_type().is_rrsig()).collect();
        let at_name = || signed.iter().filter(|record| record.name == asked);
        Ok(Answer {
            records,
            secure: signed.iter().all(|record| record.proof.is_secure()),
            name_secure: at_name().count() > 0 && at_name().all(|record| record.proof.is_secure()),
            canonical: plain(&canonical(asked.clone(), &signed)),
            secs: lookup.valid_until().saturating_duration_since(crate::clock::now()).as_secs(),
        })
    }
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

fn anchors(path: &Path) -> Result<TrustAnchors, StartError> {
    let wrong = |what: String| StartError::Anchors { path: path.display().to_string(), what };
    let anchors = TrustAnchors::from_file(path).map_err(|error| wrong(error.to_string()))?;
    if anchors.is_empty() { Err(wrong("no key of the root".to_owned())) } else { Ok(anchors) }
}

/// The domain as name servers know it: A-labels for U-labels (RFC 5890). `None` for what cannot be a name.
pub(crate) fn ascii(domain: &str) -> Option<String> {
    Name::from_utf8(domain).ok().map(|name| plain(&name))
}

/// The same with U-labels.
pub(crate) fn unicode(domain: &str) -> Option<String> {
    Name::from_utf8(domain).ok().map(|name| name.to_utf8().trim_end_matches('.').to_lowercase())
}

/// In lower case, without the last dot.
fn plain(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_lowercase()
}

fn canonical(asked: Name, records: &[&Record]) -> Name {
    let mut name = asked;
    for _ in 0..ALIASES_MAX {
        let next = records.iter().find_map(|record| match &record.data {
            RData::CNAME(alias) if record.name == name => Some(alias.0.clone()),
            _ => None,
        });
        match next {
            Some(next) => name = next,
            None => break,
        }
    }
    name
}

fn lack(error: &NetError) -> Lack {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NXDomain => {
            Lack::Name
        }
        NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NoError => {
            Lack::Type
        }
        // A denial that is proven to stand in an unsigned part of the tree is as good as one without validation.
        NetError::Dns(DnsError::Nsec { proof, response, .. }) if proof.is_insecure() => {
            if response.response_code == ResponseCode::NXDomain { Lack::Name } else { Lack::Type }
        }
        error => Lack::Trouble(error.to_string()),
    }
}

fn both_families(
    v6: Result<Answer<IpAddr>, Lack>,
    v4: Result<Answer<IpAddr>, Lack>,
) -> Result<Answer<IpAddr>, Lack> {
    match (v6, v4) {
        (Ok(v6), Ok(v4)) => Ok(Answer {
            secure: v6.secure && v4.secure,
            name_secure: v6.name_secure && v4.name_secure,
            canonical: v4.canonical,
            secs: v6.secs.min(v4.secs),
            records: interleaved(&v6.records, &v4.records),
        }),
        (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(one),
        (Err(trouble @ Lack::Trouble(_)), _) | (_, Err(trouble @ Lack::Trouble(_))) => Err(trouble),
        (Err(Lack::Name), _) | (_, Err(Lack::Name)) => Err(Lack::Name),
        (Err(Lack::Type), Err(Lack::Type)) => Err(Lack::Type),
    }
}

/// In turn, so that a family that leads nowhere costs one attempt before the other has one.
fn interleaved(v6: &[IpAddr], v4: &[IpAddr]) -> Vec<IpAddr> {
    let longest = v6.len().max(v4.len());
    (0..longest).flat_map(|at| [v6.get(at), v4.get(at)]).flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(records: &[&str], secure: bool) -> Result<Answer<IpAddr>, Lack> {
        let records = records.iter().map(|ip| ip.parse().unwrap()).collect();
        Ok(Answer { records, secure, name_secure: secure, canonical: "mx.test".into(), secs: 60 })
    }

    fn shown(answer: Result<Answer<IpAddr>, Lack>) -> Vec<String> {
        answer.unwrap().records.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_domain_of_any_script_has_its_ascii_form() {
        assert_eq!(ascii("Bücher.Test").as_deref(), Some("xn--bcher-kva.test"));
        assert_eq!(ascii("a.test").as_deref(), Some("a.test"));
        assert_eq!(ascii(&format!("{}.test", "a".repeat(64))), None);
    }

    #[test]
    fn families_take_turns_and_the_longer_one_ends_the_list() {
        let both = both_families(
            answer(&["2001:db8::1", "2001:db8::2"], true),
            answer(&["192.0.2.1", "192.0.2.2", "192.0.2.3"], true),
        );
        let expected = ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "192.0.2.3"];
        assert_eq!(shown(both), expected);
    }

    #[test]
    fn one_family_in_trouble_leaves_the_other() {
        let trouble = || Err(Lack::Trouble("time-out".into()));
        assert_eq!(shown(both_families(trouble(), answer(&["192.0.2.1"], true))), ["192.0.2.1"]);
        assert_eq!(shown(both_families(answer(&["2001:db8::1"], true), trouble())), ["2001:db8::1"]);
        assert!(matches!(both_families(trouble(), Err(Lack::Type)), Err(Lack::Trouble(_))));
        assert!(matches!(both_families(Err(Lack::Name), trouble()), Err(Lack::Trouble(_))));
        assert_eq!(both_families(Err(Lack::Name), Err(Lack::Type)).unwrap_err(), Lack::Name);
    }

    #[test]
    fn an_unsigned_family_makes_the_host_insecure() {
        let both = both_families(answer(&["2001:db8::1"], false), answer(&["192.0.2.1"], true)).unwrap();
        assert!(!both.secure && !both.name_secure);
    }
}
