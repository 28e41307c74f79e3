//! Mail that the client wants from us: ETRN (RFC 1985) and ATRN (RFC 2645).

use super::Session;
use crate::output::{Flush, Output};
use crate::replies::{self, Sentence};
use crate::tls::Tunnel;

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
}
