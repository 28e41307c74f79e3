//! Commands: which is due now, and what it does (RFC 5321 §4.1).

use super::refusing::About;
use super::{Helo, Reading, Session};
use crate::command::{self, Command, Mail, Rcpt};
use crate::data::DataReader;
use crate::door::{Client, Door, Entry};
use crate::limits::{Gate, TurnUse};
use crate::output::Stage;
use crate::replies::{self, No, Offers, Sentence};
use crate::transaction::Transaction;
use message::{BodyKind, ForwardPath, MailboxRef, RecipientAsked};
use std::sync::Arc;

/// What has been agreed on so far; decides which commands are due.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// Before EHLO or HELO.
    Start,
    Ready,
    /// After MAIL.
    Envelope,
    /// After a first BDAT.
    Chunks,
}

/// Commands.
impl Session {
    pub(super) fn on_command_line(&mut self, door: &mut dyn Door, line: &[u8]) {
        self.stage = Stage::Command;
        match command::parse(line) {
            Ok(command) => self.on_command(door, command),
            Err(sentence) => self.refuse(sentence),
        }
    }

    /// What is out of turn is not counted as an error: whoever pipelines cannot know that what it builds on
    /// was refused.
    fn on_command(&mut self, door: &mut dyn Door, command: Command<'_>) {
        use Phase::{Chunks, Envelope, Ready, Start};
        self.stage = stage_of(&command);
        if is_idle(&command) && self.is_idling() {
            return self.close_with(replies::TOO_MANY_IDLE);
        }
        if self.policy.turn_use == TurnUse::Only && is_about_mail(&command) {
            return self.refuse(replies::NOT_OFFERED);
        }
        match (self.phase(), command) {
            (Envelope, Command::Rcpt(path)) => self.on_rcpt(door, path),
            (Start | Ready, Command::Rcpt(_)) => self.say(replies::MAIL_FIRST),
            (Chunks, Command::Rcpt(_)) => self.say(replies::CHUNKS_BEGUN),
            (Ready, Command::Mail(mail)) => self.on_mail(door, mail),
            (Start, Command::Mail(_)) => self.say(replies::HELO_FIRST),
            (Envelope | Chunks, Command::Mail(_)) => self.say(replies::NESTED_MAIL),
            (Envelope, Command::Data) => self.on_data(door.gate()),
            (Start | Ready, Command::Data) => self.say(replies::MAIL_FIRST),
            (Chunks, Command::Data) => self.say(replies::CHUNKS_BEGUN),
            (_, Command::Bdat(chunk)) => self.on_bdat(door.gate(), chunk),
            (_, Command::UnsizedBdat) => self.close_with(replies::BDAT_SYNTAX),
            (_, Command::Ehlo(name)) => self.on_helo(name, true),
            (_, Command::Helo(name)) => self.on_helo(name, false),
            (_, Command::Rset) => self.on_rset(),
            (_, Command::Noop) => self.say(replies::NOTHING_DONE),
            (_, Command::Vrfy) => self.say(replies::CANNOT_VERIFY),
            (_, Command::Help) => self.say(replies::HELP),
            (_, Command::Quit) => self.close_with(replies::BYE),
            (Ready, Command::Etrn(flush)) => self.on_etrn(flush),
            (Start, Command::Etrn(_)) => self.say(replies::HELO_FIRST),
            (Envelope | Chunks, Command::Etrn(_)) => self.say(replies::IN_TRANSACTION),
            // Some clients greet nobody in plain text, and RFC 3207 does not ask them to.
            (Start | Ready, Command::StartTls) => self.on_starttls(),
            (Envelope | Chunks, Command::StartTls) => self.say(replies::IN_TRANSACTION),
            (Ready, Command::Auth(auth)) => self.on_auth(auth),
            (Start, Command::Auth(_)) => self.say(replies::HELO_FIRST),
            (Envelope | Chunks, Command::Auth(_)) => self.say(replies::IN_TRANSACTION),
            (Ready, Command::Atrn(domains)) => self.on_atrn(domains),
            (Start, Command::Atrn(_)) => self.say(replies::HELO_FIRST),
            (Envelope | Chunks, Command::Atrn(_)) => self.say(replies::IN_TRANSACTION),
            (Start | Ready, Command::Xclient(attributes)) => self.on_xclient(attributes),
            (Envelope | Chunks, Command::Xclient(_)) => self.say(replies::IN_TRANSACTION),
            (_, Command::NotOffered) => self.refuse(replies::NOT_OFFERED),
            (_, Command::WebRequest) => self.close_with(replies::NOT_A_WEB_SERVER),
        }
    }

    fn phase(&self) -> Phase {
        match (&self.helo, &self.transaction) {
            (None, _) => Phase::Start,
            (Some(_), None) => Phase::Ready,
            (Some(_), Some(transaction)) if transaction.chunks_begun => Phase::Chunks,
            (Some(_), Some(_)) => Phase::Envelope,
        }
    }

    pub(super) fn is_in_chunks(&self) -> bool {
        self.transaction.as_ref().is_some_and(|transaction| transaction.chunks_begun)
    }

    /// Counts one more command that brings no mail on; true if that is one too many.
    pub(super) fn is_idling(&mut self) -> bool {
        self.idle_count += 1;
        self.idle_count > self.policy.limits.idle_commands_max
    }

    /// RFC 5321 §4.1.4: a later EHLO is also a RSET.
    fn on_helo(&mut self, name: &str, extended: bool) {
        self.transaction = None;
        self.helo = Some(Helo { name: name.into(), extended });
        if extended {
            let offers = self.offers();
            let mut text = Vec::new();
            match self.policy.turn_use {
                TurnUse::Only => replies::ehlo_of_turns(&self.policy, &offers, &mut text),
                TurnUse::Never | TurnUse::Offer => replies::ehlo(&self.policy, &offers, &mut text),
            }
            self.replies.tail().append(&mut text);
        } else {
            replies::helo(&self.policy, self.replies.tail());
        }
    }

    /// What this client may use now.
    fn offers(&self) -> Offers<'_> {
        Offers {
            size_max: self.size_max(),
            starttls: self.offers_tls(),
            requiretls: self.client.is_encrypted,
            mechanisms: self.offered_mechanisms(),
            etrn: self.client.rights.may_flush,
            atrn: self.policy.turn_use != TurnUse::Never,
            xclient: self.is_front,
        }
    }

    /// The client's own bound, if it is the lower one.
    pub(super) fn size_max(&self) -> u64 {
        let size_max = self.policy.limits.size_max;
        self.client.rights.size_max.map_or(size_max, |own| own.min(size_max))
    }

    fn on_rset(&mut self) {
        self.transaction = None;
        self.say(replies::RESET);
    }
}

/// Envelopes.
impl Session {
    fn on_mail(&mut self, door: &mut dyn Door, mail: Result<Mail, Sentence>) {
        if let Err(sentence) = self.check_way() {
            return self.refuse(sentence);
        }
        let mail = match mail {
            Ok(mail) => mail,
            Err(sentence) => return self.refuse(sentence),
        };
        match self.check_mail(door, &mail) {
            Ok(()) => {
                self.transaction = Some(Box::new(Transaction::new(mail, self.size_max())));
                self.say(replies::SENDER_OK);
            }
            Err(no) => {
                let about = About { sender: Some(mail.reverse_path.as_str()), recipient: None };
                self.say_no(&no, about);
            }
        }
    }

    /// Whether mail may come by this connection as it is.
    fn check_way(&self) -> Result<(), Sentence> {
        let Client { login, rights, .. } = &*self.client;
        match () {
            () if self.must_secure() => Err(replies::TLS_FIRST),
            () if self.policy.needs_login && login.is_none() && !rights.may_relay => {
                Err(replies::LOGIN_FIRST)
            }
            () => Ok(()),
        }
    }

    fn check_mail(&self, door: &mut dyn Door, mail: &Mail) -> Result<(), No> {
        if mail.body == BodyKind::BinaryMime && !self.policy.offer_chunking {
            return Err(replies::BAD_PARAMETER.into());
        }
        if mail.requires_tls && !self.client.is_encrypted {
            return Err(replies::REQUIRETLS_IN_PLAIN.into());
        }
        if mail.size.is_some_and(|size| size > self.size_max()) {
            return Err(replies::TOO_BIG.into());
        }
        check_gate(door.gate())?;
        door.sender(&self.client, &mail.reverse_path, mail.size).map_err(No::Theirs)
    }

    /// The hot path of a large list: no allocation beyond the list's own growth.
    fn on_rcpt(&mut self, door: &mut dyn Door, rcpt: Result<Rcpt<'_>, Sentence>) {
        let Rcpt { path, asked } = match rcpt {
            Ok(rcpt) => rcpt,
            Err(sentence) => return self.refuse_recipient(&sentence.into(), None),
        };
        let policy = Arc::clone(&self.policy);
        let mailbox = match path {
            ForwardPath::Mailbox(mailbox) => mailbox,
            ForwardPath::Postmaster => MailboxRef { local_part: "postmaster", domain: &policy.host_name },
        };
        match self.add_recipient(door, mailbox, asked, path == ForwardPath::Postmaster) {
            Ok(()) => self.say(replies::RECIPIENT_OK),
            Err(no) => self.refuse_recipient(&no, Some(mailbox)),
        }
    }

    /// RFC 5321 §4.5.1: `<postmaster>` is heard whatever its sender is listed for.
    fn add_recipient(
        &mut self,
        door: &mut dyn Door,
        mailbox: MailboxRef<'_>,
        asked: RecipientAsked<'_>,
        is_postmaster: bool,
    ) -> Result<(), No> {
        let Some(transaction) = &mut self.transaction else {
            return Err(replies::MAIL_FIRST.into());
        };
        transaction.check_recipient(mailbox, asked, self.policy.limits.recipients_max)?;
        if let (Some(refusal), false) = (&self.client.rights.refusal, is_postmaster) {
            return Err(No::Theirs(refusal.clone()));
        }
        let sender = &transaction.envelope.reverse_path;
        match door.recipient(&self.client, sender, mailbox).map_err(No::Theirs)? {
            Entry::AsGiven => transaction.add_recipient(mailbox, asked)?,
            Entry::As(other) => transaction.add_recipient(other.as_ref(), asked)?,
        }
        Ok(())
    }

    /// The list of a client that may relay can have any number of bad addresses; whoever may not is guessing, unless it
    /// is asked to come again.
    fn refuse_recipient(&mut self, no: &No, mailbox: Option<MailboxRef<'_>>) {
        if let Some(transaction) = &mut self.transaction {
            transaction.note_refused_recipient();
        }
        let recipient = mailbox.map(|mailbox| (mailbox.local_part, mailbox.domain));
        let about = About { sender: None, recipient };
        let may_relay = self.client.rights.may_relay;
        match may_relay {
            true => self.say_no(no, about),
            false if no.is_permanent() => self.refuse_about(no, about),
            false if self.is_idling() => self.close_with(replies::TOO_MANY_IDLE),
            false => self.say_no(no, about),
        }
    }

    fn on_data(&mut self, gate: Gate) {
        let Some(transaction) = &mut self.transaction else {
            return self.say(replies::MAIL_FIRST);
        };
        let check = match transaction.envelope.body {
            BodyKind::BinaryMime => Err(replies::BINARY_NEEDS_BDAT),
            BodyKind::SevenBit | BodyKind::EightBitMime => transaction.check_recipients(),
        };
        match check.and_then(|()| check_gate(gate)) {
            Ok(()) => {
                transaction.reserve();
                self.reading = Reading::Data(DataReader::new());
                self.begin_blocks();
                self.say(replies::SEND_DATA);
            }
            Err(sentence) => self.say(sentence),
        }
    }
}

pub(super) fn check_gate(gate: Gate) -> Result<(), Sentence> {
    match gate {
        Gate::Open => Ok(()),
        Gate::Full => Err(replies::QUEUE_FULL),
        Gate::Broken => Err(replies::QUEUE_BROKEN),
    }
}

fn stage_of(command: &Command<'_>) -> Stage {
    match command {
        Command::Mail(_) => Stage::Mail,
        Command::Rcpt(_) => Stage::Rcpt,
        Command::Data | Command::Bdat(_) | Command::UnsizedBdat => Stage::Content,
        Command::Auth(_) => Stage::Auth,
        Command::StartTls => Stage::Handshake,
        _ => Stage::Command,
    }
}

/// What is refused where no mail is taken (RFC 2645 §5.4).
fn is_about_mail(command: &Command<'_>) -> bool {
    match command {
        Command::Mail(_) | Command::Rcpt(_) | Command::Data | Command::Bdat(_) | Command::UnsizedBdat => true,
        Command::Vrfy | Command::Help | Command::Etrn(_) => true,
        Command::Ehlo(_) | Command::Helo(_) | Command::Rset | Command::Noop | Command::Quit => false,
        Command::StartTls | Command::Auth(_) | Command::Atrn(_) | Command::Xclient(_) => false,
        Command::NotOffered | Command::WebRequest => false,
    }
}

/// Commands that bring no mail on by themselves. MAIL is one: a message that is taken starts the count over.
fn is_idle(command: &Command<'_>) -> bool {
    match command {
        Command::Mail(_) | Command::Ehlo(_) | Command::Helo(_) | Command::Rset | Command::Noop => true,
        Command::Vrfy | Command::Help | Command::Etrn(_) | Command::StartTls => true,
        Command::Auth(_) | Command::Atrn(_) | Command::Xclient(_) => true,
        Command::Rcpt(_) | Command::Data | Command::Bdat(_) | Command::UnsizedBdat | Command::Quit => false,
        Command::NotOffered | Command::WebRequest => false,
    }
}
