//! What TLS needs from files: the authorities to trust, our own certificate.

use crate::clock::CertificateClock;
use crate::config::Tls;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use smtp_out::TlsBase;
use std::path::Path;
use std::sync::Arc;

/// Why the files of `[tls]` cannot be used; says which.
#[derive(Debug, thiserror::Error)]
pub enum TlsFilesError {
    #[error("{path}: {source}")]
    Pem { path: String, source: rustls_pki_types::pem::Error },
    #[error("{path}: there is no certificate in it")]
    Empty { path: String },
    #[error("{path} and its key cannot be used: {source}")]
    Server { path: String, source: rustls::Error },
    #[error("tls.ca_file, tls.certificate, tls.key: {0}")]
    Unusable(#[from] smtp_out::TlsBaseError),
}

/// Reads them. Without `ca_file` the system's authorities are trusted; without any, nothing can be verified by them.
pub fn load(tls: &Tls) -> Result<TlsBase, TlsFilesError> {
    let roots = match &tls.ca_file {
        Some(path) => certificates(path)?,
        None => system_roots(),
    };
    let own = match (&tls.certificate, &tls.key) {
        (Some(chain), Some(key)) => Some((certificates(chain)?, self::key(key)?)),
        _ => None,
    };
    Ok(TlsBase::new(roots, own)?.with_time(Arc::new(CertificateClock)))
}

/// What an HTTP listener with that certificate and key needs; `None` without them.
pub(crate) fn server(
    certificate: Option<&Path>,
    key: Option<&Path>,
) -> Result<Option<Arc<rustls::ServerConfig>>, TlsFilesError> {
    let config = server_of(certificate, key)?;
    Ok(config.map(|mut config| {
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }))
}

/// What a listener of any protocol with that certificate and key needs; `None` without them.
pub(crate) fn server_of(
    certificate: Option<&Path>,
    key: Option<&Path>,
) -> Result<Option<rustls::ServerConfig>, TlsFilesError> {
    let (Some(path), Some(key)) = (certificate, key) else { return Ok(None) };
    let (chain, key) = (certificates(path)?, self::key(key)?);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let wrap = |source| TlsFilesError::Server { path: path.display().to_string(), source };
    let builder = rustls::ServerConfig::builder_with_details(provider, Arc::new(CertificateClock));
    let builder = builder.with_safe_default_protocol_versions().map_err(wrap)?.with_no_client_auth();
    builder.with_single_cert(chain, key).map(Some).map_err(wrap)
}

/// Of a PEM file, in its order; at least one.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFilesError> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    let found = read().map_err(|source| pem_error(path, source))?;
    if found.is_empty() {
        return Err(TlsFilesError::Empty { path: path.display().to_string() });
    }
    Ok(found)
}

/// The first private key of a PEM file.
pub(crate) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsFilesError> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| pem_error(path, source))
}

fn pem_error(path: &Path, source: rustls_pki_types::pem::Error) -> TlsFilesError {
    TlsFilesError::Pem { path: path.display().to_string(), source }
}

fn system_roots() -> Vec<CertificateDer<'static>> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "reading the system's authorities");
    }
    found.certs
}
