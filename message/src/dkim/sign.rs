//! The signature fields of one domain.

use super::fields::Selection;
use super::key::put_base64;
use super::{BodyHash, Key, SignError, Terms};
use crate::canonical::relaxed_field;
use crate::time::UnixMillis;
use aws_lc_rs::digest::Context;
use std::io::Write as _;
use std::sync::Arc;

/// Room for a signature field of an RSA key of 2048 bits that covers what is covered by default.
pub(super) const FIELD_LEN: usize = 1024;

/// A key under its name in the DNS.
#[derive(Debug)]
pub struct SelectorKey {
    pub selector: Box<str>,
    pub key: Key,
}

/// What signs one domain's mail. To be shared by all threads.
#[derive(Debug)]
pub struct DomainSigners {
    /// `d=`, in A-labels and lower case.
    pub domain: Box<str>,
    /// `i=`: what may stand there without an escape, an address or `@` and a domain, in `domain` or below it.
    pub identity: Option<Box<str>>,
    /// It signs for the domains below `domain` too.
    pub subdomains: bool,
    pub terms: Arc<Terms>,
    /// Each makes a signature, the first one on top.
    pub keys: Vec<SelectorKey>,
}

impl DomainSigners {
    /// Appends a complete folded `DKIM-Signature` field for each key, each ending in CRLF: they go on top of `header`, which
    /// may have the empty line behind it. On error nothing is appended. Fields are hashed once, whatever the number of
    /// keys. Allocates for `out`, for a header with more than 24 signed fields, and in the library.
    pub fn sign(
        &self,
        header: &[u8],
        body: &BodyHash,
        now: UnixMillis,
        out: &mut Vec<u8>,
    ) -> Result<(), SignError> {
        let selection = Selection::of(header, &self.terms)?;
        let (hash, len) = (selection.hash(), out.len());
        for signer in &self.keys {
            let start = out.len();
            self.put_unsigned(signer, &selection, body, now, out);
            if let Err(error) = seal(&signer.key, hash.clone(), start, out) {
                out.truncate(len);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Signatures made now may go out until then: half of their time is left to those who pass the message on.
    pub fn good_until(&self, now: UnixMillis) -> UnixMillis {
        match self.terms.expiry_secs {
            0 => UnixMillis(u64::MAX),
            secs => now.plus_secs(secs / 2),
        }
    }

    /// The field up to `b=`.
    fn put_unsigned(
        &self,
        SelectorKey { selector, key }: &SelectorKey,
        selection: &Selection<'_>,
        body: &BodyHash,
        now: UnixMillis,
        out: &mut Vec<u8>,
    ) {
        out.reserve(FIELD_LEN);
        let (algorithm, domain) = (key.algorithm().as_str(), &self.domain);
        put(out, format_args!("DKIM-Signature: v=1; a={algorithm}; c=relaxed/relaxed;"));
        put(out, format_args!("\r\n\td={domain}; s={selector};"));
        let (seconds, expiry) = (now.seconds(), self.terms.expiry_secs);
        if self.terms.timestamp {
            put(out, format_args!(" t={seconds};"));
        }
        if expiry > 0 {
            put(out, format_args!(" x={};", seconds.saturating_add(expiry)));
        }
        if let Some(identity) = &self.identity {
            put(out, format_args!("\r\n\ti={identity};"));
        }
        out.extend_from_slice(b"\r\n\th=");
        selection.put_names(out);
        out.extend_from_slice(b";\r\n\tbh=");
        put_base64(body.as_bytes(), out);
        out.extend_from_slice(b";\r\n\tb=");
    }
}

const NAME: &[u8] = b"DKIM-Signature";

/// Signs the fields in `hash` and the field that begins at `start`, which ends in `b=`, and ends it (§3.7).
fn seal(key: &Key, mut hash: Context, start: usize, out: &mut Vec<u8>) -> Result<(), SignError> {
    let value = &out[start + NAME.len() + 1..];
    relaxed_field(NAME, value, |part| hash.update(part));
    key.sign(&hash.finish(), out)?;
    out.extend_from_slice(b"\r\n");
    Ok(())
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("memory takes everything");
}

#[cfg(test)]
mod tests {
    use super::super::samples::{self, FOOTBALL};
    use super::super::split;
    use super::*;
    use aws_lc_rs::signature::{RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, UnparsedPublicKey};
    use base64::Engine as _;

    fn decoded(text: &str) -> Vec<u8> {
        base64::engine::general_purpose::STANDARD.decode(text).unwrap()
    }

    /// RFC 8463 §A.3: the message, signed by both keys of §A.2.
    #[test]
    fn the_rfcs_signatures_come_out() {
        let (header, body) = split(FOOTBALL.as_bytes()).unwrap();
        let body = BodyHash::of(body);
        assert_eq!(*body.as_bytes(), *decoded("2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8="));
        let terms = Terms::new(["From"], ["To", "Subject", "Date", "Message-ID"]);
        let mut common = Selection::of(header, &terms).unwrap().hash();
        // `h=` of the example oversigns three fields, which are not there a second time: that changes no digest.
        let unsigned = |algorithm: &str, selector: &str, names: &str| {
            format!(
                "DKIM-Signature: v=1; a={algorithm}; c=relaxed/relaxed;\r\n d=football.example.com; i=@football.example.com;\r\n \
                 q=dns/txt; s={selector}; t=1528637909; h={names};\r\n bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n b="
            )
            .into_bytes()
        };
        let names = "from : to :\r\n subject : date : message-id : from : subject : date";
        let mut field = unsigned("ed25519-sha256", "brisbane", names);
        let before = field.len();
        seal(&Key::from_pem(samples::ED25519.as_bytes()).unwrap(), common.clone(), 0, &mut field).unwrap();
        let signature = String::from_utf8(field[before..].to_vec()).unwrap();
        assert_eq!(
            signature.replace("\r\n\t ", ""),
            "/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11BusFa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==\r\n"
        );
        // Its RSA key has 1024 bits: too few for us to sign with, enough to verify what it signed.
        let names = "from : to : subject :\r\n date : message-id : from : subject : date";
        let field = unsigned("rsa-sha256", "test", names);
        relaxed_field(NAME, &field[NAME.len() + 1..], |part| common.update(part));
        let public = decoded(samples::FOOTBALL_RSA_PUBLIC);
        UnparsedPublicKey::new(&RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, public)
            .verify_digest(&common.finish(), &decoded(samples::FOOTBALL_RSA_SIGNATURE))
            .unwrap();
    }

    fn signers(terms: Terms) -> DomainSigners {
        let key = |selector: &str, pem: &str| SelectorKey {
            selector: selector.into(),
            key: Key::from_pem(pem.as_bytes()).unwrap(),
        };
        DomainSigners {
            domain: "football.example.com".into(),
            identity: Some("@football.example.com".into()),
            subdomains: false,
            terms: Arc::new(terms),
            keys: vec![key("r1", samples::RSA_PKCS8), key("e1", samples::ED25519)],
        }
    }

    #[test]
    fn both_fields_are_as_they_were() {
        let mut terms = Terms::new(["From", "Subject"], ["To", "Date", "Cc"]);
        terms.expiry_secs = 3_153_600_000;
        let (header, body) = split(FOOTBALL.as_bytes()).unwrap();
        let mut out = b"before".to_vec();
        let now = UnixMillis(1_528_637_909_999);
        signers(terms).sign(header, &BodyHash::of(body), now, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, format!("before{}", samples::FOOTBALL_SIGNED.replace('\n', "\r\n")));
        assert!(text.split("\r\n").all(|line| line.len() <= 78));
    }

    #[test]
    fn half_of_a_signatures_time_is_left_to_others() {
        let mut terms = Terms::new(["From"], []);
        assert_eq!(signers(terms.clone()).good_until(UnixMillis(7)), UnixMillis(u64::MAX));
        terms.expiry_secs = 100;
        assert_eq!(signers(terms).good_until(UnixMillis(7)), UnixMillis(50_007));
    }

    #[test]
    fn what_cannot_be_signed_leaves_nothing_behind() {
        let mut out = b"before".to_vec();
        let signers = signers(Terms::new(["From"], []));
        let refused = signers.sign(b"From: a\r\nno field\r\n", &BodyHash::of(b""), UnixMillis(0), &mut out);
        assert_eq!((refused, out.as_slice()), (Err(SignError::NoHeader), &b"before"[..]));
    }

    #[test]
    fn a_header_may_end_in_any_way() {
        let signed = |header: &[u8]| {
            let mut out = Vec::new();
            let signers = signers(Terms::new(["From"], ["To"]));
            signers.sign(header, &BodyHash::of(b""), UnixMillis(0), &mut out).unwrap();
            out
        };
        let whole = signed(b"From: a@b\r\nTo: c\r\n d\r\n");
        for same in [
            &b"From: a@b\nTo: c\n d\n\n"[..],
            b"From: a@b\r\nTo: c\r\n d",
            b"FROM:a@b \nTo :  c\t\r\n\td\r\n\r\nFrom: x",
        ] {
            assert_eq!(signed(same), whole);
        }
    }
}
