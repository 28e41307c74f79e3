//! `ringpost supervise`, and the parts that it starts: `local`, `launch`, and the processes of users.

use super::serve::start_log;
use super::{ConfigFile, PartFile, complain};
use crate::config::{self, Config};
use crate::confine;
use crate::mailboxes::{front, launcher, worker};
use crate::parts::{Handed, Part};
use crate::pop3d::mailbox;
use crate::supervise;
use local::users::{PasswordFile as _, SystemFiles};
use std::ffi::CString;
use std::io;
use std::path::Path;
use std::process::ExitCode;

/// What every part does first: takes its sockets, reads the configuration, and gives up what it does not need.
pub(super) fn begin(part_file: &PartFile, part: Part) -> Result<(Handed, Config), ExitCode> {
    start_log();
    end_process_on_panic();
    let handed = if part_file.handed { Handed::receive() } else { Ok(Handed::default()) };
    let handed = handed.map_err(|error| complain(75, &format!("standard input has no sockets: {error}")))?;
    let config = config::load_alone(&part_file.file.config).map_err(|error| complain(78, &error))?;
    if handed.is_supervised() {
        // Else they would all be called `exe`.
        let name = CString::new(format!("rp-{}", part.word())).unwrap_or_default();
        let _ = rustix::thread::set_name(&name);
        confine::confine(part, &config, &part_file.file.config).map_err(|error| complain(78, &error))?;
    }
    Ok((handed, config))
}

/// Invariant 8: a broken invariant of our own ends the part, with all its threads; a supervisor starts it again.
fn end_process_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::abort();
    }));
}

pub(super) fn supervise(file: &ConfigFile) -> ExitCode {
    start_log();
    let config = match config::load_alone(&file.config) {
        Ok(config) => config,
        Err(error) => return complain(78, &error),
    };
    let announce = |ready: &supervise::Ready| {
        let parts: Vec<String> = ready.0.iter().map(|(part, process)| format!("{part} {process}")).collect();
        println!("supervising {}", parts.join(" "));
        tracing::info!(parts = parts.join(" "), "ringpost {} is up", env!("CARGO_PKG_VERSION"));
    };
    match supervise::run(&config, &file.config, announce) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(error.exit_code(), &error),
    }
}

pub(super) fn local(part: &PartFile) -> ExitCode {
    let (handed, config) = match begin(part, Part::Local) {
        Ok(begun) => begun,
        Err(code) => return code,
    };
    match serve_local(part, &config, &handed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(error.exit_code(), &error),
    }
}

fn serve_local(part: &PartFile, config: &Config, handed: &Handed) -> Result<(), front::FrontError> {
    let local = config.local.as_ref().ok_or(front::FrontError::NotConfigured)?;
    let path = local.socket();
    let listener = match handed.take_path(&path) {
        Some(socket) => socket.into(),
        None => crate::daemon::bind_unix(&path, 0o666)?,
    };
    // As it comes from whoever bound it.
    listener.set_nonblocking(false)?;
    let reread = || match config::load_alone(&part.file.config) {
        Ok(config) => Some(config),
        Err(error) => {
            tracing::error!(%error, "the configuration cannot be read");
            None
        }
    };
    front::serve(config, engine_uid(config), listener, reread, || at_work(handed, "local"))
}

/// The uid that the engine has under a supervisor; our own without one.
fn engine_uid(config: &Config) -> u32 {
    let user = SystemFiles::default().user(&config.supervise.engine_user);
    user.ok().flatten().map_or_else(|| rustix::process::geteuid().as_raw(), |user| user.uid)
}

/// The line that a person or a test waits for, and the word to the supervisor.
fn at_work(handed: &Handed, part: &str) {
    println!("{part} is at work");
    if let Err(error) = handed.ready() {
        tracing::error!(%error, "whoever started this part does not hear that it is at work");
    }
}

pub(super) fn launch(part: &PartFile) -> ExitCode {
    let (handed, config) = match begin(part, Part::Launch) {
        Ok(begun) => begun,
        Err(code) => return code,
    };
    let path = config.launcher_path();
    let socket = handed.take_path(&path).map_or_else(|| supervise::bind_launcher(&path), Ok);
    let socket = match socket {
        Ok(socket) => socket,
        Err(error) => return complain(75, &error),
    };
    let reread = || config::load_alone(&part.file.config);
    match launcher::serve(&config, socket, reread, || at_work(&handed, "launch")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(error.exit_code(), &error),
    }
}

pub(super) fn deliver_as_user() -> ExitCode {
    ended(worker::run())
}

pub(super) fn mailbox_as_user(base: &Path, below: &Path) -> ExitCode {
    ended(mailbox::run(base, below))
}

fn ended(result: io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(75, &error),
    }
}
