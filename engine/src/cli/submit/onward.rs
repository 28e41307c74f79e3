//! A message that is sent on as it is: what `.qmail` files forward, and the receipts of `qreceipt`.
//!
//! Nothing of it is mended: it was a whole message when it came. An address without a host gets `local.no_at_host`; a host
//! that is there stays as it is, `localhost` too, for the daemon may know it.
//!
//! One wrong line of a list costs nobody else the message. Who cannot be sent to for good is left out, and the sender gets a
//! bounce in qmail's format, as it would of a failure later on; with a sender for each recipient the list's owner gets
//! it. It is on the daemon's disk before the message is: whatever breaks then may tell of somebody twice, and nobody is
//! left out in silence. Mail from `<>` has no bounce: its caller says who is left out. A refusal for now stops it for
//! everybody, since it will be tried again. Bounds: [`REPORTED_MAX`] recipients of a bounce, [`SAID_MAX`] that a caller
//! is told of.

use super::client::{self, Letter};
use super::dsn::Dsn;
use super::error::{Refused, SubmitError};
use super::place::{Place, Pointers};
use crate::clock;
use message::address::DOMAIN_MAX;
use message::compose::Injected;
use message::compose::address_list::AddrSpec;
use message::dsn::{Action, Notification, ReportedRecipient};
use message::envelope::{BodyKind, Recipients};
use message::path::parse_reverse_path;
use message::{AddressError, ContentFacts, Domain, Mailbox, Reply, ReversePath, qsbmf};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

/// A bounce of so many has at most two million octets, with the message that it gives back.
const REPORTED_MAX: usize = 1000;

/// They have to fit into an answer to the launcher, beside what programs said.
const SAID_MAX: usize = 5;

/// Octets of an address that is none.
const SHOWN_MAX: usize = 256;

/// What goes to whom. Lines of `top` and `content` end in LF, or in CR LF already.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Onward<'a> {
    /// As qmail has it: empty for bounces, with `-@[]` at its end for a sender per recipient.
    pub(crate) sender: &'a str,
    /// What could not be read as text has U+FFFD in its place.
    pub(crate) recipients: &'a [String],
    /// `None`: what the environment names, or the configuration.
    pub(crate) no_at_host: Option<&'a Domain>,
    pub(crate) top: &'a str,
    pub(crate) content: &'a [u8],
}

/// It is on its way.
#[derive(Debug)]
pub(crate) struct Sent {
    /// What the daemon said when it was on its disk.
    reply: Reply,
    /// Who is left out and why, a line for each.
    pub(crate) left_out: Vec<String>,
}

impl Sent {
    /// As a program says it.
    pub(crate) fn words(&self, program: &str) -> String {
        let lines = self.left_out.iter().map(String::as_str).chain([self.reply.text()]);
        lines.map(|line| format!("{program}: {line}")).collect::<Vec<_>>().join("\n")
    }
}

/// Why it was not sent, in words and in qmail's exit code.
#[derive(Debug)]
pub(crate) struct NotSent {
    pub(crate) code: u8,
    pub(crate) words: String,
}

impl From<SubmitError> for NotSent {
    fn from(error: SubmitError) -> NotSent {
        NotSent { code: error.qmail_exit(), words: error.to_string() }
    }
}

/// What completes the addresses of this machine's users.
pub(crate) fn no_at_host() -> Result<Domain, NotSent> {
    Ok(Place::find(&Pointers::default())?.no_at_host()?)
}

/// Sends it to all who can be sent to, after their sender was told of the others.
pub(crate) fn send(onward: &Onward<'_>) -> Result<Sent, NotSent> {
    let place = Place::find(&Pointers::default())?;
    let no_at_host = onward.no_at_host.map_or_else(|| place.no_at_host(), |host| Ok(host.clone()))?;
    let (injected, wrong) = injected(onward, &no_at_host)?;
    let dsn = Dsn::default();
    let (begun, refused) = client::begin(&place.socket, Letter { injected: &injected, dsn: &dsn })?;
    let left_out = left_out(wrong, refused, injected.recipients.iter().count())?;
    let mut lines = lines_of(&left_out);
    match tell_sender(&left_out, &injected, &place) {
        // It never can be told. These lines are what is left to tell of it.
        Err(error) if error.qmail_exit() == 100 => {
            lines.push(format!("the sender cannot be told: {error}").replace('\n', "; "));
        }
        told => told?,
    }
    Ok(Sent { reply: begun.finish()?, left_out: lines })
}

/// The message, for those whose addresses are some, and the others.
fn injected(onward: &Onward<'_>, no_at_host: &Domain) -> Result<(Injected, Vec<Refused>), NotSent> {
    let (mut recipients, mut wrong) = (Recipients::new(), Vec::new());
    for text in onward.recipients {
        match mailbox_of(text, no_at_host) {
            Ok(mailbox) => recipients.push(mailbox.as_ref()),
            Err(error) => wrong
                .push(Refused { what: shown(text), reply: Reply::ours(553, (5, 1, 3), &error.to_string()) }),
        }
    }
    if recipients.is_empty() && wrong.is_empty() {
        return Err(NotSent { code: 100, words: "nobody is named".into() });
    }
    if recipients.is_empty() {
        return Err(SubmitError::Recipients(wrong).into());
    }
    let sender = onward.sender;
    // Its quotes, if it needs some, went when it became a variable.
    let quoted = local::delivery::quoted_address(sender.strip_suffix("-@[]").unwrap_or(sender));
    let tail = if sender.ends_with("-@[]") { "-@[]" } else { "" };
    let path = format!("<{quoted}{tail}>");
    let (sender, verp, _) = parse_reverse_path(&path)
        .map_err(|error| NotSent { code: 100, words: format!("{sender:?}: {error}") })?;
    let mut content = with_crlf(onward.top.as_bytes());
    content.extend(with_crlf(onward.content));
    let smtputf8 =
        !sender.as_str().is_ascii() || recipients.iter().any(|recipient| recipient.needs_smtputf8());
    let body = body_kind(&content);
    Ok((Injected { sender, verp, recipients, content, body, smtputf8 }, wrong))
}

/// As it is sent to. A host has no dots at its end: SMTP has no place for them.
fn mailbox_of(text: &str, no_at_host: &Domain) -> Result<Mailbox, AddressError> {
    if text.contains(char::REPLACEMENT_CHARACTER) {
        return Err(AddressError::NotUtf8);
    }
    let mut address = AddrSpec::plain(text);
    let host = address.host.as_deref().map_or(no_at_host.as_str().as_bytes(), without_dots).to_vec();
    address.host = Some(host.into());
    let mailbox = address.mailbox()?;
    // A letter may be longer in lower case, and a list of recipients keeps no domain that is too long.
    if mailbox.domain().len() > DOMAIN_MAX { Err(AddressError::DomainTooLong) } else { Ok(mailbox) }
}

fn without_dots(host: &[u8]) -> &[u8] {
    let len = host.iter().rposition(|octet| *octet != b'.').map_or(0, |last| last + 1);
    &host[..len]
}

/// On one line, and not all of a long one.
fn shown(text: &str) -> String {
    text[..text.floor_char_boundary(SHOWN_MAX)].replace(char::is_control, "?")
}

fn body_kind(content: &[u8]) -> BodyKind {
    if content.is_ascii() { BodyKind::SevenBit } else { BodyKind::EightBitMime }
}

/// Who gets no copy, if anybody gets one. `count` were asked for, besides those whose addresses are wrong.
fn left_out(wrong: Vec<Refused>, refused: Vec<Refused>, count: usize) -> Result<Vec<Refused>, SubmitError> {
    let (lasting, passing): (Vec<_>, Vec<_>) =
        refused.into_iter().partition(|refused| refused.reply.is_permanent());
    if !passing.is_empty() {
        return Err(SubmitError::Recipients(passing));
    }
    let is_for_nobody = lasting.len() == count;
    let mut left_out = wrong;
    left_out.extend(lasting);
    if is_for_nobody { Err(SubmitError::Recipients(left_out)) } else { Ok(left_out) }
}

fn lines_of(left_out: &[Refused]) -> Vec<String> {
    let mut lines: Vec<String> = left_out.iter().take(SAID_MAX).map(Refused::to_string).collect();
    if left_out.len() > SAID_MAX {
        lines.push(format!("and {} more", left_out.len() - SAID_MAX));
    }
    lines
}

/// Sends the bounces, if there is anybody who wants them.
fn tell_sender(left_out: &[Refused], injected: &Injected, place: &Place) -> Result<(), SubmitError> {
    let Some(sender) = injected.sender.mailbox() else { return Ok(()) };
    for some in left_out.chunks(REPORTED_MAX) {
        let bounce = bounce(some, sender, injected, &place.host_name);
        client::submit(&place.socket, Letter { injected: &bounce, dsn: &Dsn::default() })?;
    }
    Ok(())
}

fn bounce(left_out: &[Refused], sender: &Mailbox, injected: &Injected, host_name: &str) -> Injected {
    let reported = |Refused { what, reply }: &Refused| ReportedRecipient {
        recipient: what.clone(),
        original: None,
        remote_host: None,
        reply: reply.clone(),
    };
    let reported: Vec<ReportedRecipient> = left_out.iter().map(reported).collect();
    let (now, facts) = (clock::wall(), ContentFacts::of(&injected.content));
    let content = qsbmf::render(&Notification {
        action: Action::Failed,
        reporting_host: host_name,
        to: &injected.sender,
        sender: &injected.sender,
        arrived: now,
        now,
        serial: RandomState::new().build_hasher().finish(),
        recipients: &reported,
        original: &injected.content,
        facts,
        smtputf8: injected.smtputf8,
        is_tls_optional: facts.is_tls_optional(),
        ret: None,
        envelope_id: None,
    });
    let mut recipients = Recipients::new();
    recipients.push(sender.as_ref());
    let (body, smtputf8) = (body_kind(&content), sender.as_ref().needs_smtputf8());
    Injected { sender: ReversePath::Null, verp: None, recipients, content, body, smtputf8 }
}

/// A CR before each LF that has none.
fn with_crlf(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 32);
    for line in text.split_inclusive(|octet| *octet == b'\n') {
        match line {
            [.., b'\r', b'\n'] => out.extend_from_slice(line),
            [text @ .., b'\n'] => {
                out.extend_from_slice(text);
                out.extend_from_slice(b"\r\n");
            }
            line => out.extend_from_slice(line),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use message::Verp;

    fn made(sender: &str, recipients: &[&str]) -> Result<(Injected, Vec<Refused>), NotSent> {
        let no_at_host = Domain::parse("mx.example.org").unwrap();
        let recipients: Vec<String> = recipients.iter().map(|text| (*text).to_owned()).collect();
        let content = b"c\r\nd\n\ne";
        let onward = Onward { sender, recipients: &recipients, no_at_host: None, top: "A: b\n", content };
        injected(&onward, &no_at_host)
    }

    fn recipients(injected: &Injected) -> Vec<String> {
        injected.recipients.iter().map(|one| one.to_string()).collect()
    }

    fn refused(what: &str, code: u16, enhanced: (u8, u16, u16)) -> Refused {
        Refused { what: what.into(), reply: Reply::ours(code, enhanced, "no") }
    }

    #[test]
    fn a_message_goes_on_with_its_lines_ended_as_the_net_wants() {
        let (injected, wrong) = made("ann@example.net", &["bob", "a b@x.test"]).unwrap();
        assert_eq!(injected.content, b"A: b\r\nc\r\nd\r\n\r\ne");
        assert_eq!(recipients(&injected), ["bob@mx.example.org", "\"a b\"@x.test"]);
        assert!(wrong.is_empty());
    }

    #[test]
    fn a_host_that_is_there_stays_as_it_is() {
        let (injected, _) = made("", &["bob@localhost", "cy@X.test.", "dee@[192.0.2.1]"]).unwrap();
        assert_eq!(recipients(&injected), ["bob@localhost", "cy@x.test", "dee@[192.0.2.1]"]);
    }

    #[test]
    fn senders_are_qmails() {
        let of = |sender: &str| made(sender, &["bob@x.test"]).map(|(injected, _)| injected);
        let injected = of("list-owner-@example.org-@[]").unwrap();
        assert_eq!((injected.sender.as_str(), injected.verp), ("list-owner-@example.org", Some(Verp::QMAIL)));
        assert_eq!(of("").unwrap().sender, ReversePath::Null);
        assert_eq!(of("#@[]").unwrap().sender, ReversePath::DoubleBounce);
        assert_eq!(of("a").unwrap_err().code, 100);
        assert_eq!(made("", &[]).unwrap_err().code, 100);
    }

    #[test]
    fn a_wrong_address_is_left_out_and_shown_on_one_line() {
        let wrong = ["bob@example..com", "a\u{fffd}@x.test", "a\r\n@b c", "eve@"];
        let (injected, left_out) = made("ann@example.net", &[&wrong[..], &["cy@x.test"]].concat()).unwrap();
        assert_eq!(recipients(&injected), ["cy@x.test"]);
        let left_out: Vec<String> = left_out.iter().map(Refused::to_string).collect();
        assert_eq!(left_out[0], "bob@example..com: 553 5.1.3 the domain is empty or has an empty label");
        assert!(left_out[2].starts_with("a??@b c: 553 5.1.3 "), "{left_out:?}");
        assert_eq!(left_out.len(), wrong.len());
        let not_sent = made("ann@example.net", &wrong).unwrap_err();
        assert_eq!(not_sent.code, 100);
        assert!(not_sent.words.ends_with("nothing was sent, to no recipient"), "{}", not_sent.words);
    }

    #[test]
    fn a_refusal_for_good_is_of_one_recipient_and_one_for_now_of_all() {
        let names = |left_out: Vec<Refused>| left_out.into_iter().map(|one| one.what).collect::<Vec<_>>();
        let wrong = || vec![refused("w", 553, (5, 1, 3))];
        let gone = || refused("g", 550, (5, 7, 1));
        assert_eq!(names(left_out(wrong(), vec![gone()], 2).unwrap()), ["w", "g"]);
        assert_eq!(left_out(wrong(), vec![gone()], 1).unwrap_err().qmail_exit(), 100);
        let late = refused("l", 450, (4, 7, 1));
        let error = left_out(wrong(), vec![gone(), late], 3).unwrap_err();
        assert_eq!((error.qmail_exit(), error.to_string().lines().count()), (111, 2));
    }

    #[test]
    fn the_owner_is_told_of_all_at_once_and_from_nobody() {
        let (injected, wrong) =
            made("list-owner-@example.org-@[]", &["bob@x.test", "bob@example..com"]).unwrap();
        let sender = injected.sender.mailbox().unwrap();
        let bounce = bounce(&wrong, sender, &injected, "mx.example.org");
        assert_eq!((&bounce.sender, bounce.verp), (&ReversePath::Null, None));
        assert_eq!(recipients(&bounce), ["list-owner-@example.org"]);
        let text = String::from_utf8(bounce.content).unwrap();
        for wanted in [
            "To: <list-owner-@example.org>\r\n",
            "\r\n\r\nHi. This is the ringpost program at mx.example.org.\r\n",
            "\r\n\r\n<bob@example..com>:\r\nthe domain is empty or has an empty label (#5.1.3)\r\n\r\n---",
            "\r\nA: b\r\nc\r\n",
        ] {
            assert!(text.contains(wanted), "{wanted:?} is not in\n{text}");
        }
    }

    #[test]
    fn callers_are_told_of_some() {
        let many: Vec<Refused> = (0..SAID_MAX + 2).map(|_| refused("a", 550, (5, 7, 1))).collect();
        let sent = Sent { reply: Reply::ours(250, (2, 0, 0), "taken"), left_out: lines_of(&many) };
        let words = sent.words("forward");
        assert!(words.starts_with("forward: a: 550 5.7.1 no\n") && words.ends_with("\nforward: taken"));
        assert_eq!(words.lines().count(), SAID_MAX + 2);
        assert_eq!(lines_of(&many)[SAID_MAX], "and 2 more");
    }
}
