//! A customer of the core's, who fetches his mail (ATRN, RFC 2645): he connects, asks, and is a host from then on.
//!
//! He comes as a front server's client (XCLIENT), since the simulated world knows no passwords; comes again and again, at
//! times twice at once; and errs as any host does, before he has asked as well.

use super::actor::{Actor, Ending, Io};
use super::net::Link;
use super::sink::{Offers, Sink};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Connections at a time.
const CONNECTIONS_MAX: usize = 2;

/// Timers below this are the host's.
const COME_AGAIN: u64 = 1 << 32;

/// What he says, each when the reply to the one before has come.
const SAYS: [&str; 3] = ["XCLIENT LOGIN=cust\r\n", "EHLO customer.example\r\n", "ATRN\r\n"];

pub struct Customer {
    core: SocketAddr,
    /// What he is once the connection is reversed. It listens nowhere.
    host: Sink,
    reversed: usize,
    /// Links on which he is a client yet: how much he has said, and what he has heard of the next reply.
    asking: BTreeMap<Link, (usize, Vec<u8>)>,
}

impl Customer {
    pub fn new(core: SocketAddr, offers: Offers) -> Customer {
        Customer { core, host: Sink::new(core, offers), reversed: 0, asking: BTreeMap::new() }
    }

    fn come_again(io: &mut Io<'_>) {
        let delay = Duration::from_millis(1 + io.rng().below(20_000));
        io.timer(delay, COME_AGAIN);
    }

    /// Takes a whole reply, if one is there.
    fn next_reply(input: &mut Vec<u8>) -> Option<String> {
        let mut end = 0;
        loop {
            let line_len = input[end..].iter().position(|octet| *octet == b'\n')? + 1;
            let is_last = input[end..].get(3) != Some(&b'-');
            end += line_len;
            if is_last {
                return Some(String::from_utf8_lossy(&input.drain(..end).collect::<Vec<u8>>()).into_owned());
            }
        }
    }

    fn ask(&mut self, io: &mut Io<'_>, link: Link) {
        while let Some((said, input)) = self.asking.get_mut(&link) {
            let Some(reply) = Customer::next_reply(input) else { return };
            let is_granted = reply.starts_with('2') && !io.hits(|weather| weather.sink_drops);
            match SAYS.get(*said).filter(|_| is_granted) {
                Some(line) => {
                    *said += 1;
                    io.send(link, line.as_bytes());
                }
                None if is_granted => return self.turn(io, link),
                None => {
                    self.asking.remove(&link);
                    io.close(link);
                }
            }
        }
    }

    /// He is the host now.
    fn turn(&mut self, io: &mut Io<'_>, link: Link) {
        let Some((_, rest)) = self.asking.remove(&link) else { return };
        self.reversed += 1;
        io.note("reversed", self.reversed as u64);
        self.host.handle_opened(io, link);
        self.host.handle_bytes(io, link, &rest);
    }
}

impl Actor for Customer {
    fn start(&mut self, io: &mut Io<'_>) {
        Customer::come_again(io);
    }

    fn handle_timer(&mut self, io: &mut Io<'_>, timer: u64) {
        if timer != COME_AGAIN {
            return self.host.handle_timer(io, timer);
        }
        if self.asking.len() + self.host.connections() < CONNECTIONS_MAX {
            let link = io.connect(self.core);
            self.asking.insert(link, (0, Vec::new()));
        }
        Customer::come_again(io);
    }

    fn handle_opened(&mut self, _: &mut Io<'_>, _: Link) {}

    fn handle_bytes(&mut self, io: &mut Io<'_>, link: Link, bytes: &[u8]) {
        match self.asking.get_mut(&link) {
            Some((_, input)) => {
                input.extend_from_slice(bytes);
                self.ask(io, link);
            }
            None => self.host.handle_bytes(io, link, bytes),
        }
    }

    fn handle_ended(&mut self, io: &mut Io<'_>, link: Link, ending: Ending) {
        if self.asking.remove(&link).is_none() {
            self.host.handle_ended(io, link, ending);
        }
    }
}
