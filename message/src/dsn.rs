//! Delivery status notifications: what a bounce says (RFC 3464 in the multipart/report of RFC 6522).

use crate::header::header_len;
use crate::path::ReversePath;
use crate::reply::Reply;
use crate::time::UnixMillis;
use std::fmt::Write as _;

/// Octets of the original's header that are quoted.
const QUOTED_HEADER_MAX: usize = 64 * 1024;

/// One recipient that will not get the message.
#[derive(Clone, Debug)]
pub struct FailedRecipient {
    /// `local@domain`.
    pub recipient: String,
    /// The host that said no, if one did.
    pub remote_host: Option<String>,
    pub reply: Reply,
}

/// A bounce in the making. The notification's own envelope has the null reverse-path.
#[derive(Debug)]
pub struct Notification<'a> {
    /// This host's name: Reporting-MTA, and the domain of its Message-ID.
    pub reporting_host: &'a str,
    pub to: &'a ReversePath,
    pub arrived: UnixMillis,
    pub now: UnixMillis,
    /// Makes Message-ID and boundary unique.
    pub serial: u64,
    pub failed: &'a [FailedRecipient],
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
        format!(
            "From: Mail Delivery System <MAILER-DAEMON@{host}>\r\nTo: {to}\r\n\
             Subject: Undelivered mail returned to sender\r\nDate: {date}\r\n\
             Message-ID: <{:x}.{:x}@{host}>\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"{boundary}\"\r\n\r\n",
            self.now.0, self.serial
        )
    }

    fn for_people(&self, boundary: &str) -> String {
        let mut text = format!(
            "--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
             This is the mail system at {}.\r\n\r\n\
             Your message could not be delivered to the recipients below, and no\r\n\
             further attempt will be made.\r\n\r\n",
            self.reporting_host
        );
        for failed in self.failed {
            let host = failed.remote_host.as_deref().map(|host| format!("{host} said: ")).unwrap_or_default();
            let _ = write!(text, "<{}>:\r\n    {host}{}\r\n\r\n", failed.recipient, failed.reply);
        }
        text
    }

    fn for_programs(&self, boundary: &str) -> String {
        let mut text = format!(
            "--{boundary}\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; {}\r\nArrival-Date: {}\r\n\r\n",
            self.reporting_host,
            self.arrived.rfc5322()
        );
        for failed in self.failed {
            let status = failed
                .reply
                .enhanced
                .filter(|code| code.0 == 5)
                .map_or("5.0.0".into(), |code| code.to_string());
            let _ = write!(
                text,
                "Final-Recipient: rfc822; {}\r\nAction: failed\r\nStatus: {status}\r\n",
                failed.recipient
            );
            if let Some(host) = &failed.remote_host {
                let _ = write!(text, "Remote-MTA: dns; {host}\r\n");
            }
            let _ = write!(text, "Diagnostic-Code: smtp; {}\r\n\r\n", failed.reply);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Mailbox;

    #[test]
    fn bounce_names_recipient_status_and_reason() {
        let failed = [FailedRecipient {
            recipient: "ann@example.net".into(),
            remote_host: Some("mx.example.net".into()),
            reply: Reply::ours(550, (5, 1, 1), "No such user"),
        }];
        let to = ReversePath::Mailbox(Mailbox::parse("list@example.org").unwrap());
        let notification = Notification {
            reporting_host: "relay.example",
            to: &to,
            arrived: UnixMillis(0),
            now: UnixMillis(1000),
            serial: 7,
            failed: &failed,
            original: b"Subject: hi\r\nFrom: x\r\n\r\nsecret body\r\n",
        };
        let text = String::from_utf8(notification.render()).unwrap();
        for want in [
            "To: <list@example.org>\r\n",
            "report-type=delivery-status",
            "Final-Recipient: rfc822; ann@example.net\r\nAction: failed\r\nStatus: 5.1.1\r\nRemote-MTA: dns; mx.example.net\r\n",
            "Diagnostic-Code: smtp; 550 5.1.1 No such user\r\n",
            "Subject: hi\r\nFrom: x\r\n\r\n--",
        ] {
            assert!(text.contains(want), "{want:?} is missing in\n{text}");
        }
        assert!(!text.contains("secret body"));
        assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "only CR LF ends a line");
    }
}
