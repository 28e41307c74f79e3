//! What a command is about: ids and conditions, and which recipients of a message they choose.
//!
//! Pure. Bound: the message at hand.

use super::{QueueError, Which};
use crate::steer::condition::{self, TERMS_MAX, Term, TextField};
use crate::steer::order::Chosen;
use message::MessageId;
use message::address::shown_domain;
use queue::log::record::{Group, Head, Meta, NameAt, next_name};
use std::collections::BTreeSet;

pub(super) use message::class::HEADER_MAX;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Filter {
    pub(super) ids: BTreeSet<MessageId>,
    pub(super) terms: Vec<Term>,
}

impl Filter {
    pub(super) fn new(which: &Which) -> Result<Filter, QueueError> {
        let mut terms = Vec::new();
        for text in &which.conditions {
            terms.extend(condition::parse(text).map_err(|error| QueueError::Usage(error.to_string()))?);
        }
        if terms.len() > TERMS_MAX {
            return Err(QueueError::Usage(format!("more than {TERMS_MAX} terms")));
        }
        Ok(Filter { ids: which.ids.iter().copied().collect(), terms })
    }

    pub(super) fn is_everything(&self) -> bool {
        self.ids.is_empty() && self.terms.is_empty()
    }

    /// True if messages must be read to know.
    pub(super) fn needs_disk(&self) -> bool {
        self.terms.iter().any(Term::is_on_disk)
    }

    /// For the daemon: what it decides.
    pub(super) fn core_terms(&self) -> Vec<String> {
        self.terms.iter().filter(|term| !term.is_on_disk()).map(ToString::to_string).collect()
    }

    fn asks_for(&self, asked: TextField) -> bool {
        self.terms.iter().any(|term| matches!(term, Term::Text { field, .. } if *field == asked))
    }

    fn holds_for(&self, field: TextField, text: &str) -> bool {
        self.terms.iter().all(|term| term.holds_for(field, text))
    }

    /// The message's recipients that ids, sender, campaign and recipient conditions choose, as spans. `header` is read
    /// only if the campaign matters.
    pub(super) fn choose(
        &self,
        head: &Head,
        meta: &Meta<'_>,
        bytes: &[u8],
        header: &mut dyn FnMut() -> Vec<u8>,
        on_chosen: &mut dyn FnMut(Chosen),
    ) {
        let is_named = self.ids.is_empty() || self.ids.contains(&head.id);
        if !is_named || !self.holds_for(TextField::Sender, meta.reverse_path) {
            return;
        }
        if self.asks_for(TextField::Campaign)
            && !self.holds_for(TextField::Campaign, &campaign_of(&header()).unwrap_or_default())
        {
            return;
        }
        if !self.asks_for(TextField::Recipient) {
            return on_chosen(Chosen::message(head.id));
        }
        for group in meta.groups() {
            self.choose_names(head, group, bytes, on_chosen);
        }
    }

    fn choose_names(&self, head: &Head, group: Group<'_>, bytes: &[u8], on_chosen: &mut dyn FnMut(Chosen)) {
        let Head { id, layout, .. } = *head;
        let mut open: Option<Chosen> = None;
        let (mut offset, domain) = (group.name_offset, shown_domain(group.domain));
        for index in group.first..group.first.saturating_add(group.count) {
            let names = bytes.get(offset as usize..).unwrap_or_default();
            let Some(NameAt { name, rest, .. }) = next_name(names, layout) else { break };
            let end = offset + u32::try_from(names.len() - rest.len()).unwrap_or(0);
            let is_chosen = self.holds_for(TextField::Recipient, &format!("{name}@{domain}"));
            match &mut open {
                Some(span) if is_chosen => (span.count, span.name_end) = (span.count + 1, end),
                Some(_) => open.take().into_iter().for_each(&mut *on_chosen),
                None if is_chosen => {
                    open = Some(Chosen { id, first: index, count: 1, name_offset: offset, name_end: end });
                }
                None => {}
            }
            offset = end;
        }
        open.into_iter().for_each(on_chosen);
    }
}

/// The campaign that a header names.
pub(super) fn campaign_of(header: &[u8]) -> Option<String> {
    message::Marks::of(header, "").campaign.map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use message::{
        BodyKind, ContentFacts, Envelope, Lane, Mailbox, MailboxRef, Recipients, ReversePath, UnixMillis,
    };
    use queue::log::record::{Bound, Layout, Location, meta_of};

    fn meta() -> Vec<u8> {
        let mut recipients = Recipients::new();
        for recipient in ["ann@a.test", "bob@a.test", "bea@a.test", "ann@b.test"] {
            recipients.push(MailboxRef::parse(recipient).unwrap());
        }
        let reverse_path = ReversePath::Mailbox(Mailbox::parse("list@news.test").unwrap());
        meta_of(&Envelope {
            reverse_path,
            verp: None,
            body: BodyKind::SevenBit,
            smtputf8: false,
            requires_tls: false,
            lane: Lane::Normal,
            asked: message::MailAsked::default(),
            recipients,
        })
    }

    fn head() -> Head {
        Head {
            id: MessageId(7),
            bound: Bound::new(Location::new(0, 0), 0, 0),
            requires_tls: false,
            lane: Lane::Normal,
            class: message::Class::default(),
            arrived: UnixMillis(0),
            facts: ContentFacts::default(),
            body: BodyKind::SevenBit,
            smtputf8: false,
            layout: Layout::default(),
            meta_len: 0,
            meta_crc: 0,
            content_len: 0,
            content_crc: 0,
            recipients: 4,
        }
    }

    fn chosen(ids: &[u64], condition: &str, header: &str) -> Vec<Chosen> {
        let conditions = [condition.to_owned()].into_iter().filter(|text| !text.is_empty()).collect();
        let which = Which { ids: ids.iter().copied().map(MessageId).collect(), conditions };
        let (filter, bytes) = (Filter::new(&which).unwrap(), meta());
        let meta = Meta::parse(&bytes, Layout::default()).unwrap();
        let mut found = Vec::new();
        filter.choose(&head(), &meta, &bytes, &mut || header.into(), &mut |span| found.push(span));
        found
    }

    #[test]
    fn neighbours_that_match_are_one_span_that_ends_where_the_next_name_begins() {
        let all = chosen(&[], "recipient=b*@a.test", "");
        assert_eq!(all.len(), 1);
        let bytes = meta();
        let span = all[0];
        assert_eq!((span.first, span.count), (1, 2));
        assert_eq!(next_name(&bytes[span.name_offset as usize..], Layout::default()).unwrap().name, "bob");
        assert_eq!(span.name_end - span.name_offset, 8);
        let firsts: Vec<_> =
            chosen(&[], "recipient=ann@*", "").iter().map(|span| (span.first, span.count)).collect();
        assert_eq!(firsts, [(0, 1), (3, 1)]);
    }

    #[test]
    fn sender_campaign_and_id_choose_whole_messages() {
        let whole = [Chosen::message(MessageId(7))];
        assert_eq!(chosen(&[], "sender=list@*", ""), whole);
        assert_eq!(chosen(&[], "sender!=list@*", ""), []);
        assert_eq!(chosen(&[7, 9], "", ""), whole);
        assert_eq!(chosen(&[9], "", ""), []);
        assert_eq!(
            chosen(&[], "campaign=spring*", "Subject: x\r\nX-Campaign-ID: spring\r\n  24\r\n\r\n"),
            whole
        );
        assert_eq!(chosen(&[], "campaign=spring", "Subject: x\r\n\r\nX-Campaign-ID: spring\r\n"), []);
    }
}
