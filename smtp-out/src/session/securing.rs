//! STARTTLS (RFC 3207), the handshake, and what follows when there is to be TLS and there is none.
//!
//! | what happens                          | plain text is allowed           | it is not                    |
//! |---------------------------------------|---------------------------------|------------------------------|
//! | STARTTLS not offered, or refused      | goes on in plain text           | deferred, host               |
//! | handshake fails, stalls, is cut short | remembered; closed, no verdict  | deferred, host               |
//! | octets behind the 220, in plain text  | the same: not read (RFC 3207 §6)| deferred, host               |
//!
//! A handshake without plain text to fall back to says what failed in the words of RFC 8460 §4.3.

use super::{Direction, Expected, Output, Phase, Session};
use crate::extensions::Extensions;
use crate::flight::Flight;
use crate::protection::{FailureKind, Protection, TlsFailure, Verified, WhyPlain};
use crate::tls::{Channel, Opened, failure_of};
use message::{Reply, Scope, Verdict};
use std::sync::Arc;
use std::time::Instant;

impl Session {
    /// The host's extensions are known: TLS, or a word on why not.
    pub(super) fn secure(&mut self) {
        if self.is_sealed {
            return self.log_in();
        }
        match self.why_plain() {
            None => self.phase = Phase::StartTlsDue,
            Some(why) => self.go_plain(why),
        }
    }

    /// None: STARTTLS is to be tried.
    fn why_plain(&self) -> Option<WhyPlain> {
        match &self.link.tls {
            None => Some(WhyPlain::Policy),
            Some(client) if self.habits.tls_broken && client.allows_plain() => Some(WhyPlain::Broken),
            Some(_) if !self.extensions.starttls => Some(WhyPlain::NotOffered),
            Some(_) => None,
        }
    }

    fn go_plain(&mut self, why: WhyPlain) {
        if self.link.tls.is_none() || self.may_go_plain() {
            self.tell_protection(Protection::Plain(why));
            return self.log_in();
        }
        let text = match why {
            WhyPlain::Refused => "TLS is required, and the host refused STARTTLS",
            _ => "TLS is required, and the host does not offer STARTTLS",
        };
        self.fail_tls(TlsFailure::new(FailureKind::StarttlsNotSupported, text));
    }

    fn may_go_plain(&self) -> bool {
        let allows_plain = self.link.tls.as_ref().is_some_and(|client| client.allows_plain());
        allows_plain && !self.link.is_tls_implicit
    }

    pub(super) fn say_starttls(&mut self, flight: &mut Flight) {
        self.phase = Phase::StartTls;
        self.say(flight, b"STARTTLS\r\n", Expected::StartTls);
    }

    pub(super) fn on_starttls_refused(&mut self) {
        self.pass();
        self.go_plain(WhyPlain::Refused);
    }

    /// `rest`: what the host sent behind its 220. Nothing of it is read (RFC 3207 §6): it is a handshake that came to nothing,
    /// and where mail may go in plain text it goes over the next connection.
    pub(super) fn on_starttls_accepted(&mut self, rest: &[u8]) {
        if !rest.is_empty() {
            let text = "octets in plain text behind the reply to STARTTLS";
            return self.fail_tls(TlsFailure::new(FailureKind::ValidationFailure, text));
        }
        self.pass();
        self.begin_handshake();
    }

    pub(super) fn begin_handshake(&mut self) {
        let connected = match &self.link.tls {
            Some(client) => client.connect(&self.link.host).map_err(|error| failure_of(&error)),
            None => {
                Err(TlsFailure::new(FailureKind::ValidationFailure, "TLS is required, and not configured"))
            }
        };
        match connected {
            Ok(channel) => {
                self.channel = Some(Box::new(channel));
                self.phase = Phase::Handshake;
            }
            Err(failure) => self.fail_tls(failure),
        }
    }

    /// The connection is encrypted already, and who logged in over it has proven to be the host.
    pub(super) fn take_over(&mut self, now: Instant, connection: rustls::ServerConnection) {
        let mut channel = Channel::reversed(connection);
        (self.is_sealed, self.is_verified) = (true, true);
        self.tell_protection(Protection::Encrypted(channel.facts_with((Verified::Login, None))));
        // Its greeting may have come behind its ATRN.
        self.hear_opened(now, &mut channel);
        self.channel = Some(Box::new(channel));
    }

    /// Ciphertext.
    pub(super) fn hear_sealed(&mut self, now: Instant, bytes: &[u8]) {
        // What is opened borrows from the channel, so it stands outside while that is acted on.
        let Some(mut channel) = self.channel.take() else { return };
        let (mut rest, phase) = (bytes, self.phase);
        while !rest.is_empty() && self.listens() {
            let opened = channel.open(&mut rest);
            if self.phase == Phase::Handshake && opened.is_ok() && !channel.is_handshaking() {
                self.on_handshake_done(&channel);
            }
            self.hear_opened(now, &mut channel);
            match opened {
                Ok(Opened::More) => {}
                Ok(Opened::Ended) => self.on_lost("the host ended TLS"),
                Err(error) => self.on_tls_error(&error),
            }
        }
        self.channel = Some(channel);
        if phase != self.phase {
            self.restart_deadline(now);
        }
        self.settle_farewell();
    }

    fn hear_opened(&mut self, now: Instant, channel: &mut Channel) {
        loop {
            let plain = channel.opened();
            let len = plain.len();
            if len == 0 {
                return;
            }
            self.hear(now, plain);
            channel.consume(len);
        }
    }

    /// What was learnt before is forgotten: anybody could have said it (RFC 3207 §4.2).
    fn on_handshake_done(&mut self, channel: &Channel) {
        let Some(client) = self.link.tls.as_ref().map(Arc::clone) else { return };
        let encrypted = channel.facts(&client, &self.link.host);
        self.is_sealed = true;
        self.is_verified = encrypted.verified != Verified::Nobody;
        self.habits.tls_broken = false;
        self.extensions = Extensions::default();
        self.says_helo = false;
        self.phase = match self.expected.front() {
            Some(_) => Phase::Greeting,
            None => Phase::HelloDue,
        };
        self.tell_protection(Protection::Encrypted(encrypted));
    }

    fn on_tls_error(&mut self, error: &rustls::Error) {
        let failure = failure_of(error);
        match self.phase {
            Phase::Handshake => self.fail_tls(failure),
            Phase::Closed | Phase::Farewell => {}
            // In TLS 1.3 our part is done before the host has judged it: so it refuses a client without a certificate.
            Phase::HelloDue | Phase::Hello if is_alert(error) && self.may_go_plain() => {
                self.habits.tls_broken = true;
                self.close(None);
            }
            _ => self.fail_protocol(&failure.text),
        }
    }

    /// The connection ended, or nothing came, between STARTTLS and the end of the handshake.
    pub(super) fn on_handshake_lost(&mut self, text: &str) {
        self.fail_tls(TlsFailure::new(FailureKind::ValidationFailure, text));
        // Whatever TLS would still say finds nobody.
        self.end_farewell();
    }

    fn fail_tls(&mut self, failure: TlsFailure) {
        let has_begun = matches!(self.phase, Phase::StartTls | Phase::HandshakeDue | Phase::Handshake);
        let falls_back = has_begun && self.may_go_plain();
        self.habits.tls_broken |= falls_back;
        let detail = if failure.kind == FailureKind::StarttlsNotSupported { 4 } else { 5 };
        let verdict = Verdict::Deferred(Reply::ours(451, (4, 7, detail), &failure.text));
        self.tell_protection(Protection::Failed(failure));
        self.leave_taken = (!falls_back).then_some((verdict, Scope::Host));
        match self.phase {
            // The alert is to get out.
            Phase::Handshake => self.phase = Phase::Farewell,
            _ => self.close_as_known(),
        }
        self.expected.clear();
    }

    fn tell_protection(&mut self, protection: Protection) {
        if self.link.is_traced {
            self.trace(Direction::Note, protection.to_string());
        }
        if !std::mem::replace(&mut self.has_told_protection, true) {
            self.outputs.push_back(Output::Protection(protection));
        }
    }

    // ---- farewell ----

    /// Closes once the last record is with the kernel.
    pub(super) fn settle_farewell(&mut self) {
        if self.phase != Phase::Farewell {
            return;
        }
        let has_output = self.channel.as_mut().is_some_and(|channel| {
            channel.say_goodbye(self.is_sealed);
            channel.has_output()
        });
        if !has_output && self.under_way.is_none() {
            self.end_farewell();
        }
    }

    pub(super) fn end_farewell(&mut self) {
        if self.phase == Phase::Farewell {
            self.close_as_known();
        }
    }

    fn close_as_known(&mut self) {
        let verdict = self.leave_taken.take();
        self.close(verdict);
    }

    // ---- sealing ----

    /// Octets of flights that are not raw go through `seal` before they go out.
    pub fn is_sealing(&self) -> bool {
        self.is_sealed
    }

    /// Appends to `out` what goes on the wire for `plain`, the next octets of a flight, and whatever else TLS has to say.
    /// In slices of any length: a record has up to 16 KiB, 22 octets of them are overhead. A call ends a record.
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        self.seal_pieces(&[plain], out);
    }

    /// As `seal`, for octets that do not lie in one place: records run across the pieces.
    pub fn seal_pieces(&mut self, pieces: &[&[u8]], out: &mut Vec<u8>) {
        if let Some(channel) = self.channel.as_mut().filter(|_| self.is_sealed) {
            channel.seal(pieces, out);
        }
    }
}

fn is_alert(error: &rustls::Error) -> bool {
    matches!(error, rustls::Error::AlertReceived(_))
}
