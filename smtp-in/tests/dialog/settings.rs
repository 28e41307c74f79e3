//! What a transcript sets before anything is said: `% key value`.

use super::refusal;
use rcgen::{CertificateParams, KeyPair};
use smtp_in::door::{Arrival, Origin, Rights};
use smtp_in::{Identity, Limits, Mechanism, Policy, Timeouts, TlsServer, TlsUse, TurnUse, bare};
use std::sync::Arc;

pub(crate) struct Settings {
    pub(crate) policy: Policy,
    pub(crate) arrival: Arrival,
    pub(crate) rights: Rights,
    /// Who comes is asked, and the greeting is shown.
    pub(crate) asks: bool,
}

impl Settings {
    pub(crate) fn new() -> Settings {
        let policy = bare::policy();
        let limits = Limits {
            size_max: 1_000_000,
            recipients_max: 1000,
            errors_max: 5,
            idle_commands_max: 50,
            hops_max: 3,
            ..policy.limits
        };
        let timeouts = Timeouts { data_block_len: 100, ..policy.timeouts };
        let policy = Policy { limits, timeouts, ..policy };
        let origin = Origin::Net { address: "192.0.2.1".parse().expect("an address"), port: 1025 };
        let nonce = std::array::from_fn(|index| u8::try_from(index).expect("16 octets"));
        let arrival = Arrival { origin, nonce, ..bare::arrival() };
        let rights = Rights { may_relay: true, ..Rights::default() };
        Settings { policy, arrival, rights, asks: false }
    }

    pub(crate) fn set(&mut self, line: &str) {
        let (key, value) = line.split_once(' ').expect("% key value");
        let (number, is) = (value.parse().unwrap_or(0), value == "yes");
        let policy = &mut self.policy;
        match key {
            "offer_chunking" => policy.offer_chunking = is,
            "turn" => policy.turn_use = turn_use(value),
            "auth_without_tls" => policy.auth_without_tls = is,
            "needs_login" => policy.needs_login = is,
            "tells_rejections" => policy.tells_rejections = is,
            "greeting_delay_secs" => policy.greeting_delay_secs = number,
            "bulk_recipients" => policy.bulk_recipients = u32::try_from(number).expect("32 bits"),
            "mechanisms" => policy.mechanisms = value.split(' ').map(mechanism).collect(),
            "tls" => (policy.tls, policy.tls_use) = (Some(tls_server()), tls_use(value)),
            "may_flush" => self.rights.may_flush = is,
            "may_relay" => self.rights.may_relay = is,
            "may_xclient" => self.rights.may_xclient = is,
            "size_max_of_the_client" => self.rights.size_max = Some(number),
            "refusal" => self.rights = Rights { refusal: Some(refusal_of(value)), ..self.rights.clone() },
            "asks" => self.asks = is,
            "proxied" => self.arrival.is_proxied = is,
            "from" => self.arrival.origin = origin(value),
            _ => set_limit(&mut policy.limits, key, number),
        }
    }
}

fn set_limit(limits: &mut Limits, key: &str, number: u64) {
    let (small, size) =
        (|| u32::try_from(number).expect("32 bits"), || usize::try_from(number).expect("a size"));
    match key {
        "size_max" => limits.size_max = number,
        "recipients_max" => limits.recipients_max = small(),
        "command_line_max" => limits.command_line_max = size(),
        "errors_max" => limits.errors_max = small(),
        "idle_commands_max" => limits.idle_commands_max = small(),
        "logins_max" => limits.logins_max = small(),
        "stores_in_flight_max" => limits.stores_in_flight_max = size(),
        "replies_max" => limits.replies_max = size(),
        _ => panic!("no setting {key}"),
    }
}

fn refusal_of(value: &str) -> smtp_in::door::Refusal {
    let mut parts = value.splitn(3, ' ');
    let mut next = || parts.next().expect("code, enhanced code, text");
    refusal(next(), next(), next())
}

fn origin(value: &str) -> Origin {
    match value.strip_prefix("uid ") {
        Some(uid) => Origin::Local { uid: uid.parse().expect("a user's number") },
        None => Origin::Net { address: value.parse().expect("an address"), port: 1025 },
    }
}

fn mechanism(name: &str) -> Mechanism {
    Mechanism::ALL.into_iter().find(|known| known.name() == name).expect("a mechanism")
}

fn tls_use(value: &str) -> TlsUse {
    match value {
        "offer" => TlsUse::Offer,
        "require" => TlsUse::Require,
        "implicit" => TlsUse::Implicit,
        _ => panic!("no use of TLS {value}"),
    }
}

fn turn_use(value: &str) -> TurnUse {
    match value {
        "offer" => TurnUse::Offer,
        "only" => TurnUse::Only,
        _ => panic!("no use of ATRN {value}"),
    }
}

/// Its handshakes are in `tests/tls.rs`.
fn tls_server() -> Arc<TlsServer> {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["mx.example.org".to_owned()]).expect("a name");
    let chain = vec![params.self_signed(&key).expect("a certificate").der().clone()];
    let identity = Identity { names: Vec::new(), chain, key: key.into() };
    Arc::new(TlsServer::new(vec![identity], None).expect("a certificate of ours"))
}

/// `relay`, `flush`, `xclient`, `size=100`, `name=client.example`.
pub(crate) fn rights(words: &[&str]) -> Rights {
    let mut rights = Rights::default();
    for word in words {
        match word.split_once('=') {
            None if *word == "relay" => rights.may_relay = true,
            None if *word == "flush" => rights.may_flush = true,
            None if *word == "xclient" => rights.may_xclient = true,
            Some(("size", size)) => rights.size_max = Some(size.parse().expect("octets")),
            Some(("name", name)) => rights.name = Some(name.into()),
            _ => panic!("no right {word}"),
        }
    }
    rights
}
