//! Files of the kernel's ring, on the filesystem that holds the temporary folder.

#![allow(clippy::result_large_err)] // `wait_for` hands an unwanted event back.

mod common;

use common::*;
use ring::{Access, BLOCK, Event, File, Ring, Token, Uring};
use std::io;
use std::path::PathBuf;
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn write(ring: &mut Uring, file: File, offset: u64, bytes: Vec<u8>, durable: bool) -> io::Result<()> {
    let expected = bytes.clone();
    ring.write(Token(1), file, offset, bytes, durable);
    let (result, bytes) = wait_for(ring, written);
    assert_eq!(bytes, expected);
    result
}

fn written(event: Event) -> Result<(io::Result<()>, Vec<u8>), Event> {
    match event {
        Event::Written { result, bytes, .. } => Ok((result, bytes)),
        other => Err(other),
    }
}

fn read(ring: &mut Uring, file: File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    ring.read(Token(2), file, offset, len);
    wait_for(ring, |event| match event {
        Event::ReadDone { token: Token(2), result } => Ok(result),
        other => Err(other),
    })
}

fn done(ring: &mut Uring) -> io::Result<()> {
    wait_for(ring, |event| match event {
        Event::Done { result, .. } => Ok(result),
        other => Err(other),
    })
}

fn open(ring: &mut Uring, path: PathBuf, access: Access) -> io::Result<File> {
    ring.open(Token(3), &path, access);
    wait_for(ring, |event| match event {
        Event::Opened { token: Token(3), result } => Ok(result),
        other => Err(other),
    })
}

#[test]
fn a_durable_write_reads_back_at_any_offset() {
    let (mut ring, folder) = (ring(), folder());
    let file = ring.open_now(&folder.path().join("segment"), Access::Direct).unwrap();
    let bytes = pattern(3 * BLOCK);
    write(&mut ring, file, BLOCK as u64, bytes.clone(), true).unwrap();
    assert_eq!(ring.file_len(file).unwrap(), 4 * BLOCK as u64);
    for (offset, len) in
        [(0, 100), (1, 4095), (5000, 7000), (4095, 2), (0, 1 << 16), (16_384, 1), (99_999, 5)]
    {
        let mut whole = vec![0; BLOCK];
        whole.extend_from_slice(&bytes);
        let (start, end) = (whole.len().min(offset), whole.len().min(offset + len));
        assert_eq!(read(&mut ring, file, offset as u64, len).unwrap(), &whole[start..end]);
        let mut now = vec![0; len];
        let filled = ring.read_now(file, offset as u64, &mut now).unwrap();
        assert_eq!(&now[..filled], &whole[start..end]);
    }
    assert_eq!(read(&mut ring, file, 0, 0).unwrap(), b"");
}

#[test]
fn what_several_put_at_the_end_stays_apart() {
    let folder = folder();
    let path = folder.path().join("log");
    std::thread::scope(|scope| {
        for writer in [b'a', b'b', b'c'] {
            let path = &path;
            scope.spawn(move || {
                let mut ring = ring();
                let file = ring.open_now(path, Access::Append).unwrap();
                let mut line = vec![writer; 9_999];
                line.push(b'\n');
                for _ in 0..50 {
                    assert_eq!(ring.put_at_end(file, &line).unwrap(), line.len());
                }
            });
        }
    });
    let text = std::fs::read(&path).unwrap();
    let lines: Vec<&[u8]> = text.split_inclusive(|octet| *octet == b'\n').collect();
    assert_eq!(lines.len(), 150);
    assert!(
        lines.iter().all(|line| line.len() == 10_000 && line[..9_999].iter().all(|octet| *octet == line[0]))
    );
}

#[test]
fn a_write_longer_than_a_buffer_arrives_whole() {
    let (mut ring, folder) = (ring(), folder());
    let path = folder.path().join("segment");
    let file = ring.open_now(&path, Access::Direct).unwrap();
    for (len, durable) in [(3 << 20, true), (6 << 20, false), (6 << 20, true)] {
        let bytes = pattern(len);
        write(&mut ring, file, 0, bytes.clone(), durable).unwrap();
        assert!(std::fs::read(&path).unwrap() == bytes);
        assert!(read(&mut ring, file, 10, len).unwrap() == bytes[10..]);
    }
}

#[test]
fn many_writes_at_once_use_heap_buffers_when_the_others_are_out() {
    let (mut ring, folder) = (ring(), folder());
    let path = folder.path().join("segment");
    let file = ring.open_now(&path, Access::Direct).unwrap();
    let bytes = pattern(100 * BLOCK);
    for (place, block) in bytes.chunks(BLOCK).enumerate() {
        ring.write(Token(place as u64), file, (place * BLOCK) as u64, block.to_vec(), place % 3 == 0);
    }
    let (mut left, mut events) = (100, Vec::new());
    while left > 0 {
        ring.wait(Some(PATIENCE), &mut events).unwrap();
        for event in events.drain(..) {
            written(event).unwrap().0.unwrap();
            left -= 1;
        }
    }
    assert!(std::fs::read(&path).unwrap() == bytes);
}

#[test]
fn an_unaligned_direct_write_is_refused() {
    let (mut ring, folder) = (ring(), folder());
    let file = ring.open_now(&folder.path().join("segment"), Access::Direct).unwrap();
    let error = write(&mut ring, file, 0, vec![1; 100], true).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    let error = write(&mut ring, file, 100, vec![1; BLOCK], true).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn an_empty_write_is_answered() {
    let (mut ring, folder) = (ring(), folder());
    let file = ring.open_now(&folder.path().join("segment"), Access::Direct).unwrap();
    write(&mut ring, file, 0, Vec::new(), false).unwrap();
    write(&mut ring, file, 0, Vec::new(), true).unwrap();
}

#[test]
fn a_failed_write_is_told_once() {
    let (mut ring, folder) = (ring(), folder());
    let path = folder.path().join("segment");
    std::fs::write(&path, b"there").unwrap();
    let file = ring.open_now(&path, Access::Read).unwrap();
    for durable in [false, true] {
        let error = write(&mut ring, file, 0, vec![1; BLOCK], durable).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    }
    assert!(events_within(&mut ring, std::time::Duration::from_millis(30)).is_empty());
    assert_eq!(std::fs::read(&path).unwrap(), b"there");
}

#[test]
fn a_full_device_is_an_error() {
    let mut ring = ring();
    let full = ring.open_now("/dev/full".as_ref(), Access::Append).unwrap();
    ring.append(Token(1), full, b"a verdict\n".to_vec());
    assert_eq!(wait_for(&mut ring, written).0.unwrap_err().raw_os_error(), Some(libc::ENOSPC));
}

#[test]
fn a_linked_write_that_fails_does_not_sync() {
    let mut ring = ring();
    let full = ring.open_now("/dev/full".as_ref(), Access::Append).unwrap();
    // A durable write to a file that is not direct: write and sync linked, the write fails.
    let error = write(&mut ring, full, 0, vec![1; 10], true).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
}

#[test]
fn appends_follow_each_other() {
    let (mut ring, folder) = (ring(), folder());
    let path = folder.path().join("deliveries");
    std::fs::write(&path, b"old\n").unwrap();
    let log = open(&mut ring, path.clone(), Access::Append).unwrap();
    for line in ["one\n", "two\n", "three\n"] {
        ring.append(Token(1), log, line.as_bytes().to_vec());
        wait_for(&mut ring, written).0.unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "old\none\ntwo\nthree\n");
}

#[test]
fn allocate_gives_a_file_its_length() {
    let (mut ring, folder) = (ring(), folder());
    let file = open(&mut ring, folder.path().join("segment"), Access::Direct).unwrap();
    ring.allocate(Token(1), file, 1 << 20);
    done(&mut ring).unwrap();
    assert_eq!(ring.file_len(file).unwrap(), 1 << 20);
    ring.allocate(Token(1), file, 4096);
    done(&mut ring).unwrap();
    assert_eq!(ring.file_len(file).unwrap(), 1 << 20);
    for metadata in [false, true] {
        ring.sync(Token(1), file, metadata);
        done(&mut ring).unwrap();
    }
    assert_eq!(read(&mut ring, file, 100, 10).unwrap(), [0; 10]);
}

#[test]
fn files_are_listed_opened_and_removed() {
    let (mut ring, folder) = (ring(), folder());
    let queue = folder.path().join("queue/core-0");
    assert!(ring.list(&queue).unwrap().is_empty());
    assert!(ring.free_space(&queue).unwrap() > 0);
    let second = open(&mut ring, queue.join("b"), Access::Direct).unwrap();
    open(&mut ring, queue.join("a"), Access::Append).unwrap();
    assert_eq!(ring.list(&queue).unwrap(), ["a", "b"]);
    let names = ring.open_folder(&queue).unwrap();
    ring.sync(Token(1), names, true);
    done(&mut ring).unwrap();
    ring.remove(Token(1), &queue.join("b"));
    done(&mut ring).unwrap();
    ring.close_file(second);
    assert_eq!(ring.list(&queue).unwrap(), ["a"]);
    ring.remove(Token(1), &queue.join("b"));
    assert_eq!(done(&mut ring).unwrap_err().kind(), io::ErrorKind::NotFound);
    let error = open(&mut ring, queue.join("missing"), Access::Read).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert_eq!(
        open(&mut ring, "bad\0name".into(), Access::Read).unwrap_err().kind(),
        io::ErrorKind::InvalidInput
    );
}

#[test]
fn a_filesystem_without_direct_access_works_all_the_same() {
    // procfs and sysfs refuse O_DIRECT; nothing else that does is sure to be mounted here.
    let mut ring = ring();
    let path = PathBuf::from("/proc/self/comm");
    let file = open(&mut ring, path.clone(), Access::Direct).unwrap();
    assert!(!read(&mut ring, file, 0, 100).unwrap().is_empty());
    let file = ring.open_now(&path, Access::Direct).unwrap();
    assert_ne!(ring.read_now(file, 0, &mut [0; 100]).unwrap(), 0);
}
