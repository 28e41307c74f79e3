//! Files as a machine sees them before and after it loses power.
//!
//! Each file has two contents: the *cache*, which every reader sees, and the *durable* one, which a crash leaves.
//! Writes go to the cache and stay pending until a sync that began after them has ended. A crash keeps, loses or
//! tears each pending write on its own: any subset of its 512-byte sectors may be there. Names work the same way:
//! a file created or removed since the last sync of its folder may be there or not, each for itself. That is less
//! than Linux filesystems promise, and all that POSIX does. Folders themselves are durable at once.

use super::rng::Rng;
use super::sparse::{Sparse, sectors};
use super::sync_hold::SyncHold;
use super::world::State;
use ring::{Access, Token};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

/// Size of a disk unless the scenario says otherwise.
const CAPACITY: u64 = 8 << 30;

pub(super) struct Disk {
    pub(super) inodes: Vec<Inode>,
    folders: BTreeSet<PathBuf>,
    /// What a look at the folder shows, and what a crash is sure to leave.
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// Of each folder: the latest sync that has ended.
    folders_synced: BTreeMap<PathBuf, u64>,
    pub(super) operations: BTreeMap<u64, Operation>,
    next_operation: u64,
    /// Counts writes that reached the cache: a sync covers those that came before it began.
    pub(super) applied: u64,
    pub(super) hold: SyncHold,
    /// Files whose syncs fail.
    broken: BTreeSet<usize>,
    pub(super) read_errors: u64,
    pub(super) capacity: u64,
}

#[derive(Default)]
pub(super) struct Inode {
    pub(super) cache: Sparse,
    pub(super) durable: Sparse,
    /// In the order in which they were asked for.
    pub(super) pending: Vec<Pending>,
}

/// A write that no sync has made durable yet.
pub(super) struct Pending {
    pub(super) operation: u64,
    pub(super) offset: u64,
    pub(super) bytes: Vec<u8>,
    /// Its place in the order of writes that reached the cache, once it has.
    pub(super) applied: Option<u64>,
}

/// An open file of a ring.
#[derive(Clone, Debug)]
pub(super) enum Handle {
    File { inode: usize, access: Access },
    Folder(PathBuf),
}

/// Something that a ring asked the disk for.
pub(super) struct Operation {
    pub(super) ring: usize,
    pub(super) token: Token,
    pub(super) what: Asked,
}

pub(super) enum Asked {
    Write {
        inode: usize,
        offset: u64,
        bytes: Vec<u8>,
        durable: bool,
    },
    Append {
        inode: usize,
        bytes: Vec<u8>,
    },
    /// The second half of a durable write; `bytes` only go back.
    WriteSync {
        inode: usize,
        bytes: Vec<u8>,
        covers: Covers,
    },
    Read {
        inode: usize,
        offset: u64,
        len: usize,
    },
    Sync {
        inode: usize,
        covers: Covers,
    },
    SyncFolder {
        folder: PathBuf,
        names: BTreeMap<PathBuf, usize>,
    },
    Allocate {
        inode: usize,
        len: u64,
    },
    Open {
        path: PathBuf,
        access: Access,
    },
    Remove {
        path: PathBuf,
    },
}

/// What a sync that begins now will have made durable when it ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Covers {
    pub(super) applied: u64,
    pub(super) len: u64,
}

impl Handle {
    pub(super) fn inode(&self) -> usize {
        match self {
            Handle::File { inode, .. } => *inode,
            Handle::Folder(folder) => panic!("{} is a folder", folder.display()),
        }
    }
}

impl Disk {
    pub(super) fn new() -> Disk {
        Disk {
            inodes: Vec::new(),
            folders: BTreeSet::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            folders_synced: BTreeMap::new(),
            operations: BTreeMap::new(),
            next_operation: 0,
            applied: 0,
            hold: SyncHold::default(),
            broken: BTreeSet::new(),
            read_errors: 0,
            capacity: CAPACITY,
        }
    }

    /// Names never repeat.
    fn next_operation(&mut self) -> u64 {
        self.next_operation += 1;
        self.next_operation
    }

    pub(super) fn remember(&mut self, operation: Operation) -> u64 {
        let name = self.next_operation();
        self.operations.insert(name, operation);
        name
    }

    /// A write to the cache that happens at once.
    pub(super) fn put(&mut self, inode: usize, offset: u64, bytes: &[u8]) {
        let operation = self.next_operation();
        self.applied += 1;
        self.inodes[inode].pending.push(Pending { operation, offset, bytes: bytes.to_vec(), applied: None });
        self.inodes[inode].apply(operation, self.applied);
    }

    // ---- names ----

    /// Names in the folder, which is made if it is missing.
    pub(super) fn list(&mut self, folder: &Path) -> Vec<String> {
        self.make_folder(folder);
        let inside = self.names.keys().filter(|path| path.parent() == Some(folder));
        let folders = self.folders.iter().filter(|path| path.parent() == Some(folder));
        let mut names: Vec<String> =
            inside.chain(folders).filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect();
        names.sort();
        names
    }

    fn make_folder(&mut self, folder: &Path) {
        for ancestor in folder.ancestors() {
            self.folders.insert(ancestor.to_owned());
        }
    }

    pub(super) fn has_folder(&self, folder: &Path) -> bool {
        self.folders.contains(folder)
    }

    /// Opens a name; creates it unless it is only to be read.
    pub(super) fn open(&mut self, path: &Path, access: Access) -> io::Result<Handle> {
        if let Some(inode) = self.names.get(path) {
            return Ok(Handle::File { inode: *inode, access });
        }
        let in_a_folder = path.parent().is_some_and(|folder| self.has_folder(folder));
        if access == Access::Read || !in_a_folder {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.inodes.push(Inode::default());
        let inode = self.inodes.len() - 1;
        self.names.insert(path.to_owned(), inode);
        Ok(Handle::File { inode, access })
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.names.remove(path).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn names_in(&self, folder: &Path) -> BTreeMap<PathBuf, usize> {
        let inside = self.names.iter().filter(|(path, _)| path.parent() == Some(folder));
        inside.map(|(path, inode)| (path.clone(), *inode)).collect()
    }

    pub(super) fn durable_names_in(&self, folder: &Path) -> BTreeMap<PathBuf, usize> {
        let inside = self.durable_names.iter().filter(|(path, _)| path.parent() == Some(folder));
        inside.map(|(path, inode)| (path.clone(), *inode)).collect()
    }

    /// A sync that was asked for earlier takes nothing back of what a later one made durable.
    pub(super) fn names_are_durable(&mut self, op: u64, folder: &Path, names: BTreeMap<PathBuf, usize>) {
        let last = self.folders_synced.entry(folder.to_owned()).or_default();
        if *last > op {
            return;
        }
        *last = op;
        self.durable_names.retain(|path, _| path.parent() != Some(folder));
        self.durable_names.extend(names);
    }

    // ---- sizes ----

    pub(super) fn len(&self, inode: usize) -> u64 {
        self.inodes[inode].cache.len
    }

    fn used(&self) -> u64 {
        self.names.values().map(|inode| self.len(*inode)).sum()
    }

    pub(super) fn free_space(&self) -> u64 {
        self.capacity.saturating_sub(self.used())
    }

    /// By the file's own name, in all folders.
    pub(super) fn files(&self, start: &str) -> Vec<(PathBuf, u64)> {
        let is_meant = |path: &Path| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(start))
        };
        let meant = self.names.iter().filter(|(path, _)| is_meant(path));
        meant.map(|(path, inode)| (path.clone(), self.len(*inode))).collect()
    }

    pub(super) fn content(&self, path: &Path) -> Option<Vec<u8>> {
        self.names.get(path).map(|inode| self.inodes[*inode].cache.to_vec())
    }

    // ---- what survives ----

    pub(super) fn forget_operations(&mut self) {
        self.operations.clear();
        self.hold = SyncHold::default();
        self.broken.clear();
    }

    /// Syncs of files that exist and whose names begin so fail from now on.
    pub(super) fn break_syncs(&mut self, start: &str) {
        self.broken =
            self.files(start).iter().filter_map(|(path, _)| self.names.get(path).copied()).collect();
    }

    pub(super) fn is_broken(&self, inode: usize) -> bool {
        self.broken.contains(&inode)
    }

    pub(super) fn crash(&mut self, rng: &mut Rng) {
        let luck = Luck::draw(rng);
        for inode in &mut self.inodes {
            inode.crash(luck, rng);
        }
        self.crash_names(luck, rng);
        self.drop_unreachable();
    }

    /// Each name that differs is decided for itself, in the order of names.
    fn crash_names(&mut self, luck: Luck, rng: &mut Rng) {
        let all: BTreeSet<PathBuf> = self.names.keys().chain(self.durable_names.keys()).cloned().collect();
        for path in all {
            let (now, durable) = (self.names.get(&path).copied(), self.durable_names.get(&path).copied());
            if now != durable && !luck.keeps(rng) {
                match durable {
                    Some(inode) => self.names.insert(path, inode),
                    None => self.names.remove(&path),
                };
            }
        }
        self.durable_names = self.names.clone();
    }

    pub(super) fn kill(&mut self, rng: &mut Rng) {
        for inode in &mut self.inodes {
            inode.kill(&mut self.applied, rng);
        }
    }

    /// Gives back the memory of files that have no name any more, after a crash has ended all handles.
    fn drop_unreachable(&mut self) {
        let named: BTreeSet<usize> = self.names.values().copied().collect();
        for (index, inode) in self.inodes.iter_mut().enumerate() {
            if !named.contains(&index) {
                *inode = Inode::default();
            }
        }
    }
}

/// How a crash treats what was not synced: a whole machine is lucky, unlucky, or each write for itself.
#[derive(Clone, Copy, Debug)]
enum Luck {
    All,
    None,
    Each,
}

impl Luck {
    fn draw(rng: &mut Rng) -> Luck {
        *rng.pick(&[Luck::All, Luck::None, Luck::Each, Luck::Each])
    }

    fn keeps(self, rng: &mut Rng) -> bool {
        match self {
            Luck::All => true,
            Luck::None => false,
            Luck::Each => rng.coin(),
        }
    }
}

impl Inode {
    pub(super) fn covers(&self, applied: u64) -> Covers {
        Covers { applied, len: self.cache.len }
    }

    /// A sync ended: what it covers is durable.
    pub(super) fn synced(&mut self, covers: Covers) {
        let (done, rest) = self.take_covered(covers);
        for write in done {
            self.durable.write(write.offset, &write.bytes);
        }
        self.durable.len = self.durable.len.max(covers.len);
        self.pending = rest;
    }

    /// A sync failed: what it covers may be durable or not, and no later sync will make it so, since the kernel
    /// marks the pages clean all the same. Readers go on seeing it until the crash.
    pub(super) fn sync_failed(&mut self, covers: Covers, rng: &mut Rng) {
        let (doomed, rest) = self.take_covered(covers);
        for write in &doomed {
            keep_some(&mut self.durable, write, Luck::draw(rng), rng);
        }
        self.pending = rest;
    }

    fn take_covered(&mut self, covers: Covers) -> (Vec<Pending>, Vec<Pending>) {
        let pending = std::mem::take(&mut self.pending);
        let (mut covered, rest): (Vec<_>, Vec<_>) = pending
            .into_iter()
            .partition(|write| write.applied.is_some_and(|applied| applied <= covers.applied));
        covered.sort_by_key(|write| write.applied);
        (covered, rest)
    }

    /// A write reaches the cache.
    pub(super) fn apply(&mut self, operation: u64, applied: u64) {
        let Inode { cache, pending, .. } = self;
        if let Some(write) = pending.iter_mut().rev().find(|write| write.operation == operation) {
            write.applied = Some(applied);
            cache.write(write.offset, &write.bytes);
        }
    }

    fn crash(&mut self, luck: Luck, rng: &mut Rng) {
        let mut pending = std::mem::take(&mut self.pending);
        // Later writes to the same place win; those in flight could have been first or last: last.
        pending.sort_by_key(|write| write.applied.unwrap_or(u64::MAX));
        for write in &pending {
            keep_some(&mut self.durable, write, luck, rng);
        }
        // The size may be on disk though the octets are not: they then read as zeros.
        if luck.keeps(rng) {
            self.durable.len = self.durable.len.max(self.cache.len);
        }
        self.cache = self.durable.clone();
    }

    /// Writes in flight reach the cache in part, whole or not at all.
    fn kill(&mut self, applied: &mut u64, rng: &mut Rng) {
        let luck = Luck::draw(rng);
        for mut write in std::mem::take(&mut self.pending) {
            if write.applied.is_none() && luck.keeps(rng) {
                *applied += 1;
                write.applied = Some(*applied);
                self.cache.write(write.offset, &write.bytes);
            }
            if write.applied.is_some() {
                self.pending.push(write);
            }
        }
    }
}

fn keep_some(durable: &mut Sparse, write: &Pending, luck: Luck, rng: &mut Rng) {
    let whole = *rng.pick(&[Luck::All, Luck::None, Luck::Each]);
    for (at, sector) in sectors(write.offset, &write.bytes) {
        let keep = match luck {
            Luck::Each => whole.keeps(rng),
            Luck::All | Luck::None => luck.keeps(rng),
        };
        if keep {
            durable.write(at, sector);
        }
    }
}

impl State {
    pub(super) fn file_handle(&mut self, ring: usize, file: u32) -> Handle {
        self.rings[ring].files.get(file).expect("this file is not open in this ring").clone()
    }
}
