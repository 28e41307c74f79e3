//! Bearer tokens of programs: a file of lines `name:SHA256[:scope,...]`, `#` begins a comment line.
//!
//! A token is 32 octets of the system's randomness that we make, so its plain SHA-256 tells nobody what it is, and no
//! guess is ever right; a slow hash would only slow down those who have one. A line without scopes has all of them.
//! The file is read under the same rules as the password file. Bounds: [`TOKENS_MAX`] tokens.

use super::file::read_secrets;
use crate::config::ConfigError;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt::Write as _;
use std::path::Path;

/// Lines of a file.
const TOKENS_MAX: usize = 1000;

/// What a token begins with, so that one that is found lying about is known for what it is.
const PREFIX: &str = "ringpost-";

/// Octets of randomness.
const SECRET_LEN: usize = 32;

/// What somebody may do.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Scope {
    /// Inject messages.
    Inject,
    /// Create campaigns, add recipients, pause and cancel.
    Campaigns,
    /// Read and change the suppression list.
    Suppress,
    /// Look at campaigns.
    Read,
}

impl Scope {
    const ALL: [Scope; 4] = [Scope::Inject, Scope::Campaigns, Scope::Suppress, Scope::Read];

    pub const fn name(self) -> &'static str {
        match self {
            Scope::Inject => "inject",
            Scope::Campaigns => "campaigns",
            Scope::Suppress => "suppress",
            Scope::Read => "read",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A program that has a token.
#[derive(Debug)]
pub struct Holder {
    pub name: Box<str>,
    digest: [u8; 32],
    scopes: u8,
}

impl Holder {
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes & scope.bit() != 0
    }
}

/// All that a file names.
#[derive(Debug, Default)]
pub struct Tokens {
    holders: Vec<Holder>,
}

impl Tokens {
    /// Reads a file that belongs to root or to us.
    pub fn load(path: &Path) -> Result<Tokens, ConfigError> {
        let name = path.display().to_string();
        Tokens::parse(&read_secrets(path, &name)?, &name)
    }

    /// `name` stands for the file in errors.
    pub(crate) fn parse(text: &str, name: &str) -> Result<Tokens, ConfigError> {
        let mut holders: Vec<Holder> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let wrong = |what: &str| ConfigError::Wrong {
                file: name.to_owned(),
                line: index + 1,
                what: what.to_owned(),
            };
            let Some(holder) = parse_line(line).map_err(wrong)? else { continue };
            if holders.iter().any(|other| other.name == holder.name) {
                return Err(wrong("this name has a token in a line before"));
            }
            if holders.len() == TOKENS_MAX {
                return Err(wrong("there are more than 1000 tokens"));
            }
            holders.push(holder);
        }
        Ok(Tokens { holders })
    }

    /// Whose token it is. Looks at all, each in the same time.
    pub fn holder(&self, token: &[u8]) -> Option<&Holder> {
        let given = digest(&SHA256, token);
        let is_it = |holder: &Holder| verify_slices_are_equal(&holder.digest, given.as_ref()).is_ok();
        self.holders.iter().fold(None, |found, holder| if is_it(holder) { Some(holder) } else { found })
    }

    pub fn has(&self, name: &str) -> bool {
        self.holders.iter().any(|holder| &*holder.name == name)
    }
}

/// `None`: a comment or an empty line.
fn parse_line(line: &str) -> Result<Option<Holder>, &'static str> {
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let mut parts = line.trim_end().split(':');
    let (name, hex, scopes) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let hex = hex.filter(|_| parts.next().is_none());
    let digest = hex.and_then(crate::config::parse_sha256).ok_or(
        "a line is name:SHA256[:scope,...], the SHA-256 in 64 hex digits; `ringpost token` writes such lines",
    )?;
    if !is_fit(name) {
        return Err(NAME_RULE);
    }
    let scopes = scopes.map_or(Ok(u8::MAX), parse_scopes)?;
    Ok(Some(Holder { name: name.into(), digest, scopes }))
}

const NAME_RULE: &str = "a token's name has 1 to 100 letters, digits and -._@";

fn is_fit(name: &str) -> bool {
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-._@".contains(&octet);
    (1..=100).contains(&name.len()) && name.bytes().all(is_plain)
}

fn parse_scopes(text: &str) -> Result<u8, &'static str> {
    text.split(',').try_fold(0, |scopes, name| {
        let scope = Scope::ALL.into_iter().find(|scope| scope.name() == name);
        scope.map(|scope| scopes | scope.bit()).ok_or("scopes are inject, campaigns, suppress and read")
    })
}

/// A new token, and the line that a file needs for it. Without scopes it has all.
pub(crate) fn make(name: &str, scopes: &[Scope]) -> Result<(String, String), &'static str> {
    if !is_fit(name) {
        return Err(NAME_RULE);
    }
    let mut secret = [0; SECRET_LEN];
    SystemRandom::new().fill(&mut secret).map_err(|_| "the system has no randomness for us")?;
    let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(secret));
    let mut line = format!("{name}:");
    for octet in digest(&SHA256, token.as_bytes()).as_ref() {
        let _ = write!(line, "{octet:02x}");
    }
    let names: Vec<&str> = scopes.iter().map(|scope| scope.name()).collect();
    if !names.is_empty() {
        let _ = write!(line, ":{}", names.join(","));
    }
    line.push('\n');
    Ok((token, line))
}

/// Any octets: no panic.
pub fn fuzz_tokens(octets: &[u8]) {
    if let Ok(text) = std::str::from_utf8(octets) {
        let _ = Tokens::parse(text, "fuzz");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_was_made_is_known_by_its_line() {
        let (ann, first) = make("ann", &[]).unwrap();
        let (bob, second) = make("bob", &[Scope::Read, Scope::Inject]).unwrap();
        let tokens = Tokens::parse(&format!("# ours\n\n{first}{second}"), "tokens").unwrap();
        let [ann, bob] = [ann, bob].map(|token| tokens.holder(token.as_bytes()).unwrap());
        assert_eq!((&*ann.name, &*bob.name), ("ann", "bob"));
        assert!(Scope::ALL.into_iter().all(|scope| ann.may(scope)));
        assert!(bob.may(Scope::Read) && bob.may(Scope::Inject));
        assert!(!bob.may(Scope::Campaigns) && !bob.may(Scope::Suppress));
        assert!(tokens.has("ann") && !tokens.has("eve"));
        for wrong in ["", "ringpost-", &ann.name, &first] {
            assert!(tokens.holder(wrong.as_bytes()).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn no_two_tokens_are_the_same() {
        let (one, other) = (make("a", &[]).unwrap().0, make("a", &[]).unwrap().0);
        assert!(one != other && one.len() == PREFIX.len() + 43 && one.starts_with(PREFIX), "{one}");
    }

    #[test]
    fn errors_name_the_line() {
        let error = |text: &str| Tokens::parse(text, "tokens").unwrap_err().to_string();
        let hex = "0f".repeat(32);
        assert!(error("ann").starts_with("tokens:1: a line is name:SHA256"));
        assert!(error(&format!("#\nann:{hex}:read,write")).starts_with("tokens:2: scopes are"));
        assert!(error(&format!("ann:{hex}\nann:{hex}")).starts_with("tokens:2: this name has"));
        assert!(error(&format!("a b:{hex}")).contains("a token's name"));
        assert!(error(&format!("ann:{hex}:read:x")).contains("a line is"));
        assert!(make("a:b", &[]).is_err() && make("", &[]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(#|ann|:|0f|(0f){32}|read|,|\n){0,40}") {
            fuzz_tokens(text.as_bytes());
        }
    }
}
