//! Each listener as its sessions know it: what it offers, what it demands, its certificates.

use crate::clock::CertificateClock;
use crate::config::{CertificateFiles, Config, Listener, ListenerTls, Mechanism, Purpose, Rule};
use crate::tls::{TlsFilesError, certificates, key};
use smtp_in::{Identity, Limits, Policy, Timeouts, TlsServer, TlsServerError, TlsUse, TurnUse};
use std::path::Path;
use std::sync::Arc;

/// Octets of a command line: what RFC 5321 §4.5.3.1.4 asks for and what extensions add.
const COMMAND_LINE_MAX: usize = 2048;

/// Messages of one session whose store is under way.
const STORES_IN_FLIGHT_MAX: usize = 64;

/// A client that sends content must bring this much in `DATA_BLOCK_SECS`.
const DATA_BLOCK_LEN: u64 = 16 * 1024;
const DATA_BLOCK_SECS: u64 = 180;

/// A whole handshake, or a PROXY header, takes no longer.
const HANDSHAKE_SECS: u64 = 30;

/// Commands between two messages that bring no mail on. A front end that keeps a session may look in with NOOP for days.
const IDLE_COMMANDS_MAX: u32 = 1000;

/// Wrong passwords in one session.
const LOGINS_MAX: u32 = 3;

/// Why a listener cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum IngressError {
    #[error(transparent)]
    Files(#[from] TlsFilesError),
    #[error("listeners.{name}: {source}")]
    Listener { name: String, source: TlsServerError },
}

/// The policies of all listeners, by their numbers ([`Config::listeners`]), and the Unix socket's.
#[derive(Clone, Debug)]
pub struct Ingress {
    listeners: Vec<Arc<Policy>>,
    socket: Arc<Policy>,
}

impl Ingress {
    /// Without certificates: nothing is encrypted, whatever the configuration says.
    pub fn plain(config: &Config) -> Ingress {
        let plain = |(name, listener): (String, Listener)| Arc::new(policy(config, &name, &listener, None));
        Ingress {
            listeners: config.listeners().into_iter().map(plain).collect(),
            socket: Arc::new(of_socket(config, policy(config, "", &Listener::default(), None))),
        }
    }

    /// Reads the certificates.
    pub fn load(config: &Config) -> Result<Ingress, IngressError> {
        let plain = Ingress::plain(config);
        let mut listeners = Vec::new();
        for (name, listener) in config.listeners() {
            let server = match listener.tls() {
                ListenerTls::None => None,
                _ => Some(server(config, &name, &listener)?),
            };
            listeners.push(Arc::new(policy(config, &name, &listener, server)));
        }
        Ok(Ingress { listeners, ..plain })
    }

    /// `number`: as [`crate::access::Access::listener`] gives it; any other is the Unix socket's.
    pub fn policy(&self, number: usize) -> &Arc<Policy> {
        self.listeners.get(number).unwrap_or(&self.socket)
    }
}

fn server(config: &Config, name: &str, listener: &Listener) -> Result<Arc<TlsServer>, IngressError> {
    let identities = config.certificates.iter().map(identity).collect::<Result<_, _>>()?;
    let roots = listener.client_ca.as_deref().map(certificates).transpose()?;
    let wrap = |source| IngressError::Listener { name: name.to_owned(), source };
    let server = TlsServer::new(identities, roots).map_err(wrap)?;
    Ok(Arc::new(server.with_time(Arc::new(CertificateClock))))
}

fn identity(files: &CertificateFiles) -> Result<Identity, TlsFilesError> {
    let read = |path: &Path| certificates(path);
    Ok(Identity { names: files.names.clone(), chain: read(&files.chain)?, key: key(&files.key)? })
}

/// A list of this machine's is sent to all of its members at once.
fn of_socket(config: &Config, policy: Policy) -> Policy {
    let limits = Limits { recipients_max: config.intake.local_recipients_max, ..policy.limits };
    Policy { limits, ..policy }
}

fn policy(config: &Config, name: &str, listener: &Listener, tls: Option<Arc<TlsServer>>) -> Policy {
    let intake = &config.intake;
    Policy {
        host_name: listener.host_name.clone().unwrap_or_else(|| config.host_name.clone()),
        limits: Limits {
            size_max: intake.message_size_max,
            recipients_max: intake.recipients_max,
            command_line_max: COMMAND_LINE_MAX,
            errors_max: intake.errors_max,
            idle_commands_max: IDLE_COMMANDS_MAX,
            logins_max: LOGINS_MAX,
            hops_max: intake.hops_max,
            stores_in_flight_max: STORES_IN_FLIGHT_MAX,
            replies_max: 64 << 10,
        },
        timeouts: Timeouts {
            command_secs: intake.idle_timeout_secs,
            data_secs: DATA_BLOCK_SECS,
            data_block_len: DATA_BLOCK_LEN,
            handshake_secs: HANDSHAKE_SECS,
        },
        bulk_recipients: config.lanes.bulk_recipients,
        offer_chunking: intake.offer_chunking,
        turn_use: turn_use(config, name, listener),
        tls,
        tls_use: match listener.tls() {
            ListenerTls::None | ListenerTls::Offer => TlsUse::Offer,
            ListenerTls::Require => TlsUse::Require,
            ListenerTls::Implicit => TlsUse::Implicit,
        },
        mechanisms: listener.mechanisms().iter().map(|mechanism| mechanism_of(*mechanism)).collect(),
        auth_without_tls: listener.auth_without_tls,
        needs_login: listener.purpose == Purpose::Submission,
        greeting_delay_secs: listener.greeting_delay_secs,
        tells_rejections: true,
    }
}

/// Offered where some login may have a use for it.
fn turn_use(config: &Config, name: &str, listener: &Listener) -> TurnUse {
    let may_match = |rule: &Rule| rule.listener.as_ref().is_none_or(|other| other == name);
    let has_rule = || config.access.all_rules().any(|rule| !rule.atrn.is_empty() && may_match(rule));
    match listener.purpose {
        Purpose::Odmr => TurnUse::Only,
        Purpose::Mx | Purpose::Submission if !listener.mechanisms().is_empty() && has_rule() => {
            TurnUse::Offer
        }
        Purpose::Mx | Purpose::Submission => TurnUse::Never,
    }
}

fn mechanism_of(mechanism: Mechanism) -> smtp_in::Mechanism {
    match mechanism {
        Mechanism::Plain => smtp_in::Mechanism::Plain,
        Mechanism::Login => smtp_in::Mechanism::Login,
        Mechanism::CramMd5 => smtp_in::Mechanism::CramMd5,
        Mechanism::ScramSha256 => smtp_in::Mechanism::ScramSha256,
    }
}
