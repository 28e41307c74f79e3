//! TLS for sessions: what a process has once, what a policy has once, and one connection's state (rustls, buffered).
//!
//! Still no I/O: ciphertext comes in as slices and goes out into a `Vec`. The only thing taken from outside is the wall
//! time that certificates are judged by, see [`TlsBase::with_time`].
//!
//! Bounds: a policy keeps the sessions of [`SESSIONS_SHARED`] or [`SESSIONS_OWN`] hosts, the oldest goes; a connection
//! holds at most one record that has not come whole, and what was sealed until the caller's buffer has it.

mod dane;
mod verify;

use crate::policy::TlsPolicy;
use crate::protection::{Encrypted, TlsFailure, Verified};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{ClientConfig, ClientConnection, Connection, HandshakeKind, RootCertStore, ServerConnection};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, TrustAnchor};
use smallvec::SmallVec;
use std::io::{BufRead, IoSlice, Write};
use std::sync::Arc;
use verify::Verifier;

/// Hosts whose sessions a policy keeps that any host may be under.
const SESSIONS_SHARED: usize = 1024;

/// The same where a policy names names, digests or TLSA records: it is for the hosts of one domain.
const SESSIONS_OWN: usize = 8;

/// Roots and our certificate: once per process.
#[derive(Clone, Debug)]
pub struct TlsBase {
    provider: Arc<CryptoProvider>,
    roots: Arc<[TrustAnchor<'static>]>,
    certificate: Option<Arc<CertifiedKey>>,
    time: Arc<dyn TimeProvider>,
}

#[derive(Debug, thiserror::Error)]
pub enum TlsBaseError {
    #[error("none of the {0} root certificates can be read: is the file a list of authorities in PEM?")]
    Roots(usize),
    #[error("our certificate and its key cannot be used: {0}")]
    Certificate(rustls::Error),
}

/// Trusts no authority, and has nothing to show.
impl Default for TlsBase {
    fn default() -> TlsBase {
        TlsBase {
            provider: Arc::new(aws_lc_rs::default_provider()),
            roots: Arc::new([]),
            certificate: None,
            time: Arc::new(DefaultTimeProvider),
        }
    }
}

impl TlsBase {
    /// Roots that cannot be read are left out, as system stores have some; no roots at all: nothing can be verified by
    /// them. `certificate`: its chain, ours first, and its key; shown to hosts that ask for one.
    pub fn new(
        roots: Vec<CertificateDer<'static>>,
        certificate: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    ) -> Result<TlsBase, TlsBaseError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (given, mut store) = (roots.len(), RootCertStore::empty());
        let (added, _) = store.add_parsable_certificates(roots);
        if added == 0 && given > 0 {
            return Err(TlsBaseError::Roots(given));
        }
        let certified = |(chain, key)| CertifiedKey::from_der(chain, key, &provider);
        let certificate = certificate.map(certified).transpose().map_err(TlsBaseError::Certificate)?;
        Ok(TlsBase {
            roots: store.roots.into(),
            certificate: certificate.map(Arc::new),
            time: Arc::new(DefaultTimeProvider),
            provider,
        })
    }

    /// The wall time that certificates are judged by; without this the system's is asked.
    #[must_use]
    pub fn with_time(self, time: Arc<dyn TimeProvider>) -> TlsBase {
        TlsBase { time, ..self }
    }

    /// A policy ready to be used; none for `Never`. It keeps sessions to resume, so make one per policy and share it:
    /// two of these never share a session, and what one policy lets pass another cannot resume.
    pub fn client(&self, policy: &TlsPolicy) -> Option<Arc<TlsClient>> {
        if *policy == TlsPolicy::Never {
            return None;
        }
        let verifier = Arc::new(Verifier::new(policy, Arc::clone(&self.roots), Arc::clone(&self.provider)));
        let builder = ClientConfig::builder_with_details(Arc::clone(&self.provider), Arc::clone(&self.time))
            .with_safe_default_protocol_versions()
            .expect("the provider has suites of TLS 1.2 and 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<_>);
        let mut config = match &self.certificate {
            Some(certificate) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(certificate))))
            }
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::in_memory_sessions(sessions_kept(policy));
        Some(Arc::new(TlsClient { config: Arc::new(config), verifier, allows_plain: policy.allows_plain() }))
    }
}

fn sessions_kept(policy: &TlsPolicy) -> usize {
    match policy {
        TlsPolicy::Never | TlsPolicy::May | TlsPolicy::Encrypt => SESSIONS_SHARED,
        TlsPolicy::Verify { names, .. } if names.is_empty() => SESSIONS_SHARED,
        TlsPolicy::Verify { .. } | TlsPolicy::Fingerprint { .. } | TlsPolicy::Dane { .. } => SESSIONS_OWN,
    }
}

/// A policy ready to be used, and the sessions made under it.
#[derive(Debug)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
    verifier: Arc<Verifier>,
    allows_plain: bool,
}

impl TlsClient {
    /// Mail may go in plain text if it must.
    pub(crate) fn allows_plain(&self) -> bool {
        self.allows_plain
    }

    /// Begins a handshake with `host`.
    pub(crate) fn connect(&self, host: &str) -> Result<Channel, rustls::Error> {
        let connection = ClientConnection::new(Arc::clone(&self.config), server_name(host)?)?;
        Ok(Channel::new(Connection::Client(connection)))
    }

    /// What the host's identity is verified by after a handshake, and what failed that is not enforced.
    fn judge(&self, host: &str, chain: &[CertificateDer<'_>]) -> (Verified, Option<TlsFailure>) {
        let Some(now) = self.config.time_provider.current_time() else { return (Verified::Nobody, None) };
        self.verifier.judge(host, chain, now)
    }
}

/// A host's name or address, with or without the brackets of an address literal.
fn server_name(host: &str) -> Result<ServerName<'static>, rustls::Error> {
    let name = host.strip_suffix('.').unwrap_or(host);
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let bare = bare.strip_prefix("IPv6:").unwrap_or(bare);
    ServerName::try_from(bare.to_owned())
        .map_err(|_| rustls::Error::General(format!("{host:?} is no host name that TLS can carry")))
}

/// One connection's TLS.
#[derive(Debug)]
pub(crate) struct Channel {
    connection: Connection,
    has_said_goodbye: bool,
}

/// What a piece of ciphertext brought.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Opened {
    More,
    /// The host says that nothing follows.
    Ended,
}

impl Channel {
    fn new(mut connection: Connection) -> Channel {
        // What is sealed is taken at once; the caller's slices are the bound.
        connection.set_buffer_limit(None);
        Channel { connection, has_said_goodbye: false }
    }

    /// Of a connection on which the host was the client until now. Its handshake is done.
    pub(crate) fn reversed(connection: ServerConnection) -> Channel {
        Channel::new(Connection::Server(connection))
    }

    /// Reads some of `bytes`, which moves past it; what it brought is then in `plain()`.
    pub(crate) fn open(&mut self, bytes: &mut &[u8]) -> Result<Opened, rustls::Error> {
        self.connection.read_tls(bytes).map_err(|error| rustls::Error::General(error.to_string()))?;
        let state = self.connection.process_new_packets()?;
        Ok(if state.peer_has_closed() { Opened::Ended } else { Opened::More })
    }

    /// Plain text that was opened and not consumed, a piece of it.
    pub(crate) fn opened(&mut self) -> &[u8] {
        self.connection.reader().into_first_chunk().unwrap_or_default()
    }

    pub(crate) fn consume(&mut self, len: usize) {
        self.connection.reader().consume(len);
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    pub(crate) fn has_output(&self) -> bool {
        self.connection.wants_write()
    }

    /// Appends what is ready for the wire.
    pub(crate) fn write_output(&mut self, out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            self.connection.write_tls(out).expect("a Vec takes everything");
        }
    }

    /// Appends the records of `pieces`, of 16 KiB but for the last.
    pub(crate) fn seal(&mut self, pieces: &[&[u8]], out: &mut Vec<u8>) {
        let pieces: SmallVec<[IoSlice<'_>; 16]> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        // It fails only after an error in receiving; the session has ended then, and nothing need go out.
        if self.connection.writer().write_vectored(&pieces).is_ok() {
            self.write_output(out);
        }
    }

    /// Once, and only where a session is to be ended: a failed handshake has its alert.
    pub(crate) fn say_goodbye(&mut self, is_sealed: bool) {
        if is_sealed && !std::mem::replace(&mut self.has_said_goodbye, true) {
            self.connection.send_close_notify();
        }
    }

    /// The facts, once the handshake is done.
    pub(crate) fn facts(&self, client: &TlsClient, host: &str) -> Encrypted {
        let chain = self.connection.peer_certificates().unwrap_or_default();
        self.facts_with(client.judge(host, chain))
    }

    pub(crate) fn facts_with(&self, (verified, failure): (Verified, Option<TlsFailure>)) -> Encrypted {
        let connection = &self.connection;
        Encrypted {
            version: match connection.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2",
                _ => "TLS 1.3",
            },
            cipher: connection
                .negotiated_cipher_suite()
                .and_then(|suite| suite.suite().as_str())
                .unwrap_or("unknown"),
            is_resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            verified,
            failure,
        }
    }
}

/// What an operator and a report hear about an error of a handshake.
pub(crate) fn failure_of(error: &rustls::Error) -> TlsFailure {
    verify::failure_of(error)
}
