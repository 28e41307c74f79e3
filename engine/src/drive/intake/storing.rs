//! From a session's submission to the log, and back to the session once it is durable.

use super::Submitter;
use crate::clock::Clock;
use crate::core::{Core, Place};
use crate::drive::log::{Incoming, Origin};
use crate::settings::Settings;
use bytes::Bytes;
use message::received::{Peer as TracePeer, Received as Trace};
use message::{Class, Envelope, Marks, MessageId, Traits};
use queue::log::record;
use ring::Ring;
use smtp_in::{Gate, Stored, Submission};

/// Which pool a message goes out from, and whose turn it takes: decided here, once. One pass over the header.
fn class_of(settings: &Settings, envelope: &Envelope, content: &[u8]) -> Class {
    let marks = Marks::of(content, &settings.config.lanes.tenant_field);
    let traits = Traits {
        sender: envelope.reverse_path.as_str(),
        campaign: marks.campaign.as_deref(),
        tenant: marks.tenant.as_deref(),
    };
    Class { pool: settings.sources.select(&traits), flow: traits.flow(settings.log_salt) }
}

impl<R: Ring, C: Clock> Core<R, C> {
    /// Whether new mail is taken.
    pub(crate) fn gate(&self) -> Gate {
        if self.halted || self.logs.primary().is_poisoned() {
            Gate::Broken
        } else if self.logs.is_full() || self.is_over_a_mark() {
            Gate::Full
        } else {
            Gate::Open
        }
    }

    /// More messages under way, or more mail in the queue, than the operator allows.
    fn is_over_a_mark(&self) -> bool {
        let marks = &self.settings.config.intake;
        self.intake.buffered > marks.memory_max || self.crossing.backlog() > marks.backlog_max
    }

    /// Puts our trace field on top and hands the message to the log.
    pub(super) fn store(&mut self, place: Place, submission: Submission) {
        let Some(client) = self.intake.get(place) else { return };
        let peer = client.peer;
        client.stores += 1;
        let mut content = Vec::with_capacity(submission.content.len() + 256);
        let by = &self.settings.config.host_name;
        let (helo, with, at) = (&submission.helo, submission.with, self.wall);
        let from = TracePeer::Net { address: peer.ip().to_canonical(), name: None, ident: None };
        Trace { helo, from, tls: None, by, with, at }.render(&mut content);
        content.extend_from_slice(&submission.content);
        let Submission { transaction, envelope, facts, .. } = submission;
        let class = class_of(&self.settings, &envelope, &submission.content);
        let meta = record::meta_of(&envelope);
        let recipients = envelope.recipients.count();
        let (content, meta) = (Bytes::from(content), Bytes::from(meta));
        let new = Incoming { envelope, class, recipients, facts, content, meta, moved: None };
        let submitter = Submitter { place, transaction };
        if let Err(outcome) = self.append(new, Origin::Session(submitter)) {
            self.answer(submitter, outcome);
        }
    }

    /// Tells a session what became of its message.
    pub(crate) fn answer(&mut self, submitter: Submitter, outcome: Stored) {
        let Some(client) = self.intake.get(submitter.place) else { return };
        client.stores -= 1;
        client.session.handle_stored(self.now, submitter.transaction, outcome);
    }

    /// As [`Core::answer`], then lets the session speak. Only now may it say 250: the sync came first.
    pub(crate) fn answer_stored(&mut self, submitter: Submitter, id: MessageId) {
        self.answer(submitter, Stored::Accepted(id));
        self.drain_client(submitter.place);
    }

    pub(crate) fn answer_refused(&mut self, submitter: Submitter, outcome: Stored) {
        self.answer(submitter, outcome);
        self.drain_client(submitter.place);
    }
}
