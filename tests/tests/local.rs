//! Mail for this machine's mailboxes, by the programs that `.qmail` files know: real files, real programs, and a real
//! daemon that takes what is forwarded.

use serde_json::Value;
use std::fs::Permissions;
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use tests::process::{Daemon, Setup, programs, setup, wait};

const RUN_MAX: Duration = Duration::from_secs(60);

/// Nobody listens there: what is forwarded stays in the queue, to be looked at.
const NOWHERE: &str = "127.0.0.1:1";

const MESSAGE: &str = "From: bob@example.net\nSubject: hi\n\nFrom me\nto you\n";

/// A user's home.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Home {
        let folder = setup::temporary_folder();
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("ours");
        Home(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn with(self, name: &str, content: &str) -> Home {
        std::fs::write(self.path(name), content).expect("ours");
        self
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    fn maildir(self, name: &str) -> Home {
        wait::succeed(ringpost(&["maildirmake"]).arg(self.path(name)), RUN_MAX);
        self
    }

    /// The messages in a Maildir's `new/`.
    fn new_in(&self, maildir: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(maildir).join("new")).expect("it was made");
        entries.map(|entry| std::fs::read_to_string(entry.expect("ours").path()).expect("ours")).collect()
    }

    /// `qmail-local`, for `ann-EXT@mail.example.org`.
    fn local(&self, options: &[&str], extension: &str) -> Command {
        let mut command = ringpost(&["qmail-local"]);
        let dash = if extension.is_empty() { "" } else { "-" };
        command.args(options).arg("ann").arg(self.0.path()).arg(format!("ann{dash}{extension}"));
        command.args([dash, extension, "mail.example.org", "bob@example.net", "./Mailbox"]);
        command
    }

    fn deliver(&self, extension: &str) -> Output {
        run(&mut self.local(&[], extension), MESSAGE)
    }
}

fn ringpost(words: &[&str]) -> Command {
    let mut command = Command::new(programs::ringpost());
    command.args(words).env_remove("RINGPOST_SUBMIT");
    command
}

/// The program reads `input` from a file, as it does from a queue.
fn run(command: &mut Command, input: &str) -> Output {
    let mut file = tempfile::tempfile().expect("a temporary file can be made");
    file.write_all(input.as_bytes()).expect("ours");
    file.rewind().expect("ours");
    wait::finish_with(command, Stdio::from(file), RUN_MAX)
}

/// Exit code, standard output, standard error.
fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().expect("it ended by itself");
    (code, text(&output.stdout), text(&output.stderr))
}

fn assert_told(output: &Output, code: i32, out: &str, err: &str) {
    assert_eq!(told(output), (code, out.to_owned(), err.to_owned()));
}

/// A daemon that takes what is forwarded.
struct Office(Daemon);

impl Office {
    fn open() -> Office {
        let setup = Setup::new().relay(NOWHERE.parse().expect("an address"));
        let socket = setup.folder().join("submit.sock").to_str().expect("a plain name").to_owned();
        Office(setup.with("submit", socket).start())
    }

    fn furnish<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("RINGPOST_SUBMIT", self.0.setup.folder().join("submit.sock"))
    }

    /// Sender, recipients and content of the one message in the queue.
    fn queued(&self) -> (String, Vec<String>, String) {
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

#[test]
fn every_kind_of_line_is_followed_and_addresses_come_last() {
    let office = Office::open();
    let program = "|cat > seen; env | sort > vars; echo told";
    let home = Home::new().maildir("Maildir").with(
        ".qmail-list-default",
        &format!("# comment\n&cy@example.com\n./Mailbox\n./Maildir/\n{program}\ndee@example.com\n"),
    );
    let output = run(office.furnish(&mut home.local(&[], "list-X.y")), MESSAGE);
    assert_told(&output, 0, "told\ndid 2+2+1\n", "");
    let top = "Return-Path: <bob@example.net>\nDelivered-To: ann-list-X.y@mail.example.org\n";
    assert_eq!(home.new_in("Maildir"), [format!("{top}{MESSAGE}")]);
    let mbox = home.read("Mailbox");
    let (from, rest) = mbox.split_once('\n').expect("a From line");
    assert!(
        from.starts_with("From bob@example.net ") && from.len() == "From bob@example.net ".len() + 24,
        "{from}"
    );
    assert_eq!(rest, format!("{top}{}\n", MESSAGE.replace("From me", ">From me")));
    assert_eq!(home.read("seen"), MESSAGE);
    let vars = home.read("vars");
    for line in [
        "DEFAULT=X.y",
        "EXT=list-X.y",
        "EXT2=X.y",
        "EXT3=",
        "HOST=mail.example.org",
        "HOST2=mail.example",
        "HOST3=mail",
        "LOCAL=ann-list-X.y",
        "NEWSENDER=bob@example.net",
        "RECIPIENT=ann-list-X.y@mail.example.org",
        "SENDER=bob@example.net",
        "USER=ann",
        "DTLINE=Delivered-To: ann-list-X.y@mail.example.org",
        "RPLINE=Return-Path: <bob@example.net>",
    ] {
        assert!(vars.lines().any(|found| found == line), "{line} is not in\n{vars}");
    }
    assert!(!vars.contains("RINGPOST") && !vars.contains("CARGO"), "{vars}");
    let (sender, recipients, content) = office.queued();
    assert_eq!(sender, "bob@example.net");
    assert_eq!(recipients, ["cy@example.com", "dee@example.com"]);
    let ours = "Delivered-To: ann-list-X.y@mail.example.org\r\nFrom: bob@example.net\r\nSubject: hi\r\n";
    assert!(content.contains(ours) && content.ends_with("\r\n\r\nFrom me\r\nto you\r\n"), "{content}");
}

#[test]
fn a_list_with_owners_is_sent_with_a_sender_for_each_recipient() {
    let office = Office::open();
    let home = Home::new()
        .with(".qmail-list", "&cy@example.com\n&dee@example.com\n")
        .with(".qmail-list-owner", "ann\n")
        .with(".qmail-list-owner-default", "ann\n");
    let output = run(office.furnish(&mut home.local(&[], "list")), MESSAGE);
    assert_told(&output, 0, "did 0+2+0\n", "");
    let (sender, recipients, _) = office.queued();
    assert_eq!(sender, "ann-list-owner-@mail.example.org");
    assert_eq!(recipients.len(), 2);
}

#[test]
fn an_explanation_does_nothing() {
    let home = Home::new().with(".qmail", "|touch done\n&cy@example.com\n./Mailbox\n");
    let output = run(&mut home.local(&["-n"], ""), MESSAGE);
    let said = "instructions .qmail\nprogram touch done\nforward cy@example.com\nmbox ./Mailbox\ndid 1+1+1\n";
    assert_told(&output, 0, said, "");
    assert!(!home.has("done") && !home.has("Mailbox"));
}

#[test]
fn failures_are_told_in_qmails_words_and_codes() {
    let none = Home::new();
    assert_told(&none.deliver("x"), 100, "", "Sorry, no mailbox here by that name. (#5.1.1)\n");
    let default = Home::new();
    assert_told(&default.deliver(""), 0, "did 1+0+0\n", "");
    assert!(default.read("Mailbox").contains("Subject: hi\n"), "the default delivery");
    let looping = format!("Delivered-To: ann@mail.example.org\n{MESSAGE}");
    let words = "This message is looping: it already has my Delivered-To line. (#5.4.6)\n";
    assert_told(&run(&mut none.local(&[], ""), &looping), 100, "", words);
    let hard = Home::new().with(".qmail", "./Mailbox\n|echo No, thanks.; exit 77\n|touch never\n");
    assert_told(&hard.deliver(""), 100, "", "No, thanks.\n");
    assert!(hard.has("Mailbox") && !hard.has("never"));
    let stopped = Home::new().with(".qmail", "|exit 99\n|touch never\n");
    assert_told(&stopped.deliver(""), 0, "did 0+0+1\n", "");
    assert!(!stopped.has("never"));
    let soft = Home::new().with(".qmail", "./Maildir/\n");
    assert_told(&soft.deliver(""), 111, "", "Unable to chdir to maildir. (#4.2.1)\n");
    let blank = Home::new().with(".qmail", "\n./Mailbox\n");
    assert_told(&blank.deliver(""), 111, "", "Uh-oh: first line of .qmail file is blank. (#4.2.1)\n");
    let sticky = Home::new();
    std::fs::set_permissions(sticky.0.path(), Permissions::from_mode(0o1755)).expect("ours");
    let words = "Home directory is sticky: user is editing his .qmail file. (#4.2.1)\n";
    assert_told(&sticky.deliver(""), 111, "", words);
    let open = Home::new().with(".qmail", "./Mailbox\n");
    std::fs::set_permissions(open.path(".qmail"), Permissions::from_mode(0o646)).expect("ours");
    assert_told(&open.deliver(""), 111, "", "Uh-oh: .qmail file is writable. (#4.7.0)\n");
    assert_eq!(told(&run(&mut ringpost(&["qmail-local", "ann"]), MESSAGE)).0, 100);
}

#[test]
fn without_a_daemon_what_is_to_be_forwarded_waits() {
    let home = Home::new().with(".qmail", "&cy@example.com\n");
    let output = run(home.local(&[], "").env("RINGPOST_SUBMIT", home.path("nobody.sock")), MESSAGE);
    let (code, _, said) = told(&output);
    assert!(code == 111 && said.starts_with("Unable to forward message: "), "{said}");
}

#[test]
fn a_message_by_a_pipe_is_read_as_often_as_it_is_needed() {
    let home = Home::new().with(".qmail", "|cat > one\n|cat > two\n");
    let mut child =
        home.local(&[], "").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts");
    child.stdin.take().expect("piped").write_all(MESSAGE.as_bytes()).expect("it reads");
    assert!(wait::ends_within(&mut child, RUN_MAX).expect("it ends").success());
    assert_eq!((home.read("one"), home.read("two")), (MESSAGE.to_owned(), MESSAGE.to_owned()));
}

#[test]
fn programs_of_qmail_files_go_by_their_names() {
    let folder = setup::temporary_folder();
    let link = |name: &str| {
        let path = folder.path().join(name);
        std::os::unix::fs::symlink(programs::ringpost(), &path).expect("ours");
        path
    };
    let [except, bounce, preline] = ["except", "bouncesaying", "preline"].map(link);
    let run = |path: &Path, words: &[&str]| run(Command::new(path).args(words).env("LC_ALL", "C"), MESSAGE);
    assert_told(&run(&except, &["grep", "-q", "Subject: hi"]), 100, "", "");
    assert_told(&run(&except, &["grep", "-q", "Subject: no"]), 0, "", "");
    assert_told(&run(&except, &["sh", "-c", "exit 111"]), 111, "", "except: fatal: temporary child error\n");
    assert_told(&run(&except, &["/no such program"]), 0, "", "");
    assert_told(&run(&except, &[]), 100, "", "except: usage: except program [ arg ... ]\n");
    assert_told(&run(&bounce, &["Go away."]), 100, "", "Go away.\n");
    assert_told(&run(&bounce, &["Go away.", "grep", "-q", "Subject: no"]), 0, "", "");
    assert_told(&run(&bounce, &["Go away.", "grep", "-q", "Subject: hi"]), 100, "", "Go away.\n");
    assert_told(&run(&preline, &["cat"]), 100, "", "preline: usage: preline cmd [ arg ... ]\n");
    let home = Home::new()
        .with(".qmail", &format!("|{} -f sh -c 'cat > seen; exit 99'\n./never\n", preline.display()));
    assert_told(&home.deliver(""), 0, "did 0+0+1\n", "");
    let top = "Return-Path: <bob@example.net>\nDelivered-To: ann@mail.example.org\n";
    assert_eq!(home.read("seen"), format!("{top}{MESSAGE}"));
    assert!(!home.has("never"));
    let maildir = home.path("Maildir");
    wait::succeed(ringpost(&["maildirmake"]).arg(&maildir), RUN_MAX);
    let (code, _, said) = told(&wait::finish(ringpost(&["maildirmake"]).arg(&maildir), RUN_MAX));
    let words = format!("maildirmake: fatal: unable to mkdir {}: file exists\n", maildir.display());
    assert_eq!((code, said), (111, words));
}

#[test]
fn a_redirected_message_keeps_its_sender_and_ends_the_instructions() {
    let office = Office::open();
    let own = programs::ringpost();
    let line =
        |word: &str| format!("|{} condredirect cy@example.com grep -q 'Subject: {word}'\n", own.display());
    let home = Home::new().with(".qmail", &format!("{}./Mailbox\n{}./never\n", line("no"), line("hi")));
    // Programs find the daemon by its configuration; here they are told.
    let socket = office.0.setup.folder().join("submit.sock");
    let text = home.read(".qmail").replace('|', &format!("|RINGPOST_SUBMIT={} ", socket.display()));
    let home = home.with(".qmail", &text);
    let (code, _, said) = told(&home.deliver(""));
    assert_eq!(code, 0, "{said}");
    assert!(home.has("Mailbox") && !home.has("never"));
    let (sender, recipients, content) = office.queued();
    assert_eq!((sender.as_str(), &recipients[..]), ("bob@example.net", &["cy@example.com".to_owned()][..]));
    assert!(content.contains("Delivered-To: ann@mail.example.org\r\n"), "{content}");
}

#[test]
fn forward_and_qreceipt_send_as_qmails_do() {
    let variables = |command: &mut Command| {
        command
            .env("SENDER", "bob@example.net")
            .env("NEWSENDER", "ann-owner@mail.example.org")
            .env("DTLINE", "Delivered-To: ann@mail.example.org\n");
    };
    let office = Office::open();
    let mut forward = ringpost(&["forward", "cy@example.com"]);
    variables(office.furnish(&mut forward));
    let (code, _, said) = told(&run(&mut forward, MESSAGE));
    assert!(code == 0 && said.starts_with("forward: "), "{said}");
    assert_eq!(office.queued().0, "ann-owner@mail.example.org");

    let office = Office::open();
    let asking = format!(
        "Message-ID: <7@example.net>\nNotice-Requested-Upon-Delivery-To: ann@mail.example.org\n{MESSAGE}"
    );
    let mut receipt = ringpost(&["qreceipt", "ann@mail.example.org"]);
    variables(office.furnish(&mut receipt));
    assert_told(&run(&mut receipt, &asking), 0, "", "");
    let (sender, recipients, content) = office.queued();
    assert_eq!((sender.as_str(), &recipients[..]), ("", &["bob@example.net".to_owned()][..]));
    assert!(content.ends_with("Thanks for asking.\r\nYour Message-ID: <7@example.net>\r\n"), "{content}");
    let mut silent = ringpost(&["qreceipt", "else@mail.example.org"]);
    variables(&mut silent);
    assert_told(&run(&mut silent, &asking), 0, "", "");
}

#[test]
fn a_qmail_directory_becomes_a_configuration_that_is_taken() {
    let folder = setup::temporary_folder();
    let put = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("ours");
        std::fs::write(path, content).expect("ours");
    };
    put("control/me", "mx.example.org\n");
    put("control/rcpthosts", "example.org\n.example.net\n");
    put("control/smtproutes", ":smarthost.example.org\n");
    put("control/virtualdomains", "lists.example.org:lists\n");
    put("users/assign", "=ann:ann:1000:1000:/home/ann:::\n.\n");
    put("alias/.qmail-postmaster", "ann\n");
    put("alias/.qmail-broken", "\nann\n");
    let (code, toml, said) = told(&wait::finish(ringpost(&["import-qmail"]).arg(folder.path()), RUN_MAX));
    assert_eq!(code, 1, "{said}");
    for word in ["virtualdomains: 1", "users/assign: its 1", ".qmail-broken: Uh-oh", "alias: 2 files"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let file = folder.path().join("ringpost.toml");
    std::fs::write(&file, &toml).expect("ours");
    let checked = wait::finish(ringpost(&["check", "--config"]).arg(&file), RUN_MAX);
    let (code, in_force, said) = told(&checked);
    assert_eq!(code, 0, "{said}\n{toml}");
    assert!(in_force.contains("smarthost.example.org") && in_force.contains(".example.net"), "{in_force}");
    put("users/assign", "=ann:ann:1000\n.\n");
    let (code, _, said) = told(&wait::finish(ringpost(&["import-qmail"]).arg(folder.path()), RUN_MAX));
    assert!(code == 78 && said.contains("users/assign: line 1: "), "{said}");
}
