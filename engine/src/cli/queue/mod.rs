//! `ringpost queue …`: looking at the queue and steering it.
//!
//! While the daemon runs it is asked, over its control socket ([`daemon`]); what only the messages know (senders, names,
//! campaigns) is read from the files here ([`files`]), so that no core reads for an operator. When it is down the
//! files alone say what there is, and nothing can be changed. Bound: one record at a time, 100,000 chosen
//! spans, one page of rows; without the daemon the marks of the journals too.
//!
//! A message's *campaign* is the value of its `X-Campaign-ID` field, else of `X-Campaign`, else what stands before the
//! first colon of `Feedback-ID`.

mod daemon;
mod files;
mod filter;
pub(in crate::cli) mod mailq;
mod steering;
mod stopped;
mod verify;
mod view;

use super::{ConfigFile, complain, grouped};
use crate::config::Config;
use clap::{Args, Subcommand};
pub(in crate::cli) use daemon::Daemon;
use filter::Filter;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// Counts: messages, recipients owed, by state, domain and reason.
    Stat(StatArgs),
    /// Each message: id, arrival, size, sender, recipients still to do.
    List(ListArgs),
    /// One message: envelope, and where each recipient stands who is still to be served.
    Show(OneArgs),
    /// One message's content, octet for octet.
    Cat(OneArgs),
    /// Keep recipients back until they are released.
    Hold(SteerArgs),
    /// Let held recipients go.
    Release(SteerArgs),
    /// Try deferred recipients now.
    Retry(SteerArgs),
    /// Return mail to its senders.
    Bounce(SteerArgs),
    /// Delete mail without a word to anybody.
    Delete(SteerArgs),
    /// Try everything that is deferred now, or what is for these domains, and let no site wait.
    Flush(FlushArgs),
    /// Read every byte of the queue's files and say where one is not as it was written.
    Verify(VerifyArgs),
}

#[derive(Args, Debug)]
pub(crate) struct StatArgs {
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    which: Which,
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    which: Which,
    /// Messages to show at most.
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    /// One JSON object per message on standard output.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct OneArgs {
    #[command(flatten)]
    file: ConfigFile,
    /// The message's id, as in `queued as …`.
    #[arg(value_name = "ID", value_parser = message_id)]
    id: message::MessageId,
    /// One JSON object on standard output (not of `cat`).
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct SteerArgs {
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    which: Which,
    /// Everything in the queue, if neither ids nor conditions are given.
    #[arg(long)]
    all: bool,
    /// Do it. Without this, only what would be done is said.
    #[arg(long)]
    yes: bool,
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct FlushArgs {
    #[command(flatten)]
    file: ConfigFile,
    /// Only what is for these domains; `*.example.net` is everything below one. Default: everything.
    #[arg(value_name = "DOMAIN", value_parser = domain)]
    domains: Vec<String>,
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    file: ConfigFile,
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

/// Which recipients a command is about.
#[derive(Args, Debug, Default)]
pub(crate) struct Which {
    /// Ids of messages. Default: all.
    #[arg(value_name = "ID", value_parser = message_id)]
    ids: Vec<message::MessageId>,
    /// Only what meets the condition: FIELD OP VALUE, joined by `and`; may be repeated.
    ///
    /// Fields: domain, sender, recipient and campaign with = or != (* stands for anything); age with < or > and s, m, h or
    /// d; attempts with <, <=, =, >= or >; state with = (ready, deferred, held, in-flight); reason with ~ (part of the
    /// last reply); id with =.
    #[arg(long = "where", value_name = "CONDITION")]
    conditions: Vec<String>,
}

/// Or a pattern.
fn domain(text: &str) -> Result<String, String> {
    let is_name = message::Domain::parse(text.strip_prefix("*.").unwrap_or(text)).is_ok();
    if is_name { Ok(text.to_owned()) } else { Err("that is no domain and no *.domain".to_owned()) }
}

fn message_id(text: &str) -> Result<message::MessageId, String> {
    message::MessageId::parse(text).ok_or_else(|| "an id has 16 hexadecimal digits".to_owned())
}

/// Why a command ends without what was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueueError {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Forbidden(String),
    #[error("the daemon is not running: the queue can be looked at, but not changed")]
    NotRunning,
    /// Said already.
    #[error("the queue is damaged")]
    Damaged,
    #[error("{0}: no such message in the queue")]
    NotFound(message::MessageId),
    #[error("{0}")]
    Daemon(String),
    #[error(transparent)]
    Recover(#[from] crate::recovery::RecoverError),
    #[error("the suppression list: {0}")]
    Suppression(#[from] crate::keyset::KeySetError),
    #[error(transparent)]
    Ring(#[from] ring::StartError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl QueueError {
    /// As in `sysexits(3)`.
    pub(in crate::cli) fn exit_code(&self) -> u8 {
        match self {
            QueueError::Usage(_) => 64,
            QueueError::Damaged => 65,
            QueueError::Forbidden(_) => 78,
            _ => 75,
        }
    }
}

impl QueueCommand {
    fn file(&self) -> &ConfigFile {
        match self {
            QueueCommand::Stat(args) => &args.file,
            QueueCommand::List(args) => &args.file,
            QueueCommand::Show(args) | QueueCommand::Cat(args) => &args.file,
            QueueCommand::Hold(args)
            | QueueCommand::Release(args)
            | QueueCommand::Retry(args)
            | QueueCommand::Bounce(args)
            | QueueCommand::Delete(args) => &args.file,
            QueueCommand::Flush(args) => &args.file,
            QueueCommand::Verify(args) => &args.file,
        }
    }
}

pub(super) fn run(command: &QueueCommand) -> ExitCode {
    let config = match command.file().load() {
        Ok(config) => config,
        Err(error) => return complain(78, &error),
    };
    if !config.queue.is_dir() {
        return complain(75, &format_args!("{}: there is no queue", config.queue.display()));
    }
    match obey(command, &config) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has seen enough.
        Err(QueueError::Io(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(QueueError::Damaged) => ExitCode::from(QueueError::Damaged.exit_code()),
        Err(error) => complain(error.exit_code(), &error),
    }
}

fn obey(command: &QueueCommand, config: &Config) -> Result<(), QueueError> {
    use crate::steer::order::Action;
    let filter = |which: &Which| Filter::new(which);
    let daemon = || Daemon::connect(&config.control_path());
    match command {
        QueueCommand::Stat(args) => view::stat(config, &filter(&args.which)?, daemon()?, args.json),
        QueueCommand::List(args) => {
            view::list(config, &filter(&args.which)?, daemon()?, args.limit, args.json)
        }
        QueueCommand::Show(args) => view::show(config, args.id, daemon()?, args.json),
        QueueCommand::Cat(args) => view::cat(config, args.id, daemon()?),
        QueueCommand::Hold(args) => steering::steer(config, Action::Hold, args, daemon),
        QueueCommand::Release(args) => steering::steer(config, Action::Release, args, daemon),
        QueueCommand::Retry(args) => steering::steer(config, Action::Retry, args, daemon),
        QueueCommand::Bounce(args) => steering::steer(config, Action::Bounce, args, daemon),
        QueueCommand::Delete(args) => steering::steer(config, Action::Delete, args, daemon),
        QueueCommand::Flush(args) => steering::flush(args, daemon),
        QueueCommand::Verify(args) => verify::verify(&config.queue, args.json),
    }
}
