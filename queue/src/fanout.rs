//! Turns ranges into deliveries: reads names in windows, hands out one recipient at a time.
//!
//! A list of a million stays on disk; a range at work holds one window of its names. A window may end inside a name
//! or before the range does: then the next one is asked for. Bound: [`WINDOW_LEN`] bytes of names per open range.

use crate::log::record::{Layout, asked_of, next_name};
use crate::range::Range;
use bytes::Bytes;
use message::copies::Pattern;
use message::merge::{Template, fields};
use message::{
    Class, ContentFacts, Labels, Lane, MailAsked, MessageId, RecipientAsked, ReversePath, UnixMillis, Verp,
};
use std::sync::{Arc, OnceLock};

/// Bytes of names that are read at a time: some three thousand recipients.
pub const WINDOW_LEN: u32 = 64 * 1024;

/// How a message is to be treated, as decided when it came.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Handling {
    pub smtputf8: bool,
    /// RFC 8689.
    pub requires_tls: bool,
    pub lane: Lane,
    pub class: Class,
}

/// What goes out before a content, and how long that is good.
#[derive(Clone, Debug)]
pub struct Prefix {
    pub octets: Bytes,
    /// Whose it is; others, later, have another.
    pub tag: u32,
    pub until: UnixMillis,
}

static NO_OCTETS: Bytes = Bytes::new();

/// A message ready to be sent: what its deliveries share, on whatever core.
#[derive(Clone, Debug)]
pub struct Letter {
    pub id: MessageId,
    pub reverse_path: ReversePath,
    pub verp: Option<Verp>,
    pub smtputf8: bool,
    /// It may only go over connections whose peer is known and which are encrypted (RFC 8689).
    pub requires_tls: bool,
    pub lane: Lane,
    pub class: Class,
    /// How its names are read.
    layout: Layout,
    /// What its sender asked to be told; there if something stands with each name too (RFC 3461).
    pub asked: Option<MailAsked>,
    /// Names of its table's columns, as the merge reads them; there if each name has values.
    pub columns: Option<Bytes>,
    pub facts: ContentFacts,
    pub arrived: UnixMillis,
    pub content: Bytes,
    stuffed: OnceLock<Bytes>,
    labels: OnceLock<Box<Labels>>,
    pattern: OnceLock<Option<Arc<Pattern>>>,
    prefix: OnceLock<Prefix>,
    list: OnceLock<Option<Box<str>>>,
}

impl Letter {
    pub fn new(
        (id, arrived): (MessageId, UnixMillis),
        (reverse_path, verp): (ReversePath, Option<Verp>),
        (content, facts): (Bytes, ContentFacts),
        Handling { smtputf8, requires_tls, lane, class }: Handling,
    ) -> Letter {
        Letter {
            id,
            reverse_path,
            verp,
            smtputf8,
            requires_tls,
            lane,
            class,
            layout: Layout::default(),
            asked: None,
            columns: None,
            facts,
            arrived,
            content,
            stuffed: OnceLock::new(),
            labels: OnceLock::new(),
            pattern: OnceLock::new(),
            prefix: OnceLock::new(),
            list: OnceLock::new(),
        }
    }

    /// As [`Letter::new`] makes it, with what more its meta part says. `layout` as its record has it.
    #[must_use]
    pub fn with_meta(self, layout: Layout, asked: Option<MailAsked>, columns: Option<&[u8]>) -> Letter {
        Letter { layout, asked, columns: columns.map(Bytes::copy_from_slice), ..self }
    }

    /// Each recipient gets a copy that is made from `pattern`, whatever the meta part says.
    #[must_use]
    pub fn with_pattern(self, pattern: Option<Arc<Pattern>>) -> Letter {
        match pattern {
            None => self,
            pattern => Letter { pattern: OnceLock::from(pattern), ..self },
        }
    }

    /// No two recipients may be in one transaction: each has a reverse-path or a content of its own.
    pub fn is_for_one_each(&self) -> bool {
        self.verp.is_some() || self.has_own_copies()
    }

    /// What goes out is made for each recipient from [`Letter::pattern`].
    pub fn has_own_copies(&self) -> bool {
        self.columns.is_some() || self.pattern.get().is_some()
    }

    /// What copies are made from. `None`: all get the content as it is, or, if [`Letter::has_own_copies`], it cannot be
    /// read as a template. A template is compiled once.
    pub fn pattern(&self) -> Option<&Arc<Pattern>> {
        if !self.has_own_copies() {
            return None;
        }
        self.pattern.get_or_init(|| self.compiled().map(Arc::new)).as_ref()
    }

    fn compiled(&self) -> Option<Pattern> {
        let columns: Vec<&str> = fields::decode(self.columns.as_ref()?).collect::<Result<_, _>>().ok()?;
        let bound = Template::compile(&self.content).ok()?.bind(&columns).ok()?;
        Some(Pattern::template(bound))
    }

    /// The content as DATA needs it. Made once, and only if it differs.
    pub fn stuffed(&self) -> &Bytes {
        self.stuffed.get_or_init(|| Bytes::from(message::content::dot_stuff(&self.content)))
    }

    /// What events call it by. Read from the header once, and only if somebody asks. `tenant_field` must be the same each time.
    pub fn labels(&self, tenant_field: &str) -> &Labels {
        self.labels.get_or_init(|| Box::new(Labels::of(&self.content, tenant_field)))
    }

    /// What goes out before the content in each delivery: nothing, until [`Letter::put_before`] was called.
    pub fn prefix(&self) -> &Bytes {
        self.prefix.get().map_or(&NO_OCTETS, |prefix| &prefix.octets)
    }

    pub fn has_prefix(&self) -> bool {
        self.prefix.get().is_some()
    }

    /// Makes what goes out before the content, unless some core has made it. Who comes while it is made waits for it.
    pub fn put_before(&self, make: impl FnOnce(&Bytes) -> Prefix) {
        self.prefix.get_or_init(|| make(&self.content));
    }

    /// True if what goes out before the content is not by the one with that tag, or no longer good.
    pub fn has_outdated_prefix(&self, tag: u32, now: UnixMillis) -> bool {
        self.prefix.get().is_some_and(|prefix| prefix.tag != tag || prefix.until <= now)
    }

    /// The same, and nothing goes before it. Shares the content.
    #[must_use]
    pub fn without_prefix(&self) -> Letter {
        Letter { prefix: OnceLock::new(), ..self.clone() }
    }

    /// Octets that go out: the content and what goes before it.
    pub fn sent_len(&self) -> u64 {
        (self.prefix().len() + self.content.len()) as u64
    }

    /// The list that it comes from, as its header says. Read once, and only if somebody asks.
    pub fn list(&self) -> Option<&str> {
        self.list.get_or_init(|| message::list_of(&self.content)).as_deref()
    }

    /// It comes from that list, whatever its header says.
    #[must_use]
    pub fn with_list(self, list: Option<&str>) -> Letter {
        match list {
            None => self,
            list => Letter { list: OnceLock::from(list.map(Into::into)), ..self },
        }
    }

    /// Bytes of memory held.
    pub fn len(&self) -> usize {
        self.content.len()
            + self.stuffed.get().map_or(0, Bytes::len)
            + self.prefix().len()
            + size_of::<Letter>()
    }

    pub fn is_empty(&self) -> bool {
        self.content.is_empty()
    }
}

/// One recipient, about to be delivered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Name {
    pub index: u32,
    pub offset: u32,
    /// Range of the name inside the window's bytes.
    start: u32,
    len: u8,
    /// Octets behind it that say what was asked about it, and behind those its values.
    asked_len: u16,
    values_len: u16,
}

const _: () = assert!(size_of::<Name>() <= 20);

impl Name {
    /// The local part; `window` is that of the [`OpenRange`] that handed the name out.
    pub fn text(self, window: &Bytes) -> &str {
        let start = self.start as usize;
        std::str::from_utf8(&window[start..start + usize::from(self.len)]).expect("next_name() checked it")
    }

    /// What was asked about the recipient.
    pub fn asked(self, window: &Bytes) -> RecipientAsked<'_> {
        if self.asked_len == 0 {
            return RecipientAsked::default();
        }
        let start = self.start as usize + usize::from(self.len);
        asked_of(&window[start..start + usize::from(self.asked_len)])
    }

    /// What its copy of the message is made with; empty if all copies are the same.
    pub fn values(self, window: &Bytes) -> &[u8] {
        if self.values_len == 0 {
            return &[];
        }
        let end = self.start as usize + usize::from(self.len) + usize::from(self.asked_len) + 2;
        &window[end..end + usize::from(self.values_len)]
    }

    /// As [`Name::text`] and [`Name::asked`], sharing the window's memory.
    pub fn addressee(self, window: &Bytes) -> Addressee {
        let start = self.start as usize;
        let len = usize::from(self.len) + usize::from(self.asked_len);
        Addressee { bytes: window.slice(start..start + len), len: self.len }
    }
}

/// Whom a verdict is about, apart from the domain: local part, and what was asked about it.
#[derive(Clone, Debug)]
pub struct Addressee {
    bytes: Bytes,
    /// Of the local part.
    len: u8,
}

impl Addressee {
    /// Stands for many, of whom nobody knows the name.
    pub const ANY: Addressee = Addressee { bytes: Bytes::from_static(b"*"), len: 1 };

    pub fn local_part(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).expect("next_name() checked it")
    }

    pub fn asked(&self) -> RecipientAsked<'_> {
        asked_of(&self.bytes[usize::from(self.len)..])
    }
}

/// A range whose names are at hand.
#[derive(Clone, Debug)]
pub struct OpenRange {
    range: Range,
    letter: Arc<Letter>,
    /// Names from some offset of the meta part on.
    window: Bytes,
    window_offset: u32,
}

impl OpenRange {
    /// `window` holds the meta part's bytes from `window_offset` on, at or before the range's first name.
    pub fn new(range: Range, letter: Arc<Letter>, window: Bytes, window_offset: u32) -> OpenRange {
        OpenRange { range, letter, window, window_offset }
    }

    pub fn letter(&self) -> &Arc<Letter> {
        &self.letter
    }

    /// `letter` has the same content.
    pub fn set_letter(&mut self, letter: Arc<Letter>) {
        self.letter = letter;
    }

    /// What is left of it.
    pub fn range(&self) -> Range {
        self.range
    }

    pub fn is_done(&self) -> bool {
        self.range.count == 0
    }

    /// The next recipient. `None`: the range is done, or its next name is beyond the window ([`Self::is_done`]
    /// tells which). No allocation.
    pub fn next_name(&mut self) -> Option<Name> {
        if self.range.count == 0 {
            return None;
        }
        let start = self.range.name_offset.checked_sub(self.window_offset)?;
        let bytes = self.window.get(start as usize..)?;
        let found = next_name(bytes, self.letter.layout)?;
        let len = u8::try_from(found.name.len()).expect("its length is one octet on disk");
        // No program of ours writes more than 503; what cannot be is a name that is not there.
        let asked_len = u16::try_from(found.asked.len()).ok()?;
        let values_len = u16::try_from(found.values.len()).expect("their length is two octets on disk");
        let whole_len = u32::try_from(bytes.len() - found.rest.len()).ok()?;
        let Range { first, name_offset, .. } = self.range;
        let name = Name { index: first, offset: name_offset, start: start + 1, len, asked_len, values_len };
        self.range.first += 1;
        self.range.count -= 1;
        self.range.name_offset += whole_len;
        Some(name)
    }

    /// The names at hand.
    pub fn window(&self) -> &Bytes {
        &self.window
    }

    /// The names at hand, and the place in the meta part where they begin.
    pub fn window_from(&self) -> (&Bytes, u32) {
        (&self.window, self.window_offset)
    }

    /// Gives away up to `count` recipients from the front as a range of their own, if their names are at hand.
    pub fn split(&mut self, count: u32) -> Option<OpenRange> {
        let mut part = self.clone();
        let before = self.range.count;
        while before - self.range.count < count && self.next_name().is_some() {}
        part.range.count = before - self.range.count;
        (part.range.count > 0).then_some(part)
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "sizes in these tests are small")]
mod tests {
    use super::*;
    use crate::range::{Attempts, DomainKey};
    use crate::store::MessageKey;

    fn open(names: &[&str], count: u32, cut: usize) -> OpenRange {
        let mut window = vec![0; 10];
        for name in names {
            window.push(name.len() as u8);
            window.extend_from_slice(name.as_bytes());
        }
        window.truncate(window.len() - cut);
        let letter = Letter::new(
            (MessageId(1), UnixMillis(0)),
            (ReversePath::Null, None),
            (Bytes::new(), ContentFacts::default()),
            Handling::default(),
        );
        let range = Range {
            message: MessageKey(0),
            domain: DomainKey(0),
            first: 7,
            count,
            name_offset: 110,
            attempts: Attempts::NONE,
            reason: 0,
        };
        OpenRange::new(range, Arc::new(letter), Bytes::from(window), 100)
    }

    fn drain(open: &mut OpenRange) -> Vec<(u32, String)> {
        std::iter::from_fn(|| open.next_name().map(|name| (name.index, name.text(open.window()).to_owned())))
            .collect()
    }

    #[test]
    fn what_goes_before_a_content_is_made_once_and_again_when_it_is_outdated() {
        let letter = Arc::clone(open(&["ann"], 1, 0).letter());
        assert!(letter.prefix().is_empty() && !letter.has_outdated_prefix(1, UnixMillis(0)));
        for octets in [&b"first"[..], b"second"] {
            let octets = Bytes::from_static(octets);
            letter.put_before(|_| Prefix { octets, tag: 1, until: UnixMillis(9) });
        }
        assert_eq!((&letter.prefix()[..], letter.sent_len()), (&b"first"[..], 5));
        assert!(!letter.has_outdated_prefix(1, UnixMillis(8)));
        assert!(letter.has_outdated_prefix(2, UnixMillis(8)) && letter.has_outdated_prefix(1, UnixMillis(9)));
        assert!(letter.without_prefix().prefix().is_empty());
    }

    #[test]
    fn names_come_in_order_with_their_indexes() {
        let mut open = open(&["ann", "bob", "cy"], 3, 0);
        assert_eq!(drain(&mut open), [(7, "ann".into()), (8, "bob".into()), (9, "cy".into())]);
        assert!(open.is_done());
    }

    #[test]
    fn name_cut_by_the_window_waits_for_the_next_window() {
        let mut open = open(&["ann", "bob", "cyril"], 5, 2);
        assert_eq!(drain(&mut open).len(), 2);
        assert!(!open.is_done());
        assert_eq!((open.range().first, open.range().count, open.range().name_offset), (9, 3, 118));
    }

    #[test]
    fn what_was_asked_comes_with_the_name_and_a_window_may_begin_at_any() {
        let mut window = b"\x03ann\x08\x00\x00".to_vec();
        let second = window.len();
        window.extend_from_slice(b"\x03bob\x05\x0c\x00rfc822;b@b.b");
        for (from, count) in [(0, 2), (second, 1)] {
            let plain = open(&["x"], count, 0);
            let letter = Letter::new(
                (MessageId(1), UnixMillis(0)),
                (ReversePath::Null, None),
                (Bytes::new(), ContentFacts::default()),
                Handling::default(),
            );
            let layout = Layout { asked: true, ..Layout::default() };
            let letter = Arc::new(letter.with_meta(layout, Some(MailAsked::default()), None));
            let range = Range { name_offset: from as u32, ..plain.range() };
            let names = Bytes::copy_from_slice(&window[from..]);
            let mut open = OpenRange::new(range, letter, names.clone(), from as u32);
            let found: Vec<Name> = std::iter::from_fn(|| open.next_name()).collect();
            assert_eq!(found.len(), count as usize);
            let last = found[found.len() - 1].addressee(&names);
            assert_eq!((last.local_part(), last.asked().notify.as_str()), ("bob", "SUCCESS,DELAY"));
            assert_eq!(last.asked().original.map(|original| original.as_str()), Some("rfc822;b@b.b"));
            let notify = found[0].asked(&names).notify.as_str();
            assert_eq!(notify, if count == 2 { "NEVER" } else { "SUCCESS,DELAY" });
        }
        assert_eq!(Addressee::ANY.asked(), RecipientAsked::default());
    }

    #[test]
    fn values_come_with_the_name_whose_they_are() {
        let window = Bytes::from_static(b"\x03ann\x03\x00Ann\x03bob\x00\x00");
        let plain = open(&["x"], 2, 0);
        let letter = Letter::new(
            (MessageId(1), UnixMillis(0)),
            (ReversePath::Null, None),
            (Bytes::new(), ContentFacts::default()),
            Handling::default(),
        );
        let layout = Layout { table: true, ..Layout::default() };
        let letter = Arc::new(letter.with_meta(layout, None, Some(b"name")));
        let mut open = OpenRange::new(Range { name_offset: 0, ..plain.range() }, letter, window.clone(), 0);
        let found: Vec<Name> = std::iter::from_fn(|| open.next_name()).collect();
        let values = found.iter().map(|name| (name.text(&window), name.values(&window)));
        assert!(values.eq([("ann", &b"Ann"[..]), ("bob", b"")]));
    }

    #[test]
    fn list_is_that_of_the_header() {
        let letter = |content: &'static [u8]| {
            Letter::new(
                (MessageId(1), UnixMillis(0)),
                (ReversePath::Null, None),
                (Bytes::from_static(content), ContentFacts::default()),
                Handling::default(),
            )
        };
        assert_eq!(letter(b"List-Id: News <news.a.test>\r\n\r\nx").list(), Some("news.a.test"));
        assert_eq!(letter(b"Subject: x\r\n\r\nList-Id: <no>\r\n").list(), None);
    }

    #[test]
    fn split_gives_away_the_front() {
        let mut rest = open(&["ann", "bob", "cy"], 3, 0);
        let mut part = rest.split(2).unwrap();
        assert_eq!(drain(&mut part).len(), 2);
        assert_eq!(drain(&mut rest), [(9, "cy".into())]);
        assert!(rest.split(1).is_none());
    }
}
