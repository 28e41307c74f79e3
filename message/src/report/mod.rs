//! What comes back to a return address: reports of failures, complaints, and answers that are neither.
//!
//! [`read`] decides in this order: a complaint has a part message/feedback-report (RFC 5965), a report one of
//! message/delivery-status (RFC 3464); else words that a known mail system begins its failures with (`forms`); else signs
//! of a challenge or of an automatic reply (`auto`), which are no bounces; else a daemon's letter with a reply code in it.
//! Each failure is put into a class by the table that judges replies too ([`FailureClass`]).
//!
//! Trusts nothing: whoever knows an address can write anything to it. What a report says of whom it is about is a claim,
//! which the caller holds against the address that it came to. Bounds: [`LOOKED_AT_MAX`] octets are looked at,
//! [`RECIPIENTS_MAX`] recipients and [`ORIGINAL_MAX`] octets of the original's header are kept; `mime` bounds parts and depth.

mod auto;
mod decode;
mod feedback;
mod forms;
mod mime;
mod scan;
mod status;

pub use feedback::{Complaint, FeedbackType};
pub use forms::Form;

use crate::failure::FailureClass;
use crate::header::{fields, header_len};
use crate::labels::Labels;
use crate::reply::Reply;
use mime::Part;
use std::borrow::Cow;

/// Octets of a message that are looked at. What is told stands before the original.
pub const LOOKED_AT_MAX: usize = 256 << 10;

/// Recipients that one report may speak of; to a return address of one recipient.
pub const RECIPIENTS_MAX: usize = 50;

/// Octets of the original's header that are kept.
pub const ORIGINAL_MAX: usize = 16 << 10;

/// What a message is, and the original that it is about, as far as that came back.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Report {
    pub kind: Kind,
    pub original: Original,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Kind {
    /// What became of recipients. At least one fate.
    Delivery(Form, Vec<Fate>),
    Complaint(Complaint),
    /// An answer without a person behind it: out of office, receipts.
    AutoReply,
    /// Somebody's mail system wants to be told that a person wrote.
    Challenge,
    /// A person's letter, spam, or a report in words that nobody here knows.
    #[default]
    Unknown,
}

impl Kind {
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Delivery(..) => "delivery",
            Kind::Complaint(_) => "complaint",
            Kind::AutoReply => "auto-reply",
            Kind::Challenge => "challenge",
            Kind::Unknown => "unknown",
        }
    }
}

/// What became of one recipient.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fate {
    pub outcome: Outcome,
    /// As the report names it: the address that failed, which may be one that the mail was forwarded to.
    pub recipient: Option<Box<str>>,
    /// What it was before it was forwarded, if the report says so.
    pub original: Option<Box<str>>,
    /// Why, as far as the report says it. Its code is 0 where there is none.
    pub reply: Reply,
    /// `Unknown` for successes.
    pub class: FailureClass,
}

impl Fate {
    /// Of a recipient that is not known yet.
    fn new(outcome: Outcome, reply: Reply) -> Fate {
        let is_temporary =
            reply.enhanced.is_some_and(|status| status.0 == 4) || (400..500).contains(&reply.code);
        let class = match outcome {
            Outcome::Succeeded => FailureClass::Unknown,
            // What was tried until nobody wanted to try any more is no bad address.
            Outcome::Failed => FailureClass::of_reply(!is_temporary, &reply, None),
            Outcome::Delayed => FailureClass::of_reply(false, &reply, None),
        };
        Fate { outcome, recipient: None, original: None, reply, class }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    Failed,
    /// Not yet delivered, still tried: no bounce.
    Delayed,
    /// Delivered, or handed to somebody who reports no more: no bounce.
    Succeeded,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Failed => "failed",
            Outcome::Delayed => "delayed",
            Outcome::Succeeded => "succeeded",
        }
    }
}

/// The header of the message that came back, with lines ended by LF.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Original(Vec<u8>);

impl Original {
    /// Of a message or its header, from its first octet on.
    fn of(message: &[u8]) -> Original {
        let header = &message[..header_len(message).min(ORIGINAL_MAX)];
        Original(header.to_vec())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The values of all fields of that name, unfolded.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Cow<'a, str>> {
        values(&self.0, name)
    }

    /// Campaign, tenant and list, as the message itself names them.
    pub fn labels(&self, tenant_field: &str) -> Labels {
        Labels::of(&self.0, tenant_field)
    }
}

/// See the module. Cost: a copy of what is looked at, and some searches through it.
pub fn read(content: &[u8]) -> Report {
    let message = one_line_end(content);
    let message = skip_from_line(&message);
    let parts = mime::parts(message);
    let header = &message[..header_len(message)];
    let original = original_of(&parts);
    if let Some(complaint) = feedback::of(&parts, &original) {
        return Report { kind: Kind::Complaint(complaint), original };
    }
    let text = human_text(&parts);
    let fates = status::of(&parts, &text);
    if !fates.is_empty() {
        return Report { kind: Kind::Delivery(Form::Rfc3464, fates), original };
    }
    read_words(header, &parts, &text, original)
}

/// A message without parts for programs.
fn read_words(header: &[u8], parts: &[Part<'_>], text: &str, original: Original) -> Report {
    let (human, quoted) = scan::cut(text);
    let original = if original.is_empty() { Original::of(quoted.as_bytes()) } else { original };
    let subject = values(header, "subject").next().map(|text| decode::words(&text).to_lowercase());
    let letter = forms::Letter { header, subject: &subject.unwrap_or_default(), text: human };
    let kind = match forms::known(&letter) {
        Some((form, fates)) => Kind::Delivery(form, fates),
        None if auto::is_challenge(&letter) => Kind::Challenge,
        None if auto::is_reply(&letter, parts) => Kind::AutoReply,
        None => forms::unknown(&letter).map_or(Kind::Unknown, |fates| Kind::Delivery(Form::Other, fates)),
    };
    Report { kind, original }
}

/// The beginning of the content with LF as its only line end, whatever it had.
fn one_line_end(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len().min(LOOKED_AT_MAX));
    let mut octets = content.iter().take(LOOKED_AT_MAX).copied().peekable();
    while let Some(octet) = octets.next() {
        if octet != b'\r' {
            out.push(octet);
            continue;
        }
        // CR CR LF is one end that somebody doubled a part of; CRs alone are one each.
        let run = 1 + std::iter::from_fn(|| octets.next_if_eq(&b'\r')).count();
        let ends = if octets.next_if_eq(&b'\n').is_some() { 1 } else { run };
        out.extend(std::iter::repeat_n(b'\n', ends));
    }
    out
}

/// A mailbox's separator that was sent along.
fn skip_from_line(message: &[u8]) -> &[u8] {
    if !message.starts_with(b"From ") && !message.starts_with(b">From ") {
        return message;
    }
    memchr::memchr(b'\n', message).map_or(&[], |end| &message[end + 1..])
}

fn original_of(parts: &[Part<'_>]) -> Original {
    const KINDS: [&str; 5] = [
        "message/rfc822",
        "text/rfc822-headers",
        "message/rfc822-headers",
        "message/global",
        "message/global-headers",
    ];
    let part = parts.iter().find(|part| KINDS.contains(&&*part.kind));
    part.map_or_else(Original::default, |part| Original::of(part.body.trim_ascii_start()))
}

/// What a person is to read: the first part of plain text, else of HTML without its marks.
fn human_text(parts: &[Part<'_>]) -> String {
    let of = |kind: &str| parts.iter().find(|part| part.kind == kind);
    match (of("text/plain"), of("text/html")) {
        (Some(plain), _) => decode::text(&plain.charset, &plain.body),
        (None, Some(html)) => decode::without_marks(&decode::text(&html.charset, &html.body)),
        (None, None) => String::new(),
    }
}

/// The values of all fields of that name in a header, each on one line.
fn values<'a>(header: &'a [u8], name: &'a str) -> impl Iterator<Item = Cow<'a, str>> {
    let named = fields(header).filter(move |field| field.name.eq_ignore_ascii_case(name.as_bytes()));
    named.map(|field| one_line(&field.whole[field.name.len() + 1..]))
}

/// On one line: white space and line ends as single blanks, no controls, nothing that is no UTF-8.
fn one_line(value: &[u8]) -> Cow<'_, str> {
    let value = value.trim_ascii();
    let is_plain = |octet: &u8| (32..127).contains(octet);
    match std::str::from_utf8(value) {
        Ok(text) if value.iter().all(is_plain) && !text.contains("  ") => Cow::Borrowed(text),
        _ => {
            let text = decode::text("", value).replace(char::is_control, " ");
            Cow::Owned(text.split_whitespace().collect::<Vec<_>>().join(" "))
        }
    }
}

/// For the fuzzer: any octets as a message that came back.
pub fn fuzz_report(bytes: &[u8]) {
    let report = read(bytes);
    assert!(report.original.0.len() <= ORIGINAL_MAX);
    if let Kind::Delivery(_, fates) = &report.kind {
        assert!((1..=RECIPIENTS_MAX).contains(&fates.len()));
        for fate in fates {
            assert!(!fate.reply.text().contains(char::is_control));
            let names = fate.recipient.iter().chain(&fate.original);
            assert!(names.into_iter().all(|name| crate::MailboxRef::parse(name).is_ok()));
        }
    }
    let _ = report.original.labels("X-Tenant");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_lies_behind_the_bound_is_not_looked_at() {
        let filler = "x".repeat(LOOKED_AT_MAX);
        let late = format!("Subject: x\r\n\r\n{filler}\r\nHi. This is the qmail-send program\r\n");
        assert_eq!(read(late.as_bytes()).kind, Kind::Unknown);
        let long = format!("Content-Type: message/rfc822\r\n\r\nA: {filler}\r\n");
        assert_eq!(read(long.as_bytes()).original.0.len(), ORIGINAL_MAX);
    }

    #[test]
    fn western_octets_are_characters() {
        let content = b"From: MAILER-DAEMON@x.test\r\n\r\nHi. This is the x\r\n\r\n<a@x.test>:\r\n550 Empf\xe4nger unbekannt\r\n";
        let Kind::Delivery(Form::Qsbmf, fates) = read(content).kind else { panic!("it is QSBMF") };
        assert_eq!(fates[0].reply.to_string(), "550 Empfänger unbekannt");
    }

    #[test]
    fn our_own_bounces_are_read_as_they_were_meant() {
        let to = crate::ReversePath::parse("list@example.org").unwrap();
        let reply = Reply::ours(552, (5, 2, 2), "mailbox full");
        let reported = crate::dsn::ReportedRecipient {
            recipient: "ann@example.net".into(),
            original: Some("rfc822;bob@example.net".into()),
            remote_host: Some("mx.example.net".into()),
            reply,
        };
        let original = b"Message-ID: <1@x.test>\r\n\r\nbody\r\n";
        let bounce = crate::dsn::Notification {
            action: crate::dsn::Action::Failed,
            reporting_host: "relay.example",
            to: &to,
            sender: &to,
            arrived: crate::UnixMillis(0),
            now: crate::UnixMillis(1),
            serial: 7,
            recipients: &[reported],
            original,
            facts: crate::ContentFacts::of(original),
            smtputf8: false,
            is_tls_optional: false,
            ret: None,
            envelope_id: None,
        };
        for (content, form, has_original) in
            [(bounce.render(), Form::Rfc3464, true), (crate::qsbmf::render(&bounce), Form::Qsbmf, false)]
        {
            let report = read(&content);
            let Kind::Delivery(found, fates) = &report.kind else { panic!("it is a report") };
            assert_eq!((*found, fates.len(), fates[0].class), (form, 1, FailureClass::MailboxFull));
            assert_eq!(fates[0].recipient.as_deref(), Some("ann@example.net"));
            assert_eq!(fates[0].original.is_some(), has_original);
            assert_eq!(report.original.values("message-id").next().as_deref(), Some("<1@x.test>"));
        }
    }

    /// Words and marks of all forms, in any order.
    fn pieces() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("Content-Type: multipart/report; boundary=b\r\n"),
            Just("--b\r\n"),
            Just("--b--\r\n"),
            Just("\r\n"),
            Just("\n"),
            Just("Content-Type: message/delivery-status\r\n\r\n"),
            Just("Content-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\n"),
            Just("Content-Type: message/rfc822\r\n\r\n"),
            Just("Content-Transfer-Encoding: base64\r\n"),
            Just("Content-Transfer-Encoding: quoted-printable\r\n"),
            Just("Final-Recipient: rfc822; a@x.test\r\n"),
            Just("Action: failed\r\n"),
            Just("Status: 5.1.1\r\n"),
            Just("Hi. This is the x\r\n\r\n"),
            Just("<a@x.test>:\r\n550 5.1.1 no\r\n\r\n"),
            Just("--- Below this line is a copy of the message.\r\n\r\n"),
            Just("The following address(es) failed:\r\n"),
            Just("X-Failed-Recipients: a@x.test, b@x.test\r\n"),
            Just("Delivery has failed to these recipients or groups:\r\n"),
            Just("a@x.test (b@x.test)\r\n"),
            Just("Subject: =?utf-8?B?gICA?= out of office\r\n"),
            Just("<p>&lt;a@x.test></p>"),
        ];
        proptest::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn fuzz_smoke(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            fuzz_report(&bytes);
        }

        #[test]
        fn any_order_of_their_pieces_is_read(text in pieces(), cut in any::<proptest::sample::Index>()) {
            fuzz_report(text.as_bytes());
            let cut = cut.index(text.len() + 1);
            fuzz_report(&text.as_bytes()[..cut]);
        }

        #[test]
        fn each_recipient_of_a_report_is_found(count in 1usize..60) {
            let mut content = "Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; x\r\n".to_owned();
            for number in 0..count {
                content += &format!("\r\nFinal-Recipient: rfc822;u{number}@x.test\r\nAction: failed\r\nStatus: 5.1.1\r\n");
            }
            let Kind::Delivery(_, fates) = read(content.as_bytes()).kind else { panic!("it is a report") };
            prop_assert_eq!(fates.len(), count.min(RECIPIENTS_MAX));
        }
    }
}
