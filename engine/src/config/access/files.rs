//! What stands in the files that `[access]` names.

use super::rule::Rule;
use super::{Access, FILE_MAX, LINES_MAX, tcprules};
use crate::config::ConfigError;
use message::cdb::Cdb;
use std::path::Path;

/// Read by [`Access::read_files`]; empty where no file is named.
#[derive(Clone, Debug, Default)]
pub struct AccessFiles {
    pub rules: Vec<Rule>,
    pub relay_to: Vec<String>,
    pub relay_to_cdb: Option<Cdb>,
    pub bad_senders: Vec<String>,
    pub bad_recipients: Vec<String>,
}

impl Access {
    /// An error names the file, and the line where there are lines.
    pub fn read_files(&mut self) -> Result<(), ConfigError> {
        let mut files = AccessFiles::default();
        if let Some(path) = &self.rules_file {
            let (text, name) = (text(path)?, path.display().to_string());
            files.rules = tcprules::parse(&text, &name).map_err(|(line, what)| wrong(path, line, what))?;
        }
        match &self.relay_to_file {
            Some(path) if path.extension().is_some_and(|ending| ending == "cdb") => {
                files.relay_to_cdb = Some(Cdb::new(octets(path)?).ok_or_else(|| broken(path))?);
            }
            Some(path) => files.relay_to = lines(path, check_domain)?,
            None => {}
        }
        if let Some(path) = &self.bad_senders_file {
            files.bad_senders = lines(path, check_mailbox)?;
        }
        if let Some(path) = &self.bad_recipients_file {
            files.bad_recipients = lines(path, check_mailbox)?;
        }
        self.files = files;
        Ok(())
    }
}

fn wrong(path: &Path, line: usize, what: String) -> ConfigError {
    ConfigError::Wrong { file: path.display().to_string(), line, what }
}

fn broken(path: &Path) -> ConfigError {
    let what = "this is no constant database (cdb), or a part of one".to_owned();
    ConfigError::Value { file: path.display().to_string(), what }
}

fn octets(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let file = path.display().to_string();
    let failed = |source| ConfigError::Read { file: file.clone(), source };
    if std::fs::metadata(path).map_err(failed)?.len() > FILE_MAX {
        return Err(ConfigError::Value { file, what: format!("longer than {} MiB", FILE_MAX >> 20) });
    }
    std::fs::read(path).map_err(failed)
}

fn text(path: &Path) -> Result<String, ConfigError> {
    String::from_utf8(octets(path)?).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|octet| **octet == b'\n').count();
        wrong(path, line, "this is not UTF-8".to_owned())
    })
}

/// Without empty lines and comments.
fn lines(path: &Path, check: impl Fn(&str) -> Result<(), String>) -> Result<Vec<String>, ConfigError> {
    let mut entries = Vec::new();
    for (line, number) in text(path)?.lines().zip(1..) {
        let entry = line.trim();
        if entry.is_empty() || entry.starts_with('#') {
            continue;
        }
        check(entry).map_err(|what| wrong(path, number, what))?;
        if entries.len() == LINES_MAX {
            return Err(wrong(path, number, format!("more than {LINES_MAX} entries; use a .cdb")));
        }
        entries.push(entry.to_owned());
    }
    Ok(entries)
}

pub(super) fn check_domains(entries: &[String]) -> Result<(), String> {
    check_all(entries, check_domain)
}

pub(super) fn check_mailboxes(entries: &[String]) -> Result<(), String> {
    check_all(entries, check_mailbox)
}

fn check_all(entries: &[String], check: impl Fn(&str) -> Result<(), String>) -> Result<(), String> {
    if entries.len() > LINES_MAX {
        return Err(format!("more than {LINES_MAX} entries"));
    }
    entries.iter().try_for_each(|entry| check(entry))
}

fn check_domain(entry: &str) -> Result<(), String> {
    let is_right = entry == "*" || message::Domain::parse(entry.strip_prefix('.').unwrap_or(entry)).is_ok();
    if is_right { Ok(()) } else { Err(format!("{entry:?} is no domain, .domain or *")) }
}

fn check_mailbox(entry: &str) -> Result<(), String> {
    let is_right = match entry.strip_prefix('@') {
        Some(domain) => message::Domain::parse(domain.strip_prefix('.').unwrap_or(domain)).is_ok(),
        None => message::Mailbox::parse(entry).is_ok(),
    };
    if is_right { Ok(()) } else { Err(format!("{entry:?} is no address, @domain or @.domain")) }
}
