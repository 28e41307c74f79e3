//! A mail transaction that is open: the envelope so far and the content so far.
//!
//! Bounds: `recipients_max` recipients, `size_max` octets of content; content that grows past its bound is
//! dropped at once and only counted as too big.

use crate::command::Mail;
use crate::replies::{self, Sentence};
use message::{AddressError, Envelope, MailboxRef, Recipients};

/// Octets of room made before content comes. A client that announces much holds no memory until it sends.
const RESERVE_MAX: u64 = 256 * 1024;

/// From an accepted MAIL until its content is whole, RSET or a failed chunk.
#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) envelope: Envelope,
    pub(crate) content: Content,
    /// The content comes in chunks; no RCPT and no DATA may follow.
    pub(crate) chunks_begun: bool,
    /// SIZE as announced, for room.
    size: u64,
    /// A RCPT was refused, which is why there may be no recipient.
    any_refused: bool,
}

impl Transaction {
    pub(crate) fn new(mail: Mail, size_max: u64) -> Transaction {
        let Mail { reverse_path, verp, size, body, smtputf8 } = mail;
        Transaction {
            envelope: Envelope { reverse_path, verp, body, smtputf8, recipients: Recipients::new() },
            content: Content::with_len_max(size_max),
            chunks_begun: false,
            size: size.unwrap_or(0),
            any_refused: false,
        }
    }

    /// No allocation beyond the list's own growth.
    pub(crate) fn add_recipient(
        &mut self,
        mailbox: MailboxRef<'_>,
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
        recipients.push(mailbox);
        // The list keeps no domain that outgrew it when it was lower-cased.
        let kept = recipients.count() > count;
        if kept { Ok(()) } else { Err(replies::bad_recipient(AddressError::DomainTooLong)) }
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

    #[test]
    fn announced_size_reserves_little() {
        let mut content = Content::with_len_max(u64::MAX);
        content.reserve(u64::MAX);
        assert!(content.bytes.capacity() as u64 <= 2 * RESERVE_MAX);
    }
}
