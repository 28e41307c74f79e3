//! What lies in a Maildir, as its file names say, in the order in which a session numbers it.
//!
//! A name is `UNIQUE:INFO`. The unique part stays when flags change and when a message moves from `new` to `cur`, so it is
//! what a message is known by, here and in UIDL. It begins with the second of the delivery, which is the order of the
//! list, and may say in `,S=` how long the file is and in `,W=` how long it is with CR LF line ends. These are believed,
//! unless they contradict one another: whoever can write them can also write the mail.
//!
//! Pure: the caller reads the folders. Bound: [`MESSAGES_MAX`]; past it the newest are not listed until others have gone.

/// Messages of a session. A name and its entry take about 100 octets.
pub const MESSAGES_MAX: usize = 100_000;

/// Octets of a unique-id (RFC 1939 §7), all of them printable.
const UID_MAX: usize = 70;

/// Where a message lies.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Folder {
    Cur,
    New,
}

impl Folder {
    pub const ALL: [Folder; 2] = [Folder::New, Folder::Cur];

    pub fn name(self) -> &'static str {
        match self {
            Folder::Cur => "cur",
            Folder::New => "new",
        }
    }
}

/// A file of a Maildir.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    pub folder: Folder,
    pub name: Box<[u8]>,
}

impl Entry {
    /// What stays of the name.
    pub fn unique(&self) -> &[u8] {
        unique(&self.name)
    }

    /// Octets of the file, as the name says.
    pub fn file_len(&self) -> Option<u64> {
        field(self.unique(), b"S=")
    }

    /// Octets that are sent, as the name says.
    pub fn wire_len(&self) -> Option<u64> {
        let wire_len = field(self.unique(), b"W=")?;
        let is_possible = |file_len: u64| (file_len..=file_len.saturating_mul(2)).contains(&wire_len);
        self.file_len().is_none_or(is_possible).then_some(wire_len)
    }

    /// The order of the list.
    fn key(&self) -> (u64, &[u8], Folder, &[u8]) {
        (second(self.unique()), self.unique(), self.folder, &self.name)
    }
}

/// What stays of a file's name when its flags change.
pub fn unique(name: &[u8]) -> &[u8] {
    name.split(|octet| *octet == b':').next().unwrap_or_default()
}

/// When it was delivered; 0 if the name does not say.
fn second(unique: &[u8]) -> u64 {
    digits(unique).unwrap_or(0)
}

/// The number at the beginning.
fn digits(text: &[u8]) -> Option<u64> {
    let len = text.iter().take_while(|octet| octet.is_ascii_digit()).count();
    std::str::from_utf8(&text[..len]).ok()?.parse().ok()
}

/// The number in the part `KEY=NUMBER`.
fn field(unique: &[u8], key: &[u8]) -> Option<u64> {
    let mut parts = unique.split(|octet| *octet == b',').skip(1);
    let value = parts.find_map(|part| part.strip_prefix(key))?;
    digits(value).filter(|_| value.iter().all(u8::is_ascii_digit))
}

/// Files as they are found.
#[derive(Debug, Default)]
pub struct Found(Vec<Entry>);

impl Found {
    /// Dot files are none of ours.
    pub fn add(&mut self, folder: Folder, name: &[u8]) {
        if name.is_empty() || name.starts_with(b".") {
            return;
        }
        self.0.push(Entry { folder, name: name.into() });
        if self.0.len() >= 2 * MESSAGES_MAX {
            self.settle();
        }
    }

    /// In the order of the list. Of a message that is found twice, as it moves or is linked, one is left.
    pub fn into_entries(mut self) -> Vec<Entry> {
        self.settle();
        self.0
    }

    fn settle(&mut self) {
        self.0.sort_unstable_by(|a, b| a.key().cmp(&b.key()));
        self.0.dedup_by(|later, earlier| later.unique() == earlier.unique());
        self.0.truncate(MESSAGES_MAX);
    }
}

/// The list of a session: it stays as it was when the session opened it.
#[derive(Debug, Default)]
pub struct Maildrop {
    messages: Vec<Message>,
}

/// A message and whether it goes at the end.
#[derive(Debug)]
struct Message {
    entry: Entry,
    len: u64,
    is_marked: bool,
}

impl Maildrop {
    /// Each with the octets that are sent for it.
    pub fn new(messages: impl IntoIterator<Item = (Entry, u64)>) -> Maildrop {
        let messages = messages.into_iter().map(|(entry, len)| Message { entry, len, is_marked: false });
        Maildrop { messages: messages.take(MESSAGES_MAX).collect() }
    }

    pub fn entry(&self, index: usize) -> Option<&Entry> {
        self.messages.get(index).map(|message| &message.entry)
    }

    pub(crate) fn count(&self) -> usize {
        self.messages.len()
    }

    pub(crate) fn is_marked(&self, index: usize) -> bool {
        self.messages[index].is_marked
    }

    pub(crate) fn mark(&mut self, index: usize) {
        self.messages[index].is_marked = true;
    }

    pub(crate) fn unmark_all(&mut self) {
        self.messages.iter_mut().for_each(|message| message.is_marked = false);
    }

    pub(crate) fn marked(&self) -> Vec<usize> {
        (0..self.count()).filter(|index| self.is_marked(*index)).collect()
    }

    pub(crate) fn len_of(&self, index: usize) -> u64 {
        self.messages[index].len
    }

    /// Messages that are not marked, and their octets.
    pub(crate) fn sum(&self) -> (usize, u64) {
        let left = self.messages.iter().filter(|message| !message.is_marked);
        left.fold((0, 0), |(count, len), message| (count + 1, len.saturating_add(message.len)))
    }

    /// The unique part where it may stand in a reply, else its hash.
    pub(crate) fn uid_of(&self, index: usize) -> String {
        let unique = self.messages[index].entry.unique();
        let is_legal = unique.len() <= UID_MAX && unique.iter().all(u8::is_ascii_graphic);
        match std::str::from_utf8(unique) {
            Ok(text) if is_legal => text.to_owned(),
            _ => blake3::hash(unique).to_hex().to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> Entry {
        Entry { folder: Folder::New, name: name.as_bytes().into() }
    }

    fn names(found: &[(Folder, &str)]) -> Vec<String> {
        let mut all = Found::default();
        found.iter().for_each(|(folder, name)| all.add(*folder, name.as_bytes()));
        let entries = all.into_entries();
        entries.iter().map(|entry| format!("{}/{}", entry.folder.name(), entry.name.escape_ascii())).collect()
    }

    #[test]
    fn messages_stand_by_time_then_name() {
        let found = [
            (Folder::Cur, "1000.b.host:2,S"),
            (Folder::New, "999.z.host"),
            (Folder::New, "1000.a.host"),
            (Folder::New, "odd"),
            (Folder::New, ".hidden"),
            (Folder::New, "99999999999999999999.far"),
        ];
        let wanted = [
            "new/99999999999999999999.far",
            "new/odd",
            "new/999.z.host",
            "new/1000.a.host",
            "cur/1000.b.host:2,S",
        ];
        assert_eq!(names(&found), wanted);
    }

    #[test]
    fn a_message_that_moves_is_listed_once() {
        let found =
            [(Folder::New, "1.a"), (Folder::New, "2.a"), (Folder::Cur, "1.a:2,"), (Folder::Cur, "1.a:2,S")];
        assert_eq!(names(&found), ["cur/1.a:2,", "new/2.a"]);
    }

    #[test]
    fn sizes_in_names_are_believed_if_they_can_be_true() {
        let sizes = |name: &str| (entry(name).file_len(), entry(name).wire_len());
        assert_eq!(sizes("1.M2P3.host,S=100,W=103:2,S"), (Some(100), Some(103)));
        assert_eq!(sizes("1.host,W=103"), (None, Some(103)));
        assert_eq!(sizes("1.host,S=100,W=99"), (Some(100), None));
        assert_eq!(sizes("1.host,S=100,W=201"), (Some(100), None));
        assert_eq!(sizes("1.host,S=1x,W=:2,W=7"), (None, None));
        assert_eq!(sizes("W=5"), (None, None));
    }

    #[test]
    fn uids_are_legal_and_of_the_unique_part() {
        let uid = |name: &str| Maildrop::new([(entry(name), 0)]).uid_of(0);
        assert_eq!(uid("1.a.host:2,S"), "1.a.host");
        assert_eq!(uid("1.a.host"), "1.a.host");
        let long = "1".repeat(71);
        for odd in [long.as_str(), "a b", "\u{e4}", "a\x7f"] {
            assert_eq!(uid(odd).len(), 64, "{odd}");
            assert_eq!(uid(odd), uid(&format!("{odd}:2,S")));
        }
        assert_eq!(uid(&long[..70]), &long[..70]);
    }

    #[test]
    fn past_the_bound_the_newest_are_not_listed() {
        let mut found = Found::default();
        for second in (0..2 * MESSAGES_MAX + 7).rev() {
            found.add(Folder::New, format!("{second}.a").as_bytes());
        }
        let entries = found.into_entries();
        assert_eq!(entries.len(), MESSAGES_MAX);
        assert_eq!((&*entries[0].name, second(entries.last().unwrap().unique())), (&b"0.a"[..], 99_999));
    }

    #[test]
    fn sums_leave_out_what_is_marked_and_do_not_overflow() {
        let mut maildrop = Maildrop::new([(entry("1"), u64::MAX), (entry("2"), 5), (entry("3"), 1)]);
        assert_eq!(maildrop.sum(), (3, u64::MAX));
        maildrop.mark(0);
        assert_eq!((maildrop.sum(), maildrop.marked()), ((2, 6), vec![0]));
        maildrop.unmark_all();
        assert!(maildrop.marked().is_empty());
    }
}
