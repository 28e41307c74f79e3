//! The operator's line for each rejection: who was refused what, and in which words.
//!
//! Bound: [`LineBudget`](crate::observe::LineBudget)'s, on each core.

use super::Listening;
use crate::clock::Clock;
use crate::core::{Core, Place};
use ring::Ring;
use smtp_in::Rejection;
use smtp_in::door::Origin;

impl<R: Ring, C: Clock> Core<R, C> {
    pub(super) fn complain(&mut self, place: Place, rejection: &Rejection) {
        self.counters.rejections.add(1);
        let Some(left_out) = self.intake.complaints.may_say(self.now) else { return };
        let Some(client) = self.intake.clients.get(place.index as usize) else { return };
        let known = client.session.client();
        let address = match known.origin {
            Origin::Net { address, .. } => address.to_string(),
            Origin::Local { uid } => format!("uid {uid}"),
        };
        let listening = self.intake.listeners.get(client.listening as usize);
        let Rejection { stage, reply, sender, recipient } = rejection;
        tracing::info!(
            client = address,
            listener = listening.map_or("", Listening::shown),
            stage = stage.name(),
            login = known.login.as_deref(),
            sender = sender.as_deref(),
            recipient = recipient.as_deref(),
            left_out,
            reply = %reply,
            "rejected"
        );
    }
}

impl Listening {
    fn shown(&self) -> &str {
        self.name.as_deref().unwrap_or("submit")
    }
}
