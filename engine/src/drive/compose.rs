//! Messages that the control thread writes, queued as if a session had brought them.

use crate::clock::Clock;
use crate::core::Core;
use crate::crossing::Composed;
use crate::drive::log::{Incoming, Origin};
use bytes::Bytes;
use message::{BodyKind, Class, ContentFacts, Envelope, Lane, MailAsked, Recipients, ReversePath};
use queue::log::record;
use ring::Ring;

impl<R: Ring, C: Clock> Core<R, C> {
    /// Nobody waits for it: a log that is full or broken loses it, and says so.
    pub(crate) fn compose(&mut self, composed: Composed) {
        let Composed { from, to, content } = composed;
        let mut recipients = Recipients::new();
        recipients.push(to.as_ref());
        let smtputf8 = to.as_ref().needs_smtputf8() || from.as_ref().needs_smtputf8();
        let facts = ContentFacts::of(&content);
        let body = if facts.has_eight_bit() { BodyKind::EightBitMime } else { BodyKind::SevenBit };
        let (reverse_path, lane, asked) = (ReversePath::Mailbox(from), Lane::Normal, MailAsked::default());
        let envelope = Envelope {
            reverse_path,
            verp: None,
            body,
            smtputf8,
            requires_tls: false,
            lane,
            asked,
            recipients,
        };
        let meta = Bytes::from(record::meta_of(&envelope));
        let content = Bytes::from(content);
        let incoming =
            Incoming { envelope, class: Class::default(), recipients: 1, facts, content, meta, moved: None };
        // A bounce of no failures: durable, it settles nothing.
        if self.append(incoming, Origin::Bounce(Vec::new())).is_err() {
            tracing::warn!("a message of our own was not queued: the log takes none");
        }
    }
}
