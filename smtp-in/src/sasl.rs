//! The exchange of an AUTH command, our side (RFC 4954): PLAIN, LOGIN, CRAM-MD5, SCRAM-SHA-256.
//!
//! Pure: challenges and responses without their base64, questions to the engine, its answers. What a client says here is
//! shown by no `Debug`. Bounds: a response has at most [`RESPONSE_MAX`] octets; no exchange has more than three.

mod scram;

use crate::door::{Question, ScramKeys};
use crate::limits::Mechanism;
use aws_lc_rs::digest::{SHA256, digest};
use message::Secret;
use scram::Scram;

/// A response's line with its CR LF (RFC 4954 §4).
pub(crate) const LINE_MAX: usize = 12_288;

/// Octets of a name to log in by.
const USER_MAX: usize = 255;

/// What an exchange waits for.
pub(crate) enum Exchange {
    Plain,
    LoginName,
    LoginPassword {
        user: String,
    },
    CramMd5 {
        challenge: String,
    },
    Scram(Box<Scram>),
    /// The engine's word on this user.
    Word {
        user: String,
    },
}

/// What a response leads to.
pub(crate) enum Step {
    /// Said behind `334`, and the exchange goes on.
    Challenge(Vec<u8>, Exchange),
    Ask(Question, Exchange),
    /// A wrong password, or the like of one.
    Wrong,
    /// No response of this mechanism.
    Malformed,
}

/// A password may be in it.
impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Exchange(hidden)")
    }
}

impl Exchange {
    /// With the first challenge, which is empty where the client speaks first. `seed` is used for nothing else.
    pub(crate) fn begin(mechanism: Mechanism, seed: &Seed, host_name: &str) -> (Exchange, Vec<u8>) {
        match mechanism {
            Mechanism::Plain => (Exchange::Plain, Vec::new()),
            Mechanism::Login => (Exchange::LoginName, b"Username:".to_vec()),
            Mechanism::CramMd5 => {
                let challenge = format!("<{}@{host_name}>", seed.text());
                (Exchange::CramMd5 { challenge: challenge.clone() }, challenge.into_bytes())
            }
            Mechanism::ScramSha256 => (Exchange::Scram(Box::new(Scram::begin(seed.text()))), Vec::new()),
        }
    }

    pub(crate) fn respond(self, response: &[u8]) -> Step {
        match self {
            Exchange::Plain => plain(response),
            Exchange::LoginName => match user_of(response) {
                Some(user) => Step::Challenge(b"Password:".to_vec(), Exchange::LoginPassword { user }),
                None => Step::Wrong,
            },
            Exchange::LoginPassword { user } => ask_password(user, response),
            Exchange::CramMd5 { challenge } => cram_md5(challenge, response),
            Exchange::Scram(scram) => scram.respond(response),
            Exchange::Word { .. } => Step::Malformed,
        }
    }

    pub(crate) fn take_keys(self, keys: ScramKeys) -> Step {
        match self {
            Exchange::Scram(scram) => scram.take_keys(keys),
            _ => Step::Wrong,
        }
    }
}

/// What challenges are made of: unpredictable, and told to nobody.
pub(crate) struct Seed(pub(crate) [u8; 16], pub(crate) u32);

impl Seed {
    /// Printable, without a comma; of another seed, or another count, another.
    fn text(&self) -> String {
        let octets = digest(&SHA256, &[&self.0[..], &self.1.to_be_bytes()].concat());
        octets.as_ref()[..16].iter().map(|octet| format!("{octet:02x}")).collect()
    }
}

/// RFC 4616: [authzid] NUL authcid NUL passwd. Whoever logs in acts as itself.
fn plain(response: &[u8]) -> Step {
    let mut parts = response.split(|octet| *octet == 0);
    let (Some(acts_as), Some(user), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Step::Malformed;
    };
    match user_of(user) {
        Some(user) if acts_as.is_empty() || acts_as == user.as_bytes() => ask_password(user, password),
        _ => Step::Wrong,
    }
}

fn ask_password(user: String, password: &[u8]) -> Step {
    let question = Question::Password { user: user.clone(), password: Secret::new(password.to_vec()) };
    Step::Ask(question, Exchange::Word { user })
}

/// RFC 2195: the name, a space, the digest in lower-case hexadecimal. A name may have spaces.
fn cram_md5(challenge: String, response: &[u8]) -> Step {
    let Some(space) = memchr::memrchr(b' ', response) else { return Step::Malformed };
    let Some(digest) = hex16(&response[space + 1..]) else { return Step::Malformed };
    match user_of(&response[..space]) {
        Some(user) => {
            Step::Ask(Question::CramMd5 { user: user.clone(), challenge, digest }, Exchange::Word { user })
        }
        None => Step::Wrong,
    }
}

fn hex16(digits: &[u8]) -> Option<[u8; 16]> {
    let mut octets = [0; 16];
    let (pairs, rest) = digits.as_chunks::<2>();
    for (octet, [high, low]) in octets.iter_mut().zip(pairs) {
        *octet = crate::xtext::hex(*high)? << 4 | crate::xtext::hex(*low)?;
    }
    (pairs.len() == 16 && rest.is_empty()).then_some(octets)
}

/// A name that may stand in a log and in a look-up: UTF-8 without control characters, neither empty nor long.
pub(crate) fn user_of(octets: &[u8]) -> Option<String> {
    let user = std::str::from_utf8(octets).ok()?;
    let legal = (1..=USER_MAX).contains(&user.len()) && !user.contains(char::is_control);
    legal.then(|| user.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: Seed = Seed([7; 16], 0);

    fn begin(mechanism: Mechanism) -> Exchange {
        Exchange::begin(mechanism, &SEED, "mx.example.org").0
    }

    #[test]
    fn plain_acts_as_itself_alone() {
        for good in [&b"\0ann\0secret"[..], b"ann\0ann\0secret"] {
            let Step::Ask(Question::Password { user, password }, _) = begin(Mechanism::Plain).respond(good)
            else {
                panic!("{}", good.escape_ascii())
            };
            assert_eq!((user.as_str(), password.octets()), ("ann", &b"secret"[..]));
            assert!(!format!("{password:?}").contains("secret"));
        }
        for wrong in [&b"bob\0ann\0secret"[..], b"\0\0secret", b"\0a\x01\0secret", b"\0\xff\0secret"] {
            assert!(
                matches!(begin(Mechanism::Plain).respond(wrong), Step::Wrong),
                "{}",
                wrong.escape_ascii()
            );
        }
        for malformed in [&b""[..], b"ann", b"\0ann", b"\0ann\0a\0b"] {
            assert!(matches!(begin(Mechanism::Plain).respond(malformed), Step::Malformed));
        }
    }

    #[test]
    fn names_are_bounded() {
        assert!(user_of(&[b'a'; USER_MAX]).is_some());
        assert!(user_of(&[b'a'; USER_MAX + 1]).is_none());
    }

    #[test]
    fn challenges_differ_and_do_not_tell_the_seed() {
        let (_, first) = Exchange::begin(Mechanism::CramMd5, &SEED, "mx.example.org");
        let (_, second) = Exchange::begin(Mechanism::CramMd5, &Seed([7; 16], 1), "mx.example.org");
        assert_ne!(first, second);
        assert!(first.starts_with(b"<") && first.ends_with(b"@mx.example.org>"));
        assert!(!first.windows(8).any(|window| window == b"07070707"));
    }

    #[test]
    fn cram_md5_asks_with_the_challenge() {
        let (exchange, challenge) = Exchange::begin(Mechanism::CramMd5, &SEED, "mx.example.org");
        let response = b"tim mac b913a602c7eda7a495b4e6e7334d3890";
        let Step::Ask(Question::CramMd5 { user, challenge: asked, digest }, _) = exchange.respond(response)
        else {
            panic!()
        };
        assert_eq!(
            (user.as_str(), asked.as_bytes(), digest[0], digest[15]),
            ("tim mac", &challenge[..], 0xb9, 0x90)
        );
        for malformed in [&b"tim"[..], b"tim b913", b"tim b913a602c7eda7a495b4e6e7334d389g"] {
            assert!(matches!(begin(Mechanism::CramMd5).respond(malformed), Step::Malformed));
        }
    }
}
