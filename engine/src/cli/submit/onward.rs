//! A message that is sent on as it is: what `.qmail` files forward, and the receipts of `qreceipt`.
//!
//! Nothing of it is mended: it was a whole message when it came. Addresses without a host are completed as anywhere.

use super::client::{self, Letter};
use super::dsn::Dsn;
use super::error::SubmitError;
use super::place::{Place, Pointers};
use message::Reply;
use message::compose::address_list::AddrSpec;
use message::compose::{Hosts, Injected};
use message::envelope::{BodyKind, Recipients};
use message::path::parse_reverse_path;

/// What goes to whom. Lines of `top` and `content` end in LF, or in CR LF already.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Onward<'a> {
    /// As qmail has it: empty for bounces, with `-@[]` at its end for a sender per recipient.
    pub(crate) sender: &'a str,
    pub(crate) recipients: &'a [String],
    pub(crate) top: &'a str,
    pub(crate) content: &'a [u8],
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
pub(crate) fn hosts() -> Result<Hosts, NotSent> {
    let place = Place::find(&Pointers::default())?;
    Ok(place.compose.hosts(&place.host_name).map_err(SubmitError::from)?)
}

/// Returns what the daemon said when it was on its disk.
pub(crate) fn send(onward: &Onward<'_>) -> Result<Reply, NotSent> {
    let place = Place::find(&Pointers::default())?;
    let injected = injected(onward, &place)?;
    Ok(client::submit(&place.socket, Letter { injected: &injected, dsn: &Dsn::default() })?)
}

fn injected(onward: &Onward<'_>, place: &Place) -> Result<Injected, NotSent> {
    let hosts = place.compose.hosts(&place.host_name).map_err(SubmitError::from)?;
    let mut recipients = Recipients::new();
    for text in onward.recipients {
        let mut address = AddrSpec::plain(text);
        address.complete(&hosts);
        let mailbox = address.mailbox().map_err(|error| wrong(text, &error))?;
        recipients.push(mailbox.as_ref());
    }
    if recipients.is_empty() {
        return Err(NotSent { code: 100, words: "nobody is named".into() });
    }
    let sender = onward.sender;
    // Its quotes, if it needs some, went when it became a variable.
    let quoted = local::delivery::quoted_address(sender.strip_suffix("-@[]").unwrap_or(sender));
    let tail = if sender.ends_with("-@[]") { "-@[]" } else { "" };
    let path = format!("<{quoted}{tail}>");
    let (sender, verp, _) = parse_reverse_path(&path).map_err(|error| wrong(sender, &error))?;
    let mut content = with_crlf(onward.top.as_bytes());
    content.extend(with_crlf(onward.content));
    let smtputf8 =
        !sender.as_str().is_ascii() || recipients.iter().any(|recipient| recipient.needs_smtputf8());
    let body = if content.is_ascii() { BodyKind::SevenBit } else { BodyKind::EightBitMime };
    Ok(Injected { sender, verp, recipients, content, body, smtputf8 })
}

fn wrong(address: &str, error: &dyn std::fmt::Display) -> NotSent {
    NotSent { code: 100, words: format!("{address:?}: {error}") }
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
    use crate::config::Compose;
    use message::Verp;

    fn made(sender: &str, recipients: &[&str]) -> Result<Injected, NotSent> {
        let place =
            Place { socket: "/s".into(), host_name: "mx.example.org".into(), compose: Compose::default() };
        let recipients: Vec<String> = recipients.iter().map(|text| (*text).to_owned()).collect();
        injected(&Onward { sender, recipients: &recipients, top: "A: b\n", content: b"c\r\nd\n\ne" }, &place)
    }

    #[test]
    fn a_message_goes_on_with_its_lines_ended_as_the_net_wants() {
        let injected = made("ann@example.net", &["bob", "a b@x.test"]).unwrap();
        assert_eq!(injected.content, b"A: b\r\nc\r\nd\r\n\r\ne");
        let recipients: Vec<String> = injected.recipients.iter().map(|one| one.to_string()).collect();
        assert_eq!(recipients, ["bob@mx.example.org", "\"a b\"@x.test"]);
    }

    #[test]
    fn senders_are_qmails() {
        let injected = made("list-owner-@example.org-@[]", &["bob@x.test"]).unwrap();
        assert_eq!((injected.sender.as_str(), injected.verp), ("list-owner-@example.org", Some(Verp::QMAIL)));
        assert_eq!(made("", &["bob@x.test"]).unwrap().sender, message::ReversePath::Null);
        assert_eq!(made("#@[]", &["bob@x.test"]).unwrap().sender, message::ReversePath::DoubleBounce);
        assert_eq!(made("a", &["bob@x.test"]).unwrap_err().code, 100);
        assert_eq!(made("", &[]).unwrap_err().code, 100);
    }
}
