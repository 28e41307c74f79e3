//! What a session says and wants, as a transcript writes it down.

use message::{BodyKind, EnvelopeId, Lane, MailboxRef, Notify, RecipientAsked, Ret};
use smtp_in::door::{Client, Origin, Question};
use smtp_in::{Output, Rejection, Submission};

pub(crate) fn reply_lines(replies: &[u8]) -> Vec<String> {
    match std::str::from_utf8(replies) {
        // Its records begin with a control octet.
        Ok(text) if !text.starts_with(|first: char| first.is_control()) => {
            text.lines().map(|line| format!("S: {line}")).collect()
        }
        _ => vec![format!("S: {} octets of TLS", replies.len())],
    }
}

pub(crate) fn output(output: Output) -> String {
    match output {
        Output::Store(submission) => describe(&submission),
        Output::Flush(flush) => {
            let below = if flush.with_subdomains { " and below" } else { "" };
            format!("! flush {}{below}", flush.domain)
        }
        Output::Ask(question) => format!("? {}", ask(question)),
        Output::Turn(domains) if domains.is_empty() => "? turn for all".to_owned(),
        Output::Turn(domains) => format!("? turn for {}", domains.join(" ")),
        Output::HandOver => "! hand over".to_owned(),
        Output::Rejected(rejection) => rejected(&rejection),
        Output::Close => "! close".to_owned(),
    }
}

fn ask(question: Question) -> String {
    match question {
        Question::Introduce(client) => format!("introduce {}", who(&client)),
        Question::Password { user, password } => {
            format!("password of {user}: {}", password.octets().escape_ascii())
        }
        Question::CramMd5 { user, challenge, digest } => {
            let digest: String = digest.iter().map(|octet| format!("{octet:02x}")).collect();
            format!("cram-md5 of {user}: {digest} of {challenge}")
        }
        Question::ScramKeys { user } => format!("scram-keys of {user}"),
        Question::Prove { user } => format!("prove {user}"),
    }
}

fn who(client: &Client) -> String {
    let mut text = match client.origin {
        Origin::Net { address, port } => format!("{address} port {port}"),
        Origin::Local { uid } => format!("user {uid}"),
    };
    let Client { login, rights, .. } = client;
    login.iter().for_each(|login| text += &format!(" logged in as {login}"));
    rights.name.iter().for_each(|name| text += &format!(" called {name}"));
    if rights.may_relay { text + " relaying" } else { text }
}

fn rejected(rejection: &Rejection) -> String {
    let Rejection { stage, reply, sender, recipient } = rejection;
    let shown = |path: &Option<Box<str>>| path.as_deref().map_or("-".to_owned(), |path| format!("<{path}>"));
    format!("! rejected at {}: {reply} | {} {}", stage.name(), shown(sender), shown(recipient))
}

/// `! store key <reverse-path> to … | protocol helo | what is special | "content"`.
pub(crate) fn describe(submission: &Submission) -> String {
    let envelope = &submission.envelope;
    let recipients: Vec<String> =
        envelope.recipients.iter_asked().map(|(mailbox, asked)| named(&mailbox, &asked)).collect();
    let line = format!(
        "! store {} {} to {} | {} {} |",
        submission.transaction.0,
        envelope.reverse_path,
        recipients.join(" "),
        submission.with,
        submission.helo
    );
    let special: String = special(submission).into_iter().map(|word| format!(" {word}")).collect();
    format!("{line}{special} | \"{}\"", submission.content.escape_ascii())
}

/// The recipient, and what was said of it.
fn named(mailbox: &MailboxRef<'_>, asked: &RecipientAsked<'_>) -> String {
    let mut text = mailbox.to_string();
    if asked.notify != Notify::UNSAID {
        text += &format!(" NOTIFY={}", asked.notify.as_str());
    }
    asked.original.iter().for_each(|original| text += &format!(" ORCPT={}", original.as_str()));
    text
}

fn special(submission: &Submission) -> Vec<String> {
    let (envelope, facts) = (&submission.envelope, submission.facts);
    let verp = envelope.verp.map(|verp| verp.to_bytes().escape_ascii().to_string());
    let envelope_id = envelope.asked.envelope_id.as_ref();
    let body = format!("{:?}", envelope.body);
    let words = [
        (envelope.body != BodyKind::SevenBit, body),
        (envelope.lane != Lane::Normal, envelope.lane.name().to_owned()),
        (envelope.smtputf8, "SMTPUTF8".to_owned()),
        (envelope.requires_tls, "REQUIRETLS".to_owned()),
        (envelope.asked.ret.is_some(), format!("RET={}", envelope.asked.ret.map_or("", Ret::as_str))),
        (envelope_id.is_some(), format!("ENVID={}", envelope_id.map_or("", EnvelopeId::as_str))),
        (verp.is_some(), format!("XVERP={}", verp.unwrap_or_default())),
        (facts.has_eight_bit(), "8-bit".to_owned()),
        (facts.has_dot_lines(), "dots".to_owned()),
        (facts.has_bare_newlines(), "bare-newlines".to_owned()),
        (facts.could_smuggle(), "could-smuggle".to_owned()),
        (facts.has_open_end(), "open-end".to_owned()),
        (facts.has_nul(), "nul".to_owned()),
        (
            submission.client.login.is_some(),
            format!("by={}", submission.client.login.as_deref().unwrap_or("")),
        ),
    ];
    words.into_iter().filter_map(|(is, word)| is.then_some(word)).collect()
}
