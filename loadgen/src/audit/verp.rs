//! Does a reverse-path name its recipient, as VERP promises?
//!
//! `PREFIX` + local part + `=` + domain, `@` host. A reverse-path for which that would pass the 64 octets of a
//! local part (RFC 5321 §4.5.3.1.1) may be a token instead. Recomputes nothing with the engine's code.

use std::str::FromStr;

const LOCAL_PART_MAX: usize = 64;

/// What reverse-paths must look like: `list-return-{}@lists.test`, or just `list-return-`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VerpCheck {
    prefix: Vec<u8>,
    /// Empty when any host will do.
    host: Vec<u8>,
    between: u8,
    at: u8,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}: VERP delimiters are two characters of the kind += or -=")]
pub struct DelimitersError(String);

/// The two delimiters: before the recipient, and in place of its `@`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Delimiters(u8, u8);

impl Default for Delimiters {
    fn default() -> Self {
        Delimiters(b'+', b'=')
    }
}

impl FromStr for Delimiters {
    type Err = DelimitersError;

    fn from_str(text: &str) -> Result<Self, DelimitersError> {
        match text.as_bytes() {
            [between, at] if between.is_ascii_punctuation() && at.is_ascii_punctuation() => {
                Ok(Delimiters(*between, *at))
            }
            _ => Err(DelimitersError(text.into())),
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    Right,
    /// Not the address, which would not have fitted.
    Token,
    Wrong,
}

impl VerpCheck {
    /// `pattern` up to `{}` is the prefix, and what follows `{}@` the host.
    pub fn new(pattern: &str, Delimiters(between, at): Delimiters) -> VerpCheck {
        let (prefix, host) = pattern.split_once("{}").unwrap_or((pattern, ""));
        let host = host.strip_prefix('@').unwrap_or(host);
        VerpCheck { prefix: prefix.into(), host: host.into(), between, at }
    }

    pub(super) fn verdict(&self, reverse_path: &[u8], forward_path: &[u8]) -> Verdict {
        let (Some((local, host)), Some((to_local, to_domain))) = (parts(reverse_path), parts(forward_path))
        else {
            return Verdict::Wrong;
        };
        if !self.host.is_empty() && !self.host.eq_ignore_ascii_case(host) {
            return Verdict::Wrong;
        }
        let needed = self.prefix.len() + usize::from(!self.has_delimiter()) + forward_path.len();
        match self.encodes(local, to_local, to_domain) {
            true => Verdict::Right,
            false if needed > LOCAL_PART_MAX && local.len() <= LOCAL_PART_MAX => Verdict::Token,
            false => Verdict::Wrong,
        }
    }

    /// `list-return-` has its delimiter, `list-return` has not.
    fn has_delimiter(&self) -> bool {
        self.prefix.last().is_none_or(|last| *last == self.between || b"+-=".contains(last))
    }

    fn encodes(&self, local: &[u8], to_local: &[u8], to_domain: &[u8]) -> bool {
        let Some(rest) = local.strip_prefix(self.prefix.as_slice()) else { return false };
        let rest = match self.has_delimiter() {
            true => Some(rest),
            false => rest.strip_prefix(&[self.between]),
        };
        let encoded =
            rest.and_then(|rest| rest.strip_prefix(to_local)).and_then(|rest| rest.strip_prefix(&[self.at]));
        encoded.is_some_and(|domain| domain.eq_ignore_ascii_case(to_domain))
    }
}

fn parts(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memrchr(b'@', path)?;
    Some((&path[..at], &path[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(pattern: &str, delimiters: &str, reverse: &str) -> Verdict {
        let check = VerpCheck::new(pattern, delimiters.parse().unwrap());
        check.verdict(reverse.as_bytes(), b"u000123@d007.test")
    }

    #[test]
    fn both_delimiters_encode_the_recipient() {
        assert_eq!(verdict("list-return-{}", "-=", "list-return-u000123=d007.test@l.test"), Verdict::Right);
        assert_eq!(verdict("list-return", "+=", "list-return+u000123=d007.test@l.test"), Verdict::Right);
        assert_eq!(verdict("list{}@l.test", "-=", "list-u000123=D007.test@L.test"), Verdict::Right);
    }

    #[test]
    fn another_recipient_host_or_prefix_is_wrong() {
        for reverse in [
            "list-u000124=d007.test@l.test",
            "list-u000123=d008.test@l.test",
            "list-u000123=d007.test@m.test",
        ] {
            assert_eq!(verdict("list-{}@l.test", "-=", reverse), Verdict::Wrong, "{reverse}");
        }
        for reverse in ["", "list-return@l.test", "lost-u000123=d007.test@l.test"] {
            assert_eq!(verdict("list-", "-=", reverse), Verdict::Wrong, "{reverse}");
        }
    }

    #[test]
    fn a_token_is_allowed_only_where_the_address_does_not_fit() {
        let prefix = format!("list-{}-", "x".repeat(50));
        assert_eq!(verdict(&prefix, "-=", "list-t0k3n@l.test"), Verdict::Token);
        assert_eq!(verdict("list-", "-=", "list-t0k3n@l.test"), Verdict::Wrong);
        assert_eq!(verdict(&prefix, "-=", &format!("{}@l.test", "y".repeat(65))), Verdict::Wrong);
    }

    #[test]
    fn delimiters_are_two_marks() {
        assert!("=".parse::<Delimiters>().is_err());
        assert!("ab".parse::<Delimiters>().is_err());
    }
}
