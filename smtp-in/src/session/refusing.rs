//! Saying things, and saying no: what is counted against a client, and what the operator is told.

use super::{Ending, Session};
use crate::output::{Rejection, Stage};
use crate::replies::{self, No, Sentence};
use std::borrow::Cow;

/// Rejections that nobody took yet. At it we stop reading until they are taken.
pub(super) const REJECTIONS_MAX: usize = 16;

/// Whom a rejection is about.
#[derive(Clone, Copy, Default)]
pub(super) struct About<'a> {
    /// Of a MAIL; else that of the open transaction.
    pub(super) sender: Option<&'a str>,
    /// Local part and domain.
    pub(super) recipient: Option<(&'a str, &'a str)>,
}

impl Session {
    pub(super) fn say(&mut self, sentence: Sentence) {
        self.replies.say(sentence);
        if sentence.is_refusal() {
            self.tell(|| sentence.cow(), About::default());
        }
    }

    /// Says no to a command that no client in its right mind sends, and counts it.
    pub(super) fn refuse(&mut self, sentence: Sentence) {
        self.refuse_about(&No::Ours(sentence), About::default());
    }

    pub(super) fn refuse_about(&mut self, no: &No, about: About<'_>) {
        self.errors_count += 1;
        if self.errors_count >= self.policy.limits.errors_max && !no.is_fatal() {
            self.tell(|| no.cow(), about);
            self.close_with(replies::TOO_MANY_ERRORS);
        } else {
            self.say_no(no, about);
        }
    }

    /// `421` is the last that we say.
    pub(super) fn say_no(&mut self, no: &No, about: About<'_>) {
        no.write(self.replies.tail());
        self.tell(|| no.cow(), about);
        if no.is_fatal() {
            self.stop_reading(Ending::Closing);
        }
    }

    /// For the operator alone: the peer hears nothing.
    pub(super) fn tell_unsaid(&mut self, what: Cow<'static, str>) {
        self.tell(|| what, About::default());
    }

    /// No allocation where the operator does not ask for it.
    fn tell(&mut self, reply: impl FnOnce() -> Cow<'static, str>, about: About<'_>) {
        if !self.policy.tells_rejections {
            return;
        }
        let open = self.transaction.as_ref().map(|transaction| transaction.envelope.reverse_path.as_str());
        let recipient = about.recipient.map(|(local_part, domain)| format!("{local_part}@{domain}").into());
        self.rejections.push_back(Box::new(Rejection {
            stage: if self.is_greeted { self.stage } else { Stage::Connect },
            reply: reply(),
            sender: about.sender.or(open).map(Into::into),
            recipient,
        }));
    }
}
