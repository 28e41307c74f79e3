//! One connection on which a client fetches its mail (RFC 1939).
//!
//! Decides, for each command, whether it is due and what it is answered; when a client has tried our patience; and that
//! messages are removed by a QUIT of whoever is logged in, and by nothing else: not by a connection that breaks, a client
//! that says nothing for too long, or a caller that stops.
//!
//! What takes longer than a look is a wish ([`Output`]); until it is answered we read no more, so the caller keeps what we
//! did not use. Trusts nothing that the peer sent. Bounds: [`crate::Limits`].

mod fetching;
mod login;
mod mailbox;

use crate::command::{self, Command, Wrong};
use crate::limits::{Policy, TlsUse};
use crate::line::{Line, Lines};
use crate::maildrop::Maildrop;
use crate::output::Output;
use crate::replies;
use crate::wire::Encoder;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The POP3 server side of one connection.
#[derive(Debug)]
pub struct Session {
    policy: Arc<Policy>,
    arrival: Arrival,
    lines: Lines,
    /// Of USER, until PASS.
    user: Option<String>,
    /// The client's response to AUTH is due.
    awaits_response: bool,
    maildrop: Option<Maildrop>,
    /// What LAST says.
    last: usize,
    waiting: Waiting,
    due: Option<Output>,
    /// A list that is not yet said whole.
    listing: Option<Listing>,
    replies: Vec<u8>,
    securing: Securing,
    ending: Ending,
    errors_count: u32,
    logins_count: u32,
    deadline: Instant,
}

/// Who comes, and how.
#[derive(Debug)]
pub struct Arrival {
    /// From the machine itself: passwords may come as they are.
    pub is_local: bool,
    /// TLS from the first octet (RFC 8314).
    pub is_encrypted: bool,
    /// APOP's, for this connection alone: `<UNIQUE@HOST>` (RFC 1939 §7). `None` where no secret could be compared.
    pub stamp: Option<Box<str>>,
}

/// What must come before we read on.
#[derive(Debug)]
enum Waiting {
    Nothing,
    Login(Box<str>),
    Maildrop,
    /// A message's content: this index, so many lines of it.
    Content(Box<Fetch>),
    Removal,
}

/// A message on its way.
#[derive(Debug)]
struct Fetch {
    index: usize,
    encoder: Encoder,
    /// `+OK` is said.
    has_begun: bool,
    /// By RETR.
    is_whole: bool,
}

/// What is listed of each message.
#[derive(Clone, Copy, Debug)]
struct Listing {
    what: Column,
    next: usize,
}

#[derive(Clone, Copy, Debug)]
enum Column {
    Len,
    Uid,
}

/// How octets come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Securing {
    Plain,
    /// STLS is answered, and the answer not taken.
    Agreed,
    Shaking,
    Encrypted,
}

/// How far the session is from its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ending {
    Open,
    /// Goodbye is said; we close when it was taken.
    Closing,
    Closed,
}

impl Session {
    /// Greets.
    pub fn new(now: Instant, policy: Arc<Policy>, arrival: Arrival) -> Session {
        let mut replies = Vec::new();
        match &arrival.stamp {
            Some(stamp) => replies::print(&mut replies, format_args!("{} {stamp}\r\n", replies::READY)),
            None => replies::say(&mut replies, replies::READY),
        }
        let securing = if arrival.is_encrypted { Securing::Encrypted } else { Securing::Plain };
        Session {
            deadline: now + Duration::from_secs(policy.idle_secs),
            policy,
            arrival,
            lines: Lines::default(),
            user: None,
            awaits_response: false,
            maildrop: None,
            last: 0,
            waiting: Waiting::Nothing,
            due: None,
            listing: None,
            replies,
            securing,
            ending: Ending::Open,
            errors_count: 0,
            logins_count: 0,
        }
    }

    /// Returns how many octets it used. It uses fewer when a bound is reached or something is wished for; the caller keeps
    /// the rest and calls again once replies were taken or the wish is answered.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) -> usize {
        let mut used = 0;
        while used < bytes.len() && !self.is_blocked() {
            if self.throws_away() {
                return bytes.len();
            }
            let (more, line) = self.lines.take(&bytes[used..], self.policy.limits.login_line_max);
            used += more;
            if let Some(line) = line {
                self.restart_deadline(now);
                self.on_line(line);
            }
        }
        if self.throws_away() { bytes.len() } else { used }
    }

    /// TLS's handshake is done. What came before it is forgotten (RFC 2595 §4).
    pub fn handle_encrypted(&mut self, now: Instant) {
        if self.securing == Securing::Shaking {
            self.securing = Securing::Encrypted;
            (self.user, self.lines) = (None, Lines::default());
            self.restart_deadline(now);
        }
    }

    /// A client that says nothing hears nothing (RFC 1939 §3), and its marks are worth nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|deadline| deadline <= now) {
            self.replies.clear();
            self.close();
        }
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.due.take() {
            return Some(output);
        }
        if !self.replies.is_empty() || self.listing.is_some() {
            return None;
        }
        if self.ending == Ending::Closing {
            self.ending = Ending::Closed;
            return Some(Output::Close);
        }
        if self.securing == Securing::Agreed {
            self.securing = Securing::Shaking;
            return Some(Output::BeginTls);
        }
        None
    }

    /// `None` while the client waits for us.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let waits_for_us = !matches!(self.waiting, Waiting::Nothing);
        (self.ending == Ending::Open && !waits_for_us).then_some(self.deadline)
    }

    /// Appends what may be sent now to `out`; true if there was anything. Call again until it is false.
    pub fn take_replies(&mut self, out: &mut Vec<u8>) -> bool {
        self.list_on();
        let has_any = !self.replies.is_empty();
        out.append(&mut self.replies);
        has_any
    }

    /// What the client sees, once it is logged in.
    pub fn maildrop(&self) -> Option<&Maildrop> {
        self.maildrop.as_ref()
    }

    /// True at a bound or a wish that something else than octets lifts.
    fn is_blocked(&self) -> bool {
        let waits = !matches!(self.waiting, Waiting::Nothing) || self.due.is_some() || self.listing.is_some();
        self.ending == Ending::Open && (waits || self.replies.len() >= self.policy.limits.replies_max)
    }

    /// Behind our goodbye nothing is read; nor between STLS and TLS, where whoever sits in between could have put it.
    fn throws_away(&self) -> bool {
        self.ending != Ending::Open || matches!(self.securing, Securing::Agreed | Securing::Shaking)
    }

    fn on_line(&mut self, line: Line) {
        let Line::Whole(line) = line else {
            self.awaits_response = false;
            return self.refuse(replies::LINE_TOO_LONG);
        };
        if std::mem::take(&mut self.awaits_response) {
            return self.on_response(&line);
        }
        // With CR LF.
        if line.len() + 2 > self.policy.limits.line_max && !command::is_login(&line) {
            return self.refuse(replies::LINE_TOO_LONG);
        }
        match command::parse(&line) {
            Ok(command) => self.on_command(command),
            Err(Wrong::Unknown) => self.refuse(replies::UNKNOWN_COMMAND),
            Err(Wrong::Arguments) => self.refuse(replies::BAD_ARGUMENTS),
            Err(Wrong::Name) => self.refuse(replies::BAD_NAME),
        }
    }

    fn on_command(&mut self, command: Command) {
        let is_logged_in = self.maildrop.is_some();
        match (is_logged_in, command) {
            (_, Command::Capa) => self.on_capa(),
            (_, Command::Quit) => self.on_quit(),
            (false, Command::Apop { user, digest }) => self.on_apop(user, digest),
            (false, Command::Auth(response)) => self.on_auth(response),
            (false, Command::User(user)) => self.on_user(user),
            (false, Command::Pass(password)) => self.on_pass(password),
            (false, Command::Stls) => self.on_stls(),
            (
                true,
                Command::Apop { .. } | Command::Auth(_) | Command::User(_) | Command::Pass(_) | Command::Stls,
            ) => self.refuse(replies::LOGGED_IN_ALREADY),
            (true, Command::Stat) => self.on_stat(),
            (true, Command::List(number)) => self.on_list(Column::Len, number),
            (true, Command::Uidl(number)) => self.on_list(Column::Uid, number),
            (true, Command::Retr(number)) => self.on_fetch(number, None),
            (true, Command::Top(number, lines)) => self.on_fetch(number, Some(lines)),
            (true, Command::Dele(number)) => self.on_dele(number),
            (true, Command::Noop) => self.say(replies::OK),
            (true, Command::Last) => self.on_last(),
            (true, Command::Rset) => self.on_rset(),
            (
                false,
                Command::Stat
                | Command::List(_)
                | Command::Uidl(_)
                | Command::Retr(_)
                | Command::Top(..)
                | Command::Dele(_)
                | Command::Noop
                | Command::Last
                | Command::Rset,
            ) => self.refuse(replies::LOGIN_FIRST),
        }
    }

    /// RFC 2449.
    fn on_capa(&mut self) {
        self.say("+OK");
        for capability in ["TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING"] {
            self.say(capability);
        }
        if self.maildrop.is_none() && self.takes_passwords() {
            self.say("USER");
            self.say("SASL PLAIN");
        }
        if self.maildrop.is_none() && self.offers_tls() {
            self.say("STLS");
        }
        self.say("EXPIRE NEVER");
        self.say("IMPLEMENTATION ringpost");
        self.say(replies::END);
    }

    fn offers_tls(&self) -> bool {
        self.policy.tls_use == TlsUse::Offer && self.securing == Securing::Plain
    }

    fn on_stls(&mut self) {
        if !self.offers_tls() {
            return self.refuse(replies::NOT_OFFERED);
        }
        self.say(replies::BEGIN_TLS);
        self.securing = Securing::Agreed;
    }

    fn restart_deadline(&mut self, now: Instant) {
        self.deadline = now + Duration::from_secs(self.policy.idle_secs);
    }

    fn say(&mut self, sentence: &str) {
        replies::say(&mut self.replies, sentence);
    }

    /// Counts: a client that errs too often is no client.
    fn refuse(&mut self, sentence: &str) {
        self.say(sentence);
        self.errors_count += 1;
        if self.errors_count >= self.policy.limits.errors_max {
            self.say(replies::TOO_MANY_ERRORS);
            self.close();
        }
    }

    fn close(&mut self) {
        self.ending = Ending::Closing;
        (self.waiting, self.due, self.listing) = (Waiting::Nothing, None, None);
        (self.user, self.lines) = (None, Lines::default());
    }
}

#[cfg(test)]
mod tests;
