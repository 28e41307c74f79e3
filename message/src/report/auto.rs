//! Answers that nobody wrote: out of office, receipts (RFC 3834, RFC 8098), and letters that ask whether a person wrote.
//!
//! Neither says anything of whether mail arrives, except that it did.

use super::forms::Letter;
use super::mime::Part;
use super::values;

/// Fields that automatic answers have, whatever is in them.
const FIELDS: [&str; 12] = [
    "x-autoreply",
    "x-autorespond",
    "x-auto-reply",
    "x-autoreply-from",
    "x-autoresponder",
    "x-mail-autoreply",
    "x-auto-response-suppress",
    "x-fc-machinegenerated",
    "x-vacation",
    "x-out-of-office",
    "x-cron-env",
    "x-ms-exchange-inbox-rules-loop",
];

/// Values of Precedence.
const PRECEDENCES: [&str; 4] = ["auto_reply", "auto-reply", "bulk", "junk"];

/// In subjects, in lower case.
const SUBJECTS: &[&str] = &[
    "out of office",
    "out of the office",
    "out-of-office",
    "automatic reply",
    "auto reply",
    "auto-reply",
    "autoreply",
    "auto response",
    "autoresponse",
    "automated reply",
    "automated response",
    "away from my",
    "away from the office",
    "on vacation",
    "vacation reply",
    "vacation notice",
    "on holiday",
    "annual leave",
    "on leave",
    "automatische antwort",
    "abwesenheit",
    "abwesend",
    "nicht im büro",
    "réponse automatique",
    "absence du bureau",
    "je suis absent",
    "risposta automatica",
    "fuori sede",
    "fuori ufficio",
    "respuesta automática",
    "fuera de la oficina",
    "resposta automática",
    "fora do escritório",
    "automatisch antwoord",
    "afwezig",
    "automatiskt svar",
    "autosvar",
    "frånvaro",
    "automaattinen vastaus",
    "automatyczna odpowiedź",
    "automatická odpověď",
    "автоответ",
    "автоматический ответ",
    "自动回复",
    "自動返信",
    "自動応答",
    "不在",
];

/// In subjects of challenges.
const CHALLENGES: &[&str] = &[
    "please confirm your message",
    "confirm your message",
    "confirm your email to",
    "please verify",
    "[please verify",
    "verify your message",
    "sender verification",
    "sender confirmation",
    "requires verification",
    "requires confirmation",
    "requires approval",
    "verification required",
    "action required to deliver",
    "your email requires",
    "are you human",
    "your message is awaiting",
    "boxbe",
];

/// In their words.
const CHALLENGING_WORDS: &[&str] = &[
    "to confirm that you are a real person",
    "to verify that you are a real person",
    "verify that you are human",
    "prove that you are human",
    "prove you are human",
    "this one-time confirmation",
    "one-time verification",
    "has been placed on hold until you",
    "is being held until you",
    "add you to my approved senders list",
    "added to my list of approved senders",
    "added to the guest list",
    "is not on my guest list",
    "challenge/response",
    "to have your message delivered, click",
    "click the link below to have your message delivered",
    "reply to this message to confirm",
];

const CHALLENGING_FIELDS: [&str; 3] = ["x-tmda-fingerprint", "x-tmda-confirm", "x-spamarrest-challenge"];

pub(super) fn is_challenge(letter: &Letter<'_>) -> bool {
    let text = letter.text[..letter.text.floor_char_boundary(4096)].to_lowercase();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    has(letter.subject, CHALLENGES)
        || has(&text, CHALLENGING_WORDS)
        || CHALLENGING_FIELDS.iter().any(|name| values(letter.header, name).next().is_some())
}

pub(super) fn is_reply(letter: &Letter<'_>, parts: &[Part<'_>]) -> bool {
    let says = |name: &str| values(letter.header, name).next().map(|value| value.to_lowercase());
    // RFC 3834 §5.
    let is_automatic = says("auto-submitted").is_some_and(|value| !value.starts_with("no"));
    let precedence = says("precedence").unwrap_or_default();
    is_automatic
        || PRECEDENCES.contains(&precedence.as_str())
        || FIELDS.iter().any(|name| values(letter.header, name).next().is_some())
        || letter.subject.starts_with("auto:")
        || has(letter.subject, SUBJECTS)
        || parts.iter().any(|part| part.kind == "message/disposition-notification")
}

fn has(text: &str, words: &[&str]) -> bool {
    words.iter().any(|words| text.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_in_lower_case() {
        for words in [SUBJECTS, CHALLENGES, CHALLENGING_WORDS] {
            assert!(words.iter().all(|words| **words == words.to_lowercase()));
        }
    }
}
