//! The queue in the form that sendmail's `mailq` gave it: per message a line with id, size, arrival and sender, the last
//! reply in brackets, and below it the recipients that are still to be served.
//!
//! Bound: a page of messages, [`SHOWN`] recipients of each.

use super::daemon::Daemon;
use super::files::{Files, Found};
use super::filter::Filter;
use super::view::names;
use super::{QueueError, stopped};
use crate::config::Config;
use crate::steer::order::{Action, Chosen, MessageRow, SpanRow};
use crate::steer::wire::Request;
use message::{MessageId, UnixMillis};
use queue::log::record::Meta;
use std::io::{self, BufWriter, Write};

/// Messages asked for at a time.
const PAGE: usize = 1000;

/// Recipients of one message that are named.
const SHOWN: usize = 20;

pub(in crate::cli) fn print(config: &Config) -> Result<(), QueueError> {
    let mut list = List { out: BufWriter::new(io::stdout().lock()), messages: 0, octets: 0 };
    match Daemon::connect(&config.control_path())? {
        Some(daemon) => list.ask(config, daemon)?,
        None => {
            let mut files = Files::open(&config.queue)?;
            stopped::each(&config.queue, &Filter::default(), &mut |record, owed| {
                list.show(&owed.row, files.find(record.head.id)?.as_ref(), &owed.spans)
            })?;
        }
    }
    list.end()
}

struct List<W> {
    out: W,
    messages: u64,
    octets: u64,
}

impl<W: Write> List<W> {
    fn ask(&mut self, config: &Config, mut daemon: Daemon) -> Result<(), QueueError> {
        let mut files = Files::open(&config.queue)?;
        let mut request = Request::new(Action::List);
        request.limit = PAGE;
        loop {
            let report = daemon.ask(&request)?;
            for row in &report.messages_found {
                let Some(id) = MessageId::parse(&row.id) else { continue };
                let mut spans = Request::new(Action::Show);
                spans.choose(&[Chosen::message(id)]);
                spans.limit = SHOWN;
                let spans = daemon.ask(&spans)?.spans_found;
                self.show(row, files.find(id)?.as_ref(), &spans)?;
            }
            let last = report.messages_found.last().and_then(|row| MessageId::parse(&row.id));
            let (true, Some(last)) = (report.has_more, last) else { return Ok(()) };
            request.after = Some((last.0, u32::MAX));
        }
    }

    /// A message that ended meanwhile may have no record any more: then its recipients are not named.
    fn show(&mut self, row: &MessageRow, found: Option<&Found>, spans: &[SpanRow]) -> Result<(), QueueError> {
        if self.messages == 0 {
            let heads = ["-Queue ID-", "-Size-", "-Arrival Time-", "-Sender/Recipients-"];
            writeln!(self.out, "{:<16} {:>10} {:<24} {}", heads[0], heads[1], heads[2], heads[3])?;
        }
        self.messages += 1;
        self.octets += u64::from(row.octets);
        let meta = found.and_then(|found| Meta::parse(&found.meta, found.head.verp));
        let sender = meta.map_or("?", |meta| meta.reverse_path);
        let sender = if sender.is_empty() { "MAILER-DAEMON" } else { sender };
        writeln!(
            self.out,
            "{:<16} {:>10} {} {sender}",
            row.id,
            row.octets,
            UnixMillis(row.arrived_ms).rfc3339()
        )?;
        if !row.reason.is_empty() {
            writeln!(self.out, "{:>52}({})", "", row.reason)?;
        }
        let named = found.into_iter().flat_map(|found| spans.iter().flat_map(move |span| names(found, span)));
        let mut count = 0;
        for (_, recipient) in named.take(SHOWN) {
            writeln!(self.out, "{:>52}{recipient}", "")?;
            count += 1;
        }
        if row.owed.owed() > count {
            writeln!(self.out, "{:>52}... and {} more", "", row.owed.owed() - count)?;
        }
        Ok(writeln!(self.out)?)
    }

    fn end(mut self) -> Result<(), QueueError> {
        match self.messages {
            0 => writeln!(self.out, "Mail queue is empty")?,
            count => writeln!(self.out, "-- {} Kbytes in {count} Requests.", self.octets.div_ceil(1024))?,
        }
        Ok(self.out.flush()?)
    }
}
