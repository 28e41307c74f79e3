//! `ringpost local`: takes mail for mailboxes from the engine by LMTP, and has each recipient's process deliver it.
//!
//! A thread for each connection, which waits for deliveries one after the other. A content is kept in memory as a file
//! that nobody can write to any more; each recipient's process gets a descriptor of its own. What the addresses mean is
//! asked of [`local::virtual_domains`] here, whose they are is the launcher's to say.
//!
//! Trusts the engine with nothing but the right to deliver. Bounds: `sessions_max` connections; [`ROOM`] octets of
//! contents in all, past which 452; a connection that says nothing for [`IDLE`] is closed.

use super::lmtp::{Envelope, Session, Wish};
use super::wire;
use super::worker::Answer;
use crate::access::unquoted;
use crate::config::{Config, Local};
use local::failure::Failure;
use local::virtual_domains::Place;
use message::{MailboxRef, Reply, Verdict};
use parking_lot::{Condvar, Mutex, RwLock};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::sockopt::socket_peercred;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Octets of contents in memory.
const ROOM: u64 = 512 << 20;

/// A content waits so long for those before it to go.
const ROOM_WAIT: Duration = Duration::from_secs(60);

/// Connections that are ending, besides as many as may deliver.
const SESSIONS_SPARE: usize = 16;

const IDLE: Duration = Duration::from_secs(600);

const PIECE_LEN: usize = 64 << 10;

/// What comes on top of a message between its arrival and here.
const TRACE_MAX: u64 = 1 << 20;

/// Why it does not run.
#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    #[error("there is no [local] in the configuration")]
    NotConfigured,
    #[error("local: there is no user {0:?} on this system")]
    NoUser(String),
    #[error("local: {0}")]
    System(#[from] io::Error),
}

impl FrontError {
    pub fn exit_code(&self) -> u8 {
        if matches!(self, FrontError::System(_)) { 75 } else { 78 }
    }
}

/// What all connections share.
struct House {
    local: RwLock<Arc<Local>>,
    host_name: String,
    message_max: u64,
    /// Whose processes may speak here.
    callers: [u32; 3],
    room: Room,
    sessions: AtomicUsize,
}

/// Serves until SIGTERM. At SIGHUP `reread` says what is in force from then on.
pub fn serve(
    config: &Config,
    engine_uid: u32,
    listener: UnixListener,
    reread: impl Fn() -> Option<Config>,
    announce: impl FnOnce(),
) -> Result<(), FrontError> {
    let local = config.local.clone().ok_or(FrontError::NotConfigured)?;
    let house = Arc::new(House {
        callers: [0, rustix::process::geteuid().as_raw(), engine_uid],
        host_name: config.host_name.clone(),
        message_max: config.intake.message_size_max + TRACE_MAX,
        room: Room::new(ROOM),
        sessions: AtomicUsize::new(local.sessions_max + SESSIONS_SPARE),
        local: RwLock::new(Arc::new(local)),
    });
    let to_listen = Arc::clone(&house);
    std::thread::Builder::new().name("accept".into()).spawn(move || listen(&to_listen, &listener))?;
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
        let (mut end, mut reload) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
        announce();
        loop {
            tokio::select! {
                _ = end.recv() => return Ok(()),
                _ = reload.recv() => match reread().and_then(|config| config.local) {
                    Some(local) => {
                        *house.local.write() = Arc::new(local);
                        tracing::info!("the lists of local names are read again");
                    }
                    None => tracing::error!("nothing is reloaded"),
                },
            }
        }
    })
}

fn listen(house: &Arc<House>, listener: &UnixListener) {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "no connection could be accepted");
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        let take = |left: usize| left.checked_sub(1);
        if house.sessions.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_err() {
            let _ = (&stream).write_all(b"421 4.3.2 Too many connections\r\n");
            continue;
        }
        let of_session = Arc::clone(house);
        let run = move || {
            let result = Connection::new(&of_session, stream).and_then(Connection::serve);
            if let Err(error) = result {
                tracing::debug!(%error, "connection ended");
            }
            of_session.sessions.fetch_add(1, Ordering::AcqRel);
        };
        let thread = std::thread::Builder::new().name("session".into()).stack_size(256 << 10).spawn(run);
        if let Err(error) = thread {
            house.sessions.fetch_add(1, Ordering::AcqRel);
            tracing::warn!(%error, "a connection has no thread");
        }
    }
}

struct Connection<'a> {
    house: &'a House,
    stream: UnixStream,
    session: Session,
    content: Option<Content<'a>>,
    launcher: Option<OwnedFd>,
}

impl<'a> Connection<'a> {
    fn new(house: &'a House, stream: UnixStream) -> io::Result<Connection<'a>> {
        let caller = socket_peercred(&stream)?.uid.as_raw();
        if !house.callers.contains(&caller) {
            tracing::warn!(caller, "mail is taken from the engine alone");
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        stream.set_read_timeout(Some(IDLE))?;
        stream.set_write_timeout(Some(IDLE))?;
        let session = Session::new(&house.host_name, house.message_max);
        Ok(Connection { house, stream, session, content: None, launcher: None })
    }

    fn serve(mut self) -> io::Result<()> {
        let mut piece = vec![0; PIECE_LEN];
        let (mut start, mut end) = (0, 0);
        loop {
            let replies = self.session.take_replies();
            self.stream.write_all(&replies)?;
            match self.session.poll_wish() {
                Some(Wish::Close) => return Ok(()),
                Some(wish) => self.grant(wish)?,
                None if start < end => start += self.session.handle_bytes(&piece[start..end]),
                None => {
                    (start, end) = (0, self.stream.read(&mut piece)?);
                    if end == 0 {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn grant(&mut self, wish: Wish) -> io::Result<()> {
        match wish {
            Wish::Room(octets) => self.content = Some(Content::new(self.house)?.with_room(octets)),
            Wish::Content(octets) => {
                let content = match &mut self.content {
                    Some(content) => content,
                    none => none.insert(Content::new(self.house)?),
                };
                content.add(&octets)?;
            }
            Wish::Deliver(envelope) => {
                let replies = self.deliver(&envelope)?;
                self.session.handle_delivered(&replies);
            }
            Wish::Forget => self.content = None,
            Wish::Close => {}
        }
        Ok(())
    }

    fn deliver(&mut self, envelope: &Envelope) -> io::Result<Vec<Reply>> {
        let content = match self.content.take() {
            Some(content) => content,
            None => Content::new(self.house)?,
        };
        if content.is_too_much {
            let full = Reply::ours(452, (4, 3, 1), "Too much mail is being delivered already");
            return Ok(vec![full; envelope.recipients.len()]);
        }
        let message = content.finish()?;
        let local = Arc::clone(&self.house.local.read());
        let sender = plain(&envelope.sender);
        let mut replies = Vec::with_capacity(envelope.recipients.len());
        for recipient in &envelope.recipients {
            let (local_part, host) = match local.domains.place_of(&plain(recipient)) {
                Place::Local { local, host } => (local, host),
                Place::Remote { .. } => {
                    replies.push(Reply::ours(550, (5, 1, 1), "That is no mailbox of this machine"));
                    continue;
                }
            };
            let fields = [&b"deliver"[..], local_part.as_bytes(), host.as_bytes(), sender.as_bytes()];
            replies.push(self.ask(&local, &fields, &message).map_or_else(
                |error| {
                    tracing::warn!(%error, "the launcher does not answer");
                    Reply::ours(451, (4, 3, 0), "Mailboxes cannot be reached now")
                },
                reply_of,
            ));
        }
        Ok(replies)
    }

    /// Over the connection at hand, or a new one where that is another launcher's, who was asked nothing.
    fn ask(&mut self, local: &Local, fields: &[&[u8]], message: &Message<'_>) -> io::Result<Answer> {
        let mine = message.reader()?;
        let kept = self.launcher.take().filter(|kept| wire::send(kept, fields, Some(mine.as_fd())).is_ok());
        let launcher = match kept {
            Some(kept) => kept,
            None => {
                let fresh = connect(&local.launcher())?;
                wire::send(&fresh, fields, Some(mine.as_fd()))?;
                fresh
            }
        };
        let packet = wire::receive(&launcher)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        self.launcher = Some(launcher);
        Answer::read(&packet).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// The launcher's socket keeps packets apart.
pub(crate) fn connect(path: &Path) -> io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// As qmail has it: a local part without its quotes.
fn plain(address: &str) -> String {
    match MailboxRef::parse(address) {
        Ok(mailbox) if mailbox.local_part.starts_with('"') => {
            format!("{}@{}", unquoted(mailbox.local_part), mailbox.domain)
        }
        _ => address.to_owned(),
    }
}

fn reply_of(answer: Answer) -> Reply {
    match answer {
        Answer::Done(said) => {
            let line: String = said.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
            Reply::ours(250, (2, 1, 5), line.trim_end())
        }
        Answer::Failed(failure) => verdict_reply(&failure),
    }
}

fn verdict_reply(failure: &Failure) -> Reply {
    match failure.verdict() {
        Verdict::Delivered(reply) | Verdict::Deferred(reply) | Verdict::Failed(reply) => reply,
    }
}

/// Octets that contents may have together.
struct Room {
    left: Mutex<u64>,
    was_given_back: Condvar,
}

impl Room {
    fn new(octets: u64) -> Room {
        Room { left: Mutex::new(octets), was_given_back: Condvar::new() }
    }

    /// False if there is none within that time.
    fn take(&self, octets: u64, within: Duration) -> bool {
        let mut left = self.left.lock();
        let is_too_little = |left: &mut u64| *left < octets;
        if self.was_given_back.wait_while_for(&mut left, is_too_little, within).timed_out() && *left < octets
        {
            return false;
        }
        *left -= octets;
        true
    }

    fn give_back(&self, octets: u64) {
        *self.left.lock() += octets;
        self.was_given_back.notify_all();
    }
}

/// A content on its way in: CR LF becomes LF, as files have it.
struct Content<'a> {
    house: &'a House,
    file: File,
    out: Vec<u8>,
    has_cr: bool,
    /// Octets of the house's room that it has, and how many it has used.
    room: u64,
    used: u64,
    is_too_much: bool,
}

impl<'a> Content<'a> {
    fn new(house: &'a House) -> io::Result<Content<'a>> {
        let file = File::from(memfd_create("message", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
        Ok(Content { house, file, out: Vec::new(), has_cr: false, room: 0, used: 0, is_too_much: false })
    }

    /// All that it will need, before any of it is there: many that had a part each would wait for one another. Waits while
    /// others are delivered; if that takes too long it goes on with what there is.
    fn with_room(mut self, octets: u64) -> Content<'a> {
        let octets = octets.min(ROOM);
        self.room = if self.house.room.take(octets, ROOM_WAIT) { octets } else { 0 };
        self
    }

    fn add(&mut self, octets: &[u8]) -> io::Result<()> {
        self.used += octets.len() as u64;
        let more = self.used.saturating_sub(self.room);
        if self.is_too_much || more > 0 && !self.house.room.take(more, Duration::ZERO) {
            self.is_too_much = true;
            return Ok(());
        }
        self.room += more;
        self.out.clear();
        unix_lines(octets, &mut self.has_cr, &mut self.out);
        self.file.write_all(&self.out)
    }

    fn finish(mut self) -> io::Result<Message<'a>> {
        if std::mem::take(&mut self.has_cr) {
            self.file.write_all(b"\r")?;
        }
        fcntl_add_seals(
            &self.file,
            SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
        )?;
        Ok(Message { content: self })
    }
}

impl Drop for Content<'_> {
    fn drop(&mut self) {
        self.house.room.give_back(self.room);
    }
}

/// A whole content, which nobody can change.
struct Message<'a> {
    content: Content<'a>,
}

impl Message<'_> {
    /// With a place of its own: a program that is still reading does not move another's.
    fn reader(&self) -> io::Result<OwnedFd> {
        let path = format!("/proc/self/fd/{}", self.content.file.as_raw_fd());
        Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
    }
}

/// `has_cr`: the octet before these was a CR that has not been written yet.
fn unix_lines(octets: &[u8], has_cr: &mut bool, out: &mut Vec<u8>) {
    for octet in octets {
        if std::mem::replace(has_cr, *octet == b'\r') && *octet != b'\n' {
            out.push(b'\r');
        }
        if *octet != b'\r' {
            out.push(*octet);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn room_is_waited_for_and_comes_back() {
        let room = Room::new(10);
        assert!(room.take(7, Duration::ZERO) && !room.take(4, Duration::ZERO));
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| room.take(10, Duration::from_secs(60)));
            room.give_back(7);
            assert!(waits.join().unwrap());
        });
        assert!(!room.take(1, Duration::from_millis(1)));
    }

    fn lines(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut has_cr, mut out) = (false, Vec::new());
        pieces.iter().for_each(|piece| unix_lines(piece, &mut has_cr, &mut out));
        out.extend(has_cr.then_some(b'\r'));
        out
    }

    #[test]
    fn line_ends_become_the_systems_and_lone_crs_stay() {
        assert_eq!(lines(&[b"a\r\nb\r", b"\nc\rd\r\r", b"\n\re\r"]), b"a\nb\nc\rd\r\n\re\r");
    }

    #[test]
    fn addresses_lose_their_quotes() {
        assert_eq!(plain("\"a \\\"b\"@h.test"), "a \"b@h.test");
        assert_eq!(plain("ann@h.test"), "ann@h.test");
        assert_eq!(plain(""), "");
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(octets in "[ab\r\n]{0,40}", at in 0usize..40) {
            let octets = octets.as_bytes();
            let at = at.min(octets.len());
            prop_assert_eq!(lines(&[&octets[..at], &octets[at..]]), lines(&[octets]));
            prop_assert_eq!(lines(&[octets]), String::from_utf8_lossy(octets).replace("\r\n", "\n").into_bytes());
        }
    }
}
