//! The list on disk: who writes it ([`Store`], one) and who reads it ([`Book`], any).

use super::entry::{Entry, Listed, Reason, Who, secs};
use super::keys::Keys;
use crate::config;
use crate::keyset::{Change, Handle, KeySet, KeySetError, Options, Stat};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Its folder in the queue's.
const FOLDER: &str = "suppression";

/// What is to become of an entry.
#[derive(Clone, Debug)]
pub enum Asked {
    /// Who is on the list already stays as he is.
    Add(Entry),
    Remove(Who, message::UnixMillis),
}

/// See the module.
#[derive(Debug)]
pub struct Store {
    set: KeySet,
    keys: Arc<Keys>,
    /// As it was opened.
    pub keeps_addresses: bool,
}

impl Store {
    /// `secret`: the queue's.
    pub fn open(queue: &Path, secret: &[u8; 32], config: &config::Suppression) -> Result<Store, KeySetError> {
        let keys = Arc::new(Keys::new(secret));
        let options = Options {
            keep_notes: config.keep_addresses,
            memory_max: config.memory_max,
            ..Options::new(keys.owner(), config.entries_max)
        };
        let keeps_addresses = config.keep_addresses;
        Ok(Store { set: KeySet::open(&queue.join(FOLDER), options)?, keys, keeps_addresses })
    }

    /// Whether each changed something; durable when it returns.
    pub fn change(&mut self, asked: &[Asked]) -> Result<Vec<bool>, KeySetError> {
        let notes: Vec<Vec<u8>> = asked.iter().map(Asked::note).collect();
        let both = asked.iter().zip(&notes);
        let changes: Vec<Change<'_>> = both.map(|(asked, note)| asked.change(&self.keys, note)).collect();
        self.set.apply(&changes)
    }

    pub fn book(&self) -> Book {
        Book { set: self.set.handle(), keys: Arc::clone(&self.keys) }
    }

    /// What of its files could not be read, in words.
    pub fn damaged(&self) -> &[String] {
        self.set.damaged()
    }
}

impl Asked {
    fn note(&self) -> Vec<u8> {
        match self {
            Asked::Add(entry) => entry.note(),
            Asked::Remove(..) => Vec::new(),
        }
    }

    fn change<'n>(&self, keys: &Keys, note: &'n Vec<u8>) -> Change<'n> {
        let key = |who: &Who| keys.key(&who.list, who.address.as_ref());
        match self {
            Asked::Add(entry) => Change::Add { key: key(&entry.who), value: entry.value(), note },
            Asked::Remove(who, at) => Change::Remove { key: key(who), at_secs: secs(*at) },
        }
    }
}

/// Which entries are meant.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// One list's; empty: those that hold for all lists.
    pub list: Option<Box<str>>,
    pub reason: Option<Reason>,
}

impl Filter {
    fn is_met(&self, entry: &Entry) -> bool {
        self.list.as_ref().is_none_or(|list| *list == entry.who.list)
            && self.reason.is_none_or(|reason| reason == entry.reason)
    }
}

/// What an export was.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Exported {
    pub entries: u64,
    /// Places of the files that could not be read.
    pub damaged: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Book {
    pub(super) set: Handle,
    pub(super) keys: Arc<Keys>,
}

impl Book {
    /// Whether that very entry is there: one that holds for all lists is another. May wait for the disk.
    pub fn find(&self, who: &Who) -> io::Result<Option<Listed>> {
        let key = self.keys.key(&who.list, who.address.as_ref());
        Ok(self.set.reader().get(key)?.map(Listed::of))
    }

    /// Why nothing is sent to that address from that list, if nothing is. May wait for the disk.
    pub fn find_for(&self, who: &Who) -> io::Result<Option<Listed>> {
        let everywhere = Who { list: "".into(), ..who.clone() };
        match self.find(&everywhere)? {
            None if !who.list.is_empty() => self.find(who),
            found => Ok(found),
        }
    }

    /// Shows each entry whose address is kept, with the octets read so far and in all. Reads the disk.
    pub fn each<E: From<KeySetError>>(
        &self,
        filter: &Filter,
        mut visit: impl FnMut(Entry, (u64, u64)) -> Result<(), E>,
    ) -> Result<Exported, E> {
        let notes = self.set.notes()?;
        let (total, mut entries) = (notes.octets(), 0);
        let damaged = notes.each(|note, octets| match Entry::of_note(note.note, note.value) {
            Some(entry) if filter.is_met(&entry) => {
                entries += 1;
                visit(entry, (octets, total))
            }
            _ => Ok(()),
        })?;
        Ok(Exported { entries, damaged })
    }

    pub fn stat(&self) -> Stat {
        self.set.stat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use message::UnixMillis;

    fn entry(list: &str, address: &str, reason: Reason) -> Asked {
        let who = Who::parse(list, address).unwrap();
        Asked::Add(Entry { who, reason, at: UnixMillis(7_000) })
    }

    fn open(folder: &Path, keep_addresses: bool) -> Store {
        let config = config::Suppression { keep_addresses, ..config::Suppression::default() };
        Store::open(folder, &[1; 32], &config).unwrap()
    }

    fn exported(book: &Book, filter: &Filter) -> Vec<String> {
        let mut addresses = Vec::new();
        let each = book.each(filter, |entry, _| {
            addresses.push(entry.who.address.as_str().to_owned());
            Ok::<(), KeySetError>(())
        });
        assert_eq!(each.unwrap(), Exported { entries: addresses.len() as u64, damaged: 0 });
        addresses
    }

    #[test]
    fn who_is_on_the_list_is_found_however_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path(), true);
        let all = [
            entry("", "Ann@a.test", Reason::Complaint),
            entry("news", "bob@a.test", Reason::Unsubscribe),
            entry("", "ann@A.TEST", Reason::Manual),
        ];
        assert_eq!(store.change(&all).unwrap(), [true, true, false]);
        let book = store.book();
        let find = |list: &str, address: &str| {
            let found = book.find_for(&Who::parse(list, address).unwrap()).unwrap();
            found.map(|listed| (listed.reason, listed.at.0))
        };
        assert_eq!(find("", "ANN@a.test"), Some((Reason::Complaint, 7_000)));
        assert_eq!(find("other", "ann@a.test"), Some((Reason::Complaint, 7_000)));
        assert_eq!(find("NEWS", "bob@a.test"), Some((Reason::Unsubscribe, 7_000)));
        assert_eq!((find("", "bob@a.test"), find("other", "bob@a.test")), (None, None));
        assert_eq!(exported(&book, &Filter::default()), ["Ann@a.test", "bob@a.test"]);
        let filter = Filter { list: Some("news".into()), reason: None };
        assert_eq!(exported(&book, &filter), ["bob@a.test"]);
        let filter = Filter { list: None, reason: Some(Reason::Complaint) };
        assert_eq!(exported(&book, &filter), ["Ann@a.test"]);
    }

    #[test]
    fn without_addresses_kept_there_are_none_and_people_stay_on_the_list() {
        let folder = tempfile::tempdir().unwrap();
        let ann = Who::parse("", "ann@a.test").unwrap();
        open(folder.path(), true).change(&[entry("", "ann@a.test", Reason::Manual)]).unwrap();
        let mut store = open(folder.path(), false);
        store.change(&[entry("", "bob@a.test", Reason::Manual)]).unwrap();
        assert!(exported(&store.book(), &Filter::default()).is_empty());
        assert!(store.book().find(&ann).unwrap().is_some());
        drop(store);
        for file in std::fs::read_dir(folder.path().join(FOLDER)).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            assert!(!bytes.windows(6).any(|six| six == b"a.test"), "no address is left");
        }
        let mut store = open(folder.path(), true);
        let removed = store.change(&[Asked::Remove(ann.clone(), UnixMillis(9_000))]);
        assert_eq!(removed.unwrap(), [true]);
        assert_eq!(store.book().find(&ann).unwrap(), None);
    }

    #[test]
    fn who_was_taken_off_and_put_on_again_is_exported_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path(), true);
        let ann = Who::parse("", "ann@a.test").unwrap();
        for _ in 0..3 {
            store.change(&[entry("", "ann@a.test", Reason::Manual)]).unwrap();
            store.change(&[Asked::Remove(ann.clone(), UnixMillis(7_000))]).unwrap();
        }
        assert!(exported(&store.book(), &Filter::default()).is_empty());
        store.change(&[entry("", "ann@a.test", Reason::Import)]).unwrap();
        assert_eq!(exported(&store.book(), &Filter::default()), ["ann@a.test"]);
    }
}
