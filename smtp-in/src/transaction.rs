//! A mail transaction that is open: the envelope so far and the content so far.
//!
//! Bounds: `recipients_max` recipients, `size_max` octets of content; content that grows past its bound is
//! dropped at once and only counted as too big.

use crate::command::Mail;
use crate::replies::{self, Sentence};
use message::{AddressError, Envelope, Lane, MailboxRef, Priority, RecipientAsked, Recipients, Wish};

/// Octets of room made before content comes. A client that announces much holds no memory until it sends.
const RESERVE_MAX: u64 = 256 * 1024;

/// From an accepted MAIL until its content is whole, RSET or a failed chunk.
#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) envelope: Envelope,
    pub(crate) content: Content,
    /// The content comes in chunks; no RCPT and no DATA may follow.
    pub(crate) chunks_begun: bool,
    /// As MAIL asked for it.
    priority: Option<Priority>,
    /// SIZE as announced, for room.
    size: u64,
    /// A RCPT was refused, which is why there may be no recipient.
    any_refused: bool,
}

impl Transaction {
    pub(crate) fn new(mail: Mail, size_max: u64) -> Transaction {
        let Mail { reverse_path, verp, size, body, smtputf8, priority, asked } = mail;
        let (lane, recipients, requires_tls) = (Lane::default(), Recipients::new(), false);
        Transaction {
            envelope: Envelope { reverse_path, verp, body, smtputf8, requires_tls, lane, asked, recipients },
            content: Content::with_len_max(size_max),
            chunks_begun: false,
            priority,
            size: size.unwrap_or(0),
            any_refused: false,
        }
    }

    /// No allocation beyond the list's own growth.
    pub(crate) fn add_recipient(
        &mut self,
        mailbox: MailboxRef<'_>,
        asked: RecipientAsked<'_>,
        recipients_max: u32,
    ) -> Result<(), Sentence> {
        let recipients = &mut self.envelope.recipients;
        let count = recipients.count();
        if count >= recipients_max {
            return Err(replies::TOO_MANY_RECIPIENTS);
        }
        if mailbox.needs_smtputf8() && !self.envelope.smtputf8 {
            return Err(replies::NEEDS_SMTPUTF8);
        }
        if asked.original.is_some_and(|original| original.needs_smtputf8()) && !self.envelope.smtputf8 {
            return Err(replies::BAD_PARAMETER);
        }
        recipients.push_asked(mailbox, asked);
        // The list keeps no domain that outgrew it when it was lower-cased.
        let kept = recipients.count() > count;
        if kept { Ok(()) } else { Err(replies::bad_recipient(AddressError::DomainTooLong)) }
    }

    /// Now that all of it is here: which lane it goes in. True if that is not the priority that MAIL asked for.
    /// The header's word counts from clients that may relay, and only where MAIL said nothing (RFC 6710 §5.1).
    pub(crate) fn settle_lane(&mut self, may_relay: bool, bulk_recipients: u32) -> bool {
        let priority = match self.priority {
            Some(asked) if may_relay => Some(asked),
            Some(asked) => Some(asked.unprivileged()),
            None if may_relay => message::header::priority(self.content.as_slice()),
            None => None,
        };
        let Envelope { verp, recipients, .. } = &self.envelope;
        let (verp, recipients) = (verp.is_some(), recipients.count());
        self.envelope.lane = Wish { priority, verp, recipients, bulk_recipients }.lane();
        self.priority.is_some() && self.priority != priority
    }

    pub(crate) fn note_refused_recipient(&mut self) {
        self.any_refused = true;
    }

    /// Why content may not begin, if it may not.
    pub(crate) fn check_recipients(&self) -> Result<(), Sentence> {
        match (self.envelope.recipients.is_empty(), self.any_refused) {
            (false, _) => Ok(()),
            (true, false) => Err(replies::RCPT_FIRST),
            (true, true) => Err(replies::NO_VALID_RECIPIENTS),
        }
    }

    /// Makes room for content that comes by DATA.
    pub(crate) fn reserve(&mut self) {
        self.content.reserve(self.size);
    }

    /// Octets of memory held.
    pub(crate) fn len_bytes(&self) -> usize {
        self.content.bytes.capacity() + self.envelope.recipients.len_bytes()
    }
}

/// Content that grows up to a bound.
#[derive(Debug)]
pub(crate) struct Content {
    bytes: Vec<u8>,
    len_max: u64,
    over: bool,
}

impl Content {
    pub(crate) fn with_len_max(len_max: u64) -> Content {
        Content { bytes: Vec::new(), len_max, over: false }
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) {
        if self.over || !self.has_room(bytes.len() as u64) {
            self.over = true;
            self.bytes = Vec::new();
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// True if `len` more octets stay within the bound.
    pub(crate) fn has_room(&self, len: u64) -> bool {
        (self.bytes.len() as u64).checked_add(len).is_some_and(|total| total <= self.len_max)
    }

    pub(crate) fn reserve(&mut self, len: u64) {
        let len = len.min(RESERVE_MAX).min(self.len_max);
        self.bytes.reserve(usize::try_from(len).unwrap_or(0));
    }

    /// True if more came than the bound allows; nothing is held then.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn into_vec(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_past_its_bound_holds_no_memory() {
        let mut content = Content::with_len_max(10);
        content.append(b"0123456789");
        assert!(!content.is_over());
        content.append(b"0");
        assert!(content.is_over());
        assert_eq!(content.bytes.capacity(), 0);
        content.append(b"0");
        assert!(content.as_slice().is_empty());
    }

    fn settled(priority: Option<&str>, content: &[u8], may_relay: bool) -> (Lane, bool) {
        let priority = priority.map(|text| Priority::parse(text).unwrap());
        let mail = Mail {
            reverse_path: message::ReversePath::Null,
            verp: None,
            size: None,
            body: message::BodyKind::default(),
            smtputf8: false,
            priority,
            asked: message::MailAsked::default(),
        };
        let mut transaction = Transaction::new(mail, 1000);
        transaction.content.append(content);
        let is_changed = transaction.settle_lane(may_relay, 100);
        (transaction.envelope.lane, is_changed)
    }

    #[test]
    fn priority_of_mail_counts_before_the_headers() {
        let urgent = b"MT-Priority: 4\r\n\r\n";
        assert_eq!(settled(None, urgent, true), (Lane::Urgent, false));
        assert_eq!(settled(Some("-1"), urgent, true), (Lane::Bulk, false));
        assert_eq!(settled(Some("0"), urgent, true), (Lane::Normal, false));
    }

    #[test]
    fn client_that_may_not_relay_raises_nothing_and_is_told() {
        let urgent = b"MT-Priority: 4\r\n\r\n";
        assert_eq!(settled(None, urgent, false), (Lane::Normal, false));
        assert_eq!(settled(Some("4"), urgent, false), (Lane::Normal, true));
        assert_eq!(settled(Some("-4"), urgent, false), (Lane::Bulk, false));
    }

    #[test]
    fn announced_size_reserves_little() {
        let mut content = Content::with_len_max(u64::MAX);
        content.reserve(u64::MAX);
        assert!(content.bytes.capacity() as u64 <= 2 * RESERVE_MAX);
    }
}
