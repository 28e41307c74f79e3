//! `ringpost dkim check`: are the records of the configured keys in the DNS, and do a message's signatures hold?
//!
//! Asks the configured name servers, or the system's, as verifiers elsewhere will ask theirs; what was published a minute
//! ago may not be everywhere. Bound: one question at a time; a message of up to [`MESSAGE_MAX`] octets.

use super::{ConfigFile, DkimError, Keys};
use crate::config::Config;
use crate::control::dns::{Lack, Questions};
use crate::settings::Settings;
use crate::verify::{Dkim, Finding, Letter, Verifier};
use bytes::Bytes;
use clap::Args;
use message::ReversePath;
use message::compose::header::{put_lines, without_mbox_line};
use message::dkim::{DomainSigners, SelectorKey, objections};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const MESSAGE_MAX: usize = 512 << 20;

#[derive(Args, Debug)]
pub(crate) struct Check {
    #[command(flatten)]
    file: ConfigFile,
    /// Only this one.
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
    /// Verify the signatures of the message in this file too, as it would be when it came in. Its lines may end in LF.
    #[arg(long, value_name = "FILE")]
    message: Option<PathBuf>,
}

/// What came of one question, the worst last.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Outcome {
    Good,
    /// It could not be found out.
    Unknown,
    Wrong,
}

pub(super) fn run(args: &Check) -> Result<ExitCode, DkimError> {
    let keys = Keys::load(&args.file, args.domain.as_deref())?;
    let message = args.message.as_deref().map(read_message).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (text, outcome) = runtime.block_on(check(&keys, message))?;
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::from(match outcome {
        Outcome::Good => 0,
        Outcome::Unknown => 75,
        Outcome::Wrong => 1,
    }))
}

/// A line for each key and each signature, and the worst of them.
async fn check(keys: &Keys, message: Option<Bytes>) -> Result<(String, Outcome), DkimError> {
    let servers = |error: &dyn std::fmt::Display| DkimError::Servers(error.to_string());
    let settings = Settings::new(keys.config.clone(), &[0; 32]);
    let questions = Questions::about_clients(&settings).map_err(|error| servers(&error))?;
    let (mut text, mut worst) = (String::new(), Outcome::Good);
    let mut note = |what: String, outcome: Outcome| {
        text.push_str(&what);
        text.push('\n');
        worst = worst.max(outcome);
    };
    for (signers, signer, name) in keys.each() {
        let found = questions.texts(&name).await.map(|answer| answer.records);
        let (said, outcome) = judge(signers, signer, found);
        note(format!("{name}: {said}"), outcome);
    }
    if let Some(content) = message {
        let found = verify(&keys.config, content).await.map_err(|error| servers(&error))?;
        found.iter().for_each(|dkim| note(in_words(dkim), outcome_of(dkim.finding)));
    }
    Ok((text, worst))
}

/// The records that were found at a key's name, or why none was.
fn judge(
    signers: &DomainSigners,
    SelectorKey { key, .. }: &SelectorKey,
    found: Result<Vec<Vec<u8>>, Lack>,
) -> (String, Outcome) {
    let records = match found {
        Ok(records) => records,
        Err(Lack::Name | Lack::Type) => {
            return (
                "there is no record; `ringpost dkim show` prints the one to publish".into(),
                Outcome::Wrong,
            );
        }
        Err(Lack::Trouble(why)) => return (format!("the name servers do not know: {why}"), Outcome::Unknown),
    };
    let [record] = &records[..] else {
        let count = records.len();
        return (
            format!("there are {count} records, and a verifier may take any of them (RFC 6376 3.6.2.2)"),
            Outcome::Wrong,
        );
    };
    let is_below = signers.identity.as_deref().is_some_and(|identity| {
        identity.rsplit_once('@').is_none_or(|(_, host)| !host.eq_ignore_ascii_case(&signers.domain))
    });
    let wrong = objections(&String::from_utf8_lossy(record), key, is_below);
    match wrong.is_empty() {
        true => (format!("good, {}, {} bits", key.algorithm().as_str(), key.bits()), Outcome::Good),
        false => {
            let said: Vec<String> = wrong.iter().map(ToString::to_string).collect();
            (said.join("; "), Outcome::Wrong)
        }
    }
}

fn read_message(path: &Path) -> Result<Bytes, DkimError> {
    let failed = |source| DkimError::File { path: path.to_owned(), source };
    let (file, mut text) = (File::open(path).map_err(failed)?, Vec::new());
    file.take(MESSAGE_MAX as u64).read_to_end(&mut text).map_err(failed)?;
    let mut content = Vec::with_capacity(text.len() + text.len() / 32);
    put_lines(without_mbox_line(&text), &mut content);
    Ok(content.into())
}

/// By the verifier of incoming mail, and DKIM alone.
async fn verify(config: &Config, content: Bytes) -> Result<Vec<Dkim>, hickory_resolver::net::NetError> {
    let mut config = config.clone();
    (config.verify.spf, config.verify.dkim, config.verify.dmarc) = (false, true, false);
    (config.verify.size_max, config.verify.timeout_secs) = (MESSAGE_MAX * 2, 60);
    let letter = Letter {
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        helo: config.host_name.clone(),
        sender: ReversePath::Null,
        content,
    };
    Ok(Verifier::new(&config)?.verify(&letter).await.0.dkim)
}

fn in_words(dkim: &Dkim) -> String {
    let what = dkim.signature.as_ref().map_or_else(
        || "the message".to_owned(),
        |signature| format!("the message's signature d={} s={}", signature.domain, signature.selector),
    );
    match (dkim.finding, dkim.reason) {
        (Finding::None, _) => format!("{what} is not signed"),
        (finding, Some(reason)) => format!("{what}: {}, {reason}", finding.as_str()),
        (finding, None) => format!("{what}: {}", finding.as_str()),
    }
}

fn outcome_of(finding: Finding) -> Outcome {
    match finding {
        Finding::Pass => Outcome::Good,
        Finding::TempError => Outcome::Unknown,
        Finding::None | Finding::Fail | Finding::SoftFail | Finding::Neutral | Finding::PermError => {
            Outcome::Wrong
        }
    }
}
