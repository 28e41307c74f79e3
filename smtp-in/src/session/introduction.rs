//! Who comes: what a proxy or a front server says about it, the question, its answer, the greeting, and those who cannot
//! wait for it.

use super::{Ending, Named, Reading, Session, Waiting};
use crate::door::{Answer, Origin, Question, Rights};
use crate::output::Output;
use crate::proxy::Progress;
use crate::replies::{self, No};
use crate::xclient::Attributes;
use std::net::{IpAddr, Ipv4Addr};
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

    pub(super) fn read_header(&mut self, bytes: &[u8]) -> usize {
        let Reading::Header(reader) = &mut self.reading else {
            unreachable!("only read() calls, and it looked");
        };
        match reader.read(bytes) {
            Progress::More => bytes.len(),
            Progress::End(used, named) => {
                if let Some((address, port)) = named {
                    Arc::make_mut(&mut self.client).origin = Origin::Net { address, port };
                }
                (self.reading, self.progressed) = (Reading::Commands, true);
                self.arrive();
                used
            }
            Progress::Wrong => {
                self.tell_unsaid("no PROXY header".into());
                self.stop_reading(Ending::Closing);
                bytes.len()
            }
        }
    }

    /// Begins anew, with another client at the other end.
    pub(super) fn on_xclient(&mut self, attributes: Option<Attributes>) {
        match attributes {
            _ if !self.is_front => self.refuse(replies::XCLIENT_DENIED),
            Some(attributes) => {
                (self.helo, self.transaction) = (None, None);
                self.take_attributes(attributes);
                self.introduce(After::Greeting);
            }
            None => self.refuse(replies::XCLIENT_SYNTAX),
        }
    }

    /// A client that is not known has no address of its front's, nor its rights. What is not said stays as it was.
    fn take_attributes(&mut self, attributes: Attributes) {
        let client = Arc::make_mut(&mut self.client);
        let named = self.named.get_or_insert_with(|| {
            Box::new(Named { front: client.origin.clone(), helo: None, is_extended: None })
        });
        let mut rights = Rights { name: client.rights.name.take(), ..Rights::default() };
        if let Some(address) = attributes.address {
            let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            client.origin = Origin::Net { address, port: 0 };
            rights.name = None;
        }
        if let (Origin::Net { port, .. }, Some(given)) = (&mut client.origin, attributes.port) {
            *port = given.unwrap_or(0);
        }
        if let Some(name) = attributes.name {
            rights.name = name.map(Into::into);
        }
        if let Some(login) = attributes.login {
            client.login = login.map(Into::into);
        }
        client.rights = rights;
        named.helo = attributes.helo.unwrap_or(named.helo.take());
        named.is_extended = attributes.is_extended.or(named.is_extended);
    }

    /// Whoever came by XCLIENT is forgotten: it was said in plain text. True if somebody did.
    pub(super) fn forget_named(&mut self) -> bool {
        let Some(named) = self.named.take() else { return false };
        let client = Arc::make_mut(&mut self.client);
        (client.origin, client.login, client.rights) = (named.front, None, Rights::default());
        true
    }

    pub(super) fn introduce(&mut self, after: After) {
        self.waiting = Waiting::Introduction(after);
        let client = Box::new(crate::door::Client::clone(&self.client));
        self.due = Some(Box::new(Output::Ask(Question::Introduce(client))));
    }

    pub(super) fn on_introduced(&mut self, now: Instant, after: After, answer: Answer) {
        match answer {
            Answer::Welcome(rights) => {
                self.is_front |= rights.may_xclient;
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
