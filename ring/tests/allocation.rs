//! Once warm, a send and a receive do not allocate.

#![allow(clippy::result_large_err)] // `wait_for` hands an unwanted event back.

mod common;

use bytes::Bytes;
use common::*;
use ring::{Event, Outgoing, Piece, Ring, Socket, Token, Uring};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches a thread's own cell alone.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise, handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, handed on.
        unsafe { System.dealloc(start, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One message there, its length in bytes received.
fn exchange(
    ring: &mut Uring,
    from: Socket,
    mut outgoing: Outgoing,
    body: &Bytes,
    events: &mut Vec<Event>,
) -> Outgoing {
    outgoing.clear();
    outgoing.own.extend_from_slice(b"MAIL FROM:<list-4711@example.org>\r\n");
    outgoing.pieces.push(Piece::Own(0..35));
    outgoing.pieces.push(Piece::Shared(body.clone()));
    let expected = outgoing.len();
    ring.send(Token(1), from, outgoing);
    let (mut got, mut back) = (0, None);
    while got < expected || back.is_none() {
        ring.wait(Some(PATIENCE), events).expect("wait");
        for event in events.drain(..) {
            match event {
                Event::Received { data, .. } => {
                    got += ring.received(&data).len();
                    ring.give_back(data);
                }
                Event::Sent { result, outgoing, .. } => {
                    result.expect("sent");
                    back = Some(outgoing);
                }
                other => panic!("unexpected: {other:?}"),
            }
        }
    }
    back.expect("the loop ends with it")
}

#[test]
fn a_warm_ring_does_not_allocate() {
    let mut ring = ring();
    let listener = ring.listen(any_port()).unwrap();
    let address = ring.local_address(listener).unwrap();
    ring.accept(Token(1), listener);
    let near = ring.connect(Token(2), address, None).unwrap();
    let far = wait_for(&mut ring, |event| match event {
        Event::Accepted { socket, .. } => Ok(socket),
        other => Err(other),
    });
    let _ = events_within(&mut ring, std::time::Duration::from_millis(20));
    ring.receive(Token(3), far);
    let body = Bytes::from(pattern(4096));
    let mut events = Vec::with_capacity(64);
    let mut outgoing = Outgoing::default();
    for _ in 0..100 {
        outgoing = exchange(&mut ring, near, outgoing, &body, &mut events);
    }
    let before = ALLOCATIONS.with(Cell::get);
    for _ in 0..1000 {
        outgoing = exchange(&mut ring, near, outgoing, &body, &mut events);
    }
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0);
}
