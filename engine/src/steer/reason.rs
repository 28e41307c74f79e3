//! Why recipients wait: each text once, and two octets of it in every range.
//!
//! Peers put numbers of their own into replies, so texts may be as many as deferrals: past [`TEXTS_FULL`] a new one
//! is kept by its codes alone, past [`REASONS_MAX`] it is "other". Bound: that many texts of [`REASON_TEXT_MAX`] octets;
//! none is forgotten before the next start, after which the table is empty and reasons are not known.

use message::Reply;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

/// Octets of a reply that are kept, codes included.
pub const REASON_TEXT_MAX: usize = 200;

/// Entries, the first ("not known") and the last ("other", [`RETURNED`] and [`PAUSED`]) included.
pub const REASONS_MAX: usize = (1 << 16) - 2;

/// From here on new replies are told apart by their codes only.
const TEXTS_FULL: usize = 64_000;

const OTHER: u16 = u16::MAX;

/// The key of what an operator sends back to its senders: it must never go out again.
pub const RETURNED: u16 = u16::MAX - 1;

/// The key of what waits because its campaign is paused.
pub const PAUSED: u16 = u16::MAX - 2;

/// See the module.
#[derive(Debug)]
pub struct Reasons {
    keys: HashMap<Arc<str>, u16>,
    texts: Vec<Arc<str>>,
    scratch: String,
}

impl Default for Reasons {
    fn default() -> Reasons {
        Reasons { keys: HashMap::new(), texts: vec!["".into()], scratch: String::new() }
    }
}

impl Reasons {
    /// The reply's key. One look-up; an allocation only for a text that is new.
    pub fn key(&mut self, reply: &Reply) -> u16 {
        let mut text = std::mem::take(&mut self.scratch);
        text.clear();
        let _ = write!(text, "{reply}");
        let mut end = text.len().min(REASON_TEXT_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        let key = self.key_of(&text).unwrap_or_else(|| self.key_by_codes(reply));
        self.scratch = text;
        key
    }

    fn key_of(&mut self, text: &str) -> Option<u16> {
        match self.keys.get(text) {
            Some(key) => Some(*key),
            None if self.texts.len() < TEXTS_FULL => Some(self.insert(text)),
            None => None,
        }
    }

    fn key_by_codes(&mut self, reply: &Reply) -> u16 {
        let text = Reply::new(reply.code, reply.enhanced, b"(other texts)").to_string();
        match self.keys.get(text.as_str()) {
            Some(key) => *key,
            None if self.texts.len() < REASONS_MAX - 1 => self.insert(&text),
            None => OTHER,
        }
    }

    fn insert(&mut self, text: &str) -> u16 {
        let key = u16::try_from(self.texts.len()).expect("fewer than REASONS_MAX");
        let text: Arc<str> = text.into();
        self.texts.push(Arc::clone(&text));
        self.keys.insert(text, key);
        key
    }

    /// Empty if it is not known.
    pub fn text(&self, key: u16) -> &str {
        let unlisted = match key {
            RETURNED => "returned by the operator",
            PAUSED => "the campaign is paused",
            _ => "other",
        };
        self.texts.get(usize::from(key)).map_or(unlisted, |text| text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_text_has_the_same_key_and_zero_says_nothing() {
        let mut reasons = Reasons::default();
        let (full, busy) = (Reply::ours(452, (4, 2, 2), "full"), Reply::ours(451, (4, 3, 0), "busy"));
        let keys = [reasons.key(&full), reasons.key(&busy), reasons.key(&full)];
        assert_eq!(keys, [1, 2, 1]);
        assert_eq!((reasons.text(1), reasons.text(0)), ("452 4.2.2 full", ""));
    }

    #[test]
    fn long_texts_are_cut_between_letters() {
        let mut reasons = Reasons::default();
        let key = reasons.key(&Reply::new(450, None, "é".repeat(200).as_bytes()));
        assert_eq!(reasons.text(key).len(), REASON_TEXT_MAX);
    }

    #[test]
    fn table_of_reasons_is_bounded_and_says_what_it_can() {
        let mut reasons = Reasons::default();
        for number in 0..70_000 {
            reasons.key(&Reply::ours(451, (4, 7, 1), &format!("try later {number}")));
        }
        assert_eq!(reasons.texts.len(), TEXTS_FULL + 1);
        let key = reasons.key(&Reply::ours(451, (4, 7, 1), "never heard"));
        assert_eq!(reasons.text(key), "451 4.7.1 (other texts)");
        for subject in 0..u16::MAX {
            reasons.key(&Reply::new(450, Some(message::EnhancedCode(4, subject, 0)), b"x"));
        }
        assert_eq!(reasons.texts.len(), REASONS_MAX - 1);
        let key = reasons.key(&Reply::ours(455, (4, 9, 9), "one too many"));
        assert_eq!(reasons.text(key), "other");
        assert_eq!(reasons.key(&Reply::ours(451, (4, 7, 1), "try later 5")), 6);
    }
}
