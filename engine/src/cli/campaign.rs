//! `ringpost campaign …`: what there is, how far each is, and orders about one.

use super::api::{ApiArgs, ApiError};
use super::grouped;
use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(crate) enum CampaignCommand {
    /// All campaigns, each with how far it is
    List(Listing),
    /// One campaign: its terms and what became of its recipients
    Show(One),
    /// Begin no further recipient until it is resumed
    Pause(One),
    /// Go on
    Resume(One),
    /// End it: who was not served is not written to
    Cancel(One),
    /// Forget one that is over, and who was in it; its name is free then
    Remove(One),
    /// At most so many recipients in any time: 100/s, 5000/h; `none` lifts it
    Rate(Rating),
}

#[derive(Args, Debug)]
pub(crate) struct Listing {
    #[command(flatten)]
    api: ApiArgs,
    /// As JSON, one line a campaign
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct One {
    campaign: String,
    #[command(flatten)]
    api: ApiArgs,
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Rating {
    campaign: String,
    rate: String,
    #[command(flatten)]
    api: ApiArgs,
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(command: &CampaignCommand) -> ExitCode {
    let result = match command {
        CampaignCommand::List(listing) => list(listing),
        CampaignCommand::Show(one) => show(one),
        CampaignCommand::Pause(one) => order(one, "pause"),
        CampaignCommand::Resume(one) => order(one, "resume"),
        CampaignCommand::Cancel(one) => order(one, "cancel"),
        CampaignCommand::Remove(one) => remove(one),
        CampaignCommand::Rate(rating) => rate(rating),
    };
    result.map_or_else(|error| error.exit(), |()| ExitCode::SUCCESS)
}

fn list(listing: &Listing) -> Result<(), ApiError> {
    let (api, mut after) = (listing.api.open()?, String::new());
    if !listing.json {
        println!(
            "{:<24} {:<9} {:>12} {:>12} {:>10} {:>12}",
            "campaign", "state", "recipients", "delivered", "failed", "waiting"
        );
    }
    loop {
        let path = format!("/api/campaigns?limit=500{after}");
        let page = api.ask(Method::GET, &path, None)?;
        let campaigns = page.get("campaigns").and_then(Value::as_array).cloned().unwrap_or_default();
        for campaign in &campaigns {
            if listing.json { println!("{campaign}") } else { println!("{}", row(campaign)) }
        }
        match page.get("next").and_then(Value::as_str) {
            Some(last) if !campaigns.is_empty() => after = format!("&after={last}"),
            _ => return Ok(()),
        }
    }
}

fn row(campaign: &Value) -> String {
    let text = |key: &str| campaign.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let [all, delivered, failed, waiting] =
        ["recipients", "delivered", "failed", "waiting"].map(|key| count(campaign, key));
    format!("{:<24} {:<9} {all:>12} {delivered:>12} {failed:>10} {waiting:>12}", text("id"), text("state"))
}

fn count(campaign: &Value, key: &str) -> String {
    grouped(campaign.get(key).and_then(Value::as_u64).unwrap_or(0))
}

fn path(campaign: &str, order: &str) -> String {
    // A name that is none gets the daemon's answer, not another resource.
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-._~".contains(&octet);
    let name: String = campaign
        .bytes()
        .map(|octet| if is_plain(octet) { char::from(octet).to_string() } else { format!("%{octet:02X}") })
        .collect();
    format!("/api/campaigns/{name}{order}")
}

fn show(one: &One) -> Result<(), ApiError> {
    let answer = one.api.open()?.ask(Method::GET, &path(&one.campaign, ""), None)?;
    print(&answer, one.json);
    Ok(())
}

fn order(one: &One, order: &str) -> Result<(), ApiError> {
    let answer = one.api.open()?.ask(Method::POST, &path(&one.campaign, &format!("/{order}")), None)?;
    print(&answer, one.json);
    Ok(())
}

fn remove(one: &One) -> Result<(), ApiError> {
    one.api.open()?.ask(Method::DELETE, &path(&one.campaign, ""), None)?;
    if one.json {
        println!("{}", json!({ "removed": one.campaign }))
    } else {
        println!("{}: removed", one.campaign)
    }
    Ok(())
}

fn rate(rating: &Rating) -> Result<(), ApiError> {
    let rate = if rating.rate == "none" { Value::Null } else { json!(rating.rate) };
    let body = json!({ "rate": rate });
    let answer = rating.api.open()?.ask(Method::POST, &path(&rating.campaign, "/rate"), Some(&body))?;
    print(&answer, rating.json);
    Ok(())
}

/// One campaign, for people or for programs.
pub(super) fn print(campaign: &Value, json: bool) {
    if json {
        return println!("{campaign}");
    }
    for key in ["id", "state", "envelope_sender", "list", "rate", "created"] {
        if let Some(text) = campaign.get(key).and_then(Value::as_str) {
            println!("{key:<16} {text}");
        }
    }
    for key in ["recipients", "delivered", "failed", "suppressed", "cancelled", "waiting"] {
        println!("{key:<16} {:>14}", count(campaign, key));
    }
}
