//! POP3 as users have it: what lies in a Maildir comes to real clients octet for octet, and goes only when they say so.
//!
//! `RINGPOST_INTEROP=required` makes a missing client a failure; without it, its test says so and passes.

#[path = "pop3/post.rs"]
mod post;

use post::{Client, Post, be_nobody, give_away};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tests::process::{peer, wait};

const RUN_MAX: Duration = Duration::from_secs(120);

/// Names in the order of a session's list, and what lies there.
fn letters() -> Vec<(&'static str, Vec<u8>)> {
    let header = "From: <a@example.org>\nTo: <ann@example.net>\nDate: Mon, 2 Mar 2026 08:00:00 +0000\n\
                  Message-ID: <MID@example.org>\nSubject: ";
    let letter = |number: usize, body: &str| {
        let header = header.replace("MID", &number.to_string());
        format!("{header}Letter {number}\n\n{body}")
    };
    let long: String = (0..20_000).map(|number| format!("Line {number} of a long letter.\n")).collect();
    vec![
        ("new/1700000001.M1P1.mx", letter(1, "Hello.\n").into_bytes()),
        ("cur/1700000002.M1P1.mx:2,S", letter(2, ".\n..\n.dots\nand.dots.\n\n\n").into_bytes()),
        ("new/1700000003.M1P1.mx", letter(3, "CR LF.\n").replace('\n', "\r\n").into_bytes()),
        ("new/1700000004.M1P1.mx,S=9999", letter(4, "The last line has no end").into_bytes()),
        ("new/1700000005.M1P1.mx", letter(5, "Gr\u{fc}\u{df}e, 8 bits.\n").into_bytes()),
        ("cur/1700000006.M1P1.mx:2,", letter(6, &long).into_bytes()),
    ]
}

/// By another way than the server's.
fn with_cr_lf(content: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(content.to_vec()).expect("letters are UTF-8");
    let text = text.replace("\r\n", "\n").replace('\n', "\r\n");
    if text.ends_with('\n') { text.into_bytes() } else { format!("{text}\r\n").into_bytes() }
}

fn with_lf(content: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(with_cr_lf(content)).expect("letters are UTF-8");
    text.replace("\r\n", "\n").into_bytes()
}

fn filled(post: &Post) -> Vec<Vec<u8>> {
    let letters = letters();
    letters.iter().for_each(|(name, content)| post.deliver("ann", name, content));
    letters.into_iter().map(|(_, content)| content).collect()
}

fn assert_same(found: &[u8], wanted: &[u8], what: &str) {
    let at = found.iter().zip(wanted).position(|(a, b)| a != b).unwrap_or(found.len().min(wanted.len()));
    let near =
        |octets: &[u8]| octets[at.saturating_sub(20)..octets.len().min(at + 40)].escape_ascii().to_string();
    assert!(found == wanted, "{what}: at {at} of {}: {} is not {}", wanted.len(), near(found), near(wanted));
}

/// The files of a folder, in whatever order.
fn files(folder: &Path) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(folder).expect("ours").map(|entry| entry.expect("ours").path());
    let mut files: Vec<Vec<u8>> = entries.map(|path| std::fs::read(path).expect("ours")).collect();
    files.sort();
    files
}

/// What a client that keeps LF line ends must have got.
fn wanted_files(letters: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut wanted: Vec<Vec<u8>> = letters.iter().map(|letter| with_lf(letter)).collect();
    wanted.sort();
    wanted
}

/// `adds`: what the client puts in front of each by itself.
fn assert_all_came(folder: &Path, letters: &[Vec<u8>], client: &str, adds: &str) {
    let (found, wanted) = (files(folder), wanted_files(letters));
    let found: Vec<&[u8]> =
        found.iter().map(|file| file.strip_prefix(adds.as_bytes()).expect("it adds that")).collect();
    assert_eq!(found.len(), wanted.len(), "{client}");
    found.iter().zip(&wanted).for_each(|(found, wanted)| assert_same(found, wanted, client));
}

// ---- by hand ----

#[test]
fn messages_come_as_they_lie_there_and_sizes_are_what_comes() {
    let post = Post::open();
    let letters = filled(&post);
    let mut client = post.log_in("ann", "secret");
    let list = String::from_utf8(client.ask("LIST")).expect("numbers");
    for (number, letter) in (1..).zip(&letters) {
        let came = client.ask(&format!("RETR {number}"));
        assert_same(&came, &with_cr_lf(letter), "RETR");
        assert!(list.contains(&format!("{number} {}\r\n", came.len())), "{list}");
    }
    let header = client.ask("TOP 6 0");
    assert!(header.ends_with(b"Subject: Letter 6\r\n\r\n"));
    assert_eq!(
        client.ask("TOP 6 2"),
        [&header[..], b"Line 0 of a long letter.\r\nLine 1 of a long letter.\r\n"].concat()
    );
    assert_eq!(client.say("QUIT"), "+OK Bye");
    assert_eq!(post.left("ann").len(), letters.len());
    assert!(post.terminate().success());
}

#[test]
fn uids_outlive_sessions_flags_and_moves() {
    let post = Post::open();
    filled(&post);
    let uidl = || post.log_in("ann", "secret").ask("UIDL");
    let before = uidl();
    let maildir = post.maildir("ann");
    std::fs::rename(maildir.join("new/1700000001.M1P1.mx"), maildir.join("cur/1700000001.M1P1.mx:2,RS"))
        .expect("ours");
    std::fs::rename(maildir.join("cur/1700000006.M1P1.mx:2,"), maildir.join("cur/1700000006.M1P1.mx:2,S"))
        .expect("ours");
    assert_eq!(uidl(), before);
    assert!(String::from_utf8(before).expect("text").starts_with("1 1700000001.M1P1.mx\r\n"));
}

#[test]
fn only_quit_removes() {
    let mut post = Post::open();
    let letters = filled(&post);
    let mut broken = post.log_in("ann", "secret");
    assert_eq!(broken.say("DELE 1"), "+OK Goes with QUIT");
    drop(broken);
    let mut kept = post.log_in("ann", "secret");
    assert!(kept.say("STAT").starts_with("+OK 6 "), "a connection that breaks removes nothing");
    kept.say("DELE 2");
    kept.say("RSET");
    assert_eq!(kept.say("QUIT"), "+OK Bye");
    let mut done = post.log_in("ann", "secret");
    done.say("DELE 3");
    assert_eq!(post.left("ann").len(), letters.len(), "not before QUIT");
    assert_eq!(done.say("QUIT"), "+OK Bye");
    assert_eq!(post.left("ann").len(), letters.len() - 1);
    assert!(!post.left("ann").iter().any(|name| name.starts_with("1700000003.")));
    // The process dies in the middle of a session.
    let mut killed = post.log_in("ann", "secret");
    killed.say("DELE 1");
    killed.send(b"RETR 5\r\n");
    post.kill();
    killed.rest();
    assert_eq!(post.left("ann").len(), letters.len() - 1);
}

#[test]
fn two_sessions_at_once_do_each_other_no_harm() {
    let post = Post::open();
    let letters = filled(&post);
    let (mut first, mut second) = (post.log_in("ann", "secret"), post.log_in("ann", "secret"));
    post.deliver("ann", "new/1800000000.M1P1.mx", b"A: new\n\nOne.\n");
    for number in [1, 2] {
        first.say(&format!("DELE {number}"));
    }
    second.say("DELE 2");
    assert_eq!(first.say("QUIT"), "+OK Bye");
    assert!(second.say("STAT").starts_with("+OK 5 "), "its list stays as it was");
    assert_eq!(second.say("RETR 1"), "-ERR It was removed meanwhile");
    assert_same(&second.ask("RETR 3"), &with_cr_lf(&letters[2]), "another");
    second.say("DELE 3");
    assert_eq!(second.say("QUIT"), "+OK Bye", "one that is gone already is no failure");
    assert_eq!(post.left("ann").len(), letters.len() - 3 + 1);
}

#[test]
fn an_idle_client_is_left_without_a_word_and_nothing_goes() {
    let post = Post::with("", "idle_timeout_secs = 1");
    filled(&post);
    let mut client = post.log_in("ann", "secret");
    client.say("DELE 1");
    client.send(b"QUI");
    assert_eq!(client.rest(), b"");
    assert_eq!(post.left("ann").len(), 6);
}

#[test]
fn wrong_passwords_are_limited() {
    let post = Post::with("wrong_per_address = \"4/10min\"", "");
    let mut client = post.client();
    for left in [2, 1, 0] {
        client.say("USER ann");
        assert_eq!(client.say("PASS guess"), "-ERR [AUTH] Wrong name or password");
        if left == 0 {
            assert_eq!(client.hear(), "-ERR Too many wrong logins");
        }
    }
    assert_eq!(client.rest(), b"");
    let mut client = post.client();
    client.say("USER eve");
    assert_eq!(client.say("PASS guess"), "-ERR [AUTH] Wrong name or password");
    client.say("USER ann");
    assert!(client.say("PASS secret").starts_with("-ERR [SYS/TEMP]"), "right, but too late");
}

#[test]
fn connections_are_limited_for_each_client() {
    let post = Post::with("", "sessions_per_address = 2");
    let (first, _second) = (post.client(), post.client());
    let third = Client::connect(post.plain);
    assert_eq!(third.greeting, "-ERR [SYS/TEMP] Too many connections");
    assert_eq!(third.rest(), b"");
    drop(first);
    wait::until("the first one's place", wait::PATIENCE, || {
        Client::connect(post.plain).greeting.starts_with("+OK")
    });
}

#[test]
fn who_has_no_mailbox_is_told_so() {
    let post = Post::with("", "");
    std::fs::rename(post.maildir("ann"), post.maildir("carl").join("elsewhere")).expect("ours");
    let mut client = post.client();
    client.say("USER ann");
    assert_eq!(client.say("PASS secret"), "-ERR [SYS/PERM] You have no mailbox here");
    client.say("USER bob@example.net");
    assert_eq!(client.say("PASS other"), "+OK 0 messages, 0 octets");
}

#[test]
fn a_checkpassword_program_is_asked_about_others() {
    let post = Post::with("checkpassword = [\"/bin/sh\", \"FOLDER/checkpassword\"]", "");
    let script = "case \"$(tr '\\0' ' ' <&3)\" in \"carl hush \"*) exec \"$@\" ;; esac\nexit 1\n";
    std::fs::write(post.folder.path().join("checkpassword"), script).expect("ours");
    give_away(&post.folder.path().join("checkpassword"));
    post.deliver("carl", "new/1.a", b"x\n");
    let mut client = post.client();
    client.say("USER carl");
    assert_eq!(client.say("PASS loud"), "-ERR [AUTH] Wrong name or password");
    client.say("USER carl");
    assert_eq!(client.say("PASS hush"), "+OK 1 messages, 3 octets");
}

#[test]
fn a_reload_reads_passwords_anew() {
    let post = Post::open();
    let passwords = post.folder.path().join("passwords");
    std::fs::write(&passwords, "ann:{PLAIN}another\n").expect("ours");
    post.hang_up();
    wait::until("the new password", wait::PATIENCE, || {
        let mut client = post.client();
        client.say("USER ann");
        client.say("PASS another").starts_with("+OK")
    });
    let mut client = post.client();
    client.say("USER ann");
    assert_eq!(client.say("PASS secret"), "-ERR [AUTH] Wrong name or password");
}

#[test]
fn it_does_not_start_as_root_or_without_its_table() {
    let post = Post::open();
    let run = |config: &Path| {
        let mut command = Command::new(post.folder.path().join("ringpost"));
        wait::finish(command.args(["pop3", "--config"]).arg(config), RUN_MAX)
    };
    if peer::is_root() {
        let output = run(&post.folder.path().join("ringpost.toml"));
        assert_eq!(output.status.code(), Some(78));
        assert!(String::from_utf8_lossy(&output.stderr).contains("not as root"));
    }
    let bare = post.folder.path().join("bare.toml");
    std::fs::write(&bare, "host_name = \"a.test\"\nqueue = \"q\"\n").expect("ours");
    let output = run(&bare);
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no [pop3]"));
}

#[test]
fn a_message_passes_through_in_pieces() {
    let post = Post::open();
    let line = "A line of seventy-two octets is what most mail programs send us each day\n";
    let content = |lines: usize| ["A: b\n\n", &line.repeat(lines)].concat().into_bytes();
    let (small, large) = (content(8_000), content(800_000));
    post.deliver("ann", "new/1.a", &small);
    post.deliver("ann", "new/2.b", &large);
    let mut client = post.log_in("ann", "secret");
    assert_eq!(client.ask("RETR 1").len(), small.len() + 8_002);
    let before = post.memory_peak();
    assert_eq!(client.ask("RETR 2").len(), large.len() + 800_002);
    let grown = post.memory_peak() - before;
    assert!(grown < 16 << 20, "{grown} octets more for a message of {} octets", large.len());
}

// ---- real clients ----

const POPLIB: &str = r#"
import poplib, ssl, sys, pathlib
way, plain, tls, cert, folder = sys.argv[1:]
context = ssl.create_default_context(cafile=cert)
if way == "ssl":
    box = poplib.POP3_SSL("localhost", int(tls), context=context)
else:
    box = poplib.POP3("127.0.0.1" if way != "stls" else "localhost", int(plain))
if way == "stls":
    assert "STLS" in box.capa()
    box.stls(context)
    assert "STLS" not in box.capa()
if way == "apop":
    box.apop("ann", "secret")
else:
    box.user("ann")
    box.pass_("secret")
count, octets = box.stat()
sizes = [int(line.split()[1]) for line in box.list()[1]]
assert sum(sizes) == octets and len(sizes) == count
assert len(set(box.uidl()[1])) == count
for number in range(1, count + 1):
    lines = box.retr(number)[1]
    content = b"".join(line + b"\r\n" for line in lines)
    assert len(content) == sizes[number - 1]
    (pathlib.Path(folder) / f"{number:03}").write_bytes(content)
    assert box.top(number, 0)[1][-1] == b""
box.noop()
box.rset()
if way == "ssl":
    box.dele(count)
box.quit()
"#;

#[test]
fn python_reads_it_in_plain_text_over_stls_over_tls_and_by_apop() {
    let post = Post::with("", "apop_secrets = \"FOLDER/passwords\"");
    let letters = filled(&post);
    for way in ["plain", "stls", "apop", "ssl"] {
        let Some(mut python) = peer("python3") else { return };
        let folder = tempfile::tempdir().expect("a folder");
        let ports = [post.plain, post.tls].map(|address| address.port().to_string());
        let words = ["-c", POPLIB, way, &ports[0], &ports[1]];
        wait::succeed(python.args(words).arg(post.certificate()).arg(folder.path()), RUN_MAX);
        for (number, letter) in (1..).zip(&letters) {
            let came = std::fs::read(folder.path().join(format!("{number:03}"))).expect("it came");
            assert_same(&came, &with_cr_lf(letter), way);
        }
    }
    assert_eq!(post.left("ann").len(), letters.len() - 1);
}

#[test]
fn curl_reads_it_in_plain_text_over_stls_and_over_tls() {
    let post = Post::open();
    let letters = filled(&post);
    for (scheme, port) in
        [("pop3", post.plain.port()), ("stls", post.plain.port()), ("pop3s", post.tls.port())]
    {
        for (number, letter) in (1..).zip(&letters) {
            let Some(mut curl) = peer("curl") else { return };
            let url = format!("{}://localhost:{port}/{number}", scheme.replace("stls", "pop3"));
            curl.args(["--silent", "--show-error", "--user", "ann:secret", &url, "--cacert"])
                .arg(post.certificate());
            if scheme == "stls" {
                curl.arg("--ssl-reqd");
            }
            let output = wait::succeed(&mut curl, RUN_MAX);
            assert_same(&output.stdout, &with_cr_lf(letter), scheme);
        }
    }
    let Some(mut curl) = peer("curl") else { return };
    let url = format!("pop3://localhost:{}/", post.plain.port());
    let list = wait::succeed(curl.args(["--silent", "--user", "ann:secret", &url]), RUN_MAX);
    assert_eq!(list.stdout.split(|octet| *octet == b'\n').count(), letters.len() + 1);
}

#[test]
fn mpop_reads_it_and_removes_it() {
    let post = Post::open();
    let letters = filled(&post);
    let Some(mut mpop) = peer("mpop") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["new", "cur", "tmp"] {
        std::fs::create_dir(folder.path().join(name)).expect("ours");
    }
    mpop.args(["--host=localhost", "--user=ann", "--passwordeval=echo secret", "--auth=user", "--tls=on"])
        .args(["--tls-starttls=on", "--keep=off", "--received-header=off"])
        .arg(format!("--port={}", post.plain.port()))
        .arg(format!("--tls-trust-file={}", post.certificate().display()))
        .arg(format!("--delivery=maildir,{}", folder.path().display()))
        .arg(format!("--uidls-file={}", folder.path().join("uids").display()));
    wait::succeed(&mut mpop, RUN_MAX);
    assert_all_came(&folder.path().join("new"), &letters, "mpop", "");
    assert!(post.left("ann").is_empty());
}

#[test]
fn fetchmail_reads_it_and_removes_it() {
    let post = Post::open();
    let letters = filled(&post);
    let Some(mut fetchmail) = peer("fetchmail") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let came = folder.path().join("came");
    std::fs::create_dir(&came).expect("ours");
    let rc = folder.path().join("rc");
    let lines = format!(
        "set invisible\npoll localhost proto POP3 port {} uidl user \"ann\" password \"secret\" sslproto '' \
         fetchall no keep no rewrite mda \"sh -c 'cat > {}/$$'\"\n",
        post.plain.port(),
        came.display()
    );
    std::fs::write(&rc, lines).expect("ours");
    std::fs::set_permissions(&rc, Permissions::from_mode(0o600)).expect("ours");
    fetchmail.arg("-f").arg(&rc).args(["--nosyslog", "--pidfile"]).arg(folder.path().join("pid"));
    fetchmail.env("HOME", folder.path()).env("FETCHMAILHOME", folder.path());
    wait::succeed(&mut fetchmail, RUN_MAX);
    assert_all_came(&came, &letters, "fetchmail", "");
    assert!(post.left("ann").is_empty());
}

#[test]
fn getmail_reads_it_and_removes_it() {
    let post = Post::open();
    let letters = filled(&post);
    let Some(mut getmail) = peer("getmail") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["new", "cur", "tmp"] {
        std::fs::create_dir_all(folder.path().join("Maildir").join(name)).expect("ours");
    }
    let lines = format!(
        "[retriever]\ntype = SimplePOP3SSLRetriever\nserver = localhost\nport = {}\nusername = ann\npassword = secret\n\
         ca_certs = {}\n[destination]\ntype = Maildir\npath = {}/Maildir/\n\
         [options]\ndelete = true\nread_all = true\nreceived = false\ndelivered_to = false\n",
        post.tls.port(),
        post.certificate().display(),
        folder.path().display()
    );
    std::fs::write(folder.path().join("getmailrc"), lines).expect("ours");
    getmail.arg("--getmaildir").arg(folder.path()).env("HOME", folder.path());
    // As root it would deliver nothing.
    be_nobody(&mut getmail);
    give_away(folder.path());
    wait::succeed(&mut getmail, RUN_MAX);
    assert_all_came(&folder.path().join("Maildir/new"), &letters, "getmail", "Return-Path: <unknown>\n");
    assert!(post.left("ann").is_empty());
}
