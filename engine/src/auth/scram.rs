//! Keys of SCRAM-SHA-256 (RFC 5802 §3, RFC 7677): made from a password, or made up.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use aws_lc_rs::pbkdf2;
use smtp_in::door::ScramKeys;
use std::num::NonZeroU32;

/// RFC 7677 §4 wants 4096 at least; a client pays them at every login.
pub(super) const ITERATIONS: u32 = 15_000;

pub(super) const SALT_LEN: usize = 16;

/// Costs `iterations` HMACs, twice.
pub(super) fn derive(password: &[u8], salt: &[u8], iterations: u32) -> ScramKeys {
    let count = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
    let mut salted = zeroize::Zeroizing::new([0; 32]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, count, salt, password, &mut *salted);
    let key = Key::new(HMAC_SHA256, &*salted);
    ScramKeys {
        salt: salt.to_vec(),
        iterations,
        stored_key: array(digest(&SHA256, sign(&key, b"Client Key").as_ref()).as_ref()),
        server_key: array(sign(&key, b"Server Key").as_ref()),
    }
}

/// Whether they were made from this password.
pub(super) fn matches(keys: &ScramKeys, password: &[u8]) -> bool {
    let own = derive(password, &keys.salt, keys.iterations);
    verify_slices_are_equal(&own.stored_key, &keys.stored_key).is_ok()
}

/// Keys that no password has, always the same for a name, so that asking twice tells nothing.
pub(super) fn make_up(secret: &Key, user: &str, iterations: u32) -> ScramKeys {
    let part = |what: &str| array(sign(secret, format!("{what}\0{user}").as_bytes()).as_ref());
    ScramKeys {
        salt: part("salt")[..SALT_LEN].to_vec(),
        iterations,
        stored_key: part("stored key"),
        server_key: part("server key"),
    }
}

fn array(octets: &[u8]) -> [u8; 32] {
    octets.try_into().expect("SHA-256 gives 32 octets")
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    /// RFC 7677 §3: the whole exchange for user `user`, password `pencil`.
    #[test]
    fn keys_fit_the_exchange_of_rfc_7677() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let keys = derive(b"pencil", &salt, 4096);
        let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let said = format!(
            "n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r={nonce}"
        );
        let signature = sign(&Key::new(HMAC_SHA256, &keys.server_key), said.as_bytes());
        assert_eq!(STANDARD.encode(signature), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");

        // The proof, XORed with the client's signature, is the client's key.
        let proof = STANDARD.decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=").unwrap();
        let mask = sign(&Key::new(HMAC_SHA256, &keys.stored_key), said.as_bytes());
        let client_key: Vec<u8> = proof.iter().zip(mask.as_ref()).map(|(a, b)| a ^ b).collect();
        assert_eq!(digest(&SHA256, &client_key).as_ref(), keys.stored_key);
        assert!(matches(&keys, b"pencil") && !matches(&keys, b"pencils"));
    }

    #[test]
    fn made_up_keys_are_the_same_for_a_name_and_differ_between_names() {
        let secret = Key::new(HMAC_SHA256, &[7; 32]);
        let keys = make_up(&secret, "ann", 4096);
        assert_eq!(keys, make_up(&secret, "ann", 4096));
        let other = make_up(&secret, "bob", 4096);
        assert!(keys.salt != other.salt && keys.stored_key != other.stored_key);
        assert_eq!(keys.salt.len(), SALT_LEN);
    }
}
