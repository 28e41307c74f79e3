//! On whose terms mail goes out: routes that log in, speak LMTP or are held, and sources that get out through a server.

use loadgen::socks5::{self, Login, Socks5Config};
use loadgen::stop::Stop;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::time::Duration;
use tests::process::wait::{self, PATIENCE};
use tests::process::{Daemon, Setup, Sink};

/// No packet leaves for it (RFC 5737): whoever gets there gets there through a server.
const ELSEWHERE: &str = "192.0.2.9:25";

const RUN_MAX: Duration = Duration::from_secs(60);

/// A daemon whose mail for `a.test` has this route; the sink's address stands for `{sink}`.
fn routed(sink: &Sink, route: &str) -> Daemon {
    let route = route.replace("{sink}", &sink.address.to_string());
    Setup::new().with_lines(&format!("[routes]\n\"a.test\" = {{ {route} }}")).start()
}

fn delivers(daemon: &Daemon, sink: Sink) -> usize {
    daemon.client().deliver("ann@here.test", &["bob@a.test", "cy@a.test"]);
    daemon.wait_for("delivered", 2, RUN_MAX);
    sink.end().deliveries().len()
}

// ---- routes ----

#[test]
fn relay_is_logged_in_to() {
    let sink = Sink::start(&["--auth", "ringpost:s3cret"]);
    let login = "relay = \"{sink}\", user = \"ringpost\", password = \"s3cret\", allow_plain_login = true";
    let daemon = routed(&sink, login);
    assert_eq!(delivers(&daemon, sink), 2);
}

#[test]
fn wrong_password_keeps_the_mail_and_says_so() {
    let sink = Sink::start(&["--auth", "ringpost:s3cret"]);
    let login = "relay = \"{sink}\", user = \"ringpost\", password = \"guess\", allow_plain_login = true";
    let daemon = routed(&sink, login);
    daemon.client().deliver("ann@here.test", &["bob@a.test"]);
    daemon.wait_until_said("454 4.7.0");
    assert!(!daemon.talk().contains("guess"), "no secret is logged");
    assert_eq!((daemon.metric("failed"), daemon.owed()), (0, 1));
}

#[test]
fn password_is_not_shown_in_plain_text_unless_allowed() {
    let sink = Sink::start(&["--auth", "ringpost:s3cret"]);
    let daemon = routed(&sink, "relay = \"{sink}\", user = \"ringpost\", password = \"s3cret\"");
    daemon.client().deliver("ann@here.test", &["bob@a.test"]);
    daemon.wait_until_said("its mail waits");
    assert_eq!((daemon.owed(), sink.end().counters.recipients), (1, 0));
}

#[test]
fn tls_from_the_first_octet_on_and_a_login_in_it() {
    let sink = Sink::start(&["--tls", "implicit", "--auth", "ringpost:s3cret"]);
    let login = "relay = \"{sink}\", implicit_tls = true, user = \"ringpost\", password = \"s3cret\"";
    let daemon = routed(&sink, &format!("{login} }}\n[tls.domains]\n\"a.test\" = {{ mode = \"never\""));
    assert_eq!(delivers(&daemon, sink), 2);
    assert_eq!(daemon.metric("plain_connections"), 0);
}

#[test]
fn lmtp_server_answers_for_each_recipient() {
    let sink = Sink::start(&["--lmtp"]);
    let daemon = routed(&sink, "relay = \"{sink}\", protocol = \"lmtp\"");
    assert_eq!(delivers(&daemon, sink), 2);
}

#[test]
fn held_route_keeps_its_mail_until_it_is_asked_for() {
    let sink = Sink::start(&[]);
    let daemon = routed(&sink, "relay = \"{sink}\", hold = true");
    daemon.client().deliver("ann@here.test", &["bob@a.test", "cy@a.test"]);
    daemon.wait_for("queued_recipients", 2, RUN_MAX);
    let sites = wait::succeed(&mut daemon.setup.command(&["sites", "--json"]), PATIENCE).stdout;
    assert!(String::from_utf8_lossy(&sites).contains("\"state\":\"held\""));
    assert_eq!(daemon.metric("connections_out"), 0);
    wait::succeed(&mut daemon.setup.command(&["queue", "flush", "a.test"]), PATIENCE);
    daemon.wait_for("delivered", 2, RUN_MAX);
    // What comes now waits again.
    daemon.client().deliver("ann@here.test", &["dan@a.test"]);
    let daemon = daemon.kill().restart();
    assert_eq!((daemon.owed(), daemon.metric("connections_out")), (1, 0));
    daemon.client().say_expecting("ETRN a.test", "250");
    daemon.wait_for("delivered", 1, RUN_MAX);
    assert_eq!(sink.end().deliveries().len(), 3);
}

// ---- egress ----

#[test]
fn proxy_server_is_told_where_to_connect() {
    // The sink plays the server: behind the header it is the peer.
    let sink = Sink::start(&["--proxy-protocol"]);
    let source = format!("[sources.a]\nbind = \"127.0.0.7\"\nproxy = \"{}\"", sink.address);
    let daemon = leaving(&source).start();
    daemon.client().deliver("ann@here.test", &["bob@a.test"]);
    daemon.wait_for("delivered", 1, RUN_MAX);
    let ended = sink.end();
    assert_eq!(ended.deliveries().len(), 1);
    assert!(ended.source(7).is_some(), "the header names our address");
}

/// A default pool of one source, and all mail to [`ELSEWHERE`].
fn leaving(source: &str) -> Setup {
    let pool = "[pools.default.sources]\na = 1";
    Setup::new().with("routes.*", ELSEWHERE).with_lines(&format!("{source}\n{pool}"))
}

/// A SOCKS5 server of ours; it ends with the returned [`Stop`].
fn socks5(login: Option<Login>) -> (SocketAddr, Stop) {
    let (stop, (said, bound)) = (Stop::new(), mpsc::channel());
    let server_stop = stop.clone();
    std::thread::spawn(move || {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let config = Socks5Config { login, announce: false, ..Socks5Config::on(listen) };
        socks5::run_until(&config, &server_stop, |address| {
            let _ = said.send(address);
        })
    });
    (bound.recv_timeout(PATIENCE).expect("it is bound"), stop)
}

#[test]
fn socks5_server_connects_for_us() {
    let sink = Sink::start(&[]);
    for login in [None, Some(("u", "p"))] {
        let of_server = login
            .map(|(user, password): (&str, &str)| Login { user: user.into(), password: password.into() });
        let (server, _stop) = socks5(of_server);
        let mut setup = Setup::new().relay(sink.address);
        let file = setup.folder().join("secret");
        std::fs::write(&file, "p\n").expect("the folder is ours");
        let secret = match login {
            Some((user, _)) => format!("socks5_user = \"{user}\"\nsocks5_password_file = {file:?}"),
            None => String::new(),
        };
        let source = format!("[sources.a]\nsocks5 = \"{server}\"\n{secret}\n[pools.default.sources]\na = 1");
        setup = setup.with_lines(&source);
        let daemon = setup.start();
        daemon.client().deliver("ann@here.test", &["bob@a.test"]);
        daemon.wait_for("delivered", 1, RUN_MAX);
    }
    assert_eq!(sink.end().deliveries().len(), 2);
}

#[test]
fn source_that_cannot_get_out_leaves_the_mail_to_another() {
    let sink = Sink::start(&[]);
    let (server, stop) = socks5(Some(Login { user: "u".into(), password: "p".into() }));
    // No login is configured: the server takes none of our ways.
    let sources =
        format!("[sources.a]\nsocks5 = \"{server}\"\n[sources.b]\n[pools.default.sources]\na = 100\nb = 1");
    let daemon = Setup::new().relay(sink.address).with_lines(&sources).start();
    daemon.client().deliver("ann@here.test", &["bob@a.test"]);
    daemon.wait_for("delivered", 1, RUN_MAX);
    assert!(daemon.talk().contains("a source cannot get out"));
    assert_eq!(sink.end().deliveries().len(), 1);
    drop(stop);
}
