//! Where a user's mail goes in, and what completes it: as much of the configuration as that user may read.

use super::error::SubmitError;
use super::user::variable;
use crate::config::{self, Compose, ConfigError};
use crate::mailboxes::errand::NO_AT_HOST_VARIABLE;
use message::Domain;
use serde::Deserialize;
use std::io;
use std::path::{Path, PathBuf};

const CONFIG: &str = "/etc/ringpost/ringpost.toml";

/// Where packages put the socket, unless the configuration says otherwise.
const SOCKET: &str = "/run/ringpost/submit.sock";

/// What the command line says of it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Pointers {
    /// `--socket`.
    pub(super) socket: Option<PathBuf>,
    /// `--config`.
    pub(super) config: Option<PathBuf>,
}

impl Pointers {
    /// Takes `--socket FILE`, `--config FILE` or either with `=`; `rest` gives the next word. False if it is neither.
    pub(super) fn take(
        &mut self,
        word: &str,
        rest: &mut impl Iterator<Item = String>,
    ) -> Result<bool, SubmitError> {
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        let place = match name {
            "--socket" => &mut self.socket,
            "--config" => &mut self.config,
            _ => return Ok(false),
        };
        let value = value.map(str::to_owned).or_else(|| rest.next());
        *place = Some(value.ok_or_else(|| SubmitError::Usage(format!("{name} needs a file")))?.into());
        Ok(true)
    }

    pub(super) fn config_file(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new(CONFIG))
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) socket: PathBuf,
    pub(super) host_name: String,
    pub(super) compose: Compose,
    /// For an address without a host, in what is sent on.
    pub(super) no_at_host: String,
}

/// The keys that concern a submitting user; the daemon checks the others.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Readable {
    host_name: Option<String>,
    submit: Option<PathBuf>,
    compose: Compose,
    local: ReadableLocal,
}

/// Of `[local]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ReadableLocal {
    no_at_host: Option<String>,
}

impl Place {
    /// The socket is that of `--socket`, else of `RINGPOST_SUBMIT`, else of the configuration's `submit`, else the usual
    /// one. What has no host gets that of `RINGPOST_NO_AT_HOST`, else of `local.no_at_host`, else `host_name`.
    pub(super) fn find(pointers: &Pointers) -> Result<Place, SubmitError> {
        let Readable { host_name, submit, compose, local } = read(pointers)?;
        let named = std::env::var_os("RINGPOST_SUBMIT").filter(|name| !name.is_empty()).map(PathBuf::from);
        let socket = pointers.socket.clone().or(named).or(submit).unwrap_or_else(|| SOCKET.into());
        let host_name = host_name.unwrap_or_else(config::system_host_name);
        let no_at_host = variable(NO_AT_HOST_VARIABLE).or(local.no_at_host);
        let no_at_host = no_at_host.unwrap_or_else(|| host_name.clone());
        Ok(Place { socket, host_name, compose, no_at_host })
    }

    pub(super) fn no_at_host(&self) -> Result<Domain, SubmitError> {
        let text = &self.no_at_host;
        Domain::parse(text).map_err(|reason| SubmitError::NoAtHost { text: text.clone(), reason })
    }
}

/// Nothing, if the usual file is not there or not for us.
fn read(pointers: &Pointers) -> Result<Readable, SubmitError> {
    let file = pointers.config_file();
    let name = file.display().to_string();
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(config::read_toml(&text, &name)?),
        Err(error) if pointers.config.is_none() && is_not_for_us(&error) => Ok(Readable::default()),
        Err(source) => Err(ConfigError::Read { file: name, source }.into()),
    }
}

fn is_not_for_us(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::NotADirectory
    )
}
