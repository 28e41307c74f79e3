//! A ring without the right to lock memory. Alone in its process: it lowers a limit.

#![allow(clippy::result_large_err)] // `wait_for` hands an unwanted event back.

mod common;

use common::*;
use ring::{Access, BLOCK, Event, Ring, Token};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

#[test]
fn a_ring_starts_without_registered_buffers() {
    // Enough for the queues of a ring, not for 4 MiB of buffers.
    setrlimit(Resource::Memlock, Rlimit { current: Some(1 << 20), maximum: Some(1 << 20) }).unwrap();
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::IPC_LOCK);
    set_capabilities(None, sets).unwrap();

    let mut ring = ring();
    assert!(matches!(ring.notes(), [note] if note.contains("RLIMIT_MEMLOCK")), "{:?}", ring.notes());

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("segment");
    let file = ring.open_now(&path, Access::Direct).unwrap();
    ring.write(Token(1), file, 0, pattern(100 * BLOCK), true);
    wait_for(&mut ring, |event| match event {
        Event::Written { result, .. } => Ok(result),
        other => Err(other),
    })
    .unwrap();
    assert!(std::fs::read(&path).unwrap() == pattern(100 * BLOCK));
}
