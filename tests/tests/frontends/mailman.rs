//! A Mailman 3 of its own: its folder, its list `news@lists.test`, its runners on ports of the system's choice.

use base64::Engine as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tests::process::setup::temporary_folder;
use tests::process::wait::{self, PATIENCE};
use tests::process::{http, peer};

/// It takes some 20 ms for a member, more on a busy machine.
const MEMBERS_MAX: Duration = Duration::from_secs(180);

const CONFIG: &str = include_str!("mailman.cfg");

/// Else the REST runner's server makes a socket in the user's home.
const GUNICORN: &str = "[gunicorn]\ncontrol_socket_disable = true\n";

/// See the module.
pub(crate) struct Mailman {
    /// The watcher of the runners; it ends them when it is told to end.
    master: Option<Child>,
    folder: TempDir,
    programs: PathBuf,
    pub(crate) lmtp: SocketAddr,
    rest: SocketAddr,
}

impl Mailman {
    /// Not running yet. `None` if it is not installed.
    pub(crate) fn find() -> Option<Mailman> {
        let program = PathBuf::from(peer("mailman")?.get_program());
        let program = program.canonicalize().expect("it was found");
        let programs = program.parent().expect("a program is in a folder").to_owned();
        let [lmtp, rest] = free_addresses();
        Some(Mailman { master: None, folder: temporary_folder(), programs, lmtp, rest })
    }

    /// Makes the list with those members, and starts. It sends by `smtp`.
    pub(crate) fn start(&mut self, smtp: SocketAddr, members: &[String]) {
        std::fs::write(self.folder.path().join("gunicorn.cfg"), GUNICORN).expect("the folder is ours");
        std::fs::write(self.config_file(), self.config(smtp)).expect("the folder is ours");
        let file = self.folder.path().join("members");
        std::fs::write(&file, members.join("\n")).expect("the folder is ours");
        self.order(&["create", "news@lists.test"]);
        self.order(&["addmembers", "--no-welcome-msg", &text(&file), "news@lists.test"]);
        let talk = std::fs::File::create(self.folder.path().join("talk.log")).expect("the folder is ours");
        let errors = talk.try_clone().expect("a file of ours");
        let mut master = self.command("master");
        let spawned = master.stdin(Stdio::null()).stdout(talk).stderr(errors).spawn();
        self.master = Some(spawned.expect("it is beside mailman"));
        wait::until("Mailman's REST", MEMBERS_MAX, || self.try_get("system/versions").is_some());
    }

    fn config(&self, smtp: SocketAddr) -> String {
        let words = [
            ("{programs}", text(&self.programs)),
            ("{folder}", text(self.folder.path())),
            ("{smtp_host}", smtp.ip().to_string()),
            ("{smtp_port}", smtp.port().to_string()),
            ("{lmtp_host}", self.lmtp.ip().to_string()),
            ("{lmtp_port}", self.lmtp.port().to_string()),
            ("{rest_host}", self.rest.ip().to_string()),
            ("{rest_port}", self.rest.port().to_string()),
        ];
        words.iter().fold(CONFIG.to_owned(), |config, (word, value)| config.replace(word, value))
    }

    fn config_file(&self) -> PathBuf {
        self.folder.path().join("mailman.cfg")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.env("MAILMAN_CONFIG_FILE", self.config_file()).current_dir(self.folder.path());
        command
    }

    fn order(&self, words: &[&str]) {
        wait::succeed(self.command("mailman").arg("--run-as-root").args(words), MEMBERS_MAX);
    }

    fn try_get(&self, path: &str) -> Option<Value> {
        let login = base64::engine::general_purpose::STANDARD.encode("ann:secret");
        let fields = [("Authorization", &*format!("Basic {login}"))];
        let answer = http::send(self.rest, &format!("GET /3.1/{path}"), &fields, b"").ok()?;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        Some(answer.json())
    }

    /// Every member's address and bounce score.
    pub(crate) fn scores(&self) -> Vec<(String, u64)> {
        let path = "lists/news.lists.test/roster/member?fields=email&fields=bounce_score";
        // A thousand members at once: it may take longer than one request waits.
        let roster = wait::until_some("the members", MEMBERS_MAX, || self.try_get(path));
        let entries = roster["entries"].as_array().expect("a list").iter();
        let of = |entry: &Value| Some((entry["email"].as_str()?.to_owned(), entry["bounce_score"].as_u64()?));
        entries.map(|entry| of(entry).unwrap_or_else(|| panic!("no member: {entry}"))).collect()
    }

    /// One of its logs so far.
    pub(crate) fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join("var/logs").join(name)).unwrap_or_default()
    }
}

impl Drop for Mailman {
    fn drop(&mut self) {
        let Some(master) = &mut self.master else { return };
        if let Some(pid) = Pid::from_raw(master.id().cast_signed()) {
            let _ = kill_process(pid, Signal::TERM);
        }
        if wait::ends_within(master, PATIENCE).is_none() {
            let _ = master.kill();
            let _ = master.wait();
        }
    }
}

/// Its programs listen some time after the ports are chosen: on an address of its own, where nobody else gets one.
fn free_addresses() -> [SocketAddr; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.24:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("it is bound"))
}

fn text(path: &Path) -> String {
    path.to_str().expect("temporary folders have plain names").to_owned()
}
