//! How far a consumer has come: a place in the event log, kept in `NAME.cursor` in its folder.
//!
//! The place moves when what stands before it has had its outcome, never when it was read. A cursor is written under
//! another name, synced and renamed; a crash leaves the old or the new one, and at worst some events come again.

use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A place between two lines. Orders as the log does.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// The file's number.
    pub file: u32,
    /// Octets of it, unpacked, that were passed, and the events in them.
    pub offset: u64,
    pub events: u64,
}

impl Position {
    pub fn start_of(file: u32) -> Position {
        Position { file, offset: 0, events: 0 }
    }
}

fn path_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.cursor"))
}

/// `None`: the consumer is new.
pub fn load(folder: &Path, name: &str) -> io::Result<Option<Position>> {
    match fs::read(path_of(folder, name)) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub fn save(folder: &Path, name: &str, position: Position) -> io::Result<()> {
    let (path, half) = (path_of(folder, name), folder.join(format!("{name}.cursor.new")));
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&half)?;
    file.write_all(&serde_json::to_vec(&position)?)?;
    file.sync_all()?;
    fs::rename(&half, &path)
}

/// All that are there, whether somebody uses them or not. Ones that cannot be read are left out.
pub fn all(folder: &Path) -> io::Result<Vec<(String, Position)>> {
    let mut cursors = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str().and_then(|name| name.strip_suffix(".cursor")) else { continue };
        if let Ok(Some(position)) = load(folder, name) {
            cursors.push((name.to_owned(), position));
        }
    }
    cursors.sort();
    Ok(cursors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_comes_back_and_one_that_is_torn_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let position = Position { file: 3, offset: 1 << 40, events: 17 };
        assert_eq!(load(folder.path(), "a").unwrap(), None);
        save(folder.path(), "a", Position::start_of(1)).unwrap();
        save(folder.path(), "a", position).unwrap();
        assert_eq!(load(folder.path(), "a").unwrap(), Some(position));
        fs::write(folder.path().join("b.cursor"), "{\"file\":").unwrap();
        assert!(load(folder.path(), "b").is_err());
        assert_eq!(all(folder.path()).unwrap(), [("a".to_owned(), position)]);
    }
}
