//! Where a client goes: an address and port, or a Unix socket.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use crate::address::{self, AddressError, Reach};

/// `127.0.0.1:2525` or `unix:/run/ringpost/submit`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

#[derive(Debug, thiserror::Error)]
#[error("{0}: neither ADDRESS:PORT nor unix:/PATH")]
pub struct TargetError(String);

impl Target {
    /// A Unix socket never leaves the machine.
    pub(crate) fn check(&self, reach: Reach) -> Result<(), AddressError> {
        match self {
            Target::Tcp(address) => address::check(*address, reach),
            Target::Unix(_) => Ok(()),
        }
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Target {
        Target::Tcp(address)
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Target, TargetError> {
        let wrong = || TargetError(text.to_owned());
        match text.strip_prefix("unix:") {
            Some("") => Err(wrong()),
            Some(path) => Ok(Target::Unix(path.into())),
            None => text.parse().map(Target::Tcp).map_err(|_| wrong()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Tcp(address) => address.fmt(f),
            Target::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_read_as_it_is_shown() {
        for text in ["127.0.0.1:25", "[::1]:25", "unix:/run/x/submit"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        for wrong in ["", "unix:", "localhost:25", "/run/x"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }
}
