//! What must hold whatever the message.

use super::{BodyHash, BodyHasher, DomainSigners, Key, SelectorKey, Signers, Terms, split};
use crate::compose::header::RawFields;
use crate::time::UnixMillis;
use std::sync::{Arc, LazyLock};

static SIGNERS: LazyLock<Arc<DomainSigners>> = LazyLock::new(|| {
    let key = Key::of_seed([7; 32]).expect("any seed makes a key");
    Arc::new(DomainSigners {
        domain: "a.test".into(),
        identity: None,
        subdomains: true,
        terms: Arc::new(Terms::new(["From", "Subject"], ["Received"])),
        keys: vec![SelectorKey { selector: "s".into(), key }],
    })
});

/// For the fuzzer: a signature is one field on top of the others, which stay as they were.
pub fn fuzz_sign(bytes: &[u8]) {
    let mut signers = Signers::default();
    signers.insert("a.test", Arc::clone(&SIGNERS));
    let _ = signers.fields_for(bytes, UnixMillis(0));
    let Ok((header, body)) = split(bytes) else { return };
    let middle = body.len() / 2;
    let mut hasher = BodyHasher::new();
    hasher.update(&body[..middle]);
    hasher.update(&body[middle..]);
    let hash = hasher.finish();
    assert_eq!(hash, BodyHash::of(body), "pieces come to the same as the whole");
    let mut signed = Vec::new();
    if SIGNERS.sign(header, &hash, UnixMillis(0), &mut signed).is_err() {
        return;
    }
    let field = signed.len();
    assert!(signed.ends_with(b"\r\n") && signed.is_ascii());
    signed.extend_from_slice(bytes);
    let mut fields = RawFields::of(&signed);
    assert_eq!(fields.next().map(|field| field.name), Some(&b"DKIM-Signature"[..]));
    // A content that begins with white space would go on with our field; the engine signs none, since it has no author.
    if !header.is_empty() {
        assert_eq!(fields.rest().len(), signed.len() - field);
        assert!(fields.eq(RawFields::of(bytes)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn fuzz_smoke(text in "((From|Subject|X|DKIM-Signature| d) ?:|a@a\\.test|[ -~]{0,9}|é|\r\n|\n|\r|\t|\u{0}){0,40}") {
            fuzz_sign(text.as_bytes());
        }

        #[test]
        fn fuzz_smoke_of_octets(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            fuzz_sign(&bytes);
        }
    }
}
