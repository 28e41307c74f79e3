//! What one exchange costs: a message of a header and a shared 4 KiB body there, a reply of ten bytes back, both
//! ends on one ring. `cargo run --release -p ring --example echo_cost [connections] [exchanges]`
//!
//! Prints CPU per exchange, both ends together, and user time alone: the part that is ours.

use bytes::Bytes;
use ring::{Event, Outgoing, Piece, Received, Ring, Socket, Token, Uring, UringConfig};
use std::io;

const MESSAGE: usize = 35 + 4096;
const REPLY: &[u8] = b"250 2.0.0\n";

/// Token of connection `n`: 2n at the sending end, 2n + 1 at the receiving end.
struct Cost {
    ring: Uring,
    sockets: Vec<Option<Socket>>,
    missing: Vec<usize>,
    spare: Vec<Outgoing>,
    body: Bytes,
    exchanges: u64,
    waits: u64,
}

impl Cost {
    fn send_message(&mut self, end: usize) {
        let mut outgoing = self.spare.pop().unwrap_or_default();
        outgoing.clear();
        outgoing.own.extend_from_slice(b"MAIL FROM:<list-4711@example.org>\r\n");
        outgoing.pieces.push(Piece::Own(0..35));
        outgoing.pieces.push(Piece::Shared(self.body.clone()));
        self.send(end, outgoing);
    }

    fn send_reply(&mut self, end: usize) {
        let mut outgoing = self.spare.pop().unwrap_or_default();
        outgoing.clear();
        outgoing.own.extend_from_slice(REPLY);
        outgoing.pieces.push(Piece::Own(0..10));
        self.send(end, outgoing);
    }

    fn send(&mut self, end: usize, outgoing: Outgoing) {
        if let Some(socket) = self.sockets[end] {
            self.ring.send(Token(end as u64), socket, outgoing);
        }
    }

    fn on_received(&mut self, end: usize, data: Received) {
        self.missing[end] = self.missing[end].saturating_sub(self.ring.received(&data).len());
        self.ring.give_back(data);
        if self.missing[end] > 0 {
            return;
        }
        if end.is_multiple_of(2) {
            self.missing[end] = REPLY.len();
            self.exchanges += 1;
            self.send_message(end);
        } else {
            self.missing[end] = MESSAGE;
            self.send_reply(end);
        }
    }

    fn connect_all(&mut self, connections: usize) -> io::Result<()> {
        let listener = self.ring.listen(([127, 0, 0, 1], 0).into())?;
        let address = self.ring.local_address(listener)?;
        self.ring.accept(Token(u64::MAX), listener);
        let mut events = Vec::new();
        for n in 0..connections {
            self.sockets[2 * n] = Some(self.ring.connect(Token(2 * n as u64), address, None)?);
            while self.sockets[2 * n + 1].is_none() {
                self.ring.wait(None, &mut events)?;
                for event in events.drain(..) {
                    if let Event::Accepted { socket, .. } = event {
                        self.sockets[2 * n + 1] = Some(socket);
                    }
                }
            }
        }
        for end in 0..2 * connections {
            self.missing[end] = if end.is_multiple_of(2) { REPLY.len() } else { MESSAGE };
            if let Some(socket) = self.sockets[end] {
                self.ring.receive(Token(end as u64), socket);
            }
        }
        Ok(())
    }

    fn run_until(&mut self, exchanges: u64) -> io::Result<()> {
        let mut events = Vec::new();
        while self.exchanges < exchanges {
            self.ring.wait(None, &mut events)?;
            self.waits += 1;
            for event in events.drain(..) {
                match event {
                    Event::Received { token, data } => {
                        self.on_received(usize::try_from(token.0).map_err(io::Error::other)?, data);
                    }
                    Event::Sent { result, outgoing, .. } => {
                        result?;
                        self.spare.push(outgoing);
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// User and system time of this process in microseconds.
fn cpu() -> io::Result<(f64, f64)> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    // Ticks of 10 ms.
    Ok((ticks(11) * 1e4, ticks(12) * 1e4))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let connections: usize = arguments.next().map_or(Ok(100), |text| text.parse())?;
    let exchanges: u64 = arguments.next().map_or(Ok(500_000), |text| text.parse())?;
    let mut cost = Cost {
        ring: Uring::new(UringConfig::default())?,
        sockets: vec![None; 2 * connections],
        missing: vec![0; 2 * connections],
        spare: Vec::new(),
        body: Bytes::from(vec![b'x'; 4096]),
        exchanges: 0,
        waits: 0,
    };
    cost.connect_all(connections)?;
    (0..connections).for_each(|n| cost.send_message(2 * n));
    cost.run_until(exchanges / 10)?;
    let (warm, waits, (user, system)) = (cost.exchanges, cost.waits, cpu()?);
    cost.run_until(warm + exchanges)?;
    let (user_end, system_end) = cpu()?;
    #[allow(clippy::cast_precision_loss)] // Counts far below 2^52.
    let count = (cost.exchanges - warm) as f64;
    #[allow(clippy::cast_precision_loss)]
    let waits = (cost.waits - waits) as f64;
    println!(
        "{connections} connections: {:.2} us an exchange, {:.2} of it user; {:.4} waits",
        (user_end - user + system_end - system) / count,
        (user_end - user) / count,
        waits / count
    );
    Ok(())
}
