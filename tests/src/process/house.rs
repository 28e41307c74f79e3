//! The whole of it: `ringpost supervise` with its parts, users with homes, and a table that says whose a name is.
//!
//! Started by root, the parts are other users' (of those that every Debian has), and so are the homes; else everything is
//! ours.

use super::daemon::Own;
use super::peer::{is_root, skip};
use super::wait::{self, PATIENCE};
use super::{Client, Setup, setup, vacant};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs::{OpenOptions, Permissions};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use tempfile::TempDir;

/// The host whose mailboxes are here.
pub const HERE: &str = "here.test";

/// Users of the parts, and their uids.
pub const PARTS: [(&str, &str); 3] =
    [("engine_user", "daemon"), ("local_user", "news"), ("pop3_user", "proxy")];

/// Of the first resident; the others' follow.
const FIRST_UID: u32 = 61_001;

/// True if a test that needs root can go on. Where everything is required it must be able to.
pub fn has_root() -> bool {
    if !is_root() {
        skip("only root can start processes of other users");
    }
    is_root()
}

/// Somebody with a home. Their mail is theirs by the table.
#[derive(Clone, Debug)]
pub struct Resident {
    pub name: String,
    pub uid: u32,
    pub home: PathBuf,
}

impl Resident {
    pub fn write(&self, name: &str, content: &str) {
        let path = self.home.join(name);
        std::fs::write(&path, content).expect("ours, or root may");
        self.give(&path);
    }

    fn give(&self, path: &Path) {
        if is_root() {
            chown(path, Some(self.uid), Some(self.uid)).expect("root may");
        }
    }

    pub fn make_maildir(&self, name: &str) {
        for folder in ["", "tmp", "new", "cur"] {
            let path = self.home.join(name).join(folder);
            std::fs::create_dir_all(&path).expect("ours, or root may");
            std::fs::set_permissions(&path, Permissions::from_mode(0o700)).expect("ours, or root may");
            self.give(&path);
        }
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.home.join(name)).unwrap_or_default()
    }

    /// Paths of the messages in `new/` of their Maildir.
    pub fn new_mail(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.home.join("Maildir/new"));
        entries.into_iter().flatten().map(|entry| entry.expect("it can be listed").path()).collect()
    }

    /// Waits for so many, and returns what they are.
    pub fn wait_for_mail(&self, count: usize) -> Vec<String> {
        wait::until(&format!("{count} messages for {}", self.name), PATIENCE, || {
            self.new_mail().len() >= count
        });
        let paths = self.new_mail();
        assert_eq!(paths.len(), count, "{paths:?}");
        let read = |path: &PathBuf| std::fs::read_to_string(path).expect("it stays");
        paths.iter().map(read).collect()
    }
}

/// Before it is started.
#[derive(Debug)]
pub struct Plan {
    pub setup: Setup,
    pub residents: Vec<Resident>,
    smtp: SocketAddr,
    pop3: SocketAddr,
    homes: TempDir,
}

/// See the module.
#[derive(Debug)]
pub struct House {
    child: Own,
    pub setup: Setup,
    pub smtp: SocketAddr,
    pub pop3: SocketAddr,
    residents: Vec<Resident>,
    said: Arc<Mutex<String>>,
    _homes: TempDir,
}

impl Plan {
    /// Residents with a Maildir each; the first one is who gets what is nobody's.
    pub fn new(names: &[&str]) -> Plan {
        let setup = Setup::new();
        let folder = setup.folder().to_owned();
        // Apart from the configuration, beside which the parts may read.
        let homes = setup::temporary_folder();
        for folder in [folder.as_path(), homes.path()] {
            std::fs::set_permissions(folder, Permissions::from_mode(0o755)).expect("ours");
        }
        let own = rustix::process::geteuid().as_raw();
        let mut table = String::new();
        let mut residents = Vec::new();
        for (name, number) in names.iter().zip(FIRST_UID..) {
            let uid = if is_root() { number } else { own };
            let gid = if is_root() { number } else { rustix::process::getegid().as_raw() };
            let home = homes.path().join(name);
            std::fs::create_dir_all(&home).expect("ours");
            let resident = Resident { name: (*name).to_owned(), uid, home };
            resident.give(&resident.home);
            resident.make_maildir("Maildir");
            let place = format!("{name}:{uid}:{gid}:{}", resident.home.display());
            table += &format!("={name}:{place}:::\n+{name}-:{place}:-::\n");
            if residents.is_empty() {
                table += &format!("+:{place}:-::\n");
            }
            residents.push(resident);
        }
        std::fs::write(folder.join("assign"), table + ".\n").expect("ours");
        let (smtp, pop3) = (vacant(), vacant());
        let path = |name: &str| folder.join(name).to_str().expect("plain").to_owned();
        let mut setup = setup
            .with("host_name", "mx.here.test")
            .with("listen", vec![smtp.to_string()])
            .with("submit", path("run/submit.sock"))
            .with("local.locals", vec![HERE])
            .with("local.assign", path("assign"))
            .with("supervise.run", path("run"));
        setup.remove("delivery_log");
        setup.remove("http");
        for (key, user) in PARTS {
            setup.set(&format!("supervise.{key}"), user);
        }
        Plan { setup, residents, smtp, pop3, homes }
    }

    pub fn resident(&self, name: &str) -> &Resident {
        self.residents.iter().find(|resident| resident.name == name).expect("a resident")
    }

    /// As [`Setup::with`].
    pub fn with(mut self, key: &str, value: impl Into<toml::Value>) -> Plan {
        self.setup.set(key, value);
        self
    }

    /// Everybody fetches their mail, with the password `secret`.
    pub fn with_pop3(mut self) -> Plan {
        let folder = self.setup.folder().to_owned();
        let file = folder.join("passwords");
        let lines: Vec<String> =
            self.residents.iter().map(|resident| format!("{}:{{PLAIN}}secret\n", resident.name)).collect();
        std::fs::write(&file, lines.concat()).expect("ours");
        std::fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("ours");
        if is_root() {
            let uid = uid_of(PARTS[2].1);
            chown(&file, Some(uid), Some(uid)).expect("root may");
        }
        let path = |name: &str| folder.join(name).to_str().expect("plain").to_owned();
        self.setup.set("pop3.listen", vec![self.pop3.to_string()]);
        self.setup.set("pop3.maildir", format!("{}/{{user}}/Maildir", self.homes.path().display()));
        self.setup.set("pop3.password_file", path("passwords"));
        self
    }

    pub fn start(self) -> House {
        let Plan { setup, residents, smtp, pop3, homes } = self;
        setup.write_config();
        let talk = OpenOptions::new().create(true).append(true).open(setup.talk_file()).expect("ours");
        let mut command = setup.command(&["supervise"]);
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(talk).spawn();
        let mut child = Own(spawned.expect("it was built"));
        let said = follow(child.0.stdout.take().expect("it was piped"));
        let house = House { child, setup, smtp, pop3, residents, said, _homes: homes };
        wait::until("the parts are at work", PATIENCE, || house.said().contains("supervising "));
        house
    }
}

/// What is printed, as it comes.
fn follow(stdout: ChildStdout) -> Arc<Mutex<String>> {
    let said = Arc::new(Mutex::new(String::new()));
    let into = Arc::clone(&said);
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            into.lock().unwrap_or_else(PoisonError::into_inner).push_str(&format!("{line}\n"));
        }
    });
    said
}

/// Of a user that the system has.
pub fn uid_of(name: &str) -> u32 {
    let passwd = std::fs::read_to_string("/etc/passwd").expect("every system has it");
    let line = passwd.lines().find(|line| line.starts_with(&format!("{name}:")));
    let uid = line.and_then(|line| line.split(':').nth(2)).and_then(|uid| uid.parse().ok());
    uid.unwrap_or_else(|| panic!("no user {name}"))
}

impl House {
    fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn resident(&self, name: &str) -> &Resident {
        self.residents.iter().find(|resident| resident.name == name).expect("a resident")
    }

    pub fn client(&self) -> Client {
        Client::greet(self.smtp)
    }

    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// The parts' processes by their commands, as the system knows them.
    pub fn parts(&self) -> BTreeMap<String, u32> {
        children_of(self.pid()).into_iter().filter_map(|pid| Some((command_of(pid)?, pid))).collect()
    }

    pub fn signal(&self, pid: u32, signal: Signal) {
        let pid = Pid::from_raw(pid.cast_signed()).expect("above 0");
        kill_process(pid, signal).expect("our child, or its child");
    }

    pub fn talk(&self) -> String {
        let talk = std::fs::read(self.setup.talk_file()).unwrap_or_default();
        String::from_utf8_lossy(&talk).into_owned()
    }

    pub fn wait_until_said(&self, words: &str) {
        wait::until(&format!("{words:?} in the log"), PATIENCE, || self.talk().contains(words));
    }

    /// Nothing is owed to anybody.
    pub fn wait_until_empty(&self) {
        wait::until("the queue is empty", PATIENCE, || self.setup.queue_stat()["messages"] == 0);
    }

    /// SIGTERM, which must end all of it.
    pub fn terminate(mut self) {
        let parts = self.parts();
        self.signal(self.pid(), Signal::TERM);
        let status = wait::ends_within(&mut self.child.0, PATIENCE).expect("SIGTERM ends it");
        assert!(status.success(), "{status}\n{}", self.talk());
        for pid in parts.values() {
            assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{parts:?}");
        }
    }
}

impl Drop for House {
    /// The parts end with it; the folder stays until they have.
    fn drop(&mut self) {
        let parts = self.parts();
        let _ = self.child.0.kill();
        let _ = self.child.0.wait();
        let is_there = |pid: &u32| Path::new(&format!("/proc/{pid}/exe")).exists();
        for _ in 0..500 {
            if !parts.values().any(is_there) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

fn children_of(parent: u32) -> Vec<u32> {
    let of = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    let entries = std::fs::read_dir("/proc").expect("there is one");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| of(*pid) == Some(parent)).collect()
}

/// The second word of its command line: `serve` of `ringpost serve --config …`.
fn command_of(pid: u32) -> Option<String> {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    words.split(|octet| *octet == 0).nth(1).map(|word| String::from_utf8_lossy(word).into_owned())
}

/// The most memory that a process ever had, in octets. It counts pages of the program's file as they are mapped in,
/// whose number depends on the page cache: tests compare two of these, the first taken after a smaller job of the kind.
pub fn memory_peak(pid: u32) -> u64 {
    let peak = status_of(pid, "VmHWM");
    peak[0].parse::<u64>().expect("a number of KiB") << 10
}

/// A field of `/proc/PID/status`, its words.
pub fn status_of(pid: u32, field: &str) -> Vec<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
    line.unwrap_or_else(|| panic!("{field} of {pid}")).split_whitespace().map(str::to_owned).collect()
}
