//! A small filesystem of its own, which a test can fill without harm to others.

use super::peer::{is_root, peer, skip};
use super::setup;
use super::wait::{self, PATIENCE};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;
use tempfile::TempDir;

/// An ext4 filesystem in a file, mounted until the drop.
#[derive(Debug)]
pub struct Volume {
    folder: TempDir,
}

impl Volume {
    /// `None` where nothing can be mounted.
    pub fn mount(len: u64) -> Option<Volume> {
        if !is_root() {
            skip("only root can mount a filesystem");
            return None;
        }
        let (mut format, mut mount) = (peer("mkfs.ext4")?, peer("mount")?);
        let folder = setup::temporary_folder();
        let (image, root) = (folder.path().join("image"), folder.path().join("root"));
        File::create(&image).and_then(|file| file.set_len(len)).expect("the folder is ours");
        std::fs::create_dir(&root).expect("the folder is ours");
        // -m 0: nothing is kept back for root, so that full is full.
        wait::succeed(format.args(["-q", "-m", "0"]).arg(&image), PATIENCE);
        if !wait::finish(mount.args(["-o", "loop"]).arg(&image).arg(&root), PATIENCE).status.success() {
            skip("a loop device cannot be mounted here");
            return None;
        }
        Some(Volume { folder })
    }

    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn filler(&self) -> PathBuf {
        self.root().join("filler")
    }

    /// Fills it to the last block.
    pub fn fill(&self) {
        let mut file = File::create(self.filler()).expect("room for a name");
        for piece in [&[1u8; 64 << 10][..], &[1u8; 1 << 10]] {
            while file
                .write_all(piece)
                .inspect_err(|error| assert_eq!(error.kind(), ErrorKind::StorageFull))
                .is_ok()
            {}
        }
        let _ = file.sync_all();
    }

    /// That much of what [`Volume::fill`] took is free again.
    pub fn free_some(&self, len: u64) {
        let file = OpenOptions::new().write(true).open(self.filler()).expect("it was filled");
        let filled = file.metadata().expect("it is there").len();
        file.set_len(filled.saturating_sub(len)).expect("it can be cut");
    }

    /// What [`Volume::fill`] took is free again.
    pub fn free(&self) {
        std::fs::remove_file(self.filler()).expect("it was filled");
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if let Some(mut umount) = peer("umount") {
            // Lazily, if a program of ours has just died in it.
            let _ = umount.arg("-l").arg(self.root()).status();
        }
    }
}
