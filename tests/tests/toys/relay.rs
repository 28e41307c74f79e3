//! Connects each client to one host and carries octets between them.

use ring::{Event, Outgoing, Piece, Ring, Socket, Token};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tests::sim::SimRing;

const ACCEPT: Token = Token(u64::MAX);
const CONNECT: u64 = 1 << 32;

/// A socket, what is to be sent on it, and the socket that this comes from.
struct Side {
    partner: u32,
    unsent: Vec<u8>,
    sending: bool,
    connected: bool,
    /// The partner is gone: close when everything is sent.
    closing: bool,
}

pub(crate) struct Relay {
    ring: SimRing,
    listener: Socket,
    host: SocketAddr,
    sides: BTreeMap<u32, Side>,
}

impl Relay {
    pub(crate) fn new(mut ring: SimRing, address: SocketAddr, host: SocketAddr) -> Relay {
        let listener = ring.listen(address).unwrap();
        ring.accept(ACCEPT, listener);
        Relay { ring, listener, host, sides: BTreeMap::new() }
    }

    pub(crate) fn turn(&mut self) {
        let mut events = Vec::new();
        self.ring.wait(Some(Duration::from_secs(30)), &mut events).unwrap();
        for event in events {
            self.handle(event);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Accepted { socket, .. } => self.on_accepted(socket),
            Event::AcceptEnded { .. } => self.ring.accept(ACCEPT, self.listener),
            Event::Connected { token, result } => {
                let client = socket(Token(token.0 & !CONNECT));
                let Some(host) = self.sides.get(&client.0).map(|side| Socket(side.partner)) else { return };
                if result.is_ok() { self.on_connected(host) } else { self.on_ended(host) }
            }
            Event::Received { token, data } => {
                let partner = self.sides.get(&socket(token).0).map_or(u32::MAX, |side| side.partner);
                if let Some(side) = self.sides.get_mut(&partner) {
                    side.unsent.extend_from_slice(self.ring.received(&data));
                }
                self.ring.give_back(data);
                self.work(Socket(partner));
            }
            Event::ReceiveEnded { token, .. } => self.on_ended(socket(token)),
            Event::Sent { token, result, .. } => {
                let Some(side) = self.sides.get_mut(&socket(token).0) else { return };
                side.sending = false;
                match result {
                    Ok(()) => self.work(socket(token)),
                    Err(_) => self.on_ended(socket(token)),
                }
            }
            other => panic!("not asked for: {other:?}"),
        }
    }

    fn on_accepted(&mut self, client: Socket) {
        // A connect's socket is known only after its token: the client names both.
        let host = self.ring.connect(Token(CONNECT | u64::from(client.0)), self.host, None).unwrap();
        self.sides.insert(
            client.0,
            Side { partner: host.0, unsent: Vec::new(), sending: false, connected: true, closing: false },
        );
        self.sides.insert(
            host.0,
            Side { partner: client.0, unsent: Vec::new(), sending: false, connected: false, closing: false },
        );
        self.ring.receive(Token(client.0.into()), client);
    }

    fn on_connected(&mut self, host: Socket) {
        self.sides.get_mut(&host.0).unwrap().connected = true;
        self.ring.receive(Token(host.0.into()), host);
        self.work(host);
    }

    fn on_ended(&mut self, gone: Socket) {
        let Some(side) = self.sides.remove(&gone.0) else { return };
        self.ring.close(gone);
        if let Some(partner) = self.sides.get_mut(&side.partner) {
            partner.closing = true;
            partner.partner = u32::MAX;
            self.work(Socket(side.partner));
        }
    }

    fn work(&mut self, at: Socket) {
        let Some(side) = self.sides.get_mut(&at.0) else { return };
        if side.sending || !side.connected && !side.closing {
            return;
        }
        if side.unsent.is_empty() || !side.connected {
            if side.closing {
                self.sides.remove(&at.0);
                self.ring.close(at);
            }
            return;
        }
        side.sending = true;
        let own = std::mem::take(&mut side.unsent);
        let whole = 0..u32::try_from(own.len()).unwrap();
        let outgoing = Outgoing { own, pieces: [Piece::Own(whole)].into_iter().collect(), zero_copy: true };
        self.ring.send(Token(at.0.into()), at, outgoing);
    }
}

fn socket(token: Token) -> Socket {
    Socket(u32::try_from(token.0).unwrap())
}
