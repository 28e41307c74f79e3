//! Who is heard: the holder of a token, or this machine's own programs where there are none.
//!
//! A request with a wrong token counts among its address's wrong passwords; past `auth.wrong_per_address` it is told to
//! come later, while right ones are heard as ever. Without a token file, whoever connects from loopback is heard, but no
//! page in a browser: a page's requests bring an Origin, and a name that was made to lead here is none of ours.
//! Trusts nothing that a header says about who sent it (`Forwarded` and the like are not read).

use super::reply::Problem;
use crate::auth::{Authenticator, Scope, Tokens};
use axum::http::{HeaderMap, StatusCode, header};
use std::net::{IpAddr, SocketAddr};

/// Where a connection comes from: put into each of its requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Who sent a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Who {
    /// The token's name; none for a program of this machine that needs none.
    pub(super) name: Option<Box<str>>,
    pub(super) address: IpAddr,
}

/// Longest token that is looked at.
const TOKEN_MAX: usize = 256;

/// When a client whose tokens were wrong too often may try another.
const RETRY_SECS: u32 = 60;

/// See the module.
pub(super) struct Gate<'a> {
    /// `None`: no token is needed.
    pub(super) tokens: Option<&'a Tokens>,
    pub(super) guesses: Option<&'a Authenticator>,
}

impl Gate<'_> {
    pub(super) fn admit(&self, peer: Peer, headers: &HeaderMap, scope: Scope) -> Result<Who, Problem> {
        let address = peer.0.ip().to_canonical();
        let Some(tokens) = self.tokens else {
            check_local(address, headers)?;
            return Ok(Who { name: None, address });
        };
        let Some(token) = bearer(headers) else {
            let what = "a token is needed: Authorization: Bearer TOKEN (`ringpost token` makes one)";
            return Err(Problem::new(StatusCode::UNAUTHORIZED, what));
        };
        let holder = tokens.holder(token).ok_or_else(|| self.wrong_token(address))?;
        if !holder.may(scope) {
            let what = format!("this token is not for that: its line lacks the scope {}", scope.name());
            return Err(Problem::new(StatusCode::FORBIDDEN, what));
        }
        Ok(Who { name: Some(holder.name.clone()), address })
    }

    fn wrong_token(&self, address: IpAddr) -> Problem {
        if self.guesses.is_some_and(|guesses| !guesses.count_wrong_token(address)) {
            let what = "too many wrong tokens and passwords from this address";
            return Problem::new(StatusCode::TOO_MANY_REQUESTS, what).retry_after(RETRY_SECS);
        }
        tracing::info!(%address, "a request with a wrong token was refused");
        Problem::new(StatusCode::UNAUTHORIZED, "this token is not known here")
    }
}

/// RFC 6750 §2.1. The scheme's name is in any case.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer ") && (1..=TOKEN_MAX).contains(&token.len())).then_some(token)
}

fn check_local(address: IpAddr, headers: &HeaderMap) -> Result<(), Problem> {
    let forbidden = |what: &str| Err(Problem::new(StatusCode::FORBIDDEN, what));
    if !address.is_loopback() {
        return forbidden("without api.tokens_file only this machine's programs are heard");
    }
    if headers.contains_key(header::ORIGIN) {
        return forbidden("pages in browsers are not heard without api.tokens_file");
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if is_own_name(host) {
        return Ok(());
    }
    forbidden("without api.tokens_file the URL must name localhost or an IP address")
}

/// `localhost` or an address, with or without a port: no name whose owner decides where it leads.
fn is_own_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|octet| octet.is_ascii_digit()) => name,
        _ => host,
    };
    let literal = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || literal.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::make_token;
    use crate::config::Auth;
    use std::sync::Arc;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn peer(text: &str) -> Peer {
        Peer(SocketAddr::new(text.parse().unwrap(), 1))
    }

    fn local(from: &str, pairs: &[(&'static str, &str)]) -> Result<(), StatusCode> {
        let gate = Gate { tokens: None, guesses: None };
        gate.admit(peer(from), &headers(pairs), Scope::Inject).map(drop).map_err(|problem| problem.status)
    }

    #[test]
    fn without_tokens_only_programs_of_this_machine_are_heard() {
        for host in ["127.0.0.1:8025", "localhost", "LOCALHOST:1", "[::1]:8025", "[::1]", "127.0.0.1"] {
            assert_eq!(local("127.0.0.1", &[("host", host)]), Ok(()), "{host}");
        }
        assert_eq!(local("::ffff:127.0.0.1", &[("host", "localhost")]), Ok(()));
        assert_eq!(local("192.0.2.1", &[("host", "localhost")]), Err(StatusCode::FORBIDDEN));
        for host in ["evil.test", "evil.test:8025", "localhost.evil.test", ""] {
            assert_eq!(local("127.0.0.1", &[("host", host)]), Err(StatusCode::FORBIDDEN), "{host}");
        }
        assert_eq!(local("127.0.0.1", &[]), Err(StatusCode::FORBIDDEN));
        let page = [("host", "localhost"), ("origin", "http://evil.test")];
        assert_eq!(local("127.0.0.1", &page), Err(StatusCode::FORBIDDEN));
    }

    #[test]
    fn a_token_lets_in_from_anywhere_to_what_it_is_for() {
        let (token, line) = make_token("ann", &[Scope::Inject]).unwrap();
        let tokens = Tokens::parse(&line, "tokens").unwrap();
        let gate = Gate { tokens: Some(&tokens), guesses: None };
        let admit = |value: &str, scope| {
            let who = gate.admit(peer("192.0.2.1"), &headers(&[("authorization", value)]), scope);
            who.map(|who| who.name).map_err(|problem| problem.status)
        };
        assert_eq!(admit(&format!("Bearer {token}"), Scope::Inject), Ok(Some("ann".into())));
        assert_eq!(admit(&format!("bearer  {token} "), Scope::Inject), Ok(Some("ann".into())));
        assert_eq!(admit(&format!("Bearer {token}"), Scope::Read), Err(StatusCode::FORBIDDEN));
        for wrong in [
            format!("Basic {token}"),
            format!("Bearer {token}x"),
            "Bearer ".into(),
            "x".into(),
            token.clone(),
        ] {
            assert_eq!(admit(&wrong, Scope::Inject), Err(StatusCode::UNAUTHORIZED), "{wrong}");
        }
        let none =
            gate.admit(peer("127.0.0.1"), &headers(&[("host", "localhost")]), Scope::Read).unwrap_err();
        assert_eq!(none.status, StatusCode::UNAUTHORIZED, "loopback too, once there are tokens");
    }

    #[test]
    fn wrong_tokens_are_counted_and_right_ones_are_heard_all_the_same() {
        let (token, line) = make_token("ann", &[]).unwrap();
        let tokens = Tokens::parse(&line, "tokens").unwrap();
        let guesses = Authenticator::new(&Auth::default(), Arc::default(), &[0; 32]).unwrap();
        let gate = Gate { tokens: Some(&tokens), guesses: Some(&guesses) };
        let admit = |from: &str, token: &str| {
            let value = format!("Bearer {token}");
            gate.admit(peer(from), &headers(&[("authorization", &value)]), Scope::Read)
                .map_err(|problem| problem.status)
        };
        for _ in 0..10 {
            assert_eq!(admit("192.0.2.1", "wrong"), Err(StatusCode::UNAUTHORIZED));
        }
        assert_eq!(admit("192.0.2.1", "wrong"), Err(StatusCode::TOO_MANY_REQUESTS));
        assert!(admit("192.0.2.1", &token).is_ok());
        assert_eq!(admit("192.0.2.2", "wrong"), Err(StatusCode::UNAUTHORIZED));
    }
}
