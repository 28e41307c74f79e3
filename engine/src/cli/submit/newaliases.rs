//! `ringpost newaliases [--file FILE] [--database FILE]` and `sendmail -bi`: the table of aliases, /etc/aliases, made into the
//! database that `fastforward` looks them up in, FILE.cdb.
//!
//! The database is written beside the old one, synced, and takes its place at once: who looks something up meanwhile has the
//! old one or the new, and where anything is wrong the old one stays. Everybody may read it. Two that rebuild at a time do
//! not meet: each writes under a name of its own. Exit codes are those of `sysexits(3)`. Where nobody named a table and there
//! is no /etc/aliases there is nothing to do: packages' scripts call this whether there is or not.
//!
//! Bounds: those of [`local::aliases`].

use super::error::{EX_CANTCREAT, EX_DATAERR, EX_NOINPUT, EX_USAGE, SubmitError};
use super::place::{Place, Pointers};
use local::aliases::{self, AliasError, TABLE_MAX, database};
use local::disk::{Disk as _, StdDisk};
use message::cdb::TooLong;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const TABLE: &str = "/etc/aliases";

/// Nobody writes the database but who makes it.
const UMASK: u32 = 0o022;

/// Repeated names that are told of; more of them are counted.
const WARNINGS_MAX: usize = 20;

#[derive(Debug, thiserror::Error)]
enum RebuildError {
    #[error(transparent)]
    Place(#[from] SubmitError),
    #[error("{table}: {source}", table = .table.display())]
    Read { table: PathBuf, source: io::Error },
    #[error("{table}: {source}; {database} stays as it was", table = .table.display(), database = .database.display())]
    Table { table: PathBuf, database: PathBuf, source: AliasError },
    #[error("{database}: {source}; it stays as it was", database = .database.display())]
    TooLong { database: PathBuf, source: TooLong },
    #[error("{database} cannot be written: {source}; it stays as it was", database = .database.display())]
    Write { database: PathBuf, source: io::Error },
}

impl RebuildError {
    fn sysexit(&self) -> u8 {
        match self {
            RebuildError::Place(error) => error.sysexit(),
            RebuildError::Read { .. } => EX_NOINPUT,
            RebuildError::Table { .. } | RebuildError::TooLong { .. } => EX_DATAERR,
            RebuildError::Write { .. } => EX_CANTCREAT,
        }
    }
}

pub(super) fn run(words: Vec<String>) -> ExitCode {
    let mut pointers = Pointers::default();
    let (mut table, mut database) = (None, None);
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let (name, value) =
            word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value)));
        let place = match name {
            "--file" => &mut table,
            "--database" => &mut database,
            _ => match pointers.take(&word, &mut words) {
                Ok(true) => continue,
                // -v and what else scripts say.
                Ok(false) if word.starts_with('-') && !word.starts_with("--") => continue,
                Ok(false) => return usage(&word),
                Err(error) => return complain(error.sysexit(), &error),
            },
        };
        let Some(value) = value.map(str::to_owned).or_else(|| words.next()) else { return usage(&word) };
        *place = Some(PathBuf::from(value));
    }
    rebuild(table, database, &pointers)
}

fn usage(word: &str) -> ExitCode {
    let usage = "usage: newaliases [--file FILE] [--database FILE] [--config FILE]";
    complain(EX_USAGE, &format_args!("{word:?} is no option, or has no value\n{usage}"))
}

fn complain(code: u8, what: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("newaliases: {what}");
    ExitCode::from(code)
}

/// Makes the database of a table, or of the usual one.
pub(super) fn rebuild(table: Option<PathBuf>, database: Option<PathBuf>, pointers: &Pointers) -> ExitCode {
    let is_named = table.is_some();
    let table = table.unwrap_or_else(|| TABLE.into());
    let database = database.unwrap_or_else(|| with_ending(&table, ".cdb"));
    match make(&table, &database, pointers) {
        Ok(count) => {
            println!("{count} {}", if count == 1 { "address" } else { "addresses" });
            ExitCode::SUCCESS
        }
        Err(RebuildError::Read { source, .. }) if !is_named && source.kind() == ErrorKind::NotFound => {
            eprintln!("newaliases: there is no {TABLE}: nothing is to be rebuilt");
            ExitCode::SUCCESS
        }
        Err(error) => complain(error.sysexit(), &error),
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Returns how many aliases there are.
fn make(table: &Path, database: &Path, pointers: &Pointers) -> Result<usize, RebuildError> {
    let read = |source| RebuildError::Read { table: table.to_owned(), source };
    let text = StdDisk.read(table, TABLE_MAX as u64 + 1).map_err(read)?;
    let wrong =
        |source| RebuildError::Table { table: table.to_owned(), database: database.to_owned(), source };
    let aliases = aliases::parse(&text).map_err(wrong)?;
    let too_long = |source| RebuildError::TooLong { database: database.to_owned(), source };
    let no_at_host = Place::find(pointers)?.no_at_host()?;
    let octets = database::build(&aliases, &no_at_host).map_err(too_long)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(UMASK));
    let temporary = with_ending(database, &format!(".{}.tmp", std::process::id()));
    database::install(&mut StdDisk, &octets, database, &temporary)
        .map_err(|source| RebuildError::Write { database: database.to_owned(), source })?;
    for again in aliases::repeated(&aliases).take(WARNINGS_MAX) {
        let (table, line, name) = (table.display(), again.line, &again.name);
        eprintln!("newaliases: {table}: line {line}: {name:?} is an alias already; the first counts");
    }
    Ok(aliases.len() - aliases::repeated(&aliases).count())
}
