//! `ringpost passwd`: one user's lines in a password file.
//!
//! A new password replaces all of the user's lines, because an old one that stayed would still open the door. The file
//! is written anew beside itself, synced, and renamed into its place: readers see the old one or the new one. Who owns
//! it and who may read it stays as it was; a new file is 0600. Two at a time wait for one another by a lock on the folder.

use super::complain;
use crate::auth::{PASSWORD_MAX, Passwords, Scheme, lines_of, with_lines};
use crate::config::ConfigError;
use clap::Args;
use rustix::fs::{FlockOperation, Gid, Mode, Uid, fchmod, fchown, flock};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use zeroize::Zeroizing;

#[derive(Args, Debug)]
pub(crate) struct Passwd {
    /// The password file; made if it is not there.
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// How the password is kept; may be given several times. Default: as before, else argon2id.
    #[arg(long, value_enum)]
    scheme: Vec<Scheme>,
    /// Say by the exit code whether the password is right: 0 if it is, 1 if not. Writes nothing.
    #[arg(long, conflicts_with_all = ["scheme", "delete"])]
    check: bool,
    /// Take the user out.
    #[arg(long, conflicts_with = "scheme")]
    delete: bool,
    /// The name to log in by.
    user: String,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
enum PasswdError {
    #[error(transparent)]
    File(#[from] ConfigError),
    #[error("{0}")]
    Input(&'static str),
    #[error("{path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("the password cannot be read: {0}")]
    Read(io::Error),
}

pub(super) fn run(args: &Passwd) -> ExitCode {
    let done = if args.check { check(args) } else { change(args).map(|()| ExitCode::SUCCESS) };
    match done {
        Ok(code) => code,
        Err(error @ PasswdError::File(_)) => complain(78, &error),
        Err(error @ PasswdError::Input(_)) => complain(64, &error),
        Err(error) => complain(75, &error),
    }
}

fn check(args: &Passwd) -> Result<ExitCode, PasswdError> {
    let passwords = Passwords::load(&args.file)?;
    let password = read_password(false)?;
    if passwords.check(&args.user, &password) {
        return Ok(ExitCode::SUCCESS);
    }
    Ok(complain(1, &format!("that is not the password of {:?}", args.user)))
}

fn change(args: &Passwd) -> Result<(), PasswdError> {
    let password = if args.delete { None } else { Some(read_password(true)?) };
    // A link stays one.
    let path = args.file.canonicalize().unwrap_or_else(|_| args.file.clone());
    let failed = |source| PasswdError::Write { path: path.clone(), source };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let lock = File::open(folder).map_err(failed)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
    let (text, passwords) = match path.exists() {
        true => (Passwords::text(&path)?, Passwords::load(&path)?),
        false => (String::new(), Passwords::default()),
    };
    if args.delete && !passwords.has(&args.user) {
        return Err(PasswdError::Input("there is no such user"));
    }
    let lines = match &password {
        Some(password) => {
            lines_of(&args.user, &schemes(args, &passwords), password).map_err(PasswdError::Input)?
        }
        None => String::new(),
    };
    write(&path, folder, &with_lines(&text, &args.user, &lines)).map_err(failed)
}

fn schemes(args: &Passwd, passwords: &Passwords) -> Vec<Scheme> {
    let kept = if args.scheme.is_empty() { passwords.schemes(&args.user) } else { args.scheme.clone() };
    if kept.is_empty() { vec![Scheme::Argon2id] } else { kept }
}

fn write(path: &Path, folder: &Path, text: &str) -> io::Result<()> {
    let mut new = tempfile::Builder::new().prefix(".passwords").tempfile_in(folder)?;
    if let Ok(old) = path.metadata() {
        fchown(new.as_file(), Some(Uid::from_raw(old.uid())), Some(Gid::from_raw(old.gid())))?;
        fchmod(new.as_file(), Mode::from_raw_mode(old.mode() & 0o777))?;
    }
    new.write_all(text.as_bytes())?;
    new.as_file().sync_all()?;
    new.persist(path)?;
    File::open(folder)?.sync_all()
}

/// From the terminal without showing it, twice if `is_new`; else the first line of standard input.
fn read_password(is_new: bool) -> Result<Zeroizing<Vec<u8>>, PasswdError> {
    if !io::stdin().is_terminal() {
        return read_line();
    }
    let password = ask("Password: ")?;
    if is_new && *ask("Again: ")? != *password {
        return Err(PasswdError::Input("these are two different passwords"));
    }
    Ok(password)
}

fn ask(prompt: &str) -> Result<Zeroizing<Vec<u8>>, PasswdError> {
    eprint!("{prompt}");
    let shown = tcgetattr(io::stdin()).map_err(|error| PasswdError::Read(error.into()))?;
    let mut hidden = shown.clone();
    // With signals it would stay hidden after Ctrl-C; without, Ctrl-C is one more octet.
    hidden.local_modes -= LocalModes::ECHO | LocalModes::ISIG;
    let set = |modes| {
        tcsetattr(io::stdin(), OptionalActions::Flush, modes).map_err(|error| PasswdError::Read(error.into()))
    };
    set(&hidden)?;
    let password = read_line();
    set(&shown)?;
    eprintln!();
    match password {
        Ok(password) if password.contains(&3) => Err(PasswdError::Input("given up")),
        password => password,
    }
}

fn read_line() -> Result<Zeroizing<Vec<u8>>, PasswdError> {
    let mut line = Zeroizing::new(Vec::with_capacity(PASSWORD_MAX + 2));
    let most = PASSWORD_MAX as u64 + 2;
    io::stdin().lock().take(most).read_until(b'\n', &mut line).map_err(PasswdError::Read)?;
    for end in [b'\n', b'\r'] {
        if line.last() == Some(&end) {
            line.pop();
        }
    }
    match line.len() {
        0 => Err(PasswdError::Input("no password was given")),
        len if len > PASSWORD_MAX => Err(PasswdError::Input("a password has at most 480 octets")),
        _ => Ok(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_file_is_replaced_and_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passwords");
        write(&path, folder.path(), "# new\n").unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        write(&path, folder.path(), "# newer\n").unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o640);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "# newer\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left over");
    }
}
