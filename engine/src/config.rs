//! The configuration file: one TOML file, every key with its default here and nowhere else.
//!
//! An error names file, line and key and says what to do. Trusts nothing: unknown keys are errors, values are
//! checked against what the machines can do.

mod access;
mod api;
mod auth;
mod bounces;
mod campaigns;
mod compose;
mod dkim;
mod events;
mod keep;
mod listeners;
mod local;
mod network;
mod pop3;
mod rate;
mod retry;
mod routes;
mod shaping;
mod sources;
mod supervise;
mod suppression;
mod tls;
mod verify;

#[cfg(test)]
pub(crate) use access::write_cdb;
pub use access::{
    Access, AccessFiles, CertificateIs, DnsList, FILE_MAX, LINES_MAX, LISTS_MAX, ListKind, ListOn, NameIs,
    Networks, Pace, RULES_MAX, Rule, RuleSource, Suffix, UserIs, Words, fuzz_tcprules,
};
pub use api::{Api, Unsubscribe};
pub use auth::Auth;
pub use bounces::{BounceFormat, Bounces, Tokens, Unsigned};
pub use campaigns::Campaigns;
pub use compose::Compose;
pub use dkim::{Dkim, DkimDomain, DkimSelector};
pub use events::{EventFile, Events, Place, Webhook};
pub use keep::Keep;
pub use listeners::{CertificateFiles, Listener, ListenerTls, Mechanism, Purpose, Thresholds};
pub use local::{DELIVERY_BESIDES, Local};
pub use network::Network;
pub(crate) use network::bits_of;
pub(crate) use pop3::MailboxPath;
pub use pop3::Pop3;
pub use rate::{Rate, SPAN_MAX, Span, fuzz_rate};
pub use retry::{Retry, RetrySchedule};
pub use routes::{Password, RouteEntry, RouteProtocol, RouteTable};
pub use shaping::{HostPattern, Limits, LimitsInForce, RATES_MAX, Shaping};
pub use sources::{
    DEFAULT, POOLS_MAX, Pool, SELECT_MAX, SOURCES_MAX, Secret, Select, Source, WEIGHT_MAX, WarmUp,
};
pub use supervise::Supervise;
pub use suppression::{AtRcpt, Suppression};
pub(crate) use tls::parse_sha256;
pub use tls::{DomainTls, Tls, TlsMode, TlsReports};
pub use verify::Verify;

use crate::routes::Routes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Everything that can be configured.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name in the greeting, in EHLO and in `Received`. Default: the system's host name.
    #[serde(default = "system_host_name")]
    pub host_name: String,
    /// Folder of the queue.
    pub queue: PathBuf,
    /// Addresses that take mail: the short form of a listener called `default`. Default: 127.0.0.1:2525, unless there are
    /// other listeners.
    #[serde(default = "default_listen")]
    pub listen: Vec<SocketAddr>,
    /// Address of metrics and health. None: no HTTP.
    pub http: Option<SocketAddr>,
    /// Unix socket of `ringpost queue`. Default: `control.sock` in the queue's folder.
    pub control: Option<PathBuf>,
    /// Users that may give orders there, besides root and the daemon's own. With any, the socket's mode lets everybody
    /// connect, and who does is asked of the kernel.
    #[serde(default)]
    pub control_uids: Vec<u32>,
    /// Unix socket by which this machine's users submit (`ringpost sendmail`); all of them may. None: no such socket. With
    /// `[local]`, where mailboxes forward by it, the default is `submit.sock` in `[supervise] run`.
    pub submit: Option<PathBuf>,
    /// CPUs to run on, one core thread each. Default: all that the process may use.
    pub cpus: Option<Vec<usize>>,
    /// File of the delivery log, JSON lines: the plain one, which may lose a line. None: no log.
    pub delivery_log: Option<PathBuf>,
    #[serde(default)]
    pub intake: Intake,
    #[serde(default)]
    pub storage: Storage,
    #[serde(default)]
    pub retry: Retry,
    #[serde(default)]
    pub delivery: Delivery,
    #[serde(default)]
    pub tls: Tls,
    #[serde(default)]
    pub shaping: Shaping,
    #[serde(default)]
    pub lanes: Lanes,
    #[serde(default)]
    pub sources: BTreeMap<String, Source>,
    #[serde(default)]
    pub pools: BTreeMap<String, Pool>,
    #[serde(default)]
    pub select: Vec<Select>,
    #[serde(default)]
    pub routes: Routes,
    #[serde(default)]
    pub compose: Compose,
    #[serde(default)]
    pub listeners: BTreeMap<String, Listener>,
    #[serde(default)]
    pub certificates: Vec<CertificateFiles>,
    #[serde(default)]
    pub access: Access,
    #[serde(default)]
    pub auth: Auth,
    #[serde(default)]
    pub verify: Verify,
    #[serde(default)]
    pub keep: Keep,
    #[serde(default)]
    pub bounces: Bounces,
    #[serde(default)]
    pub api: Api,
    #[serde(default)]
    pub campaigns: Campaigns,
    #[serde(default)]
    pub unsubscribe: Unsubscribe,
    #[serde(default)]
    pub dkim: Dkim,
    #[serde(default)]
    pub suppression: Suppression,
    /// None: no event log.
    pub events: Option<Events>,
    /// None: nothing for `ringpost pop3` to do.
    pub pop3: Option<Pop3>,
    /// None: no address is this machine's own.
    pub local: Option<Local>,
    #[serde(default)]
    pub supervise: Supervise,
}

/// `[intake]`: whom mail is taken from, and how much.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Intake {
    /// Networks whose clients may send to any recipient.
    pub relay_from: Vec<Network>,
    /// Networks whose clients may have a domain's mail tried now, by ETRN (RFC 1985). Default: `relay_from`.
    pub etrn_from: Option<Vec<Network>>,
    pub message_size_max: u64,
    pub recipients_max: u32,
    /// Of a message by the Unix socket, as that for a list of this machine's: some 40 bytes each, while it is in memory.
    pub local_recipients_max: u32,
    /// Sessions at a time, on each core.
    pub sessions_max: usize,
    pub errors_max: u32,
    pub hops_max: usize,
    pub idle_timeout_secs: u64,
    /// Bytes of messages under way that each core holds in memory; past them MAIL gets 452.
    pub memory_max: usize,
    /// Recipients in the queue, over all cores; past them MAIL gets 452 until some have gone.
    pub backlog_max: u64,
    pub offer_chunking: bool,
}

impl Default for Intake {
    fn default() -> Intake {
        Intake {
            relay_from: vec![Network::LOOPBACK_V4, Network::LOOPBACK_V6],
            etrn_from: None,
            message_size_max: 50 << 20,
            recipients_max: 50_000,
            local_recipients_max: 250_000,
            sessions_max: 10_000,
            errors_max: 20,
            hops_max: 100,
            idle_timeout_secs: 300,
            memory_max: 512 << 20,
            // At 34 bytes each they hold less than a gigabyte.
            backlog_max: 25_000_000,
            offer_chunking: true,
        }
    }
}

/// `[storage]`: the queue on disk.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Storage {
    /// Bytes of a segment.
    pub segment_len: u64,
    /// Segments that each core keeps ready.
    pub spare_segments: usize,
    /// Bytes after which the journal is turned over.
    pub journal_len: u64,
    /// Under load a commit waits this long for more messages. A lone submitter never waits. 0: never.
    pub commit_linger_us: u64,
    /// Delivery marks are synced after this long.
    pub journal_sync_ms: u64,
    /// Bytes of messages that each core keeps in memory after they are on disk.
    pub cache_max: usize,
    /// New mail gets 452 while the filesystem has less than this free.
    pub free_min: u64,
}

impl Default for Storage {
    fn default() -> Storage {
        Storage {
            segment_len: 64 << 20,
            // More would break the bound on disk use: twice the live records and two segments a core, the active one among them.
            spare_segments: 1,
            journal_len: 64 << 20,
            commit_linger_us: 2000,
            journal_sync_ms: 10,
            cache_max: 64 << 20,
            free_min: 256 << 20,
        }
    }
}

/// `[delivery]`: how mail goes out.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Delivery {
    /// Connections to one site at a time, over all cores.
    pub connections_max: u32,
    /// Connections to all sites at a time, over all cores.
    pub connections_total: usize,
    /// Connections to a site that nothing is known of.
    pub connections_initial: u32,
    /// First wait of a site whose hosts fail, doubled up to the second.
    pub backoff_secs: u64,
    pub backoff_max_secs: u64,
    pub messages_per_connection: u32,
    pub recipients_per_transaction: usize,
    /// Transactions in flight on one connection where the peer takes BDAT. What is in flight when a connection
    /// dies may be delivered twice.
    pub window_max: u16,
    pub connect_timeout_secs: u64,
    /// A connection without work is kept this long.
    pub idle_secs: u64,
    /// Source address. None: the system's choice.
    pub bind: Option<IpAddr>,
    /// Port of hosts found by MX.
    pub port: u16,
    /// Try zero-copy sends for bodies of at least this size, until the kernel says that it copies anyway. 0: never.
    pub zero_copy_min: usize,
    /// Recipients in a row that an idle core takes over from a busy one.
    pub share_len: u32,
    /// Name servers. Default: the system's.
    pub name_servers: Vec<SocketAddr>,
    /// Questions at the name servers at a time; the others wait.
    pub questions_max: usize,
}

impl Default for Delivery {
    fn default() -> Delivery {
        Delivery {
            connections_max: 20,
            connections_total: 10_000,
            connections_initial: 5,
            backoff_secs: 60,
            backoff_max_secs: 3600,
            messages_per_connection: 1000,
            recipients_per_transaction: 50,
            window_max: 8,
            connect_timeout_secs: 60,
            idle_secs: 5,
            bind: None,
            port: 25,
            zero_copy_min: 32 << 10,
            share_len: 512,
            name_servers: Vec::new(),
            questions_max: 256,
        }
    }
}

/// `[lanes]`: what goes before what.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lanes {
    /// A message for more recipients than this, or with VERP, is bulk unless its sender names a priority.
    pub bulk_recipients: u32,
    /// The header field that names whose mail it is, for whoever sends for several. Without it that is the sender's domain.
    pub tenant_field: String,
}

impl Default for Lanes {
    fn default() -> Lanes {
        Lanes { bulk_recipients: 100, tenant_field: "X-Tenant".to_owned() }
    }
}

fn default_listen() -> Vec<SocketAddr> {
    vec![SocketAddr::from(([127, 0, 0, 1], 2525))]
}

pub(crate) fn system_host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// What is wrong with a configuration, in one line that says where.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{file}: {source}")]
    Read { file: String, source: std::io::Error },
    #[error("{file}:{line}: {what}")]
    Wrong { file: String, line: usize, what: String },
    #[error("{file}: {what}")]
    Value { file: String, what: String },
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsFilesError),
    #[error(transparent)]
    Ingress(#[from] crate::ingress::IngressError),
    #[error(transparent)]
    Dkim(#[from] crate::dkim::DkimFilesError),
}

/// Reads and checks a configuration file, without the files that it names: for a process that may not read them.
pub fn load_alone(file: &Path) -> Result<Config, ConfigError> {
    let name = file.display().to_string();
    let text =
        std::fs::read_to_string(file).map_err(|source| ConfigError::Read { file: name.clone(), source })?;
    parse(&text, &name)
}

/// Reads and checks a configuration file.
pub fn load(file: &Path) -> Result<Config, ConfigError> {
    let mut config = load_alone(file)?;
    sources::read_passwords(&mut config)?;
    config.routes.read_secrets()?;
    config.access.read_files()?;
    config.events.as_mut().map_or(Ok(()), Events::read_secrets)?;
    Ok(config)
}

/// `name` stands for the file in errors.
pub fn parse(text: &str, name: &str) -> Result<Config, ConfigError> {
    let mut config: Config = read_toml(text, name)?;
    listeners::settle(&mut config, text);
    config.settle_local().map_err(|what| ConfigError::Value { file: name.to_owned(), what })?;
    config.check().map_err(|what| ConfigError::Value { file: name.to_owned(), what })?;
    Ok(config)
}

/// Reads a file of any shape; an error names its line, its key and the nearest key that there is.
pub(crate) fn read_toml<T: serde::de::DeserializeOwned>(text: &str, name: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let span = error.span();
        let what = with_key(text, span.clone(), advise(error.message()));
        wrong_at(text, name, span.unwrap_or_default(), what)
    })
}

/// An error at a place in a file.
pub(crate) fn wrong_at(text: &str, name: &str, span: std::ops::Range<usize>, what: String) -> ConfigError {
    let before = &text.as_bytes()[..span.start.min(text.len())];
    let line = 1 + before.iter().filter(|octet| **octet == b'\n').count();
    ConfigError::Wrong { file: name.to_owned(), line, what }
}

impl Config {
    /// Where the event log's files are.
    pub fn events_folder(&self) -> PathBuf {
        let folder = self.events.as_ref().and_then(|events| events.folder.clone());
        folder.unwrap_or_else(|| self.queue.join("events"))
    }

    /// Where the daemon takes orders.
    pub fn control_path(&self) -> PathBuf {
        self.control.clone().unwrap_or_else(|| self.queue.join("control.sock"))
    }

    /// Where a recipient's process is asked for.
    pub fn launcher_path(&self) -> PathBuf {
        self.local.as_ref().map_or_else(|| self.supervise.run.join("launch.sock"), Local::launcher)
    }

    fn settle_local(&mut self) -> Result<(), String> {
        let Some(local) = &mut self.local else { return Ok(()) };
        local.settle(&self.host_name, &self.supervise.run)?;
        self.submit.get_or_insert_with(|| self.supervise.run.join("submit.sock"));
        self.routes = std::mem::take(&mut self.routes).with_local(Arc::clone(&local.domains));
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        let (storage, delivery) = (&self.storage, &self.delivery);
        let rules = [
            (message::Domain::parse(&self.host_name).is_ok(), "host_name is no host name"),
            (
                !(self.listen.is_empty() && self.listeners.is_empty()),
                "listen is empty: there is nobody to take mail from",
            ),
            (
                self.cpus
                    .as_ref()
                    .is_none_or(|cpus| (1..=queue::site_table::CORES_MAX).contains(&cpus.len())),
                "cpus must name 1 to 64 CPUs",
            ),
            (
                self.cpus.iter().flatten().all(|cpu| *cpu < rustix::thread::CpuSet::MAX_CPU),
                "cpus names a CPU beyond 1023",
            ),
            (storage.segment_len.is_multiple_of(4096), "storage.segment_len must be a multiple of 4096"),
            (
                (1 << 20..=1 << 30).contains(&storage.segment_len),
                "storage.segment_len must be between 1 MiB and 1 GiB",
            ),
            (storage.journal_len >= 1 << 20, "storage.journal_len must be at least 1 MiB"),
            (delivery.window_max > 0, "delivery.window_max must be at least 1"),
            (
                (1..=100).contains(&delivery.recipients_per_transaction),
                "delivery.recipients_per_transaction must be 1 to 100",
            ),
            (delivery.connections_total > 0, "delivery.connections_total must be at least 1"),
            (delivery.connections_initial > 0, "delivery.connections_initial must be at least 1"),
            (self.lanes.bulk_recipients > 0, "lanes.bulk_recipients must be at least 1"),
            ((1..=10_000).contains(&delivery.questions_max), "delivery.questions_max must be 1 to 10000"),
            (
                is_field_name(&self.lanes.tenant_field),
                "lanes.tenant_field is no name of a header field (RFC 5322 3.6.8)",
            ),
            (delivery.share_len > 0, "delivery.share_len must be at least 1"),
            (
                self.intake.recipients_max.min(self.intake.local_recipients_max) >= 100,
                "intake.recipients_max and local_recipients_max must be at least 100 (RFC 5321 4.5.3.1.8)",
            ),
            (self.intake.message_size_max <= 512 << 20, "intake.message_size_max must be at most 512 MiB"),
        ];
        let mut rules = rules.into_iter().chain(self.retry.rules());
        rules.find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(what.to_owned()))?;
        self.tls.check()?;
        self.shaping.check()?;
        self.compose.check(&self.host_name)?;
        listeners::check(self)?;
        self.access.check(&self.listeners)?;
        self.auth.check()?;
        self.verify.check()?;
        self.keep.check()?;
        self.bounces.check()?;
        self.api.check()?;
        self.campaigns.check()?;
        self.unsubscribe.check()?;
        self.dkim.check()?;
        self.events.as_ref().map_or(Ok(()), Events::check)?;
        self.suppression.check()?;
        self.local.as_ref().map_or(Ok(()), Local::check)?;
        if self.access.bang_paths && self.local.as_ref().is_none_or(|local| local.locals.is_empty()) {
            return Err("access.bang_paths: there are no local.locals at which paths could end".to_owned());
        }
        self.pop3.as_ref().map_or(Ok(()), |pop3| pop3.check(self.auth.is_on()))?;
        sources::check(self)
    }
}

fn is_field_name(name: &str) -> bool {
    (1..77).contains(&name.len()) && name.bytes().all(|octet| octet.is_ascii_graphic() && octet != b':')
}

/// Serde's sentence about a wrong value does not name its key: the line does.
fn with_key(text: &str, span: Option<std::ops::Range<usize>>, what: String) -> String {
    let start = span.map_or(0, |span| text.floor_char_boundary(span.start));
    let line_start = text[..start].rfind('\n').map_or(0, |end| end + 1);
    let key = text[line_start..start].split_once('=').map(|(key, _)| key.trim());
    match key {
        Some(key) if !key.is_empty() && !what.contains(&format!("{key:?}")) => format!("{key}: {what}"),
        _ => what,
    }
}

/// Serde's sentence about an unknown field names all known ones: keep the nearest.
fn advise(message: &str) -> String {
    let Some(rest) = message.strip_prefix("unknown field `") else { return message.to_owned() };
    let mut names = rest.split('`').step_by(2);
    let Some(unknown) = names.next() else { return message.to_owned() };
    let nearest = rest.split('`').skip(2).step_by(2).min_by_key(|known| distance(unknown, known));
    match nearest {
        Some(known) if distance(unknown, known) <= 3 => {
            format!("unknown key {unknown:?}; did you mean {known:?}?")
        }
        _ => format!("unknown key {unknown:?}"),
    }
}

/// Levenshtein's.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let cost = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text, "ringpost.toml").unwrap_err().to_string()
    }

    #[test]
    fn unknown_key_is_named_with_its_line_and_neighbour() {
        let text = "queue = \"q\"\n\n[delivery]\nconections_max = 3\n";
        assert_eq!(
            error(text),
            "ringpost.toml:4: unknown key \"conections_max\"; did you mean \"connections_max\"?"
        );
    }

    #[test]
    fn wrong_values_say_what_to_do() {
        assert!(error("queue = 3").starts_with("ringpost.toml:1: queue: invalid type"));
        assert!(error("host_name = \"h\"").contains("missing field `queue`"));
        assert_eq!(
            error("queue = \"q\"\nlisten = []"),
            "ringpost.toml: listen is empty: there is nobody to take mail from"
        );
        assert!(error("queue = \"q\"\n[intake]\nrelay_from = [\"10/8\"]").contains("is no network"));
        assert!(error("queue = \"q\"\n[lanes]\nbulk_recipients = 0").contains("must be at least 1"));
        assert!(error("queue = \"q\"\n[lanes]\ntenant_field = \"X:\"").contains("no name of a header"));
        assert!(error("queue = \"q\"\n[routes]\n\"*\" = \"a b\"").contains("is no relay"));
    }

    #[test]
    fn shaping_is_read_shown_and_checked() {
        let text = "host_name = \"h.test\"\nqueue = \"q\"\n[shaping.sites.\"*.example.net\"]\n\
                    message_rate = [\"100/min\", \"5000/h\"]\nconnections_max = 3\n";
        let shown = toml::to_string(&parse(text, "ringpost.toml").unwrap()).unwrap();
        let sites = parse(&shown, "shown").unwrap().shaping.sites;
        assert_eq!(sites.values().next().unwrap().message_rate.len(), 2);
        assert_eq!(
            error(&text.replace("5000/h", "5000/hour")),
            "ringpost.toml:4: message_rate: \"5000/hour\" is no rate; write 100/s, 100/min, 5000/h, 200000/d or \
             30/10s, at least 1"
        );
        assert!(
            error(&text.replace("= 3", "= 0")).contains("shaping.sites.\"*.example.net\".connections_max")
        );
    }
}
