//! `ringpost import-qmail DIR`: what a directory like `/var/qmail` says, as our configuration.
//!
//! Reads `control/*`, `users/assign` and `alias/.qmail-*`. TOML goes to standard output; what it cannot say, and what
//! to do instead, to standard error, a line each. The table of users and the files of instructions stay where they are and
//! are named: they are read as they are. Exit codes: 0 all of it is said, 1 something is not, 78 there is no such
//! directory, or a file in it makes no sense. Changes nothing. Bounds: [`FILE_MAX`] octets of a file, [`ALIASES_MAX`] files
//! of aliases.

mod opened;
mod programs;
mod table;

use super::complain;
use clap::Args;
use local::instructions::{self, Line};
use local::users::{Assignments, TABLE_MAX, parse_passwd};
use message::cdb::Cdb;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use table::Translation;

/// Octets of a file that is read.
const FILE_MAX: u64 = TABLE_MAX as u64;

/// Files of `alias/` that are looked at.
const ALIASES_MAX: usize = 100_000;

const PASSWD: &str = "/etc/passwd";

#[derive(Args, Debug)]
pub(crate) struct ImportQmail {
    /// The directory, such as /var/qmail.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Why nothing was translated.
#[derive(Debug, thiserror::Error)]
enum ImportError {
    #[error("{path}: {source}", path = .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}: {what}", path = .path.display())]
    Sense { path: PathBuf, what: String },
}

pub(super) fn run(args: &ImportQmail) -> ExitCode {
    match import(&args.folder) {
        Ok(translation) => {
            print!("{}", translation.text());
            translation.untold.iter().for_each(|line| eprintln!("{line}"));
            ExitCode::from(u8::from(!translation.untold.is_empty()))
        }
        Err(error) => complain(78, &error),
    }
}

fn import(folder: &Path) -> Result<Translation, ImportError> {
    // What is named in the configuration is found from anywhere.
    let folder = std::path::absolute(folder)
        .map_err(|source| ImportError::Read { path: folder.to_owned(), source })?;
    let control = folder.join("control");
    let mut files = BTreeMap::new();
    for path in files_of(&control)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let content = if name.ends_with(".cdb") { Vec::new() } else { read(&path)? };
        files.insert(name, String::from_utf8_lossy(&content).into_owned());
    }
    let mut translation = table::translate(&files, &control);
    // A damaged one is named where the configuration is checked.
    let more = read_if_there(&control.join("morercpthosts.cdb"))?.and_then(Cdb::new);
    opened::tell(&files, more, &mut translation);
    if let Some(instructions) = files.get("defaultdelivery") {
        programs::tell("control/defaultdelivery", instructions, &folder.join("bin"), &mut translation);
    }
    assignments(&folder.join("users/assign"), &mut translation)?;
    aliases(&folder.join("alias"), &mut translation)?;
    Ok(translation)
}

fn files_of(folder: &Path) -> Result<Vec<PathBuf>, ImportError> {
    let wrong = |source| ImportError::Read { path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(wrong)?.take(ALIASES_MAX) {
        let path = entry.map_err(wrong)?.path();
        if path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>, ImportError> {
    let wrong = |source| ImportError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(wrong)?.take(FILE_MAX).read_to_end(&mut bytes).map_err(wrong)?;
    Ok(bytes)
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, ImportError> {
    match read(path) {
        Err(ImportError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        bytes => bytes.map(Some),
    }
}

/// The table is checked, and stays where it is.
fn assignments(path: &Path, translation: &mut Translation) -> Result<(), ImportError> {
    let Some(bytes) = read_if_there(path)? else { return Ok(()) };
    Assignments::parse(&bytes)
        .map_err(|error| ImportError::Sense { path: path.to_owned(), what: error.to_string() })?;
    if translation.has_local() {
        translation.say("local", "assign", path.display().to_string());
    } else {
        translation.untold("users/assign: nobody reads it where no address is this machine's");
    }
    Ok(())
}

/// `.qmail` files are read as they are where mail is delivered, by the user whose home they are in; those that cannot be
/// are named.
fn aliases(folder: &Path, translation: &mut Translation) -> Result<(), ImportError> {
    if !folder.is_dir() {
        return Ok(());
    }
    if translation.has_local() {
        alias_user(folder, translation);
    }
    for path in files_of(folder)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if !name.starts_with(".qmail") {
            continue;
        }
        let content = read(&path)?;
        let (file, text) = (format!("alias/{name}"), String::from_utf8_lossy(&content));
        programs::tell(&file, &text, &folder.with_file_name("bin"), translation);
        match instructions::parse(&content) {
            Ok(lines) => {
                let unknown = lines.iter().filter(|line| matches!(line, Line::Unknown(_))).count();
                if unknown > 0 {
                    translation.untold(&format!("{file}: {unknown} lines begin with + and mean nothing"));
                }
            }
            Err(instructions::InstructionsError::FirstLineBlank) if is_empty(&path) => {}
            Err(error) => translation.untold(&format!("{file}: {error}")),
        }
    }
    Ok(())
}

fn alias_user(home: &Path, translation: &mut Translation) {
    let passwords = read(Path::new(PASSWD)).unwrap_or_default();
    match parse_passwd(&passwords).find(|password| Path::new(&password.home) == home) {
        Some(password) => translation.say("local", "alias_user", password.user),
        None => translation.untold(&format!(
            "alias: no account of this system has {} for its home; make one and name it in local.alias_user",
            home.display()
        )),
    }
}

fn is_empty(path: &Path) -> bool {
    path.metadata().is_ok_and(|about| about.len() == 0)
}
