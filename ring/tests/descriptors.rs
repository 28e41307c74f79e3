//! No descriptor is left behind, whatever is in flight when it is closed.
//!
//! Descriptors are counted for the whole process, so these tests run one after the other.

#![allow(clippy::result_large_err)] // `wait_for` hands an unwanted event back.

mod common;

use bytes::Bytes;
use common::*;
use ring::{Access, Event, Outgoing, Piece, Ring, Token};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

static TURN: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc").count()
}

#[test]
fn a_close_ends_a_send_and_a_receive_in_flight() {
    let _alone = alone();
    for zero_copy in [false, true] {
        let mut ring = ring();
        let before = descriptors();
        let (socket, mut peer) = connected(&mut ring);
        let mut outgoing = Outgoing { zero_copy, ..Outgoing::default() };
        outgoing.pieces.push(Piece::Shared(Bytes::from(vec![b'x'; 32 << 20])));
        ring.send(Token(1), socket, outgoing);
        ring.receive(Token(2), socket);
        assert!(events_within(&mut ring, Duration::from_millis(50)).is_empty());
        ring.close(socket);
        let reader = thread::spawn(move || std::io::copy(&mut peer, &mut std::io::sink()));
        let (result, outgoing, _) = wait_for(&mut ring, |event| match event {
            Event::Sent { .. } => sent(event),
            other => panic!("only Sent may come, not {other:?}"),
        });
        assert!(result.is_err());
        assert_eq!(outgoing.len(), 32 << 20);
        let got = reader.join().unwrap().expect("the peer reads to the end of the stream");
        assert!(got < 32 << 20);
        assert!(events_within(&mut ring, Duration::from_millis(50)).is_empty());
        assert_eq!(descriptors(), before);
    }
}

/// A listener whose queue is full does not answer: the connect hangs as to a dead host.
#[test]
fn a_connect_that_hangs_ends_with_its_close() {
    let _alone = alone();
    let mut ring = ring();
    let before = descriptors();
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&any_port().into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let sockets: Vec<_> = (0..8).map(|i| ring.connect(Token(i), address, None).unwrap()).collect();
    let events = events_within(&mut ring, Duration::from_millis(100));
    assert!(events.len() < sockets.len(), "some connects hang");
    sockets.iter().for_each(|socket| ring.close(*socket));
    assert!(events_within(&mut ring, Duration::from_millis(50)).is_empty());
    drop(full);
    assert_eq!(descriptors(), before);
}

#[test]
fn a_thousand_sockets_leave_no_descriptor_behind() {
    let _alone = alone();
    let mut ring = ring();
    let listener = ring.listen(any_port()).unwrap();
    let address = ring.local_address(listener).unwrap();
    ring.accept(Token(1), listener);
    let before = descriptors();
    for _ in 0..50 {
        let mut open: Vec<_> = (0..20).map(|i| ring.connect(Token(i), address, None).unwrap()).collect();
        let (mut accepted, mut connected, mut events) = (0, 0, Vec::new());
        let deadline = Instant::now() + PATIENCE;
        while (accepted < 20 || connected < 20) && Instant::now() < deadline {
            ring.wait(Some(Duration::from_millis(100)), &mut events).unwrap();
            for event in events.drain(..) {
                match event {
                    Event::Accepted { socket, .. } => {
                        ring.receive(Token(99), socket);
                        open.push(socket);
                        accepted += 1;
                    }
                    Event::Connected { result, .. } => {
                        result.unwrap();
                        connected += 1;
                    }
                    other => panic!("unexpected: {other:?}"),
                }
            }
        }
        open.drain(..).for_each(|socket| ring.close(socket));
    }
    assert!(events_within(&mut ring, Duration::from_millis(20)).is_empty());
    assert_eq!(descriptors(), before);
}

#[test]
fn a_file_closed_with_a_write_in_flight_is_written_first() {
    let _alone = alone();
    let (mut ring, folder) = (ring(), tempfile::tempdir().unwrap());
    let path = folder.path().join("segment");
    let before = descriptors();
    let file = ring.open_now(&path, Access::Direct).unwrap();
    ring.write(Token(1), file, 0, pattern(2 << 20), true);
    ring.close_file(file);
    let result = wait_for(&mut ring, |event| match event {
        Event::Written { result, .. } => Ok(result),
        other => Err(other),
    });
    result.unwrap();
    assert!(std::fs::read(&path).unwrap() == pattern(2 << 20));
    events_within(&mut ring, Duration::from_millis(100));
    assert_eq!(descriptors(), before);
}

#[test]
fn a_ring_ends_with_everything_in_flight() {
    let _alone = alone();
    let before = descriptors();
    let folder = tempfile::tempdir().unwrap();
    {
        let mut ring = small_ring(1, 4096);
        let listener = ring.listen(any_port()).unwrap();
        ring.accept(Token(1), listener);
        let (socket, mut peer) = connected(&mut ring);
        let (starved, mut starved_peer) = connected(&mut ring);
        std::io::Write::write_all(&mut peer, b"x").unwrap();
        std::io::Write::write_all(&mut starved_peer, b"x").unwrap();
        ring.receive(Token(2), socket);
        ring.receive(Token(3), starved);
        ring.send(Token(4), socket, own(&pattern(16 << 20)));
        ring.wait(Some(Duration::from_millis(20)), &mut Vec::new()).unwrap();
        let file = ring.open_now(&folder.path().join("segment"), Access::Direct).unwrap();
        // Not synced: a write that has begun takes as long as the disk does.
        ring.write(Token(5), file, 0, pattern(3 << 20), false);
        ring.read(Token(6), file, 0, 1 << 20);
        let start = Instant::now();
        drop(ring);
        assert!(start.elapsed() < Duration::from_millis(1900), "everything could be cancelled");
    }
    assert_eq!(descriptors(), before);
}
