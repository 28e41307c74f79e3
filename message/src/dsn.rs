//! Delivery status notifications: what a bounce says, and what a warning says while we still try (RFC 3464 in the
//! multipart/report of RFC 6522).
//!
//! Replies that it quotes were made safe when they came in. Bound: [`QUOTED_HEADER_MAX`] of the original, and what
//! the caller says of each recipient.

use crate::header::header_len;
use crate::path::ReversePath;
use crate::reply::{EnhancedCode, Reply};
use crate::time::UnixMillis;
use std::fmt::Write as _;

/// Octets of the original's header that are quoted.
const QUOTED_HEADER_MAX: usize = 64 * 1024;

/// One recipient that the sender is told about.
#[derive(Clone, Debug)]
pub struct ReportedRecipient {
    /// `local@domain`.
    pub recipient: String,
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
}

/// A notification in the making. Its own envelope has the null reverse-path.
#[derive(Debug)]
pub struct Notification<'a> {
    pub action: Action,
    /// This host's name: Reporting-MTA, and the domain of its Message-ID.
    pub reporting_host: &'a str,
    pub to: &'a ReversePath,
    pub arrived: UnixMillis,
    pub now: UnixMillis,
    /// Makes Message-ID and boundary unique.
    pub serial: u64,
    pub recipients: &'a [ReportedRecipient],
    /// The original's content, of which the header is quoted.
    pub original: &'a [u8],
}

impl Notification<'_> {
    /// The whole message, lines ended by CR LF.
    pub fn render(&self) -> Vec<u8> {
        let boundary = format!("=_ringpost_{:x}_{:x}", self.now.0, self.serial);
        let mut text = self.top(&boundary);
        text.push_str(&self.for_people(&boundary));
        text.push_str(&self.for_programs(&boundary));
        let _ = write!(
            text,
            "--{boundary}\r\nContent-Type: text/rfc822-headers\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        );
        let mut out = text.into_bytes();
        let header = &self.original[..header_len(self.original).min(QUOTED_HEADER_MAX)];
        out.extend_from_slice(header.trim_ascii_end());
        out.extend_from_slice(format!("\r\n\r\n--{boundary}--\r\n").as_bytes());
        out
    }

    fn top(&self, boundary: &str) -> String {
        let (host, to, date) = (self.reporting_host, self.to, self.now.rfc5322());
        let subject = match self.action {
            Action::Failed => "Undelivered mail returned to sender",
            Action::Delayed { .. } => "Delayed mail, still being tried",
        };
        format!(
            "From: Mail Delivery System <MAILER-DAEMON@{host}>\r\nTo: {to}\r\n\
             Subject: {subject}\r\nDate: {date}\r\n\
             Message-ID: <{:x}.{:x}@{host}>\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"{boundary}\"\r\n\r\n",
            self.now.0, self.serial
        )
    }

    fn for_people(&self, boundary: &str) -> String {
        let mut text = format!(
            "--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
             This is the mail system at {}.\r\n\r\n{}\r\n\r\n",
            self.reporting_host,
            self.action.sentence()
        );
        for reported in self.recipients {
            let host =
                reported.remote_host.as_deref().map(|host| format!("{host} said: ")).unwrap_or_default();
            let _ = write!(text, "<{}>:\r\n    {host}{}\r\n\r\n", reported.recipient, reported.reply);
        }
        text
    }

    fn for_programs(&self, boundary: &str) -> String {
        let mut text = format!(
            "--{boundary}\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; {}\r\nArrival-Date: {}\r\n\r\n",
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
        }
    }

    /// RFC 3463 §3.1: a failure of class 4 is a trouble that lasted until we gave up, and that is what a soft reply
    /// at the end of the lifetime was; without a code of its own it is X.4.7, delivery time expired. What is only
    /// delayed is of class 4 whatever was said.
    fn status_of(self, reply: &Reply) -> EnhancedCode {
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

    fn render(action: Action, reply: Reply) -> String {
        let recipients = [ReportedRecipient {
            recipient: "ann@example.net".into(),
            remote_host: Some("mx.example.net".into()),
            reply,
        }];
        let to = ReversePath::Mailbox(Mailbox::parse("list@example.org").unwrap());
        let notification = Notification {
            action,
            reporting_host: "relay.example",
            to: &to,
            arrived: UnixMillis(0),
            now: UnixMillis(14_400_000),
            serial: 7,
            recipients: &recipients,
            original: b"Subject: hi\r\nFrom: x\r\n\r\nsecret body\r\n",
        };
        String::from_utf8(notification.render()).unwrap()
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
