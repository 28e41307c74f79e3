//! `ringpost serve` as a child: started, watched, killed, started again on the same queue.

use super::setup::Setup;
use super::wait::{self, PATIENCE};
use super::{Client, http};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// See the module.
#[derive(Debug)]
pub struct Daemon {
    /// Before the folder: it must end before its files go.
    child: Own,
    pub setup: Setup,
    /// The first of `listening`.
    pub address: SocketAddr,
    /// Every listener's, in the order of their names.
    pub listening: Vec<SocketAddr>,
    pub http: SocketAddr,
    /// Addresses of the API, if it is configured.
    pub api: Vec<SocketAddr>,
}

/// A daemon's folder after its end.
#[derive(Debug)]
pub struct Stopped {
    pub setup: Setup,
    /// How long the end took.
    pub took: Duration,
}

impl Stopped {
    pub fn restart(self) -> Daemon {
        self.setup.start()
    }
}

impl Daemon {
    pub(super) fn start(setup: Setup) -> Result<Daemon, String> {
        let talk = OpenOptions::new().create(true).append(true).open(setup.talk_file()).expect("ours");
        let mut command = setup.command(&["serve"]);
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(talk).spawn();
        let mut child = Own(spawned.expect("the daemon was built"));
        let line = first_line(child.0.stdout.take().expect("it was piped"));
        let Some(Announced { listening, http, api }) = line.as_deref().and_then(announced) else {
            return Err(format!("{line:?}\n{}", talk_of(&setup)));
        };
        Ok(Daemon { child, setup, address: listening[0], listening, http, api })
    }

    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    pub fn metrics(&self) -> BTreeMap<String, u64> {
        let (status, page) =
            http::get(self.http, "/metrics").unwrap_or_else(|error| self.fail(&error.to_string()));
        assert_eq!(status, 200, "{page}");
        http::samples(&page)
    }

    pub fn metric(&self, name: &str) -> u64 {
        let metrics = self.metrics();
        *metrics.get(name).unwrap_or_else(|| panic!("no metric {name} in {metrics:?}"))
    }

    /// Waits until the metric has that value.
    pub fn wait_for(&self, name: &str, value: u64, timeout: Duration) {
        self.wait_until(name, timeout, |found| found == value);
    }

    pub fn wait_for_at_least(&self, name: &str, value: u64, timeout: Duration) {
        self.wait_until(name, timeout, |found| found >= value);
    }

    pub fn wait_until(&self, name: &str, timeout: Duration, is_right: impl Fn(u64) -> bool) {
        let deadline = Instant::now() + timeout;
        while !is_right(self.metric(name)) {
            if Instant::now() >= deadline {
                self.fail(&format!("waited {timeout:?} for {name}; the metrics: {:#?}", self.metrics()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Everything that was accepted is delivered or given up: by the counters and by the files. Right after a start
    /// the counters alone would not do, since a core first shows them after its first turn.
    pub fn wait_until_empty(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            self.wait_for("queued_messages", 0, left);
            if self.setup.queue_stat()["messages"] == 0 {
                return assert_eq!(self.metric("queued_recipients"), 0);
            }
        }
    }

    /// Recipients neither delivered nor given up, from the counters once they are shown, else from the files.
    pub fn owed(&self) -> u64 {
        match self.metric("queued_recipients") {
            0 => self.setup.queue_stat()["recipients_owed"].as_u64().expect("a count"),
            owed => owed,
        }
    }

    /// All lines of the delivery log on a recipient, once there is one. They are written half a second after a verdict.
    pub fn words_on(&self, recipient: &str) -> Vec<serde_json::Value> {
        wait::until_some(&format!("a line on {recipient}"), PATIENCE, || {
            let log = std::fs::read_to_string(self.setup.delivery_log()).unwrap_or_default();
            let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            let found: Vec<_> = lines.filter(|line| line["rcpt"] == recipient).collect();
            (!found.is_empty()).then_some(found)
        })
    }

    /// The last of [`Daemon::words_on`].
    pub fn last_word_on(&self, recipient: &str) -> serde_json::Value {
        self.words_on(recipient).pop().expect("it has one")
    }

    /// Waits until the daemon has said it on standard error.
    pub fn wait_until_said(&self, words: &str) {
        wait::until(&format!("{words:?} in the daemon's log"), PATIENCE, || self.talk().contains(words));
    }

    pub fn talk(&self) -> String {
        talk_of(&self.setup)
    }

    pub fn client(&self) -> Client {
        Client::greet(self.address)
    }

    /// Still takes mail, and says that it is well.
    pub fn assert_healthy(&self) {
        let page = http::get(self.http, "/healthz").unwrap_or_else(|error| self.fail(&error.to_string()));
        assert_eq!(page, (200, "ok\n".to_owned()));
        assert!(self.client().say("NOOP").starts_with("250 "));
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.0.id().cast_signed()).expect("a child's pid is above 0");
        kill_process(pid, signal).expect("our child can be signalled");
    }

    /// SIGKILL: no chance to put anything in order.
    pub fn kill(mut self) -> Stopped {
        let start = Instant::now();
        self.child.0.kill().expect("our child can be killed");
        let _ = self.child.0.wait();
        self.stopped(start)
    }

    /// SIGTERM, which must end in exit 0.
    pub fn terminate(mut self) -> Stopped {
        let start = Instant::now();
        self.signal(Signal::TERM);
        let Some(status) = wait::ends_within(&mut self.child.0, PATIENCE) else {
            self.fail("SIGTERM did not end it")
        };
        assert!(status.success(), "after SIGTERM: {status}\n{}", self.talk());
        self.stopped(start)
    }

    fn stopped(self, start: Instant) -> Stopped {
        Stopped { setup: self.setup, took: start.elapsed() }
    }

    fn fail(&self, what: &str) -> ! {
        panic!("{what}\nthe daemon said:\n{}", self.talk())
    }
}

/// A child that ends with its value.
#[derive(Debug)]
pub(super) struct Own(pub(super) Child);

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn talk_of(setup: &Setup) -> String {
    let talk = std::fs::read(setup.talk_file()).unwrap_or_default();
    String::from_utf8_lossy(&talk).into_owned()
}

/// The line that a supervisor waits for; `None` if the program ended or was silent.
fn first_line(stdout: ChildStdout) -> Option<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = BufReader::new(stdout).read_line(&mut line);
        let _ = sender.send(line);
    });
    receiver.recv_timeout(PATIENCE).ok().filter(|line| !line.is_empty())
}

struct Announced {
    listening: Vec<SocketAddr>,
    http: SocketAddr,
    api: Vec<SocketAddr>,
}

/// `listening ADDRESS[,ADDRESS...] http ADDRESS [api ADDRESS[,ADDRESS...]]`.
fn announced(line: &str) -> Option<Announced> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let named = |name: &str| words.chunks(2).find(|pair| pair[0] == name).and_then(|pair| pair.get(1));
    let addresses = |list: &str| list.split(',').map(|address| address.parse().ok()).collect::<Option<_>>();
    let api = named("api").map_or(Some(Vec::new()), |list| addresses(list))?;
    Some(Announced { listening: addresses(named("listening")?)?, http: named("http")?.parse().ok()?, api })
}
