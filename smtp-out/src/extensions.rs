//! What a host offers in its reply to EHLO (RFC 5321 §4.1.1.1), as far as sending is decided by it.
//!
//! Unknown keywords are ignored, and so is ENHANCEDSTATUSCODES: many hosts send the codes without offering
//! them, and a text that reads as one is one. A keyword with a broken parameter counts as offered without it.

use crate::sasl::Mechanisms;

/// All false until the host says otherwise.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Extensions {
    /// RFC 2920.
    pub(crate) pipelining: bool,
    /// RFC 3030: BDAT.
    pub(crate) chunking: bool,
    /// RFC 6152.
    pub(crate) eight_bit_mime: bool,
    /// RFC 6531.
    pub(crate) smtputf8: bool,
    /// RFC 1870: MAIL may say SIZE=.
    pub(crate) size: bool,
    /// Octets of content at most; 0: not said.
    pub(crate) size_max: u64,
    /// RFC 9422: transactions per connection at most; 0: not said.
    pub(crate) mail_max: u32,
    /// RFC 9422: recipients per transaction at most; 0: not said.
    pub(crate) rcpt_max: u32,
    /// RFC 3207.
    pub(crate) starttls: bool,
    /// RFC 8689.
    pub(crate) requiretls: bool,
    /// RFC 3461.
    pub(crate) dsn: bool,
    /// RFC 4954.
    pub(crate) auth: Mechanisms,
}

impl Extensions {
    /// Reads one line of the reply, its code already off: `SIZE 52428800`.
    pub(crate) fn learn(&mut self, line: &[u8]) {
        let Ok(line) = std::str::from_utf8(line) else { return };
        let mut words = line.split_ascii_whitespace();
        let keyword = words.next().unwrap_or("").to_ascii_uppercase();
        // As drafts of RFC 2554 had it; some hosts still write both.
        if let Some(name) = keyword.strip_prefix("AUTH=") {
            self.auth.learn(name);
            return words.for_each(|name| self.auth.learn(name));
        }
        match keyword.as_str() {
            "PIPELINING" => self.pipelining = true,
            "CHUNKING" => self.chunking = true,
            "8BITMIME" => self.eight_bit_mime = true,
            "SMTPUTF8" => self.smtputf8 = true,
            "SIZE" => self.learn_size(words.next()),
            "STARTTLS" => self.starttls = true,
            "REQUIRETLS" => self.requiretls = true,
            "DSN" => self.dsn = true,
            "AUTH" => words.for_each(|name| self.auth.learn(name)),
            "LIMITS" => words.for_each(|limit| self.learn_limit(limit)),
            _ => {}
        }
    }

    fn learn_size(&mut self, size_max: Option<&str>) {
        self.size = true;
        self.size_max = size_max.and_then(|size| size.parse().ok()).unwrap_or(0);
    }

    fn learn_limit(&mut self, limit: &str) {
        let Some((name, value)) = limit.split_once('=') else { return };
        let value = value.parse().unwrap_or(0);
        match name.to_ascii_uppercase().as_str() {
            "MAILMAX" => self.mail_max = value,
            "RCPTMAX" => self.rcpt_max = value,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learnt(lines: &[&str]) -> Extensions {
        let mut extensions = Extensions::default();
        lines.iter().for_each(|line| extensions.learn(line.as_bytes()));
        extensions
    }

    #[test]
    fn keywords_are_read_in_any_case() {
        let extensions = learnt(&["Pipelining", "CHUNKING", "8bitmime", "SMTPUTF8", "X-NEW thing", ""]);
        assert!(extensions.pipelining && extensions.chunking);
        assert!(extensions.eight_bit_mime && extensions.smtputf8);
    }

    #[test]
    fn size_may_have_no_or_a_broken_parameter() {
        assert_eq!(learnt(&["SIZE 1000"]).size_max, 1000);
        for line in ["SIZE", "SIZE x", "SIZE 99999999999999999999999", "SIZE 0"] {
            let extensions = learnt(&[line]);
            assert_eq!((extensions.size, extensions.size_max), (true, 0), "{line}");
        }
    }

    #[test]
    fn mechanisms_are_read_in_the_old_form_too() {
        for line in ["AUTH plain CRAM-MD5 X-OTHER", "AUTH=PLAIN CRAM-MD5"] {
            let auth = learnt(&[line]).auth;
            assert!(auth.plain && auth.cram_md5 && !auth.login, "{line}");
        }
    }

    #[test]
    fn limits_are_read() {
        let extensions = learnt(&["LIMITS MAILMAX=20 rcptmax=50 RCPTDOMAINMAX=1"]);
        assert_eq!((extensions.mail_max, extensions.rcpt_max), (20, 50));
    }
}
