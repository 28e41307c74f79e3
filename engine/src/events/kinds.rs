//! How an event of each kind is made. Whoever logs one makes it here, so that docs/events.md can be held against what is
//! written: the test below writes a line of each kind, and the document shows these lines.

use super::{Event, Kind};
use crate::observe::Via;
use crate::returns::{ReturnEvent, Returned};
use message::{FailureClass, Mailbox, MailboxRef, MessageId, Reply, UnixMillis, Verdict};
use queue::Range;
use queue::fanout::Letter;

/// Recipients of a letter, and when something became of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About<'a> {
    pub(crate) letter: &'a Letter,
    /// As `lanes.tenant_field`.
    pub(crate) tenant_field: &'a str,
    pub(crate) range: &'a Range,
    /// `*` at their domain, if names are not at hand.
    pub(crate) recipient: MailboxRef<'a>,
    pub(crate) now: UnixMillis,
}

/// How a recipient said that it wants no more of a list. The names are an interface: they stand in events.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// A mailbox provider's POST (RFC 8058).
    OneClick,
    /// The button of the page.
    Page,
    /// Mail to `unsubscribe.mailto`.
    Mailto,
}

impl Way {
    pub fn name(self) -> &'static str {
        match self {
            Way::OneClick => "one-click",
            Way::Page => "page",
            Way::Mailto => "mailto",
        }
    }
}

impl<'a> Event<'a> {
    /// A message was taken in. `octets`: without what we put on top of it.
    pub(crate) fn accepted(
        letter: &'a Letter,
        tenant_field: &str,
        recipients: u32,
        octets: u64,
    ) -> Event<'a> {
        Event {
            recipients: Some(recipients),
            octets: Some(octets),
            ..Event::new(Kind::Accepted).of_letter(letter, tenant_field)
        }
    }

    /// The outcome of an attempt, the one that comes after those which the range counts.
    pub(crate) fn of_attempt(about: About<'a>, via: Via<'a>, verdict: &'a Verdict) -> Event<'a> {
        Event {
            host: via.host,
            source: via.source,
            tls: via.tls,
            attempt: about.range.attempts.plus_one().count(),
            reply: Some(verdict.reply()),
            class: FailureClass::of(verdict, via.scope),
            ..Event::about(kind_of(verdict), about)
        }
    }

    /// No attempt was made: the recipient is on the suppression list.
    pub(crate) fn suppressed(about: About<'a>, reply: &'a Reply) -> Event<'a> {
        Event {
            attempt: about.range.attempts.count(),
            reply: Some(reply),
            class: Some(FailureClass::Suppressed),
            ..Event::about(Kind::Suppressed, about)
        }
    }

    fn about(kind: Kind, about: About<'a>) -> Event<'a> {
        let About { letter, tenant_field, range, recipient, now } = about;
        Event {
            index: Some(range.first),
            count: range.count,
            recipient: Some(recipient),
            delay_ms: Some(now.since(letter.arrived)),
            ..Event::new(kind).of_letter(letter, tenant_field)
        }
    }

    /// Recipients of a message that is not in memory.
    pub(crate) fn unread(kind: Kind, id: MessageId, range: &Range, recipient: MailboxRef<'a>) -> Event<'a> {
        Event {
            msg: Some(id),
            index: Some(range.first),
            count: range.count,
            recipient: Some(recipient),
            ..Event::new(kind)
        }
    }

    /// A failure after the fact, or a complaint.
    pub(crate) fn of_return(event: &'a ReturnEvent) -> Event<'a> {
        let (kind, class) = match event.what {
            Returned::Bounced(class) => (Kind::Bounced, Some(class)),
            Returned::Complained(_) => (Kind::Complaint, None),
        };
        Event {
            msg: event.message,
            index: event.index.map(|index| index.0),
            recipient: event.recipient.as_ref().map(Mailbox::as_ref),
            sender: &event.sender,
            campaign: &event.labels.campaign,
            tenant: &event.labels.tenant,
            list: &event.labels.list,
            reply: event.reply.as_ref(),
            class,
            detail: event.detail,
            ..Event::new(kind)
        }
    }

    /// A recipient leaves a list. Nobody knows which message made it do so: one list and recipient have one token for ever.
    pub(crate) fn unsubscribed(list: &'a str, address: &'a Mailbox, way: Way) -> Event<'a> {
        let recipient = Some(address.as_ref());
        Event { recipient, list, detail: way.name(), ..Event::new(Kind::Unsubscribed) }
    }
}

fn kind_of(verdict: &Verdict) -> Kind {
    match verdict {
        Verdict::Delivered(_) => Kind::Delivered,
        Verdict::Deferred(_) => Kind::Deferred,
        Verdict::Failed(_) => Kind::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;
    use crate::drive::suppress::reply_for;
    use crate::events::Stamp;
    use crate::events::line::Head;
    use crate::returns::{Meaning, Returns};
    use crate::suppression::{Listed, Reason};
    use bytes::Bytes;
    use message::report::read;
    use message::{ContentFacts, Lane, RecipientIndex, ReversePath, Scope, Verp, VerpKey};
    use queue::fanout::Handling;
    use queue::range::DomainKey;
    use queue::{Attempts, MessageKey};
    use std::sync::Arc;

    const DOCUMENT: &str = include_str!("../../../docs/events.md");

    /// The document's first message and its time.
    const ID: MessageId = MessageId(0x1_0000_00c0);
    const AT: u64 = 1_790_000_000_000;

    const HEADER: &str = "X-Campaign: spring\r\nList-Id: News <news.example.org>\r\n\r\n";

    const VIA: Via<'static> = Via {
        host: "mx.example.net[192.0.2.1:25]",
        source: "default",
        tls: "TLS 1.3",
        success: None,
        scope: Some(Scope::Recipient),
        is_hard: false,
    };

    const BOUNCE: &str = "Content-Type: multipart/report; boundary=b\n\n--b\n\
                          Content-Type: message/delivery-status\n\nReporting-MTA: dns; inner.example.net\n\n\
                          Final-Recipient: rfc822; ann@example.net\nAction: failed\nStatus: 5.2.2\n\
                          Diagnostic-Code: smtp; 552 5.2.2 over quota\n\n--b\n\
                          Content-Type: text/rfc822-headers\n\nX-Campaign: spring\nList-Id: <news.example.org>\n\n--b--\n";

    fn complaint(path: &str) -> String {
        format!(
            "Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/feedback-report\n\n\
             Feedback-Type: abuse\n\n--b\nContent-Type: message/rfc822\n\n\
             Return-Path: <{path}>\nX-Campaign: spring\nList-Id: <news.example.org>\n\nhello\n--b--\n"
        )
    }

    fn newsletter(id: MessageId, arrived: UnixMillis) -> Letter {
        let sender = ReversePath::Mailbox(Mailbox::parse("news@example.org").unwrap());
        let content = Bytes::from(format!("{HEADER:x<4096}"));
        let handling = Handling { lane: Lane::Bulk, ..Handling::default() };
        Letter::new((id, arrived), (sender, None), (content, ContentFacts::default()), handling)
    }

    fn range(first: u32) -> Range {
        let (message, domain) = (MessageKey(0), DomainKey(0));
        Range { message, domain, first, count: 1, name_offset: 0, attempts: Attempts::NONE, reason: 0 }
    }

    fn about<'a>(letter: &'a Letter, range: &'a Range, local_part: &'a str, after_ms: u64) -> About<'a> {
        let recipient = MailboxRef { local_part, domain: "example.net" };
        About { letter, tenant_field: "X-Tenant", range, recipient, now: UnixMillis(AT + after_ms) }
    }

    fn key() -> Arc<VerpKey> {
        Arc::new(VerpKey::new(&[3; 32]))
    }

    /// Ann's own return path.
    fn path() -> String {
        let base = MailboxRef::parse("news@example.org").unwrap();
        let ann = MailboxRef::parse("ann@example.net").unwrap();
        let mut out = Vec::new();
        Verp::DEFAULT.render_signed(base, ann, (ID, RecipientIndex(0)), &key(), &mut out);
        String::from_utf8(out).unwrap()
    }

    /// What the report means that came to that address.
    fn returned(to: &str, report: &str) -> ReturnEvent {
        let text = "queue = \"q\"\nhost_name = \"relay.test\"\n[bounces]\ndomains = [\"example.org\"]\n\
                    feedback_addresses = [\"fbl@example.org\"]\n";
        let returns = Returns::new(&parse(text, "test").unwrap(), key());
        let address = returns.address(MailboxRef::parse(to).unwrap()).unwrap();
        match returns.judge(&address, &read(report.as_bytes())) {
            Meaning::Event(event) => *event,
            other => panic!("{other:?}"),
        }
    }

    #[derive(Default)]
    struct Log {
        lines: Vec<u8>,
        serial: u64,
    }

    impl Log {
        fn put(&mut self, after_ms: u64, event: &Event<'_>) {
            let id = Some(0x180_0000_0000 + self.serial);
            event.render(Stamp { id, at: UnixMillis(AT + after_ms) }, &mut self.lines);
            self.serial += 1;
        }
    }

    /// A line of each kind, as it is logged.
    fn written() -> String {
        let (mut log, letter) = (Log::default(), newsletter(ID, UnixMillis(AT)));
        log.put(0, &Event::accepted(&letter, "X-Tenant", 3, letter.content.len() as u64));
        for (first, local_part, after_ms, verdict) in [
            (0, "ann", 120, Verdict::Delivered(Reply::ours(250, (2, 0, 0), "queued as 4Vq1"))),
            (1, "bob", 130, Verdict::Deferred(Reply::ours(452, (4, 2, 2), "mailbox full"))),
            (2, "cy", 140, Verdict::Failed(Reply::ours(550, (5, 1, 1), "no such user"))),
        ] {
            let one = range(first);
            let event = Event::of_attempt(about(&letter, &one, local_part, after_ms), VIA, &verdict);
            log.put(after_ms, &Event { site: "mx.example.net", ..event });
        }
        let anybody = MailboxRef { local_part: "*", domain: "example.net" };
        log.put(150, &Event::unread(Kind::Deleted, ID, &range(1), anybody));
        let (later, one) = (newsletter(MessageId(0x1_0000_0100), UnixMillis(AT + 150)), range(0));
        let reply = reply_for(Listed { reason: Reason::HardBounce, at: UnixMillis(AT) });
        log.put(160, &Event::suppressed(about(&later, &one, "cy", 160), &reply));
        let path = path();
        log.put(60_000, &Event::of_return(&returned(&path, BOUNCE)));
        log.put(70_000, &Event::of_return(&returned("fbl@example.org", &complaint(&path))));
        let ann = Mailbox::parse("ann@example.net").unwrap();
        log.put(80_000, &Event::unsubscribed("news.example.org", &ann, Way::OneClick));
        String::from_utf8(log.lines).unwrap()
    }

    fn fields(line: &str) -> Vec<String> {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        value.as_object().unwrap().keys().cloned().collect()
    }

    /// docs/events.md promises a line of each kind, and a word on each field.
    #[test]
    fn documentation_shows_a_line_of_each_kind_as_it_is_written() {
        let shown: Vec<&str> = DOCUMENT.lines().filter(|line| line.starts_with("{\"id\"")).collect();
        let heads = shown.iter().map(|line| Head::find(format!("{line}\n").as_bytes()).unwrap());
        let kinds: Vec<Option<Kind>> = heads.map(|head| head.kind).collect();
        assert_eq!(kinds, Kind::ALL.map(Some));
        let written = written();
        assert_eq!(written.lines().count(), shown.len());
        for (shown, line) in shown.into_iter().zip(written.lines()) {
            assert_eq!(fields(shown), fields(line), "{line}");
            assert_eq!(shown, line);
        }
    }

    #[test]
    fn documentation_has_a_word_on_every_field() {
        let (letter, one, mut out) = (newsletter(ID, UnixMillis(AT)), range(0), Vec::new());
        let verdict = Verdict::Failed(Reply::ours(550, (5, 1, 1), "no such user"));
        let everything = Event {
            count: 2,
            tenant: "acme",
            site: "mx.example.net",
            detail: "abuse",
            recipients: Some(3),
            octets: Some(4096),
            hash: "00",
            ..Event::of_attempt(about(&letter, &one, "ann", 1), VIA, &verdict)
        };
        everything.render(Stamp { id: Some(1), at: UnixMillis(AT) }, &mut out);
        let fields = fields(std::str::from_utf8(&out).unwrap());
        assert_eq!(fields.len(), 28, "all that a line may have: {fields:?}");
        for field in fields {
            let in_table = [format!("| `{field}`"), format!(", `{field}`")];
            assert!(in_table.iter().any(|words| DOCUMENT.contains(words)), "{field}");
        }
    }

    #[test]
    fn recipient_who_was_tried_before_it_was_suppressed_shows_its_attempts() {
        let letter = newsletter(ID, UnixMillis(AT));
        let tried = Range { attempts: Attempts::new(2), ..range(0) };
        let reply = reply_for(Listed { reason: Reason::Complaint, at: UnixMillis(AT) });
        let event = Event::suppressed(about(&letter, &tried, "ann", 5), &reply);
        assert_eq!((event.attempt, event.class), (2, Some(FailureClass::Suppressed)));
    }
}
