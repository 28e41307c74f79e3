//! What is kept of campaigns on disk, below `QUEUE/campaigns`: one folder each, named by its number in five digits.
//!
//! | file | what |
//! |---|---|
//! | `campaign.json` | an [`Entry`]: who it is, its terms, its phase, its counts; written anew as a whole, under another name first |
//! | `content` | what everybody gets, as it came; written and synced before the first `campaign.json` |
//! | `keys/` | a key for each recipient that was ever added, and one for each message that took recipients in ([`keyset`](crate::keyset)) |
//!
//! A recipient is added once, whatever crashes: its message becomes durable first, then, in one sync, its key and the
//! message's, and only then the message goes out and the client hears of it. A start that finds a message whose key is not
//! there takes its recipients up ([`Books::learn`]) before anybody is heard.
//!
//! Trusts what it reads no further than its checksums. Bounds: `campaigns_max` folders, [`KEYS_MAX`] keys in each; of
//! those that were used of late, 1.6 octets of memory a key and two tables of [`DELTA_MAX`] changes.

use super::{Phase, Saved};
use crate::clock;
use crate::keyset::{Key, KeySet, KeySetError, Options, Value};
use message::address::shown_domain;
use message::{CampaignNumber, MailboxRef, MessageId, UnixMillis};
use parking_lot::Mutex;
use queue::log::record::{Head, Meta, NameAt, next_name};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is written now, and the newest that is read.
const FORMAT: u16 = 1;

/// Keys of a campaign: recipients, and the messages that took them in.
const KEYS_MAX: u64 = 100_000_000;

/// Changes in a table of a campaign's keys before it is written as a file. There are many campaigns, and each has tables of
/// its own: these have 1.5 MB at most, if no batch is larger.
const DELTA_MAX: usize = 1 << 14;

/// What a key stands for.
const RECIPIENT: u8 = 1;
const MESSAGE: u8 = 2;

/// A campaign as its file has it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub format: u16,
    pub id: String,
    /// Milliseconds since 1970.
    pub created: u64,
    /// When this was last written: somebody was added, served, or gave an order.
    #[serde(default)]
    pub changed: u64,
    /// Without brackets; empty for `<>`.
    pub sender: String,
    /// Its two delimiters, as records have them.
    pub verp: Option<[u8; 2]>,
    pub lane: Option<String>,
    pub list: Option<String>,
    pub unsubscribe: bool,
    pub is_template: bool,
    /// Values for whoever brings none of his own.
    pub shared: BTreeMap<String, String>,
    pub phase: Phase,
    /// As the configuration writes rates: `100/s`.
    pub rate: Option<String>,
    pub counts: Saved,
    pub content_len: u64,
    pub content_crc: u32,
    /// Of what the client sent as content, before anything was added: by it a campaign is known again.
    pub source_crc: u32,
}

/// What an operator would look at.
#[derive(Debug, thiserror::Error)]
pub enum BooksError {
    #[error("{path}: {source}", path = .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: {what}; bring it back from a copy, or remove the folder if nothing of the campaign is queued", path = .path.display())]
    Damaged { path: PathBuf, what: String },
    #[error("{path}: format {found} is newer than this program reads", path = .path.display())]
    TooNew { path: PathBuf, found: u16 },
    #[error(transparent)]
    Keys(#[from] KeySetError),
}

impl BooksError {
    /// True if trying again is no use.
    pub fn is_the_operators(&self) -> bool {
        matches!(self, BooksError::Damaged { .. } | BooksError::TooNew { .. })
    }
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> BooksError + use<> {
    let path = path.to_owned();
    move |source| BooksError::Io { path: path.clone(), source }
}

/// See the module. One per process.
#[derive(Debug)]
pub struct Books {
    folder: PathBuf,
    secret: [u8; 32],
    keys: Mutex<BTreeMap<CampaignNumber, Opened>>,
}

/// Keys of a campaign that is added to, or was of late.
#[derive(Debug)]
struct Opened {
    keys: Arc<Mutex<KeySet>>,
    used: Instant,
}

/// A campaign that was found at the start.
#[derive(Debug)]
pub struct Found {
    pub number: CampaignNumber,
    pub entry: Entry,
    pub content: Vec<u8>,
}

/// Where the letter of that campaign stands.
pub fn letter_path(queue: &Path, number: CampaignNumber) -> PathBuf {
    queue.join(format!("campaigns/{:05}/content", number.0))
}

impl Books {
    /// `secret` is the queue's: what keys are made with.
    pub fn new(queue: &Path, secret: &[u8; 32]) -> Books {
        let secret = blake3::derive_key("ringpost 2026-11-30 keys of a campaign's recipients", secret);
        Books { folder: queue.join("campaigns"), secret, keys: Mutex::default() }
    }

    /// Everything that is there. A folder without its first `campaign.json` was being made when we died: nobody was told of it.
    pub fn read(&self) -> Result<Vec<Found>, BooksError> {
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_error(&self.folder)(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(io_error(&self.folder))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let number = name.filter(|name| name.len() == 5).and_then(|name| name.parse().ok());
            let Some(number) = number.map(CampaignNumber) else { continue };
            if path.join("campaign.json").exists() {
                found.push(read_one(number, &path)?);
            } else {
                std::fs::remove_dir_all(&path).map_err(io_error(&path))?;
            }
        }
        found.sort_by_key(|found| found.number);
        Ok(found)
    }

    fn path(&self, number: CampaignNumber) -> PathBuf {
        self.folder.join(format!("{:05}", number.0))
    }

    /// A new campaign: durable when this returns.
    pub fn create(&self, number: CampaignNumber, entry: &Entry, content: &[u8]) -> Result<(), BooksError> {
        let path = self.path(number);
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(io_error(&path))?;
        write_whole(&path.join("content"), content)?;
        self.save(number, entry)?;
        sync_folder(&self.folder)?;
        self.folder.parent().map_or(Ok(()), sync_folder)
    }

    /// The entry as it is now: durable when this returns.
    pub fn save(&self, number: CampaignNumber, entry: &Entry) -> Result<(), BooksError> {
        let path = self.path(number);
        let text = serde_json::to_vec_pretty(entry).map_err(|error| io_error(&path)(error.into()))?;
        let (half, whole) = (path.join("campaign.new"), path.join("campaign.json"));
        write_whole(&half, &text)?;
        std::fs::rename(&half, &whole).map_err(io_error(&whole))?;
        sync_folder(&path)
    }

    /// Nothing of it is owed, and nobody wants to know of it any more.
    pub fn remove(&self, number: CampaignNumber) -> Result<(), BooksError> {
        self.keys.lock().remove(&number);
        let path = self.path(number);
        // Without it the rest is nothing.
        let entry = path.join("campaign.json");
        std::fs::remove_file(&entry).map_err(io_error(&entry))?;
        sync_folder(&path)?;
        std::fs::remove_dir_all(&path).map_err(io_error(&path))
    }

    // ---- keys ----

    /// The campaign's keys, opened when they are asked for. Whoever has them lets them go again soon.
    fn keys(&self, number: CampaignNumber) -> Result<Arc<Mutex<KeySet>>, BooksError> {
        let mut all = self.keys.lock();
        if let Some(opened) = all.get_mut(&number) {
            opened.used = clock::now();
            return Ok(Arc::clone(&opened.keys));
        }
        let owner = u64::from_le_bytes(
            self.hash(number, [b"owner", b""]).to_bytes()[..8].try_into().expect("8 of 16"),
        );
        let options = Options { delta_max: DELTA_MAX, ..Options::new(owner, KEYS_MAX) };
        let set = KeySet::open(&self.path(number).join("keys"), options)?;
        for place in set.damaged() {
            tracing::error!(place, "keys of a campaign are damaged: a recipient may be added twice");
        }
        let keys = Arc::new(Mutex::new(set));
        all.insert(number, Opened { keys: Arc::clone(&keys), used: clock::now() });
        Ok(keys)
    }

    /// Lets go of the memory of keys that nobody has asked for within that time.
    pub fn close_unused(&self, within: Duration) {
        let (mut all, now) = (self.keys.lock(), clock::now());
        let is_old = |opened: &Opened| {
            now.duration_since(opened.used) >= within && Arc::strong_count(&opened.keys) == 1
        };
        let old: Vec<CampaignNumber> =
            all.iter().filter(|(_, opened)| is_old(opened)).map(|(number, _)| *number).collect();
        for number in old {
            // While nobody can open them a second time: a set has one writer.
            drop(all.remove(&number));
        }
    }

    fn hash(&self, number: CampaignNumber, parts: [&[u8]; 2]) -> Key {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        hasher.update(&number.0.get().to_le_bytes()).update(parts[0]).update(&[0]).update(parts[1]);
        let hash = hasher.finalize();
        Key::from_bytes(*hash.as_bytes().first_chunk().expect("16 of 32"))
    }

    /// Two addresses are one recipient if their domains differ in case alone: what is before the @ is the host's to read
    /// (RFC 5321 §2.4), and a list that has it twice in two ways means two.
    pub fn key_of(&self, number: CampaignNumber, mailbox: MailboxRef<'_>) -> Key {
        let domain = mailbox.domain.to_lowercase();
        self.hash(number, [mailbox.local_part.as_bytes(), domain.as_bytes()])
    }

    fn key_of_message(&self, number: CampaignNumber, id: MessageId) -> Key {
        // No local part has a NUL.
        self.hash(number, [b"\0message", &id.0.to_le_bytes()])
    }

    /// Which of them were added before.
    pub fn known(&self, number: CampaignNumber, keys: &[Key]) -> Result<Vec<bool>, BooksError> {
        let set = self.keys(number)?;
        let mut reader = set.lock().reader();
        reader.refresh();
        let path = self.path(number);
        keys.iter()
            .map(|key| reader.get(*key).map(|found| found.is_some()).map_err(io_error(&path)))
            .collect()
    }

    /// The message with these recipients is durable: so are they now.
    pub fn note(
        &self,
        number: CampaignNumber,
        id: MessageId,
        keys: &[Key],
        at: UnixMillis,
    ) -> Result<(), BooksError> {
        use crate::keyset::Change;
        let at_secs = u32::try_from(at.seconds()).unwrap_or(u32::MAX);
        let add = |key, kind| Change::Add { key, value: Value { kind, at_secs }, note: &[] };
        let mut changes: Vec<Change<'_>> = keys.iter().map(|key| add(*key, RECIPIENT)).collect();
        // Last: a part of them without it is a part that is taken up again.
        changes.push(add(self.key_of_message(number, id), MESSAGE));
        self.keys(number)?.lock().apply(&changes)?;
        Ok(())
    }

    /// True if the message's recipients are known. Asked of each that a start finds.
    pub fn knows(&self, number: CampaignNumber, id: MessageId) -> Result<bool, BooksError> {
        Ok(self.known(number, &[self.key_of_message(number, id)])? == [true])
    }

    /// The message was durable before a crash, and its recipients were not: now they are. `None` if `meta` is no meta part.
    pub fn learn(&self, number: CampaignNumber, head: &Head, meta: &[u8]) -> Option<Result<(), BooksError>> {
        let (parsed, mut keys) = (Meta::parse(meta, head.layout)?, Vec::new());
        for group in parsed.groups() {
            let domain = shown_domain(group.domain);
            let mut names = meta.get(group.name_offset as usize..)?;
            for _ in 0..group.count {
                let NameAt { name, rest, .. } = next_name(names, head.layout)?;
                keys.push(self.key_of(number, MailboxRef { local_part: name, domain }));
                names = rest;
            }
        }
        let is_whole = keys.len() == head.recipients as usize;
        is_whole.then(|| self.note(number, head.id, &keys, head.arrived))
    }

    /// How many recipients more it takes, in one message.
    pub fn room(&self, number: CampaignNumber) -> Result<u64, BooksError> {
        let handle = self.keys(number)?.lock().handle();
        Ok(KEYS_MAX.saturating_sub(handle.stat().counts.sum() + 1))
    }

    /// Recipients that were ever added.
    pub fn recipients(&self, number: CampaignNumber) -> Result<u64, BooksError> {
        let handle = self.keys(number)?.lock().handle();
        Ok(handle.stat().counts.0[usize::from(RECIPIENT)])
    }
}

fn read_one(number: CampaignNumber, path: &Path) -> Result<Found, BooksError> {
    let file = path.join("campaign.json");
    let text = std::fs::read(&file).map_err(io_error(&file))?;
    let damaged = |what: String| BooksError::Damaged { path: file.clone(), what };
    let json: serde_json::Value =
        serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    let format = json.get("format").and_then(serde_json::Value::as_u64).unwrap_or(0);
    if let Some(found) = u16::try_from(format).ok().filter(|found| *found > FORMAT) {
        return Err(BooksError::TooNew { path: file, found });
    }
    let entry: Entry = serde_json::from_value(json).map_err(|error| damaged(error.to_string()))?;
    let place = path.join("content");
    let content = std::fs::read(&place).map_err(io_error(&place))?;
    if content.len() as u64 != entry.content_len || crc32c(&content) != entry.content_crc {
        return Err(BooksError::Damaged { path: place, what: "is not what was written".to_owned() });
    }
    Ok(Found { number, entry, content })
}

/// The checksum of contents.
pub fn crc32c(bytes: &[u8]) -> u32 {
    queue::log::record::checksum(bytes)
}

/// The format that entries are written in.
pub const fn format() -> u16 {
    FORMAT
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), BooksError> {
    let write = || {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(io_error(path))
}

fn sync_folder(path: &Path) -> Result<(), BooksError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(io_error(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use message::{Envelope, Recipients, ReversePath};
    use queue::log::record::{Bound, Layout, Location, NewMessage, encode, meta_of};
    use std::num::NonZeroU16;

    const NUMBER: CampaignNumber = CampaignNumber(NonZeroU16::MIN);

    fn entry(content: &[u8]) -> Entry {
        Entry {
            format: FORMAT,
            id: "spring".to_owned(),
            created: 7,
            changed: 8,
            sender: "news@here.test".to_owned(),
            verp: Some(*b"+="),
            lane: None,
            list: Some("news".to_owned()),
            unsubscribe: true,
            is_template: true,
            shared: BTreeMap::from([("town".to_owned(), "Ulm".to_owned())]),
            phase: Phase::Paused,
            rate: Some("100/s".to_owned()),
            counts: Saved::default(),
            content_len: content.len() as u64,
            content_crc: crc32c(content),
            source_crc: 0,
        }
    }

    fn books() -> (tempfile::TempDir, Books) {
        let folder = tempfile::tempdir().unwrap();
        let books = Books::new(folder.path(), &[7; 32]);
        books.create(NUMBER, &entry(b"hello\r\n"), b"hello\r\n").unwrap();
        (folder, books)
    }

    /// A message to these, as it stands in a segment.
    fn message(recipients: &[&str]) -> (Head, Vec<u8>) {
        let mut list = Recipients::new();
        recipients.iter().for_each(|to| list.push(MailboxRef::parse(to).unwrap()));
        let envelope = Envelope {
            reverse_path: ReversePath::Null,
            verp: None,
            body: message::BodyKind::SevenBit,
            smtputf8: false,
            requires_tls: false,
            lane: message::Lane::Bulk,
            asked: message::MailAsked::default(),
            recipients: list,
        };
        let meta = meta_of(&envelope);
        let new = NewMessage {
            meta: &meta,
            recipients: envelope.recipients.count(),
            layout: Layout::of(&envelope),
            body: envelope.body,
            smtputf8: false,
            requires_tls: false,
            lane: envelope.lane,
            class: message::Class { campaign: Some(NUMBER), ..message::Class::default() },
            content: b"",
            facts: message::ContentFacts::default(),
            arrived: UnixMillis(9_000),
            moved: None,
        };
        let id = MessageId::new(0, 9, 4096).unwrap();
        let head = encode(&new, id, Bound::new(Location::new(9, 4096), 4096, 1), &mut Vec::new());
        (head, meta)
    }

    fn keys_of(books: &Books, recipients: &[&str]) -> Vec<Key> {
        recipients.iter().map(|to| books.key_of(NUMBER, MailboxRef::parse(to).unwrap())).collect()
    }

    #[test]
    fn campaign_comes_back_as_it_was_written() {
        let (folder, books) = books();
        let changed = Entry { phase: Phase::Cancelled, ..entry(b"hello\r\n") };
        books.save(NUMBER, &changed).unwrap();
        let found = Books::new(folder.path(), &[7; 32]).read().unwrap();
        assert_eq!((found.len(), found[0].number, &found[0].entry), (1, NUMBER, &changed));
        assert_eq!(found[0].content, b"hello\r\n");
        books.remove(NUMBER).unwrap();
        assert!(books.read().unwrap().is_empty());
    }

    #[test]
    fn keys_that_nobody_asks_for_are_closed_and_opened_again() {
        let (_folder, books) = books();
        let keys = keys_of(&books, &["ann@a.test"]);
        let (head, _) = message(&["ann@a.test"]);
        books.note(NUMBER, head.id, &keys, UnixMillis(9_000)).unwrap();
        let held = books.keys(NUMBER).unwrap();
        books.close_unused(Duration::ZERO);
        assert_eq!(books.keys.lock().len(), 1, "who has them is their only writer");
        drop(held);
        books.close_unused(Duration::from_secs(60));
        assert_eq!(books.keys.lock().len(), 1, "they were asked for just now");
        books.close_unused(Duration::ZERO);
        assert!(books.keys.lock().is_empty());
        assert_eq!(books.known(NUMBER, &keys).unwrap(), [true]);
        assert_eq!(books.recipients(NUMBER).unwrap(), 1);
    }

    #[test]
    fn what_a_crash_left_half_made_is_no_campaign() {
        let (folder, books) = books();
        let half = folder.path().join("campaigns/00002");
        std::fs::create_dir(&half).unwrap();
        std::fs::write(half.join("content"), "x").unwrap();
        assert_eq!(books.read().unwrap().len(), 1);
        assert!(!half.exists());
    }

    #[test]
    fn damage_and_newer_formats_are_refused_by_the_name_of_their_file() {
        let (folder, books) = books();
        let path = folder.path().join("campaigns/00001");
        std::fs::write(path.join("content"), "hellO\r\n").unwrap();
        let error = books.read().unwrap_err();
        assert!(error.is_the_operators() && error.to_string().contains("00001/content"), "{error}");
        let newer = std::fs::read_to_string(path.join("campaign.json"))
            .unwrap()
            .replace("\"format\": 1", "\"format\": 2");
        std::fs::write(path.join("campaign.json"), newer).unwrap();
        assert!(matches!(books.read(), Err(BooksError::TooNew { found: 2, .. })));
    }

    #[test]
    fn a_message_that_a_crash_kept_out_is_learnt_once_and_its_recipients_are_known() {
        let (folder, books) = books();
        let everybody = ["ann@A.test", "bob@b.test", "ann@b.test"];
        let (head, meta) = message(&everybody);
        assert!(!books.knows(NUMBER, head.id).unwrap());
        books.learn(NUMBER, &head, &meta).unwrap().unwrap();
        drop(books);
        let books = Books::new(folder.path(), &[7; 32]);
        assert!(books.knows(NUMBER, head.id).unwrap());
        let asked = ["ann@a.test", "bob@b.test", "ann@b.test", "Ann@a.test"];
        assert_eq!(books.known(NUMBER, &keys_of(&books, &asked)).unwrap(), [true, true, true, false]);
        assert_eq!(books.recipients(NUMBER).unwrap(), 3);
        assert!(books.learn(NUMBER, &head, &meta[..meta.len() - 2]).is_none());
    }
}
