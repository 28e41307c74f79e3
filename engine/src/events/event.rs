//! One event: what became of whom, with everything that a reader may want to count or act by.
//!
//! Fields that an event has nothing to say of are left out of its line, except in the lines about verdicts, which always
//! have those of the delivery log. Names of fields and kinds are an interface: docs/events.md says what each means.
//! Bound: every text is bounded where it comes from (addresses, replies, [`message::Labels`]), so a line stays below
//! [`LINE_MAX`]. Bodies and credentials never get here.

use super::json::Object;
use message::{FailureClass, Lane, MailboxRef, MessageId, Reply, UnixMillis};
use queue::fanout::Letter;

/// No line is longer, its end included: each octet of the longest texts escaped to six.
pub const LINE_MAX: usize = 32 << 10;

/// What happened.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// A message was taken in and is durable.
    Accepted,
    /// A host took a recipient's mail.
    Delivered,
    /// An attempt came to nothing; there will be another.
    Deferred,
    /// There will be none.
    Failed,
    /// An operator deleted recipients, unseen and unbounced.
    Deleted,
    /// A recipient got nothing because a list says so.
    Suppressed,
    /// A host that had taken it reported later that it could not deliver (RFC 3464).
    Bounced,
    /// A recipient complained (RFC 5965).
    Complaint,
    /// A recipient wants no more.
    Unsubscribed,
}

impl Kind {
    pub const ALL: [Kind; 9] = [
        Kind::Accepted,
        Kind::Delivered,
        Kind::Deferred,
        Kind::Failed,
        Kind::Deleted,
        Kind::Suppressed,
        Kind::Bounced,
        Kind::Complaint,
        Kind::Unsubscribed,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Accepted => "accepted",
            Kind::Delivered => "delivered",
            Kind::Deferred => "deferred",
            Kind::Failed => "failed",
            Kind::Deleted => "deleted",
            Kind::Suppressed => "suppressed",
            Kind::Bounced => "bounced",
            Kind::Complaint => "complaint",
            Kind::Unsubscribed => "unsubscribed",
        }
    }

    /// Reads what [`Kind::name`] gave.
    pub fn of_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The verdict on an attempt, as the delivery log has always named it.
    fn verdict(self) -> Option<&'static str> {
        matches!(self, Kind::Delivered | Kind::Deferred | Kind::Failed).then(|| self.name())
    }
}

/// See the module. Everything but the kind may be left as [`Event::new`] has it.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    pub kind: Kind,
    pub msg: Option<MessageId>,
    /// The recipient's place in its message's envelope.
    pub index: Option<u32>,
    /// Recipients from `index` on, where names are not at hand; else 1.
    pub count: u32,
    pub recipient: Option<MailboxRef<'a>>,
    /// The message's reverse-path, without brackets and without VERP.
    pub sender: &'a str,
    pub campaign: &'a str,
    pub tenant: &'a str,
    /// What `List-Id` names.
    pub list: &'a str,
    pub lane: Option<Lane>,
    pub site: &'a str,
    pub host: &'a str,
    pub source: &'a str,
    pub tls: &'a str,
    /// Counts from 1. 0: there was none.
    pub attempt: u16,
    pub reply: Option<&'a Reply>,
    pub class: Option<FailureClass>,
    /// Since the message was accepted.
    pub delay_ms: Option<u64>,
    /// What told us: the form of a report, the kind of a complaint, the way of an unsubscription.
    pub detail: &'a str,
    /// Of an accepted message: recipients, octets, BLAKE3 of what came.
    pub recipients: Option<u32>,
    pub octets: Option<u64>,
    pub hash: &'a str,
}

impl<'a> Event<'a> {
    pub fn new(kind: Kind) -> Event<'a> {
        Event {
            kind,
            msg: None,
            index: None,
            count: 1,
            recipient: None,
            sender: "",
            campaign: "",
            tenant: "",
            list: "",
            lane: None,
            site: "",
            host: "",
            source: "",
            tls: "",
            attempt: 0,
            reply: None,
            class: None,
            delay_ms: None,
            detail: "",
            recipients: None,
            octets: None,
            hash: "",
        }
    }

    /// With what its message says. `tenant_field`: as `lanes.tenant_field`.
    #[must_use]
    pub fn of_letter(self, letter: &'a Letter, tenant_field: &str) -> Event<'a> {
        let labels = letter.labels(tenant_field);
        Event {
            msg: Some(letter.id),
            sender: letter.reverse_path.as_str(),
            campaign: &labels.campaign,
            tenant: &labels.tenant,
            list: &labels.list,
            lane: Some(letter.lane),
            ..self
        }
    }

    /// Appends the line. No allocation beyond the buffer's growth.
    pub fn render(&self, stamp: Stamp, out: &mut Vec<u8>) {
        let mut line = Object::begin(out);
        if let Some(id) = stamp.id {
            line.hex("id", id);
        }
        line.text("kind", self.kind.name());
        line.number("at", stamp.at.0);
        if let Some(msg) = self.msg {
            line.hex("msg", msg.0);
        }
        if let Some(index) = self.index {
            line.number("index", u64::from(index));
        }
        if self.count != 1 {
            line.number("count", u64::from(self.count));
        }
        self.render_names(&mut line);
        self.render_outcome(&mut line);
        line.end();
    }

    fn render_names(&self, line: &mut Object<'_>) {
        if let Some(MailboxRef { local_part, domain }) = self.recipient {
            line.pieces("rcpt", &[local_part, "@", domain]);
            line.text("domain", domain);
        }
        line.text_if("sender", self.sender);
        line.text_if("campaign", self.campaign);
        line.text_if("tenant", self.tenant);
        line.text_if("list", self.list);
        line.text_if("site", self.site);
        let has_verdict = self.kind.verdict().is_some();
        for (key, text) in [("host", self.host), ("source", self.source), ("tls", self.tls)] {
            if has_verdict || !text.is_empty() {
                line.text(key, text);
            }
        }
        if let Some(lane) = self.lane {
            line.text("lane", lane.name());
        }
    }

    fn render_outcome(&self, line: &mut Object<'_>) {
        if self.attempt > 0 {
            line.number("attempt", u64::from(self.attempt));
        }
        if let Some(verdict) = self.kind.verdict() {
            line.text("verdict", verdict);
        }
        if let Some(class) = self.class {
            line.text("class", class.name());
        }
        if let Some(reply) = self.reply {
            // A report need not say which it was.
            if reply.code > 0 {
                line.number("code", u64::from(reply.code));
            }
            if let Some(enhanced) = reply.enhanced {
                line.enhanced("enhanced", enhanced);
            }
            line.text("reply", reply.text());
        }
        line.text_if("detail", self.detail);
        let counts = [
            ("recipients", self.recipients.map(u64::from)),
            ("octets", self.octets),
            ("delay_ms", self.delay_ms),
        ];
        for (key, count) in counts {
            count.iter().for_each(|count| line.number(key, *count));
        }
        line.text_if("blake3", self.hash);
    }
}

/// When an event was logged, and by what name: whoever logs it knows.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// None in the delivery log, whose lines nobody needs to tell apart.
    pub id: Option<u64>,
    pub at: UnixMillis,
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use message::{ContentFacts, ReversePath};
    use queue::fanout::Handling;

    fn value(event: &Event<'_>, id: Option<u64>) -> serde_json::Value {
        let mut out = Vec::new();
        event.render(Stamp { id, at: UnixMillis(2500) }, &mut out);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn line_is_json_whatever_the_peer_said() {
        let reply = Reply::ours(550, (5, 1, 1), "no \"such\" \\ user");
        let event = Event {
            msg: Some(MessageId(255)),
            index: Some(3),
            recipient: Some(MailboxRef { local_part: "\"a b\"", domain: "x.test" }),
            host: "mx.x.test",
            attempt: 2,
            reply: Some(&reply),
            lane: Some(Lane::Bulk),
            delay_ms: Some(2000),
            class: Some(FailureClass::Hard),
            ..Event::new(Kind::Failed)
        };
        let line = value(&event, None);
        assert_eq!(line["rcpt"], "\"a b\"@x.test");
        assert_eq!(line["reply"], "no \"such\" \\ user");
        assert_eq!((&line["at"], &line["delay_ms"]), (&2500.into(), &2000.into()));
        assert_eq!((&line["msg"], &line["id"]), (&"00000000000000ff".into(), &serde_json::Value::Null));
        assert_eq!((&line["enhanced"], &line["class"]), (&"5.1.1".into(), &"hard".into()));
    }

    #[test]
    fn lines_about_verdicts_have_every_field_that_the_delivery_log_had() {
        let reply = Reply::ours(250, (2, 0, 0), "ok");
        let event = Event {
            msg: Some(MessageId(1)),
            index: Some(0),
            recipient: Some(MailboxRef { local_part: "a", domain: "x.test" }),
            lane: Some(Lane::Normal),
            attempt: 1,
            reply: Some(&reply),
            delay_ms: Some(0),
            ..Event::new(Kind::Delivered)
        };
        let line = value(&event, Some(0xab));
        for key in "id kind at msg index rcpt domain host source tls lane attempt code enhanced verdict reply delay_ms"
            .split(' ')
        {
            assert!(line.get(key).is_some(), "{key}: {line}");
        }
        assert_eq!(
            line.as_object().unwrap().len(),
            17,
            "and what it has nothing to say of is left out: {line}"
        );
    }

    #[test]
    fn message_says_sender_campaign_list_and_tenant() {
        let content = "X-Campaign: spring\r\nList-Id: News <news.example.org>\r\nX-Tenant: acme\r\n\r\n";
        let letter = Letter::new(
            (MessageId(7), UnixMillis(0)),
            (ReversePath::Null, None),
            (Bytes::from_static(content.as_bytes()), ContentFacts::default()),
            Handling::default(),
        );
        let line = value(&Event::new(Kind::Suppressed).of_letter(&letter, "X-Tenant"), Some(1));
        assert_eq!((&line["campaign"], &line["list"]), (&"spring".into(), &"news.example.org".into()));
        assert_eq!((&line["tenant"], &line["msg"]), (&"acme".into(), &"0000000000000007".into()));
        assert_eq!((line.get("sender"), line.get("host")), (None, None));
    }

    #[test]
    fn every_kind_is_found_by_its_name() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of_name(kind.name()), Some(kind));
        }
    }

    #[test]
    fn longest_line_stays_below_the_bound() {
        let text = "\u{1}".repeat(255);
        let label = "\u{1}".repeat(message::labels::LABEL_MAX);
        let reply = Reply::new(550, None, &[b'"'; 480]);
        let event = Event {
            recipient: Some(MailboxRef { local_part: &text, domain: &text }),
            sender: &text,
            campaign: &label,
            tenant: &label,
            list: &label,
            site: &text,
            host: &text,
            source: &text,
            reply: Some(&reply),
            detail: &text,
            ..Event::new(Kind::Failed)
        };
        let mut out = Vec::new();
        event.render(Stamp { id: Some(u64::MAX), at: UnixMillis(u64::MAX) }, &mut out);
        assert!(out.len() < LINE_MAX, "{}", out.len());
    }
}
