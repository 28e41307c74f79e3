//! The way in as the internet meets it: TLS, logins, who may come, on whose behalf, to whom (Q14, Q16, Q18, Q21–Q24).

#[path = "ingress/ident.rs"]
mod ident;
#[path = "ingress/scram.rs"]
mod scram;

use rcgen::{CertificateParams, KeyPair};
use rustix::process::Signal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;
use tests::process::wait::{self, PATIENCE};
use tests::process::{Client, Daemon, NameServer, Setup, Sink, peer};

/// Writes a certificate for that name and its key; their files.
fn certificate(folder: &Path, name: &str) -> [PathBuf; 2] {
    let pair = KeyPair::generate().expect("a key");
    let own = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    let files = ["chain.pem", "key.pem"].map(|end| folder.join(format!("{name}-{end}")));
    std::fs::write(&files[0], own.self_signed(&pair).expect("ours").pem()).expect("the folder is ours");
    std::fs::write(&files[1], pair.serialize_pem()).expect("the folder is ours");
    files
}

/// A setup with a sink and one certificate, for `mx.one.test`.
fn with_certificate(sink: &Sink) -> Setup {
    let setup = Setup::new().relay(sink.address);
    let [chain, key] = certificate(setup.folder(), "mx.one.test");
    let lines = format!(
        "[[certificates]]\nnames = [\"mx.one.test\"]\nchain = {:?}\nkey = {:?}\n",
        chain.display().to_string(),
        key.display().to_string()
    );
    setup.with_lines(&lines)
}

/// And a place for users, who log in there.
fn with_users(setup: Setup, tls: &str, users: &str) -> Setup {
    let file = setup.folder().join("passwords");
    std::fs::write(&file, users).expect("the folder is ours");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&file, mode).expect("the file is ours");
    let lines = format!(
        "[auth]\npassword_file = {:?}\n[listeners.users]\naddresses = [\"127.0.0.1:0\"]\npurpose = \"submission\"\n\
         tls = \"{tls}\"\nauth = [\"PLAIN\", \"LOGIN\", \"CRAM-MD5\", \"SCRAM-SHA-256\"]\n[intake]\nrelay_from = []\n",
        file.display().to_string()
    );
    setup.with_lines(&lines)
}

/// Python's smtplib as a mail program: what it did, or how it failed.
fn smtplib(script: &str, address: SocketAddr) -> Option<Output> {
    let mut python = peer("python3")?;
    let text = format!(
        "import smtplib, ssl, sys\ncontext = ssl._create_unverified_context()\nhost, port = {:?}, {}\n{script}",
        address.ip().to_string(),
        address.port()
    );
    Some(wait::finish(python.arg("-c").arg(text), PATIENCE))
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat()
}

// ---- TLS and logins ----

#[test]
fn user_of_a_mail_program_logs_in_under_starttls_and_sends() {
    let sink = Sink::start(&[]);
    let setup = with_users(with_certificate(&sink), "offer", "ann:{PLAIN}open sesame\n");
    let daemon = setup.start();
    let script = "with smtplib.SMTP(host, port) as s:\n s.starttls(context=context)\n s.ehlo()\n \
                  s.user, s.password = 'ann', 'open sesame'\n \
                  s.auth(MECHANISM, getattr(s, 'auth_' + MECHANISM.lower().replace('-', '_')))\n \
                  s.sendmail('ann@here.test', ['bob@there.test'], 'Subject: x\\n\\nhello')\n";
    for (nth, mechanism) in ["PLAIN", "LOGIN", "CRAM-MD5"].into_iter().enumerate() {
        let script = script.replace("MECHANISM", &format!("'{mechanism}'"));
        let Some(output) = smtplib(&script, daemon.listening[1]) else { return };
        assert!(output.status.success(), "{mechanism}: {}", said(&output));
        daemon.wait_for("delivered", nth as u64 + 1, PATIENCE);
    }
    assert_eq!(daemon.metric("logins"), 3);
    sink.end();
}

#[test]
fn wrong_password_is_refused_and_nobody_sends_without_one() {
    let sink = Sink::start(&[]);
    let daemon = with_users(with_certificate(&sink), "implicit", "ann:{PLAIN}open sesame\n").start();
    let script = "s = smtplib.SMTP_SSL(host, port, context=context)\ns.ehlo()\nprint(s.mail('ann@here.test'))\n\
                  s.user, s.password = 'ann', 'open door'\ntry:\n s.auth('PLAIN', s.auth_plain)\n\
                  except smtplib.SMTPAuthenticationError as error:\n print('refused', error.smtp_code)\n\
                  s.password = 'open sesame'\ns.auth('PLAIN', s.auth_plain)\n\
                  s.sendmail('ann@here.test', ['bob@there.test'], 'Subject: x\\n\\nhello')\n";
    let Some(output) = smtplib(script, daemon.listening[1]) else { return };
    assert!(output.status.success(), "{}", said(&output));
    let said = said(&output);
    assert!(said.contains("(530, b'5.7.0") && said.contains("refused 535"), "{said}");
    assert!(daemon.metric("logins_wrong") >= 1);
    sink.wait_for_deliveries(1, PATIENCE);
}

#[test]
fn passwords_are_not_offered_in_plain_text_to_other_hosts() {
    let sink = Sink::start(&[]);
    let setup = with_users(with_certificate(&sink), "require", "ann:{PLAIN}x\n");
    let daemon = setup.with_lines("[listeners.users]\nproxy_from = [\"127.0.0.1\"]\n").start();
    let mut client = Client::connect(daemon.listening[1]);
    client.write(b"PROXY TCP4 192.0.2.7 127.0.0.1 40000 25\r\n").expect("it reads");
    client.expect("220");
    let offers = client.say("EHLO there.test");
    assert!(offers.contains("STARTTLS") && !offers.contains("AUTH"), "{offers}");
    client.say_expecting("AUTH PLAIN AGFubgB4", "5");
}

/// A listener behind another host that says who comes.
fn proxied() -> toml::Value {
    "addresses = [\"127.0.0.1:0\"]\nproxy_from = [\"127.0.0.0/8\"]"
        .parse::<toml::Table>()
        .expect("a table")
        .into()
}

#[test]
fn plain_text_behind_starttls_is_thrown_away() {
    let sink = Sink::start(&[]);
    let daemon = with_certificate(&sink).start();
    let script = "import socket\nraw = socket.create_connection((host, port))\nraw.recv(999)\n\
                  raw.sendall(b'EHLO a\\r\\n')\nraw.recv(999)\n\
                  raw.sendall(b'STARTTLS\\r\\nEHLO evil\\r\\nMAIL FROM:<evil@here.test>\\r\\n')\n\
                  print(raw.recv(999))\ntls = context.wrap_socket(raw)\ntls.sendall(b'NOOP\\r\\n')\n\
                  print(tls.recv(999))\ntls.sendall(b'MAIL FROM:<a@here.test>\\r\\n')\nprint(tls.recv(999))\n";
    let Some(output) = smtplib(script, daemon.address) else { return };
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("b'220 2.0.0") && lines[0].matches("\\r\\n").count() == 1, "{said}");
    assert!(lines[1].starts_with("b'250") && lines[2].starts_with("b'503"), "{said}");
}

#[test]
fn certificate_is_chosen_by_name_and_renewed_while_connections_go_on() {
    let sink = Sink::start(&[]);
    let setup = with_certificate(&sink);
    let [chain, key] = certificate(setup.folder(), "mx.two.test");
    let mut table = toml::Table::new();
    table.insert("chain".into(), chain.display().to_string().into());
    table.insert("key".into(), key.display().to_string().into());
    table.insert("names".into(), vec!["mx.two.test"].into());
    let [first, first_key] =
        ["chain.pem", "key.pem"].map(|end| setup.folder().join(format!("mx.one.test-{end}")));
    let mut one = toml::Table::new();
    one.insert("chain".into(), first.display().to_string().into());
    one.insert("key".into(), first_key.display().to_string().into());
    one.insert("names".into(), vec!["mx.one.test"].into());
    let daemon = setup.with("certificates", vec![toml::Value::from(one), table.into()]).start();
    let show = "def shown(name):\n import socket\n raw = socket.create_connection((host, port))\n raw.recv(999)\n \
                raw.sendall(b'EHLO a\\r\\n')\n raw.recv(999)\n raw.sendall(b'STARTTLS\\r\\n')\n raw.recv(999)\n \
                tls = context.wrap_socket(raw, server_hostname=name)\n \
                return tls, hash(tls.getpeercert(True))\n";
    let script = format!(
        "{show}a, b, c = shown('mx.one.test')[1], shown('mx.two.test')[1], shown('else.test')[1]\n\
         assert a == c != b, (a, b, c)\n"
    );
    let Some(output) = smtplib(&script, daemon.address) else { return };
    assert!(output.status.success(), "{}", said(&output));
    // A new certificate in the same files, a reload, and a connection that was there before.
    let script = format!(
        "{show}import os, time\nold, before = shown('mx.one.test')\nos.rename({:?}, {:?})\nos.rename({:?}, {:?})\n\
         os.kill({}, 1)\nfor _ in range(100):\n time.sleep(0.1)\n after = shown('mx.one.test')[1]\n \
         if after != before: break\nassert after != before\nold.sendall(b'EHLO a\\r\\n')\nprint(old.recv(999))\n",
        chain.display().to_string(),
        first.display().to_string(),
        key.display().to_string(),
        first_key.display().to_string(),
        daemon.pid()
    );
    // Both entries name files that are there.
    let [again, again_key] = certificate(&daemon.setup.folder().join(""), "mx.three.test");
    let script = script.replace(&chain.display().to_string(), &again.display().to_string());
    let script = script.replace(&key.display().to_string(), &again_key.display().to_string());
    let Some(output) = smtplib(&script, daemon.address) else { return };
    assert!(output.status.success() && said(&output).contains("250-"), "{}", said(&output));
    daemon.assert_healthy();
}

// ---- who may come, and to whom ----

/// A daemon whose every client is named by a PROXY header.
fn behind_a_proxy(lines: &str) -> (Sink, Daemon) {
    let sink = Sink::start(&[]);
    let mut setup = Setup::new().relay(sink.address).with_lines(lines);
    setup.remove("listen");
    let daemon = setup.with("listeners.mx", proxied()).start();
    (sink, daemon)
}

fn client_from(daemon: &Daemon, address: &str) -> Client {
    let mut client = Client::connect(daemon.address);
    client.write(format!("PROXY TCP4 {address} 127.0.0.1 40000 25\r\n").as_bytes()).expect("it reads");
    client
}

#[test]
fn who_may_not_relay_sends_to_our_domains_alone() {
    let (sink, daemon) = behind_a_proxy("[access]\nrelay_to = [\"ours.test\", \".below.test\"]\n");
    let mut client = client_from(&daemon, "192.0.2.7");
    client.expect("220");
    client.say("EHLO there.test");
    client.say_expecting("MAIL FROM:<ann@there.test>", "250");
    client.say_expecting("RCPT TO:<bob@ours.test>", "250");
    client.say_expecting("RCPT TO:<bob@a.below.test>", "250");
    client.say_expecting("RCPT TO:<bob@else.test>", "550 5.7.1");
    client.say_expecting("DATA", "354");
    client.say_expecting("Subject: x\r\n\r\nhello\r\n.", "250");
    daemon.wait_for("delivered", 2, PATIENCE);
    daemon.wait_until_said("rejected");
    let talk = daemon.talk();
    let line = talk.lines().find(|line| line.contains("rejected")).expect("it was said");
    for part in ["192.0.2.7", "mx", "rcpt", "ann@there.test", "bob@else.test", "550 5.7.1 Relaying denied"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert_eq!(sink.end().deliveries().len(), 2);
}

#[test]
fn rules_turn_away_and_let_relay_and_change_at_a_reload() {
    let rules = "[[access.rules]]\nfrom = \"192.0.2.66\"\ndeny = \"Go away\"\n\
                 [[access.rules]]\nfrom = \"192.0.2.0/24\"\nrelay = true\nsize_max = 1000\n";
    let (_sink, daemon) = behind_a_proxy(rules);
    client_from(&daemon, "192.0.2.66").expect("554 5.7.1 Go away");
    let mut client = client_from(&daemon, "192.0.2.7");
    client.expect("220");
    let offers = client.say("EHLO there.test");
    assert!(offers.contains("SIZE 1000"), "{offers}");
    client.say_expecting("MAIL FROM:<ann@there.test> SIZE=1001", "552 5.3.4");
    client.say_expecting("MAIL FROM:<ann@there.test>", "250");
    client.say_expecting("RCPT TO:<bob@else.test>", "250");
    let file = daemon.setup.config_file();
    let text = std::fs::read_to_string(&file).expect("it is ours");
    std::fs::write(&file, text.replace("192.0.2.66", "192.0.2.77")).expect("it is ours");
    daemon.signal(Signal::HUP);
    daemon.wait_until_said("configuration reloaded");
    // A core goes by the new rules from its next turn on.
    wait::until("the new rules", PATIENCE, || {
        client_from(&daemon, "192.0.2.66").reply().is_ok_and(|reply| reply.starts_with("220"))
    });
    client_from(&daemon, "192.0.2.77").expect("554");
}

#[test]
fn sessions_are_limited_by_address_and_their_places_come_back() {
    let (_sink, daemon) = behind_a_proxy("[access.per_address]\nsessions_max = 2\n");
    let mut first = client_from(&daemon, "192.0.2.7");
    first.expect("220");
    client_from(&daemon, "192.0.2.8").expect("220");
    let mut second = client_from(&daemon, "192.0.2.7");
    second.expect("220");
    client_from(&daemon, "192.0.2.7").expect("421 4.7.0");
    first.say_expecting("QUIT", "221");
    first.rest();
    wait::until("a place is free", PATIENCE, || {
        client_from(&daemon, "192.0.2.7").reply().is_ok_and(|reply| reply.starts_with("220"))
    });
}

#[test]
fn who_speaks_before_the_greeting_is_turned_away() {
    let sink = Sink::start(&[]);
    let mut setup = Setup::new().relay(sink.address);
    setup.remove("listen");
    let daemon =
        setup.with_lines("[listeners.mx]\naddresses = [\"127.0.0.1:0\"]\ngreeting_delay_secs = 1\n").start();
    let mut early = Client::connect(daemon.address);
    early.write(b"EHLO there.test\r\n").expect("it reads");
    let reply = early.reply().expect("a reply");
    assert!(reply.starts_with("554 5.5.1") || reply.starts_with("421"), "{reply}");
    Client::greet(daemon.address).say_expecting("NOOP", "250");
}

#[test]
fn listed_clients_are_refused_with_the_lists_own_words() {
    let records = [
        "--address=/7.2.0.192.bl.test/127.0.0.2",
        "--txt-record=7.2.0.192.bl.test,Listed: see http://bl.test/7",
    ];
    let Some(server) = NameServer::start(&records.map(str::to_owned)) else { return };
    let sink = Sink::start(&[]);
    let mut setup =
        Setup::new().relay(sink.address).with("delivery.name_servers", vec![server.address.to_string()]);
    setup.remove("listen");
    let daemon = setup
        .with_lines(
            "[access]\nrelay_to = [\"ours.test\"]\n[access.lists.bl]\nzone = \"bl.test\"\n[listeners.mx]\n\
             addresses = [\"127.0.0.1:0\"]\nproxy_from = [\"127.0.0.1\"]\nblock_lists = [\"bl\"]\n",
        )
        .start();
    let mut listed = client_from(&daemon, "192.0.2.7");
    listed.expect("220");
    listed.say("EHLO there.test");
    listed.say_expecting("MAIL FROM:<ann@there.test>", "250");
    let reply = listed.say_expecting("RCPT TO:<bob@ours.test>", "554");
    assert!(reply.contains("http://bl.test/7"), "{reply}");
    let mut other = client_from(&daemon, "192.0.2.8");
    other.expect("220");
    other.say("EHLO there.test");
    other.deliver("ann@there.test", &["bob@ours.test"]);
    sink.wait_for_deliveries(1, PATIENCE);
}

#[test]
fn field_that_names_lists_is_ours_alone_where_we_write_it() {
    let records = ["--address=/7.2.0.192.bl.test/127.0.0.2"];
    let Some(server) = NameServer::start(&records.map(str::to_owned)) else { return };
    let mut setup = Setup::new().with("delivery.name_servers", vec![server.address.to_string()]);
    setup.remove("listen");
    let daemon = setup
        .with_lines(
            "[access]\nrelay_to = [\"ours.test\"]\n[[access.rules]]\nfrom = \"192.0.2.9\"\nrelay = true\n\
             [access.lists.bl]\nzone = \"bl.test\"\n[listeners.mx]\naddresses = [\"127.0.0.1:0\"]\n\
             proxy_from = [\"127.0.0.1\"]\nblock_lists = [\"bl\"]\nlists_tag_at = 1\n",
        )
        .with("routes.*", held())
        .start();
    // Listed, not listed, and one of ours, whom nobody holds against lists.
    for (client, expected) in
        [("192.0.2.7", "bl (+1); sum 1"), ("192.0.2.8", ""), ("192.0.2.9", "bl (-9); sum -9")]
    {
        let mut sender = client_from(&daemon, client);
        sender.expect("220");
        sender.say("EHLO there.test");
        let forged = "x-ringpost-LISTS: bl (-9);\r\n\tsum -9\r\nSubject: x\r\n\r\nX-Ringpost-Lists: body";
        let reply = sender.send("ann@there.test", &["bob@ours.test"], forged);
        let id = reply.rsplit(' ').next().expect("it ends in an id").to_owned();
        let cat = wait::succeed(&mut daemon.setup.command(&["queue", "cat", &id]), PATIENCE);
        let text = String::from_utf8_lossy(&cat.stdout).replace("\r\n", "\n").replace("\n\t", " ");
        let (header, body) = text.split_once("\n\n").expect("a header");
        let said: Vec<&str> = header
            .lines()
            .filter_map(|line| line.split_once(": "))
            .filter(|(name, _)| name.eq_ignore_ascii_case("X-Ringpost-Lists"))
            .map(|(_, value)| value)
            .collect();
        assert_eq!(
            (said.join(" and "), body.trim_end()),
            (expected.to_owned(), "X-Ringpost-Lists: body"),
            "{client}"
        );
    }
}

#[test]
fn messages_of_a_client_whose_rule_says_so_get_what_they_lack() {
    let sink = Sink::start(&[]);
    let rules = "[[access.rules]]\nfrom = \"127.0.0.1\"\nrelay = true\nfix_up = true\n[compose]\ndefault_domain = \"here.test\"\n";
    let daemon = Setup::new().relay(sink.address).with_lines(rules).with("routes.*", held()).start();
    daemon.client().deliver("ann@here.test", &["bob@there.test"]);
    let queued = daemon.setup.queue_list();
    let id = queued[0]["id"].as_str().expect("an id").to_owned();
    let cat = wait::succeed(&mut daemon.setup.command(&["queue", "cat", &id]), PATIENCE);
    let text = String::from_utf8_lossy(&cat.stdout).into_owned();
    assert!(text.contains("\nDate: ") && text.contains("\nMessage-ID: <"), "{text}");
}

#[test]
fn each_message_is_hashed_and_copied_to_the_archive() {
    let sink = Sink::start(&[]);
    let lines = "[keep]\nhash = true\narchive = [\"archive@keep.test\"]\n";
    let daemon = Setup::new().relay(sink.address).with_lines(lines).start();
    daemon.client().deliver("ann@here.test", &["bob@there.test"]);
    daemon.wait_for("delivered", 2, PATIENCE);
    let log = || std::fs::read_to_string(daemon.setup.delivery_log()).unwrap_or_default();
    wait::until("the hash is in the log", PATIENCE, || log().contains("\"blake3\":\""));
    let ended = sink.end();
    let mut paths: Vec<(String, String)> =
        ended.deliveries().into_iter().map(|one| (one.reverse_path, one.forward_path)).collect();
    paths.sort();
    let paths: Vec<(&str, &str)> = paths.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
    assert_eq!(paths, [("<>", "archive@keep.test"), ("ann@here.test", "bob@there.test")]);
}

/// A route whose mail stays.
fn held() -> toml::Value {
    "relay = \"127.0.0.1:9\"\nhold = true".parse::<toml::Table>().expect("a table").into()
}
