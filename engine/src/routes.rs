//! Static routes, as in qmail's smtproutes: where mail for a domain goes instead of to its MX.
//!
//! `example.net` matches itself, `.example.net` everything below it, `*` all the rest; the longest match wins. An
//! empty relay means: by MX after all. Pure look-up; names are resolved by the control thread.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// Where a domain's mail goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Route {
    /// Look up its MX.
    Mx,
    Relay(Relay),
}

/// A configured next hop.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Relay {
    pub host: RelayHost,
    pub port: u16,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum RelayHost {
    Address(IpAddr),
    Name(String),
}

#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RouteError {
    #[error("{0:?} is no domain, .domain or *")]
    Domain(String),
    #[error("{0:?} is no relay; write host, host:port, [IPv6]:port or nothing (by MX)")]
    Relay(String),
}

/// The table. Serialised as `domain = "relay"`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct Routes {
    /// As it was written.
    table: BTreeMap<String, String>,
    exact: HashMap<String, Route>,
    /// Key with its leading dot.
    below: HashMap<String, Route>,
    rest: Option<Route>,
}

impl From<Routes> for BTreeMap<String, String> {
    fn from(routes: Routes) -> BTreeMap<String, String> {
        routes.table
    }
}

impl TryFrom<BTreeMap<String, String>> for Routes {
    type Error = RouteError;

    fn try_from(table: BTreeMap<String, String>) -> Result<Routes, RouteError> {
        let mut routes = Routes { table: table.clone(), ..Routes::default() };
        for (domain, relay) in table {
            let route = parse_route(&relay)?;
            let domain = domain.to_lowercase();
            let name = domain.strip_prefix('.').unwrap_or(&domain);
            if domain == "*" {
                routes.rest = Some(route);
            } else if message::Domain::parse(name).is_err() {
                return Err(RouteError::Domain(domain));
            } else if domain.starts_with('.') {
                routes.below.insert(domain, route);
            } else {
                routes.exact.insert(domain, route);
            }
        }
        Ok(routes)
    }
}

impl Routes {
    /// `domain` in lower case. At most one look-up per label.
    pub fn route(&self, domain: &str) -> Route {
        if let Some(route) = self.exact.get(domain) {
            return route.clone();
        }
        let mut below = domain;
        while let Some(dot) = below.find('.') {
            if let Some(route) = self.below.get(&below[dot..]) {
                return route.clone();
            }
            below = &below[dot + 1..];
        }
        self.rest.clone().unwrap_or(Route::Mx)
    }
}

fn parse_route(text: &str) -> Result<Route, RouteError> {
    if text.is_empty() {
        return Ok(Route::Mx);
    }
    let bad = || RouteError::Relay(text.to_owned());
    let (host, port) = split_port(text).ok_or_else(bad)?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let host = match bare.parse::<IpAddr>() {
        Ok(address) => RelayHost::Address(address),
        Err(_) if message::Domain::parse(host).is_ok() => RelayHost::Name(host.to_lowercase()),
        Err(_) => return Err(bad()),
    };
    Ok(Route::Relay(Relay { host, port }))
}

/// `host:port`, `[v6]:port`, or a host alone, which gets port 25.
fn split_port(text: &str) -> Option<(&str, u16)> {
    let colons = text.bytes().filter(|octet| *octet == b':').count();
    match text.rsplit_once(':') {
        Some((host, port)) if colons == 1 || host.ends_with(']') => {
            Some((host, port.parse().ok().filter(|port| *port > 0)?))
        }
        Some(_) | None => Some((text, 25)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(table: &[(&str, &str)]) -> Result<Routes, RouteError> {
        let table: BTreeMap<String, String> =
            table.iter().map(|(domain, relay)| ((*domain).into(), (*relay).into())).collect();
        Routes::try_from(table)
    }

    fn relay(address: &str, port: u16) -> Route {
        Route::Relay(Relay { host: RelayHost::Address(address.parse().unwrap()), port })
    }

    #[test]
    fn longest_match_wins() {
        let routes = routes(&[
            ("a.test", "127.0.0.1:1"),
            (".a.test", "127.0.0.1:2"),
            ("*", "127.0.0.1"),
            (".x.a.test", ""),
        ])
        .unwrap();
        assert_eq!(routes.route("a.test"), relay("127.0.0.1", 1));
        assert_eq!(routes.route("b.a.test"), relay("127.0.0.1", 2));
        assert_eq!(routes.route("b.x.a.test"), Route::Mx);
        assert_eq!(routes.route("other.test"), relay("127.0.0.1", 25));
    }

    #[test]
    fn ipv6_relays_need_brackets_only_with_a_port() {
        assert_eq!(parse_route("[::1]:2525"), Ok(relay("::1", 2525)));
        assert_eq!(parse_route("::1"), Ok(relay("::1", 25)));
        assert_eq!(parse_route("[::1]"), Ok(relay("::1", 25)));
    }

    #[test]
    fn nonsense_is_named() {
        assert_eq!(parse_route("a b"), Err(RouteError::Relay("a b".into())));
        assert_eq!(parse_route("host:0"), Err(RouteError::Relay("host:0".into())));
        assert!(matches!(routes(&[("a b", "")]), Err(RouteError::Domain(_))));
    }
}
