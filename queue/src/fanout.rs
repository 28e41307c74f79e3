//! Turns ranges into deliveries: reads names in windows, hands out one recipient at a time.
//!
//! A list of a million stays on disk; a range at work holds one window of its names. A window may end inside a name
//! or before the range does: then the next one is asked for. Bound: [`WINDOW_LEN`] bytes of names per open range.

use crate::log::record::{asked_of, next_name};
use crate::range::Range;
use bytes::Bytes;
use message::{
    Class, ContentFacts, Lane, MailAsked, MessageId, RecipientAsked, ReversePath, UnixMillis, Verp,
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

/// A message ready to be sent: what its deliveries share, on whatever core.
#[derive(Debug)]
pub struct Letter {
    pub id: MessageId,
    pub reverse_path: ReversePath,
    pub verp: Option<Verp>,
    pub smtputf8: bool,
    /// It may only go over connections whose peer is known and which are encrypted (RFC 8689).
    pub requires_tls: bool,
    pub lane: Lane,
    pub class: Class,
    /// What its sender asked to be told; there if something stands with each name too (RFC 3461).
    pub asked: Option<MailAsked>,
    pub facts: ContentFacts,
    pub arrived: UnixMillis,
    pub content: Bytes,
    stuffed: OnceLock<Bytes>,
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
            asked: None,
            facts,
            arrived,
            content,
            stuffed: OnceLock::new(),
            list: OnceLock::new(),
        }
    }

    /// As [`Letter::new`] makes it, of a message whose names have something behind them.
    #[must_use]
    pub fn with_asked(self, asked: Option<MailAsked>) -> Letter {
        Letter { asked, ..self }
    }

    /// The content as DATA needs it. Made once, and only if it differs.
    pub fn stuffed(&self) -> &Bytes {
        self.stuffed.get_or_init(|| Bytes::from(message::content::dot_stuff(&self.content)))
    }

    /// The list that it comes from, as its header says. Read once, and only if somebody asks.
    pub fn list(&self) -> Option<&str> {
        self.list.get_or_init(|| message::list_of(&self.content)).as_deref()
    }

    /// Bytes of memory held.
    pub fn len(&self) -> usize {
        self.content.len() + self.stuffed.get().map_or(0, Bytes::len) + size_of::<Letter>()
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
    /// Octets behind it that say what was asked about it.
    asked_len: u16,
}

const _: () = assert!(size_of::<Name>() <= 16);

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
        let (name, asked, _) = next_name(self.window.get(start as usize..)?, self.letter.asked.is_some())?;
        let len = u8::try_from(name.len()).expect("its length is one octet on disk");
        // No program of ours writes more than 503; what cannot be is a name that is not there.
        let asked_len = u16::try_from(asked.len()).ok()?;
        let Range { first, name_offset, .. } = self.range;
        let found = Name { index: first, offset: name_offset, start: start + 1, len, asked_len };
        self.range.first += 1;
        self.range.count -= 1;
        self.range.name_offset += 1 + u32::from(len) + u32::from(asked_len);
        Some(found)
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
            let letter = Arc::new(letter.with_asked(Some(MailAsked::default())));
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
