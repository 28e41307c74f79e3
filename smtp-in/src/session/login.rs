//! AUTH: who may, the exchange, what comes of it (RFC 4954).
//!
//! A password goes from the wire into its question and is wiped there; no reply, rejection or `Debug` has it.

use super::{Reading, Session, Waiting};
use crate::command::Auth;
use crate::door::{Answer, Origin, Rights};
use crate::limits::Mechanism;
use crate::output::{Output, Stage};
use crate::replies::{self, Sentence};
use crate::sasl::{self, Exchange, Seed, Step};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::sync::Arc;
use std::time::Instant;
use zeroize::Zeroizing;

impl Session {
    /// What EHLO announces: nothing to a client that could not use it.
    pub(super) fn offered_mechanisms(&self) -> &[Mechanism] {
        let is_open = self.may_log_in() && !self.must_secure() && self.client.login.is_none();
        if is_open { &self.policy.mechanisms } else { &[] }
    }

    /// Whether a password may be said here.
    fn may_log_in(&self) -> bool {
        let is_own = match &self.client.origin {
            Origin::Net { address, .. } => address.is_loopback(),
            Origin::Local { .. } => true,
        };
        self.client.is_encrypted || self.policy.auth_without_tls || is_own
    }

    /// A command line may be so long with its CR LF: AUTH can bring a first response.
    pub(super) fn line_len_max(&self) -> usize {
        let len_max = self.policy.limits.command_line_max;
        match self.reading {
            Reading::Response => sasl::LINE_MAX,
            _ if self.offered_mechanisms().is_empty() => len_max,
            _ => len_max.max(sasl::LINE_MAX),
        }
    }

    pub(super) fn on_auth(&mut self, auth: Result<Auth<'_>, Sentence>) {
        match self.check_auth(auth) {
            Ok((mechanism, initial)) => self.begin_login(mechanism, initial),
            Err(sentence) => self.refuse(sentence),
        }
    }

    fn check_auth<'a>(
        &self,
        auth: Result<Auth<'a>, Sentence>,
    ) -> Result<(Mechanism, Option<&'a [u8]>), Sentence> {
        match auth {
            _ if self.policy.mechanisms.is_empty() => Err(replies::NOT_OFFERED),
            _ if self.client.login.is_some() => Err(replies::LOGGED_IN_ALREADY),
            _ if self.must_secure() => Err(replies::TLS_FIRST),
            _ if !self.may_log_in() => Err(replies::LOGIN_NEEDS_TLS),
            Err(sentence) => Err(sentence),
            Ok(Auth { mechanism, initial }) => {
                let named = |known: &&Mechanism| known.name().as_bytes().eq_ignore_ascii_case(mechanism);
                let known = self.policy.mechanisms.iter().find(named).copied();
                known.map(|known| (known, initial)).ok_or(replies::MECHANISM_UNKNOWN)
            }
        }
    }

    fn begin_login(&mut self, mechanism: Mechanism, initial: Option<&[u8]>) {
        let seed = Seed(self.nonce, self.challenges_count);
        self.challenges_count = self.challenges_count.wrapping_add(1);
        let (exchange, challenge) = Exchange::begin(mechanism, &seed, &self.policy.host_name);
        match (mechanism, initial) {
            (_, None) => self.challenge(exchange, &challenge),
            // It speaks first, so that nothing can be answered yet.
            (Mechanism::CramMd5, Some(_)) => self.refuse(replies::RESPONSE_SYNTAX),
            (_, Some(b"=")) => self.take_step(exchange.respond(b"")),
            (_, Some(initial)) => self.respond(exchange, initial),
        }
    }

    fn challenge(&mut self, exchange: Exchange, challenge: &[u8]) {
        replies::challenge(&STANDARD.encode(challenge), self.replies.tail());
        (self.exchange, self.reading) = (Some(Box::new(exchange)), Reading::Response);
    }

    pub(super) fn on_response(&mut self, line: &[u8]) {
        self.stage = Stage::Auth;
        self.reading = Reading::Commands;
        match self.exchange.take() {
            _ if line == b"*" => self.refuse(replies::LOGIN_CANCELLED),
            Some(exchange) => self.respond(*exchange, line),
            None => unreachable!("a response is read in an exchange"),
        }
    }

    pub(super) fn on_long_response(&mut self) {
        (self.stage, self.reading, self.exchange) = (Stage::Auth, Reading::Commands, None);
        self.refuse(replies::LINE_TOO_LONG);
    }

    fn respond(&mut self, exchange: Exchange, response: &[u8]) {
        match STANDARD.decode(response).map(Zeroizing::new) {
            Ok(response) => self.take_step(exchange.respond(&response)),
            Err(_) => self.refuse(replies::RESPONSE_SYNTAX),
        }
    }

    fn take_step(&mut self, step: Step) {
        match step {
            Step::Challenge(challenge, exchange) => self.challenge(exchange, &challenge),
            Step::Ask(question, exchange) => {
                self.waiting = Waiting::Login(Box::new(exchange));
                self.due = Some(Box::new(Output::Ask(question)));
            }
            Step::Wrong => self.on_wrong_login(),
            Step::Malformed => self.refuse(replies::RESPONSE_SYNTAX),
        }
    }

    pub(super) fn on_login_answer(&mut self, now: Instant, exchange: Exchange, answer: Answer) {
        match (exchange, answer) {
            (Exchange::Word { user }, Answer::LoggedIn(rights)) => self.log_in(&user, rights),
            (exchange @ Exchange::Scram(_), Answer::Scram(keys)) => self.take_step(exchange.take_keys(keys)),
            (_, Answer::WrongLogin) => self.on_wrong_login(),
            _ => self.say(replies::LOGIN_UNAVAILABLE),
        }
        self.restart_deadline(now);
    }

    fn log_in(&mut self, user: &str, rights: Rights) {
        self.is_front |= rights.may_xclient;
        let client = Arc::make_mut(&mut self.client);
        (client.login, client.rights) = (Some(user.into()), rights);
        self.say(replies::LOGGED_IN);
    }

    fn on_wrong_login(&mut self) {
        self.logins_count += 1;
        if self.logins_count >= self.policy.limits.logins_max {
            self.say(replies::WRONG_LOGIN);
            self.close_with(replies::TOO_MANY_LOGINS);
        } else {
            self.refuse(replies::WRONG_LOGIN);
        }
    }
}
