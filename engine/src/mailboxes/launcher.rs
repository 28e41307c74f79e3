//! `ringpost launch`: finds out whose a local part is, and has a process of that user's do what is asked for it.
//!
//! The one part that keeps root for its whole life, so it does little: it reads packets of a few fields, looks one of
//! them up in the operator's table and the password file, and starts a program of ours under another uid. A message
//! is a descriptor here that is handed on and never read; no configuration of a user's is opened. Nothing is ever
//! done as root: an account with uid 0 gets nothing. Without root, whoever started it is the only user there is.
//!
//! Trusts its callers, whose uids the kernel names, as far as the addresses go: they could have mail delivered, or a
//! mailbox opened, that nobody sent or asked for, and no more. Whoever else connects is turned away before
//! anything is waited for. Bounds: of each part's callers, its `sessions_max` and [`PLACES_SPARE`];
//! [`FIRST_PACKET_MAX`] until they ask; as many processes as `[local]` has `sessions_max`, half of them for
//! one user; [`IDLE_MAX`] idle processes, each for [`IDLE_TIMEOUT`]; a delivery may take as long as a program
//! may, and [`DELIVERY_BESIDES`].
//!
//! A reload reads anew what the next delivery or mailbox goes by: the table, `alias_user`,
//! `default_delivery`, `quota`, how much memory a program may take, `[pop3] maildir`. All else takes a restart: who may
//! ask (the parts that run keep their users), the sockets (whoever started us bound them), `sessions_max`, `program_secs`,
//! what was given up (`programs_connect`, `confine`). This part gives up no file, so it can read all of them
//! again. What is under way does not hear of it: the signal is caught and calls go on.

use super::pool::{Pool, Rights, Worker};
use super::wire::{self, Packet};
use super::worker::{Answer, Request};
use crate::clock;
use crate::config::{Config, ConfigError, DELIVERY_BESIDES, Local, Pop3};
use crate::parts::Part;
use local::delivery::Delivery;
use local::failure::Failure;
use local::maildir::quota::Quota;
use local::program::Limits;
use local::users::{Account, Assignments, PasswordFile as _, SystemFiles, account_of};
use parking_lot::{Mutex, RwLock};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tokio::signal::unix::{SignalKind, signal};

/// Whoever connects has its question at hand and sends it at once; the rest is for a machine that is short of
/// memory. Afterwards a connection is kept for its session's next message, which comes when it comes.
const FIRST_PACKET_MAX: Duration = Duration::from_secs(5);

/// For connections of sessions that are over, until it is noticed.
const PLACES_SPARE: usize = 16;

/// Whoever is turned away may come again at once, and often: the log has a line for all who did in this time.
const LOG_REST: Duration = Duration::from_secs(60);

/// Why it does not run.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("there is no [local] and no [pop3] in the configuration: nobody would ask for a process")]
    NotConfigured,
    #[error("[{0}] went: that takes a restart")]
    Went(&'static str),
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
    settings: RwLock<Arc<Settings>>,
    callers: BTreeMap<u32, Arc<Caller>>,
    passwords: SystemFiles,
    /// `Some`: nobody else's rights can be had.
    only: Option<Rights>,
    pool: Pool,
}

/// What a reload reads anew.
struct Settings {
    local: Option<Local>,
    pop3: Option<Pop3>,
    table: Mutex<Table>,
}

impl Settings {
    fn read(config: &Config) -> Result<Settings, LaunchError> {
        let (local, pop3) = (config.local.clone(), config.pop3.clone());
        if local.is_none() && pop3.is_none() {
            return Err(LaunchError::NotConfigured);
        }
        let path = local.as_ref().and_then(|local| local.assign.clone());
        let mut table = Table { path, ..Table::default() };
        table.read()?;
        Ok(Settings { local, pop3, table: Mutex::new(table) })
    }
}

/// What a packet asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Wish {
    Deliver,
    Mailbox,
}

impl Wish {
    fn read(packet: &Packet) -> Option<Wish> {
        match packet.fields.first().map(Vec::as_slice) {
            Some(b"deliver") => Some(Wish::Deliver),
            Some(b"mailbox") => Some(Wish::Mailbox),
            _ => None,
        }
    }
}

/// A user whose processes may ask.
#[derive(Debug, Default)]
struct Caller {
    uid: u32,
    wishes: Vec<Wish>,
    /// Connections that it may still make.
    places: AtomicUsize,
}

impl Caller {
    /// `None`: there are too many of them.
    fn enter(self: &Arc<Caller>) -> Option<Place> {
        let take = |left: usize| left.checked_sub(1);
        self.places.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).ok()?;
        Some(Place { caller: Arc::clone(self) })
    }
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
struct Place {
    caller: Arc<Caller>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.caller.places.fetch_add(1, Ordering::AcqRel);
    }
}

/// By uid: each part's user for its wish, `own` for all. Without root all are one, with the places of all.
fn callers_of(own: u32, parts: &[(Wish, u32, usize)]) -> BTreeMap<u32, Arc<Caller>> {
    let mut callers: BTreeMap<u32, Caller> = BTreeMap::new();
    for (wish, user, sessions_max) in parts {
        for uid in BTreeSet::from([own, *user]) {
            let caller = callers.entry(uid).or_insert_with(|| Caller { uid, ..Caller::default() });
            caller.wishes.push(*wish);
            *caller.places.get_mut() += sessions_max + PLACES_SPARE;
        }
    }
    callers.into_iter().map(|(uid, caller)| (uid, Arc::new(caller))).collect()
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

/// Serves until SIGTERM. `listener` keeps packets apart. At SIGHUP `reread` says what is in force from then.
pub fn serve(
    config: &Config,
    listener: OwnedFd,
    reread: impl Fn() -> Result<Config, ConfigError>,
    announce: impl FnOnce(),
) -> Result<(), LaunchError> {
    let launcher = Arc::new(Launcher::new(config)?);
    launcher.pool.tidy_up_from_now_on()?;
    let door = Door::new(Arc::clone(&launcher));
    std::thread::Builder::new().name("accept".into()).spawn(move || door.listen(&listener))?;
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
        let (mut end, mut reload) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
        announce();
        loop {
            tokio::select! {
                _ = end.recv() => return Ok(()),
                _ = reload.recv() => launcher.reload(reread()),
            }
        }
    })
}

/// Lets in whoever may ask.
struct Door {
    launcher: Arc<Launcher>,
    strangers: Tally,
    /// Of callers for whom there was no place, by uid.
    surplus: BTreeMap<u32, Tally>,
}

impl Door {
    fn new(launcher: Arc<Launcher>) -> Door {
        Door { launcher, strangers: Tally::default(), surplus: BTreeMap::new() }
    }

    fn listen(mut self, listener: &OwnedFd) {
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
            let Some(place) = self.admit(&socket) else { continue };
            let launcher = Arc::clone(&self.launcher);
            let run = move || launcher.serve_caller(&socket, &place);
            let thread = std::thread::Builder::new().name("caller".into()).stack_size(256 << 10).spawn(run);
            if let Err(error) = thread {
                tracing::warn!(%error, "a caller has no thread");
            }
        }
    }

    /// The kernel knows whose it is before it says anything: a stranger never has a place.
    fn admit(&mut self, socket: &OwnedFd) -> Option<Place> {
        let uid = socket_peercred(socket).ok()?.uid.as_raw();
        let Some(caller) = self.launcher.callers.get(&uid) else {
            if let Some(count) = self.strangers.add(clock::now()) {
                tracing::warn!(uid, count, "turned away: callers who may ask for nothing");
            }
            return None;
        };
        let place = caller.enter();
        if place.is_none()
            && let Some(count) = self.surplus.entry(uid).or_default().add(clock::now())
        {
            tracing::warn!(uid, count, "turned away: too many callers");
        }
        place
    }
}

/// Counts what others can bring about, for a log that they shall not fill.
#[derive(Debug, Default)]
struct Tally {
    count: u64,
    said: Option<Instant>,
}

impl Tally {
    /// One more. `Some`: so many since the log had it last, and it is to have it again.
    fn add(&mut self, now: Instant) -> Option<u64> {
        self.count += 1;
        if self.said.is_some_and(|said| now.saturating_duration_since(said) < LOG_REST) {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

impl Launcher {
    fn new(config: &Config) -> Result<Launcher, LaunchError> {
        let settings = Settings::read(config)?;
        let passwords = SystemFiles::default();
        let own = rustix::process::geteuid().as_raw();
        let only = (own != 0).then(|| Rights { uid: own, gid: rustix::process::getegid().as_raw() });
        let uid_of = |name: &String| match passwords.user(name) {
            _ if own != 0 => Ok(own),
            Ok(Some(user)) => Ok(user.uid),
            Ok(None) => Err(LaunchError::NoUser(name.clone())),
            Err(error) => Err(LaunchError::System(error.source)),
        };
        let mut parts = Vec::new();
        if let Some(local) = &settings.local {
            parts.push((Wish::Deliver, uid_of(&config.supervise.local_user)?, local.sessions_max));
        }
        if let Some(pop3) = &settings.pop3 {
            parts.push((Wish::Mailbox, uid_of(&config.supervise.pop3_user)?, pop3.sessions_max));
        }
        let busy_max = settings.local.as_ref().map_or(0, |local| local.sessions_max);
        Ok(Launcher {
            settings: RwLock::new(Arc::new(settings)),
            callers: callers_of(own, &parts),
            passwords,
            only,
            pool: Pool::new(busy_max, config.submit.clone()),
        })
    }

    /// What is asked by them ends by them, whatever is read meanwhile.
    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read())
    }

    /// All of it or, if something is wrong, nothing.
    fn reload(&self, config: Result<Config, ConfigError>) {
        match config.map_err(LaunchError::Config).and_then(|config| self.settings_anew(&config)) {
            Ok(settings) => {
                *self.settings.write() = Arc::new(settings);
                tracing::info!("the settings of deliveries are read again");
            }
            Err(error) => tracing::error!(%error, "the settings of deliveries stay as they were"),
        }
    }

    /// The part whose section went runs on, and asks.
    fn settings_anew(&self, config: &Config) -> Result<Settings, LaunchError> {
        let (old, mut new) = (self.settings(), Settings::read(config)?);
        if old.local.is_some() && new.local.is_none() {
            return Err(LaunchError::Went("local"));
        }
        if old.pop3.is_some() && new.pop3.is_none() {
            return Err(LaunchError::Went("pop3"));
        }
        if let (Some(new), Some(old)) = (&mut new.local, &old.local) {
            new.keep_of_start(old);
        }
        Ok(new)
    }

    fn serve_caller(&self, socket: &OwnedFd, place: &Place) {
        let uid = place.caller.uid;
        match self.answer_caller(socket, &place.caller) {
            Ok(()) => {}
            // The first packet alone is waited for with a limit.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tracing::warn!(uid, "a caller said nothing");
            }
            Err(error) => tracing::warn!(uid, %error, "a caller is gone"),
        }
    }

    fn answer_caller(&self, socket: &OwnedFd, caller: &Caller) -> io::Result<()> {
        set_socket_timeout(socket, Timeout::Recv, Some(FIRST_PACKET_MAX))?;
        while let Some(packet) = wire::receive(socket)? {
            set_socket_timeout(socket, Timeout::Recv, None)?;
            let answer = match Wish::read(&packet).filter(|wish| caller.wishes.contains(wish)) {
                Some(Wish::Deliver) => self.deliver(packet),
                Some(Wish::Mailbox) => self.open_mailbox(packet),
                None => {
                    tracing::warn!(caller = caller.uid, "a caller asked for what it may not");
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
        let settings = self.settings();
        let rules = settings.local.as_ref().ok_or_else(broken)?;
        let account = self.account_of(&settings.table, &rules.alias_user, local)?;
        let Account { user, uid, gid, home, dash, extension } = account;
        let delivery = Delivery {
            user: &user,
            home: &home,
            local,
            dash: &dash,
            extension: &extension,
            host,
            sender,
            default_delivery: rules.default_delivery.as_bytes(),
        };
        let limits =
            Limits { time: Duration::from_secs(rules.program_secs), memory: rules.program_memory_max };
        let quota = rules.quota.as_deref().and_then(Quota::parse);
        let request = Request { delivery, limits, quota, no_at_host: rules.no_at_host() };
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
        let patience = request.limits.time + DELIVERY_BESIDES;
        set_socket_timeout(worker.socket(), Timeout::Recv, Some(patience))?;
        request.send(worker.socket(), message)?;
        let packet = wire::receive(worker.socket())?.ok_or(io::ErrorKind::UnexpectedEof)?;
        Answer::read(&packet).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn account_of(&self, table: &Mutex<Table>, alias_user: &str, local: &str) -> Result<Account, Failure> {
        let table = table.lock().read().map_err(|error| {
            tracing::error!(%error, "mail for mailboxes waits");
            Failure::soft("Unable to read the table of users. (#4.3.0)")
        })?;
        let account = account_of(&table, &self.passwords, alias_user, local)
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
        let settings = self.settings();
        let pop3 = settings.pop3.as_ref().ok_or_else(broken)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn enter_all(caller: &Arc<Caller>) -> Vec<Place> {
        std::iter::from_fn(|| caller.enter()).collect()
    }

    #[test]
    fn no_part_takes_anothers_places() {
        let callers = callers_of(0, &[(Wish::Deliver, 8, 1), (Wish::Mailbox, 9, 2)]);
        let (local, pop3) = (&callers[&8], &callers[&9]);
        assert_eq!((local.uid, local.wishes.as_slice()), (8, &[Wish::Deliver][..]));
        assert_eq!((pop3.uid, pop3.wishes.as_slice()), (9, &[Wish::Mailbox][..]));
        let all_of_local = enter_all(local);
        assert_eq!(all_of_local.len(), 1 + PLACES_SPARE);
        assert_eq!(enter_all(pop3).len(), 2 + PLACES_SPARE);
        drop(all_of_local);
        assert_eq!(enter_all(local).len(), 1 + PLACES_SPARE, "places are given back");
        assert!(!callers.contains_key(&7));
    }

    #[test]
    fn without_root_all_parts_are_one_user() {
        let callers = callers_of(1000, &[(Wish::Deliver, 1000, 1), (Wish::Mailbox, 1000, 2)]);
        assert_eq!(callers.len(), 1);
        assert_eq!(callers[&1000].wishes, [Wish::Deliver, Wish::Mailbox]);
        assert_eq!(enter_all(&callers[&1000]).len(), 3 + 2 * PLACES_SPARE);
    }

    #[test]
    fn the_log_hears_of_many_at_once() {
        let (mut tally, now) = (Tally::default(), Instant::now());
        assert_eq!(tally.add(now), Some(1));
        assert_eq!((tally.add(now), tally.add(now + LOG_REST / 2)), (None, None));
        assert_eq!(tally.add(now + LOG_REST), Some(3));
        assert_eq!(tally.add(now + LOG_REST), None);
    }
}
