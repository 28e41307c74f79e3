//! `ringpost dkim`: the keys that sign what goes out, from their making to their records in the DNS.
//!
//! Exit codes: 0 all is well, 1 something is not as it should be, 75 it could not be found out, 78 the configuration or a
//! key's file is wrong.

mod check;
mod keygen;
mod show;

use super::{ConfigFile, complain};
use crate::config::{Config, ConfigError};
use clap::Subcommand;
use message::dkim::{DomainSigners, SelectorKey, SignError, name_of};
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

#[derive(Debug, Subcommand)]
pub(crate) enum DkimCommand {
    /// Make a key, and print the record that is to be published for it.
    Keygen(keygen::Keygen),
    /// Print the records of all configured keys.
    Show(show::Show),
    /// See whether the DNS has the records of all configured keys; with --message, whether a message's signatures hold.
    Check(check::Check),
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
enum DkimError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Usage(&'static str),
    #[error("{path}: {source}", path = .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Key(#[from] SignError),
    #[error("the name servers cannot be asked: {0}")]
    Servers(String),
    #[error("{0}")]
    Output(#[from] io::Error),
}

impl DkimError {
    fn exit_code(&self) -> u8 {
        match self {
            DkimError::Config(_) | DkimError::Usage(_) => 78,
            DkimError::File { .. } | DkimError::Key(_) | DkimError::Servers(_) | DkimError::Output(_) => 75,
        }
    }
}

pub(super) fn run(command: &DkimCommand) -> ExitCode {
    let done = match command {
        DkimCommand::Keygen(args) => keygen::run(args),
        DkimCommand::Show(args) => show::run(args),
        DkimCommand::Check(args) => check::run(args),
    };
    done.unwrap_or_else(|error| complain(error.exit_code(), &error))
}

/// The configuration and its keys, of one domain if one is named.
struct Keys {
    config: Config,
    domains: Vec<Arc<DomainSigners>>,
}

impl Keys {
    fn load(file: &ConfigFile, domain: Option<&str>) -> Result<Keys, DkimError> {
        let config = file.load()?;
        let mut domains = crate::dkim::load_domains(&config.dkim).map_err(ConfigError::from)?;
        let asked = domain.map(|domain| crate::control::dns::ascii(domain).unwrap_or_default());
        domains.retain(|signers| asked.as_deref().is_none_or(|asked| asked == &*signers.domain));
        match (domains.is_empty(), asked) {
            (true, Some(_)) => Err(DkimError::Usage("dkim.domains does not have that domain")),
            _ => Ok(Keys { config, domains }),
        }
    }

    /// Each key with its domain and the name of its record.
    fn each(&self) -> impl Iterator<Item = (&DomainSigners, &SelectorKey, String)> {
        self.domains.iter().flat_map(|signers| {
            signers.keys.iter().map(|key| (&**signers, key, name_of(&key.selector, &signers.domain)))
        })
    }
}
