//! The exchange of an AUTH command (RFC 4954): PLAIN, LOGIN, CRAM-MD5, XOAUTH2.
//!
//! The host's challenges are octets to answer, nothing else. What the exchange says never stands in a log: see
//! [`Exchange::shown`]. Bound: [`STEPS_MAX`] challenges, then it is given up.

use crate::link::{Login, Secret};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use md5::Md5;
use std::fmt::Write as _;

/// LOGIN has two challenges, and an XOAUTH2 that fails has one.
const STEPS_MAX: u8 = 3;

/// A command line with its CRLF (RFC 5321 §4.5.3.1.4); a longer first response goes behind a challenge (RFC 4954 §4).
const COMMAND_MAX: usize = 512;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mechanism {
    CramMd5,
    Plain,
    Login,
    XOAuth2,
}

/// What the host offers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Mechanisms {
    pub(crate) cram_md5: bool,
    pub(crate) plain: bool,
    pub(crate) login: bool,
    pub(crate) xoauth2: bool,
}

impl Mechanisms {
    pub(crate) fn learn(&mut self, name: &str) {
        match name.to_ascii_uppercase().as_str() {
            "CRAM-MD5" => self.cram_md5 = true,
            "PLAIN" => self.plain = true,
            "LOGIN" => self.login = true,
            "XOAUTH2" => self.xoauth2 = true,
            _ => {}
        }
    }

    /// The strongest that both know: CRAM-MD5 does not give the password away.
    fn choose(self, secret: &Secret) -> Option<Mechanism> {
        match secret {
            Secret::Password(_) if self.cram_md5 => Some(Mechanism::CramMd5),
            Secret::Password(_) if self.plain => Some(Mechanism::Plain),
            Secret::Password(_) if self.login => Some(Mechanism::Login),
            Secret::Token(_) if self.xoauth2 => Some(Mechanism::XOAuth2),
            Secret::Password(_) | Secret::Token(_) => None,
        }
    }
}

/// One AUTH under way.
#[derive(Debug)]
pub(crate) struct Exchange {
    mechanism: Mechanism,
    steps: u8,
    /// The first response did not fit into the command.
    owes_first: bool,
    /// The line to say next, with its CRLF.
    pub(crate) line: Vec<u8>,
}

impl Exchange {
    /// None: no mechanism that both know.
    pub(crate) fn begin(login: &Login, offered: Mechanisms) -> Option<Exchange> {
        let mechanism = offered.choose(&login.secret)?;
        let mut line = format!("AUTH {}", mechanism.name());
        let first = mechanism.first(login).map(|first| STANDARD.encode(first));
        let fits = |first: &String| line.len() + 1 + first.len() + 2 <= COMMAND_MAX;
        let owes_first = first.as_ref().is_some_and(|first| !fits(first));
        if let Some(first) = first.filter(fits) {
            line.push(' ');
            line.push_str(&first);
        }
        line.push_str("\r\n");
        Some(Exchange { mechanism, steps: 0, owes_first, line: line.into_bytes() })
    }

    /// Answers a challenge; false if it is one that cannot be.
    pub(crate) fn answer(&mut self, login: &Login, challenge: &[u8]) -> bool {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return false;
        }
        let Some(response) = self.response(login, challenge) else { return false };
        self.line.clear();
        self.line.extend_from_slice(STANDARD.encode(response).as_bytes());
        self.line.extend_from_slice(b"\r\n");
        true
    }

    fn response(&mut self, login: &Login, challenge: &[u8]) -> Option<Vec<u8>> {
        if std::mem::take(&mut self.owes_first) {
            return self.mechanism.first(login);
        }
        match (self.mechanism, self.steps) {
            // Hosts differ in what they write into the challenges, not in their order.
            (Mechanism::Login, 1) => Some(login.user.clone().into_bytes()),
            (Mechanism::Login, 2) => Some(login.secret.as_bytes().to_vec()),
            (Mechanism::CramMd5, 1) => cram_md5(login, &STANDARD.decode(challenge).ok()?),
            // The challenge says why it failed; an empty response gets the reply that ends it.
            (Mechanism::XOAuth2, _) => Some(Vec::new()),
            (Mechanism::Login | Mechanism::CramMd5 | Mechanism::Plain, _) => None,
        }
    }

    /// The line to say next as a log may have it.
    pub(crate) fn shown(&self) -> String {
        let has_response = self.line.iter().filter(|octet| **octet == b' ').count() > 1;
        match (self.steps, has_response) {
            (0, true) => format!("AUTH {} <hidden>", self.mechanism.name()),
            (0, false) => format!("AUTH {}", self.mechanism.name()),
            (_, _) => "<hidden>".to_owned(),
        }
    }
}

impl Mechanism {
    fn name(self) -> &'static str {
        match self {
            Mechanism::CramMd5 => "CRAM-MD5",
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
            Mechanism::XOAuth2 => "XOAUTH2",
        }
    }

    /// What may come with the command; none where the host speaks first.
    fn first(self, login: &Login) -> Option<Vec<u8>> {
        let (user, secret) = (login.user.as_bytes(), login.secret.as_bytes());
        match self {
            Mechanism::Plain => Some([b"\0", user, b"\0", secret].concat()),
            Mechanism::XOAuth2 => Some([b"user=", user, b"\x01auth=Bearer ", secret, b"\x01\x01"].concat()),
            Mechanism::CramMd5 | Mechanism::Login => None,
        }
    }
}

impl Secret {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Secret::Password(text) | Secret::Token(text) => text.as_bytes(),
        }
    }
}

/// RFC 2195 §2: the user, a space, HMAC-MD5 of the challenge in hex.
fn cram_md5(login: &Login, challenge: &[u8]) -> Option<Vec<u8>> {
    let mut mac = Hmac::<Md5>::new_from_slice(login.secret.as_bytes()).ok()?;
    mac.update(challenge);
    let mut text = format!("{} ", login.user);
    for octet in mac.finalize().into_bytes() {
        write!(text, "{octet:02x}").ok()?;
    }
    Some(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(secret: Secret) -> Login {
        Login { user: "tim".into(), secret, allow_plain_text: false }
    }

    fn offered(names: &str) -> Mechanisms {
        let mut mechanisms = Mechanisms::default();
        names.split(' ').for_each(|name| mechanisms.learn(name));
        mechanisms
    }

    fn line(exchange: &Exchange) -> &str {
        std::str::from_utf8(&exchange.line).unwrap()
    }

    #[test]
    fn cram_md5_answers_as_in_rfc_2195() {
        let login = login(Secret::Password("tanstaaftanstaaf".into()));
        let mut exchange = Exchange::begin(&login, offered("LOGIN PLAIN cram-md5")).unwrap();
        assert_eq!(line(&exchange), "AUTH CRAM-MD5\r\n");
        assert!(exchange.answer(&login, b"PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+"));
        assert_eq!(line(&exchange), "dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw\r\n");
        assert!(!exchange.answer(&login, b""), "a second challenge has no answer");
    }

    #[test]
    fn login_gives_user_and_password_whatever_is_asked() {
        let login = login(Secret::Password("secret".into()));
        let mut exchange = Exchange::begin(&login, offered("LOGIN")).unwrap();
        assert_eq!(line(&exchange), "AUTH LOGIN\r\n");
        assert!(exchange.answer(&login, b"any"));
        assert_eq!(line(&exchange), "dGlt\r\n");
        assert!(exchange.answer(&login, b"!"));
        assert_eq!(line(&exchange), "c2VjcmV0\r\n");
        assert!(!exchange.answer(&login, b""));
    }

    #[test]
    fn token_goes_by_xoauth2_alone_and_behind_the_command_if_it_is_long() {
        let short = login(Secret::Token("t".into()));
        assert!(Exchange::begin(&short, offered("PLAIN LOGIN CRAM-MD5")).is_none());
        let exchange = Exchange::begin(&short, offered("PLAIN XOAUTH2")).unwrap();
        assert_eq!(line(&exchange), "AUTH XOAUTH2 dXNlcj10aW0BYXV0aD1CZWFyZXIgdAEB\r\n");
        let long = login(Secret::Token("t".repeat(2000)));
        let mut exchange = Exchange::begin(&long, offered("XOAUTH2")).unwrap();
        assert_eq!(line(&exchange), "AUTH XOAUTH2\r\n");
        assert!(exchange.answer(&long, b"") && line(&exchange).len() > 2600);
        assert!(exchange.answer(&long, b"eyJzdGF0dXMiOiI0MDEifQ==") && line(&exchange) == "\r\n");
    }

    #[test]
    fn nothing_of_an_exchange_is_shown() {
        let login = login(Secret::Password("secret".into()));
        let mut exchange = Exchange::begin(&login, offered("PLAIN")).unwrap();
        assert_eq!(exchange.shown(), "AUTH PLAIN <hidden>");
        assert!(!exchange.answer(&login, b"") && exchange.shown() == "<hidden>");
    }
}
