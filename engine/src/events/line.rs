//! What a reader must know of a line without reading JSON: where it begins, of what kind and from when it is.
//!
//! Lines of ours begin `{"id":"…","kind":"…","at":…`. A write that a full disk or a death cut short leaves a line without
//! its end, and the next writer's line follows on it: what a reader takes is what begins last, since those octets cannot
//! stand inside a line, where quotes are escaped. Trusts nothing: what does not begin so is damage, and skipped.

use super::Kind;
use memchr::memmem;

const BEGIN: &[u8] = b"{\"id\":\"";

/// See the module.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Head {
    /// Where the line begins among the octets that were looked at.
    pub start: usize,
    /// `None`: of a later version than we are.
    pub kind: Option<Kind>,
    pub at_ms: u64,
}

impl Head {
    /// `line` has its end.
    pub fn find(line: &[u8]) -> Option<Head> {
        let start = memmem::rfind(line, BEGIN)?;
        let rest = &line[start + BEGIN.len()..];
        let (id, rest) = rest.split_at_checked(16)?;
        let rest = rest.strip_prefix(b"\",\"kind\":\"")?;
        let (kind, rest) = rest.split_at(memchr::memchr(b'"', rest)?);
        let rest = rest.strip_prefix(b"\",\"at\":")?;
        let digits = rest.iter().take_while(|octet| octet.is_ascii_digit()).count();
        let at_ms = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
        let is_whole = id.iter().all(u8::is_ascii_hexdigit) && line.ends_with(b"}\n");
        let kind = std::str::from_utf8(kind).ok()?;
        is_whole.then_some(Head { start, kind: Kind::of_name(kind), at_ms })
    }
}

/// Lines that end in these octets.
pub fn count(octets: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', octets).count() as u64
}

/// For the fuzzer: any octets as a line.
pub fn fuzz_head(bytes: &[u8]) {
    if let Some(head) = Head::find(bytes) {
        assert!(bytes[head.start..].starts_with(BEGIN), "a line begins where it is said to");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{Event, Stamp};
    use message::{Reply, UnixMillis};
    use proptest::prelude::*;

    fn line(kind: Kind, text: &str) -> Vec<u8> {
        let (mut out, reply) = (Vec::new(), Reply::new(550, None, text.as_bytes()));
        let event = Event { reply: Some(&reply), campaign: text, ..Event::new(kind) };
        event.render(Stamp { id: Some(77), at: UnixMillis(1234) }, &mut out);
        out
    }

    #[test]
    fn a_line_of_a_later_version_is_a_line() {
        let later = b"{\"id\":\"0000000000000001\",\"kind\":\"opened\",\"at\":5}\n";
        assert_eq!(Head::find(later), Some(Head { start: 0, kind: None, at_ms: 5 }));
        for wrong in [&b"{}\n"[..], b"\n", b"{\"id\":\"01\",\"kind\":\"failed\",\"at\":5}\n", b"\0\0\0\n"] {
            assert_eq!(Head::find(wrong), None);
        }
    }

    proptest! {
        #[test]
        fn whole_line_is_found_behind_any_torn_one(text in "[ -~\"{:]{0,60}", place in 0..9usize, cut in 0..400usize) {
            let whole = line(Kind::ALL[place], &text);
            let mut torn = line(Kind::Failed, "{\"id\":\"0000000000000001\",\"kind\":\"");
            torn.truncate(cut.min(torn.len() - 1));
            let head = Head::find(&[&torn[..], &whole].concat());
            prop_assert_eq!(head, Some(Head { start: torn.len(), kind: Some(Kind::ALL[place]), at_ms: 1234 }));
            prop_assert_eq!(Head::find(&torn), None);
        }

        #[test]
        fn fuzz_smoke(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            fuzz_head(&[BEGIN, &bytes].concat());
        }
    }
}
