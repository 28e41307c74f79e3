//! `ringpost launch`: finds out whose a local part is, and has a process of that user's do what is asked for it.
//!
//! The one part that keeps root for its whole life, so it does little: it reads packets of a few fields, looks one of
//! them up in the operator's table and the password file, and starts a program of ours under another uid. A message
//! is a descriptor here that is handed on and never read; no configuration of a user's is opened. Nothing is ever
//! done as root: an account with uid 0 gets nothing. Without root, whoever started it is the only user there is.
//!
//! Trusts its callers, whose uids the kernel names, as far as the addresses go: they could have mail delivered, or a
//! mailbox opened, that nobody sent or asked for, and no more. Bounds: `sessions_max` callers and as many processes, half
//! of them for one user; [`IDLE_MAX`] idle processes, each for [`IDLE_TIMEOUT`]; a delivery may take as long as a program
//! may, and [`BESIDES`].

use super::pool::{Pool, Rights, Worker};
use super::wire::{self, Packet};
use super::worker::{Answer, Request};
use crate::config::{Config, Local, Pop3};
use crate::parts::Part;
use local::delivery::Delivery;
use local::failure::Failure;
use local::maildir::quota::Quota;
use local::program::Limits;
use local::users::{Account, Assignments, PasswordFile as _, SystemFiles, account_of};
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use std::fs::Metadata;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

/// For what a delivery does besides its programs.
const BESIDES: Duration = Duration::from_secs(300);

/// Why it does not run.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("there is no [local] and no [pop3] in the configuration: nobody would ask for a process")]
    NotConfigured,
    #[error("{path}: {what}", path = .path.display())]
    Table { path: PathBuf, what: String },
    #[error("supervise: there is no user {0:?} on this system")]
    NoUser(String),
    #[error("launch: {0}")]
    System(#[from] io::Error),
}

impl LaunchError {
    pub fn exit_code(&self) -> u8 {
        if matches!(self, LaunchError::System(_)) { 75 } else { 78 }
    }
}

/// What all callers share.
struct Launcher {
    local: Local,
    pop3: Option<Pop3>,
    callers: Callers,
    table: Mutex<Table>,
    passwords: SystemFiles,
    /// `Some`: nobody else's rights can be had.
    only: Option<Rights>,
    pool: Pool,
    sessions: AtomicUsize,
}

/// Whose processes may ask for what.
#[derive(Clone, Copy, Debug)]
struct Callers {
    own: u32,
    local: u32,
    pop3: u32,
}

/// The operator's table, read again when the file is another.
#[derive(Default)]
struct Table {
    path: Option<PathBuf>,
    stamp: Option<(SystemTime, u64, u64)>,
    assignments: Arc<Assignments>,
}

impl Table {
    fn read(&mut self) -> Result<Arc<Assignments>, LaunchError> {
        let Some(path) = &self.path else { return Ok(Arc::clone(&self.assignments)) };
        let wrong = |what: String| LaunchError::Table { path: path.clone(), what };
        let stamp_of = |of: &Metadata| Some((of.modified().ok()?, of.ino(), of.len()));
        let stamp = stamp_of(&std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?);
        if stamp.is_none() || stamp != self.stamp {
            let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
            let assignments = Assignments::parse(&text).map_err(|error| wrong(error.to_string()))?;
            (self.assignments, self.stamp) = (Arc::new(assignments), stamp);
        }
        Ok(Arc::clone(&self.assignments))
    }
}

/// Serves until the process is told to end. `listener` keeps packets apart.
pub fn serve(config: &Config, listener: &OwnedFd, announce: impl FnOnce()) -> Result<(), LaunchError> {
    let launcher = Arc::new(Launcher::new(config)?);
    launcher.pool.tidy_up_from_now_on()?;
    announce();
    loop {
        let socket = match rustix::net::accept_with(listener, rustix::net::SocketFlags::CLOEXEC) {
            Ok(socket) => socket,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => continue,
            Err(error) => {
                tracing::warn!(%error, "no caller could be accepted");
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        let launcher = Arc::clone(&launcher);
        let run = move || launcher.serve_caller(&socket);
        if let Err(error) = std::thread::Builder::new().name("caller".into()).stack_size(256 << 10).spawn(run)
        {
            tracing::warn!(%error, "a caller has no thread");
        }
    }
}

impl Launcher {
    fn new(config: &Config) -> Result<Launcher, LaunchError> {
        let local = config.local.clone();
        if local.is_none() && config.pop3.is_none() {
            return Err(LaunchError::NotConfigured);
        }
        let local = local.unwrap_or_default();
        let passwords = SystemFiles::default();
        let own = rustix::process::geteuid().as_raw();
        let only = (own != 0).then(|| Rights { uid: own, gid: rustix::process::getegid().as_raw() });
        let uid_of = |name: &String| match passwords.user(name) {
            _ if own != 0 => Ok(own),
            Ok(Some(user)) => Ok(user.uid),
            Ok(None) => Err(LaunchError::NoUser(name.clone())),
            Err(error) => Err(LaunchError::System(error.source)),
        };
        let needs_pop3 = config.pop3.is_some();
        let callers = Callers {
            own,
            local: uid_of(&config.supervise.local_user)?,
            pop3: if needs_pop3 { uid_of(&config.supervise.pop3_user)? } else { own },
        };
        let mut table = Table { path: local.assign.clone(), ..Table::default() };
        table.read()?;
        let pop3_sessions = config.pop3.as_ref().map_or(0, |pop3| pop3.sessions_max);
        let pool = Pool::new(local.sessions_max, config.submit.clone());
        Ok(Launcher {
            pop3: config.pop3.clone(),
            callers,
            table: Mutex::new(table),
            passwords,
            only,
            pool,
            sessions: AtomicUsize::new(local.sessions_max + pop3_sessions + 16),
            local,
        })
    }

    fn serve_caller(&self, socket: &OwnedFd) {
        let taken =
            self.sessions.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1));
        if taken.is_err() {
            return tracing::warn!("turned away: too many callers");
        }
        if let Err(error) = self.answer_caller(socket) {
            tracing::warn!(%error, "a caller is gone");
        }
        self.sessions.fetch_add(1, Ordering::AcqRel);
    }

    fn answer_caller(&self, socket: &OwnedFd) -> io::Result<()> {
        let caller = socket_peercred(socket)?.uid.as_raw();
        while let Some(packet) = wire::receive(socket)? {
            let word = packet.fields.first().map(Vec::as_slice);
            let answer = match word {
                Some(b"deliver") if [self.callers.own, self.callers.local].contains(&caller) => {
                    self.deliver(packet)
                }
                Some(b"mailbox") if [self.callers.own, self.callers.pop3].contains(&caller) => {
                    self.open_mailbox(packet)
                }
                _ => {
                    tracing::warn!(caller, "a caller asked for what it may not");
                    return Ok(());
                }
            };
            answer.unwrap_or_else(Answer::Failed).send(socket)?;
        }
        Ok(())
    }

    fn deliver(&self, packet: Packet) -> Result<Answer, Failure> {
        let broken = || Failure::soft("The launcher did not understand. (#4.3.0)");
        let [_, local, host, sender] = packet.texts().ok_or_else(broken)?;
        let has_nul = [local, host, sender].iter().any(|text| text.contains('\0'));
        let message = packet.descriptor.as_ref().filter(|_| !has_nul).ok_or_else(broken)?;
        let Account { user, uid, gid, home, dash, extension } = self.account_of(local)?;
        let delivery = Delivery {
            user: &user,
            home: &home,
            local,
            dash: &dash,
            extension: &extension,
            host,
            sender,
            default_delivery: self.local.default_delivery.as_bytes(),
        };
        let limits = Limits {
            time: Duration::from_secs(self.local.program_secs),
            memory: self.local.program_memory_max,
        };
        let quota = self.local.quota.as_deref().and_then(Quota::parse);
        let request = Request { delivery, limits, quota };
        let worker = self.pool.take(Rights { uid, gid })?;
        let answer = self.ask(&worker, &request, message);
        match answer {
            Ok(answer) => {
                self.pool.give_back(worker);
                Ok(answer)
            }
            Err(error) => {
                self.pool.end(worker);
                tracing::warn!(user, %error, "a recipient's process did not answer");
                Err(Failure::soft("The process that delivers for this user did not answer. (#4.3.0)"))
            }
        }
    }

    fn ask(&self, worker: &Worker, request: &Request<'_>, message: &OwnedFd) -> io::Result<Answer> {
        let patience = request.limits.time + BESIDES;
        set_socket_timeout(worker.socket(), Timeout::Recv, Some(patience))?;
        request.send(worker.socket(), message)?;
        let packet = wire::receive(worker.socket())?.ok_or(io::ErrorKind::UnexpectedEof)?;
        Answer::read(&packet).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn account_of(&self, local: &str) -> Result<Account, Failure> {
        let table = self.table.lock().read().map_err(|error| {
            tracing::error!(%error, "mail for mailboxes waits");
            Failure::soft("Unable to read the table of users. (#4.3.0)")
        })?;
        let account = account_of(&table, &self.passwords, &self.local.alias_user, local)
            .map_err(|error| Failure::soft(error.to_string()))?;
        match self.only {
            Some(only) if only.uid != account.uid => {
                Err(Failure::soft("This launcher was not started by root and has one user only. (#4.3.0)"))
            }
            _ => Ok(account),
        }
    }

    /// The descriptor is the socket of whoever reads the mailbox.
    fn open_mailbox(&self, packet: Packet) -> Result<Answer, Failure> {
        let broken = || Failure::soft("The launcher did not understand.");
        let [_, login] = packet.texts().ok_or_else(broken)?;
        let socket = packet.descriptor.as_ref().ok_or_else(broken)?;
        let socket = socket.try_clone().map_err(|_| broken())?;
        let pop3 = self.pop3.as_ref().ok_or_else(broken)?;
        let path = pop3.mailbox_of(login).ok_or_else(|| Failure::hard("There is no such mailbox."))?;
        let owner = owner_of(&path.base, &path.below)
            .map_err(|error| Failure::soft(format!("The mailbox cannot be opened: {error}")))?;
        match self.only {
            _ if owner.uid == 0 => return Err(Failure::soft("The mailbox is root's.")),
            Some(only) if only.uid != owner.uid => {
                return Err(Failure::soft("The mailbox is another user's."));
            }
            _ => {}
        }
        let words = [path.base.as_os_str(), path.below.as_os_str()];
        self.pool
            .start(Part::Mailbox, owner, socket.as_fd(), &words)
            .map_err(|error| Failure::soft(format!("There is no process for the mailbox: {error}")))?;
        Ok(Answer::Done(String::new()))
    }
}

/// Whose a Maildir is. No link is followed below the operator's part of the path.
fn owner_of(base: &Path, below: &Path) -> io::Result<Rights> {
    use rustix::fs::{fstat, open, openat2};
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let base = open(base, flags, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let folder = openat2(&base, below, flags | OFlags::NOFOLLOW, Mode::empty(), resolve)?;
    let stat = fstat(&folder)?;
    Ok(Rights { uid: stat.st_uid, gid: stat.st_gid })
}
