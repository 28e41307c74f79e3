//! Which fields of a header a signature covers (RFC 6376 §5.4, §5.4.2).
//!
//! A name stands in `h=` as often as its field occurs, the lowest first, as verifiers count them. One that is *oversigned*
//! stands there once more: a field of that name which is added on the way breaks the signature.

use super::{FIELDS_MAX, SignError, check_len};
use crate::canonical::relaxed_field;
use crate::compose::header::{RawField, RawFields};
use aws_lc_rs::digest::{Context, SHA256};
use smallvec::SmallVec;

/// What signatures cover and say, the same for all domains.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    names: Vec<Name>,
    /// They say when they were made: `t=`.
    pub timestamp: bool,
    /// They end so many seconds later: `x=`. 0: they do not.
    pub expiry_secs: u64,
}

#[derive(Clone, Debug)]
struct Name {
    text: Box<str>,
    is_oversigned: bool,
}

impl Terms {
    /// Names of fields: those to oversign, and those to sign as they are there. `From` has to be among them (§5.4).
    pub fn new<'a>(
        oversigned: impl IntoIterator<Item = &'a str>,
        signed: impl IntoIterator<Item = &'a str>,
    ) -> Terms {
        let name = |is_oversigned| move |text: &str| Name { text: text.into(), is_oversigned };
        let mut names: Vec<Name> = oversigned.into_iter().map(name(true)).collect();
        for other in signed.into_iter().map(name(false)) {
            if !names.iter().any(|name| name.text.eq_ignore_ascii_case(&other.text)) {
                names.push(other);
            }
        }
        Terms { names, timestamp: true, expiry_secs: 0 }
    }
}

/// The fields of one header that are signed.
pub(super) struct Selection<'a> {
    names: &'a [Name],
    /// With the place of their name, from the top of the header down.
    fields: SmallVec<[(usize, RawField<'a>); 24]>,
}

impl<'a> Selection<'a> {
    /// One pass over the header, a look at the names for each field.
    pub(super) fn of(header: &'a [u8], terms: &'a Terms) -> Result<Selection<'a>, SignError> {
        let mut selection = Selection { names: &terms.names, fields: SmallVec::new() };
        let mut fields = RawFields::of(header);
        while let Some(field) = fields.next() {
            check_len(header.len() - fields.rest().len())?;
            let is = |name: &Name| name.text.as_bytes().eq_ignore_ascii_case(field.name);
            if let Some(place) = terms.names.iter().position(is) {
                selection.fields.push((place, field));
            }
            if selection.fields.len() + terms.names.len() > FIELDS_MAX {
                return Err(SignError::TooLarge);
            }
        }
        match fields.rest() {
            [] | [b'\n', ..] | [b'\r', b'\n', ..] => Ok(selection),
            _ => Err(SignError::NoHeader),
        }
    }

    /// Each name of `h=` in its order, with its field; without one if it is oversigned.
    fn each(&self) -> impl Iterator<Item = (&str, Option<&RawField<'a>>)> {
        self.names.iter().enumerate().flat_map(|(place, name)| {
            let there = self.fields.iter().rev().filter(move |(of, _)| *of == place);
            let more = name.is_oversigned.then_some(None);
            there.map(|(_, field)| Some(field)).chain(more).map(|field| (&*name.text, field))
        })
    }

    /// The digest as far as all signatures of this header have it in common (§3.7).
    pub(super) fn hash(&self) -> Context {
        let mut context = Context::new(&SHA256);
        for field in self.each().filter_map(|(_, field)| field) {
            relaxed_field(field.name, field.value, |part| context.update(part));
            context.update(b"\r\n");
        }
        context
    }

    /// Appends the names with colons between them, folded.
    pub(super) fn put_names(&self, out: &mut Vec<u8>) {
        const LINE_MAX: usize = 72;
        let (mut line_len, mut is_first) = (0, true);
        for (name, _) in self.each() {
            if !is_first {
                out.push(b':');
                line_len += 1;
            }
            if !is_first && line_len + name.len() > LINE_MAX {
                out.extend_from_slice(b"\r\n\t ");
                line_len = 0;
            }
            out.extend_from_slice(name.as_bytes());
            line_len += name.len();
            is_first = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(header: &str, terms: &Terms) -> String {
        let mut out = Vec::new();
        Selection::of(header.as_bytes(), terms).unwrap().put_names(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn names_stand_as_often_as_their_fields_and_once_more_if_oversigned() {
        let terms = Terms::new(["From", "To"], ["Cc", "from", "List-Id"]);
        assert_eq!(names("from: a\r\nCC: b\r\ncc : c\r\nX: d\r\n\r\n", &terms), "From:From:To:Cc:Cc");
        assert_eq!(names("", &terms), "From:To");
    }

    #[test]
    fn the_lowest_field_is_signed_first() {
        let terms = Terms::new(["From"], []);
        let header = b"From: top\r\nFrom: bottom\r\n";
        let selection = Selection::of(header, &terms).unwrap();
        let values: Vec<_> = selection.each().map(|(_, field)| field.map(|field| field.value)).collect();
        assert_eq!(values, [Some(&b" bottom\r\n"[..]), Some(b" top\r\n"), None]);
    }

    #[test]
    fn long_lists_of_names_are_folded() {
        let terms = Terms::new(["From"], ["X-A-Rather-Long-Name"]);
        let folded = names(&("From: a\n".to_owned() + &"x-a-rather-long-name: b\n".repeat(9)), &terms);
        assert!(folded.lines().all(|line| line.len() <= 78), "{folded}");
        assert_eq!(folded.matches("X-A-Rather-Long-Name").count(), 9);
        assert_eq!(folded.replace("\r\n\t ", "").split(':').count(), 11);
    }

    #[test]
    fn what_is_too_much_is_refused() {
        let terms = Terms::new(["From"], ["To"]);
        let error = |header: &str| Selection::of(header.as_bytes(), &terms).err();
        assert_eq!(error(&"To: a\r\n".repeat(255)), Some(SignError::TooLarge));
        assert_eq!(error(&"To: a\r\n".repeat(254)), None);
        assert_eq!(error(&"X: a\r\n".repeat(50_000)), Some(SignError::TooLarge));
        assert_eq!(error("From: a\r\nno field\r\n\r\n"), Some(SignError::NoHeader));
    }
}
