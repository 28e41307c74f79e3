//! A host's side of TLS, in memory, with certificates made for the test. The time is always `NOW`.

// A test may panic; not every test uses all of this.
#![allow(clippy::unwrap_used, dead_code)]

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use smtp_out::TlsBase;
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

/// 2026-01-01; certificates are of 2025 to 2027, expired ones of 2024.
#[derive(Debug)]
struct Now;

impl TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(1_767_225_600)))
    }
}

type Authority = CertifiedIssuer<'static, KeyPair>;

/// An authority, one below it, and what they sign.
pub(crate) struct World {
    pub(crate) root: Authority,
    pub(crate) middle: Authority,
}

/// A certificate with its chain, and its key.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Clone for Identity {
    fn clone(&self) -> Identity {
        Identity { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl World {
    pub(crate) fn new() -> World {
        let root = Authority::self_signed(authority("root"), KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let middle = Authority::signed_by(authority("middle"), key, &root).unwrap();
        World { root, middle }
    }

    /// What sessions have, with `root` as the only root.
    pub(crate) fn base(&self) -> TlsBase {
        let base = TlsBase::new(vec![self.root.der().clone()], None).unwrap();
        base.with_time(Arc::new(Now))
    }

    pub(crate) fn time(&self) -> Arc<dyn TimeProvider> {
        Arc::new(Now)
    }

    /// Signed by `middle`, which is in its chain.
    pub(crate) fn identity(&self, name: &str) -> Identity {
        self.signed(params(name))
    }

    pub(crate) fn expired(&self, name: &str) -> Identity {
        let mut params = params(name);
        (params.not_before, params.not_after) = (date_time_ymd(2024, 1, 1), date_time_ymd(2024, 2, 1));
        self.signed(params)
    }

    fn signed(&self, params: CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.middle).unwrap();
        let chain = vec![certificate.der().clone(), self.middle.der().clone()];
        Identity { chain, key: key.into() }
    }

    pub(crate) fn by_name(&self, name: &str) -> Identity {
        match name {
            "wrong_name" => self.identity("other.example"),
            "expired" => self.expired("mx.example"),
            "self_signed" => self_signed("mx.example"),
            _ => self.identity("mx.example"),
        }
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(2025, 1, 1), date_time_ymd(2027, 1, 1));
    params
}

fn authority(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.subject_alt_names.clear();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

pub(crate) fn self_signed(name: &str) -> Identity {
    let key = KeyPair::generate().unwrap();
    let certificate = params(name).self_signed(&key).unwrap();
    Identity { chain: vec![certificate.der().clone()], key: key.into() }
}

/// What a host is, once; sessions are resumed at the same one.
pub(crate) fn server(identity: Identity, is_tls12: bool) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = if is_tls12 { [&TLS12] } else { [&TLS13] };
    let config = ServerConfig::builder_with_details(provider, Arc::new(Now))
        .with_protocol_versions(&versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(identity.chain, identity.key)
        .unwrap();
    Arc::new(config)
}

/// A host that presents a certificate whose key it need not have.
pub(crate) fn server_without_checks(identity: Identity) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = provider.key_provider.load_private_key(identity.key).unwrap();
    let certified = CertifiedKey::new(identity.chain, key);
    let config = ServerConfig::builder_with_details(provider, Arc::new(Now))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    Arc::new(config)
}

/// A host that takes only clients whose certificate leads to `root`.
pub(crate) fn choosy_server(identity: Identity, root: &CertificateDer<'static>) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let config = ServerConfig::builder_with_details(provider, Arc::new(Now))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain, identity.key)
        .unwrap();
    Arc::new(config)
}

/// One connection at the host.
pub(crate) struct TlsHost {
    connection: ServerConnection,
    /// What it opened, in order.
    pub(crate) opened: Vec<u8>,
    /// Why it ended the connection.
    pub(crate) error: Option<rustls::Error>,
    pub(crate) was_closed: bool,
}

impl TlsHost {
    pub(crate) fn new(config: Arc<ServerConfig>) -> TlsHost {
        let connection = ServerConnection::new(config).unwrap();
        TlsHost { connection, opened: Vec::new(), error: None, was_closed: false }
    }

    pub(crate) fn is_up(&self) -> bool {
        !self.connection.is_handshaking()
    }

    pub(crate) fn hear(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.error.is_none() && !self.was_closed {
            self.connection.read_tls(&mut bytes).unwrap();
            match self.connection.process_new_packets() {
                Ok(state) => {
                    let mut plain = vec![0; state.plaintext_bytes_to_read()];
                    self.connection.reader().read_exact(&mut plain).unwrap();
                    self.opened.extend_from_slice(&plain);
                    self.was_closed |= state.peer_has_closed();
                }
                Err(error) => self.error = Some(error),
            }
        }
    }

    /// What it has to send: its part of the handshake, tickets, alerts, and `plain` sealed.
    pub(crate) fn say(&mut self, plain: &[u8]) -> Vec<u8> {
        if !plain.is_empty() {
            self.connection.writer().write_all(plain).unwrap();
        }
        let mut out = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut out).unwrap();
        }
        out
    }

    pub(crate) fn close(&mut self) -> Vec<u8> {
        self.connection.send_close_notify();
        self.say(b"")
    }
}
