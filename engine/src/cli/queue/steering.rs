//! `queue hold|release|retry|bounce|delete|flush`: orders to a running daemon.
//!
//! Without `--yes` the same order is given dry, and what it would do is said. Bound: one chunk of spans.

use super::daemon::Daemon;
use super::files::Files;
use super::filter::Filter;
use super::view::request;
use super::{FlushArgs, QueueError, SteerArgs, grouped};
use crate::config::Config;
use crate::steer::order::{Action, Report};
use crate::steer::wire::Request;
use serde_json::json;

pub(super) fn steer(
    config: &Config,
    action: Action,
    args: &SteerArgs,
    connect: impl Fn() -> Result<Option<Daemon>, QueueError>,
) -> Result<(), QueueError> {
    let filter = Filter::new(&args.which)?;
    if filter.is_everything() && !args.all {
        return Err(QueueError::Usage("say which: ids, --where, or --all for the whole queue".into()));
    }
    let mut daemon = connect()?.ok_or(QueueError::NotRunning)?;
    let mut all = Report::default();
    Files::each_chunk(&config.queue, &filter, &mut |chosen| {
        let mut request = request(action, &filter, chosen);
        request.dry_run = !args.yes;
        all.merge(daemon.ask(&request)?);
        Ok(())
    })?;
    drop(daemon);
    say(action, !args.yes, &all, args.json);
    Ok(())
}

pub(super) fn flush(
    args: &FlushArgs,
    connect: impl Fn() -> Result<Option<Daemon>, QueueError>,
) -> Result<(), QueueError> {
    let mut daemon = connect()?.ok_or(QueueError::NotRunning)?;
    let mut report = Report::default();
    let conditions = args.domains.iter().map(|domain| vec![format!("domain={domain}")]);
    let conditions: Vec<_> = if args.domains.is_empty() { vec![Vec::new()] } else { conditions.collect() };
    for condition in conditions {
        let request = Request { r#where: condition, ..Request::new(Action::Flush) };
        report.merge(daemon.ask(&request)?);
    }
    drop(daemon);
    say(Action::Flush, false, &report, args.json);
    Ok(())
}

fn say(action: Action, is_dry: bool, report: &Report, json: bool) {
    let Report { messages, recipients, in_flight, .. } = *report;
    if json {
        let line = json!({ "action": action, "dry_run": is_dry, "messages": messages, "recipients": recipients,
            "in_flight": in_flight });
        return println!("{line}");
    }
    let verb = match action {
        Action::Hold => "held",
        Action::Release => "released",
        Action::Retry | Action::Flush => "tried now",
        Action::Bounce => "returned",
        Action::Delete => "deleted",
        Action::Fetch => "fetched",
        Action::Sift => "sifted",
        Action::Stat | Action::List | Action::Show => "found",
    };
    let would = if is_dry { "would be " } else { "" };
    println!("{} recipients of {} messages {would}{verb}", grouped(recipients), grouped(messages));
    if in_flight > 0 {
        println!("{} more are in flight and {would}not touched", grouped(in_flight));
    }
    if is_dry {
        println!("nothing was changed; --yes does it");
    }
}
