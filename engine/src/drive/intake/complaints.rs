//! The operator's line for each rejection: who was refused what, and in which words.
//!
//! Bound: [`LINES_PER_SECOND`] lines a second on each core; those past it are counted, and the count is told with the next
//! line, so that whoever floods us does not fill the disk.

use super::Listening;
use crate::clock::Clock;
use crate::core::{Core, Place};
use ring::Ring;
use smtp_in::Rejection;
use smtp_in::door::Origin;
use std::time::{Duration, Instant};

const LINES_PER_SECOND: u32 = 50;

#[derive(Debug, Default)]
pub(super) struct Complaints {
    since: Option<Instant>,
    lines: u32,
    unsaid: u64,
}

impl Complaints {
    /// How many were left out since the last line, if this one may be said.
    fn may_say(&mut self, now: Instant) -> Option<u64> {
        let is_over = self.since.is_none_or(|since| now >= since + Duration::from_secs(1));
        if is_over {
            (self.since, self.lines) = (Some(now), 0);
        }
        self.lines += 1;
        if self.lines > LINES_PER_SECOND {
            self.unsaid += 1;
            return None;
        }
        Some(std::mem::take(&mut self.unsaid))
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flood_of_rejections_is_a_few_lines_and_a_count() {
        let (mut complaints, now) = (Complaints::default(), Instant::now());
        let said = (0..1000).filter(|_| complaints.may_say(now).is_some()).count();
        assert_eq!(said, 50);
        assert_eq!(complaints.may_say(now + Duration::from_secs(1)), Some(950));
        assert_eq!(complaints.may_say(now + Duration::from_secs(1)), Some(0));
    }
}
