//! Databases of aliases, lists of addresses and `.forward` files on a disk, opened as far as they may be trusted.
//!
//! What stands in a database or a `.forward` is done with the rights of whoever opens it, so a file to which everybody may
//! write is none of them. A list must be readable by everybody: it may be another user's word that this process reads it,
//! and what it could not read itself it must not learn so. A FIFO or device holds nothing up: it is no file. Bounds: those
//! of a database ([`LEN_MAX`]), a list ([`LIST_LEN_MAX`]) and a `.forward` ([`forward_file::FILE_MAX`]).

use super::database::{Database, LIST_LEN_MAX, Lists};
use super::forward_file;
use message::cdb::{LEN_MAX, Octets, Outside};
use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

const EVERYBODY_WRITES: u32 = 0o002;
const EVERYBODY_READS: u32 = 0o444;

/// A database in a file. Who puts another in its place changes nothing for who has it open.
#[derive(Debug)]
pub struct CdbFile {
    file: File,
    len: u64,
}

impl Octets for CdbFile {
    type Error = io::Error;

    fn read(&self, at: usize, len: usize) -> io::Result<Cow<'_, [u8]>> {
        if at.checked_add(len).is_none_or(|end| end as u64 > self.len) {
            return Err(io::Error::new(ErrorKind::InvalidData, Outside));
        }
        let mut octets = vec![0; len];
        self.file.read_exact_at(&mut octets, at as u64)?;
        Ok(Cow::Owned(octets))
    }
}

/// Opens a database for look-ups.
pub fn open(path: &Path) -> io::Result<Database<CdbFile>> {
    let (file, about) = opened(path)?;
    if about.len > LEN_MAX as u64 {
        return Err(io::Error::other(format!("it has more than {LEN_MAX} octets")));
    }
    Ok(Database::new(CdbFile { file, len: about.len }))
}

/// A user's `.forward`; `None` if there is none.
pub fn read_forward(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match opened(path) {
        Ok((file, _)) => content_of(file, forward_file::FILE_MAX).map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Lists as they stand in their files.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileLists;

impl Lists for FileLists {
    fn read(&mut self, path: &str) -> io::Result<Vec<u8>> {
        let (file, about) = opened(Path::new(path))?;
        if about.mode & EVERYBODY_READS != EVERYBODY_READS {
            return Err(io::Error::other("not everybody may read it"));
        }
        content_of(file, LIST_LEN_MAX)
    }
}

#[derive(Clone, Copy, Debug)]
struct About {
    mode: u32,
    len: u64,
}

fn opened(path: &Path) -> io::Result<(File, About)> {
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(nonblock).open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    if about.mode() & EVERYBODY_WRITES != 0 {
        return Err(io::Error::other("everybody may write to it"));
    }
    Ok((file, About { mode: about.mode(), len: about.len() }))
}

/// One octet more than it may have, if it has more: who reads it says so.
fn content_of(file: File, len_max: usize) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(len_max as u64 + 1).read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::super::database::{self, ExpandError};
    use super::*;
    use crate::disk::StdDisk;
    use message::Domain;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    fn no_at_host() -> Domain {
        Domain::parse("example.org").unwrap()
    }

    #[test]
    fn a_new_table_takes_the_old_ones_place_while_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let (path, temporary) = (folder.path().join("aliases.cdb"), folder.path().join("aliases.tmp"));
        let tables: Vec<Vec<u8>> = [b"joe: ann@x.test\n", b"joe: bob@x.test\n"]
            .iter()
            .map(|table| database::build(&super::super::parse(*table).unwrap(), &no_at_host()).unwrap())
            .collect();
        database::install(&mut StdDisk, &tables[0], &path, &temporary).unwrap();
        let reader = std::thread::spawn({
            let path = path.clone();
            move || {
                for _ in 0..300 {
                    let table = open(&path).unwrap();
                    let found = database::expand(&table, &no_at_host(), "joe@x.test", "", &mut FileLists);
                    let found = found.unwrap();
                    assert_eq!(found.addresses.len(), 1);
                }
            }
        });
        for count in 0..50 {
            database::install(&mut StdDisk, &tables[count % 2], &path, &temporary).unwrap();
        }
        reader.join().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_trusted_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mode = |mode: u32| std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        std::fs::write(&path, "ann\n").unwrap();
        let list = || FileLists.read(path.to_str().unwrap()).map_err(|error| error.to_string());
        mode(0o644);
        assert_eq!(list(), Ok(b"ann\n".to_vec()));
        mode(0o600);
        assert_eq!(list(), Err("not everybody may read it".into()));
        assert_eq!(read_forward(&path).unwrap(), Some(b"ann\n".to_vec()));
        mode(0o666);
        assert_eq!(list(), Err("everybody may write to it".into()));
        assert!(open(&path).is_err() && read_forward(&path).is_err());
        assert!(open(folder.path()).is_err() && read_forward(folder.path()).is_err());
        assert_eq!(read_forward(&folder.path().join("none")).unwrap(), None);
    }

    #[test]
    fn a_file_that_was_cut_off_is_no_table_without_aliases() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut.cdb");
        std::fs::write(&path, [0; 100]).unwrap();
        let table = open(&path).unwrap();
        let found = database::expand(&table, &no_at_host(), "joe@x.test", "", &mut FileLists).unwrap_err();
        assert!(matches!(found, ExpandError::Database(_)), "{found}");
        assert!(found.to_string().contains("ends before what it points to"), "{found}");
    }
}
