//! A key's record in the DNS (RFC 6376 §3.6.1): written for the zone file, and what was found held against the key.

use super::tags::tag;
use super::{Key, SignError};
use std::fmt::Write as _;

/// Octets of one string of a TXT record (RFC 1035 §3.3.14).
const STRING_MAX: usize = 255;

/// Where the record stands, without the last dot.
pub fn name_of(selector: &str, domain: &str) -> String {
    format!("{selector}._domainkey.{domain}")
}

impl Key {
    /// The record's text.
    pub fn record(&self) -> Result<String, SignError> {
        Ok(format!("v=DKIM1; k={}; p={}", self.algorithm().key_type(), self.public()?))
    }
}

/// The record as a zone file has it, in strings that each fit.
pub fn zone_lines(name: &str, record: &str) -> String {
    let mut lines = format!("{name}. IN TXT (");
    // It is ASCII, and has no quotes.
    for string in record.as_bytes().chunks(STRING_MAX).filter_map(|part| std::str::from_utf8(part).ok()) {
        let _ = write!(lines, "\n    \"{string}\"");
    }
    lines.push_str(" )\n");
    lines
}

/// Why verifiers would not take the key's signatures by the record that is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Objection {
    #[error("it is no DKIM record: v= is not DKIM1")]
    Version,
    #[error("k= is another algorithm than the key's")]
    Algorithm,
    #[error("p= is empty: the key was taken back")]
    Revoked,
    #[error("p= is not this key's")]
    OtherKey,
    #[error("h= does not allow sha256")]
    Hash,
    #[error("s= does not allow e-mail")]
    Service,
    #[error("t=s allows no other domain in i=, and dkim.domains has an identity below")]
    Strict,
}

/// What is wrong with `record`, for signatures by `key` whose `i=` is below their `d=` or is not. Empty: nothing.
pub fn objections(record: &str, key: &Key, identity_is_below: bool) -> Vec<Objection> {
    let value = |name: &str| tag(record.as_bytes(), name).map(|value| String::from_utf8_lossy(value));
    let lists = |name: &str, any_of: &[&str], default: bool| {
        let Some(value) = value(name) else { return default };
        value.split(':').any(|word| any_of.iter().any(|one| word.trim().eq_ignore_ascii_case(one)))
    };
    let key_type = value("k").unwrap_or("rsa".into());
    let public: String = value("p").unwrap_or_default().split_whitespace().collect();
    let rules = [
        (value("v").is_none_or(|version| version == "DKIM1"), Objection::Version),
        (key_type.eq_ignore_ascii_case(key.algorithm().key_type()), Objection::Algorithm),
        (!public.is_empty(), Objection::Revoked),
        (public.is_empty() || key.is_public(&public), Objection::OtherKey),
        (lists("h", &["sha256"], true), Objection::Hash),
        (lists("s", &["*", "email"], true), Objection::Service),
        (!(identity_is_below && lists("t", &["s"], false)), Objection::Strict),
    ];
    rules.into_iter().filter(|(holds, _)| !holds).map(|(_, objection)| objection).collect()
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn rsa() -> Key {
        Key::from_pem(samples::RSA_PKCS8.as_bytes()).unwrap()
    }

    #[test]
    fn records_are_split_into_strings() {
        let record = rsa().record().unwrap();
        let lines = zone_lines(&name_of("r1", "example.org"), &record);
        let mut strings = lines.lines();
        assert_eq!(strings.next(), Some("r1._domainkey.example.org. IN TXT ("));
        let strings: Vec<&str> =
            strings.map(|line| line.trim().trim_end_matches(" )").trim_matches('"')).collect();
        assert!(strings.len() == 2 && strings.iter().all(|string| string.len() <= 255), "{lines}");
        assert_eq!(strings.concat(), record);
        let ed = Key::from_pem(samples::ED25519.as_bytes()).unwrap();
        assert_eq!(
            zone_lines(&name_of("brisbane", "football.example.com"), &ed.record().unwrap()),
            "brisbane._domainkey.football.example.com. IN TXT (\n    \"v=DKIM1; k=ed25519; \
             p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\" )\n"
        );
    }

    #[test]
    fn a_right_record_meets_no_objection() {
        let key = rsa();
        let record = key.record().unwrap();
        assert_eq!(objections(&record, &key, true), []);
        let bare = record.replace("v=DKIM1; k=rsa; ", "").replace("IDAQAB", "ID AQ AB");
        assert_eq!(objections(&bare, &key, false), []);
        assert_eq!(objections(&format!("{record}; t=y:s; h=sha1:sha256; s=email"), &key, false), []);
        // RFC 6376 §3.6.1 says that it is an RSAPublicKey; most publish a SubjectPublicKeyInfo.
        assert_eq!(objections(&format!("p={}", samples::RSA_PKCS1_PUBLIC), &key, false), []);
    }

    #[test]
    fn wrong_records_are_told_apart() {
        let key = rsa();
        let record = key.record().unwrap();
        let only = |record: &str| match objections(record, &key, true)[..] {
            [one] => one,
            ref several => panic!("{several:?}"),
        };
        assert_eq!(only(&record.replace("DKIM1", "DKIM2")), Objection::Version);
        assert_eq!(only(&record.replace("k=rsa", "k=ed25519")), Objection::Algorithm);
        assert_eq!(only("v=DKIM1; p="), Objection::Revoked);
        assert_eq!(only("v=DKIM1; p=AAAA"), Objection::OtherKey);
        assert_eq!(only(&format!("{record}; h=sha1")), Objection::Hash);
        assert_eq!(only(&format!("{record}; s=tlsrpt")), Objection::Service);
        assert_eq!(only(&format!("{record}; t=s")), Objection::Strict);
        assert_eq!(objections("spf1", &key, false), [Objection::Revoked]);
    }
}
