//! Certificates that clients show: taken whoever signed them, as long as the client has the key.
//!
//! A certificate that webpki cannot parse ends the handshake: that its client has the key could not be checked, and the
//! engine's rules go by its fingerprint.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

#[derive(Debug)]
pub(super) struct Verifier {
    roots: RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(super) fn new(roots: RootCertStore, algorithms: WebPkiSupportedAlgorithms) -> Verifier {
        Verifier { roots, algorithms }
    }

    /// True if a chain leads to one of the roots. Mail servers show as clients what they show as servers, and public
    /// authorities sign for servers alone by now: either usage will do.
    pub(super) fn vouches(
        &self,
        certificate: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> bool {
        let Ok(parsed) = EndEntityCert::try_from(certificate) else { return false };
        let anchors = &self.roots.roots;
        [KeyUsage::client_auth(), KeyUsage::server_auth()].into_iter().any(|usage| {
            parsed.verify_for_usage(self.algorithms.all, anchors, rest, now, usage, None, None).is_ok()
        })
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// Naming authorities would keep clients of others from showing anything.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    /// Whether an authority vouches for it is asked after the handshake.
    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
