//! What it means to be in some of the lists: weights are summed, allow lists' against the others', and a listener's
//! thresholds say what the sum does.

use super::found::Listed;
use crate::config::{ListKind, Thresholds};
use smtp_in::door::Refusal;
use std::fmt::Write as _;
use std::sync::Arc;

/// The field that names the lists.
pub const LISTS_FIELD: &str = "X-Ringpost-Lists";

/// What lists have to say about a client or a message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Judgement {
    Nothing,
    /// A field for the message's header, with its line end.
    Tag(Arc<str>),
    /// To each recipient, or to the message.
    Refuse(Refusal),
}

/// `what`: whom or what the lists were asked about, for a list without words of its own.
pub(super) fn judge(listed: &[Listed], thresholds: Thresholds, what: &str) -> Judgement {
    let sum: i64 = listed.iter().map(|listed| listed.list.list.signed_weight()).sum();
    let reaches = |threshold: Option<u32>| threshold.is_some_and(|threshold| sum >= i64::from(threshold));
    if reaches(thresholds.reject_at) {
        Judgement::Refuse(refusal(554, listed, what))
    } else if reaches(thresholds.defer_at) {
        Judgement::Refuse(refusal(450, listed, what))
    } else if reaches(thresholds.tag_at) {
        Judgement::Tag(tag(listed, sum))
    } else {
        Judgement::Nothing
    }
}

/// The words of the heaviest block list: the operator's, the list's own, or ours.
fn refusal(code: u16, listed: &[Listed], what: &str) -> Refusal {
    let blocking = listed.iter().filter(|listed| listed.list.list.kind == ListKind::Block);
    // The last of equals would be taken; the first is the one that was configured first.
    let heaviest = blocking.rev().max_by_key(|listed| listed.list.list.weight);
    let text = heaviest.map_or_else(Arc::default, |listed| {
        let words = listed.list.list.text.as_ref().map(|words| &words.0).or(listed.text.as_ref());
        words.cloned().unwrap_or_else(|| format!("{what} is listed at {}", listed.list.list.zone).into())
    });
    Refusal { code, enhanced: (7, 1), text }
}

/// `X-Ringpost-Lists: zen (+2), welcome (-1); sum 1`. Folded so that no line is long.
fn tag(listed: &[Listed], sum: i64) -> Arc<str> {
    let mut field = format!("{LISTS_FIELD}:");
    for (at, listed) in listed.iter().enumerate() {
        let before = if at == 0 { " " } else { ",\r\n\t" };
        let weight = listed.list.list.signed_weight();
        let _ = write!(field, "{before}{} ({weight:+})", listed.list.name);
    }
    let _ = write!(field, ";\r\n\tsum {sum}\r\n");
    field.into()
}

#[cfg(test)]
mod tests {
    use super::super::found::List;
    use super::*;
    use crate::config::{DnsList, ListOn, Words};

    fn listed(name: &str, kind: ListKind, weight: u32, text: Option<&str>) -> Listed {
        let list = DnsList {
            zone: format!("{name}.test"),
            kind,
            on: ListOn::Address,
            answers: Vec::new(),
            weight,
            text: None,
        };
        Listed { list: Arc::new(List { name: name.into(), list }), text: text.map(Into::into) }
    }

    fn at(reject_at: Option<u32>, defer_at: Option<u32>, tag_at: Option<u32>) -> Thresholds {
        Thresholds { reject_at, defer_at, tag_at }
    }

    #[test]
    fn allow_lists_count_against_block_lists() {
        let all = [
            listed("zen", ListKind::Block, 3, Some("see zen")),
            listed("drop", ListKind::Block, 1, None),
            listed("welcome", ListKind::Allow, 2, None),
        ];
        let what = "192.0.2.1";
        let Judgement::Refuse(refusal) = judge(&all[..2], at(Some(4), None, None), what) else { panic!() };
        assert_eq!((refusal.code, refusal.enhanced, &*refusal.text), (554, (7, 1), "see zen"));
        assert_eq!(judge(&all, at(Some(3), None, None), what), Judgement::Nothing);
        let Judgement::Refuse(refusal) = judge(&all[1..2], at(None, Some(1), None), what) else { panic!() };
        assert_eq!((refusal.code, &*refusal.text), (450, "192.0.2.1 is listed at drop.test"));
        let Judgement::Tag(field) = judge(&all, at(Some(3), None, Some(2)), what) else { panic!() };
        assert_eq!(&*field, "X-Ringpost-Lists: zen (+3),\r\n\tdrop (+1),\r\n\twelcome (-2);\r\n\tsum 2\r\n");
        assert_eq!(judge(&[], at(Some(1), Some(1), Some(1)), what), Judgement::Nothing);
    }

    #[test]
    fn the_operators_words_go_before_the_lists() {
        let mut one = listed("zen", ListKind::Block, 1, Some("its own"));
        let mut list = one.list.list.clone();
        list.text = Some(Words("go away".into()));
        one.list = Arc::new(List { name: "zen".into(), list });
        let Judgement::Refuse(refusal) = judge(&[one], at(Some(1), None, None), "x") else { panic!() };
        assert_eq!(&*refusal.text, "go away");
    }
}
