//! When a fault or a reply applies: `[first=3,source=127.0.0.2,address=@d001.test]` behind its stage.

use std::net::IpAddr;
use std::str::FromStr;

use super::faults::Place;

/// All of them must hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditions {
    /// Of those that meet the others.
    pub probability: f64,
    /// The address decides, not the generator: the same one always meets the same fate.
    pub by_address: bool,
    /// Only so many times, over the whole sink.
    pub first: Option<u64>,
    /// Not the first so many times.
    pub after: u64,
    /// Where the connection comes from; with PROXY, where that says.
    pub source: Option<IpAddr>,
    /// A whole path, or `@` and a domain.
    pub address: Option<String>,
    /// The name in EHLO.
    pub helo: Option<String>,
}

impl Default for Conditions {
    fn default() -> Self {
        Conditions {
            probability: 1.0,
            by_address: false,
            first: None,
            after: 0,
            source: None,
            address: None,
            helo: None,
        }
    }
}

impl FromStr for Conditions {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut conditions = Conditions::default();
        for word in text.split(',') {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            match name {
                "probability" => conditions.probability = value.parse().map_err(drop)?,
                "by-address" if value.is_empty() => conditions.by_address = true,
                "first" => conditions.first = Some(value.parse().map_err(drop)?),
                "after" => conditions.after = value.parse().map_err(drop)?,
                "source" => conditions.source = Some(value.parse().map_err(drop)?),
                "address" if !value.is_empty() => conditions.address = Some(value.into()),
                "helo" if !value.is_empty() => conditions.helo = Some(value.into()),
                _ => return Err(()),
            }
        }
        Ok(conditions)
    }
}

impl Conditions {
    /// Those that do not depend on chance or count. No allocation.
    pub(crate) fn hold_at(&self, place: Place<'_>) -> bool {
        self.source.is_none_or(|source| place.source == Some(source))
            && self.address.as_ref().is_none_or(|wanted| is_address(wanted.as_bytes(), place.address))
            && self.helo.as_ref().is_none_or(|name| name.as_bytes().eq_ignore_ascii_case(place.helo))
    }

    /// Whether the `met`th time, from 0, is one that counts.
    pub(crate) fn counts(&self, met: u64) -> bool {
        met >= self.after && self.first.is_none_or(|first| met - self.after < first)
    }
}

fn is_address(wanted: &[u8], address: &[u8]) -> bool {
    match wanted.starts_with(b"@") {
        true => address
            .len()
            .checked_sub(wanted.len())
            .is_some_and(|at| address[at..].eq_ignore_ascii_case(wanted)),
        false => address.eq_ignore_ascii_case(wanted),
    }
}
