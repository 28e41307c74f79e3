//! The parts of ringpost, each a process of its own, and the sockets that one is handed when it is started.
//!
//! Whoever starts a part ([`crate::supervise`]) binds its sockets and sends them over standard input, which is a Unix
//! socket then: so the parts need no right to bind a port, and connections wait while one of them is started again. That
//! socket's end is the starter's: a part without one ends too. Started by hand, a part is handed nothing and binds for
//! itself. Bound: [`HANDED_MAX`] sockets.

use crate::mailboxes::wire;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// As many listeners as a configuration may have, for 64 cores each.
pub const HANDED_MAX: usize = 64 * 64;

/// The option with which a part is told to look for its sockets.
pub const HANDED_OPTION: &str = "--handed";

/// One process's task.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// Takes mail in, keeps it and sends it out.
    Engine,
    /// Takes mail for mailboxes from the engine.
    Local,
    /// Starts processes with their user's rights.
    Launch,
    /// Answers POP3 clients.
    Pop3,
    /// Delivers for one user.
    Deliver,
    /// Reads and removes one user's mail for a POP3 session.
    Mailbox,
}

impl Part {
    /// The command that it is.
    pub fn word(self) -> &'static str {
        match self {
            Part::Engine => "serve",
            Part::Local => "local",
            Part::Launch => "launch",
            Part::Pop3 => "pop3",
            Part::Deliver => "deliver-as-user",
            Part::Mailbox => "mailbox-as-user",
        }
    }
}

/// What a socket is called on its way: its address or path.
pub(crate) fn name_of(address: SocketAddr) -> String {
    format!("tcp {address}")
}

pub(crate) fn name_of_path(path: &Path) -> String {
    format!("unix {}", path.display())
}

type Sockets = Vec<(String, VecDeque<OwnedFd>)>;

/// Sockets that a part was handed, by name. Several of one name are for several cores.
#[derive(Clone, Debug, Default)]
pub struct Handed {
    sockets: Arc<Mutex<Sockets>>,
    is_supervised: bool,
}

impl Handed {
    /// All that standard input has, and from then on the end of the starter is ours.
    pub fn receive() -> io::Result<Handed> {
        let mut sockets = Sockets::new();
        let mut count = 0;
        loop {
            let packet = wire::receive(io::stdin())?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let Some(["socket", name]) = packet.texts() else { break };
            let socket = packet.descriptor.as_ref().ok_or(io::ErrorKind::InvalidData)?.try_clone()?;
            count += 1;
            if count > HANDED_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            match sockets.iter_mut().find(|(known, _)| known == name) {
                Some((_, of_name)) => of_name.push_back(socket),
                None => sockets.push((name.to_owned(), VecDeque::from([socket]))),
            }
        }
        Ok(Handed { sockets: Arc::new(Mutex::new(sockets)), is_supervised: true })
    }

    pub fn is_supervised(&self) -> bool {
        self.is_supervised
    }

    /// Tells the starter that the part is at work, and ends this process when the starter has gone.
    pub fn ready(&self) -> io::Result<()> {
        if !self.is_supervised {
            return Ok(());
        }
        wire::send(io::stdin(), &[b"ready"], None)?;
        let watch = || {
            while let Ok(Some(_)) = wire::receive(io::stdin()) {}
            tracing::warn!("whoever started this part has gone: it ends");
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
        };
        std::thread::Builder::new().name("starter".into()).stack_size(128 << 10).spawn(watch).map(drop)
    }

    pub(crate) fn take_tcp(&self, address: SocketAddr) -> Option<OwnedFd> {
        self.take(&name_of(address))
    }

    /// One that listens there: handed, else bound now.
    pub(crate) fn tcp_listener(&self, address: SocketAddr) -> io::Result<TcpListener> {
        self.take_tcp(address).map_or_else(|| TcpListener::bind(address), |socket| Ok(socket.into()))
    }

    pub(crate) fn take_path(&self, path: &Path) -> Option<OwnedFd> {
        self.take(&name_of_path(path))
    }

    /// The last one of a name stays, for further cores.
    fn take(&self, name: &str) -> Option<OwnedFd> {
        let mut sockets = self.sockets.lock();
        let (_, of_name) = sockets.iter_mut().find(|(known, _)| known == name)?;
        if of_name.len() > 1 { of_name.pop_front() } else { of_name.front()?.try_clone().ok() }
    }

    pub(crate) fn has_tcp(&self, address: SocketAddr) -> bool {
        let name = name_of(address);
        self.sockets.lock().iter().any(|(known, _)| *known == name)
    }
}

/// The starter's side: sends a part its sockets.
pub(crate) fn hand_over<'a>(
    to: &OwnedFd,
    sockets: impl IntoIterator<Item = (&'a str, &'a OwnedFd)>,
) -> io::Result<()> {
    for (name, socket) in sockets {
        wire::send(to, &[b"socket", name.as_bytes()], Some(socket.as_fd()))?;
    }
    wire::send(to, &[b"all"], None)
}
