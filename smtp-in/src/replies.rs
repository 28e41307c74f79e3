//! Every sentence that we say.
//!
//! All but the greeting, EHLO's and HELO's reply and `354` carry an enhanced code (RFC 2034). A reply quotes
//! nothing that the peer sent.

use crate::limits::Policy;
use message::{AddressError, MessageId};
use std::io::Write;

/// One reply of one line: fixed, or fixed with what is wrong with an address behind it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Sentence {
    text: &'static str,
    why: Option<AddressError>,
}

const fn says(text: &'static str) -> Sentence {
    Sentence { text, why: None }
}

pub(crate) const RESET: Sentence = says("250 2.0.0 Ok");
pub(crate) const NOTHING_DONE: Sentence = says("250 2.0.0 Ok");
pub(crate) const SENDER_OK: Sentence = says("250 2.1.0 Ok");
pub(crate) const RECIPIENT_OK: Sentence = says("250 2.1.5 Ok");
pub(crate) const SEND_DATA: Sentence = says("354 End data with <CR><LF>.<CR><LF>");
pub(crate) const FLUSH_BEGUN: Sentence = says("250 2.0.0 Queuing started");
pub(crate) const CANNOT_VERIFY: Sentence = says("252 2.1.5 Cannot verify, but will try to deliver");
pub(crate) const HELP: Sentence =
    says("214 2.0.0 EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT (RFC 5321, RFC 3030)");
pub(crate) const BYE: Sentence = says("221 2.0.0 Bye");

pub(crate) const SHUTTING_DOWN: Sentence = says("421 4.3.2 Shutting down, come back later");
pub(crate) const IDLE: Sentence = says("421 4.4.2 Idle too long");
pub(crate) const TOO_MANY_ERRORS: Sentence = says("421 4.7.0 Too many errors");
pub(crate) const NOT_A_WEB_SERVER: Sentence = says("421 4.7.0 This is no web server");
pub(crate) const QUEUE_BROKEN: Sentence = says("451 4.3.0 Queue is out of order, try later");
pub(crate) const QUEUE_FULL: Sentence = says("452 4.3.1 Queue is full, try later");
pub(crate) const TOO_MANY_RECIPIENTS: Sentence = says("452 4.5.3 Too many recipients");

// RFC 1985 §5.3.
pub(crate) const ETRN_NO_QUEUE: Sentence = says("458 4.3.5 There is no queue of that name");
pub(crate) const ETRN_DENIED: Sentence = says("459 4.7.1 Not allowed from your address");

pub(crate) const UNKNOWN_COMMAND: Sentence = says("500 5.5.2 Unknown command");
pub(crate) const LINE_TOO_LONG: Sentence = says("500 5.5.2 Line too long");
pub(crate) const BARE_NEWLINE: Sentence = says("500 5.5.2 Bare CR or LF in a command");
pub(crate) const CONTROL_OCTET: Sentence = says("500 5.5.2 Control octet in a command");
pub(crate) const NO_ARGUMENT: Sentence = says("501 5.5.4 This command takes no argument");
pub(crate) const HELO_SYNTAX: Sentence = says("501 5.5.4 Syntax: EHLO or HELO and a domain");
pub(crate) const MAIL_SYNTAX: Sentence = says("501 5.5.4 Syntax: MAIL FROM:<address> and parameters");
pub(crate) const RCPT_SYNTAX: Sentence = says("501 5.5.4 Syntax: RCPT TO:<address>");
pub(crate) const BDAT_SYNTAX: Sentence = says("501 5.5.4 Syntax: BDAT size [LAST]; cannot tell what follows");
pub(crate) const VRFY_SYNTAX: Sentence = says("501 5.5.4 Syntax: VRFY address");
pub(crate) const ETRN_SYNTAX: Sentence = says("501 5.5.4 Syntax: ETRN domain or ETRN @domain");
pub(crate) const BAD_PARAMETER: Sentence = says("501 5.5.4 Bad value of a parameter");
pub(crate) const VERP_WITHOUT_SENDER: Sentence = says("501 5.5.4 XVERP needs a reverse-path");
pub(crate) const VERP_TWICE: Sentence = says("501 5.5.4 XVERP with a reverse-path that asks for it already");
pub(crate) const NOT_OFFERED: Sentence = says("502 5.5.1 Command not offered");
pub(crate) const HELO_FIRST: Sentence = says("503 5.5.1 EHLO or HELO first");
pub(crate) const MAIL_FIRST: Sentence = says("503 5.5.1 MAIL first");
pub(crate) const ETRN_IN_TRANSACTION: Sentence = says("503 5.5.1 Not within a transaction");
pub(crate) const NESTED_MAIL: Sentence = says("503 5.5.1 MAIL given already");
pub(crate) const RCPT_FIRST: Sentence = says("503 5.5.1 RCPT first");
pub(crate) const CHUNKS_BEGUN: Sentence = says("503 5.5.1 BDAT begun; only BDAT or RSET may follow");
pub(crate) const BINARY_NEEDS_BDAT: Sentence = says("503 5.5.1 BODY=BINARYMIME needs BDAT");

pub(crate) const RELAY_DENIED: Sentence = says("550 5.7.1 Relaying denied");
pub(crate) const TOO_BIG: Sentence = says("552 5.3.4 Message too big");
pub(crate) const NO_ROOM_FOR_VERP: Sentence =
    says("553 5.1.7 XVERP needs a reverse-path with an unquoted local part of at most 30 octets");
pub(crate) const NEEDS_SMTPUTF8: Sentence = says("553 5.6.7 Address needs SMTPUTF8");
pub(crate) const NO_VALID_RECIPIENTS: Sentence = says("554 5.5.1 No valid recipients");
pub(crate) const TOO_MANY_HOPS: Sentence = says("554 5.4.6 Too many hops");
pub(crate) const UNKNOWN_PARAMETER: Sentence = says("555 5.5.4 Parameter unknown");
pub(crate) const PARAMETER_TWICE: Sentence = says("555 5.5.4 Parameter given twice");

const _: () = assert!(message::verp::BASE_LOCAL_PART_MAX == 30); // NO_ROOM_FOR_VERP says so

pub(crate) const fn bad_sender(why: AddressError) -> Sentence {
    Sentence { text: "501 5.1.7 Bad reverse-path: ", why: Some(why) }
}

pub(crate) const fn bad_recipient(why: AddressError) -> Sentence {
    Sentence { text: "501 5.1.3 Bad forward-path: ", why: Some(why) }
}

impl Sentence {
    /// One copy; formats only what is wrong with an address.
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.text.as_bytes());
        if let Some(why) = self.why {
            print(out, format_args!("{why}"));
        }
        out.extend_from_slice(b"\r\n");
    }
}

pub(crate) fn greeting(policy: &Policy, out: &mut Vec<u8>) {
    print(out, format_args!("220 {} ESMTP ringpost\r\n", policy.host_name));
}

pub(crate) fn helo(policy: &Policy, out: &mut Vec<u8>) {
    print(out, format_args!("250 {}\r\n", policy.host_name));
}

pub(crate) fn ehlo(policy: &Policy, may_flush: bool, out: &mut Vec<u8>) {
    let limits = &policy.limits;
    print(
        out,
        format_args!("250-{}\r\n250-PIPELINING\r\n250-SIZE {}\r\n", policy.host_name, limits.size_max),
    );
    if policy.offer_chunking {
        out.extend_from_slice(b"250-CHUNKING\r\n250-BINARYMIME\r\n");
    }
    print(
        out,
        format_args!("250-8BITMIME\r\n250-SMTPUTF8\r\n250-LIMITS RCPTMAX={}\r\n", limits.recipients_max),
    );
    if may_flush {
        out.extend_from_slice(b"250-ETRN\r\n");
    }
    out.extend_from_slice(
        b"250-DSN\r\n250-XVERP\r\n250-MT-PRIORITY\r\n250-ENHANCEDSTATUSCODES\r\n250 HELP\r\n",
    );
}

/// RFC 3030 §2: a chunk's reply should name its octets.
pub(crate) fn chunk_taken(len: u64, out: &mut Vec<u8>) {
    print(out, format_args!("250 2.0.0 {len} octets received\r\n"));
}

/// The promise: this message will not be lost.
pub(crate) fn queued(id: MessageId, out: &mut Vec<u8>) {
    print(out, format_args!("250 2.0.0 Ok: queued as {id}\r\n"));
}

/// As [`queued`], where the priority asked for was not given (RFC 6710 §8: the code, the new priority, why).
pub(crate) fn queued_at_normal_priority(id: MessageId, out: &mut Vec<u8>) {
    print(
        out,
        format_args!("250 2.3.6 0 is its priority, more needs the right to relay: queued as {id}\r\n"),
    );
}

/// For a connection that gets no session.
pub fn refusal_too_busy(host_name: &str) -> Vec<u8> {
    format!("421 4.3.2 {host_name} Too many connections\r\n").into_bytes()
}

fn print(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a Vec cannot fail");
}
