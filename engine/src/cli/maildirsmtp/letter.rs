//! A message of a Maildir as it is to be sent: envelope from the two fields that its delivery put on top, content without
//! them and with CR LF.
//!
//! Pure. Trusts nothing in the file.

use message::{AddressError, ContentFacts, Mailbox, ReversePath};

/// See the module.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) sender: ReversePath,
    pub(super) recipient: Mailbox,
    pub(super) content: Vec<u8>,
    pub(super) facts: ContentFacts,
}

/// Why a file is left where it is.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum LetterError {
    #[error("it has no {0} field")]
    Missing(&'static str),
    #[error("its Return-Path: {0}")]
    Sender(AddressError),
    #[error("its Return-Path asks for a sender of its own for each recipient")]
    Verp,
    #[error("its Delivered-To does not begin with the prefix")]
    Prefix,
    #[error("its Delivered-To without the prefix: {0}")]
    Recipient(AddressError),
}

impl Letter {
    /// `bytes`: the file. `prefix`: what stands before the recipient in `Delivered-To`, in any case.
    pub(super) fn read(bytes: &[u8], prefix: &str) -> Result<Letter, LetterError> {
        let (mut return_path, mut delivered_to) = (None, None);
        let mut content = Vec::with_capacity(bytes.len() + bytes.len() / 32);
        let mut end = 0;
        for field in message::header::fields(bytes) {
            end += field.whole.len();
            let place = match field.name.to_ascii_lowercase().as_slice() {
                b"return-path" => &mut return_path,
                b"delivered-to" => &mut delivered_to,
                _ => {
                    push_lines(field.whole, &mut content);
                    continue;
                }
            };
            // Only the delivery's own, which are on top: older ones tell of a loop.
            match place {
                None => *place = Some(value_of(field.whole)),
                Some(_) => push_lines(field.whole, &mut content),
            }
        }
        push_lines(&bytes[end..], &mut content);
        let sender = sender_of(&return_path.ok_or(LetterError::Missing("Return-Path"))?)?;
        let recipient = recipient_of(&delivered_to.ok_or(LetterError::Missing("Delivered-To"))?, prefix)?;
        let facts = ContentFacts::of(&content);
        Ok(Letter { sender, recipient, content, facts })
    }
}

fn value_of(field: &[u8]) -> String {
    let text = String::from_utf8_lossy(field);
    text.split_once(':').map_or("", |(_, value)| value).trim().to_owned()
}

fn sender_of(value: &str) -> Result<ReversePath, LetterError> {
    match message::path::parse_reverse_path(value).map_err(LetterError::Sender)? {
        (sender, None, _) => Ok(sender),
        (_, Some(_), _) => Err(LetterError::Verp),
    }
}

fn recipient_of(value: &str, prefix: &str) -> Result<Mailbox, LetterError> {
    let (head, rest) = value.split_at_checked(prefix.len()).ok_or(LetterError::Prefix)?;
    if !head.eq_ignore_ascii_case(prefix) {
        return Err(LetterError::Prefix);
    }
    Mailbox::parse(rest).map_err(LetterError::Recipient)
}

/// Line ends become CR LF. A CR that stands alone stays: it is content.
fn push_lines(text: &[u8], into: &mut Vec<u8>) {
    for line in text.split_inclusive(|octet| *octet == b'\n') {
        let body = line.strip_suffix(b"\n").map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        into.extend_from_slice(body.unwrap_or(line));
        if body.is_some() {
            into.extend_from_slice(b"\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Letter, LetterError> {
        Letter::read(text.as_bytes(), "ppp-")
    }

    #[test]
    fn envelope_is_taken_off_and_lines_end_in_crlf() {
        let text = "Return-Path: <list-@here.test>\nDelivered-To: PPP-ann@there.test\nReceived: a\n b\nDelivered-To: x@y.test\n\n\
                    Hello\n.\r\nlast";
        let letter = read(text).unwrap();
        assert_eq!(
            (letter.sender.as_str(), letter.recipient.as_str()),
            ("list-@here.test", "ann@there.test")
        );
        let content = "Received: a\r\n b\r\nDelivered-To: x@y.test\r\n\r\nHello\r\n.\r\nlast";
        assert_eq!(letter.content, content.as_bytes());
        assert!(
            letter.facts.has_dot_lines() && letter.facts.has_open_end() && !letter.facts.has_bare_newlines()
        );
        let bounce = read("Return-Path: <>\nDelivered-To: ppp-a@b.test\n\nx\n").unwrap();
        assert_eq!(bounce.sender, ReversePath::Null);
    }

    #[test]
    fn what_cannot_be_addressed_is_named() {
        let error = |text: &str| read(text).unwrap_err();
        assert_eq!(error("Delivered-To: ppp-a@b.test\n\n"), LetterError::Missing("Return-Path"));
        assert_eq!(
            error("Return-Path: <>\n\nDelivered-To: ppp-a@b.test\n"),
            LetterError::Missing("Delivered-To")
        );
        assert_eq!(error("Return-Path: <>\nDelivered-To: qqq-a@b.test\n\n"), LetterError::Prefix);
        assert_eq!(error("Return-Path: <>\nDelivered-To: é\n\n"), LetterError::Prefix);
        assert_eq!(error("Return-Path: <l-@b.test-@[]>\nDelivered-To: ppp-a@b.test\n\n"), LetterError::Verp);
        assert!(matches!(error("Return-Path: a@b\nDelivered-To: ppp-a@b.test\n\n"), LetterError::Sender(_)));
        assert!(matches!(error("Return-Path: <>\nDelivered-To: ppp-\n\n"), LetterError::Recipient(_)));
    }

    proptest! {
        #[test]
        fn any_file_is_a_letter_or_is_none(rest in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = [&b"Return-Path: <>\nDelivered-To: ppp-a@b.test\n"[..], &rest].concat();
            if let Ok(letter) = Letter::read(&bytes, "ppp-") {
                let bare = letter.content.windows(2).any(|pair| pair[1] == b'\n' && pair[0] != b'\r');
                prop_assert!(!bare && letter.content.first() != Some(&b'\n'));
            }
        }
    }
}
