//! Hosts that are dead, silent or break off: mail goes on to those that are not, and nothing is lost on the way.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;
use tests::process::source::{self, assert_clean, audit, newsletter, singles};
use tests::process::{Daemon, NameServer, Setup, Sink, vacant, wait};

const RUN_MAX: Duration = Duration::from_secs(120);

fn start(port: u16, records: &[&str], lines: &str) -> Option<(NameServer, Daemon)> {
    let records: Vec<String> = records.iter().map(|record| format!("--{record}")).collect();
    let server = NameServer::start(&records)?;
    let daemon = Setup::new().by_mx(&server, port).with_lines(lines).start();
    Some((server, daemon))
}

/// `a.test` has its first host at this address and its second at 127.0.0.1.
fn behind(first: &str, port: u16, lines: &str) -> Option<(NameServer, Daemon)> {
    let first = format!("host-record=mx1.a.test,{first}");
    let second = "host-record=mx2.a.test,127.0.0.1";
    start(port, &["mx-host=a.test,mx1.a.test,10", "mx-host=a.test,mx2.a.test,20", &first, second], lines)
}

fn delivers(daemon: &Daemon, nth: u64) {
    daemon.client().deliver("ann@here.test", &[&format!("u{nth}@a.test")]);
    daemon.wait_for("delivered", nth, RUN_MAX);
}

/// An address that takes no connection and refuses none: its backlog is full, so the kernel drops what asks for another.
struct Blackhole {
    _listener: TcpListener,
    _backlog: Vec<TcpStream>,
}

impl Blackhole {
    fn start(port: u16) -> Blackhole {
        let address = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 9), port));
        let listener = TcpListener::bind(address).expect("a free address");
        let mut backlog = Vec::new();
        loop {
            match TcpStream::connect_timeout(&address, Duration::from_secs(2)) {
                Ok(stream) => backlog.push(stream),
                Err(error) if error.kind() == ErrorKind::TimedOut => break,
                Err(error) => panic!("{error}"),
            }
        }
        Blackhole { _listener: listener, _backlog: backlog }
    }
}

// ---- connecting ----

#[test]
fn silent_first_host_is_not_waited_for() {
    let sink = Sink::start(&[]);
    let _blackhole = Blackhole::start(sink.address.port());
    // Far longer than the test's patience.
    let lines = "delivery.connect_timeout_secs = 3600\ndelivery.messages_per_connection = 1";
    let Some((_server, daemon)) = behind("127.0.0.9", sink.address.port(), lines) else { return };
    (1..=5).for_each(|nth| delivers(&daemon, nth));
    assert_eq!((daemon.metric("deferred"), daemon.metric("connect_failures")), (0, 0));
    assert_eq!(sink.end().counters.recipients, 5);
}

#[test]
fn only_host_that_is_silent_defers_its_mail() {
    let sink = Sink::start(&[]);
    let _blackhole = Blackhole::start(sink.address.port());
    let lines = "delivery.connect_timeout_secs = 1\nretry.quadratic_secs = 3600";
    let records = ["mx-host=a.test,mx1.a.test,10", "host-record=mx1.a.test,127.0.0.9"];
    let Some((_server, daemon)) = start(sink.address.port(), &records, lines) else { return };
    daemon.client().deliver("ann@here.test", &["bob@a.test"]);
    daemon.wait_for_at_least("connect_failures", 1, RUN_MAX);
    daemon.assert_healthy();
    assert_eq!((daemon.metric("queued_recipients"), daemon.metric("failed")), (1, 0));
}

#[test]
fn dead_first_host_is_tried_once_while_it_rests() {
    let sink = Sink::start(&[]);
    let lines = "delivery.messages_per_connection = 1";
    let Some((_server, daemon)) = behind("127.0.0.9", sink.address.port(), lines) else { return };
    (1..=10).for_each(|nth| delivers(&daemon, nth));
    assert_eq!((daemon.metric("deferred"), daemon.metric("connect_failures")), (0, 1));
}

#[test]
fn cores_tell_each_other_of_a_dead_host() {
    let sink = Sink::start(&[]);
    let lines = "delivery.messages_per_connection = 1\ncpus = [0, 1]";
    let Some((_server, daemon)) = behind("127.0.0.9", sink.address.port(), lines) else { return };
    (1..=20).for_each(|nth| delivers(&daemon, nth));
    assert_eq!((daemon.metric("deferred"), daemon.metric("connect_failures")), (0, 1));
}

#[test]
fn dead_ipv6_address_leaves_the_mail_to_ipv4() {
    let sink = Sink::start(&[]);
    let records = ["mx-host=a.test,mx.a.test,10", "host-record=mx.a.test,127.0.0.1,::1"];
    let lines = "delivery.messages_per_connection = 1";
    let Some((_server, daemon)) = start(sink.address.port(), &records, lines) else { return };
    (1..=5).for_each(|nth| delivers(&daemon, nth));
    assert_eq!(daemon.metric("deferred"), 0);
    assert_eq!(sink.end().counters.recipients, 5);
}

#[test]
fn dead_ipv4_address_leaves_the_mail_to_ipv6() {
    if TcpListener::bind("[::1]:0").is_err() {
        return tests::process::peer::skip("no IPv6 here");
    }
    let sink = Sink::start_on("[::1]:0", &[]);
    let records = ["mx-host=a.test,mx.a.test,10", "host-record=mx.a.test,127.0.0.9,::1"];
    let lines = "delivery.messages_per_connection = 1";
    let Some((_server, daemon)) = start(sink.address.port(), &records, lines) else { return };
    (1..=5).for_each(|nth| delivers(&daemon, nth));
    assert_eq!(daemon.metric("deferred"), 0);
    assert_eq!(sink.end().counters.recipients, 5);
}

#[test]
fn host_that_comes_back_gets_the_mail_that_waited_for_it() {
    let port = vacant().port();
    let records = ["mx-host=a.test,mx.a.test,10", "host-record=mx.a.test,127.0.0.1"];
    let Some((_server, daemon)) = start(port, &records, "delivery.backoff_max_secs = 1") else { return };
    daemon.client().deliver("ann@here.test", &["bob@a.test"]);
    daemon.wait_for_at_least("connect_failures", 1, RUN_MAX);
    let sink = Sink::start_on(&format!("127.0.0.1:{port}"), &[]);
    daemon.wait_for("delivered", 1, RUN_MAX);
    assert_eq!(sink.end().counters.recipients, 1);
}

// ---- once connected ----

/// The first host does that to everybody; the second one takes everything.
fn goes_to_the_second(options: &[&str]) {
    let sink = Sink::start(&[]);
    let first = sink.beside(2, options);
    let Some((_server, daemon)) = behind("127.0.0.2", sink.address.port(), "") else { return };
    let mut client = daemon.client();
    (0..20).for_each(|number| client.deliver("ann@here.test", &[&format!("u{number}@a.test")]));
    daemon.wait_for("delivered", 20, RUN_MAX);
    assert_eq!((daemon.metric("failed"), daemon.metric("ambiguous")), (0, 0));
    assert_eq!((first.end().counters.recipients, sink.end().counters.recipients), (0, 20));
}

#[test]
fn second_host_serves_where_the_first_resets_connections() {
    goes_to_the_second(&["--fault", "connect=reset"]);
}

#[test]
fn second_host_serves_where_the_first_greets_with_421() {
    goes_to_the_second(&["--fault", "connect=421"]);
}

#[test]
fn second_host_serves_where_the_first_greets_with_554() {
    goes_to_the_second(&["--fault", "connect=554"]);
}

#[test]
fn second_host_serves_where_the_first_speaks_garbage() {
    goes_to_the_second(&["--fault", "connect=garbage"]);
}

#[test]
fn second_host_serves_where_the_first_closes_at_ehlo() {
    goes_to_the_second(&["--fault", "ehlo=drop"]);
}

#[test]
fn second_host_serves_where_the_first_says_421_at_mail() {
    goes_to_the_second(&["--fault", "mail=421"]);
}

#[test]
fn second_host_serves_where_the_first_must_be_encrypted_and_is_not() {
    let sink = Sink::start(&["--tls", "offer"]);
    let first = sink.beside(2, &[]);
    let lines = "[tls.domains.\"a.test\"]\nmode = \"encrypt\"";
    let Some((_server, daemon)) = behind("127.0.0.2", sink.address.port(), lines) else { return };
    delivers(&daemon, 1);
    assert_eq!((first.end().counters.recipients, sink.end().counters.tls_handshakes), (0, 1));
}

// ---- now and then, at each stage ----

/// Connections that break off or are refused wherever they are.
const WEATHER: [&str; 20] = [
    "--fault",
    "connect=reset:0.05",
    "--fault",
    "ehlo=drop:0.05",
    "--fault",
    "mail=421:0.01",
    "--fault",
    "rcpt=reset:0.01",
    "--fault",
    "data=421:0.01",
    "--fault",
    "chunk=reset:0.01",
    "--fault",
    "content=drop:0.01",
    "--fault",
    "dot=reset:0.01",
    "--fault",
    "dot=421:0.01",
    "--fault",
    "dot=reset-after-accept:0.01",
];

/// Everybody is served, and copies are counted as ambiguous.
fn nothing_is_lost(options: &[&str], lines: &str, is_list: bool) {
    const COUNT: u64 = 600;
    let sink = Sink::start(&[&WEATHER[..], options].concat());
    let lines = format!("delivery.backoff_max_secs = 1\n{lines}");
    let daemon = Setup::new().relay(sink.address).with_lines(&lines).start();
    let sent = daemon.setup.folder().join("sent.tsv");
    let config = match is_list {
        true => newsletter(daemon.address, COUNT, 2048),
        false => singles(daemon.address, COUNT, 4),
    };
    assert_eq!(source::send(config, sent.clone()).recipients_accepted, COUNT);
    daemon.wait_until_empty(RUN_MAX);
    assert_eq!((daemon.metric("delivered"), daemon.metric("failed")), (COUNT, 0));
    let ambiguous = daemon.metric("ambiguous");
    assert_clean(&audit(&[&sent], &sink.end(), is_list), ambiguous);
}

#[test]
fn nothing_of_a_list_is_lost_in_bad_weather() {
    nothing_is_lost(&[], "", true);
}

#[test]
fn nothing_of_a_list_is_lost_in_bad_weather_without_chunking() {
    nothing_is_lost(&["--no-chunking"], "", true);
}

#[test]
fn nothing_of_a_list_is_lost_in_bad_weather_over_tls() {
    nothing_is_lost(&["--tls", "offer", "--fault", "handshake=reset:0.05"], "", true);
}

#[test]
fn no_single_message_is_lost_in_bad_weather_over_tls_on_two_cores() {
    nothing_is_lost(&["--tls", "offer"], "cpus = [0, 1]\ntls.mode = \"encrypt\"", false);
}

#[test]
fn mail_is_not_held_up_by_a_sites_dead_neighbour() {
    let sink = Sink::start(&[]);
    let records = [
        "mx-host=dead.test,mx.dead.test,10",
        "host-record=mx.dead.test,127.0.0.9",
        "mx-host=a.test,mx.a.test,10",
        "host-record=mx.a.test,127.0.0.1",
    ];
    let Some((_server, daemon)) = start(sink.address.port(), &records, "") else { return };
    daemon.client().deliver("ann@here.test", &["bob@dead.test", "bob@a.test"]);
    daemon.wait_for("delivered", 1, RUN_MAX);
    wait::until("a refused connection", RUN_MAX, || daemon.metric("connect_failures") >= 1);
    assert_eq!(daemon.metric("queued_recipients"), 1);
}
