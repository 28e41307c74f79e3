//! Mail that the client wants from us: ETRN (RFC 1985) and ATRN (RFC 2645).

use super::{Ending, Session, Waiting};
use crate::door::Answer;
use crate::limits::TurnUse;
use crate::output::{Flush, Output};
use crate::replies::{self, Sentence};
use crate::tls::Tunnel;
use std::time::Instant;

impl Session {
    /// The TLS of a connection that is the caller's after [`Output::HandOver`]; none if it is in plain text.
    pub fn into_tunnel(self) -> Option<Tunnel> {
        self.tunnel.map(|tunnel| *tunnel)
    }

    /// Whether anything waits is not known here: RFC 1985 §5.3 lets us say that it begins.
    pub(super) fn on_etrn(&mut self, flush: Result<Flush, Sentence>) {
        match flush {
            _ if self.must_secure() => self.refuse(replies::TLS_FIRST),
            _ if !self.client.rights.may_flush => self.refuse(replies::ETRN_DENIED),
            Ok(flush) => {
                self.due = Some(Box::new(Output::Flush(flush)));
                self.say(replies::FLUSH_BEGUN);
            }
            Err(sentence) => self.refuse(sentence),
        }
    }

    /// RFC 2645 §5.1: only who logged in has domains.
    pub(super) fn on_atrn(&mut self, domains: Result<Vec<Box<str>>, Sentence>) {
        match domains {
            _ if self.policy.turn_use == TurnUse::Never => self.refuse(replies::NOT_OFFERED),
            _ if self.client.login.is_none() => self.refuse(replies::LOGIN_FIRST),
            Ok(domains) => {
                self.waiting = Waiting::Turn;
                self.due = Some(Box::new(Output::Turn(domains)));
            }
            Err(sentence) => self.refuse(sentence),
        }
    }

    pub(super) fn on_turn_answer(&mut self, now: Instant, answer: &Answer) {
        match answer {
            Answer::Turning => {
                self.say(replies::TURNING);
                self.stop_reading(Ending::HandingOver);
            }
            Answer::NothingWaits => self.say(replies::NOTHING_WAITS),
            Answer::Unavailable => self.say(replies::TURN_UNAVAILABLE),
            _ => self.say(replies::TURN_DENIED),
        }
        self.restart_deadline(now);
    }
}
