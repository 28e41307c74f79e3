//! TLS for sessions: what a listener has once, and one connection's state (rustls, buffered).
//!
//! No I/O: ciphertext comes in as slices and goes out into a `Vec`. TLS 1.2 and 1.3. Sessions are resumed by tickets that
//! only we can open, so nothing is kept here of a client that went.
//!
//! Bounds: a connection holds at most one record that has not come whole (64 KiB while it shakes hands), the plain text of
//! what was read at once (under 24 KiB), and what was sealed until the caller's buffer has it.

mod names;
mod verify;

use crate::door::Certificate;
use aws_lc_rs::digest::{SHA256, digest};
use names::Names;
use rustls::crypto::aws_lc_rs::{self as provider, Ticketer};
use rustls::server::NoServerSessionStorage;
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::io::{BufRead, Write};
use std::sync::Arc;
use verify::Verifier;

/// A certificate of ours.
#[derive(Debug)]
pub struct Identity {
    /// Hosts that it is shown for: `mx.example.org`, or `*.example.org` for one label before it. May be empty for the
    /// first, which is shown to whoever asks for none of ours.
    pub names: Vec<String>,
    /// Ours first.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

#[derive(Debug, thiserror::Error)]
pub enum TlsServerError {
    #[error("there is no certificate")]
    NoIdentity,
    /// Names the identity by its place in the list.
    #[error("certificate {index} and its key cannot be used: {source}")]
    Identity { index: usize, source: rustls::Error },
    #[error(
        "none of the {0} root certificates for clients can be read: is the file a list of authorities in PEM?"
    )]
    Roots(usize),
    #[error("the key of session tickets cannot be made: {0}")]
    Tickets(rustls::Error),
}

/// What a listener's TLS needs, ready to be used. Sessions of two of these never resume one another: a listener that is
/// set up anew begins with new tickets, and connections under the old one go on.
#[derive(Debug)]
pub struct TlsServer {
    config: Arc<ServerConfig>,
    verifier: Option<Arc<Verifier>>,
}

impl TlsServer {
    /// The first identity is the default one. With `client_roots` clients are asked for a certificate: none is fine, and
    /// one that no root vouches for is taken and reported as not verified, as long as the client proves to have its key.
    /// Roots that cannot be read are left out, as system stores have some.
    pub fn new(
        identities: Vec<Identity>,
        client_roots: Option<Vec<CertificateDer<'static>>>,
    ) -> Result<TlsServer, TlsServerError> {
        if identities.is_empty() {
            return Err(TlsServerError::NoIdentity);
        }
        let mut names = Names::default();
        for (index, identity) in identities.into_iter().enumerate() {
            let wrap = |source| TlsServerError::Identity { index, source };
            let certified =
                CertifiedKey::from_der(identity.chain, identity.key, &provider::default_provider());
            names.add(&identity.names, Arc::new(certified.map_err(wrap)?));
        }
        TlsServer::with_names(names, client_roots)
    }

    /// Shakes no hand to its end: for a test of what comes before.
    pub(crate) fn without_identity() -> Result<TlsServer, TlsServerError> {
        TlsServer::with_names(Names::default(), None)
    }

    fn with_names(
        names: Names,
        client_roots: Option<Vec<CertificateDer<'static>>>,
    ) -> Result<TlsServer, TlsServerError> {
        let provider = Arc::new(provider::default_provider());
        let verifier = client_roots.map(read_roots).transpose()?;
        let verifier =
            verifier.map(|roots| Arc::new(Verifier::new(roots, provider.signature_verification_algorithms)));
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has suites of TLS 1.2 and 1.3");
        let builder = match &verifier {
            Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier) as Arc<_>),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(names));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = Ticketer::new().map_err(TlsServerError::Tickets)?;
        // A client that comes again needs one.
        config.send_tls13_tickets = 1;
        Ok(TlsServer { config: Arc::new(config), verifier })
    }

    /// The wall time that clients' certificates are judged by; without this the system's is asked.
    #[must_use]
    pub fn with_time(self, time: Arc<dyn TimeProvider>) -> TlsServer {
        let mut config = ServerConfig::clone(&self.config);
        config.time_provider = time;
        TlsServer { config: Arc::new(config), ..self }
    }

    pub(crate) fn accept(&self) -> Result<Tunnel, rustls::Error> {
        let mut connection = ServerConnection::new(Arc::clone(&self.config))?;
        // What is sealed is taken at once; `replies_max` is the bound.
        connection.set_buffer_limit(None);
        Ok(Tunnel { connection, has_said_goodbye: false, has_ended: false })
    }

    /// The certificate that a client showed and has the key of.
    pub(crate) fn certificate(&self, tunnel: &Tunnel) -> Option<Certificate> {
        let (first, rest) = tunnel.connection.peer_certificates()?.split_first()?;
        let sha256 = digest(&SHA256, first).as_ref().try_into().expect("SHA-256 has 32 octets");
        let now = self.config.time_provider.current_time();
        let vouches = |verifier: &Arc<Verifier>| now.is_some_and(|now| verifier.vouches(first, rest, now));
        Some(Certificate { sha256, is_verified: self.verifier.as_ref().is_some_and(vouches) })
    }
}

fn read_roots(roots: Vec<CertificateDer<'static>>) -> Result<RootCertStore, TlsServerError> {
    let (given, mut store) = (roots.len(), RootCertStore::empty());
    let (added, _) = store.add_parsable_certificates(roots);
    if added == 0 && given > 0 { Err(TlsServerError::Roots(given)) } else { Ok(store) }
}

/// How octets go over the wire.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Encrypted {
    /// `TLS 1.2` or `TLS 1.3`.
    pub version: &'static str,
    /// IANA's name of the cipher suite.
    pub cipher: &'static str,
}

/// One connection's TLS. A session's own while it lasts; its heir's after [`crate::Output::HandOver`].
#[derive(Debug)]
pub struct Tunnel {
    connection: ServerConnection,
    has_said_goodbye: bool,
    has_ended: bool,
}

/// What a piece of ciphertext brought.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Opened {
    More,
    /// The client says that nothing follows.
    Ended,
}

impl Tunnel {
    /// Reads some of `bytes`, which moves past it; what it brought is then in [`Tunnel::plain`], and is to be consumed
    /// before the next call.
    pub fn open(&mut self, bytes: &mut &[u8]) -> Result<Opened, rustls::Error> {
        self.connection.read_tls(bytes).map_err(|error| rustls::Error::General(error.to_string()))?;
        let state = self.connection.process_new_packets()?;
        self.has_ended = state.peer_has_closed();
        Ok(if self.has_ended { Opened::Ended } else { Opened::More })
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    pub(crate) fn has_said_goodbye(&self) -> bool {
        self.has_said_goodbye
    }

    /// Plain text that was opened and not consumed, a piece of it.
    pub fn plain(&mut self) -> &[u8] {
        self.connection.reader().into_first_chunk().unwrap_or_default()
    }

    pub fn consume(&mut self, len: usize) {
        self.connection.reader().consume(len);
    }

    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    pub fn has_output(&self) -> bool {
        self.connection.wants_write()
    }

    /// Appends what is ready for the wire.
    pub fn write_output(&mut self, out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            self.connection.write_tls(out).expect("a Vec takes everything");
        }
    }

    /// Appends `plain` in records of 16 KiB but for the last.
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        // It fails only after an error in receiving; the session has ended then, and nothing need go out.
        if self.connection.writer().write_all(plain).is_ok() {
            self.write_output(out);
        }
    }

    /// Once, and only behind a whole handshake: a failed one has its alert.
    pub fn say_goodbye(&mut self) {
        if !self.is_handshaking() && !std::mem::replace(&mut self.has_said_goodbye, true) {
            self.connection.send_close_notify();
        }
    }

    /// For an heir that goes on with it as it is.
    pub fn into_connection(self) -> ServerConnection {
        self.connection
    }

    /// `None` until the handshake is done.
    pub fn encrypted(&self) -> Option<Encrypted> {
        let suite = self.connection.negotiated_cipher_suite().filter(|_| !self.is_handshaking())?;
        let version = match self.connection.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2",
            _ => "TLS 1.3",
        };
        Some(Encrypted { version, cipher: suite.suite().as_str().unwrap_or("unknown") })
    }
}
