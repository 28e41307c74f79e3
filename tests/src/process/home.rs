//! A user's home on this machine, the programs that deliver into it, and a daemon that takes what they forward.

use super::{Daemon, Setup, programs, setup, wait};
use serde_json::Value;
use std::fs::Permissions;
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

pub const RUN_MAX: Duration = Duration::from_secs(60);

/// Nobody listens there: what is forwarded stays in the queue, to be looked at.
const NOWHERE: &str = "127.0.0.1:1";

pub const MESSAGE: &str = "From: bob@example.net\nSubject: hi\n\nFrom me\nto you\n";

/// A user's home.
#[derive(Debug)]
pub struct Home(pub tempfile::TempDir);

impl Default for Home {
    fn default() -> Home {
        Home::new()
    }
}

impl Home {
    pub fn new() -> Home {
        let folder = setup::temporary_folder();
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("ours");
        Home(folder)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn with(self, name: &str, content: &str) -> Home {
        std::fs::write(self.path(name), content).expect("ours");
        self
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    pub fn maildir(self, name: &str) -> Home {
        wait::succeed(ringpost(&["maildirmake"]).arg(self.path(name)), RUN_MAX);
        self
    }

    /// The messages in a Maildir's `new/`.
    pub fn new_in(&self, maildir: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(maildir).join("new")).expect("it was made");
        entries.map(|entry| std::fs::read_to_string(entry.expect("ours").path()).expect("ours")).collect()
    }

    /// `qmail-local`, for `ann-EXT@mail.example.org`.
    pub fn local(&self, options: &[&str], extension: &str) -> Command {
        let mut command = ringpost(&["qmail-local"]);
        let dash = if extension.is_empty() { "" } else { "-" };
        command.args(options).arg("ann").arg(self.0.path()).arg(format!("ann{dash}{extension}"));
        command.args([dash, extension, "mail.example.org", "bob@example.net", "./Mailbox"]);
        command
    }

    pub fn deliver(&self, extension: &str) -> Output {
        run(&mut self.local(&[], extension), MESSAGE)
    }
}

pub fn ringpost(words: &[&str]) -> Command {
    let mut command = Command::new(programs::ringpost());
    command.args(words).env_remove("RINGPOST_SUBMIT");
    command
}

/// The program reads `input` from a file, as it does from a queue.
pub fn run(command: &mut Command, input: &str) -> Output {
    let mut file = tempfile::tempfile().expect("a temporary file can be made");
    file.write_all(input.as_bytes()).expect("ours");
    file.rewind().expect("ours");
    wait::finish_with(command, Stdio::from(file), RUN_MAX)
}

/// Exit code, standard output, standard error.
pub fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().expect("it ended by itself");
    (code, text(&output.stdout), text(&output.stderr))
}

pub fn assert_told(output: &Output, code: i32, out: &str, err: &str) {
    assert_eq!(told(output), (code, out.to_owned(), err.to_owned()));
}

/// A daemon that takes what is forwarded.
#[derive(Debug)]
pub struct Office(pub Daemon);

impl Office {
    pub fn open() -> Office {
        let setup = Setup::new().relay(NOWHERE.parse().expect("an address"));
        let socket = setup.folder().join("submit.sock").to_str().expect("a plain name").to_owned();
        Office(setup.with("submit", socket).start())
    }

    pub fn furnish<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("RINGPOST_SUBMIT", self.0.setup.folder().join("submit.sock"))
    }

    /// Sender, recipients and content of the one message in the queue.
    pub fn queued(&self) -> (String, Vec<String>, String) {
        let list = self.0.setup.queue_list();
        assert_eq!(list.len(), 1, "{list:#?}");
        let id = list[0]["id"].as_str().expect("an id");
        let show = wait::succeed(&mut self.0.setup.command(&["queue", "show", "--json", id]), RUN_MAX);
        let show: Value = serde_json::from_slice(&show.stdout).expect("one JSON object");
        let to_do = show["to_do"].as_array().expect("a list").iter();
        let mut recipients: Vec<String> =
            to_do.map(|row| row["recipient"].as_str().expect("an address").to_owned()).collect();
        recipients.sort();
        let content = wait::succeed(&mut self.0.setup.command(&["queue", "cat", id]), RUN_MAX).stdout;
        let sender = list[0]["sender"].as_str().unwrap_or_default().to_owned();
        (sender, recipients, String::from_utf8(content).expect("these tests write UTF-8"))
    }
}
