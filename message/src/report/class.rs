//! What kind of failure it was, so that a sender knows whether to write again.
//!
//! A status code that says what happened (RFC 3463 and the registry that it began) decides; one that is used for
//! anything (X.0.0, X.7.1) is asked last, after the words, which are compared with those that mail systems are known to
//! say. Bound: [`WORDS_MAX`] octets of words.

use crate::reply::{EnhancedCode, Reply};

/// Octets of a text that are compared.
const WORDS_MAX: usize = 4096;

/// Of a failure, whether it came as a reply or as a report.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum BounceClass {
    /// There is no such mailbox or domain, or it is closed: writing again is of no use.
    Hard,
    /// It may work another time.
    Soft,
    /// The mailbox is full.
    Full,
    /// The sending host or domain is refused, for its reputation, its rate or a block list's sake.
    Block,
    /// Rules that the message does not meet: authentication, relaying, protection.
    Policy,
    /// What is in the message is refused: spam, viruses, its size, its form.
    Content,
    /// Nothing that was said tells.
    #[default]
    Other,
}

impl BounceClass {
    pub fn name(self) -> &'static str {
        match self {
            BounceClass::Hard => "hard",
            BounceClass::Soft => "soft",
            BounceClass::Full => "full",
            BounceClass::Block => "block",
            BounceClass::Policy => "policy",
            BounceClass::Content => "content",
            BounceClass::Other => "other",
        }
    }

    /// By a reply that a host gave, or we in its place.
    pub fn of_reply(reply: &Reply) -> BounceClass {
        BounceClass::of(Some(reply.code), reply.enhanced, reply.text())
    }

    /// By what is known of it. What is said to be temporary is never `Hard`.
    pub fn of(code: Option<u16>, status: Option<EnhancedCode>, text: &str) -> BounceClass {
        let text = text[..text.floor_char_boundary(WORDS_MAX)].to_ascii_lowercase();
        let is_temporary = match (status, code) {
            (Some(status), _) => status.0 == 4,
            (None, Some(code)) => (400..500).contains(&code),
            (None, None) => false,
        };
        let found = status
            .and_then(by_status)
            .or_else(|| by_words(&text))
            .or_else(|| status.and_then(by_vague_status))
            .or_else(|| code.and_then(by_code));
        match found {
            Some(BounceClass::Hard) | None if is_temporary => BounceClass::Soft,
            Some(class) => class,
            None => BounceClass::Other,
        }
    }
}

/// Statuses that mean what they say.
fn by_status(EnhancedCode(class, subject, detail): EnhancedCode) -> Option<BounceClass> {
    Some(match (subject, detail) {
        (1, 1 | 2 | 3 | 6 | 10) => BounceClass::Hard,
        (1, 7 | 8) => BounceClass::Policy,
        (2, 1) => BounceClass::Hard,
        (2, 2) => BounceClass::Full,
        (2, 3) | (3, 4) | (6, _) => BounceClass::Content,
        (3, 1 | 2) | (4, 2..=7) if class == 4 => BounceClass::Soft,
        // No host to go to; what is said when all attempts are over is of class 4.
        (4, 4) => BounceClass::Hard,
        (4, 2 | 3 | 5 | 6 | 7) => BounceClass::Soft,
        // RFC 6231, RFC 7293: the account is closed, or is somebody else's by now.
        (7, 13 | 17 | 18) => BounceClass::Hard,
        // RFC 7372, RFC 7505, RFC 8689.
        (7, 20..=27 | 29 | 30) | (7, 2..=4 | 8..=12) => BounceClass::Policy,
        // RFC 7504's flood; what large providers call senders that they have had enough of.
        (7, 28 | 500..=999) => BounceClass::Block,
        _ => return None,
    })
}

/// Statuses that are used for much.
fn by_vague_status(EnhancedCode(class, subject, detail): EnhancedCode) -> Option<BounceClass> {
    Some(match (class, subject, detail) {
        (4, ..) => BounceClass::Soft,
        (_, 1, _) => BounceClass::Hard,
        (_, 7, _) => BounceClass::Policy,
        _ => return None,
    })
}

/// Codes without a status: RFC 5321 §4.2.3 gives some of them a meaning that hosts keep to.
fn by_code(code: u16) -> Option<BounceClass> {
    match code {
        400..500 => Some(BounceClass::Soft),
        551 | 553 => Some(BounceClass::Hard),
        552 => Some(BounceClass::Full),
        _ => None,
    }
}

/// The first table with a phrase that is there.
fn by_words(text: &str) -> Option<BounceClass> {
    WORDS.iter().find(|(_, words)| words.iter().any(|words| text.contains(words))).map(|(class, _)| *class)
}

/// In lower case. Of tables that could both be meant, the more certain stands first.
const WORDS: [(BounceClass, &[&str]); 6] = [
    (BounceClass::Full, FULL),
    (BounceClass::Block, BLOCK),
    (BounceClass::Hard, HARD),
    (BounceClass::Content, CONTENT),
    (BounceClass::Policy, POLICY),
    (BounceClass::Soft, SOFT),
];

const FULL: &[&str] = &[
    "mailbox full",
    "mailbox is full",
    "mailbox for user is full",
    "inbox is full",
    "over quota",
    "overquota",
    "over its quota",
    "quota exceed",
    "exceeded quota",
    "exceeded the quota",
    "exceeded storage",
    "exceeds allowed size",
    "exceeded its storage",
    "mailbox size limit",
    "mailbox exceeds",
    "storage quota",
    "disk quota",
    "out of storage",
    "no space left in mailbox",
    "not enough space in the mailbox",
];

const BLOCK: &[&str] = &[
    "spamhaus",
    "spamcop",
    "barracudacentral",
    "sorbs",
    "proofpoint.com",
    "blacklist",
    "black list",
    "blocklist",
    "block list",
    "blocked using",
    "dnsbl",
    "poor reputation",
    "bad reputation",
    "low reputation",
    "your reputation",
    "ip reputation",
    "sending ip",
    "unusual rate of unsolicited",
    "banned sending",
    "user complaints",
    "rate limit",
    "too many messages",
    "sending too fast",
    "throttl",
    "your ip",
    "client host",
    "mail server ip",
    "is blocked",
    "has been blocked",
    "temporarily blocked",
];

const HARD: &[&str] = &[
    "user unknown",
    "unknown user",
    "unknown recipient",
    "recipient unknown",
    "unknown or illegal alias",
    "unknown local part",
    "no such user",
    "no such recipient",
    "no such mailbox",
    "no such address",
    "no such domain",
    "no such person",
    "no mailbox here",
    "no mailbox by that name",
    "mailbox not found",
    "mailbox unavailable",
    "does not exist",
    "doesn't exist",
    "user not found",
    "recipient not found",
    "recipnotfound",
    "address not found",
    "couldn't be found",
    "could not be found",
    "account that you tried to reach",
    "not listed in",
    "not our customer",
    "recipient address rejected: access denied",
    "invalid recipient",
    "invalid mailbox",
    "invalid address",
    "not a valid mailbox",
    "is not a known user",
    "doesn't have a",
    "undeliverable address",
    "bad destination mailbox",
    "unrouteable address",
    "unroutable address",
    "host unknown",
    "unknown host",
    "host not found",
    "domain not found",
    "find any host by that name",
    "find any host named",
    "name or service not known",
    "accepts no mail",
    "account has been disabled",
    "account is disabled",
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
    "no longer works",
    "no longer with",
];

const CONTENT: &[&str] = &[
    "spam",
    "unsolicited",
    "virus",
    "malware",
    "phishing",
    "message content",
    "content rejected",
    "content of the message",
    "due to content",
    "content filter",
    "suspicious",
    "message too large",
    "message too big",
    "message size",
    "size limit",
    "exceeds size",
    "maximum size",
    "too large",
    "attachment",
    "rfc 5322",
    "bare lf",
    "malformed",
];

const POLICY: &[&str] = &[
    "relay",
    "not permitted",
    "not authorized",
    "not authorised",
    "unauthenticated",
    "authenticat",
    "dmarc",
    "dkim",
    "spf",
    "sender verif",
    "sender rejected",
    "sender address rejected",
    "starttls",
    "reverse dns",
    "ptr record",
    "helo",
    "policy",
    "access denied",
    "administrative prohibition",
    "prohibited",
];

const SOFT: &[&str] = &[
    "try again",
    "tried for too long",
    "in the queue too long",
    "temporar",
    "greylist",
    "graylist",
    "timed out",
    "timeout",
    "connection refused",
    "connection reset",
    "unable to connect",
    "establish an smtp connection",
    "no route to host",
    "network is unreachable",
    "retry time",
    "time expired",
    "message expired",
    "too busy",
    "too many connections",
    "resources",
    "loop",
    "too many hops",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn of(reply: &str) -> &'static str {
        let (code, text) = reply.split_at(3);
        let (status, text) = match EnhancedCode::parse_prefix(text.trim_start().as_bytes()) {
            Some((status, text)) => (Some(status), std::str::from_utf8(text).unwrap()),
            None => (None, text),
        };
        BounceClass::of(code.parse().ok(), status, text).name()
    }

    #[test]
    fn status_decides_where_it_means_something() {
        for (reply, class) in [
            ("550 5.1.1 <ann@x.test>: Recipient address rejected: User unknown", "hard"),
            ("550 5.1.10 Null MX", "hard"),
            ("452 4.2.2 The email account that you tried to reach is over quota", "full"),
            ("552 5.2.2 whatever", "full"),
            ("550 5.4.4 Host or domain name not found", "hard"),
            ("451 4.4.7 delivery time expired", "soft"),
            ("552 5.3.4 Message too big", "content"),
            ("550 5.7.26 This mail is unauthenticated", "policy"),
            ("550 5.7.606 Access denied, banned sending IP [192.0.2.1]", "block"),
            ("550 5.7.13 User disabled", "hard"),
            ("450 4.1.1 Unverified address", "soft"),
        ] {
            assert_eq!(of(reply), class, "{reply}");
        }
    }

    #[test]
    fn words_decide_where_the_status_is_anybodys() {
        for (reply, class) in [
            (
                "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org",
                "block",
            ),
            ("550 5.7.1 Our system has detected that this message is likely unsolicited mail", "content"),
            ("550 5.7.1 Unable to relay", "policy"),
            ("550 5.7.1 No such user here", "hard"),
            ("550 5.7.1 Go away", "policy"),
            ("550 5.0.0 mailbox is full", "full"),
            ("550 5.4.1 Recipient address rejected: Access denied", "hard"),
            ("550 Requested action not taken: mailbox unavailable", "hard"),
            ("421 Too many connections", "soft"),
            ("450 4.7.1 Greylisted, come back later", "soft"),
            ("553 sorry", "hard"),
            ("550 no", "other"),
            ("554 5.0.0 no", "other"),
        ] {
            assert_eq!(of(reply), class, "{reply}");
        }
    }

    #[test]
    fn what_is_temporary_is_never_hard() {
        for words in HARD {
            assert_ne!(BounceClass::of(Some(450), None, words), BounceClass::Hard, "{words}");
            assert_ne!(BounceClass::of(None, Some(EnhancedCode(4, 1, 1)), words), BounceClass::Hard);
        }
    }

    #[test]
    fn tables_are_in_lower_case() {
        let words = WORDS.iter().flat_map(|(_, words)| words.iter());
        assert!(words.into_iter().all(|words| **words == words.to_ascii_lowercase() && !words.is_empty()));
    }
}
