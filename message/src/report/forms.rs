//! Failures told in words alone: those of the mail systems that are met most, and what is common to the rest.
//!
//! A form is known by a line that its system begins with ([`INTROS`]); that line says what has become of the recipients,
//! and how those behind it are named. Where a form names its recipient inside a sentence, [`SENTENCES`] has the words
//! around it. What no table knows counts as a failure only if it looks like a daemon's and has a reply code.
//! Bound: [`WORDS_MAX`] octets of words.

use super::scan::{self, Naming};
use super::{Fate, Outcome, RECIPIENTS_MAX, values};
use crate::address::MailboxRef;

/// Octets of a letter's words that are searched.
const WORDS_MAX: usize = 32 << 10;

/// Lines in which a form's first words are looked for.
const INTRO_LINES_MAX: usize = 60;

/// Whose words they are.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Form {
    /// multipart/report with message/delivery-status.
    Rfc3464,
    /// qmail-send's, and what was made in its likeness.
    Qsbmf,
    Exim,
    Postfix,
    Sendmail,
    Exchange,
    Domino,
    GroupWise,
    Gmail,
    Yahoo,
    Courier,
    #[default]
    Other,
}

impl Form {
    pub fn name(self) -> &'static str {
        match self {
            Form::Rfc3464 => "rfc3464",
            Form::Qsbmf => "qsbmf",
            Form::Exim => "exim",
            Form::Postfix => "postfix",
            Form::Sendmail => "sendmail",
            Form::Exchange => "exchange",
            Form::Domino => "domino",
            Form::GroupWise => "groupwise",
            Form::Gmail => "gmail",
            Form::Yahoo => "yahoo",
            Form::Courier => "courier",
            Form::Other => "other",
        }
    }
}

/// A letter without parts for programs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Letter<'a> {
    pub(super) header: &'a [u8],
    /// Decoded, in lower case.
    pub(super) subject: &'a str,
    /// What people are told, without the original.
    pub(super) text: &'a str,
}

/// A line that begins a form: words of it in lower case.
struct Intro {
    words: &'static str,
    form: Form,
    outcome: Outcome,
    naming: Naming,
}

const fn failed(words: &'static str, form: Form, naming: Naming) -> Intro {
    Intro { words, form, outcome: Outcome::Failed, naming }
}

const fn delayed(words: &'static str, form: Form, naming: Naming) -> Intro {
    Intro { words, form, outcome: Outcome::Delayed, naming }
}

/// Warnings stand before failures: a letter that has words of both is told by the first entry here.
const INTROS: &[Intro] = &[
    delayed("this is a warning only.  you do not need to resend", Form::Postfix, scan::bracketed),
    delayed("has not yet been delivered to one or more of its", Form::Exim, scan::leading),
    delayed("addresses had transient non-fatal errors", Form::Sendmail, scan::leading),
    delayed("delivery to the following recipient has been delayed", Form::Gmail, scan::leading),
    delayed("delivery to the following recipients has been delayed", Form::Gmail, scan::leading),
    delayed("delivery is delayed to these recipients", Form::Exchange, scan::leading_or_last),
    delayed("this is a warning message only", Form::Sendmail, scan::leading),
    failed("hi. this is the", Form::Qsbmf, scan::bracketed),
    failed("hi. the mta program at", Form::Qsbmf, scan::bracketed),
    failed("wasn't able to deliver your message to the following", Form::Qsbmf, scan::bracketed),
    failed("there's a problem with the e-mail address(es) listed below", Form::Qsbmf, scan::bracketed),
    failed("this is the machine generated message from mail service", Form::Qsbmf, scan::bracketed),
    failed("message from yahoo", Form::Yahoo, scan::bracketed),
    failed("unable to deliver message to the following address", Form::Yahoo, scan::bracketed),
    failed("we were unable to deliver your message to the following address", Form::Yahoo, scan::bracketed),
    failed("the following address(es) failed", Form::Exim, scan::leading),
    failed("the following addresses failed", Form::Exim, scan::leading),
    failed("the following address failed", Form::Exim, scan::leading),
    failed("message that you sent could not be delivered", Form::Exim, scan::leading),
    failed("i'm sorry to have to inform you that", Form::Postfix, scan::bracketed),
    failed("this is the postfix program at host", Form::Postfix, scan::bracketed),
    failed("this is the mail system at host", Form::Postfix, scan::bracketed),
    failed("addresses had permanent fatal errors", Form::Sendmail, scan::leading),
    failed("addresses had permanent delivery errors", Form::Sendmail, scan::leading),
    failed("addresses had delivery problems", Form::Sendmail, scan::leading),
    failed("addresses have delivery notifications", Form::Sendmail, scan::leading),
    failed("- transcript of session follows", Form::Sendmail, scan::transcribed),
    failed("recipient(s) could not be reached", Form::Exchange, scan::leading_or_last),
    failed("recipients could not be reached", Form::Exchange, scan::leading_or_last),
    failed("delivery has failed to these recipients", Form::Exchange, scan::leading_or_last),
    failed("the message that you sent was undeliverable to the following", Form::GroupWise, scan::leading),
    failed("was not delivered to:", Form::Domino, scan::leading_or_last),
    failed("delivery to the following recipient failed", Form::Gmail, scan::leading),
    failed("delivery to the following recipients failed", Form::Gmail, scan::leading),
    failed("your message to the following recipients cannot be delivered", Form::Courier, scan::leading),
    failed("this message was undeliverable due to the following reason", Form::Other, scan::leading),
    failed("failed addresses follow", Form::Other, scan::leading),
    failed("could not be delivered to the following", Form::Other, scan::leading),
    failed("unable to deliver to the following", Form::Other, scan::leading),
    failed("deliver your message to the following", Form::Other, scan::leading),
    failed("deliver the mail to the following", Form::Other, scan::leading),
];

/// A recipient inside a sentence: what stands before it and, somewhere on the line, behind it.
struct Around {
    before: &'static str,
    after: &'static str,
    form: Form,
}

const SENTENCES: &[Around] = &[
    Around { before: "your message wasn't delivered to ", after: "", form: Form::Gmail },
    Around { before: "message could not be delivered to ", after: "", form: Form::Other },
    Around { before: "your message to ", after: "couldn't be delivered", form: Form::Exchange },
    Around { before: "your message to ", after: "could not be delivered", form: Form::Other },
    Around { before: "failed to deliver to ", after: "", form: Form::Other },
    Around { before: "unknown user: ", after: "", form: Form::Other },
    Around { before: "user mailbox exceeds allowed size: ", after: "", form: Form::Other },
    Around { before: "undeliverable to ", after: "", form: Form::Other },
];

/// The fates that a letter in known words tells.
pub(super) fn known(letter: &Letter<'_>) -> Option<(Form, Vec<Fate>)> {
    let text = &letter.text[..letter.text.floor_char_boundary(WORDS_MAX)];
    by_intro(text, letter).or_else(|| by_sentence(text)).or_else(|| by_header(text, letter))
}

fn by_intro(text: &str, letter: &Letter<'_>) -> Option<(Form, Vec<Fate>)> {
    let head = text.lines().take(INTRO_LINES_MAX).map(str::to_lowercase);
    let lines: Vec<String> = head.collect();
    let (at, intro) = INTROS
        .iter()
        .find_map(|intro| lines.iter().position(|line| line.contains(intro.words)).map(|at| (at, intro)))?;
    let start: usize = text.split_inclusive('\n').take(at + 1).map(str::len).sum();
    let mut fates = scan::fates(&text[start..], intro.outcome, intro.naming);
    if fates.is_empty() {
        let why: Vec<&str> = text[start..].lines().collect();
        fates = from_header(letter, intro.outcome, &why);
        if fates.is_empty() {
            fates.push(scan::fate(intro.outcome, None, &why));
        }
    }
    Some((intro.form, fates))
}

fn by_sentence(text: &str) -> Option<(Form, Vec<Fate>)> {
    let lines: Vec<&str> = text.lines().take(INTRO_LINES_MAX).collect();
    for (at, line) in lines.iter().enumerate() {
        let found = SENTENCES.iter().find_map(|around| {
            scan::between(line, around.before, around.after).map(|address| (around.form, address))
        });
        if let Some((form, address)) = found {
            let behind: Vec<&str> = text.lines().skip(at).collect();
            return Some((form, vec![scan::fate(Outcome::Failed, Some(address), &behind)]));
        }
    }
    None
}

/// Exim and Gmail say it in a field too, in whatever language the words are.
fn by_header(text: &str, letter: &Letter<'_>) -> Option<(Form, Vec<Fate>)> {
    let lines: Vec<&str> = text.lines().collect();
    let is_late = ["delayed", "warning"].iter().any(|word| letter.subject.contains(word));
    let fates = from_header(letter, if is_late { Outcome::Delayed } else { Outcome::Failed }, &lines);
    (!fates.is_empty()).then_some((Form::Other, fates))
}

fn from_header(letter: &Letter<'_>, outcome: Outcome, why: &[&str]) -> Vec<Fate> {
    let named: Vec<String> = values(letter.header, "x-failed-recipients")
        .flat_map(|list| list.split(',').map(|address| address.trim().to_owned()).collect::<Vec<_>>())
        .filter(|address| MailboxRef::parse(address).is_ok())
        .take(RECIPIENTS_MAX)
        .collect();
    let Some(first) = named.first() else { return Vec::new() };
    let fate = scan::fate(outcome, Some(first), why);
    named.iter().map(|address| Fate { recipient: Some(address.as_str().into()), ..fate.clone() }).collect()
}

/// A letter in words that no table has: a failure if a daemon wrote it and a reply code or known words say why.
pub(super) fn unknown(letter: &Letter<'_>) -> Option<Vec<Fate>> {
    const SUBJECTS: [&str; 9] = [
        "undeliver",
        "delivery fail",
        "delivery status",
        "failure notice",
        "returned mail",
        "mail delivery",
        "delivery problem",
        "delivery error",
        "could not be delivered",
    ];
    const AUTHORS: [&str; 4] = ["mailer-daemon", "postmaster@", "mail delivery", "mailerdaemon"];
    let from = values(letter.header, "from").next().unwrap_or_default().to_lowercase();
    let is_daemons = AUTHORS.iter().any(|author| from.contains(author))
        || SUBJECTS.iter().any(|words| letter.subject.contains(words));
    if !is_daemons {
        return None;
    }
    let text = &letter.text[..letter.text.floor_char_boundary(WORDS_MAX)];
    let lines: Vec<&str> = text.lines().collect();
    let is_late = ["delayed", "still being retried", "will be retried"];
    let is_late =
        is_late.iter().any(|word| letter.subject.contains(word) || text.to_lowercase().contains(word));
    let outcome = if is_late { Outcome::Delayed } else { Outcome::Failed };
    let fate = scan::fate(outcome, None, &lines);
    let says_why = scan::worth(&fate) > 0;
    says_why.then(|| vec![fate])
}
