//! TLSA records against certificates (RFC 6698 §2.1, RFC 7671, RFC 7672 §3.1).
//!
//! Usages 0 and 1 are unusable for SMTP, and so is a record with a selector or matching type nobody knows, or with data
//! that cannot be what it says. A chain of a trust anchor (usage 2) is built to every certificate that the host presented
//! above its own and a record matches, and to anchors that stand in a record whole (`2 0 0`).

use crate::policy::Tlsa;
use aws_lc_rs::digest::{SHA256, SHA512, digest};
use rustls_pki_types::{CertificateDer, TrustAnchor};
use webpki::{anchor_from_trusted_cert, spki_for_anchor};

const TRUST_ANCHOR: u8 = 2;
pub(super) const END_ENTITY: u8 = 3;

const WHOLE: u8 = 0;
const KEY: u8 = 1;

const EXACT: u8 = 0;
const BY_SHA256: u8 = 1;
const BY_SHA512: u8 = 2;

/// Records that can match something. Where a usage and selector have digests of both kinds, the stronger alone counts
/// (RFC 7671 §9).
pub(super) fn usable(records: &[Tlsa]) -> Vec<Tlsa> {
    let has_stronger = |record: &Tlsa| {
        let (usage, selector) = (record.usage, record.selector);
        records.iter().any(|other| {
            (other.usage, other.selector, other.matching) == (usage, selector, BY_SHA512) && is_usable(other)
        })
    };
    let counts =
        |record: &&Tlsa| is_usable(record) && !(record.matching == BY_SHA256 && has_stronger(record));
    records.iter().filter(counts).cloned().collect()
}

fn is_usable(record: &Tlsa) -> bool {
    let is_known =
        matches!(record.usage, TRUST_ANCHOR | END_ENTITY) && matches!(record.selector, WHOLE | KEY);
    let is_whole = match record.matching {
        EXACT if record.selector == WHOLE => {
            anchor_from_trusted_cert(&CertificateDer::from(record.data.as_slice())).is_ok()
        }
        EXACT => !record.data.is_empty(),
        BY_SHA256 => record.data.len() == SHA256.output_len(),
        BY_SHA512 => record.data.len() == SHA512.output_len(),
        _ => false,
    };
    is_known && is_whole
}

/// A record of this usage matches the certificate.
pub(super) fn matches(records: &[Tlsa], usage: u8, certificate: &CertificateDer<'_>) -> bool {
    let Ok(anchor) = anchor_from_trusted_cert(certificate) else { return false };
    let key = spki_for_anchor(&anchor);
    records.iter().filter(|record| record.usage == usage).any(|record| {
        let selected: &[u8] = if record.selector == WHOLE { certificate } else { &key };
        match record.matching {
            EXACT => selected == record.data,
            BY_SHA256 => digest(&SHA256, selected).as_ref() == record.data,
            BY_SHA512 => digest(&SHA512, selected).as_ref() == record.data,
            _ => false,
        }
    })
}

/// What a chain may lead to: certificates of `chain` (without the host's own) that a record of usage 2 matches, and
/// certificates that are in such a record.
pub(super) fn anchors<'a>(records: &'a [Tlsa], chain: &'a [CertificateDer<'a>]) -> Vec<TrustAnchor<'static>> {
    let presented = chain.iter().filter(|certificate| matches(records, TRUST_ANCHOR, certificate)).cloned();
    let published = records
        .iter()
        .filter(|record| (record.usage, record.selector, record.matching) == (TRUST_ANCHOR, WHOLE, EXACT))
        .map(|record| CertificateDer::from(record.data.as_slice()));
    presented
        .chain(published)
        .filter_map(|certificate| Some(anchor_from_trusted_cert(&certificate).ok()?.to_owned()))
        .collect()
}
