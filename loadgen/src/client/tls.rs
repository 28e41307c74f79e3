//! TLS as a client: whom it believes, and whether it comes back with a ticket.
//!
//! Without a file of authorities any certificate is believed ([`crate::trust`]).

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use crate::trust::Anybody;

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
                .with_custom_certificate_verifier(Arc::new(Anybody(crypto)))
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
