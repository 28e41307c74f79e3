//! A file that events are appended to. It is opened for each batch, so that whoever rotates it need tell nobody.

use super::Outcome;
use crate::config::EventFile;
use crate::events::reader::Batch;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// See the module.
pub(super) struct FileEnd {
    path: PathBuf,
}

impl FileEnd {
    pub(super) fn new(file: &EventFile) -> FileEnd {
        FileEnd { path: file.path.clone() }
    }

    pub(super) async fn append(&self, batch: &Batch) -> Outcome {
        let (path, lines) = (self.path.clone(), batch.lines.clone());
        let why = match tokio::task::spawn_blocking(move || append(&path, &lines)).await {
            Ok(Ok(())) => return Outcome::Taken,
            Ok(Err(error)) => format!("{}: {error}", self.path.display()),
            Err(error) => error.to_string(),
        };
        Outcome::Later { why, wait: None }
    }
}

fn append(path: &Path, lines: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path)?;
    if ends_torn(&mut file)? {
        file.write_all(b"\n")?;
    }
    file.write_all(lines)?;
    file.sync_data()
}

/// A death or a full disk left a line without its end.
fn ends_torn(file: &mut File) -> io::Result<bool> {
    let mut last = [0];
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torn_line_stays_apart_from_what_follows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        append(&path, b"one\ntwo\n").unwrap();
        std::fs::write(&path, "one\ntw").unwrap();
        append(&path, b"two\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntw\ntwo\n");
    }
}
