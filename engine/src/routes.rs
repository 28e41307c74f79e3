//! Static routes, as in qmail's smtproutes: where mail for a domain goes instead of to its MX, and on which terms.
//!
//! `example.net` matches itself, `.example.net` everything below it, `*` (qmail writes nothing) all the rest; the longest
//! match wins. An empty relay means: by MX after all. Pure look-up; names are resolved by the control thread.

use crate::config::{ConfigError, RouteEntry, RouteProtocol, RouteTable, TlsMode};
use aws_lc_rs::{hmac, rand};
use local::virtual_domains::Domains;
use message::address::shown_domain;
use serde::{Deserialize, Serialize};
use smtp_out::{Login, Protocol, Secret};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

/// Octets of a tag's digest.
const TAG_LEN: usize = 16;

/// Where a domain's mail goes, and how.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Route {
    pub to: To,
    pub terms: Arc<Terms>,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum To {
    /// The hosts that its MX records name.
    Mx,
    /// A configured next hop and its port.
    Relay(RelayHost, u16),
    /// This machine's mailboxes.
    Local,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum RelayHost {
    Address(IpAddr),
    Name(String),
}

/// How the mail of a route is handed over. `Terms::default()`: as everybody's.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    pub login: Option<Arc<Login>>,
    pub protocol: Protocol,
    /// TLS from the first octet on. Not even `[tls] mode = "never"` makes that plain text.
    pub is_tls_implicit: bool,
    /// Instead of what `[tls]` says. Never `Fingerprint`.
    pub tls: Option<TlsMode>,
    /// Nothing goes out until it is asked for.
    pub is_held: bool,
    /// Equal if and only if the terms are, for the life of the process; empty for the default's. A digest, from which
    /// no secret can be guessed.
    pub tag: Arc<str>,
}

impl PartialEq for Terms {
    fn eq(&self, other: &Terms) -> bool {
        self.tag == other.tag
    }
}

impl Eq for Terms {}

/// What is wrong with an entry of the table.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RouteError {
    #[error("routes.{0:?}: that is no domain, .domain or *")]
    Domain(String),
    #[error("routes.{0:?}: the table has that twice; upper and lower case are the same")]
    Twice(String),
    #[error(
        "routes.{domain:?}: {relay:?} is no relay; write host, host:port, [IPv6]:port or nothing (by MX)"
    )]
    Relay { domain: String, relay: String },
    #[error("routes.{domain:?}: {what}")]
    Terms { domain: String, what: &'static str },
}

/// The table. Serialised as `domain = "relay"` or `domain = { relay = "relay", … }`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(try_from = "BTreeMap<String, RouteEntry>", into = "BTreeMap<String, RouteEntry>")]
pub struct Routes {
    /// As it was written.
    table: BTreeMap<String, RouteEntry>,
    exact: HashMap<String, Route>,
    /// Key with its leading dot.
    below: HashMap<String, Route>,
    rest: Option<Route>,
    /// Everybody's.
    usual: Arc<Terms>,
    /// Which domains are this machine's: they come before the table. `None`: mail for mailboxes goes by it, too.
    local: Option<Arc<LocalRoute>>,
}

/// See [`Routes::with_local`].
#[derive(Clone, Debug)]
struct LocalRoute {
    domains: Arc<Domains>,
    terms: Arc<Terms>,
}

impl From<Routes> for BTreeMap<String, RouteEntry> {
    fn from(routes: Routes) -> BTreeMap<String, RouteEntry> {
        routes.table
    }
}

impl TryFrom<BTreeMap<String, RouteEntry>> for Routes {
    type Error = RouteError;

    fn try_from(table: BTreeMap<String, RouteEntry>) -> Result<Routes, RouteError> {
        let mut routes = Routes::default();
        for (domain, entry) in &table {
            let route = routes.compile(domain, &entry.table())?;
            if routes.insert(domain, route)?.is_some() {
                return Err(RouteError::Twice(domain.clone()));
            }
        }
        routes.table = table;
        Ok(routes)
    }
}

impl Routes {
    /// Mail for those domains is delivered here.
    pub fn with_local(mut self, domains: Arc<Domains>) -> Routes {
        let terms = Terms { protocol: Protocol::Mailboxes, tls: Some(TlsMode::Never), ..Terms::default() };
        let terms = Arc::new(Terms { tag: terms.make_tag(), ..terms });
        self.local = Some(Arc::new(LocalRoute { domains, terms }));
        self
    }

    /// `domain` in lower case, with a dot behind it where [`Domains::is_exception`] has it. At most one look-up per label.
    pub fn route(&self, domain: &str) -> Route {
        if let Some(local) = self.local.as_ref().filter(|local| local.domains.is_local(domain)) {
            return Route { to: To::Local, terms: Arc::clone(&local.terms) };
        }
        let route = self.find(shown_domain(domain)).or(self.rest.as_ref()).cloned();
        route.unwrap_or_else(|| Route { to: To::Mx, terms: Arc::clone(&self.usual) })
    }

    fn find(&self, domain: &str) -> Option<&Route> {
        let dots = domain.match_indices('.').map(|(at, _)| &domain[at..]);
        self.exact.get(domain).or_else(|| dots.into_iter().find_map(|below| self.below.get(below)))
    }

    /// What stands in the files that the table names.
    pub fn read_secrets(&mut self) -> Result<(), ConfigError> {
        for (domain, entry) in &mut self.table {
            if let RouteEntry::Table(table) = entry {
                table.read_secret(domain)?;
            }
        }
        let (table, local) = (std::mem::take(&mut self.table), self.local.take());
        let read = Routes::try_from(table);
        *self = read.expect("the table was right, and a secret that was read makes it no wrong one");
        self.local = local;
        Ok(())
    }

    /// The route that was there.
    fn insert(&mut self, domain: &str, route: Route) -> Result<Option<Route>, RouteError> {
        let domain = domain.to_lowercase();
        let name = domain.strip_prefix('.').unwrap_or(&domain);
        if domain.is_empty() || domain == "*" {
            Ok(self.rest.replace(route))
        } else if message::Domain::parse(name).is_err() {
            Err(RouteError::Domain(domain))
        } else if domain.starts_with('.') {
            Ok(self.below.insert(domain, route))
        } else {
            Ok(self.exact.insert(domain, route))
        }
    }

    fn compile(&self, domain: &str, table: &RouteTable) -> Result<Route, RouteError> {
        table.check().map_err(|what| RouteError::Terms { domain: domain.to_owned(), what })?;
        let wrong = || RouteError::Relay { domain: domain.to_owned(), relay: table.relay.clone() };
        let to = parse_relay(&table.relay, table.usual_port()).ok_or_else(wrong)?;
        let terms = Terms::new(table);
        let terms = if terms.tag.is_empty() { Arc::clone(&self.usual) } else { Arc::new(terms) };
        Ok(Route { to, terms })
    }
}

impl Terms {
    fn new(table: &RouteTable) -> Terms {
        let login = |user: &String| {
            table.secret().map(|secret| {
                Arc::new(Login { user: user.clone(), secret, allow_plain_text: table.allow_plain_login })
            })
        };
        let mut terms = Terms {
            login: table.user.as_ref().and_then(login),
            protocol: match table.protocol {
                RouteProtocol::Smtp => Protocol::Smtp,
                RouteProtocol::Lmtp => Protocol::Lmtp,
            },
            is_tls_implicit: table.implicit_tls,
            tls: table.tls,
            is_held: table.hold,
            tag: Arc::default(),
        };
        terms.tag = terms.make_tag();
        terms
    }

    fn make_tag(&self) -> Arc<str> {
        let Terms { login, protocol, is_tls_implicit, tls, is_held, tag: _ } = self;
        let plain = (Protocol::Smtp, false, None, false);
        if login.is_none() && (*protocol, *is_tls_implicit, *tls, *is_held) == plain {
            return Arc::default();
        }
        // The texts are quoted by Debug, so that one cannot be read as another.
        let login = login.as_deref().map(|login| match &login.secret {
            Secret::Password(text) => (&login.user, "password", text, login.allow_plain_text),
            Secret::Token(text) => (&login.user, "token", text, login.allow_plain_text),
        });
        tag_of(&format!("{login:?} {protocol:?} {is_tls_implicit} {tls:?} {is_held}"))
    }
}

/// Under a key that nobody else has: a plain digest of a weak password would let it be guessed from a log.
fn tag_of(text: &str) -> Arc<str> {
    static KEY: LazyLock<hmac::Key> = LazyLock::new(|| {
        hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new())
            .expect("the system gives random octets")
    });
    let mut tag = String::with_capacity(2 * TAG_LEN);
    for octet in &hmac::sign(&KEY, text.as_bytes()).as_ref()[..TAG_LEN] {
        let _ = write!(tag, "{octet:02x}");
    }
    tag.into()
}

/// `None`: that is no relay. Empty: by MX.
pub(crate) fn parse_relay(text: &str, usual_port: u16) -> Option<To> {
    if text.is_empty() {
        return Some(To::Mx);
    }
    let (host, port) = split_port(text, usual_port)?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let host = match bare.parse::<IpAddr>() {
        Ok(address) => RelayHost::Address(address),
        Err(_) => RelayHost::Name(message::Domain::parse(host).ok().map(|_| host.to_lowercase())?),
    };
    Some(To::Relay(host, port))
}

/// `host:port`, `[v6]:port`, or a host alone, which gets the usual port.
fn split_port(text: &str, usual_port: u16) -> Option<(&str, u16)> {
    let colons = text.bytes().filter(|octet| *octet == b':').count();
    match text.rsplit_once(':') {
        Some((host, port)) if colons == 1 || host.ends_with(']') => {
            Some((host, port.parse().ok().filter(|port| *port > 0)?))
        }
        Some(_) | None => Some((text, usual_port)),
    }
}

/// For the fuzzer: any text as a relay.
pub fn fuzz_relay(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(To::Relay(_, port)) = parse_relay(&text, 25) {
        assert_ne!(port, 0, "{text:?}");
    }
}

#[cfg(test)]
mod tests;
