//! How a message is put to the peer: command by command, in groups, or in one send with BDAT.
//!
//! Nothing here decides what a refusal means for the run; it is noted in the [`Draft`] and the dialog goes on the
//! way RFC 2920 and RFC 3030 ask for, so that the connection can be used again. Recipients are written from their
//! numbers, a group at a time: memory does not grow with their count, only with the ranges refused.

use std::io;
use std::io::Write;
use std::ops::Range;
use std::time::Instant;

use super::wire::Wire;
use super::{Connection, Mode, SourceConfig};
use crate::client::{Secure, auth_plain};
use crate::content::Content;
use crate::recipient::Recipients;

/// Where a peer refused.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Stage {
    Connect,
    Ehlo,
    StartTls,
    Auth,
    Mail,
    Rcpt,
    Data,
    Dot,
}

impl Stage {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Stage::Connect => "connect",
            Stage::Ehlo => "ehlo",
            Stage::StartTls => "starttls",
            Stage::Auth => "auth",
            Stage::Mail => "mail",
            Stage::Rcpt => "rcpt",
            Stage::Data => "data",
            Stage::Dot => "dot",
        }
    }
}

/// One message on its way, and what became of it so far.
pub(crate) struct Draft {
    pub(crate) number: u64,
    /// When an open loop owed it.
    pub(crate) due: Option<Instant>,
    /// Connections lost before its content was out.
    pub(crate) losses: u32,
    mail_taken: bool,
    pub(crate) first_recipient: u64,
    pub(crate) recipient_count: u64,
    pub(crate) content: Vec<u8>,
    pub(crate) digest: u64,
    /// Recipients refused at RCPT, as ranges of numbers, both ends included.
    pub(crate) refused: Vec<(u64, u64)>,
    pub(crate) refused_count: u64,
    pub(crate) refusals: Vec<(Stage, u16, u64)>,
    /// When the end of the content went out.
    pub(crate) dot: Option<Instant>,
    /// The code that ended the transaction, and when it came.
    pub(crate) end: Option<(u16, Instant)>,
}

impl Draft {
    pub(crate) fn new() -> Draft {
        Draft {
            number: 0,
            due: None,
            losses: 0,
            mail_taken: false,
            first_recipient: 0,
            recipient_count: 0,
            content: Vec::new(),
            digest: 0,
            refused: Vec::new(),
            refused_count: 0,
            refusals: Vec::new(),
            dot: None,
            end: None,
        }
    }

    /// Becomes message `number`; buffers are kept.
    pub(crate) fn begin(&mut self, number: u64, due: Option<Instant>, recipients: u64, content: &Content) {
        (self.number, self.due, self.losses) = (number, due, 0);
        (self.first_recipient, self.recipient_count) = (number * recipients, recipients);
        self.digest = content.write(&mut self.content, number);
        self.begin_again();
    }

    /// The same message, for another connection.
    pub(crate) fn begin_again(&mut self) {
        self.refused.clear();
        self.refusals.clear();
        (self.refused_count, self.mail_taken) = (0, false);
        (self.dot, self.end) = (None, None);
    }

    pub(crate) fn is_accepted(&self) -> bool {
        self.end.is_some_and(|(code, _)| code < 300)
    }

    pub(crate) fn accepted_count(&self) -> u64 {
        self.recipient_count - self.refused_count
    }

    fn recipients(&self) -> Range<u64> {
        self.first_recipient..self.first_recipient + self.recipient_count
    }

    fn write_chunk(&mut self, out: &mut Vec<u8>) {
        let _infallible = write!(out, "BDAT {} LAST\r\n", self.content.len());
        out.extend_from_slice(&self.content);
        self.dot = Some(Instant::now());
    }

    /// A run of the same refusal is one entry.
    fn refuse(&mut self, stage: Stage, code: u16) {
        match self.refusals.last_mut() {
            Some(last) if (last.0, last.1) == (stage, code) => last.2 += 1,
            _ => self.refusals.push((stage, code, 1)),
        }
    }

    /// A refused MAIL ends the transaction; what else is answered in its group counts no more.
    fn take_mail(&mut self, code: u16) {
        self.mail_taken = code < 300;
        if !self.mail_taken {
            self.refuse(Stage::Mail, code);
            self.end = Some((code, Instant::now()));
        }
    }

    fn take_rcpt(&mut self, recipient: u64, code: u16) {
        if code < 300 || !self.mail_taken {
            return;
        }
        self.refuse(Stage::Rcpt, code);
        self.refused_count += 1;
        match self.refused.last_mut() {
            Some((_, last)) if *last + 1 == recipient => *last = recipient,
            _ => self.refused.push((recipient, recipient)),
        }
    }

    fn take_end(&mut self, stage: Stage, code: u16) {
        if code >= 300 && self.mail_taken {
            self.refuse(stage, code);
        }
        self.end = Some((code, Instant::now()));
    }
}

/// What all dialogs of a run say.
pub(crate) struct Script {
    mode: Mode,
    mail: Vec<u8>,
    helo: String,
    auth: Option<Vec<u8>>,
    secure: Option<Secure>,
    recipients: Recipients,
    group_max: u64,
}

/// What a greeting comes to: TLS, where it was asked for, or where it was refused and how.
pub(crate) type Greeted = Result<Option<Secured>, (Stage, u16)>;

/// What a handshake came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Secured {
    pub(crate) version: &'static str,
    pub(crate) is_resumed: bool,
}

impl Script {
    pub(crate) fn new(config: &SourceConfig, secure: Option<Secure>) -> Script {
        let mut mail = format!("MAIL FROM:<{}>", config.reverse_path);
        if let Some(delimiters) = &config.xverp {
            mail.push_str(" XVERP");
            mail.push_str(if delimiters.is_empty() { "" } else { "=" });
            mail.push_str(delimiters);
        }
        mail.push_str("\r\n");
        let recipients = config.recipients();
        let group_max = config.recipient_group.max(1);
        Script {
            mode: config.mode,
            mail: mail.into_bytes(),
            helo: config.helo.clone(),
            auth: config.account.as_ref().map(auth_plain),
            secure,
            recipients,
            group_max,
        }
    }

    /// How many messages fit one send: several only where one flight holds a whole transaction.
    pub(crate) fn window(&self, config: &SourceConfig, wire: &Wire) -> usize {
        let kept = config.connection == Connection::Kept;
        let whole = self.mode == Mode::Bdat && wire.offers.chunking && wire.offers.pipelining;
        if kept && whole && config.recipients_per_message <= self.group_max {
            config.window.max(1)
        } else {
            1
        }
    }

    /// Greets: EHLO, STARTTLS, AUTH, as far as they were asked for. A refusal is returned, not an error.
    pub(crate) async fn hello(&self, wire: &mut Wire) -> io::Result<Greeted> {
        let (implicit, offered) = match &self.secure {
            Some(secure) if secure.is_implicit() => (Some(secure), None),
            other => (None, other.as_ref()),
        };
        let mut secured = match implicit {
            Some(secure) => Some(shake_hands(wire, secure).await?),
            None => None,
        };
        let code = wire.reply().await?;
        if code != 220 {
            return Ok(Err((Stage::Connect, code)));
        }
        if let Err(code) = self.ehlo(wire).await? {
            return Ok(Err((Stage::Ehlo, code)));
        }
        if let Some(secure) = offered {
            let code = ask(wire, b"STARTTLS\r\n").await?;
            if code != 220 {
                return Ok(Err((Stage::StartTls, code)));
            }
            secured = Some(shake_hands(wire, secure).await?);
            if let Err(code) = self.ehlo(wire).await? {
                return Ok(Err((Stage::Ehlo, code)));
            }
        }
        Ok(self.authenticate(wire).await?.map(|()| secured))
    }

    /// EHLO, or HELO where that is refused.
    async fn ehlo(&self, wire: &mut Wire) -> io::Result<Result<(), u16>> {
        wire.out.extend_from_slice(format!("EHLO {}\r\n", self.helo).as_bytes());
        wire.flush().await?;
        if wire.extensions().await? == 250 {
            return Ok(Ok(()));
        }
        let code = ask(wire, format!("HELO {}\r\n", self.helo).as_bytes()).await?;
        Ok(if code == 250 { Ok(()) } else { Err(code) })
    }

    async fn authenticate(&self, wire: &mut Wire) -> io::Result<Result<(), (Stage, u16)>> {
        let Some(auth) = &self.auth else { return Ok(Ok(())) };
        let code = ask(wire, auth).await?;
        Ok(if code == 235 { Ok(()) } else { Err((Stage::Auth, code)) })
    }

    /// Puts `drafts` to the peer; more than one only as [`Script::window`] says. An error is a lost connection.
    pub(crate) async fn send(&self, wire: &mut Wire, drafts: &mut [Draft]) -> io::Result<()> {
        let lockstep = self.mode == Mode::Lockstep || !wire.offers.pipelining;
        let bdat = self.mode == Mode::Bdat && wire.offers.chunking;
        match drafts {
            [draft] if lockstep => self.step_by_step(wire, draft).await,
            [draft] if !bdat || draft.recipient_count > self.group_max => {
                self.in_groups(wire, draft, bdat).await
            }
            drafts => self.in_one_send(wire, drafts).await,
        }
    }

    async fn step_by_step(&self, wire: &mut Wire, draft: &mut Draft) -> io::Result<()> {
        let code = ask(wire, &self.mail).await?;
        draft.take_mail(code);
        if !draft.mail_taken {
            return Ok(());
        }
        for recipient in draft.recipients() {
            self.write_rcpt(&mut wire.out, recipient);
            wire.flush().await?;
            draft.take_rcpt(recipient, wire.reply().await?);
        }
        if draft.accepted_count() == 0 {
            return reset(wire).await;
        }
        let code = ask(wire, b"DATA\r\n").await?;
        self.put_data(wire, draft, code).await
    }

    /// MAIL, the recipients and the content or DATA in sends of at most `group_max` recipients.
    async fn in_groups(&self, wire: &mut Wire, draft: &mut Draft, bdat: bool) -> io::Result<()> {
        let recipients = draft.recipients();
        let mut first = recipients.start;
        wire.out.extend_from_slice(&self.mail);
        loop {
            let group = first..recipients.end.min(first + self.group_max);
            let is_last = group.end == recipients.end;
            group.clone().for_each(|recipient| self.write_rcpt(&mut wire.out, recipient));
            match (is_last, bdat) {
                (false, _) => {}
                (true, true) => draft.write_chunk(&mut wire.out),
                (true, false) => wire.out.extend_from_slice(b"DATA\r\n"),
            }
            wire.flush().await?;
            take_group(wire, draft, group.clone()).await?;
            if is_last {
                break;
            }
            if !draft.mail_taken {
                return Ok(());
            }
            first = group.end;
        }
        let code = wire.reply().await?;
        if bdat {
            draft.take_end(Stage::Dot, code);
            return Ok(());
        }
        self.put_data(wire, draft, code).await
    }

    /// Whole transactions, content and all, before the first reply.
    async fn in_one_send(&self, wire: &mut Wire, drafts: &mut [Draft]) -> io::Result<()> {
        for draft in drafts.iter_mut() {
            wire.out.extend_from_slice(&self.mail);
            draft.recipients().for_each(|recipient| self.write_rcpt(&mut wire.out, recipient));
            draft.write_chunk(&mut wire.out);
        }
        wire.flush().await?;
        for draft in drafts {
            take_group(wire, draft, draft.recipients()).await?;
            let code = wire.reply().await?;
            draft.take_end(Stage::Dot, code);
        }
        Ok(())
    }

    /// After the reply to DATA. RFC 2920 §3.1: a 354 wants a dot even when nobody is left to send to.
    async fn put_data(&self, wire: &mut Wire, draft: &mut Draft, code: u16) -> io::Result<()> {
        if code != 354 {
            draft.take_end(Stage::Data, code);
            return if draft.mail_taken { reset(wire).await } else { Ok(()) };
        }
        if draft.accepted_count() > 0 {
            stuff(&mut wire.out, &draft.content);
        }
        wire.out.extend_from_slice(b".\r\n");
        draft.dot = Some(Instant::now());
        wire.flush().await?;
        let code = wire.reply().await?;
        draft.take_end(Stage::Dot, code);
        Ok(())
    }

    fn write_rcpt(&self, out: &mut Vec<u8>, recipient: u64) {
        out.extend_from_slice(b"RCPT TO:<");
        self.recipients.write_to(out, recipient);
        out.extend_from_slice(b">\r\n");
    }
}

/// The replies to MAIL, where this group is the first, and to the recipients of the group.
async fn take_group(wire: &mut Wire, draft: &mut Draft, group: Range<u64>) -> io::Result<()> {
    if group.start == draft.first_recipient {
        let code = wire.reply().await?;
        draft.take_mail(code);
    }
    for recipient in group {
        let code = wire.reply().await?;
        draft.take_rcpt(recipient, code);
    }
    Ok(())
}

async fn shake_hands(wire: &mut Wire, secure: &Secure) -> io::Result<Secured> {
    let tls = wire.secure(secure).await?;
    Ok(Secured { version: tls.version(), is_resumed: tls.is_resumed() })
}

async fn ask(wire: &mut Wire, command: &[u8]) -> io::Result<u16> {
    wire.out.extend_from_slice(command);
    wire.flush().await?;
    wire.reply().await
}

async fn reset(wire: &mut Wire) -> io::Result<()> {
    ask(wire, b"RSET\r\n").await.map(|_| ())
}

/// RFC 5321 §4.5.2. Our content never begins with a dot: its first line is the token.
fn stuff(out: &mut Vec<u8>, content: &[u8]) {
    let mut from = 0;
    for at in memchr::memmem::find_iter(content, b"\r\n.") {
        out.extend_from_slice(&content[from..at + 2]);
        out.push(b'.');
        from = at + 2;
    }
    out.extend_from_slice(&content[from..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_are_doubled_at_line_starts_only() {
        let mut out = Vec::new();
        stuff(&mut out, b"a.b\r\n.\r\n..c\r\n");
        assert_eq!(out, b"a.b\r\n..\r\n...c\r\n");
    }

    #[test]
    fn refused_recipients_are_kept_as_ranges() {
        let mut draft = Draft::new();
        (draft.recipient_count, draft.mail_taken) = (10, true);
        for recipient in 0..10 {
            draft.take_rcpt(recipient, if [2, 3, 4, 9].contains(&recipient) { 550 } else { 250 });
        }
        assert_eq!(draft.refused, [(2, 4), (9, 9)]);
        assert_eq!(draft.accepted_count(), 6);
    }

    #[test]
    fn a_refused_mail_is_one_refusal_and_not_one_per_recipient() {
        let mut draft = Draft::new();
        draft.recipient_count = 2;
        draft.take_mail(450);
        draft.take_rcpt(0, 503);
        draft.take_rcpt(1, 503);
        draft.take_end(Stage::Dot, 503);
        assert_eq!(draft.refusals, [(Stage::Mail, 450, 1)]);
        assert!(!draft.is_accepted());
    }
}
