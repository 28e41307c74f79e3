//! Starts the cores and ends them: what `ringpost serve` does around [`Core`].
//!
//! The calling thread becomes the control thread. Core threads are pinned, make their own rings and report once
//! whether they stand. A broken invariant in any thread ends the process: recovery is the ordinary start.

use crate::api::cores::Cores;
use crate::api::thread::{Listeners, Running};
use crate::auth::Authenticator;
use crate::campaigns::books::Books;
use crate::campaigns::clerk::{self, Clerk};
use crate::clock::SystemClock;
use crate::config::{Config, Events};
use crate::control;
use crate::core::{Core, CoreConfig};
use crate::crossing::Crossing;
use crate::events::keeper::Keeper;
use crate::events::{self, EventLog, cursor};
use crate::keyset::KeySetError;
use crate::parts::Handed;
use crate::recovery::{self, Journals, RecoverError};
use crate::settings::Settings;
use crate::suppression::{Store, Suppression};
use parking_lot::Mutex;
use queue::log::record::checksum;
use ring::{Uring, UringConfig};
use rustix::fs::FlockOperation;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

/// Why the daemon does not run. `Config` and `Listen` are the operator's to mend (exit 78), the rest may pass (75).
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("{path}: {source}", path = .path.display())]
    Queue { path: PathBuf, source: io::Error },
    #[error("{path}: another ringpost has this queue", path = .path.display())]
    Locked { path: PathBuf },
    #[error("{path}: {what}", path = .path.display())]
    Secret { path: PathBuf, what: &'static str },
    #[error(transparent)]
    Ring(#[from] ring::StartError),
    #[error(transparent)]
    Recover(#[from] RecoverError),
    #[error("the suppression list: {0}")]
    Suppression(#[from] KeySetError),
    #[error(transparent)]
    Start(#[from] crate::core::StartError),
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    #[error("cannot serve HTTP on {address}: {source}")]
    Http { address: SocketAddr, source: io::Error },
    #[error("cannot take orders on {path}: {source}; `control` may name another place", path = .path.display())]
    Control { path: PathBuf, source: io::Error },
    #[error("cannot take mail on {path}: {source}; `submit` may name another place", path = .path.display())]
    Submit { path: PathBuf, source: io::Error },
    #[error("{path}: {source}; `events.folder` may name another place", path = .path.display())]
    Events { path: PathBuf, source: io::Error },
    #[error("the system has no randomness for us")]
    Randomness,
    #[error("starting the core threads: {0}")]
    Thread(io::Error),
    #[error("core {0} ended by itself")]
    CoreDied(usize),
}

impl ServeError {
    /// `sysexits(3)`: 78 the configuration is wrong, 75 try again later.
    pub fn exit_code(&self) -> u8 {
        let is_config = match self {
            ServeError::Start(crate::core::StartError::Listen { source, .. })
            | ServeError::Http { source, .. } => source.kind() != io::ErrorKind::AddrInUse,
            ServeError::Queue { source, .. }
            | ServeError::Events { source, .. }
            | ServeError::Start(crate::core::StartError::File { source, .. }) => {
                let kinds = [
                    io::ErrorKind::PermissionDenied,
                    io::ErrorKind::NotADirectory,
                    io::ErrorKind::AlreadyExists,
                ];
                kinds.contains(&source.kind())
            }
            ServeError::Secret { .. }
            | ServeError::Control { .. }
            | ServeError::Submit { .. }
            | ServeError::Config(_) => true,
            ServeError::Suppression(error) => !matches!(error, KeySetError::Io { .. }),
            ServeError::Recover(error) | ServeError::Start(crate::core::StartError::Recover(error)) => {
                error.is_the_operators()
            }
            _ => false,
        };
        if is_config { 78 } else { 75 }
    }
}

/// What became of the start.
#[derive(Debug)]
pub struct Ready {
    pub listening: Vec<SocketAddr>,
    pub http: Option<SocketAddr>,
    pub api: Vec<SocketAddr>,
    pub cpus: Vec<usize>,
}

/// Runs until SIGTERM or SIGINT, on the sockets that it was handed and those that it binds. `reread` makes a configuration from the file again, at SIGHUP.
pub fn serve(
    config: Config,
    reread: impl Fn() -> Result<Config, crate::config::ConfigError> + 'static,
    ready: impl FnOnce(&Ready) + 'static,
    handed: &Handed,
) -> Result<(), ServeError> {
    raise_descriptors(&config, cpus_of(&config).len());
    let _lock = lock_queue(&config.queue)?;
    let secret = load_secret(&config.queue.join("verp-secret"))?;
    let cpus = cpus_of(&config);
    make_partitions(&config.queue, cpus.len())?;
    let http = config.http;
    let settings = Arc::new(Settings::load(config, &secret)?);
    let journals = Arc::new(read_journals(&settings.config.queue)?);
    let crossing = Arc::new(Crossing::new(cpus.len()));
    let passwords = Arc::clone(&settings.passwords);
    let authenticator = Authenticator::new(&settings.config.auth, passwords, &secret);
    let _ = crossing.authenticator.set(authenticator.map_err(|_| ServeError::Randomness)?);
    let suppression = open_suppression(&settings.config, &secret)?;
    let suppression = Suppression::start(suppression, &crossing).map_err(ServeError::Thread)?;
    let _ = crossing.suppression.set(suppression);
    crossing.unrestored.take_over(&journals.fold.spent);
    let books = Arc::new(Books::new(&settings.config.queue, &secret));
    let campaigns = books.read().map_err(RecoverError::from)?;
    clerk::put_up(&campaigns, &crossing, &settings);
    let _ = crossing.campaigns.books.set(Arc::clone(&books));
    let keeping = open_events(&settings.config, &crossing)?;
    let listener = http.map(|address| bind_http(address, handed)).transpose()?;
    let web = Listeners::bind(&settings.config, handed)
        .map_err(|(address, source)| ServeError::Http { address, source })?;
    check_ports(&places(&settings.config), handed)?;
    let runtime = control::runtime().map_err(ServeError::Thread)?;
    let (ended, ends) = tokio::sync::mpsc::unbounded_channel();
    let orders = bind_control(&settings.config)?;
    let submit = bind_submit(&settings.config, handed)?;
    let start = Start {
        settings: Arc::clone(&settings),
        crossing: Arc::clone(&crossing),
        journals,
        ended,
        submit,
        handed: handed.clone(),
    };
    let (threads, listening) = start.cores(&cpus)?;
    // What the journals said is no longer needed, and large if the queue is.
    drop(start);
    clerk::take_up(&campaigns, &crossing, &books).map_err(RecoverError::from)?;
    let http = listener.as_ref().and_then(|listener| listener.local_addr().ok());
    let announcement = Ready { listening, http, api: web.addresses(), cpus };
    let cores = Arc::new(Cores::new(Arc::clone(&crossing), Arc::clone(&settings)));
    let clerk = Clerk::new(Arc::clone(&cores), Arc::clone(&crossing), books, campaigns);
    let api = Running::start(web, &settings, &crossing, cores, clerk).map_err(ServeError::Thread)?;
    let ready = Box::new(move || ready(&announcement));
    let started = settings.config.local.clone();
    let reread = move || {
        let mut config = reread()?;
        if let (Some(new), Some(started)) = (&mut config.local, &started) {
            new.keep_of_start(started);
        }
        Settings::load(config, &secret)
    };
    let keeper = keeping.map(Keeping::begin).transpose()?;
    let control = control::Control {
        settings,
        crossing,
        listener,
        api,
        orders,
        ends,
        event_rules: keeper.as_ref().map(|keeper| Arc::clone(&keeper.rules)),
        reread: Box::new(reread),
        ready,
    };
    let result = control::run(&runtime, control);
    for thread in threads {
        let _ = thread.join();
    }
    if let Some(keeper) = keeper {
        keeper.end();
    }
    result.map_or(Ok(()), |core| Err(ServeError::CoreDied(core)))
}

pub(crate) fn cpus_of(config: &Config) -> Vec<usize> {
    config.cpus.clone().unwrap_or_else(usable_cpus)
}

/// Descriptors that a core needs besides its sessions: segments, journals, rings.
const DESCRIPTORS_BESIDES: u64 = 256;

/// As many descriptors as the system lets us have; says so if that is fewer than the configuration may need.
fn raise_descriptors(config: &Config, cores: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let sessions = (config.intake.sessions_max * cores + config.delivery.connections_total) as u64;
    let needed = sessions + DESCRIPTORS_BESIDES * cores as u64;
    if limit.maximum.is_some_and(|most| most < needed) {
        tracing::warn!(
            limit = limit.maximum,
            needed,
            "fewer descriptors than sessions may need: raise the limit (LimitNOFILE), or lower intake.sessions_max \
             and delivery.connections_total"
        );
    }
}

fn usable_cpus() -> Vec<usize> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else { return vec![0] };
    let cpus = (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu));
    cpus.take(queue::site_table::CORES_MAX).collect()
}

/// One daemon per queue.
pub(crate) fn lock_queue(queue: &Path) -> Result<File, ServeError> {
    let wrap = |path: &Path| {
        let path = path.to_owned();
        move |source| ServeError::Queue { path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(queue).map_err(wrap(queue))?;
    let path = queue.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(wrap(&path))?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| ServeError::Locked { path: queue.to_owned() })?;
    Ok(file)
}

/// The cores' folders, their names durable before anything is answered on the strength of what is in them.
fn make_partitions(queue: &Path, cores: usize) -> Result<(), ServeError> {
    let wrap = |source| ServeError::Queue { path: queue.to_owned(), source };
    for index in 0..cores {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(queue.join(format!("core-{index}")))
            .map_err(wrap)?;
    }
    File::open(queue).and_then(|folder| folder.sync_all()).map_err(wrap)
}

/// The secret that signs VERP tokens: made once per queue, so that bounces of old mail are still known. Its CRC32C
/// stands behind it (not in files of version 0.1).
pub(crate) fn load_secret(path: &Path) -> Result<[u8; 32], ServeError> {
    let wrap = |source| ServeError::Queue { path: path.to_owned(), source };
    match std::fs::read(path) {
        Ok(bytes) => secret_of(&bytes).map_err(|what| ServeError::Secret { path: path.to_owned(), what }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_secret(path).map_err(wrap),
        Err(error) => Err(wrap(error)),
    }
}

/// The secret that the file holds, or why it holds none.
pub(crate) fn secret_of(bytes: &[u8]) -> Result<[u8; 32], &'static str> {
    let (secret, rest) =
        bytes.split_first_chunk().ok_or("shorter than 32 bytes; remove it to have a new one made")?;
    if rest.is_empty() || rest == checksum(secret).to_le_bytes() {
        return Ok(*secret);
    }
    Err(
        "does not match its checksum: bring it back from a copy, or remove it; then bounces of older mail are not known any more",
    )
}

fn make_secret(path: &Path) -> io::Result<[u8; 32]> {
    let mut secret = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut secret)?;
    // Under another name first: a crash must not leave half a secret behind.
    let half = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&half)?;
    file.write_all(&secret)?;
    file.write_all(&checksum(&secret).to_le_bytes())?;
    file.sync_all()?;
    std::fs::rename(&half, path)?;
    Ok(secret)
}

fn open_suppression(config: &Config, secret: &[u8; 32]) -> Result<Store, KeySetError> {
    let store = Store::open(&config.queue, secret, &config.suppression)?;
    for place in store.damaged() {
        tracing::error!(place, "the suppression list is damaged; some entries may be missing");
    }
    Ok(store)
}

fn read_journals(queue: &Path) -> Result<Journals, ServeError> {
    // A ring belongs to the thread that made it; this one only reads, and goes again.
    let mut ring = small_ring()?;
    let journals = recovery::read_journals(&mut ring, queue)?;
    for place in &journals.damaged {
        tracing::error!(place, "the journal is damaged; some recipients may be served again");
    }
    Ok(journals)
}

/// A ring for reading files, without the buffers of a core's.
pub fn small_ring() -> Result<Uring, ring::StartError> {
    Uring::new(UringConfig {
        submission_entries: 8,
        completion_entries: 16,
        receive_buffers: 1,
        receive_buffer_len: 4096,
        write_buffers_len: 0,
        write_buffer_len: 4096,
    })
}

/// Where mail is taken: each address with its listener's number.
fn places(config: &Config) -> Vec<(usize, SocketAddr)> {
    let listeners = config.listeners();
    let all = listeners.values().enumerate();
    all.flat_map(|(number, listener)| listener.addresses.iter().map(move |address| (number, *address)))
        .collect()
}

/// Our cores share their ports (SO_REUSEPORT), which would let another daemon of ours share them too.
fn check_ports(places: &[(usize, SocketAddr)], handed: &Handed) -> Result<(), ServeError> {
    let is_ours = |address: &SocketAddr| address.port() == 0 || handed.has_tcp(*address);
    for (_, address) in places.iter().filter(|(_, address)| !is_ours(address)) {
        let refused = |source| crate::core::StartError::Listen { address: *address, source };
        std::net::TcpListener::bind(address).map_err(refused)?;
    }
    Ok(())
}

/// The event log, ready to be written.
struct Keeping {
    log: Arc<EventLog>,
    rules: Arc<Mutex<Events>>,
}

/// A thread that looks after the event log's files.
struct KeeperThread {
    rules: Arc<Mutex<Events>>,
    stop: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

fn open_events(config: &Config, crossing: &Crossing) -> Result<Option<Keeping>, ServeError> {
    let Some(rules) = config.events.clone() else { return Ok(None) };
    let folder = config.events_folder();
    let wrap = |source| ServeError::Events { path: folder.clone(), source };
    // A folder that is not there yet has no cursors.
    let cursors = cursor::all(&folder).unwrap_or_default();
    let seen = cursors.iter().map(|(_, place)| place.file).max().unwrap_or(0);
    let first = events::folder::prepare(&folder, seen).map_err(wrap)?;
    let log = Arc::new(EventLog::new(folder.clone(), first, crossing.counters.clone()));
    let _ = crossing.events.set(Arc::clone(&log));
    Ok(Some(Keeping { log, rules: Arc::new(Mutex::new(rules)) }))
}

impl Keeping {
    fn begin(self) -> Result<KeeperThread, ServeError> {
        let (stop, stopped) = mpsc::channel();
        let keeper = Keeper::new(self.log, Arc::clone(&self.rules), crate::clock::now());
        let thread =
            std::thread::Builder::new().name("events".to_owned()).spawn(move || keeper.run(&stopped));
        Ok(KeeperThread { rules: self.rules, stop, thread: thread.map_err(ServeError::Thread)? })
    }
}

impl KeeperThread {
    fn end(self) {
        drop(self.stop);
        let _ = self.thread.join();
    }
}

fn bind_http(address: SocketAddr, handed: &Handed) -> Result<std::net::TcpListener, ServeError> {
    let wrap = |source| ServeError::Http { address, source };
    let listener = handed.tcp_listener(address).map_err(wrap)?;
    listener.set_nonblocking(true).map_err(wrap)?;
    Ok(listener)
}

/// The control socket.
fn bind_control(config: &Config) -> Result<UnixListener, ServeError> {
    let path = config.control_path();
    let mode = if config.control_uids.is_empty() { 0o600 } else { 0o666 };
    bind_unix(&path, mode).map_err(|source| ServeError::Control { path, source })
}

/// The socket by which this machine's users submit: all of them may, and who does is asked of the kernel.
fn bind_submit(config: &Config, handed: &Handed) -> Result<Option<UnixListener>, ServeError> {
    let Some(path) = &config.submit else { return Ok(None) };
    if let Some(socket) = handed.take_path(path) {
        return Ok(Some(socket.into()));
    }
    let wrap = |source| ServeError::Submit { path: path.clone(), source };
    bind_unix(path, 0o666).map(Some).map_err(wrap)
}

/// One that is there already was left behind: the queue's lock says that its daemon is dead.
pub(crate) fn bind_unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else is there")),
        Err(_) => {}
    }
    // Closed to all from the first moment on; opened below if it is to be.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = listener?;
    std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

struct Start {
    settings: Arc<Settings>,
    crossing: Arc<Crossing>,
    journals: Arc<Journals>,
    ended: tokio::sync::mpsc::UnboundedSender<usize>,
    submit: Option<UnixListener>,
    handed: Handed,
}

type CoreThread = JoinHandle<()>;

impl Start {
    /// Starts all cores, which recover side by side; the first one to listen finds out what port 0 became.
    fn cores(&self, cpus: &[usize]) -> Result<(Vec<CoreThread>, Vec<SocketAddr>), ServeError> {
        let (mut threads, mut starting) = (Vec::new(), Vec::new());
        let mut places = places(&self.settings.config);
        for (index, cpu) in cpus.iter().enumerate() {
            let (report, reported) = mpsc::channel();
            let (listen, to_listen_on) = mpsc::channel();
            let config = CoreConfig {
                index,
                settings: Arc::clone(&self.settings),
                crossing: Arc::clone(&self.crossing),
                journals: Arc::clone(&self.journals),
            };
            let (cpu, ended, crossing) = (*cpu, self.ended.clone(), Arc::clone(&self.crossing));
            let body = move || {
                core_thread(cpu, config, &to_listen_on, &report);
                crossing.close(index);
                let _ = ended.send(index);
            };
            let thread = std::thread::Builder::new()
                .name(format!("core-{index}"))
                .spawn(body)
                .map_err(ServeError::Thread)?;
            threads.push(thread);
            starting.push((listen, reported));
        }
        // None runs before all have recovered: a start that fails delivers nothing.
        for (index, (_, reported)) in starting.iter().enumerate() {
            reported.recv().map_err(|_| ServeError::CoreDied(index))??;
        }
        for (index, (listen, reported)) in starting.into_iter().enumerate() {
            let door =
                |(number, address): &(usize, SocketAddr)| (*number, *address, self.handed.take_tcp(*address));
            let doors = Doors { places: places.iter().map(door).collect(), submit: self.own_submit()? };
            let _ = listen.send(doors);
            let got = reported.recv().map_err(|_| ServeError::CoreDied(index))??;
            places.iter_mut().zip(got).for_each(|((_, address), got)| *address = got);
        }
        Ok((threads, places.into_iter().map(|(_, address)| address).collect()))
    }

    /// A core's own descriptor of the one socket.
    fn own_submit(&self) -> Result<Option<UnixListener>, ServeError> {
        let path = self.settings.config.submit.clone().unwrap_or_default();
        let own = self.submit.as_ref().map(UnixListener::try_clone).transpose();
        own.map_err(|source| ServeError::Submit { path, source })
    }
}

/// Where a core takes mail.
struct Doors {
    /// With the socket that listens already, if we were handed one.
    places: Vec<(usize, SocketAddr, Option<OwnedFd>)>,
    submit: Option<UnixListener>,
}

type Report = Result<Vec<SocketAddr>, ServeError>;

/// Recovers at once and says so; listens when it is told where, says where it does, and runs.
fn core_thread(
    cpu: usize,
    config: CoreConfig,
    to_listen_on: &mpsc::Receiver<Doors>,
    report: &mpsc::Sender<Report>,
) {
    let mut core = match start_core(cpu, config) {
        Ok(core) => core,
        Err(error) => return drop(report.send(Err(error))),
    };
    let _ = report.send(Ok(Vec::new()));
    // Nobody tells if another core did not start: then the process ends.
    let Ok(doors) = to_listen_on.recv() else { return };
    match listen(&mut core, doors) {
        Ok(addresses) => {
            let _ = report.send(Ok(addresses));
            run(core);
        }
        Err(error) => drop(report.send(Err(error))),
    }
}

fn listen(core: &mut SystemCore, doors: Doors) -> Report {
    let addresses = core.listen(doors.places)?;
    if let Some(submit) = doors.submit {
        core.listen_locally(submit.into()).map_err(|source| ServeError::Submit {
            path: core.settings.config.submit.clone().unwrap_or_default(),
            source,
        })?;
    }
    Ok(addresses)
}

type SystemCore = Core<Uring, SystemClock>;

fn start_core(cpu: usize, config: CoreConfig) -> Result<SystemCore, ServeError> {
    let mut cpus = rustix::thread::CpuSet::new();
    cpus.set(cpu);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &cpus) {
        tracing::warn!(cpu, %error, "cannot pin a core thread; it runs where the kernel puts it");
    }
    let ring = Uring::new(UringConfig::default())?;
    for note in ring.notes() {
        tracing::warn!(core = config.index, "{note}");
    }
    Ok(Core::start(ring, SystemClock, config)?)
}

fn run(mut core: SystemCore) {
    let mut events = Vec::with_capacity(1024);
    loop {
        match core.turn(&mut events) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::error!(%error, "the ring failed; restart to recover");
                return;
            }
        }
    }
}
