//! A customer who fetches his mail: he logs in, asks, and is a mail host from then on (RFC 2645).

use std::net::SocketAddr;
use tests::process::Client;

/// See the module.
pub(crate) struct Customer {
    client: Client,
    /// What RCPT is answered.
    pub(crate) rcpt: &'static str,
}

/// A message as it came: its recipients, and its subject.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Got {
    pub(crate) recipients: Vec<String>,
    pub(crate) subject: String,
}

/// `AUTH PLAIN` of `cust` with the password `secret`.
const LOGIN: &str = "AUTH PLAIN AGN1c3QAc2VjcmV0";

impl Customer {
    /// Past EHLO.
    pub(crate) fn greet(to: SocketAddr) -> Customer {
        Customer { client: Client::greet(to), rcpt: "250 2.1.5 ok" }
    }

    pub(crate) fn log_in(to: SocketAddr) -> Customer {
        let mut customer = Customer::greet(to);
        customer.client.say_expecting(LOGIN, "235");
        customer
    }

    pub(crate) fn say(&mut self, line: &str) -> String {
        self.client.say(line)
    }

    /// Logged in, and the mail is on its way.
    pub(crate) fn turned(to: SocketAddr) -> Customer {
        let mut customer = Customer::log_in(to);
        customer.client.say_expecting("ATRN", "250 2.0.0 OK now reversing the connection");
        customer
    }

    /// Takes mail until QUIT.
    pub(crate) fn take_all(mut self) -> Vec<Got> {
        self.open();
        let mut got = Vec::new();
        while let Some(one) = self.take_one() {
            self.tell("250 2.0.0 taken");
            got.push(one);
        }
        got
    }

    /// Greets, and is greeted. Offers PIPELINING, but no CHUNKING.
    pub(crate) fn open(&mut self) {
        self.tell("220 customer.test ready");
        let hello = self.hear();
        assert!(hello.starts_with("EHLO "), "{hello}");
        self.tell("250-customer.test\r\n250-PIPELINING\r\n250 8BITMIME");
    }

    /// The next message, which has not been answered; `None`: QUIT, which has.
    pub(crate) fn take_one(&mut self) -> Option<Got> {
        let mut got = Got { recipients: Vec::new(), subject: String::new() };
        loop {
            let line = self.hear();
            match line.split([' ', '\r']).next().unwrap_or_default() {
                "MAIL" | "RSET" => self.tell("250 2.0.0 ok"),
                "RCPT" => {
                    let path = line.split(['<', '>']).nth(1).expect("a forward-path");
                    got.recipients.extend(self.rcpt.starts_with('2').then(|| path.to_owned()));
                    self.tell(self.rcpt);
                }
                "DATA" if got.recipients.is_empty() => self.tell("554 5.5.1 for nobody"),
                "DATA" => {
                    self.tell("354 go on");
                    got.subject = self.content();
                    return Some(got);
                }
                "QUIT" => {
                    self.tell("221 2.0.0 bye");
                    assert_eq!(self.hear(), "", "it closes");
                    return None;
                }
                other => panic!("{other:?} in {line:?}"),
            }
        }
    }

    /// The subject of what comes up to its end.
    fn content(&mut self) -> String {
        let mut subject = String::new();
        loop {
            let line = self.hear();
            match line.strip_prefix("Subject: ") {
                _ if line == ".\r\n" => return subject,
                Some(rest) => subject = rest.trim_end().to_owned(),
                None => {}
            }
        }
    }

    pub(crate) fn tell(&mut self, line: &str) {
        self.client.write(format!("{line}\r\n").as_bytes()).expect("it reads");
    }

    fn hear(&mut self) -> String {
        self.client.line().expect("a line in time")
    }
}
