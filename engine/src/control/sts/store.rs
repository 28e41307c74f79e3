//! Policies on disk: a file for each domain in `sts` in the queue's folder, so that a restart forgets none.
//!
//! Nothing is synced: what a power loss takes is fetched again. Bound: [`FILES_MAX`] files; past it those that were
//! written the longest ago go.

use super::Kept;
use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const FILES_MAX: usize = 50_000;

/// See the module.
pub(super) struct Store {
    folder: PathBuf,
    count: Cell<usize>,
    max: usize,
}

impl Store {
    pub(super) fn open(queue: &Path) -> Store {
        Store::with_max(queue, FILES_MAX)
    }

    fn with_max(queue: &Path, max: usize) -> Store {
        let folder = queue.join("sts");
        let count = std::fs::read_dir(&folder).map_or(0, Iterator::count);
        Store { folder, count: Cell::new(count), max }
    }

    /// What was kept of a domain. A file that cannot be read is as good as none.
    pub(super) fn load(&self, domain: &str) -> Option<Kept> {
        let bytes = std::fs::read(self.path(domain)?).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    pub(super) fn save(&self, domain: &str, kept: &Kept) {
        if let Some(path) = self.path(domain)
            && let Err(error) = self.try_save(&path, kept)
        {
            tracing::error!(path = %path.display(), %error, "a policy is not kept for the next start");
        }
    }

    fn try_save(&self, path: &Path, kept: &Kept) -> io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        if self.count.get() >= self.max {
            self.thin_out()?;
        }
        let is_new = !path.exists();
        // Under another name first: a crash must not leave half a policy.
        let half = self.folder.join(".new");
        std::fs::write(&half, serde_json::to_vec(kept)?)?;
        std::fs::rename(&half, path)?;
        self.count.set(self.count.get() + usize::from(is_new));
        Ok(())
    }

    /// The tenth that was written first goes.
    fn thin_out(&self) -> io::Result<()> {
        let mut files: Vec<(SystemTime, PathBuf)> = std::fs::read_dir(&self.folder)?
            .filter_map(|entry| {
                let entry = entry.ok()?;
                Some((entry.metadata().ok()?.modified().ok()?, entry.path()))
            })
            .collect();
        files.sort_unstable();
        let gone = (files.len() / 10).max(1).min(files.len());
        for (_, path) in &files[..gone] {
            std::fs::remove_file(path)?;
        }
        self.count.set(files.len() - gone);
        Ok(())
    }

    /// `None` for a domain that is no plain file name; its policy is kept in memory alone.
    fn path(&self, domain: &str) -> Option<PathBuf> {
        let is_plain = (1..=253).contains(&domain.len())
            && !domain.starts_with('.')
            && domain
                .bytes()
                .all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'-' | b'_'));
        is_plain.then(|| self.folder.join(domain))
    }
}

#[cfg(test)]
mod tests {
    use super::super::policy::Policy;
    use super::*;
    use message::UnixMillis;

    fn kept(id: &str) -> Kept {
        let policy = Policy::parse(b"version: STSv1\nmode: testing\nmx: a.test\nmax_age: 100").unwrap();
        Kept { id: id.to_owned(), fetched: UnixMillis(5).0, policy }
    }

    #[test]
    fn a_policy_is_there_for_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        Store::open(folder.path()).save("a.test", &kept("1"));
        Store::open(folder.path()).save("a.test", &kept("2"));
        let found = Store::open(folder.path());
        assert_eq!(found.load("a.test").unwrap().id, "2");
        assert_eq!(found.count.get(), 1);
        std::fs::write(folder.path().join("sts/b.test"), "{half").unwrap();
        assert!(found.load("b.test").is_none() && found.load("../lock").is_none());
    }

    #[test]
    fn files_are_never_more_than_their_bound() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::with_max(folder.path(), 20);
        for number in 0..100 {
            store.save(&format!("d{number}.test"), &kept("1"));
            assert!(std::fs::read_dir(folder.path().join("sts")).unwrap().count() <= 20);
        }
        assert!(store.load("d99.test").is_some() && store.load("d0.test").is_none());
    }
}
