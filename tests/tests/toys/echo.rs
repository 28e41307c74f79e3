//! Says back what it hears.

use ring::{Event, Outgoing, Piece, Ring, Socket, Token};
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tests::sim::{Actor, Ending, Io, Link, SimRing};

const ACCEPT: Token = Token(u64::MAX);

/// Tokens are socket numbers; a socket pauses its receive while it has something to say.
pub(crate) struct Echo {
    ring: SimRing,
    listener: Socket,
    streams: BTreeMap<u32, Stream>,
    events: Vec<Event>,
}

#[derive(Default)]
struct Stream {
    unsent: VecDeque<Vec<u8>>,
    sending: bool,
    receiving: bool,
    over: bool,
}

impl Echo {
    pub(crate) fn new(mut ring: SimRing, address: SocketAddr) -> Echo {
        let listener = ring.listen(address).unwrap();
        ring.accept(ACCEPT, listener);
        Echo { ring, listener, streams: BTreeMap::new(), events: Vec::new() }
    }

    pub(crate) fn turn(&mut self) {
        let mut events = std::mem::take(&mut self.events);
        self.ring.wait(Some(Duration::from_secs(5)), &mut events).unwrap();
        for event in events.drain(..) {
            self.handle(event);
        }
        self.events = events;
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Accepted { socket, .. } => {
                self.streams.insert(socket.0, Stream { receiving: true, ..Stream::default() });
                self.ring.receive(Token(socket.0.into()), socket);
            }
            Event::AcceptEnded { .. } => self.ring.accept(ACCEPT, self.listener),
            Event::Received { token, data } => {
                let bytes = self.ring.received(&data).to_vec();
                self.ring.give_back(data);
                let Some(stream) = self.streams.get_mut(&socket(token).0) else { return };
                stream.unsent.push_back(bytes);
                self.ring.pause(socket(token));
                self.work(socket(token));
            }
            Event::ReceiveEnded { token, result } => {
                let Some(stream) = self.streams.get_mut(&socket(token).0) else { return };
                stream.receiving = false;
                stream.over =
                    result.map_or_else(|error| error.kind() != std::io::ErrorKind::Interrupted, |()| true);
                self.work(socket(token));
            }
            Event::Sent { token, result, .. } => {
                let Some(stream) = self.streams.get_mut(&socket(token).0) else { return };
                stream.sending = false;
                if result.is_err() {
                    stream.unsent.clear();
                    stream.over = true;
                }
                self.work(socket(token));
            }
            other => panic!("not asked for: {other:?}"),
        }
    }

    fn work(&mut self, socket: Socket) {
        let token = Token(socket.0.into());
        let stream = self.streams.get_mut(&socket.0).expect("the caller has it");
        if stream.sending {
            return;
        }
        if let Some(own) = stream.unsent.pop_front() {
            stream.sending = true;
            let whole = 0..u32::try_from(own.len()).unwrap();
            self.ring.send(
                token,
                socket,
                Outgoing { own, pieces: [Piece::Own(whole)].into_iter().collect(), zero_copy: false },
            );
        } else if stream.over {
            self.streams.remove(&socket.0);
            self.ring.close(socket);
        } else if !stream.receiving {
            stream.receiving = true;
            self.ring.receive(token, socket);
        }
    }
}

fn socket(token: Token) -> Socket {
    Socket(u32::try_from(token.0).unwrap())
}

/// Says something on each of its links and checks what comes back.
pub(crate) struct Talker {
    target: SocketAddr,
    links_max: u32,
    speech: Vec<u8>,
    heard: BTreeMap<Link, usize>,
    done: Rc<Cell<u32>>,
}

impl Talker {
    pub(crate) fn new(target: SocketAddr, links_max: u32, len: usize) -> Talker {
        let speech = (0..len).map(|at| (at * 7 + at / 251).to_le_bytes()[0]).collect();
        Talker { target, links_max, speech, heard: BTreeMap::new(), done: Rc::default() }
    }

    /// Links that got everything back.
    pub(crate) fn done(&self) -> Rc<Cell<u32>> {
        self.done.clone()
    }
}

impl Actor for Talker {
    fn start(&mut self, io: &mut Io<'_>) {
        for _ in 0..self.links_max {
            io.connect(self.target);
        }
    }

    fn handle_timer(&mut self, _: &mut Io<'_>, _: u64) {}

    fn handle_opened(&mut self, io: &mut Io<'_>, link: Link) {
        self.heard.insert(link, 0);
        io.send(link, &self.speech);
    }

    fn handle_bytes(&mut self, io: &mut Io<'_>, link: Link, bytes: &[u8]) {
        let from = self.heard[&link];
        assert_eq!(bytes, &self.speech[from..from + bytes.len()]);
        self.heard.insert(link, from + bytes.len());
        if from + bytes.len() == self.speech.len() {
            self.done.set(self.done.get() + 1);
            io.close(link);
        }
    }

    fn handle_ended(&mut self, _: &mut Io<'_>, _: Link, _: Ending) {}
}
