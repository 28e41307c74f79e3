//! One client: carries octets and wishes between the socket, the session and the Maildir.
//!
//! Bounds: a client has [`HANDSHAKE_SECS`] for a handshake, and the idle limit to take a piece of what we say; a piece of a
//! message is [`PIECE_LEN`] octets. A login waits for the authenticator, which has bounds of its own.

use super::House;
use super::mailbox::{Mailbox, Remote};
use super::maildir::Maildir;
use super::wire::Wire;
use crate::auth;
use crate::clock;
use ::pop3::maildrop::Maildrop;
use ::pop3::{Arrival, Attempt, Login, Output, Session, Unavailable, Unreadable};
use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};
use zeroize::{Zeroize as _, Zeroizing};

const HANDSHAKE_SECS: u64 = 60;

/// Octets read from a file at once; they may be twice as many on the wire.
const PIECE_LEN: usize = 32 << 10;

/// Octets read from the client at once.
const INPUT_LEN: usize = 4096;

/// See the module.
struct Connection<'a> {
    house: &'a House,
    tls: Option<Arc<rustls::ServerConfig>>,
    apop: Option<Arc<auth::Passwords>>,
    address: IpAddr,
    wire: Wire,
    session: Session,
    mailbox: Option<Mailbox>,
    out: Vec<u8>,
    summary: Summary,
}

/// What the operator's log says of a session.
#[derive(Debug, Default)]
struct Summary {
    user: Option<Box<str>>,
    read: usize,
    removed: usize,
}

/// To the end of the connection. `is_tls`: from the first octet on.
pub(super) fn run(house: &House, stream: TcpStream, address: IpAddr, is_tls: bool) {
    let ended = Connection::open(house, stream, address, is_tls).and_then(|mut connection| {
        let served = connection.serve();
        let Summary { user, read, removed } = &connection.summary;
        if let Some(user) = user {
            tracing::info!(user, %address, read, removed, "mail was fetched");
        }
        served.map(|()| connection.wire.close(clock::now() + Duration::from_secs(1)))
    });
    if let Err(error) = ended {
        tracing::debug!(%address, %error, "connection ended");
    }
}

impl<'a> Connection<'a> {
    fn open(
        house: &'a House,
        stream: TcpStream,
        address: IpAddr,
        is_tls: bool,
    ) -> io::Result<Connection<'a>> {
        let super::Files { tls, apop } = house.files.read().clone();
        let mut wire = Wire::new(stream)?;
        if is_tls {
            let config = tls.as_ref().ok_or(ErrorKind::Unsupported)?;
            wire.shake_hands(config, handshake_deadline())?;
        }
        let arrival = Arrival {
            is_local: address.to_canonical().is_loopback(),
            is_encrypted: is_tls,
            stamp: apop.as_ref().and_then(|_| house.stamp()),
        };
        let session = Session::new(clock::now(), Arc::clone(&house.policy), arrival);
        let (out, summary) = (Vec::new(), Summary::default());
        Ok(Connection { house, tls, apop, address, wire, session, mailbox: None, out, summary })
    }

    /// `Ok`: the session said that it is over. An error, or the client's end, changes nothing in the Maildir.
    fn serve(&mut self) -> io::Result<()> {
        let mut input = Zeroizing::new([0; INPUT_LEN]);
        let (mut start, mut end) = (0, 0);
        loop {
            self.flush()?;
            match self.session.poll_output() {
                Some(Output::Close) => return Ok(()),
                Some(output) => self.carry_out(output)?,
                None if start < end => {
                    start += self.session.handle_bytes(clock::now(), &input[start..end]);
                }
                None => {
                    input[..end].zeroize();
                    (start, end) = (0, self.read(&mut *input)?);
                }
            }
        }
    }

    /// None when it was too long in coming, which the session knows then.
    fn read(&mut self, input: &mut [u8]) -> io::Result<usize> {
        let deadline = self.session.poll_timeout().unwrap_or_else(clock::now);
        match self.wire.read(input, deadline) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                self.session.handle_timeout(clock::now());
                Ok(0)
            }
            read => read,
        }
    }

    /// Sends all that the session has to say.
    fn flush(&mut self) -> io::Result<()> {
        while self.session.take_replies(&mut self.out) {
            let deadline = clock::now() + Duration::from_secs(self.house.config.idle_timeout_secs);
            self.wire.write_all(&self.out, deadline)?;
            self.out.clear();
        }
        Ok(())
    }

    fn carry_out(&mut self, output: Output) -> io::Result<()> {
        match output {
            Output::Check(attempt) => {
                let login = self.check(attempt);
                self.session.handle_login(clock::now(), login);
            }
            Output::Open(user) => {
                let opened = self.open_maildrop(user);
                self.session.handle_maildrop(clock::now(), opened);
            }
            Output::Read(index) => self.send(index)?,
            Output::Remove(marked) => {
                let left = self.remove(&marked);
                self.summary.removed = marked.len() - left;
                self.session.handle_removed(clock::now(), left);
            }
            Output::BeginTls => {
                let config = self.tls.as_ref().ok_or(ErrorKind::Unsupported)?;
                self.wire.shake_hands(config, handshake_deadline())?;
                self.session.handle_encrypted(clock::now());
            }
            // The caller's.
            Output::Close => {}
        }
        Ok(())
    }

    fn check(&self, attempt: Attempt) -> Login {
        let attempt = match (attempt, &self.apop) {
            (Attempt::Password { user, password }, _) => {
                auth::Attempt::Password { user: user.into(), password }
            }
            (Attempt::Apop { user, stamp, digest }, Some(of)) => {
                let of = Arc::clone(of);
                auth::Attempt::Apop { user: user.into(), stamp: stamp.into(), digest, of }
            }
            (Attempt::Apop { .. }, None) => return Login::Unavailable,
        };
        let (says, hears) = sync_channel(1);
        self.house.auth.check(Some(self.address), attempt, move |outcome| {
            let _ = says.send(outcome);
        });
        match hears.recv() {
            Ok(auth::Outcome::Accepted { .. }) => Login::Right,
            Ok(auth::Outcome::Wrong) => Login::Wrong,
            Ok(auth::Outcome::Unavailable | auth::Outcome::Scram(_)) | Err(_) => Login::Unavailable,
        }
    }

    fn open_maildrop(&mut self, user: Box<str>) -> Result<Maildrop, Unavailable> {
        let Some(path) = self.house.config.mailbox_of(&user) else {
            tracing::warn!(user, "logged in with a name that can be in no path");
            return Err(Unavailable::Missing);
        };
        let mailbox = match &self.house.launcher {
            Some(launcher) => Remote::open(launcher, &user).map(Mailbox::There),
            None => Maildir::open(&path).map(Mailbox::Here),
        };
        let opened = mailbox.and_then(|mailbox| {
            let maildrop = mailbox.maildrop()?;
            Ok((mailbox, maildrop))
        });
        match opened {
            Ok((mailbox, maildrop)) => {
                self.mailbox = Some(mailbox);
                self.summary.user = Some(user);
                Ok(maildrop)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                tracing::warn!(user, path = %path.base.join(&path.below).display(), "there is no such Maildir");
                Err(Unavailable::Missing)
            }
            Err(error) => {
                tracing::error!(user, path = %path.base.join(&path.below).display(), %error, "a Maildir cannot be read");
                Err(Unavailable::Failed)
            }
        }
    }

    fn send(&mut self, index: usize) -> io::Result<()> {
        match self.open_message(index) {
            Ok(Some(file)) => self.stream(file),
            Ok(None) => {
                self.session.handle_unreadable(clock::now(), Unreadable::Vanished);
                Ok(())
            }
            Err(error) => {
                self.fail_reading(&error);
                Ok(())
            }
        }
    }

    fn open_message(&self, index: usize) -> io::Result<Option<File>> {
        let entry = self.session.maildrop().and_then(|maildrop| maildrop.entry(index));
        match (&self.mailbox, entry) {
            (Some(mailbox), Some(entry)) => mailbox.open_message(entry),
            _ => Ok(None),
        }
    }

    fn stream(&mut self, mut file: File) -> io::Result<()> {
        let mut piece = vec![0; PIECE_LEN];
        while self.session.wants_content() {
            match file.read(&mut piece) {
                Ok(0) => break,
                Ok(len) => {
                    self.session.handle_content(&piece[..len]);
                    self.flush()?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.fail_reading(&error);
                    return Ok(());
                }
            }
        }
        self.summary.read += 1;
        self.session.handle_content_end(clock::now());
        Ok(())
    }

    fn fail_reading(&mut self, error: &io::Error) {
        tracing::error!(user = self.summary.user, %error, "a message cannot be read");
        self.session.handle_unreadable(clock::now(), Unreadable::Failed);
    }

    /// How many are left.
    fn remove(&self, marked: &[usize]) -> usize {
        let (Some(mailbox), Some(maildrop)) = (&self.mailbox, self.session.maildrop()) else {
            return marked.len();
        };
        let entries: Vec<_> = marked.iter().filter_map(|index| maildrop.entry(*index)).collect();
        mailbox.remove(&entries)
    }
}

fn handshake_deadline() -> Instant {
    clock::now() + Duration::from_secs(HANDSHAKE_SECS)
}
