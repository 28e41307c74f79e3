//! AUTH (RFC 4954). What fails here is between the host and us: the mail waits, whatever the code says.

use super::{Expected, Phase, Session};
use crate::flight::Flight;
use crate::reply::Answer;
use crate::sasl::Exchange;
use message::{Reply, Scope, Verdict};
use std::sync::Arc;

impl Session {
    /// The connection is as well protected as it will be.
    pub(super) fn log_in(&mut self) {
        let Some(login) = self.link.login.as_ref().map(Arc::clone) else { return self.on_ready() };
        if !self.is_sealed && !login.allow_plain_text {
            return self.give_up_login("The login is not sent over a connection in plain text");
        }
        match Exchange::begin(&login, self.extensions.auth) {
            Some(exchange) => {
                self.exchange = Some(Box::new(exchange));
                self.phase = Phase::LoginDue;
            }
            None => self.give_up_login("The host offers no way of AUTH that our login can use"),
        }
    }

    pub(super) fn say_login(&mut self, flight: &mut Flight) {
        let Some(exchange) = self.exchange.take() else { return };
        self.phase = Phase::Login;
        self.say(flight, &exchange.line, Expected::Auth);
        self.exchange = Some(exchange);
    }

    /// 334.
    pub(super) fn on_challenge(&mut self, challenge: &[u8]) {
        self.pass();
        let Some(login) = self.link.login.as_ref().map(Arc::clone) else { return };
        match self.exchange.as_mut().is_some_and(|exchange| exchange.answer(&login, challenge)) {
            true => self.phase = Phase::LoginDue,
            false => self.give_up_login("The host asked for more than the AUTH that it offered has"),
        }
    }

    pub(super) fn on_logged_in(&mut self) {
        self.pass();
        self.exchange = None;
        self.on_ready();
    }

    pub(super) fn on_login_refused(&mut self, answer: Answer<'_>) {
        let text = format!("The host refused our login: {}", answer.into_reply());
        self.give_up_login(&text);
    }

    fn give_up_login(&mut self, text: &str) {
        self.exchange = None;
        self.leave(Some((Verdict::Deferred(Reply::ours(454, (4, 7, 0), text)), Scope::Site)));
    }
}
