//! The files of the event log: `00000012.jsonl` while it grows, read-only once it is complete, then `00000012.jsonl.zst`.
//!
//! Numbers go up and are never used again, so a reader's place means the same for ever. A complete file is packed under
//! another name first: a crash leaves the one or the other whole, or both. What stands at the front of a packed file, in a
//! frame that unpackers skip, says how much is in it.

use super::line;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, BufReader, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Names have eight digits.
pub const NUMBER_MAX: u32 = 99_999_999;

/// What a file is packed with. Higher levels save little with lines so alike, and cost several times the time.
const LEVEL: i32 = 1;

/// A skippable frame (RFC 8878 §3.1.2) of 24 octets: ours by its first eight.
const FRAME: [u8; 16] = *b"\x5e\x2a\x4d\x18\x18\x00\x00\x00ringpost";
const FRAME_LEN: usize = FRAME.len() + 16;

/// How a file lies there.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Form {
    Plain,
    Packed,
}

/// How much is in a file, unpacked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Extent {
    pub events: u64,
    pub octets: u64,
}

pub fn path_of(folder: &Path, number: u32, form: Form) -> PathBuf {
    let ending = if form == Form::Packed { ".zst" } else { "" };
    folder.join(format!("{number:08}.jsonl{ending}"))
}

/// What the file's name says, if it is one of ours.
fn number_of(name: &str) -> Option<(u32, Form)> {
    let (stem, form) = match name.strip_suffix(".zst") {
        Some(stem) => (stem, Form::Packed),
        None => (name, Form::Plain),
    };
    let digits = stem.strip_suffix(".jsonl")?;
    let is_number = digits.len() == 8 && digits.bytes().all(|octet| octet.is_ascii_digit());
    Some((digits.parse().ok().filter(|_| is_number)?, form))
}

/// All files, by number. One that is there in both forms is its packed one.
pub fn list(folder: &Path) -> io::Result<Vec<(u32, Form)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        files.extend(entry?.file_name().to_str().and_then(number_of));
    }
    files.sort_unstable_by_key(|(number, form)| (*number, std::cmp::Reverse(*form)));
    files.dedup_by_key(|(number, _)| *number);
    Ok(files)
}

/// The first file behind that one.
pub fn next_after(folder: &Path, number: u32) -> io::Result<Option<u32>> {
    Ok(list(folder)?.into_iter().map(|(other, _)| other).find(|other| *other > number))
}

/// Nothing more comes behind what is in it.
pub fn is_complete(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.mode() & 0o200 == 0)
}

/// Makes the folder ready for a writer: what an earlier one left is complete now. Returns the number of the new file, which
/// is there, durably. `seen`: a number that some reader has been at.
pub fn prepare(folder: &Path, seen: u32) -> io::Result<u32> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut last = seen;
    for entry in fs::read_dir(folder)? {
        let (name, path) = {
            let entry = entry?;
            (entry.file_name(), entry.path())
        };
        match name.to_str().and_then(number_of) {
            Some((number, Form::Plain)) => {
                last = last.max(number);
                tidy(folder, number, &path)?;
            }
            Some((number, Form::Packed)) => last = last.max(number),
            // Half a file, of a packing or of a cursor.
            None if name.to_str().is_some_and(|name| name.ends_with(".new")) => fs::remove_file(&path)?,
            None => {}
        }
    }
    begin(folder, last + 1)?;
    Ok(last + 1)
}

/// A plain file of an earlier life: gone if it is empty or packed, else complete.
fn tidy(folder: &Path, number: u32, path: &Path) -> io::Result<()> {
    let is_packed = path_of(folder, number, Form::Packed).exists();
    if is_packed || fs::metadata(path)?.len() == 0 {
        return fs::remove_file(path);
    }
    complete(folder, number)
}

/// A new file under that number. Its name is durable before anything is in it.
pub fn begin(folder: &Path, number: u32) -> io::Result<()> {
    if number > NUMBER_MAX {
        return Err(io::Error::other("the numbers of event files are used up; name another folder"));
    }
    open_to_append(folder, number)?;
    File::open(folder)?.sync_all()
}

/// For a writer that is no core.
pub fn open_to_append(folder: &Path, number: u32) -> io::Result<File> {
    let path = path_of(folder, number, Form::Plain);
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// No writer has the file any more: says so to readers.
pub fn complete(folder: &Path, number: u32) -> io::Result<()> {
    let file = File::open(path_of(folder, number, Form::Plain))?;
    file.sync_all()?;
    file.set_permissions(Permissions::from_mode(0o400))
}

/// How much is in a complete file. A plain one is read for it.
pub fn extent(folder: &Path, number: u32, form: Form) -> io::Result<Extent> {
    let mut file = File::open(path_of(folder, number, form))?;
    if form == Form::Packed {
        return extent_of_packed(&mut file);
    }
    let (mut extent, mut chunk) = (Extent::default(), vec![0; 256 << 10]);
    loop {
        let len = file.read(&mut chunk)?;
        if len == 0 {
            return Ok(extent);
        }
        extent.octets += len as u64;
        extent.events += line::count(&chunk[..len]);
    }
}

fn extent_of_packed(file: &mut File) -> io::Result<Extent> {
    let mut frame = [0; FRAME_LEN];
    file.read_exact(&mut frame)?;
    let number = |at: usize| frame[at..].first_chunk().map_or(0, |octets| u64::from_le_bytes(*octets));
    if frame[..FRAME.len()] != FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it was not packed by ringpost"));
    }
    Ok(Extent { events: number(16), octets: number(24) })
}

/// Packs a complete file; the plain one goes.
pub fn pack(folder: &Path, number: u32) -> io::Result<Extent> {
    let (plain, packed) = (path_of(folder, number, Form::Plain), path_of(folder, number, Form::Packed));
    let extent = extent(folder, number, Form::Plain)?;
    let half = packed.with_extension("zst.new");
    if let Err(error) = write_packed(&plain, &half, extent) {
        let _ = fs::remove_file(&half);
        return Err(error);
    }
    fs::rename(&half, &packed)?;
    File::open(folder)?.sync_all()?;
    fs::remove_file(&plain)?;
    Ok(extent)
}

fn write_packed(plain: &Path, half: &Path, extent: Extent) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(half)?;
    file.write_all(&FRAME)?;
    file.write_all(&extent.events.to_le_bytes())?;
    file.write_all(&extent.octets.to_le_bytes())?;
    let mut encoder = zstd::Encoder::new(file, LEVEL)?;
    encoder.include_checksum(true)?;
    io::copy(&mut File::open(plain)?, &mut encoder)?;
    let file = encoder.finish()?;
    file.sync_all()?;
    file.set_permissions(Permissions::from_mode(0o400))
}

/// What is in a file, from an offset of its unpacked contents on.
pub enum Source {
    Plain(File),
    Packed(Box<zstd::Decoder<'static, BufReader<File>>>),
}

impl Source {
    /// `None`: there is no such file.
    pub fn open(folder: &Path, number: u32, offset: u64) -> io::Result<Option<Source>> {
        match File::open(path_of(folder, number, Form::Plain)) {
            Ok(mut file) => {
                io::Seek::seek(&mut file, io::SeekFrom::Start(offset))?;
                Ok(Some(Source::Plain(file)))
            }
            // It may have been packed just now: then it is there under its other name already.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Source::open_packed(&path_of(folder, number, Form::Packed), offset)
            }
            Err(error) => Err(error),
        }
    }

    fn open_packed(path: &Path, offset: u64) -> io::Result<Option<Source>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut decoder = zstd::Decoder::new(file)?;
        io::copy(&mut (&mut decoder).take(offset), &mut io::sink())?;
        Ok(Some(Source::Packed(Box::new(decoder))))
    }

    pub fn is_complete(&self) -> io::Result<bool> {
        match self {
            Source::Plain(file) => is_complete(file),
            Source::Packed(_) => Ok(true),
        }
    }

    pub fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Source::Plain(file) => file.read(into),
            Source::Packed(decoder) => decoder.read(into),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_start_completes_what_was_left_and_begins_a_new_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        assert_eq!(prepare(path, 0).unwrap(), 1);
        fs::write(path_of(path, 1, Form::Plain), "a\n").unwrap();
        fs::write(path.join("00000001.jsonl.zst.new"), "half").unwrap();
        assert_eq!(prepare(path, 0).unwrap(), 2);
        assert!(is_complete(&File::open(path_of(path, 1, Form::Plain)).unwrap()).unwrap());
        // The second life wrote nothing.
        assert_eq!(prepare(path, 7).unwrap(), 8);
        assert_eq!(names(path), ["00000001.jsonl", "00000008.jsonl"]);
        assert_eq!(list(path).unwrap(), [(1, Form::Plain), (8, Form::Plain)]);
        assert_eq!(next_after(path, 1).unwrap(), Some(8));
    }

    #[test]
    fn packed_file_says_how_much_is_in_it_and_unpacks_from_any_offset() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let text: String = (0..1000).map(|number| format!("line {number}\n")).collect();
        fs::write(path_of(path, 3, Form::Plain), &text).unwrap();
        complete(path, 3).unwrap();
        let extent_before = extent(path, 3, Form::Plain).unwrap();
        assert_eq!(pack(path, 3).unwrap(), extent_before);
        assert_eq!(
            extent(path, 3, Form::Packed).unwrap(),
            Extent { events: 1000, octets: text.len() as u64 }
        );
        assert_eq!(names(path), ["00000003.jsonl.zst"]);
        for offset in [0, 7, text.len(), text.len() + 5] {
            let mut source = Source::open(path, 3, offset as u64).unwrap().unwrap();
            let (mut found, mut chunk) = (Vec::new(), [0; 100]);
            while let Ok(len @ 1..) = source.read(&mut chunk) {
                found.extend_from_slice(&chunk[..len]);
            }
            assert_eq!(found, &text.as_bytes()[offset.min(text.len())..]);
        }
        assert!(Source::open(path, 4, 0).unwrap().is_none());
    }

    #[test]
    fn names_that_are_not_ours_are_left_alone() {
        for name in
            ["1.jsonl", "00000001.json", "0000000a.jsonl", "+0000001.jsonl", "00000001.jsonl.gz", "a.cursor"]
        {
            assert_eq!(number_of(name), None, "{name}");
        }
    }
}
