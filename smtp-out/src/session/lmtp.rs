//! LMTP (RFC 2033): after a content, by DATA or by BDAT LAST, one reply for each recipient that was accepted, in their
//! order. Windows and pairs work as they do for SMTP: how many replies are to come is known before the first of them,
//! since the replies to RCPT come earlier.

use super::{Output, Session};
use crate::classify::{Stage, by_code, classify};
use crate::link::Protocol;
use crate::reply::Answer;
use crate::transaction::MailAnswer;
use message::Scope;

impl Session {
    /// A refusal of the content is about one recipient. With nobody accepted, the host refuses once (RFC 2033 §4.2).
    pub(super) fn answers_one_by_one(&mut self) -> bool {
        self.link.protocol.is_lmtp() && {
            let current = self.current();
            current.mail == MailAnswer::Accepted && current.open != 0
        }
    }

    /// The content's fate for the first recipient that has none: the others may fare better, so it reaches no further.
    pub(super) fn on_end_of_one(&mut self, answer: Answer<'_>) {
        self.is_proven = true;
        let is_refusal = answer.class() != 2;
        if is_refusal {
            self.note_surprise();
        }
        let current = self.current();
        current.is_clean &= !is_refusal;
        let key = current.key;
        let Some(recipient) = current.take_open() else {
            return self.fail_protocol("a content for nobody was taken");
        };
        let is_last = current.open == 0;
        let (verdict, scope) = match self.link.protocol {
            Protocol::Mailboxes => (by_code(answer.into_reply()), Scope::Recipient),
            _ => classify(Stage::Rcpt, answer.into_reply()),
        };
        self.outputs.push_back(Output::Verdict { key, recipient, verdict, scope });
        if is_last {
            self.pass();
            self.finish(false);
        }
    }
}
