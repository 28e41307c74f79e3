//! The sink's TLS: what it offers, the certificate it shows, one connection's octets in and out.
//!
//! A certificate is read from files or made at the start, signed by itself or by an authority made with it.
//! A client's certificate is asked for on request and never refused: that it was shown is what a test wants to
//! know. Bound: rustls keeps one record of either direction; plain octets are taken as soon as they are there.

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, NoServerSessionStorage, ServerConnection};
use rustls::{HandshakeKind, ProtocolVersion, ServerConfig, SupportedProtocolVersion};

use crate::trust::Anybody;

/// When TLS begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TlsMode {
    /// STARTTLS is offered.
    Offer,
    /// And nothing is taken before it.
    Require,
    /// At once, before the greeting (RFC 8314 §3.3).
    Implicit,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

/// A sink's TLS.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    pub mode: TlsMode,
    /// A chain and its key, in PEM; without them a certificate for the sink's names is made.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Where to write the certificate that was made, in PEM.
    pub cert_out: Option<PathBuf>,
    /// Sign it by an authority made for it, and write that one's certificate here, in PEM.
    pub authority_out: Option<PathBuf>,
    /// Only this one; without it both.
    pub version: Option<TlsVersion>,
    /// Tickets.
    pub resumption: bool,
    pub ask_client_certificate: bool,
}

impl TlsConfig {
    pub fn new(mode: TlsMode) -> TlsConfig {
        TlsConfig {
            mode,
            identity: None,
            cert_out: None,
            authority_out: None,
            version: None,
            resumption: true,
            ask_client_certificate: false,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path}: not a certificate or key in PEM: {source}")]
    Pem { path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("{path}: cannot write the certificate: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("certificate and key cannot be used: {0}")]
    Use(#[from] rustls::Error),
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// What all connections of a sink share.
pub(crate) fn server_config(config: &TlsConfig, names: &[String]) -> Result<Arc<ServerConfig>, TlsError> {
    let (chain, key) = match &config.identity {
        Some((chain, key)) => read_identity(chain, key)?,
        None => make_identity(config, names)?,
    };
    let crypto = Arc::new(provider::default_provider());
    let verifier: Arc<dyn ClientCertVerifier> = match config.ask_client_certificate {
        true => Arc::new(Anybody(crypto.clone())),
        false => Arc::new(NoClientAuth),
    };
    let builder =
        ServerConfig::builder_with_provider(crypto).with_protocol_versions(versions(config.version))?;
    let mut server = builder.with_client_cert_verifier(verifier).with_single_cert(chain, key)?;
    if config.resumption {
        server.ticketer = provider::Ticketer::new()?;
    } else {
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
    }
    Ok(Arc::new(server))
}

static V1_2_ONLY: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
static V1_3_ONLY: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

fn versions(only: Option<TlsVersion>) -> &'static [&'static SupportedProtocolVersion] {
    match only {
        None => rustls::ALL_VERSIONS,
        Some(TlsVersion::V1_2) => V1_2_ONLY,
        Some(TlsVersion::V1_3) => V1_3_ONLY,
    }
}

fn read_identity(chain: &Path, key: &Path) -> Result<Identity, TlsError> {
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Pem { path, source }
    };
    let certificates = CertificateDer::pem_file_iter(chain).map_err(fail(chain))?;
    let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(fail(chain))?;
    Ok((certificates, PrivateKeyDer::from_pem_file(key).map_err(fail(key))?))
}

fn make_identity(config: &TlsConfig, names: &[String]) -> Result<Identity, TlsError> {
    let params = CertificateParams::new(names)?;
    let key = KeyPair::generate()?;
    let mut chain = Vec::new();
    let certificate = match &config.authority_out {
        None => params.self_signed(&key)?,
        Some(path) => {
            let authority = make_authority()?;
            write(path, &authority.pem())?;
            chain.push(authority.der().clone());
            params.signed_by(&key, &authority)?
        }
    };
    if let Some(path) = &config.cert_out {
        write(path, &certificate.pem())?;
    }
    chain.insert(0, certificate.der().clone());
    Ok((chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into()))
}

fn make_authority() -> Result<CertifiedIssuer<'static, KeyPair>, TlsError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "loadgen authority");
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

fn write(path: &Path, pem: &str) -> Result<(), TlsError> {
    std::fs::write(path, pem).map_err(|source| TlsError::Write { path: path.to_owned(), source })
}

/// One connection's TLS: sealed octets on one side, plain ones on the other.
pub(crate) struct Tls {
    connection: ServerConnection,
}

/// What a complete handshake came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Secured {
    pub(crate) version: ProtocolVersion,
    pub(crate) suite: String,
    pub(crate) is_resumed: bool,
    pub(crate) server_name: Option<String>,
    /// SHA-256 of the client's certificate.
    pub(crate) client_certificate: Option<String>,
}

impl Tls {
    pub(crate) fn new(config: Arc<ServerConfig>) -> Result<Tls, rustls::Error> {
        let mut connection = ServerConnection::new(config)?;
        connection.set_buffer_limit(None); // replies are bounded by what was read
        Ok(Tls { connection })
    }

    /// Takes sealed octets until there are plain ones or none are left; true once the peer has said that no more
    /// come. An error is the peer's fault.
    pub(crate) fn take(&mut self, sealed: &mut &[u8]) -> Result<bool, rustls::Error> {
        while !sealed.is_empty() {
            let read = self.connection.read_tls(sealed);
            read.map_err(|error| rustls::Error::General(error.to_string()))?;
            let state = self.connection.process_new_packets()?;
            if state.peer_has_closed() {
                *sealed = &[];
                return Ok(true);
            }
            if state.plaintext_bytes_to_read() > 0 {
                break;
            }
        }
        Ok(false)
    }

    /// Shows the plain octets that are there; false when there are none.
    pub(crate) fn plain(&mut self, mut show: impl FnMut(&[u8])) -> bool {
        let mut reader = self.connection.reader();
        let Ok(bytes) = reader.fill_buf() else { return false };
        let len = bytes.len();
        show(bytes);
        reader.consume(len);
        len > 0
    }

    /// Seals `plain`, and appends that and whatever else is to be sent.
    pub(crate) fn seal(&mut self, plain: &[u8], sealed: &mut Vec<u8>) -> io::Result<()> {
        self.connection.writer().write_all(plain)?;
        while self.connection.wants_write() {
            self.connection.write_tls(sealed)?;
        }
        Ok(())
    }

    pub(crate) fn say_goodbye(&mut self) {
        self.connection.send_close_notify();
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// None before the handshake is complete.
    pub(crate) fn secured(&self) -> Option<Secured> {
        let certificates = self.connection.peer_certificates();
        Some(Secured {
            version: self.connection.protocol_version()?,
            suite: format!("{:?}", self.connection.negotiated_cipher_suite()?.suite()),
            is_resumed: self.connection.handshake_kind() == Some(HandshakeKind::Resumed),
            server_name: self.connection.server_name().map(str::to_owned),
            client_certificate: certificates
                .and_then(<[_]>::first)
                .map(|certificate| fingerprint(certificate)),
        })
    }
}

fn fingerprint(octets: &[u8]) -> String {
    digest(&SHA256, octets).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
