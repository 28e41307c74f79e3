//! A client that speaks SMTP line by line, right or wrong, as a test wants it.

use rustix::net::{AddressFamily, SocketType};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Says nothing yet.
    pub fn connect(to: SocketAddr) -> Client {
        Client::on(TcpStream::connect_timeout(&to, TIMEOUT).expect("somebody listens"))
    }

    /// As [`Client::connect`], from that address of this machine.
    pub fn connect_from(source: IpAddr, to: SocketAddr) -> Client {
        let family = if source.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = rustix::net::socket(family, SocketType::STREAM, None).expect("a socket");
        rustix::net::bind(&socket, &SocketAddr::new(source, 0)).expect("an address of this machine");
        rustix::net::connect(&socket, &to).expect("somebody listens");
        Client::on(socket.into())
    }

    fn on(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout above zero");
        stream.set_write_timeout(Some(TIMEOUT)).expect("a timeout above zero");
        Client { stream: BufReader::new(stream) }
    }

    /// Connected, greeted and past EHLO.
    pub fn greet(to: SocketAddr) -> Client {
        let mut client = Client::connect(to);
        client.expect("220");
        client.say_expecting("EHLO client.process.test", "250");
        client
    }

    pub fn local_address(&self) -> SocketAddr {
        self.stream.get_ref().local_addr().expect("it is connected")
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// The next reply, all its lines; empty when the peer has closed.
    pub fn reply(&mut self) -> io::Result<String> {
        let mut reply = String::new();
        loop {
            let start = reply.len();
            self.stream.read_line(&mut reply)?;
            if reply.as_bytes()[start..].get(3) != Some(&b'-') {
                return Ok(reply.trim_end().to_owned());
            }
        }
    }

    /// The next line with its end; empty when the peer has closed.
    pub fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        Ok(line)
    }

    pub fn expect(&mut self, code: &str) -> String {
        let reply = self.reply().expect("a reply in time");
        assert!(reply.starts_with(code), "{reply:?} does not begin with {code}");
        reply
    }

    /// One line, and the reply to it.
    pub fn say(&mut self, line: &str) -> String {
        self.write(format!("{line}\r\n").as_bytes()).expect("the peer reads");
        self.reply().expect("a reply in time")
    }

    pub fn say_expecting(&mut self, line: &str, code: &str) -> String {
        let reply = self.say(line);
        assert!(reply.starts_with(code), "{line}: {reply:?} does not begin with {code}");
        reply
    }

    /// A whole transaction in lock-step; the last reply, or the first refusal.
    pub fn send(&mut self, from: &str, to: &[&str], content: &str) -> String {
        let envelope = to.iter().map(|to| format!("RCPT TO:<{to}>"));
        for line in std::iter::once(format!("MAIL FROM:<{from}>")).chain(envelope) {
            let reply = self.say(&line);
            if !reply.starts_with('2') {
                return reply;
            }
        }
        self.say_expecting("DATA", "354");
        self.say(&format!("{content}\r\n."))
    }

    /// Ends with a transaction that must be taken.
    pub fn deliver(&mut self, from: &str, to: &[&str]) {
        let reply = self.send(from, to, "Subject: test\r\n\r\nHello");
        assert!(reply.starts_with("250"), "{reply}");
    }

    /// Says no more, but still listens.
    pub fn finish_writing(&mut self) {
        let _ = self.stream.get_mut().shutdown(Shutdown::Write);
    }

    /// Everything until the peer closes. An abrupt end counts as one.
    pub fn rest(&mut self) -> Vec<String> {
        let mut replies = Vec::new();
        loop {
            match self.reply() {
                Ok(reply) if !reply.is_empty() => replies.push(reply),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    panic!("the peer keeps the connection")
                }
                Ok(_) | Err(_) => return replies,
            }
        }
    }
}
