//! From a session's submission to the log, and back to the session once it is durable.

use super::Submitter;
use crate::access::LISTS_FIELD;
use crate::clock::Clock;
use crate::core::Core;
use crate::drive::log::{Incoming, Origin};
use crate::keeping::{archive_recipients, hash_line};
use bytes::Bytes;
use message::compose::{FixUp, Stamp, Unique, Zone, fix_up};
use message::header::needs_smtputf8;
use message::received::{Peer as TracePeer, Received as Trace, Tls};
use message::results::{Ours, strip_forged};
use message::{Class, ContentFacts, Envelope, Lane, MailAsked, MessageId, ReversePath};
use ring::Ring;
use smtp_in::door::{self, Client};
use smtp_in::{Encrypted, Gate, Stored, Submission};
use std::borrow::Cow;

/// The client, for the trace field.
fn peer_of(client: &Client) -> TracePeer<'_> {
    match client.origin {
        door::Origin::Local { uid } => TracePeer::Local { uid },
        door::Origin::Net { address, .. } => TracePeer::Net {
            address,
            name: client.rights.name.as_deref(),
            ident: client.rights.ident.as_deref(),
        },
    }
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

    /// Puts our trace field on top, what was found out about client and message below it, and hands the message to the log.
    pub(super) fn store(&mut self, submitter: Submitter, mut submission: Submission, fields: &[&[u8]]) {
        self.strip_forged(submitter, &mut submission);
        self.mend(submitter, &mut submission);
        let content = self.content_of(submitter, &submission, fields);
        let fields_len = u32::try_from(content.len() - submission.content.len()).unwrap_or(u32::MAX);
        let submitter = Submitter { fields_len, ..submitter };
        let content = Bytes::from(content);
        let Submission { mut envelope, facts, .. } = submission;
        envelope.smtputf8 &= facts.has_eight_bit() && needs_smtputf8(&content);
        if let Err(outcome) = self.archive(&envelope, facts, &content) {
            return self.answer(submitter, outcome);
        }
        let class = self.settings.class_of(&envelope, &submission.content);
        let new = Incoming::new(envelope, class, facts, content);
        if let Err(outcome) = self.append(new, Origin::Session(submitter)) {
            self.answer(submitter, outcome);
        }
    }

    /// What a stranger wrote under our name goes, where we write it ourselves: also where nothing came of that this time, as
    /// readers of our mail believe it.
    fn strip_forged(&mut self, submitter: Submitter, submission: &mut Submission) {
        let Some((_, listener)) = self.intake.get_with_number(submitter.place) else { return };
        let (config, access) = (&self.settings.config, &self.settings.access);
        let mut ours = Ours::default();
        if access.wants_verified(&submission.client, listener) {
            ours.ids = config.verify.trusted_ids(&config.host_name);
        }
        if access.tags(&submission.client, listener) {
            ours.fields.push(LISTS_FIELD);
        }
        if let Cow::Owned(content) = strip_forged(&submission.content, &ours) {
            submission.facts = ContentFacts::of(&content);
            submission.content = content;
        }
    }

    /// Adds what the message lacks, for clients whose rule says so (RFC 6409 §8).
    fn mend(&mut self, submitter: Submitter, submission: &mut Submission) {
        let Some((_, listener)) = self.intake.get_with_number(submitter.place) else { return };
        let is_wanted = self.settings.access.wants_fix_up(&submission.client, listener);
        let Some(hosts) = self.settings.hosts.as_ref().filter(|_| is_wanted) else { return };
        let now = Stamp { at: self.wall, zone: Zone::Universal };
        let nonce = u128::from_le_bytes(self.intake.nonces.next());
        let unique = Unique { process: std::process::id(), serial: u64::try_from(nonce >> 64).unwrap_or(0) };
        if let Some(content) = fix_up(&submission.content, &FixUp { hosts, now, unique }) {
            submission.facts = ContentFacts::of(&content);
            submission.content = content;
        }
    }

    fn content_of(&mut self, submitter: Submitter, submission: &Submission, fields: &[&[u8]]) -> Vec<u8> {
        let Submission { helo, with, client, encrypted, .. } = submission;
        let mut content = Vec::with_capacity(submission.content.len() + 512);
        let tls = encrypted.map(|Encrypted { version, cipher }| Tls { version, cipher });
        let (by, at) = (&self.settings.config.host_name, self.wall);
        Trace { helo, from: peer_of(client), tls, by, with, at }.render(&mut content);
        let known = self.intake.get(submitter.place).and_then(|client| client.known.as_ref());
        let own = known.and_then(|known| known.field.as_deref());
        for field in own.map(str::as_bytes).into_iter().chain(fields.iter().copied()) {
            content.extend_from_slice(field);
        }
        content.extend_from_slice(&submission.content);
        content
    }

    /// A copy for the archive, if there is one (Q05): a message of its own, in the log before the one that it is of, so
    /// that whoever hears `250` knows both safe.
    pub(crate) fn archive(
        &mut self,
        envelope: &Envelope,
        facts: ContentFacts,
        content: &Bytes,
    ) -> Result<(), Stored> {
        let Some(recipients) = archive_recipients(&self.settings.config.keep, &envelope.recipients) else {
            return Ok(());
        };
        let envelope = Envelope {
            reverse_path: ReversePath::Null,
            verp: None,
            asked: MailAsked::default(),
            lane: Lane::Normal,
            body: envelope.body,
            smtputf8: envelope.smtputf8,
            requires_tls: envelope.requires_tls,
            recipients,
        };
        let copy = Incoming::new(envelope, Class::default(), facts, Bytes::clone(content));
        // A bounce of no failures: durable, it settles nothing.
        self.append(copy, Origin::Bounce(Vec::new()))
    }

    /// For the delivery log: what came, by its one-way hash (Q05).
    /// `fields_len`: octets on top of it that are ours.
    pub(crate) fn note_hash(&mut self, fields_len: u32, id: MessageId, content: &[u8]) {
        if !self.settings.config.keep.hash {
            return;
        }
        if let Some(lines) = self.delivery_log.for_line(&self.counters) {
            let own = content.get(fields_len as usize..).unwrap_or_default();
            lines.extend_from_slice(hash_line(self.wall, id, own).as_bytes());
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
