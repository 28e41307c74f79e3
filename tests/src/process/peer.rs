//! Programs of third parties, as they come with the system.

use super::daemon::Own;
use super::setup;
use super::wait::{self, PATIENCE};
use rustix::process::{Pid, Signal, getuid, kill_process};
use std::collections::HashSet;
use std::fs::{File, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// The program, if it is installed. If not: an end of the test where `RINGPOST_INTEROP=required`, else a word about
/// it and `None`.
pub fn peer(name: &str) -> Option<Command> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let found = folders.map(|folder| folder.join(name)).find(|file| file.is_file());
    if found.is_none() {
        skip(&format!("{name} is not installed"));
    }
    found.map(Command::new)
}

/// The test cannot be made here: an end of it where everything is required, else a word.
pub fn skip(why: &str) {
    let is_required = std::env::var_os("RINGPOST_INTEROP").is_some_and(|value| value == "required");
    assert!(!is_required, "RINGPOST_INTEROP=required, but {why}");
    eprintln!("skipped: {why}");
}

pub fn is_root() -> bool {
    getuid().is_root()
}

/// Postfix's `smtp-sink`, which keeps what it takes in a file if asked to.
#[derive(Debug)]
pub struct SmtpSink {
    child: Own,
    folder: TempDir,
    pub address: SocketAddr,
}

impl SmtpSink {
    /// `None` if it is not installed.
    pub fn start(keeps: bool) -> Option<SmtpSink> {
        let mut command = peer("smtp-sink")?;
        let folder = setup::temporary_folder();
        // It gives up root's rights, and then it must still be able to write here.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).expect("the folder is ours");
        let counts = File::create(folder.path().join("counts")).expect("the folder is ours");
        if is_root() {
            command.args(["-u", "nobody"]);
        }
        if keeps {
            command.args(["-D", "mail"]);
        }
        command.args(["-c", "127.0.0.1:0", "1000"]).current_dir(folder.path());
        let spawned = command.stdin(Stdio::null()).stdout(counts).stderr(Stdio::inherit()).spawn();
        let child = Own(spawned.expect("smtp-sink starts"));
        let address = wait::until_some("smtp-sink to listen", PATIENCE, || listener_of(child.0.id()));
        Some(SmtpSink { child, folder, address })
    }

    /// The last number in its running count of messages.
    pub fn messages(&self) -> u64 {
        let counts = std::fs::read_to_string(self.folder.path().join("counts")).unwrap_or_default();
        let last =
            counts.rsplit("mesg=").next().map(|rest| rest.trim_matches(|char: char| !char.is_ascii_digit()));
        last.and_then(|digits| digits.split(|char: char| !char.is_ascii_digit()).next()?.parse().ok())
            .unwrap_or(0)
    }

    /// What it kept, once it has that many messages and was told to end.
    pub fn kept(mut self, messages: u64) -> Vec<u8> {
        wait::until(&format!("{messages} messages at smtp-sink"), PATIENCE, || self.messages() >= messages);
        let pid = Pid::from_raw(self.child.0.id().cast_signed()).expect("a child's pid is above 0");
        kill_process(pid, Signal::TERM).expect("our child can be signalled");
        wait::ends_within(&mut self.child.0, PATIENCE).expect("smtp-sink ends at SIGTERM");
        std::fs::read(self.folder.path().join("mail")).expect("smtp-sink kept something")
    }
}

/// The address on which a process listens: its one listening socket, by way of its open files. It was given port 0.
fn listener_of(pid: u32) -> Option<SocketAddr> {
    let own = sockets_of(pid);
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).ok()?;
    let listening = table.lines().skip(1).filter_map(listening_row);
    let mut mine = listening.filter(|(_, inode)| own.contains(inode));
    mine.next().map(|(address, _)| address)
}

fn sockets_of(pid: u32) -> HashSet<String> {
    let Ok(files) = std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")) else {
        return HashSet::new();
    };
    let links = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    links
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect()
}

/// A row of /proc/net/tcp in state LISTEN (0A): its local address and inode.
fn listening_row(row: &str) -> Option<(SocketAddr, String)> {
    let fields: Vec<&str> = row.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    let (ip, port) = local.split_once(':').filter(|_| *state == "0A")?;
    let ip = u32::from_str_radix(ip, 16).ok()?.to_ne_bytes();
    Some((SocketAddr::from((ip, u16::from_str_radix(port, 16).ok()?)), (*inode).to_owned()))
}
