//! `ringpost suppress …`: who is on the suppression list.
//!
//! A running daemon is asked over its control socket; when it is down the files are worked on as it would, under its
//! lock ([`backend`]). Addresses come as words, from files or from standard input ([`input`]). Bound: one order of
//! entries at a time, whatever the length of a file.

mod backend;
mod input;

use super::queue::QueueError;
use super::{ConfigFile, complain, grouped};
use crate::clock;
use crate::suppression::{
    Defaults, Entry, HEADER, Imported, Listed, Reason, StatRow, Who, push_line, seconds_text,
};
use backend::Backend;
use clap::{Args, Subcommand};
use input::Reading;
use message::list_id;
use serde_json::json;
use std::io::{self, BufWriter, Write as _};
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(crate) enum SuppressCommand {
    /// Put addresses on the list: nothing more is sent to them.
    Add(AddArgs),
    /// Take addresses off the list.
    Remove(WhoArgs),
    /// Say of addresses whether and why they get nothing. Exit code 1 if one of them is not on the list.
    Check(WhoArgs),
    /// Put whole files on the list: CSV with a first line such as `address,list,reason,at`, or an address a line.
    Import(AddArgs),
    /// Write the list as CSV to standard output.
    Export(ExportArgs),
    /// Say how many are on the list, and what it takes.
    Stat(StatArgs),
}

#[derive(Args, Debug)]
pub(crate) struct WhoArgs {
    #[command(flatten)]
    file: ConfigFile,
    /// Addresses, files of them, or - for standard input.
    #[arg(value_name = "ADDRESS|FILE", required = true)]
    what: Vec<String>,
    /// The list that is meant, by the id of its List-Id field. Default: what holds for all lists.
    #[arg(long, value_name = "ID", default_value = "", value_parser = list)]
    list: Box<str>,
    /// JSON on standard output.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct AddArgs {
    #[command(flatten)]
    who: WhoArgs,
    /// Why, where a file does not say: hard-bounce, complaint, unsubscribe, manual or import. Default: by the command.
    #[arg(long, value_parser = reason)]
    reason: Option<Reason>,
}

#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    file: ConfigFile,
    /// Only this list's entries; empty for those that hold for all lists. Default: all.
    #[arg(long, value_name = "ID", value_parser = list)]
    list: Option<Box<str>>,
    /// Only entries with this reason.
    #[arg(long, value_parser = reason)]
    reason: Option<Reason>,
    /// A JSON object a line in place of CSV.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct StatArgs {
    #[command(flatten)]
    file: ConfigFile,
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

fn list(text: &str) -> Result<Box<str>, String> {
    list_id(text).ok_or_else(|| "that is no id of a list (RFC 2919)".to_owned())
}

fn reason(text: &str) -> Result<Reason, String> {
    let known = || Reason::ALL.map(Reason::name).join(", ");
    Reason::parse(text).ok_or_else(|| format!("there are {}", known()))
}

impl SuppressCommand {
    fn file(&self) -> &ConfigFile {
        match self {
            SuppressCommand::Add(args) | SuppressCommand::Import(args) => &args.who.file,
            SuppressCommand::Remove(args) | SuppressCommand::Check(args) => &args.file,
            SuppressCommand::Export(args) => &args.file,
            SuppressCommand::Stat(args) => &args.file,
        }
    }
}

pub(super) fn run(command: &SuppressCommand) -> ExitCode {
    let config = match command.file().load() {
        Ok(config) => config,
        Err(error) => return complain(78, &error),
    };
    match Backend::open(&config).and_then(|mut backend| obey(command, &mut backend)) {
        Ok(code) => code,
        // Whoever reads has seen enough.
        Err(QueueError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => complain(error.exit_code(), &error),
    }
}

fn obey(command: &SuppressCommand, backend: &mut Backend) -> Result<ExitCode, QueueError> {
    match command {
        SuppressCommand::Add(args) => add(backend, args, Reason::Manual),
        SuppressCommand::Import(args) => add(backend, args, Reason::Import),
        SuppressCommand::Remove(args) => remove(backend, args),
        SuppressCommand::Check(args) => check(backend, args),
        SuppressCommand::Export(args) => export(backend, args),
        SuppressCommand::Stat(args) => stat(backend, args),
    }
}

fn reading(args: &WhoArgs, reason: Reason) -> Reading {
    Reading::new(Defaults { list: args.list.clone(), reason, at: clock::wall() })
}

fn add(backend: &mut Backend, args: &AddArgs, usual: Reason) -> Result<ExitCode, QueueError> {
    let mut reading = reading(&args.who, args.reason.unwrap_or(usual));
    let mut all = Imported::default();
    reading.each(&args.who.what, |entries| {
        let done = Imported::of(&backend.add(entries)?);
        (all.new, all.known) = (all.new + done.new, all.known + done.known);
        Ok(())
    })?;
    let Imported { new, known } = all;
    if args.who.json {
        writeln!(io::stdout(), "{}", json!({ "new": new, "known": known, "wrong": reading.wrong() }))?;
    } else {
        writeln!(io::stdout(), "{} put on the list, {} were there already", grouped(new), grouped(known))?;
    }
    Ok(reading.exit_code())
}

fn remove(backend: &mut Backend, args: &WhoArgs) -> Result<ExitCode, QueueError> {
    let mut reading = reading(args, Reason::Manual);
    let mut all = Imported::default();
    reading.each(&args.what, |entries| {
        let who = entries.into_iter().map(|entry| entry.who).collect();
        let done = Imported::of(&backend.remove(who)?);
        (all.new, all.known) = (all.new + done.new, all.known + done.known);
        Ok(())
    })?;
    let Imported { new: removed, known: unknown } = all;
    if args.json {
        let line = json!({ "removed": removed, "unknown": unknown, "wrong": reading.wrong() });
        writeln!(io::stdout(), "{line}")?;
    } else {
        writeln!(
            io::stdout(),
            "{} taken off the list, {} were not on it",
            grouped(removed),
            grouped(unknown)
        )?;
    }
    Ok(reading.exit_code())
}

fn check(backend: &mut Backend, args: &WhoArgs) -> Result<ExitCode, QueueError> {
    let mut reading = reading(args, Reason::Manual);
    let (mut out, mut are_all) = (BufWriter::new(io::stdout().lock()), true);
    reading.each(&args.what, |entries| {
        let who: Vec<Who> = entries.into_iter().map(|entry| entry.who).collect();
        for (who, found) in who.iter().zip(backend.check(&who)?) {
            are_all &= found.is_some();
            say_found(&mut out, who, found, args.json)?;
        }
        Ok(())
    })?;
    out.flush()?;
    let is_wrong = reading.wrong() > 0;
    Ok(if are_all || is_wrong { reading.exit_code() } else { ExitCode::FAILURE })
}

fn say_found(out: &mut impl io::Write, who: &Who, found: Option<Listed>, json: bool) -> io::Result<()> {
    let address = who.address.as_str();
    match (found, json) {
        (Some(Listed { reason, at }), true) => {
            let at = seconds_text(at);
            writeln!(out, "{}", json!({ "address": address, "suppressed": true, "reason": reason, "at": at }))
        }
        (None, true) => writeln!(out, "{}", json!({ "address": address, "suppressed": false })),
        (Some(listed), false) => writeln!(out, "{address}: {listed}"),
        (None, false) => writeln!(out, "{address}: not on the list"),
    }
}

fn export(backend: &mut Backend, args: &ExportArgs) -> Result<ExitCode, QueueError> {
    let mut out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
    if !args.json {
        out.write_all(HEADER.as_bytes())?;
    }
    let mut line = Vec::new();
    let exported = backend.export(args.list.as_deref(), args.reason, &mut |entry| {
        line.clear();
        match args.json {
            true => writeln!(line, "{}", json_of(entry))?,
            false => push_line(entry, &mut line),
        }
        Ok(out.write_all(&line)?)
    })?;
    out.flush()?;
    if exported.damaged > 0 {
        return Ok(complain(65, &format_args!("{} places of the files cannot be read", exported.damaged)));
    }
    let all = backend.stat()?.entries;
    if args.list.is_none() && args.reason.is_none() && all > exported.entries {
        let hidden = grouped(all - exported.entries);
        eprintln!("ringpost: {hidden} more are on the list, whose addresses are not kept");
    }
    Ok(ExitCode::SUCCESS)
}

fn json_of(entry: &Entry) -> serde_json::Value {
    let Entry { who, reason, at } = entry;
    json!({ "address": who.address.as_str(), "list": who.list, "reason": reason, "at": seconds_text(*at) })
}

fn stat(backend: &mut Backend, args: &StatArgs) -> Result<ExitCode, QueueError> {
    let stat = backend.stat()?;
    let mut out = io::stdout();
    if args.json {
        writeln!(out, "{}", json!(json_of_stat(&stat)))?;
    } else {
        write!(out, "{}", table_of(&stat))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn json_of_stat(stat: &StatRow) -> serde_json::Value {
    let reasons: serde_json::Map<String, serde_json::Value> =
        stat.reasons.iter().map(|(reason, count)| (reason.name().to_owned(), (*count).into())).collect();
    json!({
        "entries": stat.entries,
        "reasons": reasons,
        "disk_octets": stat.disk,
        "memory_octets": stat.memory,
        "files": stat.files,
        "keeps_addresses": stat.keeps_addresses,
    })
}

fn table_of(stat: &StatRow) -> String {
    let mut rows = vec![("entries", grouped(stat.entries))];
    rows.extend(stat.reasons.iter().map(|(reason, count)| (reason.name(), grouped(*count))));
    rows.push(("MiB on disk", grouped(stat.disk.div_ceil(1 << 20))));
    rows.push(("MiB in memory", grouped(stat.memory.div_ceil(1 << 20))));
    let line = |(name, value): &(&str, String)| format!("{name:<14}{value:>14}\n");
    let mut table: String = rows.iter().map(line).collect();
    let kept = if stat.keeps_addresses { "kept in clear" } else { "not kept: keyed hashes only" };
    table += &format!("addresses are {kept}\n");
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use message::UnixMillis;

    #[test]
    fn table_has_a_line_for_each_reason() {
        let stat = StatRow {
            entries: 1_234_567,
            reasons: vec![(Reason::HardBounce, 1_234_000), (Reason::Manual, 567)],
            disk: 5 << 20,
            memory: 1,
            files: 2,
            keeps_addresses: false,
        };
        let table = table_of(&stat);
        assert!(table.starts_with("entries            1,234,567\nhard-bounce        1,234,000\n"), "{table}");
        assert!(
            table.ends_with("MiB in memory              1\naddresses are not kept: keyed hashes only\n"),
            "{table}"
        );
        assert_eq!(json_of_stat(&stat)["reasons"]["manual"], 567);
    }

    #[test]
    fn who_is_found_is_said_with_why() {
        let who = Who::parse("", "ann@a.test").unwrap();
        let listed = Listed { reason: Reason::Complaint, at: UnixMillis(60_000) };
        let said = |found, json| {
            let mut out = Vec::new();
            say_found(&mut out, &who, found, json).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(said(Some(listed), false), "ann@a.test: complaint since 1970-01-01T00:01:00Z\n");
        assert_eq!(said(None, false), "ann@a.test: not on the list\n");
        assert_eq!(said(None, true), "{\"address\":\"ann@a.test\",\"suppressed\":false}\n");
        assert!(said(Some(listed), true).contains("\"reason\":\"complaint\""));
    }
}
