//! Who is it? USER and PASS, APOP, SASL PLAIN (RFC 1939 §7, RFC 5034).
//!
//! The caller knows whose password is right and how many wrong ones it bears from an address; a session bears
//! `logins_max`. Names and passwords are wrong together: which of them it was is not told.

use super::{Session, Waiting};
use crate::command::{Response, user_of};
use crate::limits::TlsUse;
use crate::maildrop::Maildrop;
use crate::output::{Attempt, Login, Output, Unavailable};
use crate::replies;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use message::Secret;
use std::time::Instant;
use zeroize::Zeroizing;

impl Session {
    /// What became of [`Output::Check`].
    pub fn handle_login(&mut self, now: Instant, login: Login) {
        let Waiting::Login(user) = std::mem::replace(&mut self.waiting, Waiting::Nothing) else { return };
        self.restart_deadline(now);
        match login {
            Login::Right => {
                self.due = Some(Output::Open(user));
                self.waiting = Waiting::Maildrop;
            }
            Login::Wrong => self.on_wrong_login(),
            Login::Unavailable => self.refuse(replies::LOGIN_UNAVAILABLE),
        }
    }

    /// What became of [`Output::Open`].
    pub fn handle_maildrop(&mut self, now: Instant, maildrop: Result<Maildrop, Unavailable>) {
        if !matches!(self.waiting, Waiting::Maildrop) {
            return;
        }
        self.waiting = Waiting::Nothing;
        self.restart_deadline(now);
        match maildrop {
            Ok(maildrop) => {
                let (count, len) = maildrop.sum();
                self.maildrop = Some(maildrop);
                replies::print(&mut self.replies, format_args!("+OK {count} messages, {len} octets\r\n"));
            }
            Err(Unavailable::Missing) => self.refuse(replies::NO_MAILDROP),
            Err(Unavailable::Failed) => self.refuse(replies::MAILDROP_FAILED),
        }
    }

    /// Whether a password may come the way that octets come now.
    pub(super) fn takes_passwords(&self) -> bool {
        self.policy.plain_logins || self.arrival.is_local || self.securing == super::Securing::Encrypted
    }

    pub(super) fn on_user(&mut self, user: String) {
        if !self.takes_passwords() {
            return self.refuse_plain();
        }
        self.user = Some(user);
        self.say(replies::PASSWORD_NEXT);
    }

    /// A second PASS needs a second USER.
    pub(super) fn on_pass(&mut self, password: Secret) {
        match self.user.take() {
            _ if !self.takes_passwords() => self.refuse_plain(),
            Some(user) => self.check(user, password),
            None => self.refuse(replies::USER_FIRST),
        }
    }

    pub(super) fn on_apop(&mut self, user: String, digest: [u8; 16]) {
        let Some(stamp) = self.arrival.stamp.clone() else { return self.refuse(replies::NOT_OFFERED) };
        let user: Box<str> = user.into();
        self.due = Some(Output::Check(Attempt::Apop { user: user.clone(), stamp, digest }));
        self.waiting = Waiting::Login(user);
    }

    pub(super) fn on_auth(&mut self, response: Option<Response>) {
        match response {
            _ if !self.takes_passwords() => self.refuse_plain(),
            None => self.refuse(replies::MECHANISM_UNKNOWN),
            Some(Response::Given(response)) => self.on_plain(response.octets()),
            Some(Response::Next) => {
                self.say(replies::GO_ON);
                self.awaits_response = true;
            }
        }
    }

    /// The line behind AUTH.
    pub(super) fn on_response(&mut self, line: &[u8]) {
        match line {
            b"*" => self.refuse(replies::CANCELLED),
            _ => self.on_plain(line),
        }
    }

    /// RFC 4616: [authzid] NUL authcid NUL passwd. Whoever logs in acts as itself.
    fn on_plain(&mut self, encoded: &[u8]) {
        let Ok(response) = STANDARD.decode(encoded).map(Zeroizing::new) else {
            return self.refuse(replies::BAD_RESPONSE);
        };
        let parts: Vec<&[u8]> = response.splitn(4, |octet| *octet == 0).collect();
        let [acts_as, user, password] = parts[..] else { return self.refuse(replies::BAD_RESPONSE) };
        match user_of(user) {
            Some(user) if acts_as.is_empty() || acts_as == user.as_bytes() => {
                self.check(user, Secret::new(password.to_vec()));
            }
            _ => self.on_wrong_login(),
        }
    }

    fn check(&mut self, user: String, password: Secret) {
        let user: Box<str> = user.into();
        self.due = Some(Output::Check(Attempt::Password { user: user.clone(), password }));
        self.waiting = Waiting::Login(user);
    }

    fn refuse_plain(&mut self) {
        let has_tls = self.policy.tls_use == TlsUse::Offer;
        self.refuse(if has_tls { replies::TLS_FIRST } else { replies::NO_PLAIN });
    }

    fn on_wrong_login(&mut self) {
        self.say(replies::WRONG_LOGIN);
        self.logins_count += 1;
        if self.logins_count >= self.policy.limits.logins_max {
            self.say(replies::TOO_MANY_LOGINS);
            self.close();
        }
    }
}
