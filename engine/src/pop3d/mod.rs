//! `ringpost pop3`: a process of its own that lets users fetch their mail. It shares nothing with the engine but the
//! configuration file and the code that checks passwords.
//!
//! A thread for each listener and each session: whoever reads a Maildir waits for the disk, and nothing else here is fast.
//! What POP3 means is [`::pop3::Session`]'s; [`maildir`] reads and removes files, [`wire`] is the socket, in plain text or
//! under TLS, [`crowd`] counts who is there. A thread that ends, or all of them at once, removes nothing: that is done
//! by QUIT, file by file.
//!
//! By itself it runs as one unprivileged user, who may read the mailboxes; as root it does not start. Under a supervisor its
//! user has no right to any: each session asks for a process of the mailbox's owner ([`mailbox`]).
//! Bounds: `sessions_max`, `sessions_per_address`; [`STACK_LEN`] for a session's thread.

mod connection;
mod crowd;
pub(crate) mod mailbox;
mod maildir;
mod wire;

pub use mailbox::fuzz_mailbox_list;

use crate::auth::{Authenticator, Passwords};
use crate::config::{Auth, Config, ConfigError, Pop3};
use crate::parts::Handed;
use crate::tls::TlsFilesError;
use ::pop3::{Limits, Policy, TlsUse, refusal_too_busy};
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use crowd::Crowd;
use parking_lot::RwLock;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Octets: what a session needs lies on the heap.
const STACK_LEN: usize = 256 << 10;

/// After an error that no client is to blame for, such as too many open files.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Whoever is turned away has so long to take the word.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Why there is no POP3.
#[derive(Debug, thiserror::Error)]
pub enum Pop3Error {
    #[error("there is no [pop3] in the configuration")]
    NotConfigured,
    #[error(
        "pop3 runs as one unprivileged user that may read the mailboxes: start it as that one, not as root"
    )]
    Root,
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("pop3: {address}: {source}")]
    Bind { address: SocketAddr, source: io::Error },
    #[error("pop3: {0}")]
    System(#[from] io::Error),
    #[error("pop3: the system has no random numbers")]
    Random,
}

impl Pop3Error {
    pub fn exit_code(&self) -> u8 {
        match self {
            Pop3Error::NotConfigured | Pop3Error::Root | Pop3Error::Config(_) => 78,
            Pop3Error::Bind { .. } | Pop3Error::System(_) | Pop3Error::Random => 75,
        }
    }
}

impl From<TlsFilesError> for Pop3Error {
    fn from(error: TlsFilesError) -> Pop3Error {
        Pop3Error::Config(error.into())
    }
}

/// Where clients are awaited.
#[derive(Debug)]
pub struct Ready {
    pub plain: Vec<SocketAddr>,
    pub tls: Vec<SocketAddr>,
}

/// What all sessions share.
struct House {
    config: Pop3,
    policy: Arc<Policy>,
    host_name: String,
    /// Starts processes of the mailboxes' owners. `None`: we have the right to all mailboxes.
    launcher: Option<PathBuf>,
    auth: Authenticator,
    files: RwLock<Files>,
    random: SystemRandom,
}

/// What a reload reads anew.
#[derive(Clone)]
struct Files {
    tls: Option<Arc<rustls::ServerConfig>>,
    apop: Option<Arc<Passwords>>,
}

impl Files {
    fn load(config: &Pop3) -> Result<Files, Pop3Error> {
        let tls = crate::tls::server_of(config.certificate.as_deref(), config.key.as_deref())?;
        let apop = config.apop_secrets.as_deref().map(Passwords::load).transpose()?;
        Ok(Files { tls: tls.map(Arc::new), apop: apop.map(Arc::new) })
    }
}

/// Serves until SIGTERM. SIGHUP rereads password file, secrets and certificate.
pub fn serve(config: &Config, handed: &Handed, announce: impl FnOnce(&Ready)) -> Result<(), Pop3Error> {
    let house = Arc::new(House::open(config, handed)?);
    let crowd = Arc::new(Crowd::new(house.config.sessions_max, house.config.sessions_per_address));
    let mut ready = Ready { plain: Vec::new(), tls: Vec::new() };
    // All of them first: a half that listens is of no use.
    let bind = |address: &SocketAddr| {
        handed.tcp_listener(*address).map_err(|source| Pop3Error::Bind { address: *address, source })
    };
    let plain: Vec<TcpListener> = house.config.listen.iter().map(bind).collect::<Result<_, _>>()?;
    let tls: Vec<TcpListener> = house.config.listen_tls.iter().map(bind).collect::<Result<_, _>>()?;
    let all = plain
        .into_iter()
        .map(|listener| (listener, false))
        .chain(tls.into_iter().map(|listener| (listener, true)));
    for (listener, is_tls) in all {
        let into = if is_tls { &mut ready.tls } else { &mut ready.plain };
        into.push(listener.local_addr()?);
        let (house, crowd) = (Arc::clone(&house), Arc::clone(&crowd));
        let run = move || listen(&house, &crowd, &listener, is_tls);
        std::thread::Builder::new().name("pop3-accept".to_owned()).spawn(run)?;
    }
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
        let (mut end, mut reload) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
        announce(&ready);
        handed.ready()?;
        loop {
            tokio::select! {
                _ = end.recv() => return Ok(()),
                _ = reload.recv() => house.reload(config),
            }
        }
    })
}

/// Who may log in.
fn auth_of(config: &Config, own: &Pop3) -> Auth {
    let password_file = own.password_file.clone().or_else(|| config.auth.password_file.clone());
    Auth { password_file, ..config.auth.clone() }
}

impl House {
    fn open(config: &Config, handed: &Handed) -> Result<House, Pop3Error> {
        let own = config.pop3.clone().ok_or(Pop3Error::NotConfigured)?;
        if rustix::process::geteuid().is_root() {
            return Err(Pop3Error::Root);
        }
        let auth_config = auth_of(config, &own);
        let (files, passwords) = (Files::load(&own)?, auth_config.load_passwords()?);
        let policy = Policy {
            limits: Limits::default(),
            tls_use: if files.tls.is_some() { TlsUse::Offer } else { TlsUse::None },
            plain_logins: own.plain_logins,
            idle_secs: own.idle_timeout_secs,
        };
        let random = SystemRandom::new();
        // SCRAM is not spoken here: what its made-up keys come from matters to nobody.
        let mut secret = [0; 32];
        random.fill(&mut secret).map_err(|_| Pop3Error::Random)?;
        let auth =
            Authenticator::new(&auth_config, Arc::new(passwords), &secret).map_err(|_| Pop3Error::Random)?;
        Ok(House {
            policy: Arc::new(policy),
            host_name: config.host_name.clone(),
            launcher: handed.is_supervised().then(|| config.launcher_path()),
            config: own,
            auth,
            files: RwLock::new(files),
            random,
        })
    }

    /// All of it or, if something is wrong, nothing. Sessions that are open keep what they began with.
    fn reload(&self, config: &Config) {
        let auth_config = auth_of(config, &self.config);
        let read = || Ok::<_, Pop3Error>((Files::load(&self.config)?, auth_config.load_passwords()?));
        match read() {
            Ok((files, passwords)) => {
                *self.files.write() = files;
                self.auth.configure(&auth_config, Arc::new(passwords));
                tracing::info!("passwords and certificate are read again");
            }
            Err(error) => tracing::error!(%error, "nothing is reloaded"),
        }
    }

    /// RFC 1939 §7: another one for each connection, and nobody can tell which.
    fn stamp(&self) -> Option<Box<str>> {
        let mut octets = [0; 16];
        self.random.fill(&mut octets).ok()?;
        Some(format!("<{:032x}@{}>", u128::from_be_bytes(octets), self.host_name).into())
    }
}

fn listen(house: &Arc<House>, crowd: &Arc<Crowd>, listener: &TcpListener, is_tls: bool) {
    loop {
        let (stream, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "no connection could be accepted");
                std::thread::sleep(ACCEPT_AGAIN);
                continue;
            }
        };
        let Some(place) = crowd.enter(peer.ip()) else {
            tracing::info!(address = %peer.ip(), "turned away: too many connections");
            if !is_tls {
                turn_away(&stream);
            }
            continue;
        };
        let house = Arc::clone(house);
        let run = move || {
            connection::run(&house, stream, peer.ip(), is_tls);
            drop(place);
        };
        if let Err(error) =
            std::thread::Builder::new().name("pop3".to_owned()).stack_size(STACK_LEN).spawn(run)
        {
            tracing::warn!(%error, "a session has no thread");
        }
    }
}

fn turn_away(mut stream: &TcpStream) {
    let _ = stream.set_write_timeout(Some(REFUSAL_TIMEOUT));
    let _ = stream.write_all(refusal_too_busy());
}
