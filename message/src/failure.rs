//! What kind of failure a refusal is, for events: is the address bad, are we, or is it the message, the pace, the network?
//!
//! Decided by a table, first match wins: the enhanced code where it says something (RFC 3463), then words that many
//! servers use, then how far the refusal reaches. [`FailureClass::Hard`] alone is about the address, so a rule for it must
//! be sure: a doubtful refusal is [`FailureClass::Unknown`]. Whether mail is tried again is decided elsewhere, by the
//! verdict; reports of other hosts (RFC 3464) are judged by the same table.
//!
//! Pure. Trusts no text. Cost: nothing for a delivery, some microseconds for a refusal.

use crate::reply::Reply;
use crate::verdict::{Scope, Verdict};

/// See the module. The names are an interface: they stand in events.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum FailureClass {
    /// The address is no good: no such mailbox or domain, or it was closed.
    Hard,
    /// The host is busy, out of order or wants us to come back.
    Soft,
    /// The mailbox takes no more.
    MailboxFull,
    /// Our address or our domain is not welcome, whatever we send.
    Block,
    /// A rule of the host's that is not about this message's content: authentication, relaying, its sender.
    Policy,
    /// We send too much or too fast.
    Throttled,
    /// The message: spam, a virus, its size, its form.
    Content,
    /// No connection, no route, no name server, no answer in time.
    Network,
    /// The connection could not be protected as somebody demands.
    Tls,
    /// One of the two did not understand the other.
    Protocol,
    /// The message's lifetime is over; its reply is that of the last attempt.
    Expired,
    /// An operator's order.
    Operator,
    /// The address is on a list of those who get nothing more.
    Suppressed,
    /// The reply does not tell.
    Unknown,
}

use FailureClass::{
    Block, Content, Expired, Hard, MailboxFull, Network, Operator, Policy, Protocol, Soft, Suppressed,
    Throttled, Tls, Unknown,
};

const ALL: [FailureClass; 14] = [
    Hard,
    Soft,
    MailboxFull,
    Block,
    Policy,
    Throttled,
    Content,
    Network,
    Tls,
    Protocol,
    Expired,
    Operator,
    Suppressed,
    Unknown,
];

impl FailureClass {
    /// As events name it.
    pub fn name(self) -> &'static str {
        match self {
            Hard => "hard",
            Soft => "soft",
            MailboxFull => "mailbox-full",
            Block => "block",
            Policy => "policy",
            Throttled => "throttled",
            Content => "content",
            Network => "network",
            Tls => "tls",
            Protocol => "protocol",
            Expired => "expired",
            Operator => "operator",
            Suppressed => "suppressed",
            Unknown => "unknown",
        }
    }

    /// Reads what [`FailureClass::name`] gave.
    pub fn of_name(name: &str) -> Option<FailureClass> {
        ALL.into_iter().find(|class| class.name() == name)
    }

    /// The class of an attempt's outcome; none for a delivery. `scope`: how far it reaches, if a host said it.
    pub fn of(verdict: &Verdict, scope: Option<Scope>) -> Option<FailureClass> {
        match verdict {
            Verdict::Delivered(_) => None,
            Verdict::Deferred(reply) => Some(FailureClass::of_reply(false, reply, scope)),
            Verdict::Failed(reply) => Some(FailureClass::of_reply(true, reply, scope)),
        }
    }

    /// The class of a refusal. `is_final`: nobody tries again.
    pub fn of_reply(is_final: bool, reply: &Reply, scope: Option<Scope>) -> FailureClass {
        let text = reply.text().to_ascii_lowercase();
        let refusal = Refusal { is_final, reply, text: &text };
        let rule = RULES.iter().find(|rule| rule.holds(&refusal));
        rule.map_or_else(|| by_reach(is_final, scope), |rule| rule.class)
    }
}

/// Neither code nor words say anything.
fn by_reach(is_final: bool, scope: Option<Scope>) -> FailureClass {
    match (is_final, scope) {
        (false, _) => Soft,
        // A plain 550 to RCPT says that there is no such mailbox (RFC 5321 §4.2.2).
        (true, Some(Scope::Recipient)) => Hard,
        // Turned away before the message was looked at.
        (true, Some(Scope::Host | Scope::Site)) => Block,
        (true, Some(Scope::Message) | None) => Unknown,
    }
}

struct Refusal<'a> {
    is_final: bool,
    reply: &'a Reply,
    /// In lower case.
    text: &'a str,
}

/// What is empty holds for every refusal.
struct Rule {
    /// Subject, and details from and to; `ANY` stands for every detail.
    enhanced: &'static [(u16, u16, u16)],
    codes: &'static [u16],
    /// One of them must be there. In lower case.
    words: &'static [&'static str],
    is_final: Option<bool>,
    class: FailureClass,
}

const fn rule(class: FailureClass) -> Rule {
    Rule { enhanced: &[], codes: &[], words: &[], is_final: None, class }
}

const ANY: u16 = u16::MAX;

impl Rule {
    fn holds(&self, refusal: &Refusal<'_>) -> bool {
        let code = refusal.reply.enhanced;
        let is_in = |(subject, from, to): &(u16, u16, u16)| {
            code.is_some_and(|code| code.1 == *subject && (*to == ANY || (*from..=*to).contains(&code.2)))
        };
        (self.enhanced.is_empty() || self.enhanced.iter().any(is_in))
            && (self.codes.is_empty() || self.codes.contains(&refusal.reply.code))
            && (self.words.is_empty() || self.words.iter().any(|words| refusal.text.contains(words)))
            && self.is_final.is_none_or(|is_final| is_final == refusal.is_final)
    }
}

/// A refusal with one of these in it is about our pace, not about the message. In lower case.
const THROTTLING: [&str; 12] = [
    "rate limit",
    "rate-limit",
    "ratelimit",
    "unusual rate",
    "sending rate",
    "too many",
    "too fast",
    "too quickly",
    "throttl",
    "slow down",
    "limit exceeded",
    "temporarily deferred",
];

/// The refusal is about our pace. RFC 3463 has no code for it, so words decide; x.7.28 is what the large providers agreed
/// on (RFC 7372 left it free).
pub fn is_throttling(reply: &Reply) -> bool {
    let text = reply.text().to_ascii_lowercase();
    reply.enhanced.is_some_and(|code| (code.1, code.2) == (7, 28))
        || THROTTLING.iter().any(|words| text.contains(words))
}

const NO_SUCH_MAILBOX: [&str; 59] = [
    "user unknown",
    "unknown user",
    "unknown recipient",
    "unknown address",
    "unknown local part",
    "no such user",
    "no such recipient",
    "no such mailbox",
    "no such address",
    "no mailbox",
    "mailbox not found",
    "mailbox unavailable",
    "recipient not found",
    "user not found",
    "does not exist",
    "doesn't exist",
    "invalid recipient",
    "invalid mailbox",
    "not a valid mailbox",
    "recipient address rejected",
    "unrouteable address",
    "address unknown",
    "account is disabled",
    "account has been disabled",
    "recipient unknown",
    "unknown or illegal alias",
    "no such domain",
    "no such person",
    "address not found",
    "couldn't be found",
    "could not be found",
    "account that you tried to reach",
    "not listed in",
    "not our customer",
    "not local user",
    "invalid address",
    "is not a known user",
    "doesn't have a",
    "undeliverable address",
    "bad destination",
    "unroutable address",
    "host unknown",
    "unknown host",
    "host not found",
    "domain not found",
    "any host by that name",
    "any host named",
    "name or service not known",
    "accepts no mail",
    "account disabled",
    "account is inactive",
    "mailbox is inactive",
    "user is inactive",
    "mailbox disabled",
    "mailbox is disabled",
    "has been deactivated",
    "no longer available",
    "no longer valid",
    "no longer in use",
];

const FULL: [&str; 18] = [
    "mailbox full",
    "mailbox is full",
    "over quota",
    "overquota",
    "quota exceeded",
    "exceeded its quota",
    "inbox is full",
    "account is full",
    "over its quota",
    "exceeded quota",
    "exceeded the quota",
    "exceeded storage",
    "exceeds allowed size",
    "mailbox exceeds",
    "mailbox size limit",
    "storage quota",
    "disk quota",
    "out of storage",
];

const BLOCKED: [&str; 15] = [
    "blocked",
    "blacklist",
    "black list",
    "blocklist",
    "block list",
    "denylist",
    "dnsbl",
    "spamhaus",
    "barracuda",
    "spamcop",
    "reputation",
    "banned",
    "is listed",
    "listed at",
    "listed in",
];

const BAD_CONTENT: [&str; 16] = [
    "spam",
    "virus",
    "malware",
    "phish",
    "unsolicited",
    "message content",
    "content rejected",
    "message too large",
    "message size",
    "too big",
    "attachment",
    "due to content",
    "content filter",
    "suspicious",
    "too large",
    "maximum size",
];

/// No connection came about, or none that lasted.
const UNREACHED: [&str; 11] = [
    "timed out",
    "timeout",
    "connection refused",
    "connection reset",
    "unable to connect",
    "establish an smtp connection",
    "no route to host",
    "unreachable",
    "retry time not reached",
    "mail loop",
    "too many hops",
];

/// Somebody gave up.
const GIVEN_UP: [&str; 6] = [
    "in the queue too long",
    "tried for too long",
    "time expired",
    "message expired",
    "delivery expired",
    "message too old",
];

#[rustfmt::skip]
const RULES: [Rule; 30] = [
    // Codes that mean one thing wherever they are used.
    Rule { enhanced: &[(2, 2, 2)], ..rule(MailboxFull) },
    Rule { enhanced: &[(4, 7, 7)], ..rule(Expired) },
    Rule { enhanced: &[(7, 28, 28)], ..rule(Throttled) },
    // Mechanisms of RFC 3207, RFC 4954, RFC 8689; 4 and 5 are also what we say of hosts that offer no TLS or fail in it.
    Rule { enhanced: &[(7, 4, 5), (7, 10, 11), (7, 30, 30)], ..rule(Tls) },
    Rule { words: &["starttls"], ..rule(Tls) },
    Rule { words: &["greylist", "graylist", "grey list"], ..rule(Soft) },
    Rule { enhanced: &[(6, 0, ANY), (2, 3, 3), (3, 4, 4)], ..rule(Content) },
    // RFC 7372: SPF, DKIM, DMARC, reverse names.
    Rule { enhanced: &[(7, 20, 27), (7, 29, 29)], ..rule(Policy) },
    // 5.1.7 and 5.1.8 are about our reverse-path; the rest of subject 1 is about whom the mail is for.
    Rule { enhanced: &[(1, 7, 8)], ..rule(Policy) },
    Rule { enhanced: &[(1, 1, 3), (1, 6, 6), (1, 10, 10), (2, 1, 1)], is_final: Some(true), ..rule(Hard) },
    // 5.4.1 is how Microsoft refuses recipients that it does not know; 5.4.4 is ours for a domain without hosts.
    Rule { enhanced: &[(4, 1, 1)], words: &NO_SUCH_MAILBOX, is_final: Some(true), ..rule(Hard) },
    Rule { enhanced: &[(4, 4, 4)], is_final: Some(true), ..rule(Hard) },
    Rule { enhanced: &[(4, 0, ANY)], ..rule(Network) },
    // Words, where codes are missing, general, or 5.7.1, which stands for everything.
    Rule { words: &FULL, ..rule(MailboxFull) },
    Rule { words: &THROTTLING, ..rule(Throttled) },
    // Domino's directory is no block list.
    Rule { words: &["not listed in"], is_final: Some(true), ..rule(Hard) },
    Rule { words: &BLOCKED, ..rule(Block) },
    Rule { words: &BAD_CONTENT, ..rule(Content) },
    Rule { enhanced: &[(7, 0, ANY)], ..rule(Policy) },
    Rule { words: &["relay", "not permitted", "policy", "authentication required", "dmarc"], ..rule(Policy) },
    Rule { words: &NO_SUCH_MAILBOX, is_final: Some(true), ..rule(Hard) },
    Rule { words: &GIVEN_UP, ..rule(Expired) },
    Rule { words: &UNREACHED, ..rule(Network) },
    Rule { words: &["unauthenticated", "not authorized", "sender rejected", "prohibited"], ..rule(Policy) },
    // RFC 3463 §3.2: other address status. The address all the same.
    Rule { enhanced: &[(1, 0, ANY)], is_final: Some(true), ..rule(Hard) },
    Rule { enhanced: &[(5, 0, ANY)], ..rule(Protocol) },
    Rule { codes: &[500, 501, 502, 503, 504, 555], ..rule(Protocol) },
    Rule { codes: &[530, 535, 538], ..rule(Policy) },
    // "Exceeded storage allocation" (RFC 5321 §4.2.2).
    Rule { codes: &[552], ..rule(MailboxFull) },
    // The host is out of order or takes no mail: for ever is not for ever.
    Rule { enhanced: &[(3, 0, ANY)], ..rule(Soft) },
];

/// For the fuzzer: any octets as a reply.
pub fn fuzz_failure(bytes: &[u8]) {
    let (code, text) = bytes.split_at(bytes.len().min(2));
    let code = code.iter().fold(0, |code, octet| code << 8 | u16::from(*octet));
    let (enhanced, text) = crate::reply::EnhancedCode::parse_prefix(text)
        .map_or((None, text), |(enhanced, text)| (Some(enhanced), text));
    let reply = Reply::new(code, enhanced, text);
    let class = FailureClass::of_reply(true, &reply, None);
    assert_eq!(FailureClass::of_name(class.name()), Some(class), "a name is one class's");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::EnhancedCode;
    use proptest::prelude::*;

    fn class(text: &str, scope: Option<Scope>) -> &'static str {
        let (code, text) = text.split_at(3);
        let text = text.trim_start().as_bytes();
        let (enhanced, text) =
            EnhancedCode::parse_prefix(text).map_or((None, text), |(enhanced, text)| (Some(enhanced), text));
        let reply = Reply::new(code.parse().unwrap(), enhanced, text);
        let verdict = if reply.is_permanent() { Verdict::Failed(reply) } else { Verdict::Deferred(reply) };
        FailureClass::of(&verdict, scope).unwrap().name()
    }

    /// Replies as hosts give them in public, some cut.
    #[test]
    fn each_refusal_has_the_class_that_the_table_says() {
        const TO: Option<Scope> = Some(Scope::Recipient);
        #[rustfmt::skip]
        let cases = [
            ("550 5.1.1 The email account that you tried to reach does not exist.", TO, "hard"),
            ("550 5.1.1 <ann@example.net>: Recipient address rejected: User unknown in local recipient table", TO, "hard"),
            ("550 5.4.1 Recipient address rejected: Access denied.", TO, "hard"),
            ("550 5.5.0 Requested action not taken: mailbox unavailable", TO, "hard"),
            ("554 delivery error: dd This user doesn't have a yahoo.com account", TO, "hard"),
            ("550 No such user here", TO, "hard"),
            ("550 no", TO, "hard"),
            ("556 5.1.10 example.net takes no mail (null MX)", None, "hard"),
            ("550 5.1.2 example.net does not exist", None, "hard"),
            ("550 5.2.1 The email account that you tried to reach is disabled.", TO, "hard"),
            ("550 5.1.0 Address rejected", TO, "hard"),
            ("450 4.1.1 user unknown for now", TO, "soft"),
            ("450 4.2.0 Greylisted, see http://postgrey.schweikert.ch/", TO, "soft"),
            ("451 4.7.1 Greylisting in action, please come back later", TO, "soft"),
            ("451 4.3.0 Temporary system problem", Some(Scope::Message), "soft"),
            ("452 4.3.1 Insufficient system storage", Some(Scope::Host), "soft"),
            ("421 4.3.2 Service shutting down", Some(Scope::Host), "soft"),
            ("452 4.2.2 The email account that you tried to reach is over quota.", TO, "mailbox-full"),
            ("552 5.2.2 Mailbox full", TO, "mailbox-full"),
            ("552 Requested mail action aborted: exceeded storage allocation", TO, "mailbox-full"),
            ("550 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org", TO, "block"),
            ("554 5.7.1 rejected due to poor reputation of 192.0.2.1", Some(Scope::Host), "block"),
            ("554 no SMTP service here", Some(Scope::Host), "block"),
            ("550 5.7.606 Access denied, banned sending IP [192.0.2.1]", TO, "block"),
            ("421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to user complaints", Some(Scope::Host), "throttled"),
            ("421 4.7.28 Gmail has detected an unusual rate of unsolicited mail originating from your IP", Some(Scope::Site), "throttled"),
            ("450 4.2.1 The user you are trying to contact is receiving mail too quickly.", TO, "throttled"),
            ("550 5.7.26 This mail has been blocked because the sender is unauthenticated.", Some(Scope::Message), "policy"),
            ("550 5.7.1 Relaying denied", TO, "policy"),
            ("553 5.1.8 Domain of sender address does not exist", Some(Scope::Message), "policy"),
            ("550 5.7.1 Our system has detected that this message is likely unsolicited mail.", Some(Scope::Message), "content"),
            ("554 5.7.1 Virus found", Some(Scope::Message), "content"),
            ("552 5.3.4 Message size exceeds fixed limit", Some(Scope::Message), "content"),
            ("550 5.6.7 The host does not offer SMTPUTF8, which an address here needs", None, "content"),
            ("451 4.4.1 connecting to 192.0.2.1:25: Connection refused", None, "network"),
            ("451 4.4.3 the name servers take their time", None, "network"),
            ("554 5.4.6 mail loops back to me", None, "network"),
            ("451 4.7.5 certificate has expired", Some(Scope::Host), "tls"),
            ("530 5.7.0 Must issue a STARTTLS command first", Some(Scope::Message), "tls"),
            ("550 5.7.30 REQUIRETLS support required", Some(Scope::Message), "tls"),
            ("503 5.5.1 Bad sequence of commands", Some(Scope::Message), "protocol"),
            ("500 eh?", Some(Scope::Message), "protocol"),
            ("551 5.4.7 delivery time expired", None, "expired"),
            ("554 Transaction failed", Some(Scope::Message), "unknown"),
        ];
        for (text, scope, name) in cases {
            assert_eq!(class(text, scope), name, "{text}");
        }
    }

    #[test]
    fn a_delivery_has_no_class() {
        assert_eq!(FailureClass::of(&Verdict::Delivered(Reply::ours(250, (2, 0, 0), "blocked")), None), None);
    }

    #[test]
    fn every_class_is_found_by_its_name() {
        for class in ALL {
            assert_eq!(FailureClass::of_name(class.name()), Some(class));
        }
        assert_eq!(FailureClass::of_name("harder"), None);
    }

    proptest! {
        #[test]
        fn fuzz_smoke(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            fuzz_failure(&bytes);
        }
    }
}
