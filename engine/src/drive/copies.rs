//! Copies that differ: a recipient's own words in the letter, its own way to unsubscribe, its own signature.
//!
//! Made when the recipient is offered to a connection, gone when its transaction is. Bound: one copy for each transaction in
//! flight; a copy is as long as [`message::merge`] lets it be.

use super::outbound::Delivery;
use crate::clock::Clock;
use crate::core::Core;
use bytes::Bytes;
use message::copies::{Scratch, Signing};
use message::merge::fields;
use message::unsubscribe::Subscription;
use message::{ContentFacts, MailboxRef, Reply};
use ring::Ring;
use smallvec::SmallVec;
use std::sync::Arc;

/// What one recipient is sent.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) content: Bytes,
    pub(crate) facts: ContentFacts,
}

/// Room for making copies.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    scratch: Scratch,
    fields: Vec<u8>,
}

impl<R: Ring, C: Clock> Core<R, C> {
    /// The recipient's own copy. `None`: it gets what all get. An error is for good, and what its sender is told.
    pub(super) fn copy_for(&mut self, delivery: &Delivery, domain: &str) -> Result<Option<Copy>, Reply> {
        let letter = &delivery.letter;
        let Some(name) = delivery.names.first().filter(|_| letter.has_own_copies()) else { return Ok(None) };
        let damaged = || Reply::ours(554, (5, 6, 5), "The letter cannot be filled in for this recipient");
        let pattern = Arc::clone(letter.pattern().ok_or_else(damaged)?);
        let values: SmallVec<[&str; 16]> = match &letter.columns {
            None => SmallVec::new(),
            Some(_) => fields::decode(name.values(&delivery.window))
                .collect::<Result<_, _>>()
                .map_err(|_| damaged())?,
        };
        let mut desk = std::mem::take(&mut self.outbound.desk);
        desk.fields.clear();
        self.put_unsubscribe(
            delivery,
            MailboxRef { local_part: delivery.local_part(name), domain },
            &mut desk.fields,
        );
        let (signers, mut out) = ((&*self.settings.dkim, self.wall), Vec::new());
        let signing = pattern.render(&desk.fields, &values, signers, &mut desk.scratch, &mut out);
        self.outbound.desk = desk;
        match signing {
            Signing::Nobody => {}
            Signing::Signed => self.counters.signed.add(1),
            Signing::Failed(_) => self.counters.unsigned.add(1),
        }
        let facts = ContentFacts::of(&out);
        Ok(Some(Copy { content: Bytes::from(out), facts }))
    }

    /// The fields by which the recipient leaves the list (RFC 8058), if its campaign wants them and the configuration says
    /// where they lead.
    fn put_unsubscribe(&mut self, delivery: &Delivery, to: MailboxRef<'_>, out: &mut Vec<u8>) {
        let Some(campaign) = delivery.letter.class.campaign.and_then(|number| self.campaign(number)).cloned()
        else {
            return;
        };
        let Some((links, key)) = self.settings.unsubscribe.as_deref().filter(|_| campaign.shared.unsubscribe)
        else {
            return;
        };
        let list = campaign.shared.list.as_deref().unwrap_or_default();
        if let Ok(subscription) = Subscription::new(list, to) {
            links.header_fields(key, &subscription, out);
        }
    }
}
