//! The daemon's answers when there is no daemon: the same counts and rows, from the files.
//!
//! Why recipients wait is not on disk, so no reason is known here, and nothing is in flight. Bound: the rows that are
//! shown, the sums by domain, the marks of the journals.

use super::QueueError;
use super::files::{Files, Record};
use super::filter::Filter;
use crate::clock;
use crate::steer::condition::{Facts, State};
use crate::steer::order::{ByState, Chosen, MessageRow, SpanRow, Stat, cut, due_ms};
use message::UnixMillis;
use message::address::shown_domain;
use queue::journal::{HELD, Span, Waiting};
use std::path::Path;

/// What the files say of a message that the filter chooses.
pub(super) struct Owed {
    pub(super) row: MessageRow,
    pub(super) spans: Vec<SpanRow>,
}

/// Shows every message that the filter chooses something of.
pub(super) fn each(
    queue: &Path,
    filter: &Filter,
    on_owed: &mut dyn FnMut(&Record<'_>, Owed) -> Result<(), QueueError>,
) -> Result<(), QueueError> {
    let now = clock::wall();
    Files::open(queue)?.each_owed(&mut |record, left| {
        let mut chosen = Vec::new();
        record.choose(filter, &mut |span| chosen.push(span));
        let spans = spans_of(record, &left, &chosen, filter, now);
        if spans.is_empty() { Ok(()) } else { on_owed(record, Owed { row: row_of(record, &spans), spans }) }
    })
}

/// The queue at a glance.
pub(super) fn stat(queue: &Path, filter: &Filter) -> Result<(u64, u64, Stat), QueueError> {
    let (mut messages, mut octets, mut stat) = (0, 0, Stat::default());
    each(queue, filter, &mut |record, owed| {
        messages += 1;
        octets += u64::from(record.head.content_len);
        for span in owed.spans {
            let state = State::of_name(&span.state).unwrap_or(State::Ready);
            stat.all.add(state, span.attempts, u64::from(span.count));
            stat.domains.entry(span.domain).or_default().add(state, span.attempts, u64::from(span.count));
        }
        Ok(())
    })?;
    Ok((messages, octets, stat))
}

/// The rows of what is left, as far as the filter wants it.
pub(super) fn spans_of(
    record: &Record<'_>,
    left: &[(String, Waiting)],
    chosen: &[Chosen],
    filter: &Filter,
    now: UnixMillis,
) -> Vec<SpanRow> {
    let mut spans = Vec::new();
    for (domain, waiting) in left {
        let domain = shown_domain(domain);
        let facts = Facts {
            id: record.head.id,
            domain,
            age_secs: now.since(record.head.arrived) / 1000,
            attempts: waiting.attempts.count(),
            state: state_of(waiting.due, now),
            reason: "",
        };
        if !filter.terms.iter().all(|term| term.holds(&facts)) {
            continue;
        }
        let Span { id, first, count } = waiting.span;
        cut(id, (first, count, waiting.name_offset), chosen, &mut |piece| {
            if piece.is_chosen {
                spans.push(SpanRow {
                    id: id.to_string(),
                    first: piece.first,
                    count: piece.count,
                    name_offset: piece.name_offset,
                    domain: domain.to_owned(),
                    state: facts.state.name().to_owned(),
                    attempts: waiting.attempts.count(),
                    due_ms: due_ms(waiting.due),
                    reason: String::new(),
                });
            }
        });
    }
    spans
}

fn state_of(due: UnixMillis, now: UnixMillis) -> State {
    match due {
        HELD => State::Held,
        due if due > now => State::Deferred,
        _ => State::Ready,
    }
}

fn row_of(record: &Record<'_>, spans: &[SpanRow]) -> MessageRow {
    let mut owed = ByState::default();
    for span in spans {
        let state = State::of_name(&span.state).unwrap_or(State::Ready);
        owed.add(state, span.attempts, u64::from(span.count));
    }
    MessageRow {
        id: record.head.id.to_string(),
        arrived_ms: record.head.arrived.0,
        octets: record.head.content_len,
        owed,
        attempts_max: spans.iter().map(|span| span.attempts).max().unwrap_or(0),
        due_ms: spans.iter().filter_map(|span| span.due_ms).min(),
        domain: spans.first().map(|span| span.domain.clone()).unwrap_or_default(),
        reason: String::new(),
    }
}
