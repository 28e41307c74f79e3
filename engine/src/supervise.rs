//! `ringpost supervise`: starts the parts, each as its own user, and starts those again that end.
//!
//! It reads the configuration, which is its owner's, binds every socket, makes the folders that are not there, and then only
//! waits: no octet of anybody's mail comes here. Without root it starts all parts as whoever it is. A part that ends is
//! started again after [`REST_MIN`], doubled up to [`REST_MAX`] while it does not last [`LASTING`]; its sockets stay open
//! meanwhile, so that clients wait. SIGHUP goes to all parts; to one that is beginning as soon as it is at work, for
//! before that it would end it. SIGTERM ends them and then this one.
//!
//! Bound: four parts.

use crate::config::{Config, ConfigError};
use crate::mailboxes::wire;
use crate::parts::{self, HANDED_OPTION, Part};
use local::users::{PasswordFile as _, SystemFiles};
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr, set_socket_reuseport};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

const REST_MIN: Duration = Duration::from_millis(200);
const REST_MAX: Duration = Duration::from_secs(10);
const LASTING: Duration = Duration::from_secs(30);

/// A part that does not end on SIGTERM within this time is killed: what it had accepted is on disk.
const END_MAX: Duration = Duration::from_secs(60);

const LOOK: Duration = Duration::from_millis(50);

const BACKLOG: i32 = 4096;

/// The most that Linux gives a process unless it is told otherwise.
const ENGINE_DESCRIPTORS: u64 = 1 << 20;

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("supervise: there is no user {0:?} on this system; make one, or name another in [supervise]")]
    NoUser(String),
    #[error("supervise: {0:?} is root: the parts are to have less")]
    RootUser(String),
    #[error("{what}: {source}")]
    Socket { what: String, source: io::Error },
    #[error("{path}: {source}", path = .path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("supervise: {0}")]
    System(#[from] io::Error),
    #[error("{0} could not begin; what is wrong stands above")]
    Part(&'static str),
}

impl SuperviseError {
    pub fn exit_code(&self) -> u8 {
        match self {
            SuperviseError::Socket { source, .. } if source.kind() == io::ErrorKind::AddrInUse => 75,
            SuperviseError::System(_) => 75,
            _ => 78,
        }
    }
}

/// Whose rights a part has.
#[derive(Clone, Copy, Debug)]
struct User {
    uid: u32,
    gid: u32,
}

/// A part, running or at rest.
struct Charge {
    part: Part,
    /// `None`: as this process.
    user: Option<User>,
    sockets: Vec<(String, OwnedFd)>,
    child: Option<Child>,
    /// Our end of its standard input.
    line: Option<OwnedFd>,
    is_ready: bool,
    /// SIGHUP came since it was started, and before it was at work.
    has_missed_reload: bool,
    started: Instant,
    rest: Duration,
    again: Option<Instant>,
}

/// The parts that the configuration asks for, and their processes.
pub struct Ready(pub Vec<(&'static str, u32)>);

/// Runs until SIGTERM or SIGINT.
pub fn run(config: &Config, config_file: &Path, announce: impl FnOnce(&Ready)) -> Result<(), SuperviseError> {
    let users = Users::find(config)?;
    make_folders(config, &users)?;
    let mut charges = charges(config, &users)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let (mut end, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut reload = signal(SignalKind::hangup())?;
        let mut ended = signal(SignalKind::child())?;
        for charge in &mut charges {
            charge.start(config_file)?;
        }
        let mut announce = Some(announce);
        loop {
            let is_waiting =
                announce.is_some() || charges.iter().any(|charge| charge.again.is_some() || !charge.is_ready);
            let pause = if is_waiting { LOOK } else { Duration::from_secs(3600) };
            tokio::select! {
                _ = end.recv() => break,
                _ = interrupt.recv() => break,
                _ = reload.recv() => charges.iter_mut().for_each(Charge::reload),
                _ = ended.recv() => {}
                () = tokio::time::sleep(pause) => {}
            }
            if let Err(error) = look_after(&mut charges, config_file, announce.is_some()) {
                end_all(&mut charges).await;
                return Err(error);
            }
            if charges.iter().all(|charge| charge.is_ready)
                && let Some(announce) = announce.take()
            {
                let of =
                    |charge: &Charge| charge.child.as_ref().map(|child| (charge.part.word(), child.id()));
                announce(&Ready(charges.iter().filter_map(of).collect()));
            }
        }
        end_all(&mut charges).await;
        Ok(())
    })
}

/// Takes notice of parts that have ended or begun, and starts those whose rest is over.
fn look_after(charges: &mut [Charge], config_file: &Path, is_first: bool) -> Result<(), SuperviseError> {
    let now = crate::clock::now();
    for charge in charges {
        charge.listen_to_it();
        let status = charge.child.as_mut().map(Child::try_wait).transpose()?.flatten();
        if let Some(status) = status {
            let part = charge.part.word();
            let is_config = status.code() == Some(78);
            if is_first && !charge.is_ready && is_config {
                return Err(SuperviseError::Part(part));
            }
            let lasted = now.saturating_duration_since(charge.started);
            charge.rest = if lasted > LASTING { REST_MIN } else { (charge.rest * 2).min(REST_MAX) };
            tracing::error!(part, %status, again_in_ms = u64::try_from(charge.rest.as_millis()).unwrap_or(u64::MAX), "a part has ended; it is started again");
            (charge.child, charge.line, charge.is_ready) = (None, None, false);
            charge.again = Some(now + charge.rest);
        }
        if charge.again.is_some_and(|again| again <= now) {
            charge.start(config_file)?;
        }
    }
    Ok(())
}

/// The engine first: what is being delivered to mailboxes is answered before those who answer end.
async fn end_all(charges: &mut [Charge]) {
    let (first, rest) = split(charges);
    end(first).await;
    end(rest).await;
}

fn split(charges: &mut [Charge]) -> (Vec<&mut Charge>, Vec<&mut Charge>) {
    charges.iter_mut().partition(|charge| matches!(charge.part, Part::Engine | Part::Pop3))
}

async fn end(mut charges: Vec<&mut Charge>) {
    charges.iter().for_each(|charge| charge.signal(Signal::TERM));
    let deadline = crate::clock::now() + END_MAX;
    let is_up =
        |charge: &mut Charge| charge.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)));
    while charges.iter_mut().any(|charge| is_up(charge)) {
        if crate::clock::now() > deadline {
            charges
                .iter_mut()
                .filter_map(|charge| charge.child.as_mut())
                .for_each(|child| drop(child.kill()));
        }
        tokio::time::sleep(LOOK).await;
    }
}

impl Charge {
    fn start(&mut self, config_file: &Path) -> Result<(), SuperviseError> {
        let (ours, theirs) = wire::pair()?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("ringpost").arg(self.part.word()).arg("--config").arg(config_file).arg(HANDED_OPTION);
        command.stdin(Stdio::from(theirs));
        if let Some(user) = self.user {
            // With a uid given, the groups of root go too.
            command.gid(user.gid).uid(user.uid);
        }
        let child =
            if self.part == Part::Engine { with_engine_limits(|| command.spawn()) } else { command.spawn() };
        let child = child?;
        tracing::info!(part = self.part.word(), process = child.id(), "started");
        (self.child, self.again, self.started) = (Some(child), None, crate::clock::now());
        // It reads the configuration as it is now.
        self.has_missed_reload = false;
        // One that is gone already is noticed by its end.
        let _ = parts::hand_over(&ours, self.sockets.iter().map(|(name, socket)| (name.as_str(), socket)));
        rustix::io::ioctl_fionbio(&ours, true).map_err(io::Error::from)?;
        self.line = Some(ours);
        Ok(())
    }

    /// It says one thing: that it is at work.
    fn listen_to_it(&mut self) {
        let Some(line) = self.line.as_ref().filter(|_| !self.is_ready) else { return };
        if let Ok(Some(packet)) = wire::receive(line) {
            self.is_ready = packet.texts() == Some(["ready"]);
        }
        if self.is_ready && self.has_missed_reload {
            self.has_missed_reload = false;
            self.signal(Signal::HUP);
        }
    }

    fn reload(&mut self) {
        if self.is_ready { self.signal(Signal::HUP) } else { self.has_missed_reload = true }
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().and_then(|child| Pid::from_raw(i32::try_from(child.id()).ok()?));
        if let Some(pid) = pid {
            // Not waited for yet, so the number is its.
            let _ = kill_process(pid, signal);
        }
    }
}

/// Descriptors for as many sessions as it may have, and memory that its rings may lock; what root has is what the others
/// start with.
fn with_engine_limits<T>(start: impl FnOnce() -> T) -> T {
    let ours = [Resource::Nofile, Resource::Memlock].map(|resource| (resource, getrlimit(resource)));
    let raised = [Some(ENGINE_DESCRIPTORS), None];
    for ((resource, _), most) in ours.iter().zip(raised) {
        // Without the right to, it has what we have.
        let _ = setrlimit(*resource, Rlimit { current: most, maximum: most });
    }
    let started = start();
    for (resource, limit) in ours {
        let _ = setrlimit(resource, limit);
    }
    started
}

/// Who runs what. All `None` without root.
struct Users {
    engine: Option<User>,
    local: Option<User>,
    pop3: Option<User>,
}

impl Users {
    fn find(config: &Config) -> Result<Users, SuperviseError> {
        let is_root = rustix::process::geteuid().is_root();
        let passwords = SystemFiles::default();
        let find = |name: &String, is_needed: bool| {
            if !is_root || !is_needed {
                return Ok(None);
            }
            let found = passwords.user(name).map_err(|error| SuperviseError::System(error.source))?;
            let found = found.ok_or_else(|| SuperviseError::NoUser(name.clone()))?;
            if found.uid == 0 {
                return Err(SuperviseError::RootUser(name.clone()));
            }
            Ok(Some(User { uid: found.uid, gid: found.gid }))
        };
        let names = &config.supervise;
        Ok(Users {
            engine: find(&names.engine_user, true)?,
            local: find(&names.local_user, config.local.is_some())?,
            pop3: find(&names.pop3_user, config.pop3.is_some())?,
        })
    }
}

fn make_folders(config: &Config, users: &Users) -> Result<(), SuperviseError> {
    make_folder(&config.supervise.run, 0o755, None)?;
    make_folder(&config.queue, 0o700, users.engine)?;
    if config.events.is_some() {
        make_folder(&config.events_folder(), 0o700, users.engine)?;
    }
    Ok(())
}

/// One that is there stays as it is.
fn make_folder(path: &Path, mode: u32, owner: Option<User>) -> Result<(), SuperviseError> {
    let wrap = |source| SuperviseError::Folder { path: path.to_owned(), source };
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(wrap)?;
    }
    DirBuilder::new().mode(mode).create(path).map_err(wrap)?;
    owner.map_or(Ok(()), |user| chown(path, Some(user.uid), Some(user.gid))).map_err(wrap)
}

fn charges(config: &Config, users: &Users) -> Result<Vec<Charge>, SuperviseError> {
    let charge = |part, user, sockets| Charge {
        part,
        user,
        sockets,
        child: None,
        line: None,
        is_ready: false,
        has_missed_reload: false,
        started: crate::clock::now(),
        rest: REST_MIN / 2,
        again: None,
    };
    let mut charges = Vec::new();
    if config.local.is_some() || config.pop3.is_some() {
        let path = config.launcher_path();
        charges.push(charge(Part::Launch, None, vec![bind_path(&path, SocketType::SEQPACKET)?]));
    }
    if let Some(local) = &config.local {
        charges.push(charge(Part::Local, users.local, vec![bind_path(&local.socket(), SocketType::STREAM)?]));
    }
    charges.push(charge(Part::Engine, users.engine, engine_sockets(config)?));
    if let Some(pop3) = &config.pop3 {
        let sockets: Result<Vec<_>, _> =
            pop3.listen.iter().chain(&pop3.listen_tls).map(|address| bind_tcp(*address)).collect();
        charges.push(charge(Part::Pop3, users.pop3, sockets?));
    }
    Ok(charges)
}

/// For each core one of each address that takes mail, so that the kernel spreads connections over them.
fn engine_sockets(config: &Config) -> Result<Vec<(String, OwnedFd)>, SuperviseError> {
    let cores = crate::daemon::cpus_of(config).len();
    let listeners = config.listeners();
    let smtp = listeners.values().flat_map(|listener| &listener.addresses);
    let fixed = |address: &&SocketAddr| address.port() != 0;
    let mut sockets = Vec::new();
    for address in smtp.filter(fixed) {
        for _ in 0..cores {
            sockets.push(bind_tcp(*address)?);
        }
    }
    let others = config.http.iter().chain(&config.api.listen).chain(&config.unsubscribe.listen);
    for address in others.filter(fixed) {
        sockets.push(bind_tcp(*address)?);
    }
    if let Some(submit) = &config.submit {
        sockets.push(bind_path(submit, SocketType::STREAM)?);
    }
    Ok(sockets)
}

/// For a launcher that is started by hand.
pub(crate) fn bind_launcher(path: &Path) -> Result<OwnedFd, SuperviseError> {
    bind_path(path, SocketType::SEQPACKET).map(|(_, socket)| socket)
}

fn bind_tcp(address: SocketAddr) -> Result<(String, OwnedFd), SuperviseError> {
    let name = parts::name_of(address);
    let made = || -> rustix::io::Result<OwnedFd> {
        let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        set_socket_reuseaddr(&socket, true)?;
        set_socket_reuseport(&socket, true)?;
        if address.is_ipv6() {
            set_ipv6_v6only(&socket, true)?;
        }
        rustix::net::sockopt::set_tcp_nodelay(&socket, true)?;
        bind(&socket, &address)?;
        listen(&socket, BACKLOG)?;
        Ok(socket)
    };
    match made() {
        Ok(socket) => Ok((name, socket)),
        Err(error) => Err(SuperviseError::Socket { what: name, source: error.into() }),
    }
}

/// Everybody may connect: whoever listens asks the kernel who does. What was left behind is removed.
fn bind_path(path: &Path, kind: SocketType) -> Result<(String, OwnedFd), SuperviseError> {
    let wrap = |source: io::Error| SuperviseError::Socket { what: path.display().to_string(), source };
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path).map_err(wrap)?,
        Ok(_) => return Err(wrap(io::Error::new(io::ErrorKind::AlreadyExists, "something else is there"))),
        Err(_) => {}
    }
    let made = || -> io::Result<OwnedFd> {
        let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o666))?;
        listen(&socket, BACKLOG)?;
        Ok(socket)
    };
    Ok((parts::name_of_path(path), made().map_err(wrap)?))
}
