//! A new message out of what a program wrote: envelope and content by qmail-inject's rules.
//!
//! Fields that are good stay as they were written. Return-Path, Content-Length, Bcc and Resent-Bcc go; From, Date,
//! Message-ID and a Cc that names nobody come where they are missing. A message with any Resent- field is being
//! forwarded: its Resent- fields are treated so, and the fields of the original stay as they are.
//!
//! Trusts nothing in the input. Bound: time and memory are linear in the input and the arguments.

use super::address_list::AddressList;
use super::followup::Followup;
use super::header::{self, Parts, RawField};
use super::hosts::Hosts;
use super::identity::Identity;
use super::options::Options;
use super::recipients::Collected;
use super::role::{Known, Role};
use super::sender::Sender;
use super::stamp::{Stamp, Unique};
use super::token::{SyntaxError, folded_offset, unfold};
use crate::address::AddressError;
use crate::envelope::{BodyKind, Recipients};
use crate::path::ReversePath;
use crate::verp::Verp;

/// Everything that decides what becomes of a message.
#[derive(Clone, Copy, Debug)]
pub struct Injector<'a> {
    pub options: &'a Options,
    pub identity: &'a Identity,
    pub hosts: &'a Hosts,
    pub now: Stamp,
    pub unique: Unique,
}

/// A message ready to be handed in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Injected {
    pub sender: ReversePath,
    pub verp: Option<Verp>,
    /// In the order in which they were named, each once; never empty.
    pub recipients: Recipients,
    /// Lines of the header end in CR LF; so do those of the body, but a CR alone stays.
    pub content: Vec<u8>,
    /// `EightBitMime` if the content has an octet above 127.
    pub body: BodyKind,
    /// Only SMTPUTF8 can carry the sender or a recipient (RFC 6531).
    pub smtputf8: bool,
}

/// Why no message was made. All of them are permanent: exit code 100 of inject, 65 of sendmail.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InjectError {
    /// `at` is the octet of the field where it goes wrong, counted from 0 at its name.
    #[error("{field}: octet {at}: expected {expected}")]
    Field { field: String, at: usize, expected: &'static str },
    #[error("{field}: {address}: {reason}")]
    Address { field: String, address: String, reason: AddressError },
    #[error("no recipient is named in the arguments or in the header")]
    NoRecipients,
    #[error("the sender {sender} is too long, or has octets that must be quoted, for a sender per recipient")]
    Verp { sender: String },
}

impl InjectError {
    /// `wrong` counts in the unfolded `value`; people count in the field.
    pub(crate) fn syntax(name: &[u8], value_at: usize, value: &[u8], wrong: SyntaxError) -> InjectError {
        InjectError::Field {
            field: String::from_utf8_lossy(name).into_owned(),
            at: value_at + folded_offset(value, wrong.at),
            expected: wrong.expected,
        }
    }
}

impl Injector<'_> {
    /// Makes envelope and content out of `input`, a header and a body whose lines end in LF or CR LF.
    pub fn inject(&self, input: &[u8]) -> Result<Injected, InjectError> {
        let parts = Parts::of(header::without_mbox_line(input));
        let resent = parts.fields.iter().any(|field| Known::of(field.name).resent);
        let mut draft = Draft::new(self, resent)?;
        for field in &parts.fields {
            draft.take(field)?;
        }
        draft.finish(parts.body())
    }
}

impl Injected {
    /// The content as a local program reads it, lines ended by LF (`-n`).
    pub fn to_print(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.content.len());
        for line in self.content.split_inclusive(|octet| *octet == b'\n') {
            match line.strip_suffix(b"\r\n") {
                Some(whole) => {
                    out.extend_from_slice(whole);
                    out.push(b'\n');
                }
                None => out.extend_from_slice(line),
            }
        }
        out
    }
}

/// A message in the making.
struct Draft<'a> {
    injector: &'a Injector<'a>,
    /// The message is being forwarded: only its Resent- fields are ours.
    resent: bool,
    fields: Vec<u8>,
    /// Our own fields that are there.
    has: Vec<Role>,
    recipients: Collected,
    return_path: Option<Sender>,
    followup: Followup,
}

impl<'a> Draft<'a> {
    fn new(injector: &'a Injector<'a>, resent: bool) -> Result<Draft<'a>, InjectError> {
        Ok(Draft {
            injector,
            resent,
            fields: Vec::new(),
            has: Vec::new(),
            recipients: injector.argument_recipients()?,
            return_path: None,
            followup: Followup::new(&injector.options.followup_lists),
        })
    }

    fn take(&mut self, field: &RawField<'_>) -> Result<(), InjectError> {
        let Known { role, resent } = Known::of(field.name);
        let ours = resent == self.resent;
        let letters = self.injector.options.letters;
        match role {
            Role::ContentLength => {}
            Role::ReturnPath => self.take_return_path(field)?,
            Role::Bcc if !ours => {}
            Role::From if ours && letters.delete_from => {}
            Role::MessageId if ours && letters.delete_message_id => {}
            _ if ours && role.has_addresses() => self.take_addresses(role, field)?,
            _ => {
                self.note(role, ours);
                header::put_field(field, &mut self.fields);
            }
        }
        Ok(())
    }

    fn note(&mut self, role: Role, ours: bool) {
        if ours && role != Role::Other && !self.has.contains(&role) {
            self.has.push(role);
        }
    }

    /// The first one is the most recent.
    fn take_return_path(&mut self, field: &RawField<'_>) -> Result<(), InjectError> {
        if !self.injector.options.letters.ignore_return_path && self.return_path.is_none() {
            self.return_path = self.injector.return_path(field)?;
        }
        Ok(())
    }

    /// Completes the field. One without addresses goes: no reader could make anything of it.
    fn take_addresses(&mut self, role: Role, field: &RawField<'_>) -> Result<(), InjectError> {
        let text = unfold(field.value);
        let mut list = AddressList::parse(&text)
            .map_err(|wrong| InjectError::syntax(field.name, field.value_at, field.value, wrong))?;
        if list.is_empty() {
            return Ok(());
        }
        let injector = self.injector;
        list.rewrite(|address| address.complete(injector.hosts));
        if role.names_author() {
            list.rewrite(|address| injector.masquerade(address));
        }
        if role.names_recipients() && injector.serves_header() {
            self.recipients.add_list(field.name, &list)?;
        }
        if matches!(role, Role::To | Role::Cc) && !self.resent {
            self.followup.take(&list);
        }
        if role != Role::Bcc {
            self.note(role, true);
            self.put_list(field, &list);
        }
        Ok(())
    }

    fn put_list(&mut self, field: &RawField<'_>, list: &AddressList<'_>) {
        if list.altered() {
            self.fields.extend(list.print(field.name));
        } else {
            header::put_field(field, &mut self.fields);
        }
    }

    fn finish(self, body: &[u8]) -> Result<Injected, InjectError> {
        let (sender, verp) = self.injector.sender(self.return_path.clone())?;
        if self.recipients.list.is_empty() {
            return Err(InjectError::NoRecipients);
        }
        let missing = self.missing()?;
        let mut content =
            Vec::with_capacity(missing.len() + self.fields.len() + body.len() + body.len() / 32);
        // A forwarder's fields stand together, on top (RFC 5322 §3.6.6).
        let (first, second) = if self.resent { (&missing, &self.fields) } else { (&self.fields, &missing) };
        content.extend_from_slice(first);
        content.extend_from_slice(second);
        content.extend_from_slice(b"\r\n");
        header::put_lines(body, &mut content);
        let recipients = self.recipients.list;
        let smtputf8 =
            !sender.as_str().is_ascii() || recipients.iter().any(|recipient| recipient.needs_smtputf8());
        let body = if content.is_ascii() { BodyKind::SevenBit } else { BodyKind::EightBitMime };
        Ok(Injected { sender, verp, recipients, content, body, smtputf8 })
    }

    /// The fields that must be there and are not.
    fn missing(&self) -> Result<Vec<u8>, InjectError> {
        let injector = self.injector;
        let prefix = if self.resent { "Resent-" } else { "" };
        let has = |role| self.has.contains(&role);
        let mut fields = Vec::new();
        if !has(Role::From) {
            fields.extend(injector.author_field(&format!("{prefix}From"))?);
        }
        let mut add = |name: &str, text: &str| {
            fields.extend_from_slice(format!("{prefix}{name}: {text}\r\n").as_bytes());
        };
        if !has(Role::Date) {
            add("Date", &injector.now.date());
        }
        if !has(Role::MessageId) {
            let id = injector.now.message_id(injector.unique, injector.hosts.id_host());
            add("Message-ID", &format!("<{id}>"));
        }
        if !has(Role::To) && !has(Role::Cc) {
            add("Cc", "recipient list not shown: ;");
        }
        if !has(Role::FollowupTo) {
            fields.extend(self.followup.field().unwrap_or_default());
        }
        Ok(fields)
    }
}

/// For the fuzzer: whatever comes in, what goes out has whole lines and is left alone by a second round. The
/// first octet chooses the options.
pub fn fuzz_inject(bytes: &[u8]) {
    use super::options::{Letters, RecipientsFrom};
    let Some((choice, input)) = bytes.split_first() else { return };
    let hosts = Hosts::of("host.example.org").expect("a good name");
    let identity = Identity { user: "ann".to_owned(), ..Identity::default() };
    let from = if choice & 1 == 0 { RecipientsFrom::Header } else { RecipientsFrom::Arguments };
    let mut options = Options {
        recipients_from: from,
        recipients: vec!["bob@example.net".to_owned()],
        followup_lists: vec!["list@host.example.org".to_owned()],
        letters: Letters { verp_per_recipient: choice & 2 != 0, ..Letters::default() },
        ..Options::default()
    };
    let inject = |options: &Options, input: &[u8]| {
        let (now, unique) = (Stamp::default(), Unique::default());
        Injector { options, identity: &identity, hosts: &hosts, now, unique }.inject(input)
    };
    let Ok(first) = inject(&options, input) else { return };
    let header_len = crate::header::header_len(&first.content);
    let header = &first.content[..header_len];
    assert!(header.ends_with(b"\r\n\r\n") && first.content.is_ascii() == (first.body == BodyKind::SevenBit));
    assert_eq!(
        memchr::memchr_iter(b'\n', header).count(),
        memchr::memmem::find_iter(header, b"\r\n").count()
    );
    options.recipients_from = RecipientsFrom::Arguments;
    let second = inject(&options, &first.content).expect("what was made can be read");
    assert_eq!(second.content, first.content);
    let how = super::FixUp { hosts: &hosts, now: Stamp::default(), unique: Unique::default() };
    let mended = super::fix_up(input, &how).unwrap_or_else(|| input.to_vec());
    let again = super::fix_up(&mended, &how);
    assert_eq!(again.as_deref().unwrap_or(&mended), mended, "what is mended stays so");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Headers of the lines that the rules are about.
    fn header_text() -> impl Strategy<Value = String> {
        let name = prop_oneof![
            Just("To"),
            Just("Cc"),
            Just("Bcc"),
            Just("From "),
            Just("Sender"),
            Just("Resent-To"),
            Just("Resent-Bcc"),
            Just("Return-Path"),
            Just("Date"),
            Just("Message-ID"),
            Just("Subject"),
            Just("Content-Length"),
            Just("mail-followup-to"),
            Just("x y"),
            Just(" fold"),
            Just(""),
        ];
        let value = prop_oneof![
            Just("ann"),
            Just("list@host.example.org"),
            Just("a b, c\r\n d"),
            Just("g: a@b.c;"),
            Just("<>"),
            Just(""),
            Just("<list-@host.example.org-@[]>"),
            Just("é"),
            Just("x@y."),
            Just("(c"),
            Just("\r"),
            Just("@r:a"),
            Just("\n  "),
            Just("A. B <c@d+>"),
        ];
        let end = prop_oneof![Just("\n"), Just("\r\n"), Just("\n\n"), Just("")];
        let line = (name, value, end).prop_map(|(name, value, end)| format!("{name}: {value}{end}"));
        proptest::collection::vec(line, 0..8).prop_map(|lines| lines.concat())
    }

    proptest! {
        #[test]
        fn a_second_round_changes_nothing(choice: u8, text in header_text()) {
            fuzz_inject(&[&[choice], text.as_bytes()].concat());
        }

        #[test]
        fn fuzz_smoke(bytes: Vec<u8>) {
            fuzz_inject(&bytes);
        }
    }
}
