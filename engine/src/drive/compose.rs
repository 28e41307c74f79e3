//! Messages that we write ourselves, and those of the control thread, queued as if a session had brought them.

use crate::clock::Clock;
use crate::core::Core;
use crate::crossing::Composed;
use crate::drive::log::{Incoming, Origin};
use bytes::Bytes;
use local::virtual_domains::Domains;
use message::{
    BodyKind, Class, ContentFacts, Envelope, Lane, MailAsked, MailboxRef, Recipients, ReversePath,
};
use queue::log::record;
use ring::Ring;

impl Incoming {
    pub(crate) fn new(envelope: Envelope, class: Class, facts: ContentFacts, content: Bytes) -> Incoming {
        let (meta, recipients) = (Bytes::from(record::meta_of(&envelope)), envelope.recipients.count());
        Incoming { envelope, class, recipients, facts, content, meta, moved: None }
    }

    /// Who goes another way than their domain does stands in the queue under a name of it that says so. A copy has it already.
    pub(super) fn tell_exceptions(&mut self, domains: &Domains) {
        if self.moved.is_some() || !domains.has_addresses() {
            return;
        }
        let other_way =
            |to: MailboxRef<'_>| domains.is_exception(to.local_part, to.domain).then(|| to.with_other_way());
        if self.envelope.recipients.readdress(other_way) {
            self.meta = Bytes::from(record::meta_of(&self.envelope));
        }
    }

    /// A message that we write ourselves: to be sent as it is, in its turn; nobody asked to be told of it.
    pub(crate) fn ours(
        reverse_path: ReversePath,
        recipients: Recipients,
        smtputf8: bool,
        content: Vec<u8>,
    ) -> Incoming {
        let facts = ContentFacts::of(&content);
        let body = if facts.has_eight_bit() { BodyKind::EightBitMime } else { BodyKind::SevenBit };
        let envelope = Envelope {
            reverse_path,
            verp: None,
            body,
            smtputf8,
            requires_tls: false,
            lane: Lane::Normal,
            asked: MailAsked::default(),
            recipients,
        };
        Incoming::new(envelope, Class::default(), facts, Bytes::from(content))
    }
}

impl<R: Ring, C: Clock> Core<R, C> {
    /// Nobody waits for it: a log that is full or broken loses it, and says so.
    pub(crate) fn compose(&mut self, composed: Composed) {
        let Composed { from, to, content } = composed;
        let mut recipients = Recipients::new();
        recipients.push(to.as_ref());
        let smtputf8 = to.as_ref().needs_smtputf8() || from.as_ref().needs_smtputf8();
        let incoming = Incoming::ours(ReversePath::Mailbox(from), recipients, smtputf8, content);
        // A bounce of no failures: durable, it settles nothing.
        if self.append(incoming, Origin::Bounce(Vec::new())).is_err() {
            tracing::warn!("a message of our own was not queued: the log takes none");
        }
    }
}
