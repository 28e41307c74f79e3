//! The ring's own turn: time-outs, wake-ups, full queues, its end.

#![allow(clippy::result_large_err)] // `wait_for` hands an unwanted event back.

mod common;

use common::*;
use ring::{Access, Event, Ring, Token, Uring, UringConfig};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn a_wait_ends_with_its_timeout() {
    let mut ring = ring();
    let mut events = Vec::new();
    let start = Instant::now();
    ring.wait(Some(Duration::from_millis(60)), &mut events).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(50));
    let start = Instant::now();
    ring.wait(Some(Duration::ZERO), &mut events).unwrap();
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(events.is_empty());
}

#[test]
fn a_look_finds_what_has_come() {
    let mut ring = ring();
    let (socket, mut peer) = connected(&mut ring);
    ring.receive(Token(1), socket);
    ring.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
    std::io::Write::write_all(&mut peer, b"x").unwrap();
    thread::sleep(Duration::from_millis(20));
    let mut events = Vec::new();
    ring.wait(Some(Duration::ZERO), &mut events).unwrap();
    assert!(matches!(events[..], [Event::Received { .. }]));
}

#[test]
fn ten_thousand_wakeups_from_a_thread_are_all_seen() {
    let mut ring = ring();
    let waker = ring.waker();
    let said = Arc::new(AtomicU64::new(0));
    let (seen, answers) = mpsc::channel::<u64>();
    let count = Arc::clone(&said);
    let thread = thread::spawn(move || {
        for round in 1..=10_000 {
            count.store(round, Ordering::Relaxed);
            waker.wake();
            // In bursts of five, so that some come while one is under way.
            while round % 5 == 0 && answers.recv().unwrap() < round {}
        }
    });
    let mut events = Vec::new();
    let mut last = 0;
    while last < 10_000 {
        events.clear();
        let start = Instant::now();
        ring.wait(Some(PATIENCE), &mut events).unwrap();
        assert!(start.elapsed() < PATIENCE, "a wake-up was lost after {last}");
        if events.iter().any(|event| matches!(event, Event::Woken)) {
            last = said.load(Ordering::Relaxed);
            let _ = seen.send(last);
        }
    }
    thread.join().unwrap();
}

#[test]
fn a_waker_outlives_its_ring() {
    let waker = ring().waker();
    waker.wake();
    waker.wake();
}

#[test]
fn a_wakeup_before_the_first_wait_counts() {
    let mut ring = ring();
    ring.waker().wake();
    let mut events = Vec::new();
    ring.wait(Some(PATIENCE), &mut events).unwrap();
    assert!(matches!(events[..], [Event::Woken]));
}

#[test]
fn full_queues_lose_nothing() {
    let config = UringConfig { submission_entries: 8, completion_entries: 16, ..UringConfig::default() };
    let mut ring = Uring::new(config).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = ring.open_now(&folder.path().join("segment"), Access::Direct).unwrap();
    for round in 0..500 {
        ring.write(Token(round), file, round * 4096, vec![1; 4096], round % 2 == 0);
        ring.sync(Token(10_000 + round), file, false);
        ring.read(Token(20_000 + round), file, 0, 10);
    }
    let mut tokens = Vec::new();
    let mut events = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while tokens.len() < 1500 {
        assert!(Instant::now() < deadline, "only {} of 1500 came", tokens.len());
        ring.wait(Some(Duration::from_millis(500)), &mut events).unwrap();
        for event in events.drain(..) {
            match event {
                Event::Written { token, result: Ok(()), .. }
                | Event::Done { token, result: Ok(()) }
                | Event::ReadDone { token, result: Ok(_) } => tokens.push(token.0),
                other => panic!("unexpected: {other:?}"),
            }
        }
    }
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), 1500);
}

#[test]
fn a_default_ring_has_nothing_to_note_for_root() {
    let ring = ring();
    if rustix::process::geteuid().is_root() {
        assert!(ring.notes().is_empty(), "{:?}", ring.notes());
    }
}

#[test]
fn streams_survive_an_overflowing_completion_queue() {
    let config = UringConfig {
        submission_entries: 8,
        completion_entries: 16,
        receive_buffers: 64,
        receive_buffer_len: 512,
        ..UringConfig::default()
    };
    let mut ring = Uring::new(config).unwrap();
    let connections: Vec<_> = (0..40).map(|_| connected(&mut ring)).collect();
    for (place, (socket, _)) in connections.iter().enumerate() {
        ring.receive(Token(place as u64), *socket);
    }
    ring.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
    for (_, peer) in &connections {
        std::io::Write::write_all(&mut &*peer, &pattern(20_000)).unwrap();
        peer.shutdown(std::net::Shutdown::Write).unwrap();
    }
    let (mut streams, mut ended, mut events) = (vec![Vec::new(); 40], 0, Vec::new());
    let deadline = Instant::now() + PATIENCE;
    while ended < 40 {
        assert!(Instant::now() < deadline, "only {ended} of 40 ended");
        ring.wait(Some(Duration::from_millis(500)), &mut events).unwrap();
        for event in events.drain(..) {
            match event {
                Event::Received { token, data } => {
                    streams[usize::try_from(token.0).unwrap()].extend_from_slice(ring.received(&data));
                    ring.give_back(data);
                }
                Event::ReceiveEnded { result, .. } => {
                    result.unwrap();
                    ended += 1;
                }
                other => panic!("unexpected: {other:?}"),
            }
        }
    }
    assert!(streams.iter().all(|stream| *stream == pattern(20_000)));
}
