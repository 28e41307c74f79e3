//! What a refusal means: is it for ever, and whom besides this recipient does it concern.
//!
//! Decided by a table, first match wins. The code's first digit says whether it is for ever (RFC 5321 §4.2.1);
//! the stage at which it came, the enhanced code (RFC 3463) and a few words say how far it reaches. What single
//! providers mean by their texts is the operator's rules, which come on top in the caller.

use message::failure::is_throttling;
use message::{Reply, Scope, Verdict};

/// Where in a session a reply came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// Greeting, EHLO, HELO.
    Connect,
    Mail,
    Rcpt,
    /// The reply to DATA itself.
    Data,
    /// The reply to the final dot or to BDAT LAST.
    End,
}

/// Empty conditions hold for every reply.
struct Rule {
    stages: &'static [Stage],
    codes: &'static [u16],
    /// Subject and detail; `ANY` stands for every detail.
    enhanced: Option<(u16, u16)>,
    is_throttling: bool,
    scope: Scope,
    /// A 5xx that is not for ever.
    is_temporary: bool,
}

const ANY: u16 = u16::MAX;

const ALWAYS: Rule = Rule {
    stages: &[],
    codes: &[],
    enhanced: None,
    is_throttling: false,
    scope: Scope::Message,
    is_temporary: false,
};

use Stage::{Connect, Data, End, Mail, Rcpt};

#[rustfmt::skip]
const RULES: [Rule; 13] = [
    // The host ends the session: whatever it answers, it is the host (RFC 5321 §3.8).
    Rule { codes: &[421], scope: Scope::Host, ..ALWAYS },
    Rule { stages: &[Connect], scope: Scope::Host, ..ALWAYS },
    // More recipients than it takes at once: the others go in the next transaction. 552 is what RFC 821 said for
    // it (RFC 5321 §4.5.3.1.10); a 552 5.2.2 is a full mailbox, and for ever.
    Rule { stages: &[Rcpt], enhanced: Some((5, 3)), scope: Scope::Recipient, is_temporary: true, ..ALWAYS },
    Rule { stages: &[Rcpt], codes: &[452], scope: Scope::Recipient, ..ALWAYS },
    Rule { stages: &[Rcpt], codes: &[552], is_throttling: true, scope: Scope::Recipient, is_temporary: true, ..ALWAYS },
    Rule { codes: &[450, 451, 452, 454], is_throttling: true, scope: Scope::Site, ..ALWAYS },
    // Policy at MAIL is about us: our address, our name, our reputation.
    Rule { stages: &[Mail], enhanced: Some((7, ANY)), scope: Scope::Site, ..ALWAYS },
    // Disk full, not accepting mail, out of order: another host of the site may do better.
    Rule { stages: &[Mail, Data, End], enhanced: Some((3, 1)), scope: Scope::Host, ..ALWAYS },
    Rule { stages: &[Mail, Data, End], enhanced: Some((3, 2)), scope: Scope::Host, ..ALWAYS },
    Rule { stages: &[Mail, Data, End], enhanced: Some((3, 5)), scope: Scope::Host, ..ALWAYS },
    // 452 without an enhanced code is "insufficient system storage".
    Rule { stages: &[Mail, Data, End], codes: &[452], scope: Scope::Host, ..ALWAYS },
    Rule { stages: &[Rcpt], scope: Scope::Recipient, ..ALWAYS },
    Rule { stages: &[Mail, Data, End], scope: Scope::Message, ..ALWAYS },
];

impl Rule {
    fn holds(&self, stage: Stage, reply: &Reply) -> bool {
        (self.stages.is_empty() || self.stages.contains(&stage))
            && (self.codes.is_empty() || self.codes.contains(&reply.code))
            && self.enhanced.is_none_or(|wanted| has_enhanced(reply, wanted))
            && (!self.is_throttling || is_throttling(reply))
    }
}

fn has_enhanced(reply: &Reply, (subject, detail): (u16, u16)) -> bool {
    reply.enhanced.is_some_and(|code| code.1 == subject && (detail == ANY || code.2 == detail))
}

/// The verdict that a reply of class 2, 4 or 5 is, and how far it reaches.
/// A 2xx costs one comparison; a refusal some searches in its text.
pub fn classify(stage: Stage, reply: Reply) -> (Verdict, Scope) {
    if reply.is_positive() {
        return (Verdict::Delivered(reply), Scope::Recipient);
    }
    let rule = RULES.iter().find(|rule| rule.holds(stage, &reply)).unwrap_or(&ALWAYS);
    let verdict = match reply.is_permanent() && !rule.is_temporary {
        true => Verdict::Failed(reply),
        false => Verdict::Deferred(reply),
    };
    (verdict, rule.scope)
}

/// The verdict that the code is, whatever the words say.
pub(crate) fn by_code(reply: Reply) -> Verdict {
    match reply.code / 100 {
        2 => Verdict::Delivered(reply),
        5 => Verdict::Failed(reply),
        _ => Verdict::Deferred(reply),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use message::EnhancedCode;

    fn reply(text: &str) -> Reply {
        let (code, text) = text.split_at(3);
        let text = text.trim_start().as_bytes();
        let (enhanced, text) = match EnhancedCode::parse_prefix(text) {
            Some((enhanced, text)) => (Some(enhanced), text),
            None => (None, text),
        };
        Reply::new(code.parse().unwrap(), enhanced, text)
    }

    #[test]
    fn each_reply_reaches_as_far_as_the_table_says() {
        #[rustfmt::skip]
        let cases = [
            (Connect, "554 5.7.1 blocked",                          "failed",    Scope::Host),
            (Connect, "450 busy, too many connections",             "deferred",  Scope::Host),
            (Mail,    "421 4.3.2 closing",                          "deferred",  Scope::Host),
            (Mail,    "550 5.1.8 bad sender",                       "failed",    Scope::Message),
            (Mail,    "451 try later",                              "deferred",  Scope::Message),
            (Mail,    "550 5.7.1 your address is listed",           "failed",    Scope::Site),
            (Mail,    "451 4.7.1 policy",                           "deferred",  Scope::Site),
            (Mail,    "452 4.3.1 disk full",                        "deferred",  Scope::Host),
            (Mail,    "452 Insufficient system storage",            "deferred",  Scope::Host),
            (Mail,    "552 5.3.4 too big",                          "failed",    Scope::Message),
            (Rcpt,    "550 5.1.1 no such user",                     "failed",    Scope::Recipient),
            (Rcpt,    "550 5.7.1 relaying denied",                  "failed",    Scope::Recipient),
            (Rcpt,    "450 4.7.1 Greylisted",                       "deferred",  Scope::Recipient),
            (Rcpt,    "452 4.5.3 too many recipients",              "deferred",  Scope::Recipient),
            (Rcpt,    "452 4.2.2 mailbox full",                     "deferred",  Scope::Recipient),
            (Rcpt,    "552 Too many recipients",                    "deferred",  Scope::Recipient),
            (Rcpt,    "552 5.2.2 mailbox full",                     "failed",    Scope::Recipient),
            (Rcpt,    "550 5.5.3 too many recipients",              "deferred",  Scope::Recipient),
            (Rcpt,    "450 4.7.0 Rate limit exceeded",              "deferred",  Scope::Site),
            (Rcpt,    "451 slow down please",                       "deferred",  Scope::Site),
            (Rcpt,    "450 4.7.28 see our page",                    "deferred",  Scope::Site),
            (Data,    "451 4.3.0 later",                            "deferred",  Scope::Message),
            (Data,    "554 5.5.1 no valid recipients",              "failed",    Scope::Message),
            (End,     "554 5.7.1 spam",                             "failed",    Scope::Message),
            (End,     "451 4.7.1 Messages are throttled",           "deferred",  Scope::Site),
            (End,     "452 4.3.1 disk full",                        "deferred",  Scope::Host),
            (End,     "250 2.0.0 queued as 1",                      "delivered", Scope::Recipient),
        ];
        for (stage, text, name, scope) in cases {
            let (verdict, reached) = classify(stage, reply(text));
            assert_eq!((verdict.name(), reached), (name, scope), "{stage:?} {text}");
        }
    }
}
