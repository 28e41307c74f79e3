//! Which addresses are ours, and which the machine can reach at all.
//!
//! The kernel is asked at the moment, not a list that was made at the start: addresses come and go. No packet is sent.
//! Cost: two or three system calls an address, on the control thread.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Where this host takes mail.
#[derive(Clone, Debug, Default)]
pub(super) struct Own {
    /// In lower case.
    name: String,
    listeners: Vec<SocketAddr>,
}

impl Own {
    pub(super) fn new(name: &str, listeners: &[SocketAddr]) -> Own {
        Own { name: name.to_lowercase(), listeners: listeners.to_vec() }
    }

    /// `name` in lower case.
    pub(super) fn is_name(&self, name: &str) -> bool {
        self.name == name
    }

    /// A connection to that address would end in a listener of ours: the port counts, so a relay on this machine is
    /// another host.
    pub(super) fn is_address(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        self.listeners
            .iter()
            .any(|listener| listener.port() == address.port() && listens(listener.ip().to_canonical(), ip))
    }
}

fn listens(listener: IpAddr, ip: IpAddr) -> bool {
    match listener {
        // A socket on :: takes IPv4 as well.
        IpAddr::V6(any) if any.is_unspecified() => is_local(ip),
        IpAddr::V4(any) if any.is_unspecified() => ip.is_ipv4() && is_local(ip),
        // Connecting to the unspecified address leads to loopback.
        exact => exact == ip || (ip.is_unspecified() && exact.is_loopback()),
    }
}

/// An interface has this address: only then a socket may be bound to it.
pub(crate) fn is_local(ip: IpAddr) -> bool {
    ip.is_unspecified() || UdpSocket::bind((ip, 0)).is_ok()
}

/// The machine has a route and a source address for it.
fn has_route(address: SocketAddr) -> bool {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind((any, 0)).and_then(|socket| socket.connect(address)).is_ok()
}

/// Leaves out what cannot be reached from here, a family without a route above all; unless that is everything, which
/// says that the network is down and nothing about the hosts.
pub(super) fn reachable(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let with_route: Vec<SocketAddr> =
        addresses.iter().copied().filter(|address| has_route(*address)).collect();
    if with_route.is_empty() { addresses } else { with_route }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(listeners: &[&str]) -> Own {
        let listeners: Vec<SocketAddr> = listeners.iter().map(|address| address.parse().unwrap()).collect();
        Own::new("Mail.Example.Net", &listeners)
    }

    fn at(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    #[test]
    fn the_name_is_known_in_lower_case() {
        assert!(own(&[]).is_name("mail.example.net"));
    }

    #[test]
    fn a_relay_on_another_port_of_this_machine_is_not_ourselves() {
        let own = own(&["127.0.0.1:2525"]);
        assert!(own.is_address(at("127.0.0.1:2525")));
        assert!(!own.is_address(at("127.0.0.1:2526")));
        assert!(!own.is_address(at("127.0.0.2:2525")));
    }

    #[test]
    fn a_listener_on_every_address_owns_those_of_the_machine_and_no_others() {
        let own = own(&["0.0.0.0:25"]);
        assert!(own.is_address(at("127.0.0.1:25")));
        assert!(own.is_address(at("[::ffff:127.0.0.1]:25")));
        assert!(!own.is_address(at("127.0.0.1:26")));
        // TEST-NET-1: no interface has it.
        assert!(!own.is_address(at("192.0.2.1:25")));
    }

    #[test]
    fn nothing_is_left_out_if_all_would_be() {
        let none = vec![at("[2001:db8::1]:25")];
        assert_eq!(reachable(none.clone()), none);
        assert!(reachable(vec![at("127.0.0.1:25"), at("[2001:db8::1]:25")]).contains(&at("127.0.0.1:25")));
    }
}
