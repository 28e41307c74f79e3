//! The few things that deliveries into files ask of a disk, so that a simulated one can fail or lose power at each.
//!
//! What [`Disk::sync`] has not covered may be lost in any part and order; so may names until [`Disk::sync_folder`].

#[cfg(test)]
pub(crate) mod sim;

use rustix::fs::{FlockOperation, RenameFlags};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{FileExt, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

/// The mode of a file that is its user's alone.
pub const PRIVATE: u32 = 0o600;

/// That of one which everybody may read.
pub const PUBLIC: u32 = 0o644;

/// Between two looks at a file that somebody else has locked, and how many there are: 30 seconds, as qmail waits.
const LOCK_PAUSE: Duration = Duration::from_millis(100);
const LOCK_LOOKS_MAX: u32 = 300;

/// Entries of a folder that are listed; more are left out.
pub const LIST_MAX: usize = 1 << 20;

/// What a folder holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    pub name: OsString,
    pub is_folder: bool,
    pub len: u64,
}

/// See the module.
pub trait Disk {
    type File;

    /// A new file to append to, of that mode as far as the process's umask lets it. `AlreadyExists` if there is one.
    fn create(&mut self, path: &Path, mode: u32) -> io::Result<Self::File>;

    /// A file to append to, made if it is not there.
    fn open(&mut self, path: &Path) -> io::Result<Self::File>;

    /// Waits for the file's lock (flock). `TimedOut` after half a minute.
    fn lock(&mut self, file: &mut Self::File) -> io::Result<()>;

    fn len(&mut self, file: &mut Self::File) -> io::Result<u64>;

    /// Octets from there on; fewer at its end.
    fn read_at(&mut self, file: &mut Self::File, at: u64, len: usize) -> io::Result<Vec<u8>>;

    fn append(&mut self, file: &mut Self::File, bytes: &[u8]) -> io::Result<()>;

    fn truncate(&mut self, file: &mut Self::File, len: u64) -> io::Result<()>;

    fn sync(&mut self, file: &mut Self::File) -> io::Result<()>;

    /// A second name. `AlreadyExists` if it is taken.
    fn link(&mut self, from: &Path, to: &Path) -> io::Result<()>;

    /// Another name. `AlreadyExists` if it is taken, where the file system can tell.
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;

    /// Another name, instead of what has it.
    fn replace(&mut self, from: &Path, to: &Path) -> io::Result<()>;

    fn remove(&mut self, path: &Path) -> io::Result<()>;

    fn sync_folder(&mut self, folder: &Path) -> io::Result<()>;

    /// At most [`LIST_MAX`] entries.
    fn list(&mut self, folder: &Path) -> io::Result<Vec<Entry>>;

    /// A file's first octets.
    fn read(&mut self, path: &Path, len_max: u64) -> io::Result<Vec<u8>>;
}

/// The process's own view of the machine's disks.
#[derive(Clone, Copy, Debug, Default)]
pub struct StdDisk;

impl Disk for StdDisk {
    type File = File;

    fn create(&mut self, path: &Path, mode: u32) -> io::Result<File> {
        OpenOptions::new().append(true).create_new(true).mode(mode).open(path)
    }

    fn open(&mut self, path: &Path) -> io::Result<File> {
        // Read too: how it ends is looked at before anything is added.
        OpenOptions::new().read(true).append(true).create(true).mode(PRIVATE).open(path)
    }

    fn lock(&mut self, file: &mut File) -> io::Result<()> {
        for _ in 0..LOCK_LOOKS_MAX {
            match rustix::fs::flock(&*file, FlockOperation::NonBlockingLockExclusive) {
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {
                    std::thread::sleep(LOCK_PAUSE)
                }
                done => return Ok(done?),
            }
        }
        Err(ErrorKind::TimedOut.into())
    }

    fn len(&mut self, file: &mut File) -> io::Result<u64> {
        Ok(file.metadata()?.len())
    }

    fn read_at(&mut self, file: &mut File, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let mut filled = 0;
        while filled < len {
            match FileExt::read_at(file, &mut bytes[filled..], at + filled as u64)? {
                0 => break,
                count => filled += count,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    fn append(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn truncate(&mut self, file: &mut File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    fn sync(&mut self, file: &mut File) -> io::Result<()> {
        file.sync_all()
    }

    fn link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::hard_link(from, to)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        use rustix::fs::CWD;
        match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => std::fs::rename(from, to),
            done => Ok(done?),
        }
    }

    fn replace(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_folder(&mut self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn list(&mut self, folder: &Path) -> io::Result<Vec<Entry>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder)?.take(LIST_MAX) {
            let entry = entry?;
            // What goes away meanwhile is not there.
            let Ok(about) = entry.metadata() else { continue };
            found.push(Entry { name: entry.file_name(), is_folder: about.is_dir(), len: about.len() });
        }
        Ok(found)
    }

    fn read(&mut self, path: &Path, len_max: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(len_max).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// Writes a file anew: whole under another name, synced, then in the old one's place. A reader has the old one or the
/// new. The other name is taken from whatever has it, and is free again if nothing comes of it.
pub fn replace_file<D: Disk>(
    disk: &mut D,
    path: &Path,
    temporary: &Path,
    content: &[u8],
    mode: u32,
) -> io::Result<()> {
    match disk.remove(temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = disk.create(temporary, mode)?;
    let written = disk
        .append(&mut file, content)
        .and_then(|()| disk.sync(&mut file))
        .and_then(|()| disk.replace(temporary, path));
    if let Err(error) = written {
        let _ = disk.remove(temporary);
        return Err(error);
    }
    disk.sync_folder(parent_of(path))
}

/// The folder that has the path's name.
pub(crate) fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
