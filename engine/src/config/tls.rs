//! `[tls]`: how connections to hosts are protected.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// See the module.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// For domains that nothing below speaks of.
    pub mode: TlsMode,
    /// Ask for TLSA records, validating by DNSSEC (RFC 7672).
    pub dane: bool,
    /// Ask for MTA-STS policies (RFC 8461).
    pub mta_sts: bool,
    /// Mail whose header says `TLS-Required: No` (RFC 8689) is not held to what the domain publishes (TLSA records, MTA-STS
    /// policy): TLS is used where it works, and the mail goes all the same where it does not. What the operator demands,
    /// by `mode`, `domains` or a route's `tls`, holds for it as for any other, and REQUIRETLS goes before that field.
    pub obey_tls_required: bool,
    /// Where hosts of policies are asked for them. Another port than 443 is for tests: RFC 8461 §3.3 knows no other.
    pub mta_sts_port: u16,
    /// DNSSEC trust anchors, as DNSKEY records. Default: the root's.
    pub trust_anchors: Option<PathBuf>,
    /// PEM file of the authorities to trust. Default: the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM files of the certificate that we show to a host which asks for one, and of its key.
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// What the operator demands of single domains, before anything that their name servers say: `example.net` is
    /// the domain, `.example.net` everything below it.
    pub domains: BTreeMap<String, DomainTls>,
    /// Daily reports to domains that ask for them (RFC 8460).
    pub reports: Option<TlsReports>,
}

impl Default for Tls {
    fn default() -> Tls {
        Tls {
            mode: TlsMode::May,
            dane: false,
            mta_sts: true,
            obey_tls_required: true,
            mta_sts_port: 443,
            trust_anchors: None,
            ca_file: None,
            certificate: None,
            key: None,
            domains: BTreeMap::new(),
            reports: None,
        }
    }
}

/// How much protection.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    Never,
    #[default]
    May,
    Encrypt,
    Verify,
    Fingerprint,
}

/// `[tls.domains."example.net"]`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DomainTls {
    pub mode: TlsMode,
    /// With `verify`: the names that a certificate may be for, `*.` in front for any one label. Default: the host's.
    #[serde(default)]
    pub names: Vec<String>,
    /// With `fingerprint`: SHA-256 of the certificate or of its public key, in hex.
    #[serde(default)]
    pub sha256: Vec<String>,
}

/// `[tls.reports]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TlsReports {
    /// Who reports, in words.
    pub organization: String,
    /// Where questions about a report go; reports by mail come from here.
    pub contact: String,
}

impl Tls {
    /// What must hold, and what is said if it does not.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.mode == TlsMode::Fingerprint {
            return Err("tls.mode: a fingerprint is one host's; write it into tls.domains".into());
        }
        if self.certificate.is_some() != self.key.is_some() {
            return Err("tls.certificate and tls.key go together".into());
        }
        if let Some(reports) = &self.reports
            && message::Mailbox::parse(&reports.contact).is_err()
        {
            return Err(format!("tls.reports.contact: {:?} is no mail address", reports.contact));
        }
        for (domain, tls) in &self.domains {
            let at = format!("tls.domains.{domain:?}");
            if message::Domain::parse(domain.strip_prefix('.').unwrap_or(domain)).is_err() {
                return Err(format!("{at}: that is no domain and no .domain"));
            }
            let is = |mode| tls.mode == mode;
            if !tls.names.is_empty() && !is(TlsMode::Verify) {
                return Err(format!("{at}.names is used with mode = \"verify\" only"));
            }
            if tls.sha256.is_empty() == is(TlsMode::Fingerprint) {
                return Err(format!("{at}: sha256 goes with mode = \"fingerprint\", and the mode needs it"));
            }
            if let Some(wrong) = tls.sha256.iter().find(|hex| parse_sha256(hex).is_none()) {
                return Err(format!("{at}.sha256: {wrong:?} is not 64 hex digits, with or without colons"));
            }
        }
        Ok(())
    }
}

impl DomainTls {
    /// The digests in `sha256`.
    pub fn digests(&self) -> Vec<[u8; 32]> {
        self.sha256.iter().filter_map(|hex| parse_sha256(hex)).collect()
    }
}

/// `ab:cd:…` or `abcd…`, as openssl prints it.
pub(crate) fn parse_sha256(hex: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = hex.bytes().filter(|octet| *octet != b':').collect();
    let mut digest = [0; 32];
    let (pairs, rest) = digits.as_chunks::<2>();
    if pairs.len() != digest.len() || !rest.is_empty() {
        return None;
    }
    for (octet, pair) in digest.iter_mut().zip(pairs) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *octet = digit(0)? << 4 | digit(1)?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(tls: &str) -> String {
        toml::from_str::<Tls>(tls).unwrap().check().unwrap_err()
    }

    #[test]
    fn wrong_settings_say_what_to_do() {
        assert!(wrong("mode = \"fingerprint\"").contains("tls.domains"));
        let reports = "reports = { organization = \"o\", contact = \"mailto:a@b.test\" }";
        assert!(wrong(reports).contains("no mail address"));
        assert!(wrong("certificate = \"c.pem\"").contains("tls.key"));
        assert!(wrong("domains.\"a b\" = { mode = \"may\" }").contains("no domain"));
        assert!(wrong("domains.\"a.test\" = { mode = \"may\", names = [\"b\"] }").contains("verify"));
        assert!(wrong("domains.\"a.test\" = { mode = \"fingerprint\" }").contains("sha256"));
        assert!(
            wrong("domains.\"a.test\" = { mode = \"fingerprint\", sha256 = [\"ab\"] }").contains("64 hex")
        );
    }

    #[test]
    fn digests_are_read_with_and_without_colons() {
        let plain = "0f".repeat(32);
        let colons = vec!["0F"; 32].join(":");
        assert_eq!((parse_sha256(&plain), parse_sha256(&colons)), (Some([15; 32]), Some([15; 32])));
    }
}
