//! What each reply means, in the order of the commands.

use super::{Expected, Form, Output, Phase, Session};
use crate::classify::{Stage, classify};
use crate::extensions::Extensions;
use crate::reply::Answer;
use crate::transaction::{MailAnswer, Progress};
use message::{Scope, Verdict};

/// The host ends the session (RFC 5321 §3.8).
const CLOSING: u16 = 421;

impl Session {
    /// One reply that is whole. No allocation for a short 2xx.
    pub(super) fn on_answer(&mut self, answer: Answer<'_>) {
        let Some(&expected) = self.expected.front() else {
            return self.on_unasked(answer);
        };
        if answer.code == CLOSING && expected != Expected::Quit {
            return self.on_closing(expected, answer.into_reply());
        }
        let class = answer.class();
        match (expected, class) {
            (Expected::Greeting, 2) => self.on_greeting(),
            (Expected::Ehlo, 2) => self.on_ehlo(&answer),
            (Expected::Ehlo, 5) if !self.link.protocol.is_lmtp() => self.fall_back_to_helo(),
            (Expected::Helo, 2) => self.on_hello(),
            (Expected::StartTls, 2) => self.phase = Phase::HandshakeDue,
            (Expected::StartTls, 4 | 5) => self.on_starttls_refused(),
            (Expected::Auth, 3) => self.on_challenge(answer.text),
            (Expected::Auth, 2) => self.on_logged_in(),
            (Expected::Auth, 4 | 5) => self.on_login_refused(answer),
            (Expected::Greeting | Expected::Ehlo | Expected::Helo, 4 | 5) => self.on_refused_by_host(answer),
            (Expected::Rset, 2) => self.pass(),
            (Expected::Mail, 2) => self.on_mail_accepted(),
            (Expected::Mail, 4 | 5) => self.on_mail_refused(answer),
            (Expected::Rcpt, 2) => self.on_rcpt_accepted(),
            (Expected::Rcpt, 4 | 5) => self.on_rcpt_refused(answer),
            (Expected::Data, 3) if answer.code == 354 => self.on_data_accepted(),
            (Expected::Data, 4 | 5) => self.on_data_refused(answer),
            (Expected::Dot | Expected::Bdat, 2) => self.on_end_accepted(answer),
            (Expected::Dot, 4 | 5) => self.on_end_refused(answer),
            (Expected::Bdat, 4 | 5) => self.on_chunk_refused(answer),
            (Expected::Quit, _) => self.leave(None),
            (Expected::Greeting | Expected::Ehlo | Expected::Helo | Expected::Rset | Expected::Mail, _)
            | (Expected::StartTls | Expected::Auth, _)
            | (Expected::Rcpt | Expected::Data | Expected::Dot | Expected::Bdat, _) => {
                self.on_wrong_class(answer)
            }
        }
    }

    /// The reply is dealt with.
    pub(super) fn pass(&mut self) {
        self.expected.pop_front();
    }

    fn on_greeting(&mut self) {
        self.pass();
        self.phase = Phase::HelloDue;
    }

    fn on_ehlo(&mut self, answer: &Answer<'_>) {
        if answer.is_multi_line() {
            self.extensions.learn(answer.text);
        }
        self.on_hello();
    }

    fn on_hello(&mut self) {
        self.pass();
        self.habits.helo_only = self.says_helo;
        self.secure();
    }

    fn fall_back_to_helo(&mut self) {
        self.pass();
        self.extensions = Extensions::default();
        self.says_helo = true;
        self.phase = Phase::HelloDue;
    }

    pub(super) fn on_ready(&mut self) {
        self.phase = Phase::Ready;
        let can_pipeline = self.extensions.pipelining && !self.habits.no_pipelining;
        self.form = match (can_pipeline, self.can_chunk()) {
            (true, true) => Form::Windowed,
            (true, false) => Form::Paired,
            (false, _) => Form::LockStep,
        };
        self.window = (self.habits.window / 2).clamp(1, self.config.window_max.max(1));
        self.outputs.push_back(Output::Ready);
    }

    fn on_mail_accepted(&mut self) {
        self.pass();
        self.current().mail = MailAnswer::Accepted;
    }

    /// The replies to RCPT and DATA that were sent with it are still to come.
    fn on_mail_refused(&mut self, answer: Answer<'_>) {
        self.pass();
        self.note_surprise();
        let has_predecessor_failed = self.has_predecessor_failed;
        let current = self.current();
        current.is_clean = false;
        // Bad sequence: the host is still in the transaction before, which says nothing about this one.
        if answer.code == 503 && current.is_behind && has_predecessor_failed {
            current.mail = MailAnswer::Displaced;
            return;
        }
        current.mail = MailAnswer::Refused;
        let (verdict, scope) = classify(Stage::Mail, answer.into_reply());
        self.decide_open(verdict, scope);
        if self.form == Form::LockStep {
            self.finish(false);
        }
    }

    fn on_rcpt_accepted(&mut self) {
        self.pass();
        let current = self.current();
        current.answered += 1;
        current.accepted += 1;
    }

    fn on_rcpt_refused(&mut self, answer: Answer<'_>) {
        self.pass();
        self.note_surprise();
        let current = self.current();
        let (key, recipient) = (current.key, current.answered);
        current.answered += 1;
        current.is_clean = false;
        if !current.was_refused() {
            current.open &= !(1 << recipient);
            let (verdict, scope) = classify(Stage::Rcpt, answer.into_reply());
            self.outputs.push_back(Output::Verdict { key, recipient, verdict, scope });
        }
        let current = self.current();
        let is_void = current.answered == current.recipients && current.accepted == 0;
        if is_void && self.form == Form::LockStep {
            self.finish_refused();
        }
    }

    fn on_data_accepted(&mut self) {
        if self.current().was_refused() {
            // Whatever it would take now, it has another reverse-path than ours.
            return self.fail_protocol("354 to DATA after MAIL was refused");
        }
        self.pass();
        self.is_proven = true;
        self.current().progress = Progress::ContentDue;
    }

    fn on_data_refused(&mut self, answer: Answer<'_>) {
        self.is_proven = true;
        self.end_refused(answer, Stage::Data);
    }

    fn on_end_accepted(&mut self, answer: Answer<'_>) {
        let current = self.current();
        if current.was_refused() && current.accepted > 0 {
            return self.fail_protocol("a message was taken after MAIL was refused");
        }
        self.is_proven = true;
        if self.current().mail == MailAnswer::Displaced {
            self.pass();
            return self.give_back();
        }
        if self.link.protocol.is_lmtp() {
            return self.on_end_of_one(answer);
        }
        self.pass();
        let (verdict, scope) = classify(Stage::End, answer.into_reply());
        self.decide_open(verdict, scope);
        self.finish(false);
    }

    fn on_end_refused(&mut self, answer: Answer<'_>) {
        if self.answers_one_by_one() {
            return self.on_end_of_one(answer);
        }
        self.end_refused(answer, Stage::End);
    }

    fn on_chunk_refused(&mut self, answer: Answer<'_>) {
        let current = self.current();
        let is_due = !current.was_refused() && current.accepted > 0;
        match answer.code {
            // It has no BDAT, and takes our content for commands.
            500 | 502 if !self.is_proven => self.on_broken_chunking(answer),
            503 if !self.is_proven && is_due => self.on_broken_chunking(answer),
            _ => self.on_end_refused(answer),
        }
    }

    /// The refusal of DATA, dot or BDAT decides for the recipients that were accepted.
    fn end_refused(&mut self, answer: Answer<'_>, stage: Stage) {
        self.pass();
        self.note_surprise();
        let current = self.current();
        current.is_clean = false;
        if current.mail == MailAnswer::Displaced {
            self.is_reset_due = true;
            return self.give_back();
        }
        let (verdict, scope) = classify(stage, answer.into_reply());
        self.decide_open(verdict, scope);
        self.finish_refused();
    }

    /// After a refused BDAT the host's state is undefined (RFC 3030 §2), after a refused DATA it is as before.
    pub(super) fn finish_refused(&mut self) {
        self.is_reset_due = true;
        self.finish(false);
    }

    fn on_broken_chunking(&mut self, answer: Answer<'_>) {
        self.habits.no_chunking = true;
        // Our way of sending was refused, not the message: the next connection sends it by DATA.
        self.decide_open(Verdict::Deferred(answer.into_reply()), Scope::Message);
        self.finish(false);
        self.fail_protocol("BDAT was offered, but is not understood");
    }
}
