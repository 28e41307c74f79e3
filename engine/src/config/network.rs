//! A network: an address and how many of its bits count.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// `192.0.2.0/24`, `2001:db8::/32`, or one address.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    prefix_len: u8,
}

impl Network {
    pub const LOOPBACK_V4: Network =
        Network { address: IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 0)), prefix_len: 8 };
    pub const LOOPBACK_V6: Network =
        Network { address: IpAddr::V6(std::net::Ipv6Addr::LOCALHOST), prefix_len: 128 };

    /// That address alone.
    pub fn of(address: IpAddr) -> Network {
        let address = address.to_canonical();
        Network { address, prefix_len: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// `None` if an address has fewer bits.
    pub fn new(address: IpAddr, prefix_len: u8) -> Option<Network> {
        let most = if address.is_ipv4() { 32 } else { 128 };
        (prefix_len <= most).then_some(Network { address, prefix_len })
    }

    pub fn is_v6(self) -> bool {
        self.address.is_ipv6()
    }

    pub fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    /// The bits that count; those of an IPv4 address are the upper ones. Equal for equal networks of one family.
    pub fn bits(self) -> u128 {
        bits_of(self.address, self.prefix_len)
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix_len)).unwrap_or(0);
                (u32::from(net) ^ u32::from(ip)) & mask == 0
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix_len)).unwrap_or(0);
                (u128::from(net) ^ u128::from(ip)) & mask == 0
            }
            _ => false,
        }
    }
}

/// The first bits of a canonical address, at the upper end.
pub(crate) fn bits_of(address: IpAddr, prefix_len: u8) -> u128 {
    let all = match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)) << 96,
        IpAddr::V6(v6) => u128::from(v6),
    };
    all & u128::MAX.checked_shl(128 - u32::from(prefix_len)).unwrap_or(0)
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Network, String> {
        let wrong = || format!("{text:?} is no network; write an address or address/bits");
        let (address, bits) =
            text.split_once('/').map_or((text.as_str(), None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix_len = bits.map_or(Ok(most), |bits| bits.parse().map_err(|_| wrong()))?;
        if prefix_len > most { Err(wrong()) } else { Ok(Network { address, prefix_len }) }
    }
}

impl From<Network> for String {
    fn from(network: Network) -> String {
        format!("{}/{}", network.address, network.prefix_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses() {
        let network = |text: &str| Network::try_from(text.to_owned()).unwrap();
        assert!(network("10.0.0.0/8").contains("10.9.8.7".parse().unwrap()));
        assert!(!network("10.0.0.0/8").contains("11.0.0.1".parse().unwrap()));
        assert!(network("0.0.0.0/0").contains("1.2.3.4".parse().unwrap()));
        assert!(network("::1").contains("::1".parse().unwrap()));
        assert!(Network::LOOPBACK_V4.contains("::ffff:127.0.0.1".parse().unwrap()));
    }
}
