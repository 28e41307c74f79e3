//! What goes on beside the writer: a table becomes a sorted file, files of like size become one, logs that are no longer
//! needed go.
//!
//! A file is merged with those before it that are no more than twice its size, so that there are as many files as a set
//! has doubled, and each key is written as often. Bound: a piece of each file under way, and the tables of the one that
//! is written. Whatever of it a crash interrupts is begun anew.

use super::delta::Delta;
use super::log;
use super::reader::Shared;
use super::run::{About, Run, RunWriter, Scan};
use super::{Counts, Key, KeySetError, SpanOfLogs, Value, io_error, notes};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Past so many files the newest two are merged, whatever their size.
const RUNS_MAX: usize = 16;

/// A merge looks this often whether it is to end.
const LOOK_EVERY: u64 = 1 << 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) shared: Arc<Shared>,
    pub(super) owner: u64,
    pub(super) keep_notes: bool,
    pub(super) memory_max: u64,
    /// The frozen table's.
    pub(super) logs: SpanOfLogs,
    pub(super) counts: Counts,
}

impl Work {
    pub(super) fn run(self) -> Result<(), KeySetError> {
        *self.shared.pending.lock() = Some((self.logs, self.counts));
        let result = self.write_frozen();
        if result.is_err() {
            self.remove_halves();
        }
        result?;
        *self.shared.pending.lock() = None;
        // The set is whole without what follows: the next time does it.
        if let Err(error) = self.merge_some().and_then(|()| self.clear_logs()) {
            self.remove_halves();
            if !self.is_closing() {
                tracing::error!(%error, "files of keys are not merged");
            }
        }
        Ok(())
    }

    /// Octets of memory for the entries of a file that will stand beside these.
    fn room_beside(&self, runs: &[Arc<Run>]) -> u64 {
        self.memory_max.saturating_sub(held_len(runs))
    }

    fn is_closing(&self) -> bool {
        self.shared.is_closing.load(Ordering::Relaxed)
    }

    fn write_frozen(&self) -> Result<(), KeySetError> {
        let Some(frozen) = self.shared.snapshot().frozen.clone() else { return Ok(()) };
        let run = Arc::new(self.write_table(&frozen)?);
        self.shared.replace(|snapshot| {
            snapshot.frozen = None;
            snapshot.runs.insert(0, run);
        });
        Ok(())
    }

    fn write_table(&self, table: &Delta) -> Result<Run, KeySetError> {
        let about = About { owner: self.owner, logs: self.logs, counts: self.counts };
        let entries = table.sorted();
        let mut writer = RunWriter::create(&self.shared.folder, about, entries.len() as u64)?;
        let is_oldest = self.logs.first == 1;
        for (key, value) in entries {
            if value.is_there() || !is_oldest {
                writer.push(key, value).map_err(io_error(&self.shared.folder))?;
            }
        }
        writer.finish(self.room_beside(&self.shared.snapshot().runs))
    }

    fn merge_some(&self) -> Result<(), KeySetError> {
        loop {
            let runs = self.shared.snapshot().runs.clone();
            let sizes: Vec<u64> = runs.iter().map(|run| run.entries).collect();
            let count = to_merge(&sizes);
            if count < 2 {
                return Ok(());
            }
            let (newer, older) = runs.split_at(count);
            let merged = Arc::new(self.merge(newer, self.room_beside(older))?);
            self.shared.replace(|snapshot| drop(snapshot.runs.splice(..count, [merged])));
            for run in newer {
                std::fs::remove_file(&run.path).map_err(io_error(&run.path))?;
            }
        }
    }

    /// Newest first; what a newer one says of a key counts.
    fn merge(&self, runs: &[Arc<Run>], room: u64) -> Result<Run, KeySetError> {
        let (Some(newest), Some(oldest)) = (runs.first(), runs.last()) else {
            return Err(KeySetError::Background("nothing to merge".into()));
        };
        let logs = SpanOfLogs { first: oldest.about.logs.first, last: newest.about.logs.last };
        let about = About { owner: self.owner, logs, counts: newest.about.counts };
        let most = runs.iter().map(|run| run.entries).sum();
        let mut writer = RunWriter::create(&self.shared.folder, about, most)?;
        let scans = runs.iter().map(|run| run.scan()).collect::<io::Result<Vec<_>>>();
        let wrap = io_error(&self.shared.folder);
        let mut merging = Merging::begin(scans.map_err(&wrap)?).map_err(&wrap)?;
        let mut count: u64 = 0;
        while let Some((key, value)) = merging.next().map_err(&wrap)? {
            // Nothing older is left that it would take out.
            if value.is_there() || logs.first != 1 {
                writer.push(key, value).map_err(&wrap)?;
            }
            count += 1;
            if count.is_multiple_of(LOOK_EVERY) && self.is_closing() {
                return Err(wrap(io::ErrorKind::Interrupted.into()));
            }
        }
        writer.finish(room)
    }

    fn clear_logs(&self) -> Result<(), KeySetError> {
        if self.keep_notes {
            notes::compact_if_due(&self.shared, self.owner, self.logs.last)
        } else {
            notes::remove(&self.shared, self.logs.last)
        }
    }

    fn remove_halves(&self) {
        let names = names(&self.shared.folder).unwrap_or_default();
        for half in names.iter().filter(|name| name.ends_with(".new")) {
            let _ = std::fs::remove_file(self.shared.folder.join(half));
        }
    }
}

/// Octets of memory that their entries take.
pub(super) fn held_len(runs: &[Arc<Run>]) -> u64 {
    runs.iter().map(|run| run.held_len()).sum()
}

/// How many of the newest files become one. `sizes`: newest first.
fn to_merge(sizes: &[u64]) -> usize {
    let (mut count, mut sum) = (1, sizes.first().copied().unwrap_or(0));
    while let Some(size) = sizes.get(count)
        && *size <= 2 * sum
    {
        sum += size;
        count += 1;
    }
    if sizes.len() > RUNS_MAX { count.max(2) } else { count.min(sizes.len()) }
}

/// Several files read in step, newest first.
#[derive(Debug)]
struct Merging {
    scans: Vec<Scan>,
    heads: Vec<Option<(Key, Value)>>,
}

impl Merging {
    fn begin(mut scans: Vec<Scan>) -> io::Result<Merging> {
        let heads = scans.iter_mut().map(Scan::next).collect::<io::Result<_>>()?;
        Ok(Merging { scans, heads })
    }

    /// The next key, with what the newest file says of it.
    fn next(&mut self) -> io::Result<Option<(Key, Value)>> {
        let heads = self.heads.iter().flatten();
        let Some(least) = heads.min_by_key(|(key, _)| *key).copied() else { return Ok(None) };
        let mut newest = None;
        for (head, scan) in self.heads.iter_mut().zip(&mut self.scans) {
            if let Some(same) = head.filter(|(key, _)| *key == least.0) {
                newest.get_or_insert(same);
                *head = scan.next()?;
            }
        }
        Ok(newest)
    }
}

/// Names in the folder.
pub(super) fn names(folder: &Path) -> Result<Vec<String>, KeySetError> {
    let entries = std::fs::read_dir(folder).map_err(io_error(folder))?;
    let name = |entry: io::Result<std::fs::DirEntry>| Some(entry.ok()?.file_name().to_str()?.to_owned());
    Ok(entries.filter_map(name).collect())
}

/// Octets of the set's files.
pub(super) fn disk_use(folder: &Path) -> u64 {
    let names = names(folder).unwrap_or_default();
    names.iter().filter_map(|name| folder.join(name).metadata().ok()).map(|data| data.len()).sum()
}

/// Logs up to `last`, in order.
pub(super) fn logs_up_to(names: &[String], last: u32) -> Vec<u32> {
    let mut logs: Vec<u32> = names.iter().filter_map(|name| log::numbered(name, "log-")).collect();
    logs.retain(|number| *number <= last);
    logs.sort_unstable();
    logs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_like_size_become_one_and_a_large_one_is_left_alone() {
        assert_eq!(to_merge(&[]), 0);
        assert_eq!(to_merge(&[5]), 1);
        assert_eq!(to_merge(&[5, 5]), 2);
        assert_eq!(to_merge(&[5, 11, 12]), 1);
        assert_eq!(to_merge(&[5, 10, 30, 1000]), 3);
        assert_eq!(to_merge(&[0, 1]), 1);
    }

    #[test]
    fn files_are_never_many_and_a_key_is_seldom_written_again() {
        let (mut sizes, mut written, mut most) = (Vec::new(), 0, 0);
        for _ in 0..2000 {
            sizes.insert(0, 1);
            written += 1;
            loop {
                let count = to_merge(&sizes);
                if count < 2 {
                    break;
                }
                let sum: u64 = sizes.drain(..count).sum();
                written += sum;
                sizes.insert(0, sum);
            }
            most = most.max(sizes.len());
        }
        assert!(most <= 11 && written < 16 * 2000, "{most} files, {written} written");
    }

    #[test]
    fn files_that_say_nothing_are_merged_when_there_are_too_many() {
        assert_eq!(to_merge(&[1; 3].map(|_| 1)), 3);
        let doubling: Vec<u64> = (0..17).map(|power| 3u64.pow(power)).collect();
        assert_eq!(to_merge(&doubling), 2);
        assert_eq!(to_merge(&doubling[..16]), 1);
    }
}
