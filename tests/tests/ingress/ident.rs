//! What a client's ident service says (RFC 1413), from its port 113 to the trace field.

use super::held;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::thread::JoinHandle;
use tests::process::wait::{self, PATIENCE};
use tests::process::{Client, Setup, peer};

/// Where this test's client and its ident service are: nobody else's in the tests.
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 113, 7));

/// Says of one connection that it is ann's. `None` where port 113 is not to be had: that takes root.
fn ident_service() -> Option<JoinHandle<String>> {
    let listener = match TcpListener::bind(SocketAddr::new(HOST, 113)) {
        Ok(listener) => listener,
        Err(error) => {
            peer::skip(&format!("no ident service on {HOST}: {error}"));
            return None;
        }
    };
    Some(std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("it listens");
        let mut query = String::new();
        BufReader::new(&stream).read_line(&mut query).expect("the daemon asks");
        let query = query.trim_end().to_owned();
        (&stream).write_all(format!("{query} : USERID : UNIX : ann\r\n").as_bytes()).expect("it reads");
        query
    }))
}

#[test]
fn ident_names_the_user_in_the_trace_field_and_decides_what_she_may() {
    let Some(service) = ident_service() else { return };
    // Loopback is asked only where a rule depends on the answer.
    let rules = format!(
        "[[access.rules]]\nfrom = \"{HOST}\"\nident = \"ann\"\nrelay = true\n[intake]\nrelay_from = []\n"
    );
    let daemon = Setup::new().with_lines(&rules).with("routes.*", held()).start();
    let mut client = Client::connect_from(HOST, daemon.address);
    client.expect("220");
    client.say_expecting("EHLO there.test", "250");
    client.deliver("ann@here.test", &["bob@else.test"]);
    let asked = service.join().expect("it was asked");
    assert_eq!(asked, format!("{}, {}", client.local_address().port(), daemon.address.port()));
    let id = daemon.setup.queue_list()[0]["id"].as_str().expect("an id").to_owned();
    let cat = wait::succeed(&mut daemon.setup.command(&["queue", "cat", &id]), PATIENCE);
    let text = String::from_utf8_lossy(&cat.stdout).into_owned();
    let trace = text.lines().find(|line| line.starts_with("Received: ")).expect("we put one on top");
    assert_eq!(trace, format!("Received: from there.test (ann@[{HOST}])"), "{text}");
}
