//! A disk that loses power: every subset of what was not synced may be there afterwards, and each write in part.

use super::{Disk, Entry};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

type Inode = usize;

/// What a file system is: names and the contents of files.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct State {
    names: BTreeMap<PathBuf, Inode>,
    contents: Vec<Vec<u8>>,
}

impl State {
    pub(crate) fn files_in(&self, folder: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let inside = self.names.iter().filter(|(path, _)| path.parent() == Some(Path::new(folder)));
        inside.map(|(path, inode)| (path.clone(), self.contents[*inode].clone())).collect()
    }

    pub(crate) fn content(&self, path: &str) -> Option<Vec<u8>> {
        self.names.get(Path::new(path)).map(|inode| self.contents[*inode].clone())
    }

    fn apply(&mut self, change: &Change, part: Part) {
        match change {
            Change::Write { inode, at, bytes } => {
                let bytes = if part == Part::Half { &bytes[..bytes.len() / 2] } else { &bytes[..] };
                let content = &mut self.contents[*inode];
                if content.len() < at + bytes.len() {
                    content.resize(at + bytes.len(), 0);
                }
                content[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Change::Length { inode, len } => self.contents[*inode].resize(*len, 0),
            Change::Names(names) => {
                for (path, inode) in names {
                    match inode {
                        Some(inode) => self.names.insert(path.clone(), *inode),
                        None => self.names.remove(path),
                    };
                }
            }
        }
    }
}

/// Something that a sync makes durable. Names of one rename change together.
#[derive(Clone, Debug)]
enum Change {
    Write { inode: Inode, at: usize, bytes: Vec<u8> },
    Length { inode: Inode, len: usize },
    Names(Vec<(PathBuf, Option<Inode>)>),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Part {
    Lost,
    Half,
    Whole,
}

/// What happens at a step.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Trouble {
    #[default]
    None,
    /// The step fails; those after it do not.
    Fails(usize),
    /// From this step on there is no power.
    Dies(usize),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct SimDisk {
    durable: State,
    /// What a reader sees now.
    pub(crate) seen: State,
    pending: Vec<Change>,
    folders: Vec<PathBuf>,
    pub(crate) trouble: Trouble,
    pub(crate) steps: usize,
    pub(crate) has_links: bool,
}

impl SimDisk {
    pub(crate) fn with_folders(folders: &[&str]) -> SimDisk {
        let folders = folders.iter().map(PathBuf::from).collect();
        SimDisk { folders, has_links: true, ..SimDisk::default() }
    }

    /// A file that was there long before.
    pub(crate) fn put(&mut self, path: &str, content: &[u8]) {
        for state in [&mut self.durable, &mut self.seen] {
            state.contents.push(content.to_vec());
            state.names.insert(path.into(), state.contents.len() - 1);
        }
    }

    /// The same disk after a start on what a crash left.
    pub(crate) fn restarted_with(&self, state: State) -> SimDisk {
        SimDisk {
            durable: state.clone(),
            seen: state,
            pending: Vec::new(),
            trouble: Trouble::None,
            steps: 0,
            ..self.clone()
        }
    }

    /// Everything that a crash may leave now.
    pub(crate) fn crashes(&self) -> Vec<State> {
        let mut states = vec![self.durable.clone()];
        for change in &self.pending {
            let parts: &[Part] = match change {
                Change::Write { .. } => &[Part::Lost, Part::Half, Part::Whole],
                _ => &[Part::Lost, Part::Whole],
            };
            let after = |state: &State| {
                let after = |part: &Part| {
                    let mut state = state.clone();
                    if *part != Part::Lost {
                        state.apply(change, *part);
                    }
                    state
                };
                parts.iter().map(after).collect::<Vec<_>>()
            };
            states = states.iter().flat_map(after).collect();
            assert!(states.len() < 200_000, "a test has few steps");
        }
        states
    }

    fn step(&mut self) -> io::Result<()> {
        let step = self.steps;
        self.steps += 1;
        match self.trouble {
            Trouble::Fails(at) if at == step => Err(io::Error::from_raw_os_error(28)),
            Trouble::Dies(at) if at <= step => Err(io::Error::other("no power")),
            _ => Ok(()),
        }
    }

    fn change(&mut self, change: Change) {
        self.seen.apply(&change, Part::Whole);
        self.pending.push(change);
    }

    fn name(&mut self, names: Vec<(PathBuf, Option<Inode>)>) {
        self.change(Change::Names(names));
    }

    fn found(&self, path: &Path) -> io::Result<Inode> {
        self.seen.names.get(path).copied().ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn check_folder(&self, path: &Path) -> io::Result<()> {
        let is_there = self.folders.iter().any(|folder| Some(folder.as_path()) == path.parent());
        if is_there { Ok(()) } else { Err(ErrorKind::NotFound.into()) }
    }

    fn make(&mut self, path: &Path) -> io::Result<Inode> {
        self.check_folder(path)?;
        self.durable.contents.push(Vec::new());
        self.seen.contents.push(Vec::new());
        let inode = self.seen.contents.len() - 1;
        self.name(vec![(path.to_owned(), Some(inode))]);
        Ok(inode)
    }

    /// Makes durable what is picked, in its order.
    fn settle(&mut self, is_covered: impl Fn(&Change) -> bool) {
        let (covered, pending) = std::mem::take(&mut self.pending).into_iter().partition(is_covered);
        self.pending = pending;
        for change in &covered as &Vec<Change> {
            self.durable.apply(change, Part::Whole);
        }
    }
}

impl Disk for SimDisk {
    type File = Inode;

    fn create(&mut self, path: &Path, _mode: u32) -> io::Result<Inode> {
        self.step()?;
        if self.found(path).is_ok() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        self.make(path)
    }

    fn open(&mut self, path: &Path) -> io::Result<Inode> {
        self.step()?;
        self.found(path).or_else(|_| self.make(path))
    }

    fn lock(&mut self, _: &mut Inode) -> io::Result<()> {
        self.step()
    }

    fn len(&mut self, file: &mut Inode) -> io::Result<u64> {
        self.step()?;
        Ok(self.seen.contents[*file].len() as u64)
    }

    fn read_at(&mut self, file: &mut Inode, at: u64, len: usize) -> io::Result<Vec<u8>> {
        self.step()?;
        let at = usize::try_from(at).unwrap();
        let content = &self.seen.contents[*file];
        Ok(content[at.min(content.len())..content.len().min(at + len)].to_vec())
    }

    fn append(&mut self, file: &mut Inode, bytes: &[u8]) -> io::Result<()> {
        // As two writes: the disk may have one of them and not the other.
        for piece in bytes.chunks(bytes.len().div_ceil(2).max(1)) {
            self.step()?;
            let at = self.seen.contents[*file].len();
            self.change(Change::Write { inode: *file, at, bytes: piece.to_vec() });
        }
        Ok(())
    }

    fn truncate(&mut self, file: &mut Inode, len: u64) -> io::Result<()> {
        self.step()?;
        self.change(Change::Length { inode: *file, len: usize::try_from(len).unwrap() });
        Ok(())
    }

    fn sync(&mut self, file: &mut Inode) -> io::Result<()> {
        self.step()?;
        let own = *file;
        self.settle(|change| match change {
            Change::Write { inode, .. } | Change::Length { inode, .. } => *inode == own,
            Change::Names(_) => false,
        });
        Ok(())
    }

    fn link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        if !self.has_links {
            return Err(io::Error::from_raw_os_error(1));
        }
        self.check_folder(to)?;
        if self.found(to).is_ok() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let inode = self.found(from)?;
        self.name(vec![(to.to_owned(), Some(inode))]);
        Ok(())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        if self.found(to).is_ok() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        self.replace(from, to)
    }

    fn replace(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        self.check_folder(to)?;
        let inode = self.found(from)?;
        self.name(vec![(to.to_owned(), Some(inode)), (from.to_owned(), None)]);
        Ok(())
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.step()?;
        self.found(path)?;
        self.name(vec![(path.to_owned(), None)]);
        Ok(())
    }

    fn sync_folder(&mut self, folder: &Path) -> io::Result<()> {
        self.step()?;
        self.settle(|change| match change {
            Change::Names(names) => names.iter().any(|(path, _)| path.parent() == Some(folder)),
            _ => false,
        });
        Ok(())
    }

    fn list(&mut self, folder: &Path) -> io::Result<Vec<Entry>> {
        self.step()?;
        let files = self.seen.files_in(folder.to_str().unwrap()).into_iter().map(|(path, content)| Entry {
            name: path.file_name().unwrap().to_owned(),
            is_folder: false,
            len: content.len() as u64,
        });
        let folders = self.folders.iter().filter(|inner| inner.parent() == Some(folder)).map(|inner| Entry {
            name: inner.file_name().unwrap().to_owned(),
            is_folder: true,
            len: 0,
        });
        Ok(files.chain(folders).collect())
    }

    fn read(&mut self, path: &Path, len_max: u64) -> io::Result<Vec<u8>> {
        self.step()?;
        let mut content = self.seen.contents[self.found(path)?].clone();
        content.truncate(usize::try_from(len_max).unwrap());
        Ok(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{PUBLIC, replace_file};

    #[test]
    fn a_replaced_file_is_the_old_one_or_the_new_whatever_is_lost() {
        let mut steps = 0;
        loop {
            let mut disk = SimDisk::with_folders(&["d"]);
            disk.put("d/a.cdb", b"old");
            disk.trouble = Trouble::Dies(steps);
            let (path, temporary) = (Path::new("d/a.cdb"), Path::new("d/a.tmp"));
            let done = replace_file(&mut disk, path, temporary, b"new one", PUBLIC);
            for state in disk.crashes() {
                let found = state.content("d/a.cdb").expect("there is always one");
                assert!(found == b"new one" || done.is_err() && found == b"old", "step {steps}: {found:?}");
            }
            if done.is_ok() {
                break;
            }
            steps += 1;
        }
        assert!(steps > 4);
    }
}
