//! What is said over the control socket: one JSON object a line, both ways.
//!
//! The client asks with one [`Request`] a line; the answers are [`Answer`] lines: how far it is, now and then, and one
//! last line with what was found or why not. Trusts nothing that comes in: lengths, conditions and spans are
//! checked here. Bound: [`REQUEST_MAX`] octets a request.

use crate::look::trace::TraceLine;
use crate::look::view::View;
use crate::steer::condition::{self, TERMS_MAX, Term};
use crate::steer::order::{Action, CHOSEN_MAX, Chosen, PAGE_MAX, Page, Report};
use crate::suppression::Told;
use message::MessageId;
use serde::{Deserialize, Serialize};

/// Octets of a request: [`CHOSEN_MAX`] spans of five numbers.
pub const REQUEST_MAX: usize = 8 << 20;

/// A span as it is sent: its numbers without their names.
pub type FlatSpan = (u64, u32, u32, u32, u32);

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    pub action: Action,
    /// Change nothing, only say what would be.
    #[serde(default)]
    pub dry_run: bool,
    /// Conditions that the daemon decides.
    #[serde(default)]
    pub r#where: Vec<String>,
    /// Spans that the client has chosen: id, first index, count, place of the first name, place behind the last.
    pub chosen: Option<Vec<FlatSpan>>,
    /// Rows up to this message and index were seen before.
    pub after: Option<(u64, u32)>,
    #[serde(default)]
    pub limit: usize,
}

/// A request that was checked.
#[derive(Debug)]
pub struct Checked {
    pub action: Action,
    pub is_dry: bool,
    pub terms: Vec<Term>,
    pub chosen: Option<Vec<Chosen>>,
    pub page: Page,
}

/// A line of the daemon's.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Ranges looked at, recipients found so far.
    Progress {
        swept: u64,
        recipients: u64,
    },
    Done(Report),
    /// What was asked to be seen.
    Look(View),
    /// A line of a dialogue that is watched.
    Trace(TraceLine),
    /// Lines of the dialogue that came too fast to be shown.
    Lost(u64),
    /// What was asked of the suppression list.
    Suppression(Told),
    /// Nothing was done.
    Error(String),
    /// This user may not ask.
    Forbidden(String),
}

impl Request {
    pub fn new(action: Action) -> Request {
        Request { action, dry_run: false, r#where: Vec::new(), chosen: None, after: None, limit: 0 }
    }

    pub fn choose(&mut self, chosen: &[Chosen]) {
        let flat = |span: &Chosen| (span.id.0, span.first, span.count, span.name_offset, span.name_end);
        self.chosen = Some(chosen.iter().map(flat).collect());
    }

    /// Reads one line.
    pub fn parse(line: &[u8]) -> Result<Checked, String> {
        let request: Request =
            serde_json::from_slice(line).map_err(|error| format!("no request: {error}"))?;
        let mut terms = Vec::new();
        for text in &request.r#where {
            terms.extend(condition::parse(text).map_err(|error| error.to_string())?);
        }
        if terms.len() > TERMS_MAX {
            return Err(format!("more than {TERMS_MAX} terms"));
        }
        Ok(Checked {
            action: request.action,
            is_dry: request.dry_run,
            terms,
            chosen: request.chosen.map(check_chosen).transpose()?,
            page: Page {
                after: request.after.map(|(id, first)| (MessageId(id), first)),
                limit: request.limit.min(PAGE_MAX),
            },
        })
    }
}

/// Sorted, without empty ones; they must not overlap.
fn check_chosen(spans: Vec<FlatSpan>) -> Result<Vec<Chosen>, String> {
    if spans.len() > CHOSEN_MAX {
        return Err(format!("more than {CHOSEN_MAX} spans"));
    }
    let span = |(id, first, count, name_offset, name_end): FlatSpan| Chosen {
        id: MessageId(id),
        first,
        count: count.min(u32::MAX - first),
        name_offset,
        name_end,
    };
    let mut chosen: Vec<Chosen> = spans.into_iter().map(span).filter(|span| span.count > 0).collect();
    chosen.sort_unstable_by_key(|span| (span.id, span.first));
    let overlap = |pair: &[Chosen]| pair[0].id == pair[1].id && pair[0].first + pair[0].count > pair[1].first;
    if chosen.windows(2).any(overlap) {
        return Err("spans overlap".into());
    }
    Ok(chosen)
}

/// For the fuzzer: any octets as a request.
pub fn fuzz_request(bytes: &[u8]) {
    let _ = Request::parse(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_asked_is_what_is_read() {
        let mut request = Request::new(Action::Delete);
        request.r#where.push("domain=a.test and age>1h".into());
        request.choose(&[
            Chosen { id: MessageId(9), first: 3, count: 4, name_offset: 7, name_end: 30 },
            Chosen::message(MessageId(2)),
        ]);
        let checked = Request::parse(&serde_json::to_vec(&request).unwrap()).unwrap();
        assert_eq!((checked.action, checked.is_dry, checked.terms.len()), (Action::Delete, false, 2));
        let ids: Vec<_> = checked.chosen.unwrap().iter().map(|span| span.id.0).collect();
        assert_eq!(ids, [2, 9], "sorted");
    }

    #[test]
    fn nonsense_is_refused_in_words() {
        let error = |line: &str| Request::parse(line.as_bytes()).unwrap_err();
        assert!(error("hello").starts_with("no request: "));
        assert!(error("{\"action\":\"explode\"}").starts_with("no request: unknown variant"));
        assert!(error("{\"action\":\"stat\",\"where\":[\"x\"]}").starts_with("--where, at"));
        assert_eq!(error("{\"action\":\"delete\",\"chosen\":[[1,0,4,0,0],[1,3,1,0,0]]}"), "spans overlap");
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), spans in proptest::collection::vec(any::<(u64, u32, u32, u32, u32)>(), 0..8)) {
            fuzz_request(&bytes);
            let request = Request { chosen: Some(spans), ..Request::new(Action::Hold) };
            fuzz_request(&serde_json::to_vec(&request).unwrap());
        }
    }
}
