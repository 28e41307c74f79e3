//! A body's digest, which every signature of it holds.

use crate::canonical::RelaxedBody;
use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};

/// SHA-256 of a body in its relaxed form: `bh=`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BodyHash([u8; SHA256_OUTPUT_LEN]);

impl BodyHash {
    /// One pass, no allocation.
    pub fn of(body: &[u8]) -> BodyHash {
        let mut hasher = BodyHasher::new();
        hasher.update(body);
        hasher.finish()
    }

    pub fn as_bytes(&self) -> &[u8; SHA256_OUTPUT_LEN] {
        &self.0
    }
}

/// The same of a body that comes in pieces, cut anywhere. Cloned, it goes on from what two bodies have in common.
#[derive(Clone)]
pub struct BodyHasher {
    context: Context,
    relaxed: RelaxedBody,
}

impl Default for BodyHasher {
    fn default() -> BodyHasher {
        BodyHasher::new()
    }
}

impl BodyHasher {
    pub fn new() -> BodyHasher {
        BodyHasher { context: Context::new(&SHA256), relaxed: RelaxedBody::default() }
    }

    pub fn update(&mut self, piece: &[u8]) {
        let BodyHasher { context, relaxed } = self;
        relaxed.update(piece, |part| context.update(part));
    }

    pub fn finish(self) -> BodyHash {
        let BodyHasher { mut context, relaxed } = self;
        relaxed.finish(|part| context.update(part));
        let mut hash = [0; SHA256_OUTPUT_LEN];
        hash.copy_from_slice(context.finish().as_ref());
        BodyHash(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;

    fn shown(hash: BodyHash) -> String {
        base64::engine::general_purpose::STANDARD.encode(hash.as_bytes())
    }

    /// RFC 6376 §3.4.4.
    #[test]
    fn an_empty_body_has_the_rfcs_digest() {
        assert_eq!(shown(BodyHash::of(b"")), "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
        assert_eq!(BodyHash::of(b"\r\n \r\n\r\n"), BodyHash::of(b""));
    }

    #[test]
    fn what_two_bodies_have_in_common_is_hashed_once() {
        let mut common = BodyHasher::new();
        common.update(b"Dear ");
        let whole = |name: &[u8]| {
            let mut hasher = common.clone();
            hasher.update(name);
            hasher.update(b",\r\n");
            hasher.finish()
        };
        assert_eq!(whole(b"Ann"), BodyHash::of(b"Dear  Ann, \r\n\r\n"));
        assert_ne!(whole(b"Ann"), whole(b"Bob"));
    }
}
