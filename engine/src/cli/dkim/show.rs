//! `ringpost dkim show`: the records of the configured keys, for the zone file or as JSON.

use super::{ConfigFile, DkimError, Keys};
use clap::Args;
use message::dkim::{SignError, zone_lines};
use serde_json::{Value, json};
use std::io::{self, Write as _};
use std::process::ExitCode;

#[derive(Args, Debug)]
pub(crate) struct Show {
    #[command(flatten)]
    file: ConfigFile,
    /// Only this one.
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
    /// One JSON object a line for each key.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Show) -> Result<ExitCode, DkimError> {
    let keys = Keys::load(&args.file, args.domain.as_deref())?;
    let mut out = String::new();
    for (signers, signer, name) in keys.each() {
        let (key, record) = (&signer.key, signer.key.record()?);
        let line = || -> Result<Value, SignError> {
            Ok(json!({
                "domain": signers.domain, "selector": signer.selector, "name": name, "record": record,
                "algorithm": key.algorithm().as_str(), "bits": key.bits(), "public": key.public()?,
            }))
        };
        match args.json {
            true => out.push_str(&format!("{}\n", line()?)),
            false => out.push_str(&zone_lines(&name, &record)),
        }
    }
    io::stdout().write_all(out.as_bytes())?;
    if keys.domains.is_empty() {
        eprintln!("ringpost: dkim.domains is empty: nothing is signed");
    }
    Ok(ExitCode::SUCCESS)
}
