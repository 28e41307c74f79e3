//! Who has the list: a running daemon, or we ourselves while there is none.

use super::super::queue::{Daemon, QueueError};
use crate::clock;
use crate::config::Config;
use crate::daemon::{ServeError, load_secret, lock_queue};
use crate::suppression::{
    Ask, Asked, Entry, EntryRow, Exported, Filter, Listed, Reason, StatRow, Store, Told, Who, WhoRow,
};
use message::UnixMillis;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// See the module.
pub(super) enum Backend {
    Daemon(Daemon),
    Files {
        store: Store,
        /// No daemon starts meanwhile.
        _lock: File,
    },
}

impl Backend {
    pub(super) fn open(config: &Config) -> Result<Backend, QueueError> {
        if let Some(daemon) = Daemon::connect(&config.control_path())? {
            return Ok(Backend::Daemon(daemon));
        }
        check_owner(&config.queue)?;
        let said = |error: ServeError| QueueError::Daemon(error.to_string());
        let lock = lock_queue(&config.queue).map_err(|error| match error {
            ServeError::Locked { .. } => {
                let control = config.control_path();
                QueueError::Daemon(format!("{}: a daemon runs, and does not listen there", control.display()))
            }
            error => said(error),
        })?;
        let secret = load_secret(&config.queue.join("verp-secret")).map_err(said)?;
        let store = Store::open(&config.queue, &secret, &config.suppression)?;
        store.damaged().iter().for_each(|place| eprintln!("ringpost: damaged: {place}"));
        Ok(Backend::Files { store, _lock: lock })
    }

    /// Whether each is new.
    pub(super) fn add(&mut self, entries: Vec<Entry>) -> Result<Vec<bool>, QueueError> {
        match self {
            Backend::Daemon(daemon) => {
                let entries = entries.iter().map(EntryRow::new).collect();
                changed(daemon.ask_list(&Ask::Add { entries })?)
            }
            Backend::Files { store, .. } => {
                Ok(store.change(&entries.into_iter().map(Asked::Add).collect::<Vec<_>>())?)
            }
        }
    }

    /// Whether each was there.
    pub(super) fn remove(&mut self, who: Vec<Who>) -> Result<Vec<bool>, QueueError> {
        match self {
            Backend::Daemon(daemon) => changed(daemon.ask_list(&Ask::Remove { who: rows(&who) })?),
            Backend::Files { store, .. } => {
                let now = clock::wall();
                let asked: Vec<Asked> = who.into_iter().map(|who| Asked::Remove(who, now)).collect();
                Ok(store.change(&asked)?)
            }
        }
    }

    pub(super) fn check(&mut self, who: &[Who]) -> Result<Vec<Option<Listed>>, QueueError> {
        match self {
            Backend::Daemon(daemon) => match daemon.ask_list(&Ask::Check { who: rows(who) })? {
                Told::Found(found) => Ok(found.into_iter().map(|found| found.map(listed)).collect()),
                _ => Err(surprise()),
            },
            Backend::Files { store, .. } => {
                let book = store.book();
                Ok(who.iter().map(|who| book.find_for(who)).collect::<Result<_, _>>()?)
            }
        }
    }

    pub(super) fn export(
        &mut self,
        list: Option<&str>,
        reason: Option<Reason>,
        visit: &mut dyn FnMut(&Entry) -> Result<(), QueueError>,
    ) -> Result<Exported, QueueError> {
        match self {
            Backend::Daemon(daemon) => {
                let mut told = daemon.ask_list(&Ask::Export { list: list.map(str::to_owned), reason })?;
                loop {
                    match told {
                        Told::Rows(rows) => rows.iter().try_for_each(|row| visit(&entry(row)?))?,
                        Told::Exported { entries, damaged } => return Ok(Exported { entries, damaged }),
                        _ => return Err(surprise()),
                    }
                    told = daemon.next_of_list()?;
                }
            }
            Backend::Files { store, .. } => {
                let filter = Filter { list: list.map(Into::into), reason };
                store.book().each(&filter, |entry, _| visit(&entry))
            }
        }
    }

    pub(super) fn stat(&mut self) -> Result<StatRow, QueueError> {
        match self {
            Backend::Daemon(daemon) => match daemon.ask_list(&Ask::Stat)? {
                Told::Stat(stat) => Ok(stat),
                _ => Err(surprise()),
            },
            Backend::Files { store, .. } => Ok(StatRow::new(&store.book().stat(), store.keeps_addresses)),
        }
    }
}

/// What somebody else makes in a daemon's folder the daemon could not read.
fn check_owner(queue: &Path) -> Result<(), QueueError> {
    let owner = queue.metadata().map(|data| data.uid());
    match owner {
        Ok(owner) if owner != rustix::process::geteuid().as_raw() => Err(QueueError::Usage(format!(
            "{} belongs to user {owner}: while no daemon runs, do this as that user",
            queue.display()
        ))),
        _ => Ok(()),
    }
}

fn rows(who: &[Who]) -> Vec<WhoRow> {
    who.iter().map(WhoRow::new).collect()
}

fn changed(told: Told) -> Result<Vec<bool>, QueueError> {
    if let Told::Changed(changed) = told { Ok(changed) } else { Err(surprise()) }
}

fn listed((reason, secs): (Reason, u64)) -> Listed {
    Listed { reason, at: UnixMillis(secs.saturating_mul(1000)) }
}

fn entry(row: &EntryRow) -> Result<Entry, QueueError> {
    row.check(UnixMillis(0)).map_err(QueueError::Daemon)
}

fn surprise() -> QueueError {
    super::super::look::surprise()
}
