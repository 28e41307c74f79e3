//! Mail from this machine's users: what they have called for forty years, real mail programs among them, and our own
//! programs under the names that those look for.

use std::fs::{File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use tests::process::{Daemon, Setup, Sink, peer, programs, setup, wait};

const RUN_MAX: Duration = Duration::from_secs(60);

/// Nobody listens there: what is submitted stays in the queue, to be looked at.
const NOWHERE: &str = "127.0.0.1:1";

/// A daemon that takes mail by a Unix socket, and a folder of programs for everybody.
struct Office {
    daemon: Daemon,
    programs: tempfile::TempDir,
}

impl Office {
    fn open() -> Office {
        Office::with(Setup::new().relay(NOWHERE.parse().expect("an address")))
    }

    fn with(setup: Setup) -> Office {
        let socket = setup.folder().join("submit.sock");
        let socket = socket.to_str().expect("temporary folders have plain names").to_owned();
        std::fs::set_permissions(setup.folder(), Permissions::from_mode(0o711)).expect("ours");
        Office { daemon: setup.with("submit", socket).start(), programs: programs_of_all() }
    }

    fn socket(&self) -> PathBuf {
        self.daemon.setup.folder().join("submit.sock")
    }

    fn program(&self, name: &str) -> PathBuf {
        self.programs.path().join(name)
    }

    /// Our program under that name, as a user `ann` would call it.
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.program(name));
        self.furnish(&mut command);
        command
    }

    /// What the command's children need to find us.
    fn furnish<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        for name in
            ["QMAILINJECT", "QMAILUSER", "MAILUSER", "QMAILHOST", "MAILHOST", "QMAILNAME", "MAILNAME", "NAME"]
        {
            command.env_remove(name);
        }
        command
            .env("RINGPOST_SUBMIT", self.socket())
            .env("QMAILDEFAULTHOST", "here.test")
            .env("QMAILDEFAULTDOMAIN", "home.test")
            .env("QMAILIDHOST", "id.test")
            .env("USER", "ann")
    }

    fn send(&self, name: &str, words: &[&str], input: &str) -> Output {
        run(self.command(name).args(words), input)
    }

    /// Sender, recipients and content of the one message in the queue.
    fn queued(&self) -> Queued {
        let list = self.daemon.setup.queue_list();
        assert_eq!(list.len(), 1, "{list:#?}");
        let id = list[0]["id"].as_str().expect("an id");
        let show = wait::succeed(&mut self.daemon.setup.command(&["queue", "show", "--json", id]), RUN_MAX);
        let show: serde_json::Value = serde_json::from_slice(&show.stdout).expect("one JSON object");
        let to_do = show["to_do"].as_array().expect("a list");
        let mut recipients: Vec<String> =
            to_do.iter().map(|row| row["recipient"].as_str().expect("an address").to_owned()).collect();
        recipients.sort();
        let content = wait::succeed(&mut self.daemon.setup.command(&["queue", "cat", id]), RUN_MAX).stdout;
        let content = String::from_utf8(content).expect("these tests write UTF-8");
        Queued { sender: list[0]["sender"].as_str().unwrap_or_default().to_owned(), recipients, content }
    }

    fn assert_nothing_queued(&self) {
        assert_eq!(self.daemon.setup.queue_list(), Vec::<serde_json::Value>::new());
        assert_eq!(self.daemon.metric("accepted_messages"), 0);
    }
}

struct Queued {
    sender: String,
    recipients: Vec<String>,
    content: String,
}

impl Queued {
    fn field(&self, name: &str) -> Option<&str> {
        let (header, _) = self.content.split_once("\r\n\r\n").expect("a header ends");
        header.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn body(&self) -> &str {
        self.content.split_once("\r\n\r\n").expect("a header ends").1
    }
}

/// Names by which programs are looked for, in a folder that everybody may enter.
fn programs_of_all() -> tempfile::TempDir {
    let folder = setup::temporary_folder();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("ours");
    let own = folder.path().join("ringpost");
    programs::place_ringpost(&own);
    for name in ["sendmail", "inject", "qmail-inject", "mailq", "newaliases"] {
        symlink("ringpost", folder.path().join(name)).expect("ours");
    }
    folder
}

fn run(command: &mut Command, input: &str) -> Output {
    let mut file = tempfile::tempfile().expect("a temporary file can be made");
    file.write_all(input.as_bytes()).expect("ours");
    std::io::Seek::rewind(&mut file).expect("ours");
    wait::finish_with(command, Stdio::from(file), RUN_MAX)
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn assert_done(output: &Output) {
    assert_eq!((code(output), said(output).as_str()), (0, ""), "{}", String::from_utf8_lossy(&output.stdout));
}

// ---- sendmail ----

#[test]
fn crons_mail_arrives_whole_at_root_of_the_default_host() {
    let office = Office::open();
    let mail = "From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@pc> backup\nMIME-Version: 1.0\n\
                Content-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: 8bit\n\n\
                Grüße\n.\n..\nafter the dot\n";
    let sent = office.send("sendmail", &["-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root"], mail);
    assert_done(&sent);
    let queued = office.queued();
    assert_eq!(queued.recipients, ["root@here.test"]);
    assert_eq!(queued.sender, "ann@here.test");
    assert_eq!(queued.field("Subject"), Some("Cron <root@pc> backup"));
    assert!(queued.field("To").expect("To").contains("root@here.test"), "{}", queued.content);
    assert!(queued.field("Message-ID").expect("Message-ID").ends_with("@id.test>"));
    assert!(queued.field("Date").expect("Date").ends_with(" -0000"));
    assert_eq!(queued.body(), "Grüße\r\n.\r\n..\r\nafter the dot\r\n");
}

#[test]
fn without_chunks_the_same_message_arrives() {
    let office = Office::with(
        Setup::new().relay(NOWHERE.parse().expect("an address")).with("intake.offer_chunking", false),
    );
    let sent =
        office.send("sendmail", &["-oi", "bob@there.test"], "Subject: x\n\n.\n..a\nend without a newline");
    assert_done(&sent);
    assert_eq!(office.queued().body(), ".\r\n..a\r\nend without a newline\r\n");
}

#[test]
fn a_lone_dot_ends_what_is_typed() {
    let office = Office::open();
    assert_done(&office.send("sendmail", &["bob@there.test"], "Subject: x\n\nhello\n.\nnot this\n"));
    assert_eq!(office.queued().body(), "hello\r\n");
}

#[test]
fn recipients_of_the_header_get_it_and_those_of_the_arguments_do_not() {
    let office = Office::open();
    let mail = "From: Ann <ann@here.test>\nTo: friends: bob@there.test, cy;\nCc: \"D, E\" <de@There.Test>\n\
                Bcc: secret@there.test\nSubject: x\n\nhello\n";
    let sent = office.send("sendmail", &["-t", "-i", "-f", "bounces@here.test", "de@there.test"], mail);
    assert_done(&sent);
    let queued = office.queued();
    assert_eq!(queued.sender, "bounces@here.test");
    assert_eq!(queued.recipients, ["bob@there.test", "cy@here.test", "secret@there.test"]);
    assert_eq!(queued.field("Bcc"), None);
    assert!(!queued.content.contains("secret"), "{}", queued.content);
}

#[test]
fn mail_of_nobody_comes_from_the_null_sender() {
    let office = Office::open();
    assert_done(&office.send("sendmail", &["-f", "", "-i", "bob@there.test"], "Subject: x\n\nhello\n"));
    assert_eq!((office.queued().sender.as_str(), office.queued().recipients.len()), ("", 1));
}

#[test]
fn who_asks_wrongly_is_told_and_nothing_is_sent() {
    let office = Office::open();
    for (words, exit, word) in [
        (&[][..], 64, "no recipient"),
        (&["-t"], 64, "no recipient"),
        (&["-bd"], 64, "ringpost serve"),
        (&["-C", "/dev/null", "bob@there.test"], 64, "--config"),
        (&["bob@there.test, <"], 65, ""),
        (&["--config", "/nonexistent/ringpost.toml", "bob@there.test"], 78, "/nonexistent/ringpost.toml"),
    ] {
        let sent = office.send("sendmail", words, "Subject: x\n\nhello\n");
        assert_eq!(code(&sent), exit, "{words:?}: {}", said(&sent));
        assert!(said(&sent).contains(word), "{words:?}: {}", said(&sent));
    }
    office.assert_nothing_queued();
}

#[test]
fn a_socket_that_cannot_be_reached_is_for_later_and_says_what_to_do() {
    let office = Office::open();
    for (name, words, exit) in
        [("sendmail", &["-i", "bob@there.test"][..], 75), ("qmail-inject", &["bob@there.test"], 111)]
    {
        let mut command = office.command(name);
        let sent = run(command.env("RINGPOST_SUBMIT", "/nonexistent/submit.sock").args(words), "\nhello\n");
        assert_eq!(code(&sent), exit);
        for word in ["/nonexistent/submit.sock", "nothing was sent", "`submit`", "RINGPOST_SUBMIT"] {
            assert!(said(&sent).contains(word), "{}", said(&sent));
        }
    }
    // A socket that its daemon left behind is as good as none.
    let Office { daemon, programs } = office;
    let stopped = daemon.terminate();
    let socket = stopped.setup.folder().join("submit.sock");
    assert!(socket.exists());
    let mut command = Command::new(programs.path().join("sendmail"));
    let sent = run(command.arg("--socket").arg(&socket).arg("bob@there.test"), "\nhello\n");
    assert_eq!(code(&sent), 75, "{}", said(&sent));
    // The next one takes its place.
    let office = Office { daemon: stopped.restart(), programs };
    assert_done(&office.send("sendmail", &["bob@there.test"], "\nhello\n"));
}

#[test]
fn a_refused_recipient_among_many_stops_the_message_for_all() {
    let nowhere = NOWHERE.parse().expect("an address");
    let office = Office::with(Setup::new().relay(nowhere).with("intake.local_recipients_max", 100));
    let recipients: Vec<String> = (0..102).map(|number| format!("r{number}@there.test")).collect();
    let words: Vec<&str> = recipients.iter().map(String::as_str).collect();
    for (name, exit) in [("sendmail", 75), ("inject", 111)] {
        let sent = office.send(name, &words, "Subject: x\n\nhello\n");
        assert_eq!(code(&sent), exit, "{}", said(&sent));
        for word in ["r100@there.test: 452", "r101@there.test: 452", "nothing was sent, to no recipient"] {
            assert!(said(&sent).contains(word), "{}", said(&sent));
        }
        assert!(!said(&sent).contains("r99@"), "{}", said(&sent));
    }
    let quiet = office.send("sendmail", &[&["-oeq"], &words[..]].concat(), "Subject: x\n\nhello\n");
    assert_eq!((code(&quiet), said(&quiet).as_str()), (75, ""));
    office.assert_nothing_queued();
    assert_done(&office.send("sendmail", &words[..100], "Subject: x\n\nhello\n"));
    assert_eq!(office.queued().recipients.len(), 100);
}

#[test]
fn a_message_too_long_is_refused_for_good() {
    let nowhere = NOWHERE.parse().expect("an address");
    let office = Office::with(Setup::new().relay(nowhere).with("intake.message_size_max", 100_000));
    let mail = format!("Subject: x\n\n{}", "0123456789\n".repeat(20_000));
    for (name, exit) in [("sendmail", 65), ("inject", 100)] {
        let sent = office.send(name, &["bob@there.test"], &mail);
        assert_eq!(code(&sent), exit, "{}", said(&sent));
        assert!(said(&sent).contains("552 5.3.4"), "{}", said(&sent));
    }
    office.assert_nothing_queued();
}

#[test]
fn a_caller_may_speak_smtp_itself() {
    let office = Office::open();
    let dialogue = "EHLO pine\r\nMAIL FROM:<ann@here.test>\r\nRCPT TO:<bob@there.test>\r\nDATA\r\n\
                    Subject: x\r\n\r\nhello\r\n.\r\nQUIT\r\n";
    let spoken = office.send("sendmail", &["-bs"], dialogue);
    assert_done(&spoken);
    let replies = String::from_utf8_lossy(&spoken.stdout);
    assert!(
        replies.starts_with("220 ") && replies.contains("queued as") && replies.contains("\r\n221 "),
        "{replies}"
    );
    assert_eq!(office.queued().recipients, ["bob@there.test"]);
}

#[test]
fn a_socket_that_cannot_be_bound_is_the_operators_to_mend() {
    for (path, why) in
        [("/nonexistent/submit.sock", "No such file"), ("/etc/passwd", "something else is there")]
    {
        let refusal = Setup::new().with("submit", path).refusal();
        assert_eq!(refusal.code, 78, "{}", refusal.said);
        assert!(refusal.sentence().contains(path) && refusal.sentence().contains(why), "{}", refusal.said);
    }
}

// ---- the configuration that users may read ----

#[test]
fn the_configuration_completes_and_masquerades() {
    let nowhere = NOWHERE.parse().expect("an address");
    let lines = "[compose]\ndefault_host = \"example.org\"\nplus_domain = \"example.edu\"\n\
                 [compose.masquerade]\nann = \"Ann.Example@example.net\"\n";
    let office = Office::with(Setup::new().relay(nowhere).with_lines(lines));
    let mut command = office.command("sendmail");
    for name in ["RINGPOST_SUBMIT", "QMAILDEFAULTHOST", "QMAILDEFAULTDOMAIN", "QMAILIDHOST"] {
        command.env_remove(name);
    }
    // The socket too is that of the configuration.
    command.arg("--config").arg(office.daemon.setup.config_file()).args(["-i", "bob, cy@cs+"]);
    assert_done(&run(&mut command, "Subject: x\n\nhello\n"));
    let queued = office.queued();
    assert_eq!(queued.recipients, ["bob@example.org", "cy@cs.example.edu"]);
    assert_eq!(queued.sender, "Ann.Example@example.net");
    assert!(queued.field("From").expect("From").contains("Ann.Example@example.net"), "{}", queued.content);
    assert!(queued.field("Message-ID").expect("Message-ID").ends_with("@relay.process.test>"));
}

// ---- inject ----

#[test]
fn inject_prints_what_it_would_send() {
    let office = Office::open();
    let printed = office.send("qmail-inject", &["-n"], "To: bob\nSubject: x\n\nhello\n");
    assert_done(&printed);
    let text = String::from_utf8(printed.stdout).expect("UTF-8");
    assert!(
        text.contains("To: bob@here.test\n") && text.ends_with("\n\nhello\n") && !text.contains('\r'),
        "{text}"
    );
    office.assert_nothing_queued();
}

#[test]
fn inject_takes_recipients_from_where_it_is_told() {
    let mail = "To: bob@there.test\nSubject: x\n\nhello\n";
    for (words, recipients) in [
        (&["-a", "cy@there.test"][..], &["cy@there.test"][..]),
        (&["cy@there.test"], &["cy@there.test"]),
        (&["-h", "cy@there.test"], &["bob@there.test"]),
        (&["-H", "cy@there.test"], &["bob@there.test", "cy@there.test"]),
        (&[], &["bob@there.test"]),
    ] {
        let office = Office::open();
        assert_done(&office.send("inject", words, mail));
        assert_eq!(office.queued().recipients, recipients, "{words:?}");
    }
}

#[test]
fn what_inject_cannot_read_is_an_error_for_good() {
    let office = Office::open();
    let sent = office.send("inject", &[], "To: bob@there.test <\n\nhello\n");
    assert_eq!(code(&sent), 100, "{}", said(&sent));
    assert!(said(&sent).contains("To"), "{}", said(&sent));
    office.assert_nothing_queued();
}

#[test]
fn the_letter_r_gives_every_recipient_a_sender_of_its_own() {
    let sink = Sink::start(&[]);
    let office = Office::with(Setup::new().relay(sink.address));
    let mut command = office.command("inject");
    command.env("QMAILINJECT", "r").args(["bob@there.test", "cy@elsewhere.test"]);
    assert_done(&run(&mut command, "Subject: x\n\nhello\n"));
    let mut senders: Vec<String> =
        sink.wait_for_deliveries(2, RUN_MAX).into_iter().map(|delivery| delivery.reverse_path).collect();
    senders.sort();
    assert_eq!(senders, ["ann-bob=there.test@here.test", "ann-cy=elsewhere.test@here.test"]);
}

// ---- mailq, newaliases ----

#[test]
fn mailq_shows_who_still_waits() {
    let office = Office::open();
    let queue = |name: &str, words: &[&str]| {
        let mut command = office.command(name);
        let shown = run(command.args(words).arg("--config").arg(office.daemon.setup.config_file()), "");
        assert_done(&shown);
        String::from_utf8(shown.stdout).expect("UTF-8")
    };
    assert_eq!(queue("mailq", &[]), "Mail queue is empty\n");
    assert_done(&office.send("sendmail", &["bob@there.test", "cy@there.test"], "Subject: x\n\nhello\n"));
    for shown in [queue("mailq", &["-v"]), queue("sendmail", &["-bp"])] {
        for word in ["ann@here.test\n", " bob@there.test\n", " cy@there.test\n", "Kbytes in 1 Requests."] {
            assert!(shown.contains(word), "{shown}");
        }
    }
    // The files say it too.
    let Office { daemon, programs } = office;
    let stopped = daemon.terminate();
    let mut command = Command::new(programs.path().join("mailq"));
    let shown = run(command.arg("--config").arg(stopped.setup.config_file()), "");
    assert_done(&shown);
    assert!(String::from_utf8_lossy(&shown.stdout).contains(" cy@there.test\n"), "{shown:?}");
}

#[test]
fn newaliases_is_sendmails_too() {
    let office = Office::open();
    let table = office.daemon.setup.folder().join("aliases");
    std::fs::write(&table, "root: ann\nlist: root, bob@there.test\n").expect("ours");
    let file = table.display();
    for (name, words) in [
        ("newaliases", vec![format!("--file={file}")]),
        ("sendmail", vec!["-bi".into(), format!("-oA{file}")]),
    ] {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let done = office.send(name, &words, "");
        assert_done(&done);
        assert_eq!(String::from_utf8_lossy(&done.stdout), "2 addresses\n");
        std::fs::remove_file(format!("{file}.cdb")).expect("it was made");
    }
}

// ---- another user ----

/// A command as the user `nobody`: tests that run as root alone can become somebody else.
fn as_nobody(office: &Office, name: &str) -> Option<Command> {
    if !peer::is_root() {
        peer::skip("only root can become another user");
        return None;
    }
    let mut command = peer("setpriv")?;
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(office.program(name));
    office.furnish(&mut command);
    Some(command)
}

#[test]
fn any_user_submits_and_sees_no_queue() {
    let office = Office::open();
    let Some(mut sendmail) = as_nobody(&office, "sendmail") else { return };
    assert_done(&run(sendmail.env_remove("USER").args(["-i", "bob@there.test"]), "Subject: x\n\nhello\n"));
    let queued = office.queued();
    assert_eq!((queued.sender.as_str(), queued.recipients.len()), ("nobody@here.test", 1));
    let Some(mut mailq) = as_nobody(&office, "mailq") else { return };
    let shown = run(mailq.arg("--config").arg(office.daemon.setup.config_file()), "");
    assert_eq!(code(&shown), 77, "{}", said(&shown));
    assert!(said(&shown).contains("root and to the daemon's user"), "{}", said(&shown));
    assert!(shown.stdout.is_empty());
}

/// The daemon's trace field is being extended beside this: until it names the user, this cannot hold.
#[test]
fn the_trace_field_names_the_user_that_the_kernel_saw() {
    let office = Office::open();
    let Some(mut sendmail) = as_nobody(&office, "sendmail") else { return };
    assert_done(&run(sendmail.env("USER", "root").args(["-i", "bob@there.test"]), "Subject: x\n\nhello\n"));
    let queued = office.queued();
    let (received, _) = queued.content.split_once("\r\nSubject:").expect("our field stands on top");
    assert!(received.starts_with("Received:") && received.contains("uid 65534"), "{received}");
}

// ---- many at once, and too many ----

#[test]
fn many_at_once_are_shared_by_the_cores() {
    let office = Office::with(Setup::new().relay(NOWHERE.parse().expect("an address")).on_cpus(&[0, 1]));
    std::thread::scope(|scope| {
        for number in 0..40 {
            let office = &office;
            scope.spawn(move || {
                let recipient = format!("r{number}@there.test");
                assert_done(&office.send("sendmail", &["-i", &recipient], "Subject: x\n\nhello\n"));
            });
        }
    });
    assert_eq!(office.daemon.metric("accepted_messages"), 40);
    assert_eq!(office.daemon.setup.queue_list().len(), 40);
}

#[test]
fn a_daemon_without_a_place_for_us_is_for_later() {
    let nowhere = NOWHERE.parse().expect("an address");
    let office = Office::with(Setup::new().relay(nowhere).with("intake.sessions_max", 0));
    for (name, exit) in [("sendmail", 75), ("inject", 111)] {
        let sent = office.send(name, &["bob@there.test"], "Subject: x\n\nhello\n");
        assert_eq!(code(&sent), exit, "{}", said(&sent));
        assert!(said(&sent).contains("421 4.3.2"), "{}", said(&sent));
    }
    office.assert_nothing_queued();
}

#[test]
fn internationalised_addresses_are_announced() {
    let office = Office::open();
    assert_done(&office.send("sendmail", &["-i", "jörg@there.test"], "Subject: Grüße\n\nhello\n"));
    let queued = office.queued();
    assert_eq!(queued.recipients, ["jörg@there.test"]);
    assert!(queued.content.contains("with UTF8SMTP"), "{}", queued.content);
}

// ---- programs of others ----

fn git(folder: &Path) -> Option<Command> {
    let mut git = peer("git")?;
    git.current_dir(folder).env("HOME", folder).env("GIT_CONFIG_NOSYSTEM", "1");
    Some(git)
}

#[test]
fn git_send_email_sends_a_series() {
    let sink = Sink::start(&[]);
    let office = Office::with(Setup::new().relay(sink.address));
    let folder = setup::temporary_folder();
    let Some(mut init) = git(folder.path()) else { return };
    wait::succeed(init.args(["init", "--quiet"]), RUN_MAX);
    for (key, value) in [("user.name", "Ann Ümlaut"), ("user.email", "ann@here.test")] {
        wait::succeed(git(folder.path()).expect("it was there").args(["config", key, value]), RUN_MAX);
    }
    for round in 0..3 {
        File::create(folder.path().join(format!("file{round}"))).expect("ours");
        wait::succeed(git(folder.path()).expect("it was there").args(["add", "."]), RUN_MAX);
        let message = format!("Grüße {round}");
        wait::succeed(git(folder.path()).expect("it was there").args(["commit", "-qm", &message]), RUN_MAX);
    }
    let mut send = git(folder.path()).expect("it was there");
    let has_it = wait::finish(send.args(["send-email", "-h"]), RUN_MAX);
    if said(&has_it).contains("not a git command") {
        return peer::skip("git send-email is not installed");
    }
    let mut send = git(folder.path()).expect("it was there");
    send.arg("send-email").arg(format!("--smtp-server={}", office.program("sendmail").display()));
    send.args(["--to=bob@there.test", "--cc=Cy Ö <cy@there.test>", "--confirm=never", "--suppress-cc=all"]);
    send.args(["--envelope-sender=bounces@here.test", "HEAD~2"]);
    wait::succeed(office.furnish(&mut send), RUN_MAX);
    let deliveries = sink.wait_for_deliveries(4, RUN_MAX);
    assert!(deliveries.iter().all(|delivery| delivery.reverse_path == "bounces@here.test"), "{deliveries:?}");
    let to_bob = deliveries.iter().filter(|delivery| delivery.forward_path == "bob@there.test").count();
    assert_eq!((to_bob, deliveries.len()), (2, 4));
    assert_eq!(office.daemon.metric("accepted_messages"), 2);
}

#[test]
fn s_nail_sends_through_us() {
    let office = Office::open();
    let Some(mut nail) = peer("s-nail") else { return };
    nail.args(["-:/", "-S", "v15-compat", "-S"])
        .arg(format!("mta=file://{}", office.program("sendmail").display()));
    nail.args(["-S", "ttycharset=utf-8", "-s", "Grüße", "-r", "ann@here.test"]);
    nail.args(["-c", "cy@there.test", "-b", "secret@there.test", "bob@there.test"]);
    let sent = run(office.furnish(&mut nail), "hello\n.\nafter the dot\n");
    assert_eq!(code(&sent), 0, "{}", said(&sent));
    wait::until("the message", RUN_MAX, || office.daemon.metric("accepted_messages") == 1);
    let queued = office.queued();
    assert_eq!(queued.sender, "ann@here.test");
    assert_eq!(queued.recipients, ["bob@there.test", "cy@there.test", "secret@there.test"]);
    assert!(!queued.content.contains("secret"), "{}", queued.content);
    assert!(queued.body().contains("after the dot\r\n"), "{}", queued.content);
}

#[test]
fn mutt_sends_through_us() {
    let office = Office::open();
    let Some(mut mutt) = peer("mutt") else { return };
    let home = setup::temporary_folder();
    mutt.env("HOME", home.path()).current_dir(home.path());
    mutt.args(["-n", "-F", "/dev/null", "-e"]);
    mutt.arg(format!("set sendmail=\"{} -oem -oi\"", office.program("sendmail").display()));
    mutt.args(["-e", "set copy=no", "-e", "set from=ann@here.test", "-e", "set use_envelope_from=yes"]);
    mutt.args(["-s", "hello", "-c", "cy@there.test", "-b", "secret@there.test", "--", "bob@there.test"]);
    let sent = run(office.furnish(&mut mutt), "hello\n.\nafter the dot\n");
    assert_eq!(code(&sent), 0, "{}{}", said(&sent), String::from_utf8_lossy(&sent.stdout));
    wait::until("the message", RUN_MAX, || office.daemon.metric("accepted_messages") == 1);
    let queued = office.queued();
    assert_eq!(queued.sender, "ann@here.test");
    assert_eq!(queued.recipients, ["bob@there.test", "cy@there.test", "secret@there.test"]);
    assert!(!queued.content.contains("secret"), "{}", queued.content);
    assert_eq!(queued.body(), "hello\r\n.\r\nafter the dot\r\n");
}

/// How a list manager hands a post in: one transaction, all members, and the daemon makes the senders. Then, on the same
/// connection, one that is personal.
const LIST_MANAGER: &str = r#"
import smtplib, sys
host, port = sys.argv[1:]
post = b'From: ann@here.test\r\nTo: list@here.test\r\nSubject: post\r\nList-Id: <list.here.test>\r\n\r\nhello\r\n'
with smtplib.SMTP(host, int(port), timeout=30) as server:
    server.ehlo()
    assert server.has_extn('xverp')
    members = ['m%d@there.test' % n for n in range(50)]
    refused = server.sendmail('list-bounces@here.test', members, post, mail_options=['XVERP=+='])
    assert not refused, refused
    refused = server.sendmail('list-bounces+owner=there.test@here.test', ['owner@there.test'], post)
    assert not refused, refused
"#;

#[test]
fn a_list_managers_post_goes_out_with_a_sender_per_member() {
    let Some(mut python) = peer("python3") else { return };
    let sink = Sink::start(&[]);
    let daemon = Setup::new().relay(sink.address).start();
    let (host, port) = (daemon.address.ip().to_string(), daemon.address.port().to_string());
    wait::succeed(python.args(["-c", LIST_MANAGER, &host, &port]), RUN_MAX);
    let deliveries = sink.wait_for_deliveries(51, RUN_MAX);
    assert_eq!(deliveries.len(), 51);
    for delivery in deliveries {
        let (user, domain) = delivery.forward_path.split_once('@').expect("an address");
        assert_eq!(delivery.reverse_path, format!("list-bounces+{user}={domain}@here.test"));
    }
    assert_eq!(daemon.metric("accepted_messages"), 2);
}
