//! `loadgen sink` as a child: the witness of what went out.

use super::daemon::Own;
use super::wait::{self, PATIENCE};
use super::{programs, setup};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tempfile::TempDir;

/// The folder in which one keeps what it takes.
const CONTENTS: &str = "contents";

/// See the module.
#[derive(Debug)]
pub struct Sink {
    child: Own,
    folder: TempDir,
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    reader: Option<JoinHandle<()>>,
}

/// What it counted, as far as a test asks. Its last line is the report.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Counters {
    pub transactions: u64,
    pub recipients: u64,
    pub connections: u64,
    pub connections_open: u64,
    pub connections_dropped: u64,
    /// Complete ones, full and resumed.
    pub tls_handshakes: u64,
    pub tls_resumed: u64,
    pub tls_failed: u64,
    /// Complete handshakes by version, such as `TLSv1.3`.
    pub tls_versions: BTreeMap<String, u64>,
    pub tls_client_certificates: u64,
    /// Octets in the clear behind STARTTLS: always a mistake.
    pub starttls_injected: u64,
    pub replies: BTreeMap<u16, u64>,
    /// By source address; in the report only.
    #[serde(default)]
    pub sources: Vec<Peer>,
}

/// What it saw of one source address. Peaks are by the window's seconds (`--window`).
#[derive(Clone, Debug, Deserialize)]
pub struct Peer {
    pub source: IpAddr,
    pub connections: u64,
    pub connections_open_peak: u64,
    pub messages: u64,
    pub recipients: u64,
    pub connections_peak: BTreeMap<u64, u64>,
    pub mails_peak: BTreeMap<u64, u64>,
    pub messages_peak: BTreeMap<u64, u64>,
    pub helo_names: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Seen {
    addresses: Vec<SocketAddr>,
    last: Counters,
    open_most: u64,
}

/// One accepted recipient, from the audit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Delivery {
    pub at_ns: u64,
    pub digest: String,
    pub token: String,
    pub reverse_path: String,
    pub forward_path: String,
}

/// A sink after its end.
#[derive(Debug)]
pub struct Ended {
    pub counters: Counters,
    /// Most connections open at a time, as far as the samples show.
    pub open_most: u64,
    pub audit: PathBuf,
    _folder: TempDir,
}

impl Sink {
    /// On a port of the system's choice, with more options such as `--delay 1`.
    pub fn start(options: &[&str]) -> Sink {
        Sink::start_on("127.0.0.1:0", options)
    }

    pub fn start_on(address: &str, options: &[&str]) -> Sink {
        Sink::start_in(setup::temporary_folder(), address, options)
    }

    /// One that keeps what it takes, for [`Sink::contents`].
    pub fn keeping(options: &[&str]) -> Sink {
        let folder = setup::temporary_folder();
        let contents = folder.path().join(CONTENTS);
        std::fs::create_dir(&contents).expect("the folder is ours");
        let contents = contents.to_str().expect("temporary folders have plain names").to_owned();
        Sink::start_in(folder, "127.0.0.1:0", &[&["--contents", &contents], options].concat())
    }

    fn start_in(folder: TempDir, address: &str, options: &[&str]) -> Sink {
        let mut command = Command::new(programs::loadgen());
        command.args(["sink", address, "--stop-on-stdin-eof", "--stats-interval", "20", "--audit"]);
        command.arg(folder.path().join("received.tsv")).args(options);
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = Own(spawned.expect("the sink was built"));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let reader = read_lines(child.0.stdout.take().expect("it was piped"), Arc::clone(&seen));
        let first = || lock(&seen).addresses.first().copied();
        let address = wait::until_some("the sink's address", PATIENCE, first);
        Sink { child, folder, address, seen, reader: Some(reader) }
    }

    /// A second one on the same port of 127.0.0.`last`.
    pub fn beside(&self, last: u8, options: &[&str]) -> Sink {
        let address = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), self.address.port()));
        Sink::start_on(&address.to_string(), options)
    }

    /// What it took so far, in order, if it keeps it.
    pub fn contents(&self) -> Vec<Vec<u8>> {
        let entries = std::fs::read_dir(self.folder.path().join(CONTENTS)).expect("this sink keeps contents");
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a folder's entry").path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "eml"));
        files.sort();
        files.iter().map(|file| std::fs::read(file).expect("it is whole")).collect()
    }

    /// As [`Sink::contents`], once it has taken so many.
    pub fn wait_for_contents(&self, count: usize, timeout: Duration) -> Vec<Vec<u8>> {
        let enough = || Some(self.contents()).filter(|contents| contents.len() >= count);
        wait::until_some(&format!("{count} contents"), timeout, enough)
    }

    pub fn audit_file(&self) -> PathBuf {
        self.folder.path().join("received.tsv")
    }

    /// At most some milliseconds old.
    pub fn counters(&self) -> Counters {
        lock(&self.seen).last.clone()
    }

    pub fn wait_for_recipients(&self, count: u64, timeout: Duration) {
        let what = format!("{count} recipients at the sink, {:?}", self.counters());
        wait::until(&what, timeout, || self.counters().recipients >= count);
    }

    /// What is in the audit so far.
    pub fn deliveries(&self) -> Vec<Delivery> {
        read_audit(&self.audit_file())
    }

    /// Waits until the audit has that many.
    pub fn wait_for_deliveries(&self, count: usize, timeout: Duration) -> Vec<Delivery> {
        let enough = || Some(self.deliveries()).filter(|deliveries| deliveries.len() >= count);
        wait::until_some(&format!("{count} deliveries"), timeout, enough)
    }

    /// The end of its input ends it; only then is the audit complete.
    pub fn end(mut self) -> Ended {
        drop(self.child.0.stdin.take());
        let status = wait::ends_within(&mut self.child.0, PATIENCE).expect("the sink ends with its input");
        assert!(status.success(), "the sink ended with {status}");
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the sink prints what it should");
        }
        let seen = lock(&self.seen);
        let (counters, open_most, audit) = (seen.last.clone(), seen.open_most, self.audit_file());
        drop(seen);
        Ended { counters, open_most, audit, _folder: self.folder }
    }
}

impl Ended {
    pub fn deliveries(&self) -> Vec<Delivery> {
        read_audit(&self.audit)
    }

    /// The source at 127.0.0.`last`, if anything came from there.
    pub fn source(&self, last: u8) -> Option<&Peer> {
        let address = IpAddr::from([127, 0, 0, last]);
        self.counters.sources.iter().find(|peer| peer.source == address)
    }

    pub fn forward_paths(&self) -> BTreeSet<String> {
        self.deliveries().into_iter().map(|delivery| delivery.forward_path).collect()
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read_lines(stdout: ChildStdout, seen: Arc<Mutex<Seen>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            take_line(&line, &mut lock(&seen));
        }
    })
}

fn take_line(line: &str, seen: &mut Seen) {
    if let Some(address) = line.strip_prefix("listening ") {
        return seen.addresses.push(address.parse().expect("an address"));
    }
    // The report is printed over several lines or one; counters stand on one.
    let Ok(counters) = serde_json::from_str::<Counters>(line) else { return };
    seen.open_most = seen.open_most.max(counters.connections_open);
    seen.last = counters;
}

fn read_audit(path: &PathBuf) -> Vec<Delivery> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // The last line may be under way.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| parse_line(line).unwrap_or_else(|| panic!("no record: {line:?}"))).collect()
}

fn parse_line(line: &str) -> Option<Delivery> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [at_ns, digest, token, reverse_path, forward_path] = fields[..] else { return None };
    Some(Delivery {
        at_ns: at_ns.parse().ok()?,
        digest: digest.to_owned(),
        token: token.to_owned(),
        reverse_path: reverse_path.to_owned(),
        forward_path: forward_path.to_owned(),
    })
}
