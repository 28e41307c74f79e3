//! `ringpost explain`: all that is known of a domain's mail, as an explanation or as JSON.
//!
//! The look says where mail goes and what holds it back; the counts of its recipients are those of `queue stat`.

use super::look::{self, secs_in_words, time_until};
use super::queue::{Daemon, QueueError};
use super::sites::{host_state, ready, state_in_words};
use super::{ConfigFile, complain, grouped};
use crate::look::ask::{Look, domain_of};
use crate::look::view::{BasisView, Explanation, HostView, Limits, RouteView, RoutedView, SiteRow, View};
use crate::steer::order::{Action, Report, Stat};
use crate::steer::wire::Request;
use clap::Args;
use serde_json::json;
use std::cmp::Reverse;
use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::process::ExitCode;

/// Reasons and sites that people are shown.
const SHOWN: usize = 10;

#[derive(Args, Debug)]
pub(crate) struct Explain {
    #[command(flatten)]
    file: ConfigFile,
    /// The domain, as it stands behind the @.
    #[arg(value_name = "DOMAIN")]
    domain: String,
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Explain) -> ExitCode {
    match domain_of(&args.domain) {
        Ok(domain) => look::run(&args.file, |daemon| explain(daemon, domain, args.json)),
        Err(why) => complain(64, &why),
    }
}

fn explain(mut daemon: Daemon, domain: String, json: bool) -> Result<(), QueueError> {
    let mut request = Request::new(Action::Stat);
    request.r#where.push(format!("domain=\"{domain}\""));
    let View::Explain(explanation) = daemon.look(&Look::Explain { domain })? else {
        return Err(look::surprise());
    };
    let report = daemon.ask(&request)?;
    drop(daemon);
    if json {
        return Ok(writeln!(io::stdout(), "{}", as_json(&explanation, &report)?)?);
    }
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_text(&mut text, &explanation, &report);
    Ok(io::stdout().write_all(text.as_bytes())?)
}

fn as_json(explanation: &Explanation, report: &Report) -> io::Result<serde_json::Value> {
    let Stat { all, reasons, next_due_ms, .. } = report.stat.clone().unwrap_or_default();
    let mut object = serde_json::to_value(explanation).map_err(io::Error::other)?;
    object["owed"] = all.owed().into();
    object["messages"] = report.messages.into();
    object["recipients"] = json!({ "ready": all.ready, "deferred": all.deferred, "held": all.held,
        "in_flight": all.in_flight, "tried": all.tried });
    object["next_due_ms"] = json!(next_due_ms);
    object["reasons"] = json!(reasons);
    Ok(object)
}

fn write_text(out: &mut String, explanation: &Explanation, report: &Report) -> fmt::Result {
    let stat = report.stat.clone().unwrap_or_default();
    write_owed(out, explanation, report, &stat)?;
    write_route(out, explanation)?;
    write_limits(out, &explanation.limits)?;
    for row in explanation.sites.iter().take(SHOWN) {
        write_site(out, row, explanation.at_ms)?;
    }
    if explanation.sites.is_empty() && explanation.resolved.refusal.is_none() {
        writeln!(out, "No connection has been wanted lately: nothing holds its mail back.")?;
    }
    write_reasons(out, &stat)
}

// ---- what is owed ----

fn write_owed(out: &mut String, explanation: &Explanation, report: &Report, stat: &Stat) -> fmt::Result {
    let (domain, owed) = (&explanation.domain, stat.all.owed());
    if owed == 0 {
        return writeln!(out, "{domain}: nothing is owed there.");
    }
    let parts = [
        (stat.all.ready, "ready"),
        (stat.all.deferred, "deferred"),
        (stat.all.held, "held"),
        (stat.all.in_flight, "in flight"),
    ];
    let parts = parts.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = parts.map(|(count, name)| format!("{} {name}", grouped(*count))).collect();
    let messages = counted(report.messages, "message");
    writeln!(out, "{domain}: {} owed, of {messages}: {}.", counted(owed, "recipient"), parts.join(", "))?;
    if let Some(due) = stat.next_due_ms {
        writeln!(out, "The first of the deferred ones is tried in {}.", time_until(due, explanation.at_ms))?;
    }
    for core in explanation.cores.iter().filter(|core| core.routed == RoutedView::Asked) {
        let waiting = grouped(core.waiting);
        writeln!(out, "Core {} waits for the name servers, with {waiting} or more recipients.", core.core)?;
    }
    Ok(())
}

fn counted(count: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(count), if count == 1 { "" } else { "s" })
}

fn write_reasons(out: &mut String, stat: &Stat) -> fmt::Result {
    if stat.reasons.is_empty() {
        return Ok(());
    }
    writeln!(out, "Why recipients wait, by the last reply:")?;
    let mut reasons: Vec<_> = stat.reasons.iter().collect();
    reasons.sort_by_key(|(_, count)| Reverse(**count));
    for (reason, count) in reasons.iter().take(SHOWN) {
        writeln!(out, "{:>15}  {reason}", grouped(**count))?;
    }
    Ok(())
}

// ---- where it goes ----

fn write_route(out: &mut String, explanation: &Explanation) -> fmt::Result {
    let resolved = &explanation.resolved;
    match &explanation.route {
        RouteView::Mx if resolved.exchanges.is_empty() && resolved.refusal.is_none() => {
            writeln!(out, "Mail goes to the domain itself: it has no MX.")?;
        }
        RouteView::Mx => writeln!(out, "Mail goes by MX:")?,
        RouteView::Literal => writeln!(out, "Mail goes to the address that the domain is.")?,
        RouteView::Local => writeln!(out, "Mail goes to this machine's mailboxes, as [local] says.")?,
        RouteView::Relay { to } => writeln!(out, "Mail goes to the relay {to}, as [routes] says.")?,
    }
    for (preference, host) in &resolved.exchanges {
        writeln!(out, "{preference:>8}  {}", if host.is_empty() { "." } else { host })?;
    }
    if let Some(refusal) = &resolved.refusal {
        writeln!(out, "Nothing can go there: {refusal}")?;
        return write_relaxed(out, resolved.relaxes);
    }
    let kept = resolved.ttl_secs.map(|secs| format!(" (asked again within {})", secs_in_words(secs)));
    writeln!(out, "Hosts, in the order in which they are tried{}:", kept.unwrap_or_default())?;
    for host in &resolved.hosts {
        write_host(out, host, explanation.at_ms)?;
    }
    write_basis(out, &resolved.basis)?;
    write_relaxed(out, resolved.relaxes)
}

fn write_relaxed(out: &mut String, relaxes: bool) -> fmt::Result {
    if relaxes {
        writeln!(out, "Mail that says TLS-Required: No goes there all the same (RFC 8689).")?;
    }
    Ok(())
}

fn write_host(out: &mut String, host: &HostView, now_ms: u64) -> fmt::Result {
    let HostView { name, address, tls, trouble, .. } = host;
    writeln!(out, "    {name} at {address}: {tls}")?;
    let Some(trouble) = trouble else { return Ok(()) };
    let time = trouble.rests_until_ms.map(|until| format!(" for {}", time_until(until, now_ms)));
    let (state, failures) = (host_state(trouble), counted(u64::from(trouble.failures), "failure"));
    writeln!(out, "        {state}{}, after {failures}: {}", time.unwrap_or_default(), trouble.why)
}

fn write_basis(out: &mut String, basis: &BasisView) -> fmt::Result {
    match basis.kind.as_str() {
        "configured" => writeln!(out, "They are protected as the operator says, in [tls].")?,
        "mta-sts" => writeln!(out, "They are protected as the domain's MTA-STS policy says (RFC 8461):")?,
        "dane" => writeln!(out, "They are protected as their TLSA records say (RFC 7672):")?,
        _ => writeln!(out, "Nobody demands that they be protected.")?,
    }
    basis.policy.iter().try_for_each(|line| writeln!(out, "        {line}"))
}

// ---- what holds it back ----

fn write_limits(out: &mut String, limits: &Limits) -> fmt::Result {
    let provider = limits.provider.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
    writeln!(
        out,
        "Limits{provider}: {} ({} at first), {} on each, {} in a transaction.",
        counted(u64::from(limits.connections_max), "connection"),
        limits.connections_initial,
        counted(u64::from(limits.messages_per_connection), "message"),
        counted(limits.recipients_per_transaction as u64, "recipient"),
    )?;
    if !limits.rates.is_empty() {
        writeln!(out, "Rates: {}.", limits.rates.join(", "))?;
    }
    writeln!(
        out,
        "After {} in a row it is left alone for {}, twice as long each time, up to {}.",
        counted(u64::from(limits.failures_max), "failure"),
        secs_in_words(limits.backoff_secs),
        secs_in_words(limits.backoff_max_secs)
    )
}

fn write_site(out: &mut String, row: &SiteRow, now_ms: u64) -> fmt::Result {
    let source = if row.source.is_empty() { String::new() } else { format!(" from {}", row.source) };
    let basis = if row.basis.kind == "none" { String::new() } else { format!(" ({})", row.basis.kind) };
    writeln!(out, "Site {}{source}{basis}: {}", row.site, state_in_words(row, now_ms))?;
    writeln!(
        out,
        "    connections {} of {} that it may have now, {} at most; {} connecting, {} idle",
        row.connections, row.slots, row.limit, row.connecting, row.idle
    )?;
    writeln!(out, "    recipients ready {}", ready(row))?;
    if row.failures > 0 {
        writeln!(out, "    {} in a row", counted(u64::from(row.failures), "failure"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::look::view::{CoreView, HostRow, Resolved, SiteState};
    use crate::steer::order::ByState;

    fn host(trouble: Option<HostRow>) -> HostView {
        let (name, address) = ("mx.a.test".to_owned(), "192.0.2.1:25".parse().unwrap());
        let tls = "encrypted if it offers that".to_owned();
        HostView { name, address, tls, allows_plain: true, trouble }
    }

    fn explanation() -> Explanation {
        let trouble = HostRow {
            address: "192.0.2.1:25".parse().unwrap(),
            name: String::new(),
            core: None,
            rests_until_ms: Some(61_000),
            is_down: false,
            failures: 3,
            why: "connection refused".into(),
        };
        let (core, routed) = (0, RoutedView::Known);
        let basis = BasisView {
            kind: "mta-sts".into(),
            policy: vec!["mode: enforce".into()],
            ..BasisView::default()
        };
        let site = SiteRow {
            site: "mx.a.test".into(),
            basis: basis.clone(),
            slots: 1,
            limit: 20,
            ready: 12_000,
            ready_is_least: true,
            failures: 3,
            state: SiteState::Waits,
            until_ms: Some(43_000),
            why: "421 4.7.0 later".into(),
            ..SiteRow::default()
        };
        Explanation {
            domain: "a.test".into(),
            at_ms: 1_000,
            route: RouteView::Mx,
            resolved: Resolved {
                exchanges: vec![(10, "mx.a.test".into())],
                site: "mx.a.test".into(),
                hosts: vec![host(Some(trouble))],
                basis,
                relaxes: false,
                ttl_secs: Some(300),
                refusal: None,
            },
            limits: Limits {
                connections_max: 20,
                backoff_secs: 60,
                backoff_max_secs: 3600,
                ..Limits::default()
            },
            cores: vec![CoreView { core, owed: 12_345, routed, waiting: 0, expires_ms: None }],
            sites: vec![site],
        }
    }

    fn report() -> Report {
        let all = ByState { ready: 12_000, deferred: 345, ..ByState::default() };
        let reasons = [("450 busy".to_owned(), 5), ("451 later".to_owned(), 340)].into();
        let stat = Stat { all, reasons, next_due_ms: Some(304_000), ..Stat::default() };
        Report { messages: 1, stat: Some(stat), ..Report::default() }
    }

    fn text(explanation: &Explanation, report: &Report) -> String {
        let mut text = String::new();
        write_text(&mut text, explanation, report).unwrap();
        text
    }

    #[test]
    fn explanation_says_what_is_owed_where_it_goes_and_what_holds_it_back() {
        let text = text(&explanation(), &report());
        let lines = [
            "a.test: 12,345 recipients owed, of 1 message: 12,000 ready, 345 deferred.",
            "The first of the deferred ones is tried in 5 min 3 s.",
            "Mail goes by MX:",
            "      10  mx.a.test",
            "Hosts, in the order in which they are tried (asked again within 5 min):",
            "    mx.a.test at 192.0.2.1:25: encrypted if it offers that",
            "        resting for 1 min, after 3 failures: connection refused",
            "They are protected as the domain's MTA-STS policy says (RFC 8461):",
            "        mode: enforce",
            "Site mx.a.test (mta-sts): waits 42 s: 421 4.7.0 later",
            "    connections 0 of 1 that it may have now, 20 at most; 0 connecting, 0 idle",
            "    recipients ready ≥ 12,000",
            "    3 failures in a row",
        ];
        for line in lines {
            assert!(text.lines().any(|found| found == line), "{line:?} is not in\n{text}");
        }
        let reasons: Vec<&str> = text.lines().rev().take(2).collect();
        assert_eq!(reasons, ["              5  450 busy", "            340  451 later"]);
    }

    #[test]
    fn refusal_stands_in_place_of_hosts() {
        let mut refused = explanation();
        refused.resolved = Resolved {
            refusal: Some("556 5.1.10 the domain takes no mail".into()),
            exchanges: vec![(0, String::new())],
            ..Resolved::default()
        };
        refused.sites = Vec::new();
        let text = text(&refused, &Report::default());
        assert!(text.starts_with("a.test: nothing is owed there.\n"), "{text}");
        assert!(
            text.contains("\n       0  .\nNothing can go there: 556 5.1.10 the domain takes no mail\n"),
            "{text}"
        );
        assert!(!text.contains("Hosts") && !text.contains("nothing holds"), "{text}");
    }

    #[test]
    fn relay_and_literal_have_their_own_words() {
        let mut other = explanation();
        other.resolved.exchanges.clear();
        other.route = RouteView::Relay { to: "relay.test:25".into() };
        assert!(text(&other, &report()).contains("Mail goes to the relay relay.test:25, as [routes] says."));
        other.route = RouteView::Literal;
        assert!(text(&other, &report()).contains("Mail goes to the address that the domain is."));
        other.route = RouteView::Mx;
        assert!(text(&other, &report()).contains("Mail goes to the domain itself: it has no MX."));
    }

    #[test]
    fn json_has_all_of_it() {
        let object = as_json(&explanation(), &report()).unwrap();
        assert_eq!(
            (&object["recipients"]["deferred"], &object["next_due_ms"]),
            (&345.into(), &304_000.into())
        );
        assert_eq!(
            (&object["route"]["by"], &object["resolved"]["exchanges"][0][0]),
            (&"mx".into(), &10.into())
        );
        assert_eq!(object["owed"], 12_345);
        assert_eq!((&object["sites"][0]["state"], &object["messages"]), (&"waits".into(), &1.into()));
        assert_eq!(object["reasons"]["451 later"], 340);
    }
}
