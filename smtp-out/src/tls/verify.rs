//! Whom a certificate proves the host to be: one verifier per policy.
//!
//! The signature that proves the host's possession of the key is verified under every policy. A certificate that webpki
//! cannot parse (X.509 version 1, odd encodings) passes only where the policy authenticates nobody: there it could as
//! well be any other.

use super::dane;
use crate::policy::{TlsPolicy, Tlsa};
use crate::protection::{FailureKind, TlsFailure, Verified};
use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::{AlertDescription, CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use std::sync::Arc;
use webpki::{EndEntityCert, KeyUsage};

/// What is demanded of a certificate.
#[derive(Debug)]
enum Demand {
    Nothing,
    Roots { names: Vec<Arc<str>>, enforced: bool },
    Fingerprint(Vec<[u8; 32]>),
    Dane { records: Vec<Tlsa>, names: Vec<Arc<str>> },
}

#[derive(Debug)]
pub(super) struct Verifier {
    demand: Demand,
    roots: Arc<[TrustAnchor<'static>]>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(super) fn new(
        policy: &TlsPolicy,
        roots: Arc<[TrustAnchor<'static>]>,
        provider: Arc<CryptoProvider>,
    ) -> Verifier {
        let demand = match policy {
            TlsPolicy::Never | TlsPolicy::May | TlsPolicy::Encrypt => Demand::Nothing,
            TlsPolicy::Verify { names, enforced } => {
                Demand::Roots { names: names.clone(), enforced: *enforced }
            }
            TlsPolicy::Fingerprint { sha256 } => Demand::Fingerprint(sha256.clone()),
            TlsPolicy::Dane { records, names } => match dane::usable(records) {
                // RFC 7672 §2.2: encrypted, but nobody is authenticated.
                records if records.is_empty() => Demand::Nothing,
                records => Demand::Dane { records, names: names.clone() },
            },
        };
        Verifier { demand, roots, algorithms: provider.signature_verification_algorithms }
    }

    /// Whether the certificate decides if the handshake goes on.
    fn is_enforced(&self) -> bool {
        !matches!(self.demand, Demand::Nothing | Demand::Roots { enforced: false, .. })
    }

    /// After a handshake. What is enforced has been verified in it, or in the one that is resumed.
    pub(super) fn judge(
        &self,
        host: &str,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> (Verified, Option<TlsFailure>) {
        match &self.demand {
            Demand::Nothing => (Verified::Nobody, None),
            Demand::Roots { enforced: true, .. } => (Verified::Roots, None),
            Demand::Roots { enforced: false, .. } => match self.check_chain(chain, host, now) {
                Ok(()) => (Verified::Roots, None),
                Err(failure) => (Verified::Nobody, Some(failure)),
            },
            Demand::Fingerprint(_) => (Verified::Fingerprint, None),
            Demand::Dane { .. } => (Verified::Dane, None),
        }
    }

    fn check_chain(&self, chain: &[CertificateDer<'_>], host: &str, now: UnixTime) -> Result<(), TlsFailure> {
        match (chain.split_first(), super::server_name(host)) {
            (Some((certificate, rest)), Ok(name)) => self.check(certificate, rest, &name, now),
            (None, _) => {
                Err(TlsFailure::new(FailureKind::ValidationFailure, "The host presented no certificate"))
            }
            (_, Err(error)) => Err(TlsFailure::new(FailureKind::ValidationFailure, error.to_string())),
        }
    }

    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), TlsFailure> {
        match &self.demand {
            Demand::Nothing => Ok(()),
            Demand::Roots { names, .. } => {
                let parsed = EndEntityCert::try_from(certificate).map_err(|error| failure(&error))?;
                self.check_path(&parsed, rest, &self.roots, now)?;
                check_name(&parsed, names, host)
            }
            Demand::Fingerprint(digests) => check_fingerprint(certificate, digests),
            Demand::Dane { records, names } => self.check_dane(certificate, rest, host, now, records, names),
        }
    }

    /// RFC 7672 §3.1: usage 3 is about the certificate alone, whatever its name and dates say; usage 2 is an anchor.
    fn check_dane(
        &self,
        certificate: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        now: UnixTime,
        records: &[Tlsa],
        names: &[Arc<str>],
    ) -> Result<(), TlsFailure> {
        let parsed = EndEntityCert::try_from(certificate).map_err(|error| failure(&error))?;
        if dane::matches(records, dane::END_ENTITY, certificate) {
            return Ok(());
        }
        let anchors = dane::anchors(records, rest);
        if anchors.is_empty() {
            let text = "No TLSA record matches the host's certificate or its chain";
            return Err(TlsFailure::new(FailureKind::TlsaInvalid, text));
        }
        self.check_path(&parsed, rest, &anchors, now)?;
        check_name(&parsed, names, host)
    }

    fn check_path(
        &self,
        certificate: &EndEntityCert<'_>,
        rest: &[CertificateDer<'_>],
        anchors: &[TrustAnchor<'_>],
        now: UnixTime,
    ) -> Result<(), TlsFailure> {
        let usage = KeyUsage::server_auth();
        certificate
            .verify_for_usage(self.algorithms.all, anchors, rest, now, usage, None, None)
            .map(drop)
            .map_err(|error| failure(&error))
    }

    /// Nobody is authenticated, so a certificate that cannot be read proves as much as one that can.
    fn tolerate(
        &self,
        result: Result<HandshakeSignatureValid, Error>,
    ) -> Result<HandshakeSignatureValid, Error> {
        match result {
            Err(Error::InvalidCertificate(CertificateError::BadEncoding | CertificateError::Other(_)))
                if !self.is_enforced() =>
            {
                Ok(HandshakeSignatureValid::assertion())
            }
            result => result,
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.is_enforced() {
            self.check(end_entity, intermediates, server_name, now).map_err(into_error)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.tolerate(verify_tls12_signature(message, certificate, signature, &self.algorithms))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.tolerate(verify_tls13_signature(message, certificate, signature, &self.algorithms))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn check_fingerprint(certificate: &CertificateDer<'_>, digests: &[[u8; 32]]) -> Result<(), TlsFailure> {
    let parsed = EndEntityCert::try_from(certificate).map_err(|error| failure(&error))?;
    let (whole, key) = (digest(&SHA256, certificate), digest(&SHA256, &parsed.subject_public_key_info()));
    if digests.iter().any(|wanted| wanted == whole.as_ref() || wanted == key.as_ref()) {
        return Ok(());
    }
    let text = "Neither the host's certificate nor its key has a fingerprint that is configured";
    Err(TlsFailure::new(FailureKind::CertificateNotTrusted, text))
}

/// One of `names`; without any, the host's own.
fn check_name(
    certificate: &EndEntityCert<'_>,
    names: &[Arc<str>],
    host: &ServerName<'_>,
) -> Result<(), TlsFailure> {
    let is_for = |name: &ServerName<'_>| certificate.verify_is_valid_for_subject_name(name).is_ok();
    let is_right = match names {
        [] => is_for(host),
        names => names.iter().any(|name| match name.strip_prefix("*.") {
            Some(parent) => certificate.valid_dns_names().any(|found| is_one_below(found, parent)),
            None => super::server_name(name).is_ok_and(|name| is_for(&name)),
        }),
    };
    if is_right {
        return Ok(());
    }
    let wanted = if names.is_empty() { host.to_str().into_owned() } else { names.join(", ") };
    let found: Vec<&str> = certificate.valid_dns_names().take(NAMES_SHOWN).collect();
    let text = format!("The host's certificate is for {}, not for {wanted}", found.join(", "));
    Err(TlsFailure::new(FailureKind::CertificateHostMismatch, text))
}

/// Names of a certificate that a sentence lists.
const NAMES_SHOWN: usize = 4;

/// `mx.example.net` and `*.example.net` are one label below `example.net` (RFC 8461 §4.1, RFC 6125 §6.4.3).
fn is_one_below(name: &str, parent: &str) -> bool {
    let parent = parent.strip_suffix('.').unwrap_or(parent);
    name.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent))
}

/// Carries our failure through the handshake; rustls hands it back in its own error.
fn into_error(failure: TlsFailure) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(failure))))
}

/// What an operator and a report hear about an error of a handshake.
pub(super) fn failure_of(error: &Error) -> TlsFailure {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => {
            match inner.downcast_ref::<TlsFailure>() {
                Some(failure) => failure.clone(),
                None => TlsFailure::new(FailureKind::ValidationFailure, format!("TLS: {inner}")),
            }
        }
        Error::AlertReceived(alert) => TlsFailure::new(
            FailureKind::ValidationFailure,
            format!("TLS: the host sent the alert {}", alert_name(*alert)),
        ),
        Error::InvalidMessage(_) => {
            TlsFailure::new(FailureKind::ValidationFailure, "TLS: what the host sent is not TLS")
        }
        other => TlsFailure::new(FailureKind::ValidationFailure, format!("TLS: {other}")),
    }
}

fn alert_name(alert: AlertDescription) -> &'static str {
    alert.as_str().unwrap_or("of an unknown kind")
}

fn failure(error: &webpki::Error) -> TlsFailure {
    let (kind, text) = match error {
        webpki::Error::CertExpired { .. } | webpki::Error::InvalidCertValidity => (
            FailureKind::CertificateExpired,
            "The host's certificate, or one above it, has expired".to_owned(),
        ),
        webpki::Error::CertNotValidYet { .. } => {
            (FailureKind::CertificateExpired, "The host's certificate is not valid yet".to_owned())
        }
        // Names lead to an authority and its key, or its rules, do not.
        webpki::Error::InvalidSignatureForPublicKey
        | webpki::Error::PathLenConstraintViolated
        | webpki::Error::NameConstraintViolation
        | webpki::Error::EndEntityUsedAsCa
        | webpki::Error::UnknownIssuer => (
            FailureKind::CertificateNotTrusted,
            "The host's certificate does not lead to an authority that is trusted".to_owned(),
        ),
        webpki::Error::CaUsedAsEndEntity => (
            FailureKind::CertificateNotTrusted,
            "The host's certificate is one of an authority, signed by itself or not for a server".to_owned(),
        ),
        other => (FailureKind::ValidationFailure, format!("The host's certificate cannot be used: {other}")),
    };
    TlsFailure { kind, text }
}
