//! What is sent in a simulation: letters that can be told from each other wherever they turn up.

use super::rng::Rng;
use super::timeline::digest;
use message::{Mailbox, MailboxRef, MessageId, RecipientIndex, Verp, VerpKey};
use std::fmt::Write as _;
use std::ops::Range;
use std::time::Duration;

/// The field that names a letter; what follows it must arrive octet for octet.
pub const TOKEN_FIELD: &str = "X-Sim: ";

/// The domain of all senders. A sink must take its mail: bounces go there.
pub const SENDER_DOMAIN: &str = "lists.example";

/// Who is told of letters from the null reverse-path.
pub(super) const POSTMASTER: &str = "postmaster@lists.example";

/// Recipients whose local part begins so are refused for good by every sink.
pub const GONE: &str = "gone";

#[derive(Debug)]
pub struct Letter {
    pub token: usize,
    /// `local@domain`, empty for the null reverse-path.
    pub sender: String,
    pub verp: Option<Verp>,
    pub recipients: Vec<Recipient>,
    pub content: Vec<u8>,
    pub digest: u64,
}

/// What is known of one recipient of one letter: its intake by the core, its delivery by a sink.
#[derive(Debug)]
pub struct Recipient {
    pub address: String,
    pub intake: Intake,
    /// Transactions with it whose end was sent.
    pub offered: u32,
    /// Of those, how many got no reply: the core may have taken the letter each time.
    pub ambiguous: u32,
    pub delivered: u32,
    /// Of those, how many replies never reached the core: it may deliver once more for each.
    pub unheard: u32,
    pub failed: u32,
    pub bounced: u32,
    /// Since the world began.
    pub first_heard: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Intake {
    /// Still to be submitted.
    Owed,
    /// The core said 250.
    Accepted,
    /// The core said 5xx.
    Refused,
    /// The injector has stopped trying.
    GivenUp,
}

/// What letters are like.
#[derive(Clone, Debug)]
pub struct LetterPlan {
    pub recipients: Range<u64>,
    /// Octets of the body, roughly.
    pub body_len: Range<u64>,
    /// Where recipients live.
    pub domains: Vec<String>,
    /// Ask for a reverse-path per recipient now and then.
    pub verp: bool,
}

impl Letter {
    pub fn make(token: usize, plan: &LetterPlan, rng: &mut Rng) -> Letter {
        let (sender, verp) = sender(token, plan.verp, rng);
        let count = rng.range(&plan.recipients);
        let recipients = (0..count).map(|index| Recipient::new(address(token, index, plan, rng))).collect();
        let content = content(token, plan, rng);
        let digest = digest(&content);
        Letter { token, sender, verp, recipients, content, digest }
    }

    pub fn has_eight_bit(&self) -> bool {
        !self.content.is_ascii()
    }

    /// True if `reverse_path` may stand in a delivery to this recipient.
    pub fn may_come_from(&self, recipient: &str, reverse_path: &str) -> bool {
        match self.verp {
            None => reverse_path.eq_ignore_ascii_case(&self.sender),
            Some(verp) => is_same_form(&render(verp, &self.sender, recipient), reverse_path),
        }
    }

    /// True if a bounce about this recipient may go to `forward_path`.
    pub fn may_bounce_to(&self, recipient: &str, forward_path: &str) -> bool {
        match self.sender.is_empty() {
            true => forward_path == POSTMASTER,
            false => forward_path == self.sender || self.may_come_from(recipient, forward_path),
        }
    }
}

impl Recipient {
    pub(super) fn new(address: String) -> Recipient {
        Recipient {
            address,
            intake: Intake::Owed,
            offered: 0,
            ambiguous: 0,
            delivered: 0,
            unheard: 0,
            failed: 0,
            bounced: 0,
            first_heard: None,
        }
    }
}

fn render(verp: Verp, base: &str, recipient: &str) -> String {
    let base = Mailbox::parse(base).expect("the sender of a VERP letter is a mailbox");
    let recipient = MailboxRef::parse(recipient).expect("recipients are mailboxes");
    let mut out = Vec::new();
    let nowhere = (MessageId(0), RecipientIndex(0));
    verp.render(base.as_ref(), recipient, nowhere, &VerpKey::new(&[0; 32]), &mut out);
    String::from_utf8(out).expect("made of UTF-8")
}

/// Equal, or both a token after the same start: the token itself is the core's secret.
fn is_same_form(expected: &str, found: &str) -> bool {
    let token_at =
        expected.find('@').and_then(|at| at.checked_sub(33)).filter(|at| expected[*at..].starts_with('='));
    match token_at {
        Some(at) if found.len() == expected.len() => {
            found.is_char_boundary(at + 33)
                && found[..=at] == expected[..=at]
                && found[at + 33..] == expected[at + 33..]
        }
        _ => expected == found,
    }
}

fn sender(token: usize, verp: bool, rng: &mut Rng) -> (String, Option<Verp>) {
    let plain = format!("list{token}@{SENDER_DOMAIN}");
    match rng.below(8) {
        0 => (String::new(), None),
        1 | 2 if verp => (plain, Some(Verp::DEFAULT)),
        3 if verp => (plain, Verp::with_delimiters("-=")),
        4 if verp => (format!("list{token}-@{SENDER_DOMAIN}"), Some(Verp::QMAIL)),
        _ => (plain, None),
    }
}

/// Names its letter, so that a sink that has seen no content yet knows what a RCPT is about.
fn address(token: usize, index: u64, plan: &LetterPlan, rng: &mut Rng) -> String {
    let domain = rng.pick(&plan.domains).clone();
    match rng.below(16) {
        0 => format!("{GONE}.{token}.{index}@{domain}"),
        1 => format!("Mixed.Case.{token}.{index}@{domain}"),
        2 => format!("{}.{token}.{index}@{domain}", "long".repeat(10)),
        _ => format!("r.{token}.{index}@{domain}"),
    }
}

fn content(token: usize, plan: &LetterPlan, rng: &mut Rng) -> Vec<u8> {
    let len = rng.range(&plan.body_len);
    let eight_bit = rng.below(4) == 0;
    let mut text = format!(
        "{TOKEN_FIELD}{token}\r\nFrom: list{token}@{SENDER_DOMAIN}\r\nTo: all\r\nSubject: {token}\r\n"
    );
    let _ = write!(
        text,
        "Date: Sun, 22 Nov 2026 12:00:00 +0000\r\nMessage-ID: <{token}@{SENDER_DOMAIN}>\r\n\r\n"
    );
    let start = text.len() as u64;
    while (text.len() as u64) < start + len {
        match rng.below(12) {
            0 => text.push_str(".\r\n"),
            1 => text.push_str("..leading dots\r\n"),
            2 => text.push_str("\r\n"),
            3 if eight_bit => text.push_str("grüße, ça va\r\n"),
            _ => {
                let _ = write!(text, "{:016x} {}\r\n", rng.draw(), "lorem ipsum ".repeat(rng.index(6)));
            }
        }
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verp_forms_are_known_and_tokens_may_differ() {
        let plan =
            LetterPlan { recipients: 1..2, body_len: 0..10, domains: vec!["d0.example".into()], verp: false };
        let mut letter = Letter::make(3, &plan, &mut Rng::new(1));
        (letter.sender, letter.verp) = ("list3@lists.example".into(), Some(Verp::DEFAULT));
        assert!(letter.may_come_from("ann@d0.example", "list3+ann=d0.example@lists.example"));
        assert!(!letter.may_come_from("bob@d0.example", "list3+ann=d0.example@lists.example"));
        assert!(!letter.may_come_from("ann@d0.example", "list3@lists.example"));
        let long = format!("{}@d0.example", "a".repeat(60));
        assert!(letter.may_come_from(&long, &format!("list3+={}@lists.example", "q".repeat(32))));
        assert!(!letter.may_come_from(&long, &format!("list4+={}@lists.example", "q".repeat(32))));
    }
}
