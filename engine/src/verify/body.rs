//! A body's digests for its DKIM signatures.
//!
//! Our own: the library's relaxed one is wrong for a body that ends in a line of white space (mail-auth #62, mended in
//! a version that this compiler cannot build), and it hashes on the thread that waits for name servers.

use aws_lc_rs::digest::{Context, SHA256};
use mail_auth::dkim::Canonicalization;
use message::canonical::{relaxed_body, simple_body};

/// SHA-256 of each form.
pub(super) fn digests(body: &[u8], forms: &[Canonicalization]) -> Vec<Vec<u8>> {
    forms.iter().map(|form| digest(body, *form)).collect()
}

fn digest(body: &[u8], form: Canonicalization) -> Vec<u8> {
    let mut context = Context::new(&SHA256);
    match form {
        Canonicalization::Relaxed => relaxed_body(body, |part| context.update(part)),
        Canonicalization::Simple => simple_body(body, |part| context.update(part)),
    }
    context.finish().as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;

    /// RFC 6376 §3.4.3, §3.4.4.
    #[test]
    fn empty_bodies_have_the_rfcs_digests() {
        let digests = digests(b"", &[Canonicalization::Simple, Canonicalization::Relaxed]);
        let shown: Vec<String> =
            digests.iter().map(|digest| base64::engine::general_purpose::STANDARD.encode(digest)).collect();
        assert_eq!(
            shown,
            ["frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY=", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="]
        );
    }
}
