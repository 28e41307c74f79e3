//! qmail-send's bounce message format: a failure told so that people and programs read the same lines.
//!
//! The body is paragraphs, each ended by an empty line. The first begins with `Hi. This is the`; each that begins with `<`
//! is about the recipient that it names; one that begins with `-` ends them, and the original follows. Every failure has
//! its code as `(#5.1.1)` (the hash convention, with RFC 3463's codes). Only failures are told like this.
//! Bound: that of [`Notification`], whose recipients' texts are one line each.

use crate::dsn::{Action, Notification, ReportedRecipient};
use crate::notify::Ret;

/// The bounce whole, lines ended by CR LF. The original goes back with its body unless RET=HDRS was said, or it is too
/// long, or no text.
pub fn render(notification: &Notification<'_>) -> Vec<u8> {
    let mut out = top(notification).into_bytes();
    for reported in notification.recipients {
        out.extend_from_slice(paragraph(reported).as_bytes());
    }
    let what = if notification.is_double() { "the original bounce" } else { "a copy of the message" };
    let sender = notification.sender;
    out.extend_from_slice(
        format!("--- Below this line is {what}.\r\n\r\nReturn-Path: {sender}\r\n").as_bytes(),
    );
    match notification.whole_original().filter(|_| notification.ret != Some(Ret::Headers)) {
        Some(whole) => out.extend_from_slice(whole),
        None => {
            out.extend_from_slice(notification.original_header());
            out.extend_from_slice(b"\r\n\r\n--- End of message stripped.\r\n");
        }
    }
    if !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Header and first paragraph.
fn top(notification: &Notification<'_>) -> String {
    let (host, to, id) = (notification.reporting_host, notification.to, notification.message_id());
    let sentences = if notification.is_double() {
        "A message from the null reverse-path, most likely a bounce, could not be delivered to\r\n\
         the addresses below. Its sender wants to hear of nothing: you are told instead."
    } else {
        "Your message could not be delivered to the addresses below.\r\n\
         These failures are permanent: no further attempt will be made."
    };
    let tls = if notification.is_tls_optional { "TLS-Required: No\r\n" } else { "" };
    format!(
        "Date: {}\r\nFrom: MAILER-DAEMON@{host}\r\nTo: {to}\r\nSubject: failure notice\r\nMessage-ID: {id}\r\n\
         Auto-Submitted: auto-replied\r\n{tls}\r\nHi. This is the ringpost program at {host}.\r\n{sentences}\r\n\r\n",
        notification.now.rfc5322()
    )
}

/// One recipient: its address, then why. What another host said is repeated as it came.
fn paragraph(ReportedRecipient { recipient, remote_host, reply, .. }: &ReportedRecipient) -> String {
    let code = Action::Failed.status_of(reply);
    let why = match remote_host {
        Some(host) => format!("{host} did not take it. (#{code})\r\nRemote host said: {reply}"),
        None => format!("{} (#{code})", reply.text()),
    };
    let end = if code.0 == 4 { "\r\nIt has been tried for too long, and is not tried again." } else { "" };
    format!("<{recipient}>:\r\n{why}{end}\r\n\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Mailbox;
    use crate::content::ContentFacts;
    use crate::path::ReversePath;
    use crate::reply::Reply;
    use crate::time::UnixMillis;
    use proptest::prelude::*;

    fn reported(recipient: &str, host: Option<&str>, reply: Reply) -> ReportedRecipient {
        let (recipient, remote_host) = (recipient.to_owned(), host.map(str::to_owned));
        ReportedRecipient { recipient, original: None, remote_host, reply }
    }

    fn bounce(
        sender: &ReversePath,
        recipients: &[ReportedRecipient],
        original: &[u8],
        ret: Option<Ret>,
    ) -> String {
        let to = ReversePath::parse("list@example.org").unwrap();
        let notification = Notification {
            action: Action::Failed,
            reporting_host: "relay.example",
            to: &to,
            sender,
            arrived: UnixMillis(0),
            now: UnixMillis(14_400_000),
            serial: 7,
            recipients,
            original,
            facts: ContentFacts::of(original),
            smtputf8: false,
            is_tls_optional: false,
            ret,
            envelope_id: None,
        };
        String::from_utf8(render(&notification)).unwrap()
    }

    fn list() -> ReversePath {
        ReversePath::Mailbox(Mailbox::parse("list@example.org").unwrap())
    }

    fn two() -> [ReportedRecipient; 2] {
        let theirs = Reply::ours(550, (5, 1, 1), "No such user");
        let ours = Reply::ours(451, (4, 4, 7), "delivery time expired while the name servers were asked");
        [reported("ann@example.net", Some("mx.example.net"), theirs), reported("bob@example.com", None, ours)]
    }

    #[test]
    fn each_recipient_has_a_paragraph_and_the_message_follows_the_break() {
        let text = bounce(&list(), &two(), b"Subject: hi\r\n\r\n-the body\r\n", None);
        let golden = "Date: Thu, 01 Jan 1970 04:00:00 +0000
From: MAILER-DAEMON@relay.example
To: <list@example.org>
Subject: failure notice
Message-ID: <dbba00.7@relay.example>
Auto-Submitted: auto-replied

Hi. This is the ringpost program at relay.example.
Your message could not be delivered to the addresses below.
These failures are permanent: no further attempt will be made.

<ann@example.net>:
mx.example.net did not take it. (#5.1.1)
Remote host said: 550 5.1.1 No such user

<bob@example.com>:
delivery time expired while the name servers were asked (#4.4.7)
It has been tried for too long, and is not tried again.

--- Below this line is a copy of the message.

Return-Path: <list@example.org>
Subject: hi

-the body
";
        assert_eq!(text, golden.replace('\n', "\r\n"));
    }

    #[test]
    fn double_bounce_says_so() {
        let text = bounce(&ReversePath::Null, &two(), b"Subject: hi\r\n\r\nbounce", None);
        assert!(text.contains("\r\n\r\nHi. This is the ringpost program"), "{text}");
        let end = "--- Below this line is the original bounce.\r\n\r\nReturn-Path: <>\r\nSubject: hi\r\n\r\nbounce\r\n";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn only_the_header_goes_back_where_that_was_asked_for_or_nothing_else_may() {
        for (ret, body) in [(Some(Ret::Headers), "the body"), (None, "the body\n."), (None, "the body\0")] {
            let text = bounce(&list(), &two(), format!("Subject: hi\r\n\r\n{body}\r\n").as_bytes(), ret);
            let end =
                "Return-Path: <list@example.org>\r\nSubject: hi\r\n\r\n--- End of message stripped.\r\n";
            assert!(text.ends_with(end) && !text.contains("the body"), "{text}");
        }
    }

    proptest! {
        /// Whatever a host says: paragraphs are as many as recipients, and none of theirs begins with the break's `-`.
        #[test]
        fn paragraphs_stay_whole(text in "\\PC{0,60}|[-<\\r\\n ]{0,20}", code in 400u16..600) {
            let reply = Reply::new(code, None, text.as_bytes());
            let recipients = [reported("ann@example.net", None, reply.clone()), reported("b@c.test", Some("mx"), reply)];
            let text = bounce(&list(), &recipients, b"A: b\r\n\r\nc\r\n", None);
            let body = text.split_once("\r\n\r\n").unwrap().1;
            let paragraphs: Vec<&str> = body.split("\r\n\r\n").collect();
            prop_assert!(paragraphs[0].starts_with("Hi. This is the"));
            prop_assert!(paragraphs[1].starts_with("<ann@example.net>:\r\n") && paragraphs[1].contains("(#"));
            prop_assert!(paragraphs[2].starts_with("<b@c.test>:\r\n"));
            prop_assert!(paragraphs[3].starts_with("--- Below this line"));
            prop_assert!(!text.replace("\r\n", "").contains(['\r', '\n']));
        }
    }
}
