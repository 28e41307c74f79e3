//! Every sentence that we say.
//!
//! All but the greeting, EHLO's and HELO's reply and `354` carry an enhanced code (RFC 2034). A reply quotes
//! nothing that the peer sent.

use crate::door::Refusal;
use crate::limits::{Mechanism, Policy};
use message::{AddressError, MessageId};
use std::borrow::Cow;
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
pub(crate) const LOGGED_IN: Sentence = says("235 2.7.0 You are logged in");
pub(crate) const TURNING: Sentence = says("250 2.0.0 OK now reversing the connection");
pub(crate) const CANNOT_VERIFY: Sentence = says("252 2.1.5 Cannot verify, but will try to deliver");
pub(crate) const HELP: Sentence =
    says("214 2.0.0 EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT (RFC 5321, RFC 3030)");
pub(crate) const BEGIN_TLS: Sentence = says("220 2.0.0 Begin TLS now");
pub(crate) const BYE: Sentence = says("221 2.0.0 Bye");

pub(crate) const SHUTTING_DOWN: Sentence = says("421 4.3.2 Shutting down, come back later");
pub(crate) const IDLE: Sentence = says("421 4.4.2 Idle too long");
pub(crate) const TOO_MANY_ERRORS: Sentence = says("421 4.7.0 Too many errors");
pub(crate) const TOO_MANY_LOGINS: Sentence = says("421 4.7.0 Too many wrong logins");
pub(crate) const TOO_MANY_IDLE: Sentence = says("421 4.7.0 Too many commands that bring no mail");
pub(crate) const CANNOT_LOOK_UP: Sentence = says("421 4.3.0 Cannot find out who you are, come back later");
pub(crate) const NOT_A_WEB_SERVER: Sentence = says("421 4.7.0 This is no web server");
pub(crate) const QUEUE_BROKEN: Sentence = says("451 4.3.0 Queue is out of order, try later");
pub(crate) const QUEUE_FULL: Sentence = says("452 4.3.1 Queue is full, try later");
pub(crate) const TOO_MANY_RECIPIENTS: Sentence = says("452 4.5.3 Too many recipients");

// RFC 2645 §5.2.1.
pub(crate) const TURN_DENIED: Sentence = says("450 4.7.1 ATRN request refused: these domains are not yours");
pub(crate) const TURN_UNAVAILABLE: Sentence = says("451 4.3.2 Unable to process ATRN request now");
pub(crate) const NOTHING_WAITS: Sentence = says("453 4.0.0 You have no mail");

pub(crate) const LOGIN_UNAVAILABLE: Sentence = says("454 4.7.0 Cannot check passwords now, try later");

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
pub(crate) const ATRN_SYNTAX: Sentence = says("501 5.5.4 Syntax: ATRN [domain[,domain...]]");
pub(crate) const AUTH_SYNTAX: Sentence = says("501 5.5.4 Syntax: AUTH mechanism [response]");
pub(crate) const XCLIENT_SYNTAX: Sentence = says("501 5.5.4 Syntax: XCLIENT attribute=value ...");
pub(crate) const RESPONSE_SYNTAX: Sentence = says("501 5.5.2 Cannot read this response");
pub(crate) const LOGIN_CANCELLED: Sentence = says("501 5.7.0 Cancelled as you wish");
pub(crate) const BAD_PARAMETER: Sentence = says("501 5.5.4 Bad value of a parameter");
pub(crate) const VERP_WITHOUT_SENDER: Sentence = says("501 5.5.4 XVERP needs a reverse-path");
pub(crate) const VERP_TWICE: Sentence = says("501 5.5.4 XVERP with a reverse-path that asks for it already");
pub(crate) const NOT_OFFERED: Sentence = says("502 5.5.1 Command not offered");
pub(crate) const HELO_FIRST: Sentence = says("503 5.5.1 EHLO or HELO first");
pub(crate) const MAIL_FIRST: Sentence = says("503 5.5.1 MAIL first");
pub(crate) const IN_TRANSACTION: Sentence = says("503 5.5.1 Not within a transaction");
pub(crate) const LOGGED_IN_ALREADY: Sentence = says("503 5.5.1 Logged in already");
pub(crate) const NESTED_MAIL: Sentence = says("503 5.5.1 MAIL given already");
pub(crate) const RCPT_FIRST: Sentence = says("503 5.5.1 RCPT first");
pub(crate) const CHUNKS_BEGUN: Sentence = says("503 5.5.1 BDAT begun; only BDAT or RSET may follow");
pub(crate) const BINARY_NEEDS_BDAT: Sentence = says("503 5.5.1 BODY=BINARYMIME needs BDAT");

pub(crate) const MECHANISM_UNKNOWN: Sentence = says("504 5.5.4 No such mechanism here");
pub(crate) const WRONG_LOGIN: Sentence = says("535 5.7.8 Wrong name or password");
pub(crate) const LOGIN_NEEDS_TLS: Sentence = says("538 5.7.11 Passwords only over TLS: STARTTLS first");
pub(crate) const XCLIENT_DENIED: Sentence = says("550 5.7.0 Not allowed from your address");
pub(crate) const TLS_FIRST: Sentence = says("530 5.7.0 STARTTLS first");
pub(crate) const LOGIN_FIRST: Sentence = says("530 5.7.0 AUTH first");
pub(crate) const TOO_BIG: Sentence = says("552 5.3.4 Message too big");
pub(crate) const NO_ROOM_FOR_VERP: Sentence =
    says("553 5.1.7 XVERP needs a reverse-path with an unquoted local part of at most 30 octets");
pub(crate) const NEEDS_SMTPUTF8: Sentence = says("553 5.6.7 Address needs SMTPUTF8");
pub(crate) const NO_VALID_RECIPIENTS: Sentence = says("554 5.5.1 No valid recipients");
pub(crate) const TOO_EARLY: Sentence = says("554 5.5.1 You spoke before the greeting");
pub(crate) const TOO_MANY_HOPS: Sentence = says("554 5.4.6 Too many hops");
pub(crate) const UNKNOWN_PARAMETER: Sentence = says("555 5.5.4 Parameter unknown");
pub(crate) const REQUIRETLS_IN_PLAIN: Sentence = says("555 5.5.4 REQUIRETLS is for encrypted sessions");
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

    pub(crate) fn is_refusal(self) -> bool {
        matches!(self.text.as_bytes()[0], b'4' | b'5')
    }

    /// For what is said to the operator alone.
    pub(crate) fn without_codes(self) -> &'static str {
        self.text.splitn(3, ' ').last().unwrap_or_default()
    }

    /// Without its line end.
    pub(crate) fn cow(self) -> Cow<'static, str> {
        self.why.map_or(Cow::Borrowed(self.text), |why| Cow::Owned(format!("{}{why}", self.text)))
    }
}

/// A refusal's text is cut here: with its codes it fits into a reply's line (RFC 5321 §4.5.3.1.5).
const REFUSAL_MAX: usize = 480;

/// A refusal: one of our own, or the engine's.
#[derive(Clone, Debug)]
pub(crate) enum No {
    Ours(Sentence),
    Theirs(Refusal),
}

impl From<Sentence> for No {
    fn from(sentence: Sentence) -> No {
        No::Ours(sentence)
    }
}

impl No {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            No::Ours(sentence) => sentence.write(out),
            No::Theirs(_) => print(out, format_args!("{}\r\n", self.cow())),
        }
    }

    /// Without its line end. Of an operator's words nothing comes through that could be another reply.
    pub(crate) fn cow(&self) -> Cow<'static, str> {
        match self {
            No::Ours(sentence) => sentence.cow(),
            No::Theirs(Refusal { code, enhanced: (subject, detail), text }) => {
                let printable =
                    |octet: u8| if matches!(octet, b' '..=b'~') { char::from(octet) } else { '?' };
                let text: String = text.bytes().take(REFUSAL_MAX).map(printable).collect();
                let code = if matches!(code, 400..600) { *code } else { 451 };
                format!("{code} {}.{subject}.{detail} {text}", code / 100).into()
            }
        }
    }

    pub(crate) fn is_permanent(&self) -> bool {
        match self {
            No::Ours(sentence) => sentence.text.starts_with('5'),
            No::Theirs(refusal) => refusal.code >= 500,
        }
    }

    /// True of what is said before closing.
    pub(crate) fn is_fatal(&self) -> bool {
        match self {
            No::Ours(sentence) => sentence.text.starts_with("421"),
            No::Theirs(refusal) => refusal.code == 421,
        }
    }
}

/// What EHLO's reply names beside what all clients may use.
#[derive(Debug)]
pub(crate) struct Offers<'a> {
    pub(crate) size_max: u64,
    pub(crate) starttls: bool,
    pub(crate) requiretls: bool,
    pub(crate) mechanisms: &'a [Mechanism],
    pub(crate) etrn: bool,
    pub(crate) atrn: bool,
    pub(crate) xclient: bool,
}

const STARTTLS: &str = "STARTTLS";
const ATRN: &str = "ATRN";
const XCLIENT: &str = "XCLIENT NAME ADDR PORT PROTO HELO LOGIN";

pub(crate) fn greeting(policy: &Policy, out: &mut Vec<u8>) {
    print(out, format_args!("220 {} ESMTP ringpost\r\n", policy.host_name));
}

pub(crate) fn helo(policy: &Policy, out: &mut Vec<u8>) {
    print(out, format_args!("250 {}\r\n", policy.host_name));
}

pub(crate) fn ehlo(policy: &Policy, offers: &Offers<'_>, out: &mut Vec<u8>) {
    let limits = &policy.limits;
    print(
        out,
        format_args!("250-{}\r\n250-PIPELINING\r\n250-SIZE {}\r\n", policy.host_name, offers.size_max),
    );
    if policy.offer_chunking {
        out.extend_from_slice(b"250-CHUNKING\r\n250-BINARYMIME\r\n");
    }
    print(
        out,
        format_args!("250-8BITMIME\r\n250-SMTPUTF8\r\n250-LIMITS RCPTMAX={}\r\n", limits.recipients_max),
    );
    let switched = [
        (offers.starttls, STARTTLS),
        (offers.requiretls, "REQUIRETLS"),
        (offers.etrn, "ETRN"),
        (offers.atrn, ATRN),
        (offers.xclient, XCLIENT),
    ];
    print_offered(&switched, out);
    print_mechanisms(offers.mechanisms, out);
    out.extend_from_slice(
        b"250-DSN\r\n250-XVERP\r\n250-MT-PRIORITY\r\n250-ENHANCEDSTATUSCODES\r\n250 HELP\r\n",
    );
}

/// As [`ehlo`], where no mail is taken (RFC 2645 §5.1.1).
pub(crate) fn ehlo_of_turns(policy: &Policy, offers: &Offers<'_>, out: &mut Vec<u8>) {
    print(out, format_args!("250-{}\r\n250-PIPELINING\r\n", policy.host_name));
    print_offered(&[(offers.starttls, STARTTLS), (offers.atrn, ATRN), (offers.xclient, XCLIENT)], out);
    print_mechanisms(offers.mechanisms, out);
    out.extend_from_slice(b"250 ENHANCEDSTATUSCODES\r\n");
}

fn print_offered(switched: &[(bool, &str)], out: &mut Vec<u8>) {
    for (_, keyword) in switched.iter().filter(|(is_offered, _)| *is_offered) {
        print(out, format_args!("250-{keyword}\r\n"));
    }
}

fn print_mechanisms(mechanisms: &[Mechanism], out: &mut Vec<u8>) {
    if !mechanisms.is_empty() {
        out.extend_from_slice(b"250-AUTH");
        mechanisms.iter().for_each(|mechanism| print(out, format_args!(" {}", mechanism.name())));
        out.extend_from_slice(b"\r\n");
    }
}

/// RFC 3030 §2: a chunk's reply should name its octets.
pub(crate) fn chunk_taken(len: u64, out: &mut Vec<u8>) {
    print(out, format_args!("250 2.0.0 {len} octets received\r\n"));
}

/// RFC 4954 §4: `challenge` is in base64.
pub(crate) fn challenge(challenge: &str, out: &mut Vec<u8>) {
    print(out, format_args!("334 {challenge}\r\n"));
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
