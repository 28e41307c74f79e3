//! Clients that a server on the internet meets and would rather not: those that idle, drip, flood or say garbage.
//!
//! Each run blocks until it is over and reports what the server did about it; nothing is an error that a server may
//! do. Loopback only, whatever is asked for. Bounds: `CONNECTIONS_MAX` at a time, `HOLD_MAX` for everything that waits.

mod crowd;
mod flood;
mod garbage;
mod reasons;

use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub use crate::client::ClientError as PressError;

pub use crowd::{CrowdConfig, CrowdReport, Cut, Drip, Stay, run as crowd};
pub use flood::{FloodConfig, FloodReport, Second, run as flood};
pub use garbage::{GarbageConfig, GarbageReport, run as garbage};
pub use reasons::{Reasons, Spread};

/// As many as one source address has ports for, twice.
pub const CONNECTIONS_MAX: usize = 50_000;
pub const HOLD_MAX: Duration = Duration::from_secs(3600);

fn check(sources: &[IpAddr], connections: usize, hold: Duration) -> Result<(), PressError> {
    match () {
        () if sources.iter().any(|source| !source.is_loopback()) => {
            Err(PressError::Config("the source addresses are loopback's"))
        }
        () if connections == 0 || connections > CONNECTIONS_MAX => {
            Err(PressError::Config("between one and 50,000 connections"))
        }
        () if hold > HOLD_MAX => Err(PressError::Config("an hour at most")),
        () => Ok(()),
    }
}

/// The source of connection `number`: they take turns. None leaves it to the kernel.
fn source_of(sources: &[IpAddr], number: usize) -> Option<IpAddr> {
    sources.get(number.checked_rem(sources.len())?).copied()
}

fn block_on<F: Future>(main: F) -> Result<F::Output, PressError> {
    raise_descriptors();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(PressError::Runtime)?.block_on(main))
}

/// As many as we may have; where that fails, connections do, and are counted.
fn raise_descriptors() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_take_turns_and_are_loopback() {
        let sources: Vec<IpAddr> = [1, 2].map(|octet| IpAddr::from([127, 0, 0, octet])).to_vec();
        assert_eq!(source_of(&sources, 3), Some(sources[1]));
        assert_eq!(source_of(&[], 3), None);
        assert!(check(&sources, 1, HOLD_MAX).is_ok());
        assert!(check(&[IpAddr::from([10, 0, 0, 1])], 1, HOLD_MAX).is_err());
        assert!(check(&[], CONNECTIONS_MAX + 1, HOLD_MAX).is_err());
        assert!(check(&[], 1, HOLD_MAX * 2).is_err());
    }
}
