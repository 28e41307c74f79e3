//! What a list is called: the id of `List-Id` (RFC 2919), as a header says it and as an operator does.

use crate::class::HEADER_MAX;
use crate::header::fields;

/// Octets of a list's id (RFC 2919 §3).
pub const LIST_ID_MAX: usize = 255;

/// The list that a message comes from: the id in `List-Id`, else the value of `X-List`. One pass over the header, up to
/// [`HEADER_MAX`].
pub fn list_of(content: &[u8]) -> Option<Box<str>> {
    let (mut id, mut other) = (None, None);
    for field in fields(&content[..content.len().min(HEADER_MAX)]) {
        let value = || std::str::from_utf8(&field.whole[field.name.len() + 1..]).unwrap_or_default();
        if field.name.eq_ignore_ascii_case(b"list-id") {
            id.get_or_insert_with(value);
        } else if field.name.eq_ignore_ascii_case(b"x-list") {
            other.get_or_insert_with(value);
        }
    }
    let named = |text: Option<_>| text.and_then(list_id).filter(|id| !id.is_empty());
    named(id).or_else(|| named(other))
}

/// A list's id in the form in which equal ids are equal: what stands in the last angle brackets, if there are any, in lower
/// case. Empty stands for no list. `None`: too long, or with a character that no id has.
pub fn list_id(text: &str) -> Option<Box<str>> {
    let text = text.trim();
    let bare = text.strip_suffix('>').and_then(|text| text.rsplit_once('<')).map_or(text, |(_, id)| id);
    let id = bare.trim().to_lowercase();
    let is_legal =
        id.len() <= LIST_ID_MAX && !id.chars().any(|char| char.is_control() || "<>".contains(char));
    is_legal.then(|| id.into())
}

/// For the fuzzer: any octets as a message's header.
pub fn fuzz_list_id(bytes: &[u8]) {
    if let Some(id) = list_of(bytes) {
        assert!(!id.is_empty() && id.len() <= LIST_ID_MAX);
        assert_eq!(list_id(&id), Some(id.clone()), "an id is its own form");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(header: &str) -> Option<Box<str>> {
        list_of(header.as_bytes())
    }

    #[test]
    fn id_stands_in_the_last_angle_brackets() {
        assert_eq!(
            of("List-Id: The \"<x>\" List\r\n <News.Example.ORG>\r\n\r\n").as_deref(),
            Some("news.example.org")
        );
        assert_eq!(of("list-id: news.example.org \r\n\r\n").as_deref(), Some("news.example.org"));
        assert_eq!(of("X-List: weekly\r\nList-Id: <a.test>\r\n\r\n").as_deref(), Some("a.test"));
        assert_eq!(of("X-List: weekly\r\nList-Id: <>\r\n\r\n").as_deref(), Some("weekly"));
    }

    #[test]
    fn what_is_no_id_is_no_list() {
        for header in
            ["", "Subject: x\r\n\r\nList-Id: <a.test>\r\n", "List-Id: <>\r\n\r\n", "List-Id: a\x07b\r\n\r\n"]
        {
            assert_eq!(of(header), None, "{header:?}");
        }
        assert_eq!(list_id(&"x".repeat(256)), None);
        assert_eq!(list_id(" ").as_deref(), Some(""));
    }

    proptest! {
        #[test]
        fn fuzz_smoke(text in "\\PC{0,60}", bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            fuzz_list_id(format!("List-Id: {text}\r\n\r\n").as_bytes());
            fuzz_list_id(&[b"List-Id: <", bytes.as_slice(), b">\r\n\r\n"].concat());
        }
    }
}
