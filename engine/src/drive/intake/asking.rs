//! What sessions want to know: who a client is and what it may do, whether a password is right, what is known of a message.
//!
//! Most answers are here at once. What must be looked up is the control thread's: the session waits, the core does not.
//! Bounds: one question of a session at a time; messages that wait for an answer hold memory that counts as theirs while
//! they came, see [`Core::gate`].

use super::{Known, Submitter};
use crate::access::{Admission, Found, Judgement};
use crate::auth::{Attempt, Outcome};
use crate::clients::{self, Ask, Finding};
use crate::clock::Clock;
use crate::core::{Core, Place};
use crate::crossing::Mail;
use crate::verify::Letter;
use bytes::Bytes;
use ring::Ring;
use smtp_in::door::{Answer, Client, Origin, Question, Refusal};
use smtp_in::{Stored, Submission};
use std::sync::Arc;

/// A message whose content is here and of which something is to be found out.
#[derive(Debug)]
pub(super) struct Parked {
    submitter: Submitter,
    submission: Submission,
}

impl<R: Ring, C: Clock> Core<R, C> {
    pub(super) fn ask_for_session(&mut self, place: Place, question: Question) {
        match question {
            Question::Introduce(client) => self.introduce(place, &client),
            Question::Password { user, password } => self.check(place, Attempt::Password { user, password }),
            Question::CramMd5 { user, challenge, digest } => {
                self.check(place, Attempt::CramMd5 { user, challenge, digest });
            }
            Question::ScramKeys { user } => self.check(place, Attempt::ScramKeys { user }),
            Question::Prove { user } => self.check(place, Attempt::Prove { user }),
        }
    }

    fn answer_session(&mut self, place: Place, answer: Answer) {
        if let Some(client) = self.intake.get(place) {
            client.session.handle_answer(self.now, answer);
        }
    }

    /// It comes, or it is somebody else than we thought.
    fn introduce(&mut self, place: Place, client: &Client) {
        if let Err(refusal) = self.seat(place, client) {
            return self.answer_session(place, Answer::Turned(refusal));
        }
        let Some((known, listener)) = self.intake.get_with_number(place) else { return };
        let listening = known.listening as usize;
        // Where another host stands between us, its connection is not the client's.
        let is_direct = known.origin == client.origin;
        let local = self.intake.listeners[listening].address.filter(|_| is_direct);
        match self.settings.access.needs(client, listener, local) {
            None => self.admit(place, client, Found::default()),
            Some(look_up) => {
                let ask = Ask::WhoIsIt(Box::new(look_up));
                if !self.ask_control(place, ask) {
                    self.answer_session(place, Answer::Turned(busy()));
                }
            }
        }
    }

    /// A place among the sessions of its address and network. Whoever changes who it is changes its place.
    fn seat(&mut self, place: Place, client: &Client) -> Result<(), Refusal> {
        let Some((known, listener)) = self.intake.get_with_number(place) else { return Ok(()) };
        known.seat = None;
        let seat = self.settings.access.seat(&self.crossing.counts, client, listener)?;
        if let Some(known) = self.intake.get(place) {
            known.seat = Some(seat);
        }
        Ok(())
    }

    fn admit(&mut self, place: Place, client: &Client, found: Found) {
        let Some((_, listener)) = self.intake.get_with_number(place) else { return };
        let answer = match self.settings.access.rights(client, listener, &found) {
            Admission::Turned(refusal) => Answer::Turned(refusal),
            Admission::Welcome(rights, field) => {
                self.keep_found(place, found, field);
                Answer::Welcome(rights)
            }
        };
        self.answer_session(place, answer);
    }

    fn keep_found(&mut self, place: Place, found: Found, field: Option<Arc<str>>) {
        let is_worth_it = field.is_some() || found.is_something();
        if let Some(client) = self.intake.get(place) {
            client.known = is_worth_it.then(|| Box::new(Known { found, field }));
        }
    }

    /// Passwords are checked on threads of their own; what came of it comes by our mailbox.
    fn check(&mut self, place: Place, attempt: Attempt) {
        let Some(client) = self.intake.get(place) else { return };
        let address = match client.session.client().origin {
            Origin::Net { address, .. } => Some(address),
            Origin::Local { .. } => None,
        };
        let Some(authenticator) = self.crossing.authenticator.get() else {
            return self.answer_session(place, Answer::Unavailable);
        };
        let (crossing, core) = (Arc::clone(&self.crossing), self.index);
        authenticator.check(address, attempt, move |outcome| {
            let found = Finding::Login(outcome);
            // Each session has one question: there are fewer than a mailbox has places.
            if crossing.send(core, Mail::Client(clients::Answer { place, found })).is_err() {
                tracing::error!(core, "a login's answer found no place");
            }
        });
    }

    fn on_login(&mut self, place: Place, outcome: Outcome) {
        match outcome {
            Outcome::Accepted { user } => self.log_in(place, &user),
            Outcome::Wrong => {
                self.counters.logins_wrong.add(1);
                self.answer_session(place, Answer::WrongLogin);
            }
            Outcome::Unavailable => self.answer_session(place, Answer::Unavailable),
            Outcome::Scram(keys) => self.answer_session(place, Answer::Scram(keys)),
        }
    }

    /// Its password was right: what it may do now.
    fn log_in(&mut self, place: Place, user: &str) {
        let Some((client, listener)) = self.intake.get_with_number(place) else { return };
        let mut named = Client::clone(client.session.client());
        named.login = Some(user.into());
        let found = client.known.as_ref().map(|known| known.found.clone()).unwrap_or_default();
        let answer = match self.settings.access.rights(&named, listener, &found) {
            Admission::Welcome(rights, field) => {
                self.counters.logins.add(1);
                self.keep_found(place, found, field);
                Answer::LoggedIn(rights)
            }
            Admission::Turned(_) => Answer::WrongLogin,
        };
        self.answer_session(place, answer);
    }

    /// The client wants mail over this very connection (RFC 2645). Its answer comes when all cores have looked.
    pub(super) fn take_atrn(&mut self, place: Place, asked: &[Box<str>]) {
        let Some((client, listener)) = self.intake.get_with_number(place) else { return };
        let known = Arc::clone(client.session.client());
        let Some(domains) = self.settings.access.may_fetch(&known, listener, asked) else {
            return self.answer_session(place, Answer::TurnDenied);
        };
        let fetch = self.begin_fetch(place, &known, &domains);
        if fetch.is_none() {
            return self.answer_session(place, Answer::Unavailable);
        }
        if let Some(client) = self.intake.get(place) {
            client.fetch = fetch;
        }
    }

    /// `Turning`, or no mail, or not now.
    pub(crate) fn answer_atrn(&mut self, place: Place, answer: Answer) {
        if let Some(client) = self.intake.get(place).filter(|_| !matches!(answer, Answer::Turning)) {
            client.fetch = None;
        }
        self.answer_session(place, answer);
        self.drain_client(place);
    }

    fn ask_control(&mut self, place: Place, ask: Ask) -> bool {
        self.crossing.ask_about_client(clients::Question { core: self.index, place, ask })
    }

    pub(crate) fn on_client_answer(&mut self, answer: clients::Answer) {
        let clients::Answer { place, found } = answer;
        match found {
            Finding::Client(found) => {
                // While it waits its session is as it was when it asked.
                let Some(client) = self.intake.get(place) else { return };
                let asked = Arc::clone(client.session.client());
                self.admit(place, &asked, *found);
            }
            Finding::Login(outcome) => self.on_login(place, outcome),
            Finding::Message { slot, found, field } => self.on_message_known(slot, &found, field.as_deref()),
        }
        self.drain_client(place);
    }
}

/// Messages.
impl<R: Ring, C: Clock> Core<R, C> {
    /// Stores it, or waits until what must be known of it is.
    pub(super) fn take_submission(&mut self, place: Place, submission: Submission) {
        let Some((client, listener)) = self.intake.get_with_number(place) else { return };
        (client.stores, client.is_active) = (client.stores + 1, true);
        let submitter = Submitter { place, transaction: submission.transaction, fields_len: 0 };
        let sender = &submission.envelope.reverse_path;
        let access = &self.settings.access;
        let look_up = access.needs_of_message(&submission.client, listener, &submission.helo, sender);
        let is_verified = access.wants_verified(&submission.client, listener);
        if look_up.is_none() && !is_verified {
            return self.store(submitter, submission, &[]);
        }
        let letter = is_verified.then(|| letter_of(&submission)).flatten().map(Box::new);
        self.intake.buffered += submission.content.len();
        let slot = self.intake.parked.insert(Parked { submitter, submission });
        let slot = u32::try_from(slot).expect("memory_max bounds the messages that wait");
        let ask = Ask::Message { slot, look_up: look_up.map(Box::new), letter };
        if !self.ask_control(place, ask) {
            self.unpark(slot);
            self.answer(submitter, Stored::Full);
        }
    }

    fn unpark(&mut self, slot: u32) -> Option<Parked> {
        let parked = self.intake.parked.try_remove(slot as usize)?;
        self.intake.buffered -= parked.submission.content.len();
        Some(parked)
    }

    fn on_message_known(&mut self, slot: u32, found: &Found, verified: Option<&[u8]>) {
        let Some(Parked { submitter, submission }) = self.unpark(slot) else { return };
        let Some((_, listener)) = self.intake.get_with_number(submitter.place) else { return };
        let verified = verified.unwrap_or_default();
        match self.settings.access.judge_message(listener, found) {
            Judgement::Nothing => self.store(submitter, submission, &[verified]),
            Judgement::Tag(field) => self.store(submitter, submission, &[verified, field.as_bytes()]),
            Judgement::Refuse(refusal) => self.answer(submitter, Stored::Refused(refusal)),
        }
    }
}

/// What is verified of a message; nothing of a local process's.
fn letter_of(submission: &Submission) -> Option<Letter> {
    let Origin::Net { address, .. } = submission.client.origin else { return None };
    Some(Letter {
        client: address,
        helo: submission.helo.clone(),
        sender: submission.envelope.reverse_path.clone(),
        content: Bytes::copy_from_slice(&submission.content),
    })
}

fn busy() -> Refusal {
    Refusal { code: 421, enhanced: (3, 2), text: "Too busy to look you up; try again later".into() }
}
