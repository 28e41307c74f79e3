//! A daemon's folder and configuration, before it runs and while it does.
//!
//! The folder is on a disk if one can be found: on tmpfs a sync costs nothing and O_DIRECT is another thing.

use super::daemon::Daemon;
use super::dns::NameServer;
use super::{programs, wait};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;
use toml::{Table, Value};

/// See the module.
#[derive(Debug)]
pub struct Setup {
    folder: TempDir,
    config: Table,
    descriptors_max: Option<u32>,
}

/// A start that ended by itself.
#[derive(Debug)]
pub struct Refusal {
    /// Exit code, or minus the signal.
    pub code: i32,
    /// Standard error.
    pub said: String,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup::new()
    }
}

impl Setup {
    /// Small segments and journals, so that they are turned over; short waits, so that retries are seen.
    pub fn new() -> Setup {
        let folder = temporary_folder();
        let setup = Setup { folder, config: Table::new(), descriptors_max: None };
        let (queue, log) = (setup.queue(), setup.delivery_log());
        setup
            .with("host_name", "relay.process.test")
            .with("queue", text(&queue))
            .with("delivery_log", text(&log))
            .with("listen", vec!["127.0.0.1:0"])
            .with("http", "127.0.0.1:0")
            .with("cpus", vec![next_cpu()])
            .with("intake.recipients_max", 100_000)
            .with("storage.segment_len", 8 << 20)
            .with("storage.journal_len", 1 << 20)
            .with("storage.free_min", 0)
            .with("retry.quadratic_secs", 1)
            .with("delivery.backoff_secs", 1)
            .with("delivery.connections_initial", 20)
    }

    /// Programs of this setup have so many file descriptors, until somebody gives them more.
    pub fn descriptors_max(self, count: u32) -> Setup {
        Setup { descriptors_max: Some(count), ..self }
    }

    /// Everything goes to this address.
    pub fn relay(self, to: SocketAddr) -> Setup {
        self.with("routes.*", to.to_string())
    }

    /// Asks this name server, and connects to hosts on `port`.
    pub fn by_mx(self, server: &NameServer, port: u16) -> Setup {
        let setup = self.with("delivery.name_servers", vec![server.address.to_string()]);
        setup.with("delivery.port", i64::from(port))
    }

    /// Lines of TOML; what they say of a key goes before what was there.
    pub fn with_lines(mut self, lines: &str) -> Setup {
        let more: Table = toml::from_str(lines).unwrap_or_else(|error| panic!("{error}"));
        merge(&mut self.config, more);
        self
    }

    pub fn on_cpus(self, cpus: &[i64]) -> Setup {
        self.with("cpus", cpus.to_vec())
    }

    /// `key` is `name` or `table.name`.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Setup {
        self.set(key, value);
        self
    }

    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        let (table, name) = self.place(key);
        table.insert(name, value.into());
    }

    pub fn remove(&mut self, key: &str) {
        let (table, name) = self.place(key);
        table.remove(&name);
    }

    fn place(&mut self, key: &str) -> (&mut Table, String) {
        let Some((table, name)) = key.split_once('.') else { return (&mut self.config, key.to_owned()) };
        let entry = self.config.entry(table).or_insert_with(|| Table::new().into());
        (entry.as_table_mut().expect("dots separate a table and its key"), name.to_owned())
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn queue(&self) -> PathBuf {
        self.folder().join("queue")
    }

    pub fn delivery_log(&self) -> PathBuf {
        self.folder().join("delivery.log")
    }

    pub fn config_file(&self) -> PathBuf {
        self.folder().join("ringpost.toml")
    }

    /// What all daemons of this setup said on standard error.
    pub fn talk_file(&self) -> PathBuf {
        self.folder().join("talk.log")
    }

    pub fn write_config(&self) {
        let text = toml::to_string(&self.config).expect("a table is TOML");
        std::fs::write(self.config_file(), text).expect("the folder is ours");
    }

    /// `ringpost COMMAND... --config FILE`.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.limited(&programs::ringpost());
        command.args(words).arg("--config").arg(self.config_file()).env("RUST_LOG", "info");
        command
    }

    fn limited(&self, program: &Path) -> Command {
        let Some(count) = self.descriptors_max else { return Command::new(program) };
        let mut shell = Command::new("/bin/sh");
        // The shell becomes the program: its pid is the daemon's. The hard limit too, up to which a daemon helps itself.
        shell.args(["-c", &format!("ulimit -n {count}; exec \"$0\" \"$@\"")]).arg(program);
        shell
    }

    /// `ringpost queue stat --json`, whether a daemon runs or not.
    pub fn queue_stat(&self) -> serde_json::Value {
        let output = wait::succeed(&mut self.command(&["queue", "stat", "--json"]), wait::PATIENCE);
        serde_json::from_slice(&output.stdout).expect("one JSON object")
    }

    /// `ringpost queue list --json`.
    pub fn queue_list(&self) -> Vec<serde_json::Value> {
        let output = wait::succeed(&mut self.command(&["queue", "list", "--json"]), wait::PATIENCE);
        let lines = String::from_utf8(output.stdout).expect("JSON is UTF-8");
        lines.lines().map(|line| serde_json::from_str(line).expect("a JSON object per line")).collect()
    }

    pub fn start(self) -> Daemon {
        self.try_start().unwrap_or_else(|said| panic!("the daemon did not come up: {said}"))
    }

    /// A daemon, or what was said in place of one.
    pub fn try_start(self) -> Result<Daemon, String> {
        self.write_config();
        Daemon::start(self)
    }

    /// Writes the configuration and starts a daemon that must not come up.
    pub fn refusal(&self) -> Refusal {
        self.write_config();
        Refusal::of(&mut self.command(&["serve"]))
    }
}

fn merge(into: &mut Table, more: Table) {
    for (key, value) in more {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(more)) => merge(inner, more),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

impl Refusal {
    pub fn of(command: &mut Command) -> Refusal {
        Refusal::from_output(&wait::finish(command, wait::PATIENCE))
    }

    fn from_output(output: &Output) -> Refusal {
        let code = output.status.code().unwrap_or_else(|| -output.status.signal().unwrap_or(0));
        Refusal { code, said: String::from_utf8_lossy(&output.stderr).into_owned() }
    }

    /// The one sentence for the operator, apart from the log's lines, which begin with a time.
    pub fn sentence(&self) -> &str {
        let mut lines = self.said.lines().filter(|line| line.starts_with("ringpost: "));
        let (first, second) = (lines.next(), lines.next());
        assert!(second.is_none(), "more than one sentence: {}", self.said);
        first.unwrap_or_else(|| panic!("no sentence: {}", self.said))
    }
}

/// `/var/tmp` outlives a restart, and so it is hardly ever tmpfs.
pub fn temporary_folder() -> TempDir {
    let on_disk = Path::new("/var/tmp");
    let parent = if on_disk.is_dir() { on_disk.to_owned() } else { std::env::temp_dir() };
    let made = tempfile::Builder::new().prefix("ringpost-test-").tempdir_in(parent);
    made.expect("a temporary folder can be made")
}

/// An address where nobody listens until the test has somebody listen there. Its port is none that the system gives to
/// whoever asks for any, as other tests do meanwhile.
pub fn vacant() -> SocketAddr {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let own = usize::try_from(std::process::id()).expect("32 bits");
    let ports = (0..20_000).map(|_| (own * 64 + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000 + 10_000);
    let addresses = ports.map(|port| SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).expect("small"))));
    let mut free = addresses.filter(|address| TcpListener::bind(address).is_ok());
    free.next().expect("a port is free")
}

/// Daemons on one core each share the machine.
fn next_cpu() -> i64 {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    i64::try_from(NEXT.fetch_add(1, Ordering::Relaxed) % count).unwrap_or(0)
}

fn text(path: &Path) -> String {
    path.to_str().expect("temporary folders have plain names").to_owned()
}
