//! The client's side of SMTP over the Unix socket, for one message.
//!
//! MAIL and RCPT go in flights of [`FLIGHT_MAX`] commands, the content as one chunk where chunks are taken (RFC 3030),
//! else by DATA. By [`submit`] it goes to all of its recipients or to none: if the daemon refused one and the others had
//! it, a caller that hears of a failure and tries again would send to them twice. Who has another answer to that asks
//! first, by [`begin`]. Trusts the daemon no more than any server: bounds are [`REPLY_LINES_MAX`] lines of
//! [`REPLY_LINE_MAX`] octets a reply, and [`ANSWER_MAX`] of waiting.

use super::dsn::Dsn;
use super::error::{Refused, SubmitError};
use message::compose::Injected;
use message::envelope::BodyKind;
use message::reply::{EnhancedCode, Reply};
use message::{MailboxRef, ReversePath, Verp};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long an answer may take: as much as RFC 5321 §4.5.3.2.6 gives the one to a message's end.
const ANSWER_MAX: Duration = Duration::from_secs(600);

/// How long the daemon may take to accept a connection, and to take some octets.
const PATIENCE: Duration = Duration::from_secs(180);

/// Commands at a time: their replies fit into a socket's buffer, so that neither side waits for the other to read.
const FLIGHT_MAX: usize = 100;

/// Twice what RFC 5321 §4.5.3.1.5 allows, for enhanced codes and long words.
const REPLY_LINE_MAX: u64 = 1024;
const REPLY_LINES_MAX: usize = 100;

/// A message and what is asked about reports on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Letter<'a> {
    pub(super) injected: &'a Injected,
    pub(super) dsn: &'a Dsn,
}

/// Hands a message in. Returns what the daemon said to it: that it will not be lost.
pub(super) fn submit(socket: &Path, letter: Letter<'_>) -> Result<Reply, SubmitError> {
    let (begun, refused) = begin(socket, letter)?;
    if refused.is_empty() { begun.finish() } else { Err(SubmitError::Recipients(refused)) }
}

/// Says whom a message is from and for. Returns the recipients that were refused, too.
pub(super) fn begin<'a>(socket: &Path, letter: Letter<'a>) -> Result<(Begun<'a>, Vec<Refused>), SubmitError> {
    let mut client = Client::connect(socket)?;
    client.open(letter.injected)?;
    let refused = client.say_envelope(letter)?;
    Ok((Begun { client, content: &letter.injected.content }, refused))
}

/// A message without its content: it goes to nobody until [`Begun::finish`].
pub(super) struct Begun<'a> {
    client: Client,
    content: &'a [u8],
}

impl Begun<'_> {
    /// Hands it in, for those who were not refused.
    pub(super) fn finish(self) -> Result<Reply, SubmitError> {
        let Begun { mut client, content } = self;
        let reply = client.say_content(content)?;
        // The message is in safe hands: how the connection ends is of no account.
        let _ = client.stream.get_mut().write_all(b"QUIT\r\n").and_then(|()| client.read_line().map(drop));
        Ok(reply)
    }
}

/// A connection to the daemon's socket.
pub(super) fn connect(socket: &Path) -> Result<UnixStream, SubmitError> {
    let unreachable = |source| SubmitError::Unreachable { path: socket.to_owned(), source };
    let open = || -> io::Result<UnixStream> {
        let fd =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // It bounds the wait for a place in the listener's queue too.
        set_socket_timeout(&fd, Timeout::Send, Some(PATIENCE))?;
        rustix::net::connect(&fd, &SocketAddrUnix::new(socket)?)?;
        Ok(fd.into())
    };
    open().map_err(unreachable)
}

/// What the daemon offers (RFC 5321 §4.1.1.1).
#[derive(Debug, Default)]
struct Offers {
    chunking: bool,
    eight_bit: bool,
    smtputf8: bool,
    dsn: bool,
    size: bool,
    verp: bool,
}

impl Offers {
    fn note(&mut self, line: &[u8]) {
        let keyword = line.split(|octet| *octet == b' ').next().unwrap_or_default().to_ascii_uppercase();
        match keyword.as_slice() {
            b"CHUNKING" => self.chunking = true,
            b"8BITMIME" => self.eight_bit = true,
            b"SMTPUTF8" => self.smtputf8 = true,
            b"DSN" => self.dsn = true,
            b"SIZE" => self.size = true,
            b"XVERP" => self.verp = true,
            _ => {}
        }
    }
}

struct Client {
    stream: BufReader<UnixStream>,
    offers: Offers,
}

impl Client {
    fn connect(socket: &Path) -> Result<Client, SubmitError> {
        let stream = connect(socket)?;
        stream.set_read_timeout(Some(ANSWER_MAX)).map_err(SubmitError::Broken)?;
        Ok(Client { stream: BufReader::new(stream), offers: Offers::default() })
    }

    /// Greeting and EHLO; the daemon must be able to carry the message.
    fn open(&mut self, injected: &Injected) -> Result<(), SubmitError> {
        self.reply()?.wanted("the greeting")?;
        self.write(b"EHLO localhost\r\n")?;
        let mut offers = Offers::default();
        self.reply_of(|line| offers.note(line))?.wanted("EHLO")?;
        let needs = [
            (injected.smtputf8, offers.smtputf8, "SMTPUTF8"),
            (injected.verp.is_some(), offers.verp, "XVERP"),
        ];
        if let Some((.., name)) =
            needs.into_iter().find(|(is_needed, is_offered, _)| *is_needed && !is_offered)
        {
            return Err(SubmitError::Lacks(name));
        }
        self.offers = offers;
        Ok(())
    }

    // ---- envelope ----

    /// Returns the recipients that are refused. Where the daemon says goodbye, which is no refusal for good, the last of
    /// them was refused so, and those behind it were not heard.
    fn say_envelope(&mut self, letter: Letter<'_>) -> Result<Vec<Refused>, SubmitError> {
        let recipients: Vec<MailboxRef<'_>> = letter.injected.recipients.iter().collect();
        let mut flight = self.mail_line(letter);
        let mut refused = Vec::new();
        for (index, some) in recipients.chunks(FLIGHT_MAX).enumerate() {
            for recipient in some {
                flight.extend_from_slice(self.rcpt_line(*recipient, letter.dsn).as_bytes());
            }
            self.write(&flight)?;
            flight.clear();
            if index == 0 {
                self.reply()?.wanted("MAIL")?;
            }
            for recipient in some {
                let reply = self.reply()?;
                let is_goodbye = reply.0.code == 421;
                if !reply.0.is_positive() {
                    refused.push(Refused { what: recipient.to_string(), reply: reply.0 });
                }
                if is_goodbye {
                    return Ok(refused);
                }
            }
        }
        Ok(refused)
    }

    fn mail_line(&self, letter: Letter<'_>) -> Vec<u8> {
        let (injected, offers) = (letter.injected, &self.offers);
        let mut line = format!("MAIL FROM:<{}>", sender_path(&injected.sender, injected.verp));
        if let Some(verp) = injected.verp.filter(|verp| *verp != Verp::QMAIL) {
            let [before, after] = verp.to_bytes();
            line.push_str(&format!(" XVERP={}{}", char::from(before), char::from(after)));
        }
        if offers.size {
            line.push_str(&format!(" SIZE={}", injected.content.len()));
        }
        if offers.eight_bit && injected.body == BodyKind::EightBitMime {
            line.push_str(" BODY=8BITMIME");
        }
        if injected.smtputf8 {
            line.push_str(" SMTPUTF8");
        }
        if offers.dsn {
            letter.dsn.write_mail(&mut line);
        }
        line.push_str("\r\n");
        line.into_bytes()
    }

    fn rcpt_line(&self, recipient: MailboxRef<'_>, dsn: &Dsn) -> String {
        let mut line = format!("RCPT TO:<{recipient}>");
        if self.offers.dsn {
            dsn.write_rcpt(&mut line);
        }
        line.push_str("\r\n");
        line
    }

    // ---- content ----

    fn say_content(&mut self, content: &[u8]) -> Result<Reply, SubmitError> {
        if self.offers.chunking {
            let command = format!("BDAT {} LAST\r\n", content.len());
            // Whoever says no before it has all closes: its words are still there to be read.
            let sent = self.write(command.as_bytes()).and_then(|()| self.write(content));
            return self.last_reply(sent);
        }
        self.write(b"DATA\r\n")?;
        let go_on = self.reply()?.0;
        if go_on.code != 354 {
            return Err(SubmitError::Refused(Refused { what: "DATA".into(), reply: go_on }));
        }
        let sent = self.write(&stuffed(content));
        self.last_reply(sent)
    }

    fn last_reply(&mut self, sent: Result<(), SubmitError>) -> Result<Reply, SubmitError> {
        match self.reply() {
            Ok(reply) => reply.wanted("the message"),
            Err(error) => Err(sent.err().unwrap_or(error)),
        }
    }

    // ---- octets ----

    fn write(&mut self, bytes: &[u8]) -> Result<(), SubmitError> {
        self.stream.get_mut().write_all(bytes).map_err(SubmitError::Broken)
    }

    fn reply(&mut self) -> Result<Said, SubmitError> {
        self.reply_of(|_| {})
    }

    /// `each` sees each line of the reply behind its code.
    fn reply_of(&mut self, mut each: impl FnMut(&[u8])) -> Result<Said, SubmitError> {
        let mut whole: Option<Reply> = None;
        for _ in 0..REPLY_LINES_MAX {
            let line = self.read_line().map_err(SubmitError::Broken)?;
            let (code, is_last, text) = parse_line(&line).ok_or_else(senseless)?;
            each(text);
            match &mut whole {
                Some(reply) => reply.push_line(text),
                None => whole = Some(reply_of_line(code, text)),
            }
            if is_last {
                return whole.map(Said).ok_or_else(senseless);
            }
        }
        Err(senseless())
    }

    /// Without its end. One that is cut off is none.
    fn read_line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        self.stream.by_ref().take(REPLY_LINE_MAX).read_until(b'\n', &mut line)?;
        match line.strip_suffix(b"\n") {
            Some(rest) => Ok(rest.strip_suffix(b"\r").unwrap_or(rest).to_vec()),
            None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the daemon ended the connection")),
        }
    }
}

fn senseless() -> SubmitError {
    SubmitError::Broken(io::Error::new(io::ErrorKind::InvalidData, "what answers there does not speak SMTP"))
}

/// A reply that is still to be judged.
struct Said(Reply);

impl Said {
    /// A yes, or an error that says to what it was none.
    fn wanted(self, what: &str) -> Result<Reply, SubmitError> {
        if self.0.is_positive() {
            return Ok(self.0);
        }
        Err(SubmitError::Refused(Refused { what: what.to_owned(), reply: self.0 }))
    }
}

fn reply_of_line(code: u16, text: &[u8]) -> Reply {
    match EnhancedCode::parse_prefix(text) {
        Some((enhanced, rest)) => Reply::new(code, Some(enhanced), rest),
        None => Reply::new(code, None, text),
    }
}

/// `250-SIZE 1000` → code, whether it is the last line, text (RFC 5321 §4.2.1).
fn parse_line(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (digits, rest) = line.split_first_chunk::<3>()?;
    let code = std::str::from_utf8(digits).ok()?.parse().ok().filter(|code| (200..600).contains(code))?;
    match rest {
        [] => Some((code, true, rest)),
        [b' ', text @ ..] => Some((code, true, text)),
        [b'-', text @ ..] => Some((code, false, text)),
        _ => None,
    }
}

/// As it stands between the brackets of MAIL: qmail's form of VERP is a part of the path.
fn sender_path(sender: &ReversePath, verp: Option<Verp>) -> String {
    let tail = if verp == Some(Verp::QMAIL) { "-@[]" } else { "" };
    format!("{}{tail}", sender.as_str())
}

/// RFC 5321 §4.5.2: a dot more where a line begins with one, and the end.
fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + content.len() / 64 + 5);
    let mut rest = content;
    while !rest.is_empty() {
        let len = rest.windows(2).position(|pair| pair == b"\r\n").map_or(rest.len(), |end| end + 2);
        if rest.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(&rest[..len]);
        rest = &rest[len..];
    }
    if !out.is_empty() && !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}

/// For the fuzzer: what may stand in a reply.
pub fn fuzz_reply_line(bytes: &[u8]) {
    if let Some((code, _, text)) = parse_line(bytes) {
        assert!((200..600).contains(&code));
        Offers::default().note(text);
        let _ = reply_of_line(code, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reply_lines_are_read() {
        assert_eq!(parse_line(b"250-SIZE 9"), Some((250, false, &b"SIZE 9"[..])));
        assert_eq!(parse_line(b"250 ok"), Some((250, true, &b"ok"[..])));
        assert_eq!(parse_line(b"354"), Some((354, true, &b""[..])));
        for wrong in [&b"25"[..], b"2500 x", b"+25 x", b"150 x", b"SSH-2.0"] {
            assert_eq!(parse_line(wrong), None);
            fuzz_reply_line(wrong);
        }
    }

    #[test]
    fn dots_at_line_starts_are_doubled_and_the_end_is_whole() {
        assert_eq!(stuffed(b".a\r\n..\r\nb\n.c"), b"..a\r\n...\r\nb\n.c\r\n.\r\n");
        assert_eq!(stuffed(b""), b".\r\n");
    }

    #[test]
    fn verp_in_qmails_form_is_a_part_of_the_path() {
        let sender = ReversePath::Mailbox(message::Mailbox::parse("list-@here.test").unwrap());
        assert_eq!(sender_path(&sender, Some(Verp::QMAIL)), "list-@here.test-@[]");
        assert_eq!(sender_path(&sender, Some(Verp::DEFAULT)), "list-@here.test");
        assert_eq!(sender_path(&ReversePath::Null, None), "");
    }
}
