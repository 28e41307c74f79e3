//! What was found, as an `Authentication-Results` field says it (RFC 8601 §2.2).
//!
//! Trusts nothing of what it prints: a value that is no token, no domain and no plain mailbox is left out, so that no
//! sender can write results of its own. Lines stay under 998 octets: each value has a bound, and each result a line.

use message::Domain;
use std::fmt::Write as _;

/// Longer local parts are left out.
const LOCAL_PART_MAX: usize = 128;

/// A result's word (RFC 8601 §2.7).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Finding {
    None,
    Pass,
    Fail,
    SoftFail,
    Neutral,
    TempError,
    PermError,
}

impl Finding {
    pub fn as_str(self) -> &'static str {
        match self {
            Finding::None => "none",
            Finding::Pass => "pass",
            Finding::Fail => "fail",
            Finding::SoftFail => "softfail",
            Finding::Neutral => "neutral",
            Finding::TempError => "temperror",
            Finding::PermError => "permerror",
        }
    }
}

/// A DKIM signature's domain and selector, and what it begins with, which tells it from others.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Signature {
    pub domain: String,
    pub selector: String,
    pub begin: String,
}

/// What came of one signature, or of them all.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Dkim {
    pub finding: Finding,
    pub reason: Option<&'static str>,
    pub signature: Option<Signature>,
}

/// All that was found. What was not asked for is `None`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Findings {
    pub spf: Option<Finding>,
    pub dkim: Vec<Dkim>,
    /// With the author's domain, and what its owner wishes for mail that fails.
    pub dmarc: Option<(Finding, Option<String>, &'static str)>,
}

impl Findings {
    /// The field with its line ends. `id`: our name; `sender`: empty for the null reverse-path.
    pub(super) fn render(&self, id: &str, sender: &str, helo: &str) -> Vec<u8> {
        let mut text = format!("Authentication-Results: {id}");
        if let Some(finding) = self.spf {
            let _ = write!(text, ";\r\n\tspf={}", finding.as_str());
            match identity(sender) {
                Some(shown) => put(&mut text, "smtp.mailfrom", &shown),
                None if sender.is_empty() && is_domain(helo) => put(&mut text, "smtp.helo", helo),
                None => {}
            }
        }
        self.dkim.iter().for_each(|dkim| dkim.render(&mut text));
        if let Some((finding, domain, policy)) = &self.dmarc {
            let _ = write!(text, ";\r\n\tdmarc={}", finding.as_str());
            if let Some(domain) = domain.as_deref().filter(|domain| is_domain(domain)) {
                put(&mut text, "header.from", domain);
            }
            if !policy.is_empty() {
                put(&mut text, "policy.dmarc", policy);
            }
        }
        if *self == Findings::default() {
            text.push_str("; none");
        }
        text.push_str("\r\n");
        text.into_bytes()
    }
}

impl Dkim {
    pub(super) fn of_all(finding: Finding, reason: Option<&'static str>) -> Dkim {
        Dkim { finding, reason, signature: None }
    }

    fn render(&self, text: &mut String) {
        let _ = write!(text, ";\r\n\tdkim={}", self.finding.as_str());
        if let Some(reason) = self.reason {
            let _ = write!(text, " reason=\"{reason}\"");
        }
        let Some(signature) = &self.signature else { return };
        if is_domain(&signature.domain) {
            put(text, "header.d", &signature.domain);
        }
        if is_domain(&signature.selector) {
            put(text, "header.s", &signature.selector);
        }
        // Base64's own characters stand only in a quoted string.
        let _ = write!(text, " header.b=\"{}\"", signature.begin);
    }
}

fn put(text: &mut String, name: &str, value: &str) {
    let _ = write!(text, " {name}={value}");
}

/// A plain mailbox as it is; of another one the domain.
fn identity(mailbox: &str) -> Option<String> {
    let (local_part, domain) = mailbox.rsplit_once('@')?;
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&octet);
    let shows = (1..=LOCAL_PART_MAX).contains(&local_part.len()) && local_part.bytes().all(is_plain);
    is_domain(domain).then(|| if shows { mailbox.to_owned() } else { domain.to_owned() })
}

/// Letters, digits, hyphens, dots and underscores (selectors have them).
fn is_domain(name: &str) -> bool {
    let is_label = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet);
    (1..=255).contains(&name.len())
        && name.bytes().all(is_label)
        && Domain::parse(&name.replace('_', "-")).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(findings: &Findings, sender: &str, helo: &str) -> String {
        String::from_utf8(findings.render("mx.example", sender, helo)).unwrap()
    }

    #[test]
    fn the_field_reads_as_the_rfc_wants_it() {
        let signature =
            Signature { domain: "a.test".into(), selector: "s_1".into(), begin: "abc+/12=".into() };
        let findings = Findings {
            spf: Some(Finding::Pass),
            dkim: vec![
                Dkim { finding: Finding::Pass, reason: None, signature: Some(signature) },
                Dkim::of_all(Finding::Fail, Some("the body was changed")),
            ],
            dmarc: Some((Finding::Pass, Some("a.test".into()), "reject")),
        };
        assert_eq!(
            shown(&findings, "ann@a.test", "mail.a.test"),
            "Authentication-Results: mx.example;\r\n\tspf=pass smtp.mailfrom=ann@a.test;\r\n\tdkim=pass \
             header.d=a.test header.s=s_1 header.b=\"abc+/12=\";\r\n\tdkim=fail reason=\"the body was \
             changed\";\r\n\tdmarc=pass header.from=a.test policy.dmarc=reject\r\n"
        );
        assert_eq!(shown(&Findings::default(), "", ""), "Authentication-Results: mx.example; none\r\n");
    }

    #[test]
    fn a_sender_cannot_write_results() {
        let findings = Findings { spf: Some(Finding::Fail), ..Findings::default() };
        let spf = "Authentication-Results: mx.example;\r\n\tspf=fail";
        for (sender, helo, property) in [
            ("\"; dkim=pass header.d=b.test\"@a.test", "h", " smtp.mailfrom=a.test"),
            ("jörg@a.test", "h", " smtp.mailfrom=a.test"),
            ("ann@[192.0.2.1]", "h", ""),
            ("ann@a.test; dkim=pass", "h", ""),
            ("", "mail.a.test", " smtp.helo=mail.a.test"),
            ("", "[192.0.2.1]", ""),
            ("", "a; dkim=pass", ""),
        ] {
            assert_eq!(shown(&findings, sender, helo), format!("{spf}{property}\r\n"));
        }
        let signature = Signature { domain: "a;b".into(), selector: "s(".into(), begin: "AAAA".into() };
        let dkim = vec![Dkim { finding: Finding::Fail, reason: None, signature: Some(signature) }];
        let findings = Findings { dkim, dmarc: Some((Finding::None, Some("x y".into()), "")), spf: None };
        assert_eq!(
            shown(&findings, "", ""),
            "Authentication-Results: mx.example;\r\n\tdkim=fail header.b=\"AAAA\";\r\n\tdmarc=none\r\n"
        );
    }
}
