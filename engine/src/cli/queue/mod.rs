//! `ringpost queue stat|list`: what the queue's files say, read without the daemon's help or hindrance.
//!
//! While the daemon runs the picture may be some milliseconds old. Bound: one record at a time, and the marks of the
//! journals.

use super::{ConfigFile, complain, grouped};
use crate::clock;
use crate::recovery::{self, Journals, RecoverError, SegmentFile};
use clap::{Args, Subcommand};
use message::UnixMillis;
use queue::log::record::{Head, Meta};
use queue::log::scan_segment;
use ring::{Access, Ring as _, Uring};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// Counts: messages, recipients owed, by domain.
    Stat(QueueArgs),
    /// Each message: id, arrival, size, sender, recipients still to do.
    List(QueueArgs),
}

#[derive(Args, Debug)]
pub(crate) struct QueueArgs {
    #[command(flatten)]
    file: ConfigFile,
    /// One JSON object on standard output (`list`: one per message).
    #[arg(long)]
    json: bool,
}

/// A message that is owed to somebody.
struct Entry<'a> {
    head: Head,
    sender: &'a str,
    /// Recipients owed and how many of them were tried, by domain.
    domains: BTreeMap<&'a str, (u64, u64)>,
    next_due: UnixMillis,
}

impl Entry<'_> {
    fn owed(&self) -> u64 {
        self.domains.values().map(|(owed, _)| owed).sum()
    }
}

pub(super) fn run(command: &QueueCommand) -> ExitCode {
    let (QueueCommand::Stat(args) | QueueCommand::List(args)) = command;
    let config = match args.file.load() {
        Ok(config) => config,
        Err(error) => return complain(78, &error),
    };
    if !config.queue.is_dir() {
        return complain(75, &format_args!("{}: there is no queue", config.queue.display()));
    }
    let outcome = match command {
        QueueCommand::Stat(args) => stat(&config.queue, args.json),
        QueueCommand::List(args) => list(&config.queue, args.json),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(75, &error),
    }
}

fn stat(queue: &Path, json: bool) -> anyhow::Result<()> {
    let (mut messages, mut octets) = (0u64, 0u64);
    let mut domains: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    visit(queue, &mut |entry| {
        messages += 1;
        octets += u64::from(entry.head.content_len);
        for (domain, (owed, tried)) in &entry.domains {
            let sums = domains.entry((*domain).to_owned()).or_default();
            *sums = (sums.0 + owed, sums.1 + tried);
        }
        Ok(())
    })?;
    let (owed, tried) = domains.values().fold((0, 0), |sums, (owed, tried)| (sums.0 + owed, sums.1 + tried));
    if json {
        let by_domain: BTreeMap<_, _> = domains
            .iter()
            .map(|(domain, (owed, tried))| (domain, serde_json::json!({ "owed": owed, "deferred": tried })))
            .collect();
        println!(
            "{}",
            serde_json::json!({ "messages": messages, "octets": octets, "recipients_owed": owed, "deferred": tried, "domains": by_domain })
        );
        return Ok(());
    }
    println!("messages in queue: {}", grouped(messages));
    println!("recipients owed:   {} ({} were tried before)", grouped(owed), grouped(tried));
    println!("octets of content: {}", grouped(octets));
    let mut largest: Vec<_> = domains.into_iter().collect();
    largest.sort_by_key(|(_, (owed, _))| std::cmp::Reverse(*owed));
    for (domain, (owed, tried)) in largest.iter().take(20) {
        println!("{:>12} {:>12} {domain}", grouped(*owed), grouped(*tried));
    }
    Ok(())
}

fn list(queue: &Path, json: bool) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    visit(queue, &mut |entry| {
        let (id, arrived, len) =
            (entry.head.id.to_string(), entry.head.arrived.rfc3339(), entry.head.content_len);
        let owed = entry.owed();
        let first = entry.domains.keys().next().unwrap_or(&"");
        if json {
            let due = (entry.next_due.0 > 0).then(|| entry.next_due.rfc3339());
            let line = serde_json::json!({ "id": id, "arrived": arrived, "octets": len, "sender": entry.sender,
                "recipients": entry.head.recipients, "owed": owed, "domains": entry.domains.keys().collect::<Vec<_>>(), "next_due": due });
            return writeln!(out, "{line}");
        }
        let more = if entry.domains.len() > 1 {
            format!(" and {} more domains", entry.domains.len() - 1)
        } else {
            String::new()
        };
        writeln!(
            out,
            "{id}  {arrived}  {:>12}  <{}>  {} of {} to do at {first}{more}",
            grouped(u64::from(len)),
            entry.sender,
            grouped(owed),
            grouped(u64::from(entry.head.recipients))
        )
    })?;
    out.flush()?;
    Ok(())
}

type Visitor<'a> = &'a mut dyn FnMut(&Entry<'_>) -> io::Result<()>;

/// Shows every message that is owed to somebody to `visitor`.
fn visit(queue: &Path, visitor: Visitor<'_>) -> anyhow::Result<()> {
    let mut ring = crate::supervise::small_ring()?;
    let journals = recovery::read_journals(&mut ring, queue)?;
    for partition in &journals.partitions {
        let folder = recovery::partition_folder(queue, *partition);
        for name in ring.list(&folder)? {
            if recovery::numbered(&name, "data-").is_some() {
                visit_segment(&mut ring, &folder.join(&name), &journals, visitor)?;
            }
        }
    }
    Ok(())
}

fn visit_segment(
    ring: &mut Uring,
    path: &Path,
    journals: &Journals,
    visitor: Visitor<'_>,
) -> anyhow::Result<()> {
    let file = match ring.open_now(path, Access::Read) {
        Ok(file) => file,
        // The daemon just removed it: nothing in it is owed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(recovery::io_error(path)(error).into()),
    };
    let mut outcome = Ok(());
    let mut on_message = |head: Head, meta: &[u8]| {
        if outcome.is_ok() {
            outcome = visit_message(head, meta, journals, visitor);
        }
    };
    scan_segment(&mut SegmentFile { ring, file }, &mut on_message)
        .map_err(|source| RecoverError::Segment { path: path.to_owned(), source })?;
    ring.close_file(file);
    Ok(outcome?)
}

fn visit_message(head: Head, meta: &[u8], journals: &Journals, visitor: Visitor<'_>) -> io::Result<()> {
    let left = recovery::what_is_left(&head, meta, &journals.fold);
    let Some(parsed) = Meta::parse(meta, head.verp).filter(|_| !left.is_empty()) else { return Ok(()) };
    let mut domains: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (domain, waiting) in &left {
        let sums = domains.entry(domain).or_default();
        sums.0 += u64::from(waiting.span.count);
        sums.1 += if waiting.attempts > 0 { u64::from(waiting.span.count) } else { 0 };
    }
    let now = clock::wall();
    let next_due =
        left.iter().map(|(_, waiting)| waiting.due).filter(|due| *due > now).min().unwrap_or_default();
    visitor(&Entry { head, sender: parsed.reverse_path, domains, next_due })
}
