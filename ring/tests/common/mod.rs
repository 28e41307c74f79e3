//! What the ring's tests share: a ring, and waiting for an event of a kind.
#![allow(dead_code)] // Each test binary uses a part.

use ring::{Event, Outgoing, Piece, Ring, Socket, Token, Uring, UringConfig};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Longer than anything here takes, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn ring() -> Uring {
    Uring::new(UringConfig::default()).expect("a ring")
}

pub(crate) fn small_ring(receive_buffers: u16, receive_buffer_len: u32) -> Uring {
    Uring::new(UringConfig { receive_buffers, receive_buffer_len, ..UringConfig::default() }).expect("a ring")
}

pub(crate) fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

/// Waits until `wanted` picks an event; hands those before it to `others`.
pub(crate) fn wait_for<T>(ring: &mut Uring, mut wanted: impl FnMut(Event) -> Result<T, Event>) -> T {
    let deadline = Instant::now() + PATIENCE;
    let mut events = Vec::new();
    let mut found = None;
    while found.is_none() {
        assert!(Instant::now() < deadline, "the event did not come");
        ring.wait(Some(Duration::from_millis(200)), &mut events).expect("wait");
        for event in events.drain(..) {
            match wanted(event) {
                Ok(value) if found.is_none() => found = Some(value),
                Ok(_) => panic!("the event came twice in one wait"),
                Err(Event::Received { data, .. }) => ring.give_back(data),
                Err(_) => {}
            }
        }
    }
    found.expect("the loop ends with it")
}

/// Everything that comes within `span`.
pub(crate) fn events_within(ring: &mut Uring, span: Duration) -> Vec<Event> {
    let deadline = Instant::now() + span;
    let mut events = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        ring.wait(Some(left), &mut events).expect("wait");
        if left.is_zero() {
            return events;
        }
    }
}

pub(crate) fn own(bytes: &[u8]) -> Outgoing {
    let mut outgoing = Outgoing { own: bytes.to_vec(), ..Outgoing::default() };
    outgoing.pieces.push(Piece::Own(0..u32::try_from(bytes.len()).expect("a test's bytes")));
    outgoing
}

/// A connection from the ring to an ordinary socket.
pub(crate) fn connected(ring: &mut Uring) -> (Socket, TcpStream) {
    let listener = TcpListener::bind(any_port()).expect("bind");
    let address = listener.local_addr().expect("address");
    let socket = ring.connect(Token(900), address, None).expect("connect");
    let result = wait_for(ring, |event| match event {
        Event::Connected { token: Token(900), result } => Ok(result),
        other => Err(other),
    });
    result.expect("connected");
    (socket, listener.accept().expect("accept").0)
}

pub(crate) fn sent(event: Event) -> Result<(std::io::Result<()>, Outgoing, Option<bool>), Event> {
    match event {
        Event::Sent { result, outgoing, copied, .. } => Ok((result, outgoing, copied)),
        other => Err(other),
    }
}

pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from((i * 7 + i / 251) % 256).expect("below 256")).collect()
}
