//! Which addresses a load generator may touch, and how a range of them is written.
//!
//! Loopback always. Anything else only when asked for by `--allow-non-loopback`, and then only from a network
//! namespace that has no default route, to an address of a private or test range: load sent by mistake
//! must find no way out. Bound: a range is at most the 256 values of a last octet.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Whether addresses other than loopback are refused outright or looked at closer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reach {
    Loopback,
    PrivateNamespace,
}

#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    #[error("{0}: not ADDRESS:PORT, nor a range such as 127.0.11.1-100:2525")]
    Syntax(String),
    #[error("{0} is not loopback; in a private test namespace, pass --allow-non-loopback")]
    NotLoopback(SocketAddr),
    #[error("{0} is not of a private or test range")]
    NotPrivate(SocketAddr),
    #[error("{0} is not loopback, and this network namespace has a default route: load could leave it")]
    WayOut(SocketAddr),
}

/// Refuses `address` unless load sent there stays on this machine.
pub fn check(address: SocketAddr, reach: Reach) -> Result<(), AddressError> {
    match (address.ip().is_loopback(), reach) {
        (true, _) => Ok(()),
        (false, Reach::Loopback) => Err(AddressError::NotLoopback(address)),
        (false, Reach::PrivateNamespace) if !is_private(address.ip()) => {
            Err(AddressError::NotPrivate(address))
        }
        (false, Reach::PrivateNamespace) if has_way_out() => Err(AddressError::WayOut(address)),
        (false, Reach::PrivateNamespace) => Ok(()),
    }
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            ip.is_private() || ip.is_link_local() || ip.is_documentation() || is_benchmarking(ip)
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local() || is_documentation(ip),
    }
}

/// RFC 2544: 198.18.0.0/15.
fn is_benchmarking(ip: Ipv4Addr) -> bool {
    ip.octets()[0] == 198 && ip.octets()[1] & 0xfe == 18
}

/// RFC 3849: 2001:db8::/32.
fn is_documentation(ip: Ipv6Addr) -> bool {
    ip.segments()[..2] == [0x2001, 0x0db8]
}

/// A table that cannot be read counts as a way out.
fn has_way_out() -> bool {
    let v4 = fs::read_to_string("/proc/self/net/route").map_or(true, |table| has_default_v4(&table));
    let v6 = fs::read_to_string("/proc/self/net/ipv6_route").is_ok_and(|table| has_default_v6(&table));
    v4 || v6
}

fn has_default_v4(table: &str) -> bool {
    table.lines().skip(1).any(|line| line.split_whitespace().nth(1) == Some("00000000"))
}

/// The kernel always lists an unreachable `::/0` on `lo`; that one leads nowhere.
fn has_default_v6(table: &str) -> bool {
    table.lines().any(|line| {
        let mut fields = line.split_whitespace();
        let is_all = fields.next() == Some("00000000000000000000000000000000") && fields.next() == Some("00");
        is_all && fields.last() != Some("lo")
    })
}

/// Reads `ADDRESS:PORT` or a range of last octets, `127.0.11.1-100:2525`.
pub fn parse_range(text: &str) -> Result<Vec<SocketAddr>, AddressError> {
    if let Ok(address) = text.parse() {
        return Ok(vec![address]);
    }
    parse_octets(text).ok_or_else(|| AddressError::Syntax(text.to_owned()))
}

fn parse_octets(text: &str) -> Option<Vec<SocketAddr>> {
    let (ips, port) = text.rsplit_once(':')?;
    let (first, last) = ips.split_once('-')?;
    let (first, last, port) = (first.parse::<Ipv4Addr>().ok()?, last.parse::<u8>().ok()?, port.parse().ok()?);
    let [a, b, c, d] = first.octets();
    let all = (d..=last).map(|octet| SocketAddr::from(([a, b, c, octet], port)));
    (d <= last).then(|| all.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_names_every_last_octet() {
        let all = parse_range("127.0.11.1-100:2525").unwrap();
        assert_eq!(all.len(), 100);
        assert_eq!(all[99], "127.0.11.100:2525".parse().unwrap());
        assert_eq!(parse_range("[::1]:25").unwrap().len(), 1);
        for wrong in ["127.0.0.9-3:25", "127.0.0.1-300:25", "127.0.0.1", "localhost:25"] {
            assert!(parse_range(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_loopback_is_reached_unasked() {
        assert!(check("127.3.2.1:25".parse().unwrap(), Reach::Loopback).is_ok());
        assert!(check("[::1]:25".parse().unwrap(), Reach::Loopback).is_ok());
        assert!(check("10.0.0.1:25".parse().unwrap(), Reach::Loopback).is_err());
        assert!(check("8.8.8.8:25".parse().unwrap(), Reach::PrivateNamespace).is_err());
    }

    #[test]
    fn a_default_route_is_a_way_out() {
        assert!(has_default_v4("Iface Destination\neth0 00000000 0101A8C0"));
        assert!(!has_default_v4("Iface Destination\nveth0 0000000A 00000000"));
        let zero = "0".repeat(32);
        assert!(!has_default_v6(&format!("{zero} 00 {zero} 00 {zero} ffffffff 1 0 00200200 lo")));
        assert!(has_default_v6(&format!("{zero} 00 {zero} 00 {zero} 00000400 1 0 00000003 eth0")));
    }
}
