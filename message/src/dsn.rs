//! Delivery status notifications: what a bounce says, what a warning says while we still try, and what is said of a
//! success where that was asked for (RFC 3464 in the multipart/report of RFC 6522).
//!
//! [`crate::qsbmf`] writes a failure in qmail's format instead. Replies that it quotes were made safe when they came in. Bound: [`QUOTED_HEADER_MAX`] of the original's
//! header, or [`RETURNED_MAX`] of all of it, and what the caller says of each recipient.

use crate::content::ContentFacts;
use crate::header::header_len;
use crate::notify::{EnvelopeId, Ret, decoded};
use crate::path::ReversePath;
use crate::reply::{EnhancedCode, Reply};
use crate::time::UnixMillis;
use std::fmt::Write as _;

/// Octets of the original's header that are quoted.
const QUOTED_HEADER_MAX: usize = 64 * 1024;

/// Octets of a message that RET=FULL gives back; of a longer one the header is quoted.
const RETURNED_MAX: usize = 1 << 20;

/// What the postmaster is told.
const DOUBLE_SENTENCE: &str = "A message from the null reverse-path, most likely a bounce, could not be\r\n\
                               delivered to the recipients below. Its sender wants to hear of nothing: you\r\n\
                               are told instead.";

/// One recipient that the sender is told about.
#[derive(Clone, Debug)]
pub struct ReportedRecipient {
    /// `local@domain`.
    pub recipient: String,
    /// ORCPT, decoded: type, semicolon, address.
    pub original: Option<Box<str>>,
    /// The host that said so, if one did.
    pub remote_host: Option<String>,
    pub reply: Reply,
}

/// What has become of the recipients (RFC 3464 §2.3.3).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Action {
    /// They will not get the message.
    Failed,
    /// They have not got it yet; it is tried until then.
    Delayed { until: UnixMillis },
    /// A host took it that tells nobody what becomes of it (RFC 3461 §5.2.2).
    Relayed,
    /// It is in the mailbox, as far as the host says that took it.
    Delivered,
}

/// A notification in the making. Its own envelope has the null reverse-path.
#[derive(Debug)]
pub struct Notification<'a> {
    pub action: Action,
    /// This host's name: Reporting-MTA, and the domain of its Message-ID.
    pub reporting_host: &'a str,
    pub to: &'a ReversePath,
    /// The original's reverse-path. If that is `<>`, this is a double bounce.
    pub sender: &'a ReversePath,
    pub arrived: UnixMillis,
    pub now: UnixMillis,
    /// Makes Message-ID and boundary unique.
    pub serial: u64,
    pub recipients: &'a [ReportedRecipient],
    /// The original's content, of which the header is quoted, or all if `ret` says so and if they failed.
    pub original: &'a [u8],
    pub facts: ContentFacts,
    /// The original came with SMTPUTF8: its header may have any UTF-8 (RFC 6533 §4).
    pub smtputf8: bool,
    /// The original was not to wait for TLS (RFC 8689), and neither is this: its way back may be as bad as its way there.
    pub is_tls_optional: bool,
    /// As MAIL said (RFC 3461).
    pub ret: Option<Ret>,
    pub envelope_id: Option<&'a EnvelopeId>,
}

impl Notification<'_> {
    /// The whole message, lines ended by CR LF.
    pub fn render(&self) -> Vec<u8> {
        let boundary = format!("=_ringpost_{:x}_{:x}", self.now.0, self.serial);
        let mut text = self.top(&boundary);
        text.push_str(&self.for_people(&boundary));
        text.push_str(&self.for_programs(&boundary));
        let (kind, original) = self.quoted();
        let _ =
            write!(text, "--{boundary}\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: 8bit\r\n\r\n");
        let mut out = text.into_bytes();
        out.extend_from_slice(original);
        out.extend_from_slice(format!("\r\n\r\n--{boundary}--\r\n").as_bytes());
        out
    }

    /// The last part: its type, and what of the original is in it. Whole messages go back only where a failure is
    /// reported (RFC 3461 §4.3).
    fn quoted(&self) -> (&'static str, &[u8]) {
        let is_wanted = self.ret == Some(Ret::Full) && self.action == Action::Failed;
        match self.whole_original().filter(|_| is_wanted) {
            Some(whole) => (if self.smtputf8 { "message/global" } else { "message/rfc822" }, whole),
            None => {
                let kind = if self.smtputf8 { "message/global-headers" } else { "text/rfc822-headers" };
                (kind, self.original_header())
            }
        }
    }

    /// The original, if it is not too long and lines of text: what else a peer's reader could take for two messages.
    pub(crate) fn whole_original(&self) -> Option<&[u8]> {
        let is_text = !self.facts.has_bare_newlines() && !self.facts.has_nul();
        (is_text && self.original.len() <= RETURNED_MAX).then_some(self.original)
    }

    /// Without its last line end.
    pub(crate) fn original_header(&self) -> &[u8] {
        self.original[..header_len(self.original).min(QUOTED_HEADER_MAX)].trim_ascii_end()
    }

    /// The original came from the null reverse-path: a bounce most likely, which was to be its sender's only notice.
    pub(crate) fn is_double(&self) -> bool {
        *self.sender == ReversePath::Null
    }

    pub(crate) fn message_id(&self) -> String {
        format!("<{:x}.{:x}@{}>", self.now.0, self.serial, self.reporting_host)
    }

    fn top(&self, boundary: &str) -> String {
        let (host, to, date, id) = (self.reporting_host, self.to, self.now.rfc5322(), self.message_id());
        let subject = match self.action {
            Action::Failed if self.is_double() => "Undelivered bounce",
            Action::Failed => "Undelivered mail returned to sender",
            Action::Delayed { .. } => "Delayed mail, still being tried",
            Action::Relayed => "Mail passed on as asked",
            Action::Delivered => "Mail delivered as asked",
        };
        let tls = if self.is_tls_optional { "TLS-Required: No\r\n" } else { "" };
        format!(
            "From: Mail Delivery System <MAILER-DAEMON@{host}>\r\nTo: {to}\r\n\
             Subject: {subject}\r\nDate: {date}\r\n\
             Message-ID: {id}\r\nAuto-Submitted: auto-replied\r\n{tls}MIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"{boundary}\"\r\n\r\n"
        )
    }

    fn for_people(&self, boundary: &str) -> String {
        let mut text = format!(
            "--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
             This is the mail system at {}.\r\n\r\n{}\r\n\r\n",
            self.reporting_host,
            if self.is_double() { DOUBLE_SENTENCE.to_owned() } else { self.action.sentence() }
        );
        for reported in self.recipients {
            let host =
                reported.remote_host.as_deref().map(|host| format!("{host} said: ")).unwrap_or_default();
            let code = self.action.status_of(&reported.reply);
            let code = match reported.reply.enhanced == Some(code) {
                true => String::new(),
                false => format!(" (#{code})"),
            };
            let ReportedRecipient { recipient, reply, .. } = reported;
            let _ = write!(text, "<{recipient}>:\r\n    {host}{reply}{code}\r\n\r\n");
        }
        text
    }

    fn for_programs(&self, boundary: &str) -> String {
        let mut text = format!("--{boundary}\r\nContent-Type: message/delivery-status\r\n\r\n");
        if let Some(id) = self.envelope_id {
            let _ = write!(text, "Original-Envelope-Id: {}\r\n", decoded(id.as_str()));
        }
        let _ = write!(
            text,
            "Reporting-MTA: dns; {}\r\nArrival-Date: {}\r\n\r\n",
            self.reporting_host,
            self.arrived.rfc5322()
        );
        for reported in self.recipients {
            self.fields_of(reported, &mut text);
        }
        text
    }

    /// The per-recipient fields, in the order of RFC 3464 §2.3.
    fn fields_of(&self, reported: &ReportedRecipient, text: &mut String) {
        let (action, status) = (self.action.name(), self.action.status_of(&reported.reply));
        if let Some(original) = &reported.original {
            let _ = write!(text, "Original-Recipient: {original}\r\n");
        }
        let _ = write!(
            text,
            "Final-Recipient: rfc822; {}\r\nAction: {action}\r\nStatus: {status}\r\n",
            reported.recipient
        );
        if let Some(host) = &reported.remote_host {
            let _ = write!(text, "Remote-MTA: dns; {host}\r\n");
        }
        let _ = write!(text, "Diagnostic-Code: smtp; {}\r\n", reported.reply);
        if let Action::Delayed { until } = self.action {
            let _ = write!(text, "Will-Retry-Until: {}\r\n", until.rfc5322());
        }
        text.push_str("\r\n");
    }
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Action::Failed => "failed",
            Action::Delayed { .. } => "delayed",
            Action::Relayed => "relayed",
            Action::Delivered => "delivered",
        }
    }

    fn sentence(self) -> String {
        match self {
            Action::Failed => "Your message could not be delivered to the recipients below, and no\r\n\
                               further attempt will be made."
                .to_owned(),
            Action::Delayed { until } => format!(
                "Your message could not yet be delivered to the recipients below. You need\r\n\
                 do nothing: delivery is tried again until\r\n    {}.\r\n\
                 If it does not succeed by then, you will be told.",
                until.rfc5322()
            ),
            Action::Relayed => {
                "Your message was passed on for the recipients below, to a host that sends\r\n\
                                no notice of success: this may be the last that you hear of it."
                    .to_owned()
            }
            Action::Delivered => "Your message was delivered to the recipients below.".to_owned(),
        }
    }

    /// RFC 3463 §3.1: a failure of class 4 is a trouble that lasted until we gave up, and that is what a soft reply
    /// at the end of the lifetime was; without a code of its own it is X.4.7, delivery time expired. What is only
    /// delayed is of class 4 whatever was said.
    pub(crate) fn status_of(self, reply: &Reply) -> EnhancedCode {
        if matches!(self, Action::Relayed | Action::Delivered) {
            return reply.enhanced.filter(|code| code.0 == 2).unwrap_or(EnhancedCode(2, 0, 0));
        }
        let is_soft = (400..500).contains(&reply.code) || self != Action::Failed;
        let class = if is_soft { 4 } else { 5 };
        let missing = if self == Action::Failed && is_soft { (4, 7) } else { (0, 0) };
        reply.enhanced.filter(|code| code.0 == class).unwrap_or(EnhancedCode(class, missing.0, missing.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Mailbox;

    fn reported(reply: Reply) -> [ReportedRecipient; 1] {
        let (recipient, remote_host) = ("ann@example.net".into(), Some("mx.example.net".into()));
        [ReportedRecipient { recipient, original: None, remote_host, reply }]
    }

    fn sender() -> ReversePath {
        ReversePath::Mailbox(Mailbox::parse("list@example.org").unwrap())
    }

    fn notification<'a>(
        action: Action,
        to: &'a ReversePath,
        recipients: &'a [ReportedRecipient],
        original: &'a [u8],
    ) -> Notification<'a> {
        Notification {
            action,
            reporting_host: "relay.example",
            to,
            sender: to,
            arrived: UnixMillis(0),
            now: UnixMillis(14_400_000),
            serial: 7,
            recipients,
            original,
            facts: ContentFacts::of(original),
            smtputf8: false,
            is_tls_optional: false,
            ret: None,
            envelope_id: None,
        }
    }

    fn render(action: Action, reply: Reply) -> String {
        let (to, recipients) = (sender(), reported(reply));
        let content = b"Subject: hi\r\nFrom: x\r\n\r\nsecret body\r\n";
        String::from_utf8(notification(action, &to, &recipients, content).render()).unwrap()
    }

    const WEEK: Action = Action::Delayed { until: UnixMillis(604_800_000) };

    #[test]
    fn bounce_names_recipient_status_and_reason() {
        let text = render(Action::Failed, Reply::ours(550, (5, 1, 1), "No such user"));
        for want in [
            "To: <list@example.org>\r\n",
            "report-type=delivery-status",
            "Final-Recipient: rfc822; ann@example.net\r\nAction: failed\r\nStatus: 5.1.1\r\nRemote-MTA: dns; mx.example.net\r\n",
            "Diagnostic-Code: smtp; 550 5.1.1 No such user\r\n\r\n--",
            "Subject: hi\r\nFrom: x\r\n\r\n--",
        ] {
            assert!(text.contains(want), "{want:?} is missing in\n{text}");
        }
        assert!(!text.contains("secret body"));
        assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "only CR LF ends a line");
    }

    #[test]
    fn what_is_said_of_mail_that_was_not_to_wait_for_tls_does_not_wait_for_it_either() {
        let (to, recipients) = (sender(), reported(Reply::ours(550, (5, 1, 1), "No such user")));
        let original = b"TLS-Required: No\r\n\r\nsecret body\r\n";
        let render = |is_tls_optional| {
            let plain = notification(Action::Failed, &to, &recipients, original);
            ContentFacts::of(&Notification { is_tls_optional, ..plain }.render())
        };
        assert!(render(true).is_tls_optional() && !render(false).is_tls_optional());
    }

    #[test]
    fn warning_says_that_nothing_need_be_done_and_until_when_we_try() {
        let text = render(WEEK, Reply::ours(450, (4, 2, 1), "Mailbox busy"));
        let golden = "From: Mail Delivery System <MAILER-DAEMON@relay.example>
To: <list@example.org>
Subject: Delayed mail, still being tried
Date: Thu, 01 Jan 1970 04:00:00 +0000
Message-ID: <dbba00.7@relay.example>
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
\tboundary=\"=_ringpost_dbba00_7\"

--=_ringpost_dbba00_7
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

This is the mail system at relay.example.

Your message could not yet be delivered to the recipients below. You need
do nothing: delivery is tried again until
    Thu, 08 Jan 1970 00:00:00 +0000.
If it does not succeed by then, you will be told.

<ann@example.net>:
    mx.example.net said: 450 4.2.1 Mailbox busy

--=_ringpost_dbba00_7
Content-Type: message/delivery-status

Reporting-MTA: dns; relay.example
Arrival-Date: Thu, 01 Jan 1970 00:00:00 +0000

Final-Recipient: rfc822; ann@example.net
Action: delayed
Status: 4.2.1
Remote-MTA: dns; mx.example.net
Diagnostic-Code: smtp; 450 4.2.1 Mailbox busy
Will-Retry-Until: Thu, 08 Jan 1970 00:00:00 +0000

--=_ringpost_dbba00_7
Content-Type: text/rfc822-headers
Content-Transfer-Encoding: 8bit

Subject: hi
From: x

--=_ringpost_dbba00_7--
";
        assert_eq!(text, golden.replace('\n', "\r\n"));
    }

    #[test]
    fn double_bounce_says_why_its_reader_gets_it() {
        let (to, recipients) = (sender(), reported(Reply::ours(550, (5, 1, 1), "No such user")));
        let failed = notification(Action::Failed, &to, &recipients, b"A: b\r\n\r\n");
        let text = Notification { sender: &ReversePath::Null, ..failed }.render();
        let text = String::from_utf8(text).unwrap();
        for want in [
            "To: <list@example.org>\r\nSubject: Undelivered bounce\r\n",
            DOUBLE_SENTENCE,
            "Action: failed\r\n",
        ] {
            assert!(text.contains(want), "{want:?} is missing in\n{text}");
        }
    }

    #[test]
    fn what_the_sender_gave_comes_back_decoded() {
        let (to, id) = (sender(), EnvelopeId::parse("run+2B7").unwrap());
        let mut recipients = reported(Reply::ours(550, (5, 1, 1), "No such user"));
        recipients[0].original = Some("rfc822;ann+lists@example.org".into());
        let failed = notification(Action::Failed, &to, &recipients, b"A: b\r\n\r\n");
        let text = Notification { envelope_id: Some(&id), ..failed }.render();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("\r\n\r\nOriginal-Envelope-Id: run+7\r\nReporting-MTA: dns;"), "{text}");
        let fields =
            "\r\n\r\nOriginal-Recipient: rfc822;ann+lists@example.org\r\nFinal-Recipient: rfc822; ann@";
        assert!(text.contains(fields), "{text}");
    }

    #[test]
    fn whole_message_goes_back_only_when_asked_for_when_it_failed_and_when_it_may() {
        let content = |body: &str| format!("Subject: hi\r\n\r\n{body}\r\n").into_bytes();
        let long = "a line of text\r\n".repeat(RETURNED_MAX / 16 + 1);
        let failed = Action::Failed;
        #[rustfmt::skip]
        let cases = [
            (failed,          Some(Ret::Full),    false, "the body",       "message/rfc822",         true),
            (failed,          Some(Ret::Full),    true,  "the body",       "message/global",         true),
            (failed,          Some(Ret::Full),    false, &*long,           "text/rfc822-headers",    false),
            (failed,          Some(Ret::Full),    false, "the body\n.\r\n", "text/rfc822-headers",    false),
            (failed,          Some(Ret::Headers), true,  "the body",       "message/global-headers", false),
            (failed,          None,               false, "the body",       "text/rfc822-headers",    false),
            (WEEK,            Some(Ret::Full),    false, "the body",       "text/rfc822-headers",    false),
            (Action::Relayed, Some(Ret::Full),    false, "the body",       "text/rfc822-headers",    false),
        ];
        for (action, ret, smtputf8, body, kind, is_whole) in cases {
            let (to, recipients, content) = (sender(), reported(Reply::new(550, None, b"x")), content(body));
            let plain = notification(action, &to, &recipients, &content);
            let text = String::from_utf8(Notification { ret, smtputf8, ..plain }.render()).unwrap();
            assert!(text.contains(&format!("\r\nContent-Type: {kind}\r\n")), "{kind}: {text:.900}");
            assert_eq!(text.contains("the body") || text.contains("a line of text"), is_whole, "{kind}");
        }
    }

    #[test]
    fn success_says_who_answers_for_it_from_here_on() {
        let text = render(Action::Relayed, Reply::new(250, None, b"queued"));
        assert!(text.contains("\r\nAction: relayed\r\nStatus: 2.0.0\r\n"), "{text}");
        assert!(text.contains("Subject: Mail passed on as asked\r\n"), "{text}");
        let text = render(Action::Delivered, Reply::ours(250, (2, 1, 5), "in the box"));
        assert!(text.contains("\r\nAction: delivered\r\nStatus: 2.1.5\r\n"), "{text}");
    }

    #[test]
    fn status_is_of_the_class_that_the_reply_was_of() {
        let status = |action: Action, code, enhanced: Option<EnhancedCode>| {
            action.status_of(&Reply::new(code, enhanced, b"x")).to_string()
        };
        assert_eq!(status(Action::Failed, 550, None), "5.0.0");
        assert_eq!(status(Action::Failed, 550, Some(EnhancedCode(4, 1, 1))), "5.0.0", "a host that errs");
        assert_eq!(status(Action::Failed, 451, Some(EnhancedCode(4, 4, 1))), "4.4.1");
        assert_eq!(status(Action::Failed, 451, None), "4.4.7", "delivery time expired");
        assert_eq!(status(WEEK, 450, None), "4.0.0");
    }
}
