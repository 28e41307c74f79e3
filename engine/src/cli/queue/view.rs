//! `queue stat|list|show|cat`: what there is, from the daemon if it runs, else from the files.
//!
//! A list comes in pages of the lowest ids first; sender and recipients are read from the files, row by row. What
//! ended between two pages is not shown. Bound: one page of rows.

use super::daemon::Daemon;
use super::files::{Files, Found};
use super::filter::{Filter, campaign_of};
use super::{QueueError, grouped, stopped};
use crate::clock;
use crate::config::Config;
use crate::steer::order::{Action, ByState, Chosen, MessageRow, OTHER, Report, SpanRow, Stat};
use crate::steer::wire::Request;
use message::{MessageId, UnixMillis};
use queue::log::record::{Meta, NameAt, next_name};
use serde_json::json;
use std::cmp::Reverse;
use std::io::{self, BufWriter, Write};

/// Rows asked for at a time.
const PAGE: usize = 10_000;

/// Domains and reasons that people are shown.
const SHOWN: usize = 20;

// ---- stat ----

pub(super) fn stat(
    config: &Config,
    filter: &Filter,
    daemon: Option<Daemon>,
    json: bool,
) -> Result<(), QueueError> {
    let is_running = daemon.is_some();
    let (messages, octets, stat) = match daemon {
        Some(daemon) => stat_of_daemon(config, filter, daemon)?,
        None => stopped::stat(&config.queue, filter)?,
    };
    let mut out = BufWriter::new(io::stdout().lock());
    if json {
        let line = stat_json(messages, octets, &stat, is_running);
        writeln!(out, "{line}")?;
    } else {
        print_stat(&mut out, messages, octets, &stat)?;
    }
    Ok(out.flush()?)
}

fn stat_of_daemon(
    config: &Config,
    filter: &Filter,
    mut daemon: Daemon,
) -> Result<(u64, u64, Stat), QueueError> {
    let mut all = Report::default();
    Files::each_chunk(&config.queue, filter, &mut |chosen| {
        all.merge(daemon.ask(&request(Action::Stat, filter, chosen))?);
        Ok(())
    })?;
    Ok((all.messages, all.octets, all.stat.unwrap_or_default()))
}

/// What the daemon is asked about the filter, and spans of it.
pub(super) fn request(action: Action, filter: &Filter, chosen: Option<&[Chosen]>) -> Request {
    let mut request = Request::new(action);
    request.r#where = filter.core_terms();
    if let Some(chosen) = chosen {
        request.choose(chosen);
    }
    request
}

fn by_state_json(counts: &ByState) -> serde_json::Value {
    json!({ "owed": counts.owed(), "ready": counts.ready, "deferred": counts.deferred, "held": counts.held,
        "in_flight": counts.in_flight, "tried": counts.tried })
}

fn stat_json(messages: u64, octets: u64, stat: &Stat, is_running: bool) -> serde_json::Value {
    let domains: serde_json::Map<_, _> =
        stat.domains.iter().map(|(domain, counts)| (domain.clone(), by_state_json(counts))).collect();
    let ByState { ready, deferred, held, in_flight, tried } = stat.all;
    json!({ "source": if is_running { "daemon" } else { "files" }, "messages": messages, "octets": octets,
        "recipients_owed": stat.all.owed(), "ready": ready, "deferred": deferred, "held": held,
        "in_flight": in_flight, "tried": tried, "domains": domains, "reasons": stat.reasons })
}

fn print_stat(out: &mut impl Write, messages: u64, octets: u64, stat: &Stat) -> io::Result<()> {
    let ByState { ready, deferred, held, in_flight, tried } = stat.all;
    let rows = [
        ("messages in queue", messages),
        ("octets of content", octets),
        ("recipients owed", stat.all.owed()),
        ("  ready", ready),
        ("  deferred", deferred),
        ("  held", held),
        ("  in flight", in_flight),
        ("  tried before", tried),
    ];
    for (what, count) in rows {
        writeln!(out, "{what:<18} {:>15}", grouped(count))?;
    }
    let mut domains: Vec<_> = stat.domains.iter().collect();
    domains.sort_by_key(|(domain, counts)| (domain.as_str() == OTHER, Reverse(counts.owed())));
    if !domains.is_empty() {
        writeln!(out, "\n{:>15} {:>15} {:>15} {:>15}  domain", "owed", "ready", "deferred", "held")?;
    }
    for (domain, counts) in domains.iter().take(SHOWN) {
        let cells = [counts.owed(), counts.ready, counts.deferred, counts.held].map(grouped);
        writeln!(out, "{:>15} {:>15} {:>15} {:>15}  {domain}", cells[0], cells[1], cells[2], cells[3])?;
    }
    let mut reasons: Vec<_> = stat.reasons.iter().collect();
    reasons.sort_by_key(|(_, count)| Reverse(**count));
    if !reasons.is_empty() {
        writeln!(out, "\n{:>15}  last reply", "recipients")?;
    }
    for (reason, count) in reasons.iter().take(SHOWN) {
        writeln!(out, "{:>15}  {reason}", grouped(**count))?;
    }
    Ok(())
}

// ---- list ----

pub(super) fn list(
    config: &Config,
    filter: &Filter,
    daemon: Option<Daemon>,
    limit: usize,
    json: bool,
) -> Result<(), QueueError> {
    let mut list = List { out: BufWriter::new(io::stdout().lock()), limit, json, shown: 0, is_cut: false };
    match daemon {
        Some(daemon) => list.ask(config, filter, daemon)?,
        None => stopped::each(&config.queue, filter, &mut |record, owed| {
            let sender =
                Meta::parse(record.meta, record.head.layout).map(|meta| meta.reverse_path.to_owned());
            list.show(&owed.row, sender.as_deref(), record.head.recipients)
        })?,
    }
    list.out.flush()?;
    if list.is_cut {
        eprintln!("ringpost: only {} messages are shown; --limit shows more", grouped(limit as u64));
    }
    Ok(())
}

struct List<W> {
    out: W,
    limit: usize,
    json: bool,
    shown: usize,
    is_cut: bool,
}

impl<W: Write> List<W> {
    fn ask(&mut self, config: &Config, filter: &Filter, mut daemon: Daemon) -> Result<(), QueueError> {
        let mut files = Files::open(&config.queue)?;
        Files::each_chunk(&config.queue, filter, &mut |chosen| {
            let mut request = request(Action::List, filter, chosen);
            loop {
                if self.shown >= self.limit {
                    self.is_cut = true;
                    return Ok(());
                }
                request.limit = PAGE.min(self.limit - self.shown);
                let report = daemon.ask(&request)?;
                for row in &report.messages_found {
                    self.show_found(&mut files, row)?;
                }
                let last = report.messages_found.last().and_then(|row| MessageId::parse(&row.id));
                let (true, Some(last)) = (report.has_more, last) else { return Ok(()) };
                request.after = Some((last.0, u32::MAX));
            }
        })
    }

    /// A message that ended meanwhile may have no record any more: its row says what the daemon said.
    fn show_found(&mut self, files: &mut Files, row: &MessageRow) -> Result<(), QueueError> {
        let found = MessageId::parse(&row.id).map(|id| files.find(id)).transpose()?.flatten();
        let sender = found.as_ref().and_then(sender_of);
        self.show(row, sender.as_deref(), found.map_or(0, |found| found.head.recipients))
    }

    fn show(&mut self, row: &MessageRow, sender: Option<&str>, recipients: u32) -> Result<(), QueueError> {
        if self.shown >= self.limit {
            self.is_cut = true;
            return Ok(());
        }
        self.shown += 1;
        let arrived = UnixMillis(row.arrived_ms).rfc3339();
        let due = row.due_ms.map(|due| UnixMillis(due).rfc3339());
        if self.json {
            let mut line = by_state_json(&row.owed);
            let more = json!({ "id": row.id, "arrived": arrived, "octets": row.octets, "sender": sender,
                "recipients": recipients, "domain": row.domain, "attempts": row.attempts_max,
                "next_due": due, "reason": row.reason });
            if let (Some(line), serde_json::Value::Object(more)) = (line.as_object_mut(), more) {
                line.extend(more);
            }
            return Ok(writeln!(self.out, "{line}")?);
        }
        let mut states = String::new();
        let counts = [
            (row.owed.ready, "ready"),
            (row.owed.deferred, "deferred"),
            (row.owed.held, "held"),
            (row.owed.in_flight, "in flight"),
        ];
        for (count, name) in counts.into_iter().filter(|(count, _)| *count > 0) {
            states.push_str(&format!(" {} {name}", grouped(count)));
        }
        writeln!(
            self.out,
            "{}  {arrived}  {:>11}  <{}>  {} of {} to do at {}:{states}{}{}",
            row.id,
            grouped(u64::from(row.octets)),
            sender.unwrap_or("?"),
            grouped(row.owed.owed()),
            grouped(u64::from(recipients)),
            row.domain,
            due.map(|due| format!("  next {due}")).unwrap_or_default(),
            if row.reason.is_empty() { String::new() } else { format!("  {}", row.reason) },
        )?;
        Ok(())
    }
}

fn sender_of(found: &Found) -> Option<String> {
    Meta::parse(&found.meta, found.head.layout).map(|meta| meta.reverse_path.to_owned())
}

// ---- show ----

pub(super) fn show(
    config: &Config,
    id: MessageId,
    daemon: Option<Daemon>,
    json: bool,
) -> Result<(), QueueError> {
    let mut files = Files::open(&config.queue)?;
    let (found, spans) = match daemon {
        Some(mut daemon) => {
            let spans = spans_of_daemon(&mut daemon, id)?;
            (files.find(id)?, spans)
        }
        None => {
            let found = files.owed_of(id)?;
            let spans = found.as_ref().map(|(found, left)| {
                let all = [Chosen::message(id)];
                stopped::spans_of(&found.record(), left, &all, &Filter::default(), clock::wall())
            });
            (found.map(|(found, _)| found), spans.unwrap_or_default())
        }
    };
    let Some(found) = found.filter(|_| !spans.is_empty()) else { return Err(QueueError::NotFound(id)) };
    let mut out = BufWriter::new(io::stdout().lock());
    if json {
        show_json(&mut out, &found, &spans)?
    } else {
        show_text(&mut out, &found, &spans)?
    }
    Ok(out.flush()?)
}

fn spans_of_daemon(daemon: &mut Daemon, id: MessageId) -> Result<Vec<SpanRow>, QueueError> {
    let mut request = Request::new(Action::Show);
    request.choose(&[Chosen::message(id)]);
    request.limit = PAGE;
    let mut spans = Vec::new();
    loop {
        let report = daemon.ask(&request)?;
        spans.extend(report.spans_found);
        let Some(last) = spans.last().filter(|_| report.has_more) else { return Ok(spans) };
        request.after = Some((id.0, last.first));
    }
}

/// Each recipient of a span: index and address.
pub(super) fn names(found: &Found, span: &SpanRow) -> impl Iterator<Item = (u32, String)> {
    let mut offset = span.name_offset as usize;
    (span.first..span.first + span.count).map_while(move |index| {
        let names = found.meta.get(offset..)?;
        let NameAt { name, rest, .. } = next_name(names, found.head.layout)?;
        offset += names.len() - rest.len();
        Some((index, format!("{name}@{}", span.domain)))
    })
}

fn show_json(out: &mut impl Write, found: &Found, spans: &[SpanRow]) -> io::Result<()> {
    let owed: u64 = spans.iter().map(|span| u64::from(span.count)).sum();
    let head = json!({ "id": found.head.id.to_string(), "arrived": found.head.arrived.rfc3339(),
        "octets": found.head.content_len, "sender": sender_of(found),
        "campaign": campaign_of(&found.record().header()), "recipients": found.head.recipients, "owed": owed });
    let head = head.to_string();
    // The list may be long: it is written as it is made.
    write!(out, "{},\"to_do\":[", head.strip_suffix('}').unwrap_or(&head))?;
    let mut comma = "";
    for span in spans {
        let due = span.due_ms.map(|due| UnixMillis(due).rfc3339());
        for (index, recipient) in names(found, span) {
            let line = json!({ "recipient": recipient, "index": index, "state": span.state,
                "attempts": span.attempts, "due": due, "reason": span.reason });
            write!(out, "{comma}{line}")?;
            comma = ",";
        }
    }
    writeln!(out, "]}}")
}

fn show_text(out: &mut impl Write, found: &Found, spans: &[SpanRow]) -> io::Result<()> {
    let owed: u64 = spans.iter().map(|span| u64::from(span.count)).sum();
    writeln!(out, "id          {}", found.head.id)?;
    writeln!(out, "arrived     {}", found.head.arrived.rfc3339())?;
    writeln!(out, "sender      <{}>", sender_of(found).unwrap_or_default())?;
    if let Some(campaign) = campaign_of(&found.record().header()) {
        writeln!(out, "campaign    {campaign}")?;
    }
    writeln!(out, "octets      {}", grouped(u64::from(found.head.content_len)))?;
    let all = grouped(u64::from(found.head.recipients));
    writeln!(out, "recipients  {all}, {} still to do:", grouped(owed))?;
    for span in spans {
        let due = span.due_ms.map(|due| format!("  next {}", UnixMillis(due).rfc3339())).unwrap_or_default();
        let reason = if span.reason.is_empty() { String::new() } else { format!("  {}", span.reason) };
        for (_, recipient) in names(found, span) {
            writeln!(out, "  {recipient}  {}, {} attempts{due}{reason}", span.state, span.attempts)?;
        }
    }
    Ok(())
}

// ---- cat ----

pub(super) fn cat(config: &Config, id: MessageId, daemon: Option<Daemon>) -> Result<(), QueueError> {
    let mut files = Files::open(&config.queue)?;
    let found = match daemon {
        Some(mut daemon) => {
            let mut request = Request::new(Action::Show);
            request.choose(&[Chosen::message(id)]);
            let is_queued = daemon.ask(&request)?.recipients > 0;
            if is_queued { files.find(id)? } else { None }
        }
        None => files.owed_of(id)?.map(|(found, _)| found),
    };
    let content = found.map(|found| found.content()).transpose()?.flatten();
    let content = content.ok_or(QueueError::NotFound(id))?;
    Ok(io::stdout().lock().write_all(&content)?)
}
