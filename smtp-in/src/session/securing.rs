//! STARTTLS and TLS from the first octet (RFC 3207, RFC 8314 §3.3).
//!
//! Between STARTTLS and our `220` being taken all that comes is thrown away: whoever sits between client and server could
//! have put it there. Behind the handshake the session begins anew. A handshake that fails ends the connection: there is
//! no way back to plain text.

use super::introduction::After;
use super::{Ending, Reading, Session};
use crate::limits::TlsUse;
use crate::line::Lines;
use crate::output::Stage;
use crate::replies;
use crate::tls::Tunnel;
use std::sync::Arc;

/// How the wire is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Securing {
    Plain,
    /// `220` is said but not taken.
    Agreed,
    Shaking,
    Sealed,
}

impl Session {
    pub(super) fn is_implicit(&self) -> bool {
        self.policy.tls.is_some() && self.policy.tls_use == TlsUse::Implicit
    }

    /// Whether STARTTLS would be taken.
    pub(super) fn offers_tls(&self) -> bool {
        let has_tls = self.policy.tls.is_some() && self.policy.tls_use != TlsUse::Implicit;
        let may_begin_anew = self.client.login.is_none() || self.must_secure();
        has_tls && self.securing == Securing::Plain && may_begin_anew
    }

    /// Whether MAIL and AUTH have to wait for STARTTLS.
    pub(super) fn must_secure(&self) -> bool {
        self.policy.tls_use == TlsUse::Require && self.policy.tls.is_some() && !self.client.is_encrypted
    }

    pub(super) fn on_starttls(&mut self) {
        if !self.offers_tls() {
            return self.refuse(replies::NOT_OFFERED);
        }
        self.say(replies::BEGIN_TLS);
        self.securing = Securing::Agreed;
    }

    /// From now on all octets are TLS's.
    pub(super) fn begin_handshake(&mut self) {
        let tunnel = self.policy.tls.as_ref().map(|tls| tls.accept());
        self.securing = Securing::Shaking;
        match tunnel {
            Some(Ok(tunnel)) => self.tunnel = Some(Box::new(tunnel)),
            Some(Err(error)) => self.fail_handshake(&error),
            None => unreachable!("TLS is offered only where there is some"),
        }
    }

    /// Its alert, if there is one, goes out; nothing else does.
    pub(super) fn fail_handshake(&mut self, error: &rustls::Error) {
        if self.securing == Securing::Shaking {
            self.stage = Stage::Handshake;
        }
        self.tell_unsaid(format!("TLS: {error}").into());
        self.stop_reading(Ending::Closing);
    }

    /// RFC 3207 §4.2: what the client said before is forgotten.
    pub(super) fn end_handshake(&mut self) {
        let (Some(tls), Some(tunnel)) = (&self.policy.tls, &self.tunnel) else {
            unreachable!("its handshake has just ended");
        };
        let certificate = tls.certificate(tunnel);
        self.encrypted = tunnel.encrypted();
        let is_another = self.forget_named() | certificate.is_some();
        let client = Arc::make_mut(&mut self.client);
        (client.is_encrypted, client.certificate) = (true, certificate);
        self.securing = Securing::Sealed;
        (self.helo, self.transaction, self.lines) = (None, None, Lines::default());
        self.progressed = true;
        if !self.is_greeted {
            self.introduce(After::Greeting);
        } else if is_another {
            self.introduce(After::Handshake);
        }
    }

    /// Appends what may be sent now to `out`; true if there was anything.
    pub fn take_replies(&mut self, out: &mut Vec<u8>) -> bool {
        let before = out.len();
        match (&mut self.tunnel, self.securing) {
            (Some(tunnel), Securing::Sealed) => {
                tunnel.write_output(out);
                self.replies.take(|plain| tunnel.seal(plain, out));
                if self.ending == Ending::Closing && self.replies.is_empty() {
                    tunnel.say_goodbye();
                    tunnel.write_output(out);
                }
            }
            (Some(tunnel), _) => tunnel.write_output(out),
            (None, _) => self.replies.take(|plain| out.extend_from_slice(plain)),
        }
        if self.securing == Securing::Agreed && self.ending == Ending::Open && self.replies.is_empty() {
            self.begin_handshake();
        }
        out.len() > before
    }

    /// True if nothing is left to be taken.
    pub(super) fn has_said_all(&self) -> bool {
        let owes_goodbye = self.securing == Securing::Sealed && self.ending == Ending::Closing;
        let tunnel_has_more =
            |tunnel: &Tunnel| tunnel.has_output() || owes_goodbye && !tunnel.has_said_goodbye();
        self.replies.is_empty() && !self.tunnel.as_deref().is_some_and(tunnel_has_more)
    }

    /// Whether the peer would read a reply as one.
    pub(super) fn can_speak(&self) -> bool {
        let is_header = matches!(self.reading, Reading::Header(_));
        matches!(self.securing, Securing::Plain | Securing::Sealed) && !is_header
    }
}
