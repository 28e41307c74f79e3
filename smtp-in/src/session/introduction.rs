//! Who comes: the question about that, its answer, the greeting, and those who cannot wait for it.

use super::{Ending, Session, Waiting};
use crate::door::{Answer, Question};
use crate::output::Output;
use crate::replies::{self, No};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What follows an introduction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum After {
    Greeting,
    /// Nothing is said: the client goes on with EHLO.
    Handshake,
}

impl Session {
    pub(super) fn arrive(&mut self) {
        if self.is_implicit() {
            self.begin_handshake();
        } else {
            self.introduce(After::Greeting);
        }
    }

    pub(super) fn introduce(&mut self, after: After) {
        self.waiting = Waiting::Introduction(after);
        let client = Box::new(crate::door::Client::clone(&self.client));
        self.due = Some(Box::new(Output::Ask(Question::Introduce(client))));
    }

    pub(super) fn on_introduced(&mut self, now: Instant, after: After, answer: Answer) {
        match answer {
            Answer::Welcome(rights) => {
                Arc::make_mut(&mut self.client).rights = rights;
                self.go_on(now, after);
            }
            Answer::Turned(refusal) => {
                self.say_no(&No::Theirs(refusal), Default::default());
                self.stop_reading(Ending::Closing);
            }
            _ => self.close_with(replies::CANNOT_LOOK_UP),
        }
    }

    fn go_on(&mut self, now: Instant, after: After) {
        let delay = self.policy.greeting_delay_secs;
        match after {
            After::Greeting if delay > 0 && !self.is_greeted => {
                self.waiting = Waiting::Greeting;
                self.deadline = now + Duration::from_secs(delay);
            }
            After::Greeting => self.greet(now),
            After::Handshake => self.restart_deadline(now),
        }
    }

    pub(super) fn greet(&mut self, now: Instant) {
        (self.waiting, self.is_greeted) = (Waiting::Nothing, true);
        replies::greeting(&self.policy, self.replies.tail());
        self.restart_deadline(now);
    }

    /// Whether octets that come now come too early.
    pub(super) fn is_early(&self) -> bool {
        self.policy.greeting_delay_secs > 0
            && matches!(self.waiting, Waiting::Greeting | Waiting::Introduction(After::Greeting))
            && !self.is_greeted
    }

    pub(super) fn on_early(&mut self) {
        self.close_with(replies::TOO_EARLY);
    }
}
