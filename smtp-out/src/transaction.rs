//! One transaction: what the caller offers, whether this host can take it, and how far it has got.

use crate::extensions::Extensions;
use message::{ContentFacts, MailAsked, MailboxRef, Notify, RecipientAsked, Reply, Scope, Verdict};
use std::ops::Range;

/// Recipients of one transaction (RFC 5321 §4.5.3.1.8: every host takes at least 100).
pub const RECIPIENTS_MAX: usize = 100;

const _: () = assert!(RECIPIENTS_MAX <= u128::BITS as usize); // `InFlight::open` has a bit for each

/// A message for some recipients of one site, as the caller offers it. Lives for the offer alone.
#[derive(Clone, Copy, Debug)]
pub struct Transaction<'a> {
    /// The caller's name for it in flights and outputs; no two in flight share one.
    pub key: u32,
    /// Without brackets; "" is the null reverse-path. VERP is already done.
    pub reverse_path: &'a str,
    /// 1 to [`RECIPIENTS_MAX`].
    pub recipients: &'a [MailboxRef<'a>],
    /// With what the caller puts before it.
    pub content_len: u64,
    pub facts: ContentFacts,
    /// Its sender asked for SMTPUTF8.
    pub smtputf8: bool,
    /// Its sender asked for REQUIRETLS (RFC 8689): verified TLS here, and a host that promises the same.
    pub requires_tls: bool,
    /// What its sender asked to be told (RFC 3461); goes on to a host that offers DSN.
    pub asked: Option<Asked<'a>>,
}

/// RET and ENVID, and for each recipient NOTIFY and ORCPT.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub mail: &'a MailAsked,
    /// As many as there are recipients, in their order.
    pub recipients: &'a [RecipientAsked<'a>],
}

/// The answer to an offer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Offered {
    /// In flight: a verdict per recipient follows, or it is returned.
    Taken,
    /// This host cannot take this message at all, whoever the recipient is. Not in flight.
    Refused(Verdict, Scope),
}

impl Transaction<'_> {
    /// Why a host that offers `extensions` cannot be given this. Never downgrades: what cannot go as it is fails.
    /// `is_verified`: the connection is encrypted and the host is who it should be.
    pub(crate) fn obstacle(
        &self,
        extensions: &Extensions,
        can_chunk: bool,
        is_verified: bool,
    ) -> Option<Reply> {
        if self.requires_tls && !(is_verified && extensions.requiretls) {
            return Some(requiretls_missing(is_verified));
        }
        if self.needs_smtputf8() && !extensions.smtputf8 {
            return Some(Reply::ours(
                550,
                (5, 6, 7),
                "The host does not offer SMTPUTF8, which an address here needs",
            ));
        }
        if extensions.size_max != 0 && self.content_len > extensions.size_max {
            let text = format!(
                "The message has {} octets, the host takes {}",
                self.content_len, extensions.size_max
            );
            return Some(Reply::ours(552, (5, 3, 4), &text));
        }
        if self.facts.could_smuggle() && !can_chunk {
            let text =
                "A lone CR or LF before a dot: the host could see two messages, and offers no CHUNKING";
            return Some(Reply::ours(554, (5, 6, 0), text));
        }
        None
    }

    fn needs_smtputf8(&self) -> bool {
        let is_wide = |recipient: &MailboxRef<'_>| recipient.needs_smtputf8();
        self.smtputf8 || !self.reverse_path.is_ascii() || self.recipients.iter().any(is_wide)
    }

    /// Writes MAIL and every RCPT.
    pub(crate) fn write_envelope(&self, extensions: &Extensions, into: &mut Vec<u8>) {
        into.extend_from_slice(b"MAIL FROM:<");
        into.extend_from_slice(self.reverse_path.as_bytes());
        into.push(b'>');
        if extensions.size {
            write_number(into, b" SIZE=", self.content_len);
        }
        // Not offered: sent as it came (Q45); nearly every host is 8-bit clean, and recoding breaks signatures.
        if self.facts.has_eight_bit() && extensions.eight_bit_mime {
            into.extend_from_slice(b" BODY=8BITMIME");
        }
        if self.needs_smtputf8() {
            into.extend_from_slice(b" SMTPUTF8");
        }
        if self.requires_tls {
            into.extend_from_slice(b" REQUIRETLS");
        }
        let asked = self.asked.filter(|_| extensions.dsn);
        asked.iter().for_each(|asked| write_mail_asked(asked.mail, into));
        into.extend_from_slice(b"\r\n");
        for (at, recipient) in self.recipients.iter().enumerate() {
            let said = asked.and_then(|asked| asked.recipients.get(at));
            write_rcpt(recipient, said.copied().unwrap_or_default(), into);
        }
    }
}

/// RFC 8689 §4.2.1, §5.
fn requiretls_missing(is_verified: bool) -> Reply {
    Reply::ours(
        550,
        (5, 7, 30),
        match is_verified {
            true => "REQUIRETLS support required: the host does not offer it",
            false => {
                "REQUIRETLS support required: the connection is not encrypted to a host that is verified"
            }
        },
    )
}

/// At most 118 octets.
fn write_mail_asked(asked: &MailAsked, into: &mut Vec<u8>) {
    if let Some(ret) = asked.ret {
        write_parameter(b" RET=", ret.as_str(), into);
    }
    if let Some(id) = &asked.envelope_id {
        write_parameter(b" ENVID=", id.as_str(), into);
    }
}

fn write_parameter(before: &[u8], value: &str, into: &mut Vec<u8>) {
    into.extend_from_slice(before);
    into.extend_from_slice(value.as_bytes());
}

/// At most 536 octets with what was asked about it, beside the address (RFC 3461 makes the line longer by as much).
fn write_rcpt(recipient: &MailboxRef<'_>, asked: RecipientAsked<'_>, into: &mut Vec<u8>) {
    into.extend_from_slice(b"RCPT TO:<");
    into.extend_from_slice(recipient.local_part.as_bytes());
    into.push(b'@');
    into.extend_from_slice(recipient.domain.as_bytes());
    into.push(b'>');
    if asked.notify != Notify::UNSAID {
        write_parameter(b" NOTIFY=", asked.notify.as_str(), into);
    }
    if let Some(original) = asked.original {
        write_parameter(b" ORCPT=", original.as_str(), into);
    }
    into.extend_from_slice(b"\r\n");
}

/// In decimal. By hand: twice per delivery, `fmt` would be a tenth of what the session costs.
pub(crate) fn write_number(into: &mut Vec<u8>, before: &[u8], mut number: u64) {
    into.extend_from_slice(before);
    let start = into.len();
    loop {
        into.push(b"0123456789"[(number % 10) as usize]);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    into[start..].reverse();
}

/// How much of a transaction has gone out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Progress {
    /// Nothing.
    Waiting,
    /// Some or all of MAIL, RCPT, DATA.
    Envelope,
    /// The host said 354 and has to be given the content now.
    ContentDue,
    /// Everything; one reply decides.
    Whole,
}

/// What the host said to MAIL.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum MailAnswer {
    None,
    Accepted,
    /// The recipients have their verdicts; the replies that follow mean nothing.
    Refused,
    /// Refused for what became of the transaction before it: no attempt.
    Displaced,
}

/// A transaction that was taken. Owns no memory: the session's ring of these is all the state there is.
#[derive(Clone, Debug)]
pub(crate) struct InFlight {
    pub(crate) key: u32,
    pub(crate) content_len: u64,
    /// DATA needs the dot-stuffed form.
    pub(crate) stuffed: bool,
    /// What is not sent yet of MAIL and RCPT, in the session's buffer of envelopes.
    pub(crate) envelope: Range<usize>,
    pub(crate) progress: Progress,
    pub(crate) mail: MailAnswer,
    /// It went out while an earlier one was unanswered.
    pub(crate) is_behind: bool,
    /// Every reply was 2xx or 354 so far.
    pub(crate) is_clean: bool,
    pub(crate) recipients: u16,
    /// RCPTs sent; the lock-step form counts them.
    pub(crate) asked: u16,
    pub(crate) answered: u16,
    pub(crate) accepted: u16,
    /// A bit for each recipient that has no verdict.
    pub(crate) open: u128,
}

impl InFlight {
    pub(crate) fn new(transaction: &Transaction<'_>, envelope: Range<usize>) -> InFlight {
        let recipients = u16::try_from(transaction.recipients.len()).unwrap_or(u16::MAX);
        assert!(
            (1..=RECIPIENTS_MAX).contains(&usize::from(recipients)),
            "the caller keeps transactions between 1 and {RECIPIENTS_MAX} recipients"
        );
        InFlight {
            key: transaction.key,
            content_len: transaction.content_len,
            stuffed: transaction.facts.has_dot_lines() || transaction.facts.has_open_end(),
            envelope,
            progress: Progress::Waiting,
            mail: MailAnswer::None,
            is_behind: false,
            is_clean: true,
            recipients,
            asked: 0,
            answered: 0,
            accepted: 0,
            open: u128::MAX >> (u128::BITS - u32::from(recipients)),
        }
    }

    /// Takes the next recipient that has no verdict.
    pub(crate) fn take_open(&mut self) -> Option<u16> {
        let recipient = u16::try_from(self.open.trailing_zeros()).ok().filter(|_| self.open != 0)?;
        self.open &= self.open - 1;
        Some(recipient)
    }

    pub(crate) fn was_refused(&self) -> bool {
        matches!(self.mail, MailAnswer::Refused | MailAnswer::Displaced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_decimal() {
        for number in [0, 7, 10, 4096, u64::MAX] {
            let mut text = Vec::new();
            write_number(&mut text, b" SIZE=", number);
            assert_eq!(text, format!(" SIZE={number}").into_bytes());
        }
    }

    #[test]
    fn every_one_of_a_hundred_recipients_is_open() {
        let recipients = [MailboxRef { local_part: "a", domain: "b" }; RECIPIENTS_MAX];
        let facts = ContentFacts::default();
        let transaction = Transaction {
            key: 1,
            reverse_path: "",
            recipients: &recipients,
            content_len: 1,
            facts,
            smtputf8: false,
            requires_tls: false,
            asked: None,
        };
        let mut in_flight = InFlight::new(&transaction, 0..0);
        assert!((0..100).all(|recipient| in_flight.take_open() == Some(recipient)));
        assert_eq!(in_flight.take_open(), None);
    }
}
