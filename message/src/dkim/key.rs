//! A private key, and what it signs.

use super::SignError;
use aws_lc_rs::digest::{Digest, SHA256_OUTPUT_LEN};
use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::error::KeyRejected;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use std::fmt;

/// Octets of the largest RSA key's signature (8192 bits).
const SIGNATURE_MAX: usize = 1024;

/// How a key signs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Algorithm {
    RsaSha256,
    /// RFC 8463.
    Ed25519Sha256,
}

impl Algorithm {
    /// As `a=` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::RsaSha256 => "rsa-sha256",
            Algorithm::Ed25519Sha256 => "ed25519-sha256",
        }
    }

    /// As a record's `k=` has it.
    pub fn key_type(self) -> &'static str {
        match self {
            Algorithm::RsaSha256 => "rsa",
            Algorithm::Ed25519Sha256 => "ed25519",
        }
    }
}

/// Why a file holds no key for us.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeyError {
    #[error("it holds no private key in PEM form; one with a passphrase cannot be used")]
    NoKey,
    #[error("its key is neither RSA nor Ed25519")]
    Kind,
    /// RFC 8301 §3.2 wants 2,048 bits; the library signs with no fewer.
    #[error("its RSA key has fewer than 2048 bits; `ringpost dkim keygen` makes a new one")]
    Small,
    #[error("its RSA key has more than 8192 bits")]
    Large,
}

/// See the module. Shared by all threads.
pub struct Key(Pair);

enum Pair {
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Key {
    /// The first private key of a PEM file: PKCS#8, or PKCS#1 for RSA.
    pub fn from_pem(pem: &[u8]) -> Result<Key, KeyError> {
        let rsa = |key: Result<RsaKeyPair, KeyRejected>| key.map(|key| Key(Pair::Rsa(key)));
        match PrivateKeyDer::from_pem_slice(pem).map_err(|_| KeyError::NoKey)? {
            PrivateKeyDer::Pkcs1(der) => rsa(RsaKeyPair::from_der(der.secret_pkcs1_der())).map_err(why),
            PrivateKeyDer::Pkcs8(der) => {
                let der = der.secret_pkcs8_der();
                match Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
                    Ok(key) => Ok(Key(Pair::Ed25519(key))),
                    Err(_) => rsa(RsaKeyPair::from_pkcs8(der)).map_err(why),
                }
            }
            _ => Err(KeyError::Kind),
        }
    }

    /// The Ed25519 key of a seed.
    pub(super) fn of_seed(seed: [u8; 32]) -> Option<Key> {
        Ed25519KeyPair::from_seed_unchecked(&seed).ok().map(|key| Key(Pair::Ed25519(key)))
    }

    pub fn algorithm(&self) -> Algorithm {
        match &self.0 {
            Pair::Rsa(_) => Algorithm::RsaSha256,
            Pair::Ed25519(_) => Algorithm::Ed25519Sha256,
        }
    }

    pub fn bits(&self) -> usize {
        match &self.0 {
            Pair::Rsa(key) => key.public_modulus_len() * 8,
            Pair::Ed25519(_) => 256,
        }
    }

    /// The public key as `p=` has it.
    pub fn public(&self) -> Result<String, SignError> {
        match &self.0 {
            Pair::Rsa(key) => {
                let der: Result<PublicKeyX509Der<'_>, _> = key.public_key().as_der();
                der.map(|der| BASE64.encode(der.as_ref())).map_err(|_| SignError::Library)
            }
            Pair::Ed25519(key) => Ok(BASE64.encode(key.public_key())),
        }
    }

    /// True if `text` is the public key, in the form that [`Key::public`] gives or, of RSA, in that of PKCS#1, which
    /// RFC 6376 §3.6.1 names and verifiers take too.
    pub(super) fn is_public(&self, text: &str) -> bool {
        let is_other_form = match &self.0 {
            Pair::Rsa(key) => BASE64.encode(key.public_key()) == text,
            Pair::Ed25519(_) => false,
        };
        is_other_form || self.public().is_ok_and(|public| public == text)
    }

    /// Appends the signature of a digest in base64, folded. The library allocates twice for RSA.
    pub(super) fn sign(&self, digest: &Digest, out: &mut Vec<u8>) -> Result<(), SignError> {
        let mut room = [0; SIGNATURE_MAX];
        let signature = match &self.0 {
            Pair::Rsa(key) => {
                let signature = &mut room[..key.public_modulus_len()];
                key.sign_digest(&RSA_PKCS1_SHA256, digest, signature).map_err(|_| SignError::Library)?;
                signature
            }
            Pair::Ed25519(key) => {
                // RFC 8463 §3: the digest is what is signed.
                let signature = key.try_sign(digest.as_ref()).map_err(|_| SignError::Library)?;
                let room = &mut room[..signature.as_ref().len()];
                room.copy_from_slice(signature.as_ref());
                room
            }
        };
        put_base64(signature, out);
        Ok(())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}, {} bits)", self.algorithm().as_str(), self.bits())
    }
}

/// The library's words for a key that it can read and will not use.
fn why(rejected: KeyRejected) -> KeyError {
    match rejected.to_string().as_str() {
        "TooSmall" => KeyError::Small,
        "TooLarge" => KeyError::Large,
        _ => KeyError::Kind,
    }
}

/// Octets that make a line of 72 characters.
const LINE_OCTETS: usize = 54;

/// In base64, a line of 72 characters at a time, folded in between. No allocation but `out`'s.
pub(super) fn put_base64(octets: &[u8], out: &mut Vec<u8>) {
    for (index, line) in octets.chunks(LINE_OCTETS).enumerate() {
        if index > 0 {
            out.extend_from_slice(b"\r\n\t ");
        }
        let mut text = [0; LINE_OCTETS / 3 * 4];
        let len = BASE64.encode_slice(line, &mut text).expect("a line's octets fit into its characters");
        out.extend_from_slice(&text[..len]);
    }
}

const _: () = assert!(SHA256_OUTPUT_LEN <= LINE_OCTETS); // `bh=` is not folded

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn keys_are_read_in_the_forms_that_openssl_writes() {
        for pem in [samples::RSA_PKCS8, samples::RSA_PKCS1] {
            let key = Key::from_pem(pem.as_bytes()).unwrap();
            assert_eq!((key.algorithm(), key.bits()), (Algorithm::RsaSha256, 2048));
        }
        let key = Key::from_pem(samples::ED25519.as_bytes()).unwrap();
        assert_eq!((key.algorithm(), key.bits()), (Algorithm::Ed25519Sha256, 256));
        // RFC 8463 §A.2.
        assert_eq!(key.public().unwrap(), "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
    }

    #[test]
    fn what_is_no_key_for_us_says_why() {
        let error = |pem: &str| Key::from_pem(pem.as_bytes()).unwrap_err();
        assert_eq!(error("x"), KeyError::NoKey);
        assert_eq!(error(samples::ENCRYPTED), KeyError::NoKey);
        assert_eq!(error(samples::P256), KeyError::Kind);
        assert_eq!(error(samples::RSA_1024), KeyError::Small);
        assert_eq!(error("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), KeyError::Kind);
    }

    #[test]
    fn a_key_does_not_show_itself() {
        let key = Key::from_pem(samples::ED25519.as_bytes()).unwrap();
        assert_eq!(format!("{key:?}"), "Key(ed25519-sha256, 256 bits)");
    }
}
