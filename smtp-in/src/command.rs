//! Command lines: what the client asks for, with every argument parsed (RFC 5321 §4.1.1).
//!
//! Pure and stateless: whether a command is due now, the session decides. A line with a control octet is
//! refused whole, so no argument has one. Extra spaces and any case of the keywords are taken.

use crate::output::Flush;
use crate::replies::{self, Sentence};
use crate::xclient::{self, Attributes};
use crate::xtext;
use message::path::{parse_forward_path, parse_reverse_path};
use message::{
    AddressError, BodyKind, EnvelopeId, ForwardPath, MailAsked, Notify, OriginalRecipient, Priority,
    RecipientAsked, Ret, ReversePath, Verp,
};

/// What the client called itself is kept up to this many octets (RFC 5321 §4.5.3.1.2).
const HELO_NAME_MAX: usize = 255;

#[derive(Debug)]
pub(crate) enum Command<'a> {
    Ehlo(&'a str),
    Helo(&'a str),
    /// Its arguments may be wrong; then the session still has the say whether it was due at all.
    Mail(Result<Mail, Sentence>),
    Rcpt(Result<Rcpt<'a>, Sentence>),
    Data,
    Bdat(Chunk),
    /// BDAT whose size cannot be read: nobody can tell where its chunk ends.
    UnsizedBdat,
    Rset,
    Noop,
    Vrfy,
    Help,
    Quit,
    Etrn(Result<Flush, Sentence>),
    StartTls,
    Auth(Result<Auth<'a>, Sentence>),
    /// The domains asked for; none: all.
    Atrn(Result<Vec<Box<str>>, Sentence>),
    /// `None` if anything in it is wrong.
    Xclient(Option<Attributes>),
    /// A command that some server knows, and we do not.
    NotOffered,
    /// A request of HTTP: a browser was made to talk to us, with mail commands in the body it posts.
    WebRequest,
}

/// AUTH's arguments.
pub(crate) struct Auth<'a> {
    pub(crate) mechanism: &'a [u8],
    /// Still in base64.
    pub(crate) initial: Option<&'a [u8]>,
}

/// A password may be in it.
impl std::fmt::Debug for Auth<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Auth(hidden)")
    }
}

/// BDAT's argument.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Chunk {
    pub(crate) len: u64,
    pub(crate) last: bool,
}

/// MAIL's arguments.
#[derive(Debug)]
pub(crate) struct Mail {
    pub(crate) reverse_path: ReversePath,
    pub(crate) verp: Option<Verp>,
    /// Announced octets (RFC 1870).
    pub(crate) size: Option<u64>,
    pub(crate) body: BodyKind,
    pub(crate) smtputf8: bool,
    /// RFC 8689.
    pub(crate) requires_tls: bool,
    /// RFC 6710.
    pub(crate) priority: Option<Priority>,
    /// RFC 3461.
    pub(crate) asked: MailAsked,
}

/// RCPT's arguments.
#[derive(Debug)]
pub(crate) struct Rcpt<'a> {
    pub(crate) path: ForwardPath<'a>,
    /// RFC 3461.
    pub(crate) asked: RecipientAsked<'a>,
}

/// Reads a line without its CR LF. No allocation but for MAIL's reverse-path.
pub(crate) fn parse(line: &[u8]) -> Result<Command<'_>, Sentence> {
    if let Err(sentence) = check_octets(line) {
        // Octets follow even a spoiled BDAT, and must not be read as commands.
        let is_bdat = line.get(..4).is_some_and(|verb| verb.eq_ignore_ascii_case(b"BDAT"));
        return if is_bdat { Ok(Command::UnsizedBdat) } else { Err(sentence) };
    }
    let verb_len = memchr::memchr(b' ', line).unwrap_or(line.len());
    let (verb, argument) = (&line[..verb_len], line[verb_len..].trim_ascii());
    match upper(verb).as_slice() {
        b"RCPT\0\0\0\0" => Ok(Command::Rcpt(parse_rcpt(argument))),
        b"MAIL\0\0\0\0" => Ok(Command::Mail(parse_mail(argument))),
        b"BDAT\0\0\0\0" => Ok(parse_bdat(argument).map_or(Command::UnsizedBdat, Command::Bdat)),
        b"DATA\0\0\0\0" => alone(argument, Command::Data),
        b"RSET\0\0\0\0" => alone(argument, Command::Rset),
        b"QUIT\0\0\0\0" => alone(argument, Command::Quit),
        b"EHLO\0\0\0\0" => parse_helo(argument).map(Command::Ehlo),
        b"HELO\0\0\0\0" => parse_helo(argument).map(Command::Helo),
        b"NOOP\0\0\0\0" => Ok(Command::Noop),
        b"HELP\0\0\0\0" => Ok(Command::Help),
        b"VRFY\0\0\0\0" if argument.is_empty() => Err(replies::VRFY_SYNTAX),
        b"VRFY\0\0\0\0" => Ok(Command::Vrfy),
        b"ETRN\0\0\0\0" => Ok(Command::Etrn(parse_etrn(argument))),
        b"STARTTLS" => alone(argument, Command::StartTls),
        b"AUTH\0\0\0\0" => Ok(Command::Auth(parse_auth(argument))),
        b"ATRN\0\0\0\0" => Ok(Command::Atrn(parse_atrn(argument))),
        b"XCLIENT\0" => Ok(Command::Xclient(xclient::parse(argument))),
        b"EXPN\0\0\0\0" | b"TURN\0\0\0\0" | b"SEND\0\0\0\0" | b"SOML\0\0\0\0" | b"SAML\0\0\0\0"
        | b"BURL\0\0\0\0" | b"XFORWARD" => Ok(Command::NotOffered),
        b"GET\0\0\0\0\0" | b"POST\0\0\0\0" | b"PUT\0\0\0\0\0" | b"HEAD\0\0\0\0" | b"OPTIONS\0"
        | b"CONNECT\0" => Ok(Command::WebRequest),
        _ => Err(replies::UNKNOWN_COMMAND),
    }
}

/// One pass without a branch per octet.
fn check_octets(line: &[u8]) -> Result<(), Sentence> {
    let control = line.iter().fold(false, |any, octet| any | (*octet < 32) | (*octet == 127));
    match memchr::memchr2(b'\r', b'\n', if control { line } else { &[] }) {
        Some(_) => Err(replies::BARE_NEWLINE),
        None if control => Err(replies::CONTROL_OCTET),
        None => Ok(()),
    }
}

/// The verb in upper case and of one width; zeros for one that is too long to be any of ours.
fn upper(verb: &[u8]) -> [u8; 8] {
    let mut folded = [0; 8];
    if let Some(room) = folded.get_mut(..verb.len()) {
        room.copy_from_slice(verb);
        room.make_ascii_uppercase();
    }
    folded
}

fn alone<'a>(argument: &[u8], command: Command<'a>) -> Result<Command<'a>, Sentence> {
    if argument.is_empty() { Ok(command) } else { Err(replies::NO_ARGUMENT) }
}

/// RFC 5321 §4.1.4 forbids to refuse mail because the name is wrong, so any word will do.
fn parse_helo(argument: &[u8]) -> Result<&str, Sentence> {
    let text = std::str::from_utf8(argument).map_err(|_| replies::HELO_SYNTAX)?;
    let name = text.split(' ').next().unwrap_or("");
    if name.is_empty() || name.len() > HELO_NAME_MAX { Err(replies::HELO_SYNTAX) } else { Ok(name) }
}

fn parse_rcpt(argument: &[u8]) -> Result<Rcpt<'_>, Sentence> {
    let text = std::str::from_utf8(argument).map_err(|_| replies::bad_recipient(AddressError::NotUtf8))?;
    let path = after_keyword(text, "TO:").ok_or(replies::RCPT_SYNTAX)?;
    let (path, rest) = parse_forward_path(path).map_err(replies::bad_recipient)?;
    match rest.as_bytes() {
        [] => Ok(Rcpt { path, asked: RecipientAsked::default() }),
        [b' ', ..] => Ok(Rcpt { path, asked: parse_rcpt_parameters(rest)? }),
        _ => Err(replies::RCPT_SYNTAX),
    }
}

fn parse_rcpt_parameters(rest: &str) -> Result<RecipientAsked<'_>, Sentence> {
    const KEYWORDS: [&str; 2] = ["NOTIFY", "ORCPT"];
    let mut asked = RecipientAsked::default();
    each_parameter(rest, &KEYWORDS, |keyword, value| {
        let value = value.ok_or(replies::BAD_PARAMETER)?;
        match keyword {
            "NOTIFY" => asked.notify = Notify::parse(value).ok_or(replies::BAD_PARAMETER)?,
            _ => asked.original = Some(OriginalRecipient::parse(value).ok_or(replies::BAD_PARAMETER)?),
        }
        Ok(())
    })?;
    Ok(asked)
}

/// Takes each parameter once, its keyword as `keywords` spells it, with its value if it has one.
fn each_parameter<'a, const COUNT: usize>(
    rest: &'a str,
    keywords: &[&'static str; COUNT],
    mut take: impl FnMut(&'static str, Option<&'a str>) -> Result<(), Sentence>,
) -> Result<(), Sentence> {
    const { assert!(COUNT <= 32) };
    let mut seen = 0u32;
    for parameter in rest.split(' ').filter(|parameter| !parameter.is_empty()) {
        let (keyword, value) = match parameter.split_once('=') {
            Some((keyword, value)) => (keyword, Some(value)),
            None => (parameter, None),
        };
        let index = keywords.iter().position(|known| known.eq_ignore_ascii_case(keyword));
        let index = index.ok_or(replies::UNKNOWN_PARAMETER)?;
        if seen & 1 << index != 0 {
            return Err(replies::PARAMETER_TWICE);
        }
        seen |= 1 << index;
        take(keywords[index], value)?;
    }
    Ok(())
}

fn parse_mail(argument: &[u8]) -> Result<Mail, Sentence> {
    let text = std::str::from_utf8(argument).map_err(|_| replies::bad_sender(AddressError::NotUtf8))?;
    let path = after_keyword(text, "FROM:").ok_or(replies::MAIL_SYNTAX)?;
    let (reverse_path, verp, rest) = parse_reverse_path(path).map_err(replies::bad_sender)?;
    if !rest.is_empty() && !rest.starts_with(' ') {
        return Err(replies::MAIL_SYNTAX);
    }
    let (body, smtputf8, requires_tls) = (BodyKind::default(), false, false);
    let (size, priority, asked) = (None, None, MailAsked::default());
    let mut mail = Mail { reverse_path, verp, size, body, smtputf8, requires_tls, priority, asked };
    mail.take_parameters(rest)?;
    mail.check_reverse_path()?;
    Ok(mail)
}

/// What follows `FROM:` or `TO:`. A space after the colon is wrong and common.
fn after_keyword<'a>(text: &'a str, keyword: &str) -> Option<&'a str> {
    let (head, path) = text.split_at_checked(keyword.len())?;
    head.eq_ignore_ascii_case(keyword).then(|| path.trim_start_matches(' '))
}

impl Mail {
    fn take_parameters(&mut self, rest: &str) -> Result<(), Sentence> {
        const KEYWORDS: [&str; 9] =
            ["SIZE", "BODY", "SMTPUTF8", "XVERP", "MT-PRIORITY", "REQUIRETLS", "AUTH", "RET", "ENVID"];
        each_parameter(rest, &KEYWORDS, |keyword, value| self.take_parameter(keyword, value))
    }

    fn take_parameter(&mut self, keyword: &str, value: Option<&str>) -> Result<(), Sentence> {
        match (keyword, value) {
            ("SIZE", Some(digits)) => self.size = Some(parse_size(digits)?),
            ("BODY", Some(kind)) => self.body = parse_body(kind)?,
            ("SMTPUTF8", None) => self.smtputf8 = true,
            ("REQUIRETLS", None) => self.requires_tls = true,
            // RFC 4954 §5 lets us take every client for one whose word on who wrote this we do not pass on.
            ("AUTH", Some(who)) if is_auth_parameter(who) => {}
            ("MT-PRIORITY", Some(value)) => {
                self.priority = Some(Priority::parse(value).ok_or(replies::BAD_PARAMETER)?);
            }
            ("RET", Some(value)) => self.asked.ret = Some(Ret::parse(value).ok_or(replies::BAD_PARAMETER)?),
            ("ENVID", Some(value)) => {
                self.asked.envelope_id = Some(EnvelopeId::parse(value).ok_or(replies::BAD_PARAMETER)?);
            }
            ("XVERP", _) if self.verp.is_some() => return Err(replies::VERP_TWICE),
            ("XVERP", None) => self.verp = Some(Verp::DEFAULT),
            ("XVERP", Some(pair)) => {
                self.verp = Some(Verp::with_delimiters(pair).ok_or(replies::BAD_PARAMETER)?);
            }
            _ => return Err(replies::BAD_PARAMETER),
        }
        Ok(())
    }

    fn check_reverse_path(&self) -> Result<(), Sentence> {
        match (&self.reverse_path, self.verp) {
            (ReversePath::Null | ReversePath::DoubleBounce, None) => Ok(()),
            (ReversePath::Null | ReversePath::DoubleBounce, Some(_)) => Err(replies::VERP_WITHOUT_SENDER),
            (ReversePath::Mailbox(mailbox), _) if mailbox.as_ref().needs_smtputf8() && !self.smtputf8 => {
                Err(replies::NEEDS_SMTPUTF8)
            }
            (ReversePath::Mailbox(base), Some(_)) if !Verp::fits(base) => Err(replies::NO_ROOM_FOR_VERP),
            (ReversePath::Mailbox(_), _) => Ok(()),
        }
    }
}

/// RFC 4954 §5: `<>`, or a mailbox in xtext.
fn is_auth_parameter(who: &str) -> bool {
    let mailbox = || xtext::decode(who.as_bytes()).and_then(|octets| String::from_utf8(octets).ok());
    who == "<>" || mailbox().is_some_and(|mailbox| message::MailboxRef::parse(&mailbox).is_ok())
}

/// RFC 1870 §4 allows 20 digits, which may be more than fit: such a size is too big for anyone.
fn parse_size(digits: &str) -> Result<u64, Sentence> {
    let legal = (1..=20).contains(&digits.len()) && digits.bytes().all(|octet| octet.is_ascii_digit());
    if legal { Ok(digits.parse().unwrap_or(u64::MAX)) } else { Err(replies::BAD_PARAMETER) }
}

fn parse_body(kind: &str) -> Result<BodyKind, Sentence> {
    match kind {
        _ if kind.eq_ignore_ascii_case("7BIT") => Ok(BodyKind::SevenBit),
        _ if kind.eq_ignore_ascii_case("8BITMIME") => Ok(BodyKind::EightBitMime),
        _ if kind.eq_ignore_ascii_case("BINARYMIME") => Ok(BodyKind::BinaryMime),
        _ => Err(replies::BAD_PARAMETER),
    }
}

/// RFC 1985 §5: a domain, `@` and a domain for all below it too, or `#` and the name of a queue, of which we have none.
fn parse_etrn(argument: &[u8]) -> Result<Flush, Sentence> {
    let text = std::str::from_utf8(argument).map_err(|_| replies::ETRN_SYNTAX)?;
    if text.starts_with('#') {
        return Err(replies::ETRN_NO_QUEUE);
    }
    let (with_subdomains, domain) = match text.strip_prefix('@') {
        Some(domain) => (true, domain),
        None => (false, text),
    };
    message::Domain::parse(domain).map_err(|_| replies::ETRN_SYNTAX)?;
    Ok(Flush { domain: domain.to_lowercase().into(), with_subdomains })
}

/// True of a line that may be longer than others.
pub(crate) fn is_auth(line: &[u8]) -> bool {
    line.get(..5).is_some_and(|verb| verb.eq_ignore_ascii_case(b"AUTH "))
}

/// RFC 4954 §4: a mechanism, and perhaps its first response.
fn parse_auth(argument: &[u8]) -> Result<Auth<'_>, Sentence> {
    let mut words = argument.split(|octet| *octet == b' ').filter(|word| !word.is_empty());
    match (words.next(), words.next(), words.next()) {
        (Some(mechanism), initial, None) => Ok(Auth { mechanism, initial }),
        _ => Err(replies::AUTH_SYNTAX),
    }
}

/// RFC 2645 §5.2: domains with commas between them, or none. Bound: a command line.
fn parse_atrn(argument: &[u8]) -> Result<Vec<Box<str>>, Sentence> {
    if argument.is_empty() {
        return Ok(Vec::new());
    }
    let text = std::str::from_utf8(argument).map_err(|_| replies::ATRN_SYNTAX)?;
    let parse = |domain: &str| match message::Domain::parse(domain) {
        Ok(_) => Ok(domain.to_lowercase().into()),
        Err(_) => Err(replies::ATRN_SYNTAX),
    };
    text.split(',').map(|domain| parse(domain.trim_matches(' '))).collect()
}

/// `None` for what RFC 3030 does not allow, and for sizes past 64 bits.
fn parse_bdat(argument: &[u8]) -> Option<Chunk> {
    let text = std::str::from_utf8(argument).ok()?;
    let mut words = text.split(' ').filter(|word| !word.is_empty());
    let digits = words.next()?;
    let last = match words.next() {
        None => false,
        Some(word) => word.eq_ignore_ascii_case("LAST").then_some(true)?,
    };
    let legal = words.next().is_none() && digits.bytes().all(|octet| octet.is_ascii_digit());
    legal.then(|| digits.parse().ok().map(|len| Chunk { len, last })).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(line: &str) -> Result<Mail, Sentence> {
        match parse(line.as_bytes()) {
            Ok(Command::Mail(mail)) => mail,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn refusal(line: &str) -> Sentence {
        mail(line).expect_err(line)
    }

    #[test]
    fn mail_parameters_come_in_any_order_and_case() {
        let mail =
            mail("mail from: <list@example.org>  smtputf8 size=123 Body=8bitmime xverp=-= mt-priority=-9 ")
                .unwrap();
        assert_eq!((mail.size, mail.body, mail.smtputf8), (Some(123), BodyKind::EightBitMime, true));
        assert_eq!(mail.priority, Priority::parse("-9"));
        assert_eq!(mail.verp, Verp::with_delimiters("-="));
        assert_eq!(mail.reverse_path.as_str(), "list@example.org");
    }

    #[test]
    fn wrong_parameters_are_told_from_unknown_ones() {
        let line = |parameters: &str| refusal(&format!("MAIL FROM:<a@example.org> {parameters}"));
        let sizes = ["SIZE", "SIZE=", "SIZE=-1", "SIZE=123456789012345678901"];
        let priorities =
            ["MT-PRIORITY", "MT-PRIORITY=", "MT-PRIORITY=10", "MT-PRIORITY=+1", "MT-PRIORITY=-0"];
        let others = ["BODY=9BIT", "SMTPUTF8=1", "XVERP=ab"];
        for bad in sizes.into_iter().chain(priorities).chain(others) {
            assert_eq!(line(bad), replies::BAD_PARAMETER, "{bad}");
        }
        for unknown in ["NOTIFY=NEVER", "X", "=", "=1", "SIZED=1"] {
            assert_eq!(line(unknown), replies::UNKNOWN_PARAMETER, "{unknown}");
        }
        assert_eq!(line("SIZE=1 size=2"), replies::PARAMETER_TWICE);
        assert_eq!(refusal("MAIL FROM:<a@example.org>SIZE=1"), replies::MAIL_SYNTAX);
    }

    #[test]
    fn size_past_64_bits_is_a_size() {
        assert_eq!(mail("MAIL FROM:<> SIZE=99999999999999999999").unwrap().size, Some(u64::MAX));
    }

    #[test]
    fn verp_needs_a_sender_with_room() {
        assert_eq!(refusal("MAIL FROM:<> XVERP"), replies::VERP_WITHOUT_SENDER);
        let long = "a".repeat(31);
        assert_eq!(refusal(&format!("MAIL FROM:<{long}@example.org> XVERP")), replies::NO_ROOM_FOR_VERP);
        assert_eq!(refusal(&format!("MAIL FROM:<{long}-@example.org-@[]>")), replies::NO_ROOM_FOR_VERP);
        assert_eq!(refusal("MAIL FROM:<\"a b\"@example.org> XVERP"), replies::NO_ROOM_FOR_VERP);
        assert_eq!(refusal("MAIL FROM:<l-@example.org-@[]> XVERP"), replies::VERP_TWICE);
        assert_eq!(mail("MAIL FROM:<l-@example.org-@[]>").unwrap().verp, Some(Verp::QMAIL));
    }

    #[test]
    fn utf8_sender_must_be_announced() {
        assert_eq!(refusal("MAIL FROM:<é@example.org>"), replies::NEEDS_SMTPUTF8);
        assert!(mail("MAIL FROM:<é@example.org> SMTPUTF8").is_ok());
    }

    #[test]
    fn chunk_sizes_that_cannot_be_read_are_no_chunks() {
        let chunk = |line: &[u8]| match parse(line) {
            Ok(Command::Bdat(chunk)) => Some((chunk.len, chunk.last)),
            _ => None,
        };
        assert_eq!(chunk(b"BDAT 0 LAST"), Some((0, true)));
        assert_eq!(chunk(b"bdat 18446744073709551615"), Some((u64::MAX, false)));
        for bad in [
            "BDAT",
            "BDAT LAST",
            "BDAT +1",
            "BDAT -1",
            "BDAT 1 FIRST",
            "BDAT 1 LAST x",
            "BDAT 1\tLAST",
            "BDAT 18446744073709551616",
        ] {
            assert!(matches!(parse(bad.as_bytes()), Ok(Command::UnsizedBdat)), "{bad}");
        }
    }

    #[test]
    fn control_octets_spoil_a_line() {
        assert_eq!(parse(b"NOOP\0").unwrap_err(), replies::CONTROL_OCTET);
        assert_eq!(parse(b"NOOP\x7f").unwrap_err(), replies::CONTROL_OCTET);
        assert_eq!(parse(b"NOOP\nQUIT").unwrap_err(), replies::BARE_NEWLINE);
        assert_eq!(parse(b"NOOP\rQUIT").unwrap_err(), replies::BARE_NEWLINE);
    }

    #[test]
    fn verbs_are_whole_words() {
        for line in ["", " ", "NOO", "NOOPS", "NOOP1 x", "DATADATADATA", " NOOP"] {
            assert_eq!(parse(line.as_bytes()).unwrap_err(), replies::UNKNOWN_COMMAND, "{line:?}");
        }
        assert!(matches!(parse(b"nOoP anything"), Ok(Command::Noop)));
        assert!(matches!(parse(b"starttls"), Ok(Command::StartTls)));
        assert!(matches!(parse(b"XFORWARD"), Ok(Command::NotOffered)));
    }

    #[test]
    fn paths_need_brackets() {
        let Ok(Command::Rcpt(Err(sentence))) = parse(b"RCPT TO:ann@example.net") else { panic!() };
        assert_eq!(sentence, replies::bad_recipient(AddressError::Unopened));
        assert_eq!(refusal("MAIL FROM:ann@example.net"), replies::bad_sender(AddressError::Unopened));
    }

    #[test]
    fn rcpt_takes_what_is_to_be_told_and_nothing_else() {
        let rcpt =
            |parameters: &str| match parse(format!("RCPT TO:<ann@example.net>{parameters}").as_bytes()) {
                Ok(Command::Rcpt(rcpt)) => rcpt
                    .map(|rcpt| (rcpt.asked.notify, rcpt.asked.original.map(|original| original.decoded()))),
                other => panic!("{parameters}: {other:?}"),
            };
        assert_eq!(rcpt("  "), Ok((Notify::UNSAID, None)));
        let (notify, original) = rcpt(" orcpt=rfc822;a+2Bb@c.test notify=Success,delay").unwrap();
        assert_eq!((notify.as_str(), original.as_deref()), ("SUCCESS,DELAY", Some("rfc822;a+b@c.test")));
        for wrong in
            [" NOTIFY", " NOTIFY=", " NOTIFY=NEVER,DELAY", " ORCPT", " ORCPT=ann", " ORCPT=rfc822;a+2"]
        {
            assert_eq!(rcpt(wrong), Err(replies::BAD_PARAMETER), "{wrong}");
        }
        assert_eq!(rcpt(" RET=FULL"), Err(replies::UNKNOWN_PARAMETER));
        assert_eq!(rcpt(" NOTIFY=NEVER NOTIFY=NEVER"), Err(replies::PARAMETER_TWICE));
        assert_eq!(rcpt("NOTIFY=NEVER"), Err(replies::RCPT_SYNTAX));
    }
}
