//! The least that a session needs, for tests, fuzzers and benches, which add what matters to them. The engine sets
//! everything itself.

use crate::door::{Arrival, Client, Door, Entry, Origin, Refusal};
use crate::limits::{Gate, Limits, Policy, Timeouts, TlsUse, TurnUse};
use message::{MailboxRef, ReversePath};
use std::net::{IpAddr, Ipv4Addr};

/// Of `mx.example.org`: no TLS, no logins, nothing that only some listeners have.
pub fn policy() -> Policy {
    let limits = Limits {
        size_max: 2_000_000,
        recipients_max: 100_000,
        command_line_max: 2048,
        errors_max: 10,
        idle_commands_max: 1000,
        logins_max: 3,
        hops_max: 100,
        stores_in_flight_max: 16,
        replies_max: 64 << 10,
    };
    let timeouts = Timeouts { command_secs: 300, data_secs: 180, data_block_len: 1024, handshake_secs: 60 };
    Policy {
        host_name: "mx.example.org".to_owned(),
        limits,
        timeouts,
        bulk_recipients: 100,
        offer_chunking: true,
        turn_use: TurnUse::Never,
        tls: None,
        tls_use: TlsUse::Offer,
        mechanisms: Vec::new(),
        auth_without_tls: false,
        needs_login: false,
        greeting_delay_secs: 0,
        tells_rejections: false,
    }
}

/// From this machine. (Its nonce is no secret.)
pub fn arrival() -> Arrival {
    let origin = Origin::Net { address: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 1025 };
    Arrival { origin, local: None, is_proxied: false, nonce: [7; 16] }
}

/// A door that lets everybody send to everybody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Open;

impl Door for Open {
    fn gate(&self) -> Gate {
        Gate::Open
    }

    fn sender(&mut self, _: &Client, _: &ReversePath, _: Option<u64>) -> Result<(), Refusal> {
        Ok(())
    }

    fn recipient(&mut self, _: &Client, _: &ReversePath, _: MailboxRef<'_>) -> Result<Entry, Refusal> {
        Ok(Entry::AsGiven)
    }
}
