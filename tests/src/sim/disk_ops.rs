//! What a ring asks of the disk: submitted at once, done some time later, answered with an event.

use super::clock::MICRO;
use super::disk::{Asked, Covers, Handle, Operation, Pending};
use super::ring::Lane;
use super::sparse::SECTOR;
use super::world::{Due, State};
use ring::{Access, BLOCK, Event, Token};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

const EIO: i32 = 5;

fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl State {
    fn submit(&mut self, ring: usize, token: Token, what: Asked) -> u64 {
        let span = match what {
            Asked::Sync { .. } | Asked::SyncFolder { .. } | Asked::WriteSync { .. } => &self.weather.sync_us,
            _ => &self.weather.disk_us,
        };
        let delay = self.rng.range(span) * MICRO + self.rng.below(MICRO);
        let op = self.disk.remember(Operation { ring, token, what });
        self.after(delay, Due::Disk { op });
        op
    }

    pub(super) fn submit_write(
        &mut self,
        ring: usize,
        token: Token,
        file: u32,
        offset: u64,
        bytes: Vec<u8>,
        durable: bool,
    ) {
        let Handle::File { inode, access } = self.file_handle(ring, file) else {
            panic!("write to a folder")
        };
        assert_eq!(access, Access::Direct, "write() is for files opened Direct");
        let aligned = offset.is_multiple_of(BLOCK as u64) && bytes.len().is_multiple_of(BLOCK);
        assert!(aligned, "a direct write of {} bytes at {offset} is not in whole blocks", bytes.len());
        let copy = bytes.clone();
        let operation = self.submit(ring, token, Asked::Write { inode, offset, bytes, durable });
        self.disk.inodes[inode].pending.push(Pending { operation, offset, bytes: copy, applied: None });
    }

    pub(super) fn put_now(&mut self, ring: usize, file: u32, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let Handle::File { inode, access } = self.file_handle(ring, file) else { panic!("put to a folder") };
        assert_eq!(access, Access::Cached, "put() is for files opened Cached");
        self.note("put", ring as u64, offset);
        self.put(inode, offset, bytes)
    }

    /// On a full disk a part of it, as the real one.
    pub(super) fn put_at_end_now(&mut self, ring: usize, file: u32, bytes: &[u8]) -> io::Result<usize> {
        let Handle::File { inode, access } = self.file_handle(ring, file) else { panic!("put to a folder") };
        assert_eq!(access, Access::Append, "put_at_end() is for files opened Append");
        self.note("put at end", ring as u64, self.disk.len(inode));
        self.may_write()?;
        let room =
            if self.rng.hits(self.weather.no_space) { self.rng.index(bytes.len() + 1) } else { bytes.len() };
        let room = room.min(usize::try_from(self.disk.free_space()).unwrap_or(usize::MAX));
        if room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let end = self.disk.len(inode);
        self.disk.put(inode, end, &bytes[..room]);
        Ok(room)
    }

    pub(super) fn submit_append(&mut self, ring: usize, token: Token, file: u32, bytes: Vec<u8>) {
        let Handle::File { inode, access } = self.file_handle(ring, file) else {
            panic!("append to a folder")
        };
        assert_eq!(access, Access::Append, "append() is for files opened Append");
        self.submit(ring, token, Asked::Append { inode, bytes });
    }

    pub(super) fn submit_read(&mut self, ring: usize, token: Token, file: u32, offset: u64, len: usize) {
        let inode = self.file_handle(ring, file).inode();
        self.submit(ring, token, Asked::Read { inode, offset, len });
    }

    pub(super) fn submit_sync(&mut self, ring: usize, token: Token, file: u32, metadata: bool) {
        let what = match self.file_handle(ring, file) {
            Handle::File { inode, .. } => Asked::Sync { inode, covers: self.covers(inode) },
            Handle::Folder(folder) => {
                // Without metadata a folder's names are not asked for.
                let names =
                    if metadata { self.disk.names_in(&folder) } else { self.disk.durable_names_in(&folder) };
                Asked::SyncFolder { folder, names }
            }
        };
        self.submit(ring, token, what);
    }

    fn covers(&self, inode: usize) -> Covers {
        self.disk.inodes[inode].covers(self.disk.applied)
    }

    pub(super) fn submit_allocate(&mut self, ring: usize, token: Token, file: u32, len: u64) {
        let inode = self.file_handle(ring, file).inode();
        self.submit(ring, token, Asked::Allocate { inode, len });
    }

    pub(super) fn submit_open(&mut self, ring: usize, token: Token, path: &Path, access: Access) {
        self.submit(ring, token, Asked::Open { path: path.to_owned(), access });
    }

    pub(super) fn submit_remove(&mut self, ring: usize, token: Token, path: &Path) {
        self.submit(ring, token, Asked::Remove { path: path.to_owned() });
    }

    pub(super) fn open_file(&mut self, ring: usize, path: &Path, access: Access) -> io::Result<u32> {
        self.may_open()?;
        let handle = self.disk.open(path, access)?;
        Ok(self.rings[ring].files.insert(handle))
    }

    pub(super) fn open_folder(&mut self, ring: usize, path: &Path) -> io::Result<u32> {
        self.may_open()?;
        if !self.disk.has_folder(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(self.rings[ring].files.insert(Handle::Folder(path.to_owned())))
    }

    pub(super) fn read_file_now(
        &mut self,
        ring: usize,
        file: u32,
        offset: u64,
        bytes: &mut [u8],
    ) -> io::Result<usize> {
        let inode = self.file_handle(ring, file).inode();
        self.may_read()?;
        Ok(self.disk.inodes[inode].cache.read(offset, bytes))
    }

    pub(super) fn sync_file_now(&mut self, ring: usize, file: u32) {
        let inode = self.file_handle(ring, file).inode();
        let covers = self.covers(inode);
        self.disk.inodes[inode].synced(covers);
    }

    // ---- done ----

    pub(super) fn on_disk(&mut self, op: u64) {
        let Some(operation) = self.disk.operations.get(&op) else { return };
        let is_sync =
            matches!(operation.what, Asked::Sync { .. } | Asked::SyncFolder { .. } | Asked::WriteSync { .. });
        if is_sync && self.disk.hold.keeps(op) {
            return;
        }
        let Operation { ring, token, what } =
            self.disk.operations.remove(&op).expect("it was there just now");
        // What a ring asked for before it was dropped is done all the same; only nobody is told.
        let answer = self.perform(ring, token, op, what);
        if let Some(event) = answer.filter(|_| self.rings[ring].is_alive()) {
            self.push_ready(ring, Lane::Disk(op), event);
        }
    }

    /// `None` if there is more to do before the answer.
    fn perform(&mut self, ring: usize, token: Token, op: u64, what: Asked) -> Option<Event> {
        Some(match what {
            Asked::Write { inode, offset, bytes, durable } => {
                return self.write(ring, token, op, (inode, offset, bytes, durable));
            }
            Asked::Append { inode, bytes } => {
                Event::Written { token, result: self.append(inode, &bytes), bytes }
            }
            Asked::WriteSync { inode, bytes, covers } => {
                Event::Written { token, result: self.sync(inode, covers), bytes }
            }
            Asked::Read { inode, offset, len } => {
                Event::ReadDone { token, result: self.read(inode, offset, len) }
            }
            Asked::Sync { inode, covers } => Event::Done { token, result: self.sync(inode, covers) },
            Asked::SyncFolder { folder, names } => {
                Event::Done { token, result: self.sync_names(op, &folder, names) }
            }
            Asked::Allocate { inode, len } => Event::Done { token, result: self.allocate(inode, len) },
            Asked::Open { path, access } => {
                Event::Opened { token, result: self.open_file(ring, &path, access).map(ring::File) }
            }
            Asked::Remove { path } => {
                Event::Done { token, result: self.may_write().and_then(|()| self.disk.remove(&path)) }
            }
        })
    }

    fn write(
        &mut self,
        ring: usize,
        token: Token,
        op: u64,
        asked: (usize, u64, Vec<u8>, bool),
    ) -> Option<Event> {
        let (inode, offset, bytes, durable) = asked;
        let end = offset + bytes.len() as u64;
        if let Err(error) = self.may_grow(inode, end).and_then(|()| self.may_write()) {
            self.write_in_part(op, inode);
            return Some(Event::Written { token, result: Err(error), bytes });
        }
        self.disk.applied += 1;
        let applied = self.disk.applied;
        self.disk.inodes[inode].apply(op, applied);
        if !durable {
            return Some(Event::Written { token, result: Ok(()), bytes });
        }
        let covers = self.covers(inode);
        self.submit(ring, token, Asked::WriteSync { inode, bytes, covers });
        None
    }

    /// A write that failed: some of it, from its start, reached the cache all the same.
    fn write_in_part(&mut self, op: u64, inode: usize) {
        self.disk.applied += 1;
        let State { disk, rng, .. } = self;
        let inode = &mut disk.inodes[inode];
        if let Some(write) = inode.pending.iter_mut().find(|write| write.operation == op) {
            write.bytes.truncate(SECTOR * rng.index(write.bytes.len() / SECTOR + 1));
        }
        inode.apply(op, disk.applied);
    }

    fn append(&mut self, inode: usize, bytes: &[u8]) -> io::Result<()> {
        self.put(inode, self.disk.len(inode), bytes)
    }

    fn put(&mut self, inode: usize, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.may_grow(inode, offset + bytes.len() as u64)?;
        if let Err(error) = self.may_write() {
            let part = self.rng.index(bytes.len() + 1);
            self.disk.put(inode, offset, &bytes[..part]);
            return Err(error);
        }
        self.disk.put(inode, offset, bytes);
        Ok(())
    }

    fn may_write(&mut self) -> io::Result<()> {
        if self.rng.hits(self.weather.write_error) { Err(errno(EIO)) } else { Ok(()) }
    }

    fn may_read(&mut self) -> io::Result<()> {
        if !self.rng.hits(self.weather.read_error) {
            return Ok(());
        }
        self.disk.read_errors += 1;
        Err(errno(EIO))
    }

    fn may_open(&mut self) -> io::Result<()> {
        if self.rng.hits(self.weather.open_error) { Err(errno(EIO)) } else { Ok(()) }
    }

    /// Writes over what is there need no space.
    fn may_grow(&mut self, inode: usize, end: u64) -> io::Result<()> {
        let more = end.saturating_sub(self.disk.len(inode));
        if more > 0 && (more > self.disk.free_space() || self.rng.hits(self.weather.no_space)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn read(&mut self, inode: usize, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.may_read()?;
        let mut bytes = vec![0; len];
        let count = self.disk.inodes[inode].cache.read(offset, &mut bytes);
        bytes.truncate(count);
        Ok(bytes)
    }

    fn sync(&mut self, inode: usize, covers: Covers) -> io::Result<()> {
        let State { disk, rng, weather, .. } = self;
        if rng.hits(weather.sync_error) || disk.is_broken(inode) {
            disk.inodes[inode].sync_failed(covers, rng);
            return Err(errno(EIO));
        }
        disk.inodes[inode].synced(covers);
        Ok(())
    }

    /// A failed sync of a folder makes none of its names durable; a later one may.
    fn sync_names(&mut self, op: u64, folder: &Path, names: BTreeMap<PathBuf, usize>) -> io::Result<()> {
        if self.rng.hits(self.weather.sync_error) {
            return Err(errno(EIO));
        }
        self.disk.names_are_durable(op, folder, names);
        Ok(())
    }

    fn allocate(&mut self, inode: usize, len: u64) -> io::Result<()> {
        self.may_grow(inode, len)?;
        self.may_write()?;
        let cache = &mut self.disk.inodes[inode].cache;
        cache.len = cache.len.max(len);
        Ok(())
    }
}
