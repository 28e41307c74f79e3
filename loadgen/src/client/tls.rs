//! TLS as a client: whom it believes, and whether it comes back with a ticket.
//!
//! Without a file of authorities any certificate is believed: load is measured, not trust. The keys that
//! rustls verifies the handshake with are those of the certificate shown, either way.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClientTlsMode {
    /// STARTTLS after EHLO (RFC 3207).
    StartTls,
    /// Before the greeting (RFC 8314 §3.3).
    Implicit,
}

/// A client's TLS.
#[derive(Clone, Debug)]
pub struct ClientTls {
    pub mode: ClientTlsMode,
    /// Authorities in PEM; without them any certificate will do.
    pub ca_file: Option<PathBuf>,
    /// Asked for (SNI) and, with authorities, demanded.
    pub name: String,
    /// Whether sessions are resumed.
    pub resumption: bool,
}

impl ClientTls {
    pub fn new(mode: ClientTlsMode) -> ClientTls {
        ClientTls { mode, ca_file: None, name: "loadgen.test".into(), resumption: true }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ClientTlsError {
    #[error("{path}: not certificates in PEM: {source}")]
    Pem { path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("{0}: not a host name")]
    Name(String),
    #[error("the authorities cannot be used: {0}")]
    Use(#[from] rustls::Error),
}

/// What all connections of a client share: its tickets too.
#[derive(Clone)]
pub(crate) struct Secure {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) name: ServerName<'static>,
    pub(crate) mode: ClientTlsMode,
}

impl Secure {
    pub(crate) fn new(tls: &ClientTls) -> Result<Secure, ClientTlsError> {
        let crypto = Arc::new(provider::default_provider());
        let builder =
            ClientConfig::builder_with_provider(crypto.clone()).with_safe_default_protocol_versions()?;
        let mut config = match &tls.ca_file {
            Some(path) => builder.with_root_certificates(authorities(path)?).with_no_client_auth(),
            None => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyServer(crypto)))
                .with_no_client_auth(),
        };
        if !tls.resumption {
            config.resumption = Resumption::disabled();
        }
        let name =
            ServerName::try_from(tls.name.clone()).map_err(|_| ClientTlsError::Name(tls.name.clone()))?;
        Ok(Secure { config: Arc::new(config), name, mode: tls.mode })
    }

    pub(crate) fn is_implicit(&self) -> bool {
        self.mode == ClientTlsMode::Implicit
    }
}

fn authorities(path: &PathBuf) -> Result<RootCertStore, ClientTlsError> {
    let fail = |source| ClientTlsError::Pem { path: path.clone(), source };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(fail)? {
        roots.add(certificate.map_err(fail)?)?;
    }
    Ok(roots)
}

/// Believes whoever has the key of the certificate that is shown.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
