//! `ringpost sites`: what each site is doing, which hosts rest, and letting them be tried again.

use super::look::{self, time_until};
use super::queue::{Daemon, QueueError};
use super::{ConfigFile, complain, grouped};
use crate::clock;
use crate::look::ask::{Look, Meant, ROWS_MAX};
use crate::look::view::{HostRow, SiteRow, SiteState, View};
use clap::{Args, Subcommand};
use message::UnixMillis;
use serde_json::json;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// Octets of a site's name in a table.
const NAME_MAX: usize = 40;

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Sites {
    #[command(subcommand)]
    command: Option<SitesCommand>,
    #[command(flatten)]
    list: SiteList,
}

#[derive(Debug, Subcommand)]
enum SitesCommand {
    /// Hosts that could not be connected to, or would not serve us, and rest.
    Hosts(HostList),
    /// Let hosts that rest be tried again. A site's own back-off ends with `queue flush`.
    Forget(Forget),
}

#[derive(Args, Debug)]
pub(crate) struct SiteList {
    #[command(flatten)]
    file: ConfigFile,
    /// Only sites of that name, or with a host of that name; * stands for anything.
    #[arg(value_name = "PATTERN")]
    pattern: Option<String>,
    /// Sites to show at most.
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct HostList {
    #[command(flatten)]
    file: ConfigFile,
    /// Hosts to show at most.
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Forget {
    #[command(flatten)]
    file: ConfigFile,
    /// Addresses, with or without a port: 192.0.2.1, 192.0.2.1:25, [2001:db8::1]:25.
    #[arg(value_name = "ADDRESS")]
    addresses: Vec<String>,
    /// All hosts that rest.
    #[arg(long, conflicts_with = "addresses")]
    all: bool,
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Sites) -> ExitCode {
    match &args.command {
        None => look::run(&args.list.file, |daemon| list(daemon, &args.list)),
        Some(SitesCommand::Hosts(args)) => look::run(&args.file, |daemon| hosts(daemon, args)),
        Some(SitesCommand::Forget(args)) => match meant(args) {
            Ok(addresses) => look::run(&args.file, |daemon| forget(daemon, addresses, args)),
            Err(why) => complain(64, &why),
        },
    }
}

// ---- sites ----

fn list(mut daemon: Daemon, args: &SiteList) -> Result<(), QueueError> {
    let look = Look::Sites { pattern: args.pattern.clone(), limit: args.limit.min(ROWS_MAX) };
    let View::Sites { sites, has_more } = daemon.look(&look)? else { return Err(look::surprise()) };
    drop(daemon);
    if args.json {
        return Ok(writeln!(io::stdout(), "{}", json!({ "sites": sites, "has_more": has_more }))?);
    }
    write!(io::stdout(), "{}", site_table(&sites, clock::wall().0))?;
    if has_more {
        eprintln!(
            "ringpost: only the {} busiest sites are shown; --limit shows more",
            grouped(sites.len() as u64)
        );
    }
    Ok(())
}

fn site_table(sites: &[SiteRow], now_ms: u64) -> String {
    let mut table = String::new();
    if sites.is_empty() {
        return "no such sites\n".to_owned();
    }
    let _ = writeln!(
        table,
        "{:>5} {:>7} {:>5} {:>13}  {:<10} {:<15} {:<NAME_MAX$}  state",
        "conns", "allowed", "limit", "ready", "basis", "source", "site"
    );
    for row in sites {
        let source = if row.source.is_empty() { "-" } else { &row.source };
        let basis = if row.basis.kind == "none" { "-" } else { &row.basis.kind };
        let _ = writeln!(
            table,
            "{:>5} {:>7} {:>5} {:>13}  {basis:<10} {source:<15} {:<NAME_MAX$}  {}",
            row.connections,
            row.slots,
            row.limit,
            ready(row),
            shortened(&row.site),
            state_in_words(row, now_ms)
        );
    }
    table
}

/// `≥` where ranges were counted as one recipient each.
pub(super) fn ready(row: &SiteRow) -> String {
    format!("{}{}", if row.ready_is_least { "≥ " } else { "" }, grouped(row.ready))
}

/// A long set of hosts by its first one and the number of the others.
fn shortened(site: &str) -> String {
    if site.len() <= NAME_MAX {
        return site.to_owned();
    }
    let (first, others) = site.split_once(',').unwrap_or((site, ""));
    let count = others.split(',').filter(|host| !host.is_empty()).count();
    let count = if count > 0 { format!(" +{count}") } else { String::new() };
    let room = NAME_MAX - count.len();
    if first.len() <= room {
        return format!("{first}{count}");
    }
    format!("{}…{count}", &first[..first.floor_char_boundary(room.saturating_sub(1))])
}

/// What the site is doing, and what keeps it from doing more.
pub(super) fn state_in_words(row: &SiteRow, now_ms: u64) -> String {
    let time = row.until_ms.map(|until| time_until(until, now_ms)).unwrap_or_default();
    let words = match row.state {
        SiteState::Idle => return "idle".into(),
        SiteState::Sending => return "sending".into(),
        SiteState::Held => return "held".into(),
        SiteState::Ready => "waits for a connection".into(),
        SiteState::NoRoom => "waits until a connection to another site ends".into(),
        SiteState::Connecting => "connecting".into(),
        SiteState::Pauses => format!("pauses {time}"),
        SiteState::Rate => format!("rate: next in {time}"),
        SiteState::Waits => format!("waits {time}"),
        SiteState::Suspended => {
            format!("suspended until {}", UnixMillis(row.until_ms.unwrap_or_default()).rfc3339())
        }
    };
    if row.why.is_empty() { words } else { format!("{words}: {}", row.why) }
}

// ---- hosts ----

fn hosts(mut daemon: Daemon, args: &HostList) -> Result<(), QueueError> {
    let look = Look::Hosts { limit: args.limit.min(ROWS_MAX) };
    let View::Hosts { hosts, has_more } = daemon.look(&look)? else { return Err(look::surprise()) };
    drop(daemon);
    if args.json {
        return Ok(writeln!(io::stdout(), "{}", json!({ "hosts": hosts, "has_more": has_more }))?);
    }
    write!(io::stdout(), "{}", host_table(&hosts, clock::wall().0))?;
    if has_more {
        eprintln!("ringpost: only {} hosts are shown; --limit shows more", grouped(hosts.len() as u64));
    }
    Ok(())
}

fn host_table(hosts: &[HostRow], now_ms: u64) -> String {
    let mut table = String::new();
    if hosts.is_empty() {
        return "no host rests\n".to_owned();
    }
    let _ =
        writeln!(table, "{:<24} {:<8} {:>12} {:>8}  {:<8} why", "address", "state", "for", "failures", "at");
    for row in hosts {
        let at = row.core.map_or_else(|| "all".to_owned(), |core| format!("core {core}"));
        let name = if row.name.is_empty() { String::new() } else { format!("{}: ", row.name) };
        let _ = writeln!(
            table,
            "{:<24} {:<8} {:>12} {:>8}  {at:<8} {name}{}",
            row.address.to_string(),
            host_state(row),
            row.rests_until_ms.map_or_else(|| "-".to_owned(), |until| time_until(until, now_ms)),
            row.failures,
            row.why
        );
    }
    table
}

pub(super) fn host_state(row: &HostRow) -> &'static str {
    match (row.is_down, row.rests_until_ms) {
        (true, Some(_)) => "down",
        (false, Some(_)) => "resting",
        // One connection tries it out.
        (_, None) => "rested",
    }
}

// ---- forget ----

fn meant(args: &Forget) -> Result<Vec<Meant>, String> {
    if args.addresses.is_empty() && !args.all {
        return Err("say which: addresses, or --all".into());
    }
    args.addresses.iter().map(|address| address.parse()).collect()
}

fn forget(mut daemon: Daemon, addresses: Vec<Meant>, args: &Forget) -> Result<(), QueueError> {
    let look = Look::Forget { addresses, all: args.all };
    let View::Forgotten(count) = daemon.look(&look)? else { return Err(look::surprise()) };
    drop(daemon);
    if args.json {
        return Ok(writeln!(io::stdout(), "{}", json!({ "forgotten": count }))?);
    }
    let plural = if count == 1 { "" } else { "s" };
    Ok(writeln!(io::stdout(), "{} rest{plural} forgotten", grouped(count))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::look::view::BasisView;

    fn row(state: SiteState, until_ms: Option<u64>, why: &str) -> SiteRow {
        let basis = BasisView { kind: "mta-sts".into(), ..BasisView::default() };
        let site = "mx.a.test".to_owned();
        SiteRow {
            site,
            basis,
            slots: 5,
            limit: 20,
            ready: 1234,
            state,
            until_ms,
            why: why.into(),
            ..SiteRow::default()
        }
    }

    #[test]
    fn every_state_has_its_words() {
        let cases = [
            (row(SiteState::Idle, None, "450 old"), "idle"),
            (row(SiteState::Sending, None, ""), "sending"),
            (row(SiteState::Held, None, ""), "held"),
            (row(SiteState::Waits, Some(42_000), "421 4.7.0 later"), "waits 42 s: 421 4.7.0 later"),
            (row(SiteState::Pauses, Some(900), ""), "pauses 1 s"),
            (row(SiteState::Rate, Some(3_000), ""), "rate: next in 3 s"),
            (
                row(SiteState::Suspended, Some(0), "550 no"),
                "suspended until 1970-01-01T00:00:00.000Z: 550 no",
            ),
            (row(SiteState::NoRoom, None, ""), "waits until a connection to another site ends"),
            (row(SiteState::Ready, None, ""), "waits for a connection"),
            (row(SiteState::Connecting, None, "451 refused"), "connecting: 451 refused"),
        ];
        for (row, words) in cases {
            assert_eq!(state_in_words(&row, 0), words);
        }
    }

    #[test]
    fn table_of_sites_has_a_line_each() {
        let mut least = row(SiteState::Sending, None, "");
        (least.ready_is_least, least.source, least.connections) = (true, "192.0.2.9".into(), 3);
        let table = site_table(&[least, row(SiteState::Idle, None, "")], 0);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 3);
        let cells = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            cells(lines[1]),
            ["3", "5", "20", "≥", "1,234", "mta-sts", "192.0.2.9", "mx.a.test", "sending"]
        );
        assert_eq!(cells(lines[2]), ["0", "5", "20", "1,234", "mta-sts", "-", "mx.a.test", "idle"]);
        assert_eq!(site_table(&[], 0), "no such sites\n");
    }

    #[test]
    fn long_sets_of_hosts_are_shortened() {
        assert_eq!(shortened("mx1.a.test,mx2.a.test"), "mx1.a.test,mx2.a.test");
        let many = ["mx.a.test"; 9].join(",");
        assert_eq!(shortened(&many), "mx.a.test +8");
        let long = format!("{}.test,b", "a".repeat(60));
        assert_eq!(shortened(&long), format!("{}… +1", "a".repeat(36)));
        assert!(shortened(&"é".repeat(60)).ends_with('…'));
    }

    #[test]
    fn table_of_hosts_says_who_is_down_and_for_whom() {
        let host = |core, rests_until_ms, is_down| HostRow {
            address: "192.0.2.1:25".parse().unwrap(),
            name: String::new(),
            core,
            rests_until_ms,
            is_down,
            failures: 2,
            why: "no answer in time".into(),
        };
        let rows =
            [host(None, Some(3_600_000), true), host(Some(1), Some(60_000), false), host(None, None, true)];
        let table = host_table(&rows, 0);
        let starts = [
            "192.0.2.1:25             down              1 h        2  all",
            "192.0.2.1:25             resting         1 min        2  core 1",
            "192.0.2.1:25             rested              -        2  all",
        ];
        for (line, start) in table.lines().skip(1).zip(starts) {
            assert!(line.starts_with(start) && line.ends_with("no answer in time"), "{line}");
        }
    }

    #[test]
    fn forgetting_needs_to_be_told_what() {
        let args = |addresses: &[&str], all| Forget {
            file: ConfigFile { config: "".into() },
            addresses: addresses.iter().map(|address| (*address).into()).collect(),
            all,
            json: false,
        };
        assert!(meant(&args(&[], false)).unwrap_err().starts_with("say which"));
        assert!(meant(&args(&["mx.test"], false)).unwrap_err().contains("no address"));
        assert_eq!(meant(&args(&["192.0.2.1", "[::1]:25"], false)).map(|meant| meant.len()), Ok(2));
        assert_eq!(meant(&args(&[], true)), Ok(vec![]));
    }
}
