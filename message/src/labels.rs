//! What people call a message: its campaign, its tenant, its list. For events, which outlive the message.
//!
//! Read from the header once ([`crate::class::Marks`] is the pass over it). Bound: [`LABEL_MAX`] octets each; longer ones
//! are cut.

use crate::class::Marks;
use std::borrow::Cow;

/// Octets of a label that are kept.
pub const LABEL_MAX: usize = 200;

/// Empty where the message says nothing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Labels {
    pub campaign: Box<str>,
    pub tenant: Box<str>,
    /// What `List-Id` has between its angle brackets (RFC 2919 §3).
    pub list: Box<str>,
}

impl Labels {
    pub fn of(content: &[u8], tenant_field: &str) -> Labels {
        Labels::from(Marks::of(content, tenant_field))
    }
}

impl From<Marks<'_>> for Labels {
    fn from(marks: Marks<'_>) -> Labels {
        Labels {
            campaign: cut(marks.campaign.as_ref()),
            tenant: cut(marks.tenant.as_ref()),
            list: cut(marks.list.as_ref()),
        }
    }
}

fn cut(text: Option<&Cow<'_, str>>) -> Box<str> {
    let text = text.map_or("", |text| text);
    text[..text.floor_char_boundary(LABEL_MAX)].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_is_what_stands_in_the_brackets() {
        let list = |value: &str| Labels::of(format!("List-Id: {value}\r\n\r\n").as_bytes(), "X-Tenant").list;
        assert_eq!(&*list("News of <example> <news.example.org>"), "news.example.org");
        assert_eq!(&*list("news.example.org"), "news.example.org");
        for none in ["", "<>", "a <"] {
            assert!(list(none).len() <= 3, "{none:?}");
        }
    }

    #[test]
    fn long_labels_are_cut_at_a_character() {
        let header = format!("X-Campaign: a{}\r\n\r\n", "é".repeat(LABEL_MAX));
        let labels = Labels::of(header.as_bytes(), "X-Tenant");
        assert_eq!(labels.campaign.len(), LABEL_MAX - 1);
        assert_eq!((&*labels.tenant, &*labels.list), ("", ""));
    }
}
