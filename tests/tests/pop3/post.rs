//! `ringpost pop3` as a child, with mailboxes, and a client that says what a test wants said.

use rcgen::{CertificateParams, KeyPair};
use std::fs::Permissions;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use tempfile::TempDir;
use tests::process::{house, peer, programs, setup, wait};

/// Who we are where we may not be root.
const NOBODY: u32 = 65534;

pub(crate) const USERS: &str = "ann:{PLAIN}secret\nbob@example.net:{PLAIN}other\n";

/// See the module.
pub(crate) struct Post {
    child: Child,
    pub(crate) folder: TempDir,
    pub(crate) plain: SocketAddr,
    pub(crate) tls: SocketAddr,
}

impl Drop for Post {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Post {
    pub(crate) fn open() -> Post {
        Post::with("", "")
    }

    /// Lines more for `[auth]` and `[pop3]`.
    pub(crate) fn with(auth: &str, pop3: &str) -> Post {
        let folder = setup::temporary_folder();
        let at = |name: &str| folder.path().join(name);
        for mailbox in ["ann", "bob@example.net", "carl"] {
            for name in ["new", "cur", "tmp"] {
                std::fs::create_dir_all(at("mail").join(mailbox).join("Maildir").join(name)).expect("ours");
            }
        }
        write_certificate(&at("cert.pem"), &at("key.pem"));
        std::fs::write(at("passwords"), USERS).expect("ours");
        std::fs::set_permissions(at("passwords"), Permissions::from_mode(0o600)).expect("ours");
        let (root, folder_name) = (folder.path(), folder.path().display());
        let config = format!(
            "host_name = \"mail.process.test\"\nqueue = \"{folder_name}/queue\"\n\
             [auth]\npassword_file = \"{folder_name}/passwords\"\n{auth}\n\
             [pop3]\nlisten = [\"127.0.0.1:0\"]\nlisten_tls = [\"127.0.0.1:0\"]\n\
             certificate = \"{folder_name}/cert.pem\"\nkey = \"{folder_name}/key.pem\"\n\
             maildir = \"{folder_name}/mail/{{user}}/Maildir\"\n{pop3}\n"
        );
        std::fs::write(at("ringpost.toml"), config.replace("FOLDER", &folder_name.to_string()))
            .expect("ours");
        programs::place_ringpost(&at("ringpost"));
        give_away(root);
        let (child, plain, tls) = start(root);
        Post { child, folder, plain, tls }
    }

    pub(crate) fn maildir(&self, user: &str) -> PathBuf {
        self.folder.path().join("mail").join(user).join("Maildir")
    }

    /// `name`: with its folder.
    pub(crate) fn deliver(&self, user: &str, name: &str, content: &[u8]) {
        let path = self.maildir(user).join(name);
        std::fs::write(&path, content).expect("ours");
        give_away(&path);
    }

    /// Messages in `new` and `cur`.
    pub(crate) fn left(&self, user: &str) -> Vec<String> {
        let list = |folder: &str| {
            let entries = std::fs::read_dir(self.maildir(user).join(folder)).expect("ours");
            entries
                .map(|entry| entry.expect("ours").file_name().into_string().expect("ours"))
                .collect::<Vec<_>>()
        };
        let mut left = [list("new"), list("cur")].concat();
        left.sort();
        left
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    pub(crate) fn client(&self) -> Client {
        let client = Client::connect(self.plain);
        assert!(client.greeting.starts_with("+OK ringpost"), "{}", client.greeting);
        client
    }

    pub(crate) fn log_in(&self, user: &str, password: &str) -> Client {
        let mut client = self.client();
        assert!(client.say(&format!("USER {user}")).starts_with("+OK"));
        let said = client.say(&format!("PASS {password}"));
        assert!(said.starts_with("+OK"), "{said}");
        client
    }

    /// SIGKILL: no chance to put anything in order.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("our child can be killed");
        self.child.wait().expect("our child ends");
    }

    pub(crate) fn hang_up(&self) {
        let pid = rustix::process::Pid::from_raw(self.child.id().cast_signed()).expect("above 0");
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("our child");
    }

    pub(crate) fn terminate(mut self) -> std::process::ExitStatus {
        let pid = rustix::process::Pid::from_raw(self.child.id().cast_signed()).expect("above 0");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("our child");
        wait::ends_within(&mut self.child, wait::PATIENCE).expect("SIGTERM ends it")
    }

    pub(crate) fn memory_peak(&self) -> u64 {
        house::memory_peak(self.child.id())
    }
}

/// `pop3 ADDRESS pop3s ADDRESS`.
fn start(folder: &Path) -> (Child, SocketAddr, SocketAddr) {
    let mut command = Command::new(folder.join("ringpost"));
    be_nobody(&mut command);
    let talk = std::fs::File::create(folder.join("talk")).expect("ours");
    command.args(["pop3", "--config"]).arg(folder.join("ringpost.toml")).current_dir(folder);
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(talk).spawn();
    let mut child = spawned.expect("it was built");
    let stdout = child.stdout.take().expect("it was piped");
    let (says, hears) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = BufReader::new(stdout).read_line(&mut line);
        let _ = says.send(line);
    });
    let line = hears.recv_timeout(wait::PATIENCE).unwrap_or_default();
    let words: Vec<&str> = line.split_whitespace().collect();
    let ["pop3", plain, "pop3s", tls] = words[..] else {
        panic!("{line:?}\n{}", std::fs::read_to_string(folder.join("talk")).unwrap_or_default())
    };
    (child, plain.parse().expect("an address"), tls.parse().expect("an address"))
}

/// For a program that must not be root.
pub(crate) fn be_nobody(command: &mut Command) {
    if peer::is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
}

/// What is below becomes that of whoever serves it.
pub(crate) fn give_away(path: &Path) {
    if !peer::is_root() {
        return;
    }
    chown(path, Some(NOBODY), Some(NOBODY)).expect("root may");
    if path.is_dir() {
        std::fs::read_dir(path).expect("ours").for_each(|entry| give_away(&entry.expect("ours").path()));
    }
}

fn write_certificate(certificate: &Path, key: &Path) {
    let pair = KeyPair::generate().expect("a key");
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let own = CertificateParams::new(names).expect("names").self_signed(&pair).expect("a certificate");
    std::fs::write(certificate, own.pem()).expect("ours");
    std::fs::write(key, pair.serialize_pem()).expect("ours");
}

/// A client in plain text.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    pub(crate) greeting: String,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
        let mut client = Client { stream: BufReader::new(stream), greeting: String::new() };
        client.greeting = client.hear();
        client
    }

    pub(crate) fn send(&mut self, octets: &[u8]) {
        self.stream.get_mut().write_all(octets).expect("it is connected");
    }

    pub(crate) fn say(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes());
        self.hear()
    }

    /// A line without its end; empty at the end of the connection.
    pub(crate) fn hear(&mut self) -> String {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("{error}"),
        }
        line.trim_end_matches("\r\n").to_owned()
    }

    /// The lines behind `+OK`, up to the dot.
    pub(crate) fn ask(&mut self, line: &str) -> Vec<u8> {
        let said = self.say(line);
        assert!(said.starts_with("+OK"), "{line}: {said}");
        let mut content = Vec::new();
        loop {
            let mut line = Vec::new();
            self.stream.read_until(b'\n', &mut line).expect("it goes on");
            assert!(line.ends_with(b"\r\n"), "{}", line.escape_ascii());
            if line == b".\r\n" {
                return content;
            }
            content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        }
    }

    /// What comes until the connection ends.
    pub(crate) fn rest(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest);
        rest
    }
}
