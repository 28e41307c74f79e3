//! Files of secrets, as `ringpost passwd` and `ringpost token` write them.
//!
//! A file is written anew beside itself, synced, and renamed into its place: readers see the old one or the new one. Who
//! owns it and who may read it stays as it was; a new file is 0600. Two at a time wait for one another by a lock on the
//! folder.

use super::complain;
use crate::config::ConfigError;
use rustix::fs::{FlockOperation, Gid, Mode, Uid, fchmod, fchown, flock};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum SecretsError {
    #[error(transparent)]
    File(#[from] ConfigError),
    #[error("{0}")]
    Input(&'static str),
    #[error("{path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("the password cannot be read: {0}")]
    Read(io::Error),
}

impl SecretsError {
    pub(super) fn exit(&self) -> ExitCode {
        let code = match self {
            SecretsError::File(_) => 78,
            SecretsError::Input(_) => 64,
            SecretsError::Write { .. } | SecretsError::Read(_) => 75,
        };
        complain(code, self)
    }
}

/// `change` makes the new text of the old one, which is empty if there is no file yet.
pub(super) fn rewrite(
    file: &Path,
    change: impl FnOnce(&str) -> Result<String, SecretsError>,
) -> Result<(), SecretsError> {
    // A link stays one.
    let path = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    let failed = |source| SecretsError::Write { path: path.clone(), source };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let lock = File::open(folder).map_err(failed)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
    let old = if path.exists() { crate::auth::secrets_of(&path)? } else { String::new() };
    write(&path, folder, &change(&old)?).map_err(failed)
}

fn write(path: &Path, folder: &Path, text: &str) -> io::Result<()> {
    let mut new = tempfile::Builder::new().prefix(".secrets").tempfile_in(folder)?;
    if let Ok(old) = path.metadata() {
        fchown(new.as_file(), Some(Uid::from_raw(old.uid())), Some(Gid::from_raw(old.gid())))?;
        fchmod(new.as_file(), Mode::from_raw_mode(old.mode() & 0o777))?;
    }
    new.write_all(text.as_bytes())?;
    new.as_file().sync_all()?;
    new.persist(path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_file_is_replaced_and_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passwords");
        rewrite(&path, |old| Ok(format!("{old}# new\n"))).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        rewrite(&path, |old| Ok(format!("{old}# newer\n"))).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o640);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "# new\n# newer\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left over");
    }
}
