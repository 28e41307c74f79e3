//! Wrong configurations, hostile clients and damaged files: one clear sentence, and nobody else is harmed.
//!
//! Exit 78: the operator has to change something. Exit 75: it may work later.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;
use tests::process::house::memory_peak;
use tests::process::peer::{is_root, skip};
use tests::process::setup::Refusal;
use tests::process::{Client, Daemon, Setup, peer, programs, wait};

const RUN_MAX: Duration = Duration::from_secs(60);

// ---- starts that are refused ----

/// What `serve` says to this configuration file.
fn refusal_of(text: &str) -> Refusal {
    let setup = Setup::new();
    fs::write(setup.config_file(), text).expect("ours");
    let check = Refusal::of(&mut setup.command(&["check"]));
    let serve = Refusal::of(&mut setup.command(&["serve"]));
    assert_eq!((check.code, check.sentence()), (serve.code, serve.sentence()), "check and serve agree");
    serve
}

fn assert_refused(text: &str, words: &[&str]) {
    let refusal = refusal_of(text);
    assert_eq!(refusal.code, 78, "{refusal:?}");
    for word in words {
        assert!(refusal.sentence().contains(word), "{word:?} is not in {:?}", refusal.sentence());
    }
    assert_eq!(refusal.said.lines().count(), 1, "{}", refusal.said);
}

#[test]
fn a_file_that_is_no_toml_is_named_with_its_line() {
    assert_refused("queue = \"/var/tmp/q\"\nlisten = [\n\"127.0.0.1:0\"\n[delivery]\n", &["ringpost.toml:"]);
    assert_refused("queue = \"/var/tmp/q\"\nwindow max = 3\n", &["ringpost.toml:2: "]);
}

#[test]
fn a_value_of_the_wrong_kind_is_named_with_file_line_and_key() {
    let text = "queue = \"/var/tmp/q\"\n[delivery]\nwindow_max = \"many\"\n";
    assert_refused(text, &["ringpost.toml:3: ", "window_max"]);
    let text = "queue = \"/var/tmp/q\"\nlisten = [\"localhost\"]\n";
    assert_refused(text, &["ringpost.toml:2: ", "listen"]);
    assert_refused(
        "queue = \"/var/tmp/q\"\n[intake]\nmessage_size_max = -1\n",
        &["ringpost.toml:3: ", "message_size_max"],
    );
}

#[test]
fn an_unknown_key_is_named_with_its_neighbour() {
    let text = "queue = \"/var/tmp/q\"\n[delivery]\nconections_max = 3\n";
    assert_refused(
        text,
        &["ringpost.toml:3: unknown key \"conections_max\"; did you mean \"connections_max\"?"],
    );
    assert_refused(
        "quue = \"/var/tmp/q\"\n",
        &["ringpost.toml:1: unknown key \"quue\"; did you mean \"queue\"?"],
    );
}

#[test]
fn a_missing_file_and_a_missing_key_are_named() {
    let setup = Setup::new();
    let refusal = Refusal::of(&mut setup.command(&["serve"]));
    assert_eq!(refusal.code, 78, "{refusal:?}");
    assert!(refusal.sentence().contains("ringpost.toml: No such file"), "{refusal:?}");
    assert_refused("host_name = \"a.test\"\n", &["ringpost.toml:", "queue"]);
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    for setup in
        [Setup::new().with("listen", vec![address.clone()]), Setup::new().with("http", address.clone())]
    {
        let refusal = setup.refusal();
        assert_eq!(refusal.code, 75, "{refusal:?}");
        let sentence = refusal.sentence();
        assert!(sentence.contains(&address) && sentence.contains("in use"), "{sentence}");
    }
}

#[test]
fn a_port_of_another_ringpost_is_in_use() {
    // Its cores share their port among themselves, which must not let a stranger in.
    let first = Setup::new().on_cpus(&[0, 1]).start();
    let second = Setup::new().with("listen", vec![first.address.to_string()]).try_start();
    let said = second.expect_err("the second daemon shares the first one's port");
    assert!(said.contains("in use"), "{said}");
}

#[test]
fn an_address_that_is_not_ours_is_the_operators_to_mend() {
    let refusal = Setup::new().with("listen", vec!["192.0.2.1:2525"]).refusal();
    assert_eq!(refusal.code, 78, "{refusal:?}");
    assert!(refusal.sentence().contains("192.0.2.1:2525"), "{refusal:?}");
}

#[test]
fn a_queue_that_may_not_be_opened_is_the_operators_to_mend() {
    if !is_root() {
        return skip("only root can become nobody");
    }
    let Some(mut nobody) = peer("setpriv") else { return };
    let setup = Setup::new();
    setup.write_config();
    // All but the queue may be read.
    let program = setup.folder().join("ringpost");
    programs::place_ringpost(&program);
    fs::set_permissions(setup.folder(), Permissions::from_mode(0o755)).expect("ours");
    fs::create_dir(setup.queue()).expect("ours");
    fs::set_permissions(setup.queue(), Permissions::from_mode(0o700)).expect("ours");
    nobody.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&program);
    let refusal = Refusal::of(nobody.arg("serve").arg("--config").arg(setup.config_file()));
    assert_eq!(refusal.code, 78, "{refusal:?}");
    let queue = setup.queue().display().to_string();
    assert!(refusal.sentence().contains(&queue) && refusal.said.contains("ermission denied"), "{refusal:?}");
}

#[test]
fn a_queue_that_is_a_file_is_the_operators_to_mend() {
    let setup = Setup::new();
    fs::write(setup.queue(), "not a folder").expect("ours");
    let refusal = setup.refusal();
    assert!(refusal.sentence().contains(&setup.queue().display().to_string()), "{refusal:?}");
    assert_eq!(refusal.code, 78, "{refusal:?}");
    let below = Setup::new();
    let path = below.folder().join("file");
    fs::write(&path, "not a folder").expect("ours");
    let refusal = below.with("queue", path.join("queue").display().to_string()).refusal();
    assert_eq!(refusal.code, 78, "{refusal:?}");
}

#[test]
fn a_second_daemon_on_a_queue_is_told_that_it_has_one() {
    let daemon = Setup::new().start();
    let refusal = Refusal::of(&mut daemon.setup.command(&["serve"]));
    assert_eq!(refusal.code, 75, "{refusal:?}");
    let wanted = format!("ringpost: {}: another ringpost has this queue", daemon.setup.queue().display());
    assert_eq!(refusal.sentence(), wanted);
    daemon.assert_healthy();
}

#[test]
fn a_queue_that_is_not_there_is_named_by_queue_stat() {
    let setup = Setup::new();
    setup.write_config();
    let refusal = Refusal::of(&mut setup.command(&["queue", "stat"]));
    assert_eq!(refusal.code, 75, "{refusal:?}");
    assert!(refusal.sentence().contains("there is no queue"), "{refusal:?}");
}

// ---- what clients throw at the listener ----

/// Writes as much as the peer takes, then reads to the end.
fn throw(daemon: &Daemon, bytes: &[u8]) -> Vec<String> {
    let mut client = Client::connect(daemon.address);
    client.expect("220");
    let _ = client.write(bytes);
    client.finish_writing();
    client.rest()
}

fn assert_unharmed(daemon: &Daemon) {
    daemon.wait_for("sessions_in", 0, RUN_MAX);
    assert_eq!((daemon.metric("accepted_messages"), daemon.metric("queued_messages")), (0, 0));
    daemon.assert_healthy();
    assert!(!daemon.talk().contains("panicked"), "{}", daemon.talk());
}

/// Octets of chance, the same in every run.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut octet = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| octet()).collect()
}

#[test]
fn garbage_leaves_the_daemon_healthy() {
    let daemon = Setup::new().start();
    throw(&daemon, &noise(1 << 20));
    throw(&daemon, &vec![0; 1 << 20]);
    throw(&daemon, b"\r\n\r\n\r\n\n\n\n\r\r\r");
    throw(
        &daemon,
        &[
            &b"EHLO a\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nBDAT 4294967295\r\n"[..],
            &noise(1 << 16),
        ]
        .concat(),
    );
    throw(
        &daemon,
        b"EHLO a\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nBDAT 99999999999999999999999 LAST\r\n",
    );
    assert_unharmed(&daemon);
}

#[test]
fn a_browser_and_a_tls_client_are_shown_the_door() {
    let daemon = Setup::new().start();
    let replies = throw(&daemon, b"GET / HTTP/1.1\r\nHost: mail.test\r\nUser-Agent: curl\r\n\r\n");
    assert!(replies.iter().any(|reply| reply.starts_with("421 ")), "{replies:?}");
    let hello = [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], &noise(501)].concat();
    throw(&daemon, &hello);
    assert_unharmed(&daemon);
}

#[test]
fn huge_lines_are_refused_and_the_session_goes_on() {
    let daemon = Setup::new().start();
    let mut client = daemon.client();
    let reply = client.say(&"x".repeat(4 << 20));
    assert!(reply.starts_with("500 "), "{reply}");
    client.say_expecting(&format!("MAIL FROM:<{}@b.test>", "a".repeat(5_000)), "500");
    client.say_expecting("NOOP", "250");
    client.say_expecting("QUIT", "221");
    assert_unharmed(&daemon);
}

#[test]
fn a_header_without_end_is_cut_off_by_the_size_limit() {
    let daemon = Setup::new().with("intake.message_size_max", 1 << 20).start();
    let mut client = daemon.client();
    let mut send = |times: usize| {
        client.say_expecting("MAIL FROM:<a@b.test>", "250");
        client.say_expecting("RCPT TO:<c@d.test>", "250");
        client.say_expecting("DATA", "354");
        for _ in 0..times {
            client
                .write("X-Header: and so on\r\n".repeat(8_192).as_bytes())
                .expect("it reads on, and drops it");
        }
        let reply = client.say(".");
        assert!(reply.starts_with("552 "), "{reply}");
    };
    send(8);
    let before = memory_peak(daemon.pid());
    send(256);
    let grown = memory_peak(daemon.pid()) - before;
    client.say_expecting("QUIT", "221");
    assert!(grown < 16 << 20, "{grown} octets more for 44 MB of header");
    assert_unharmed(&daemon);
}

#[test]
fn a_client_that_leaves_in_data_leaves_nothing_behind() {
    let daemon = Setup::new().start();
    for content in
        ["Subject: a\r\n\r\nhalf", "Subject: a\r\n\r\nall but the dot\r\n", "Subject: a\r\n\r\n\r\n.\r", ""]
    {
        let mut client = daemon.client();
        client.say_expecting("MAIL FROM:<a@b.test>", "250");
        client.say_expecting("RCPT TO:<c@d.test>", "250");
        client.say_expecting("DATA", "354");
        client.write(content.as_bytes()).expect("it reads");
    }
    let mut client = daemon.client();
    client
        .write(b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nBDAT 1000 LAST\r\nhalf of it")
        .expect("it reads");
    drop(client);
    assert_unharmed(&daemon);
    assert_eq!(daemon.setup.queue_stat()["messages"], 0);
}

#[test]
fn a_silent_client_is_told_to_go() {
    let daemon = Setup::new().with("intake.idle_timeout_secs", 1).start();
    let mut client = daemon.client();
    let replies = client.rest();
    assert!(replies.iter().any(|reply| reply.starts_with("421 ")), "{replies:?}");
    assert_unharmed(&daemon);
}

#[test]
fn five_hundred_connections_that_say_nothing_do_not_keep_others_out() {
    let daemon = Setup::new().start();
    let silent: Vec<Client> = (0..500).map(|_| Client::connect(daemon.address)).collect();
    daemon.wait_for("sessions_in", 500, RUN_MAX);
    daemon.assert_healthy();
    drop(silent);
    assert_unharmed(&daemon);
}

// ---- limits ----

#[test]
fn a_message_that_is_too_large_gets_552() {
    let daemon = Setup::new().with("intake.message_size_max", 10_000).start();
    let mut client = daemon.client();
    client.say_expecting("MAIL FROM:<a@b.test> SIZE=10001", "552");
    let reply = client.send("a@b.test", &["c@d.test"], &"x\r\n".repeat(5_000));
    assert!(reply.starts_with("552 "), "{reply}");
    assert_eq!(daemon.metric("accepted_messages"), 0);
    let reply = client.send("", &["c@d.test"], &"x\r\n".repeat(3_000));
    assert!(reply.starts_with("250 "), "{reply}");
}

#[test]
fn one_recipient_too_many_gets_452_and_the_others_are_kept() {
    let daemon = Setup::new().with("intake.recipients_max", 100).start();
    let mut client = daemon.client();
    client.say_expecting("MAIL FROM:<>", "250");
    for number in 0..100 {
        client.say_expecting(&format!("RCPT TO:<u{number}@d.test>"), "250");
    }
    client.say_expecting("RCPT TO:<u100@d.test>", "452");
    client.say_expecting("DATA", "354");
    client.say_expecting("Subject: to a hundred\r\n\r\nHello\r\n.", "250");
    assert_eq!(daemon.metric("accepted_recipients"), 100);
}

#[test]
fn a_session_too_many_gets_421() {
    let daemon = Setup::new().with("intake.sessions_max", 2).start();
    let (_first, second) = (daemon.client(), daemon.client());
    let mut third = Client::connect(daemon.address);
    third.expect("421");
    drop(second);
    wait::until("a place", RUN_MAX, || {
        Client::connect(daemon.address).reply().is_ok_and(|said| said.starts_with("220"))
    });
}
