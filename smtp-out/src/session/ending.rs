//! How a session ends before its time, and what becomes of what is in flight.
//!
//! | how far a transaction got      | connection lost, time-out, protocol error | 421 to an earlier one |
//! |--------------------------------|-------------------------------------------|-----------------------|
//! | nothing sent                   | returned                                  | returned              |
//! | envelope, part of the content  | deferred, host                            | returned              |
//! | final octet sent               | deferred, host, ambiguous                 | returned              |
//!
//! Replies come in order, and a host that said 421 answers nothing after it: what is behind was not processed.

use super::{Expected, Form, Output, Phase, Session};
use crate::classify::{Stage, classify};
use crate::reply::Answer;
use crate::transaction::{MailAnswer, Progress};
use message::{Reply, Scope, Verdict};

impl Session {
    /// The stream has ended.
    pub(super) fn on_lost(&mut self, why: &str) {
        match self.phase {
            Phase::Closed => {}
            Phase::Quit => self.close(None),
            Phase::Farewell => self.end_farewell(),
            Phase::StartTls | Phase::HandshakeDue | Phase::Handshake => {
                self.on_handshake_lost(&format!("Connection lost {}: {why}", self.place()));
            }
            Phase::Ready if self.is_idle() && (self.has_answered || self.is_quitting) => self.close(None),
            Phase::Greeting | Phase::HelloDue | Phase::Hello | Phase::StartTlsDue => self.on_broken(why),
            Phase::LoginDue | Phase::Login | Phase::Ready => self.on_broken(why),
        }
    }

    fn on_broken(&mut self, why: &str) {
        let text = format!("Connection lost {}: {why}", self.place());
        self.learn_from_break();
        self.lose_all(Reply::ours(451, (4, 4, 2), &text));
    }

    /// The deadline has passed.
    pub(super) fn on_stalled(&mut self) {
        let text = format!("Timed out {}", self.place());
        match self.phase {
            Phase::Quit | Phase::Closed => return self.close(None),
            Phase::Farewell => return self.end_farewell(),
            Phase::StartTls | Phase::Handshake => return self.on_handshake_lost(&text),
            _ => {}
        }
        self.learn_from_stall();
        self.lose_all(Reply::ours(451, (4, 4, 2), &text));
    }

    /// The host said something that no reply here can be.
    pub(super) fn fail_protocol(&mut self, what: &str) {
        if self.phase == Phase::Quit {
            return self.close(None);
        }
        let text = format!("Protocol error {}: {what}", self.place());
        self.learn_from_break();
        self.lose_all(Reply::ours(451, (4, 5, 0), &text));
    }

    pub(super) fn on_wrong_class(&mut self, answer: Answer<'_>) {
        let reply = answer.into_reply();
        self.fail_protocol(&format!("the host said {reply}"));
    }

    /// A reply to nothing. An idle connection may be closed by the host; anything else is not SMTP.
    pub(super) fn on_unasked(&mut self, answer: Answer<'_>) {
        let reply = answer.into_reply();
        if reply.code == 421 {
            return self.on_closing(Expected::Rset, reply);
        }
        let text = format!("Protocol error {}: the host said {reply}", self.place());
        self.return_all();
        self.close(Some((Verdict::Deferred(Reply::ours(451, (4, 5, 0), &text)), Scope::Host)));
    }

    /// 421. It decides for the transaction that it answers.
    pub(super) fn on_closing(&mut self, expected: Expected, reply: Reply) {
        let is_about_one = matches!(
            expected,
            Expected::Mail | Expected::Rcpt | Expected::Data | Expected::Dot | Expected::Bdat
        );
        let is_attempted = is_about_one && self.current().mail != MailAnswer::Displaced;
        if is_attempted {
            self.decide_open(Verdict::Deferred(reply.clone()), Scope::Host);
            self.finish(false);
        }
        self.return_all();
        self.close_for(reply);
    }

    /// Greeting, EHLO or HELO was refused: 554 at the greeting is a host that takes no mail (RFC 5321 §3.1).
    pub(super) fn on_refused_by_host(&mut self, answer: Answer<'_>) {
        self.leave(Some(classify(Stage::Connect, answer.into_reply())));
    }

    /// Ends a session that has nothing in flight; an encrypted one says so to the host first.
    pub(super) fn leave(&mut self, verdict: Option<(Verdict, Scope)>) {
        if !self.is_sealed {
            return self.close(verdict);
        }
        self.phase = Phase::Farewell;
        self.leave_taken = verdict;
        self.expected.clear();
    }

    /// Everything in flight shares the connection's fate.
    fn lose_all(&mut self, reply: Reply) {
        while let Some(current) = self.transactions.front() {
            if current.progress == Progress::Waiting || current.mail == MailAnswer::Displaced {
                self.give_back();
                continue;
            }
            let is_whole = current.progress == Progress::Whole && !self.is_cut_short();
            let ambiguous = is_whole && current.open != 0;
            self.decide_open(Verdict::Deferred(reply.clone()), Scope::Host);
            self.finish(ambiguous);
        }
        self.note_surprise();
        self.close_for(reply);
    }

    /// The current transaction's end is the end of a flight that the kernel has not taken whole.
    fn is_cut_short(&self) -> bool {
        self.begun == 1 && self.under_way.is_some_and(|flight| flight.ends_whole)
    }

    fn return_all(&mut self) {
        while !self.transactions.is_empty() {
            self.give_back();
        }
    }

    /// The verdict is about the host only if no recipient's verdict says it, and if it had nothing good to say before.
    fn close_for(&mut self, reply: Reply) {
        let verdict = (!self.has_answered).then_some((Verdict::Deferred(reply), Scope::Host));
        self.close(verdict);
    }

    pub(super) fn close(&mut self, verdict: Option<(Verdict, Scope)>) {
        if self.phase == Phase::Closed {
            return;
        }
        self.phase = Phase::Closed;
        self.expected.clear();
        self.deadline = None;
        self.outputs.push_back(Output::Closed { verdict });
    }

    /// The host broke the connection when first sent to in this way: the next one is met half-way.
    fn learn_from_break(&mut self) {
        let Some(current) = self.transactions.front() else { return };
        if self.is_proven || current.progress == Progress::Waiting {
            return;
        }
        match self.form {
            Form::Windowed => self.habits.no_chunking = true,
            Form::Paired => self.habits.no_pipelining = true,
            Form::LockStep => self.habits.no_chunking |= self.expected.front() == Some(&Expected::Bdat),
        }
    }

    /// MAIL was answered and what came with it is not: a host that forgets what comes early.
    fn learn_from_stall(&mut self) {
        let is_forgetful = matches!(self.expected.front(), Some(Expected::Rcpt | Expected::Data));
        if is_forgetful && !self.is_proven && self.form != Form::LockStep {
            self.habits.no_pipelining = true;
        }
    }

    /// Where the session stands, for a sentence.
    pub(super) fn place(&self) -> &'static str {
        if self.phase == Phase::Handshake {
            return "in the TLS handshake";
        }
        match self.expected.front() {
            Some(Expected::Greeting) => "before the greeting",
            Some(Expected::Ehlo) => "after EHLO",
            Some(Expected::Helo) => "after HELO",
            Some(Expected::StartTls) => "after STARTTLS",
            Some(Expected::Auth) => "after AUTH",
            Some(Expected::Rset) => "after RSET",
            Some(Expected::Mail) => "after MAIL",
            Some(Expected::Rcpt) => "after RCPT",
            Some(Expected::Data) => "after DATA",
            Some(Expected::Dot) => "after the content",
            Some(Expected::Bdat) => "after BDAT",
            Some(Expected::Quit) => "after QUIT",
            None => "while idle",
        }
    }
}
