//! The command line: one file per command. Data goes to standard output, talk to standard error.
//!
//! Exit codes as in `sysexits(3)`: 0 done, 1 the demo lost something, 75 try again, 78 the configuration is wrong.

mod access;
mod api;
mod bulk;
mod campaign;
mod check;
mod demo;
mod dkim;
mod events;
mod explain;
mod import_qmail;
mod look;
mod mailbox;
mod maildirsmtp;
mod part;
mod passwd;
mod pop3;
mod queue;
mod secrets;
mod serve;
mod sites;
pub mod submit;
mod suppress;
mod token;
mod trace;

use crate::config::{Config, ConfigError};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// A bulk-delivery mail engine: a list or newsletter goes in, every recipient gets it, nothing accepted is lost.
#[derive(Debug, Parser)]
#[command(name = "ringpost", version, after_help = PROGRAMS)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take mail in and send it out until SIGTERM; SIGHUP rereads limits and routes.
    Serve(PartFile),
    /// Run all parts, each as its own user where root starts it, until SIGTERM; SIGHUP has them read again what they can.
    Supervise(ConfigFile),
    /// A part of supervise: take mail for mailboxes from the daemon.
    Local(PartFile),
    /// A part of supervise: start a process of the user whose mail it is.
    Launch(PartFile),
    /// Check a configuration and print what is in force.
    Check(ConfigFile),
    /// Say which rule of [access] a client would meet, and what it would be allowed.
    Access(access::AccessArgs),
    /// Look at the queue, whether the daemon runs or not.
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    /// What became of recipients: print the event log, or say how far its consumers are.
    #[command(subcommand)]
    Events(events::EventsCommand),
    /// Say where a domain's mail goes, how it is protected, and what holds it back and until when.
    Explain(explain::Explain),
    /// The busiest sites and what each is doing; `hosts`: those that rest; `forget`: let them be tried again.
    Sites(sites::Sites),
    /// Show the SMTP dialogues with a domain's hosts as they happen, until Ctrl-C.
    Trace(trace::Trace),
    /// Who is on the suppression list, whether the daemon runs or not.
    #[command(subcommand)]
    Suppress(suppress::SuppressCommand),
    /// Print the configuration that says what a qmail directory says; what has no words here goes to standard error.
    ImportQmail(import_qmail::ImportQmail),
    /// Send what a Maildir has in new/ to a host, once it is there (as serialmail does).
    Maildirsmtp(maildirsmtp::MaildirSmtp),
    /// Make keys that sign what goes out, show their records, and see whether the DNS has them.
    #[command(subcommand)]
    Dkim(dkim::DkimCommand),
    /// Write a user's password into a password file, or check one.
    Passwd(passwd::Passwd),
    /// Let users fetch their mail by POP3 until SIGTERM; a process of its own. SIGHUP rereads passwords and certificate.
    Pop3(PartFile),
    /// Make a program's token for [api], or take it out.
    Token(token::TokenArgs),
    /// Campaigns: what there is, how far each is; pause, resume, cancel, slow down.
    #[command(subcommand)]
    Campaign(campaign::CampaignCommand),
    /// Add a list of recipients to a campaign (with --list); else the program of that name, below.
    Inject(Box<bulk::Bulk>),
    /// The main job on this machine: one message to many recipients, through a queue on disk, to a sink of our own.
    Demo(demo::Demo),
    /// One user's process, for the launcher.
    #[command(hide = true)]
    DeliverAsUser,
    /// One user's process, for a POP3 session.
    #[command(hide = true)]
    MailboxAsUser { base: PathBuf, below: PathBuf },
    /// The demo's sink: a process of its own, so that its cost is not counted as the engine's.
    #[command(hide = true)]
    DemoSink(Box<loadgen::cli::SinkArgs>),
}

#[derive(Args, Debug)]
pub(crate) struct ConfigFile {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/ringpost/ringpost.toml")]
    config: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct PartFile {
    #[command(flatten)]
    file: ConfigFile,
    /// Standard input has the sockets; as `ringpost supervise` starts it.
    #[arg(long, hide = true)]
    handed: bool,
}

impl ConfigFile {
    fn load(&self) -> Result<Config, ConfigError> {
        crate::config::load(&self.config)
    }
}

/// They read their words themselves, as their namesakes do.
const PROGRAMS: &str = "Programs for this machine's users, called so or by a link of that name:
  sendmail    Send a message, with the options that mail programs and cron know (sendmail --help)
  inject      Send a message as qmail-inject does
  mailq       Show the queue
  newaliases  Make /etc/aliases into the database that fastforward looks aliases up in
For .qmail files, as the programs of the same names that come with qmail, fastforward and dot-forward:
  qmail-local, forward, preline, condredirect, bouncesaying, except, qreceipt, qbiff, maildirmake,
  fastforward, setforward, printforward, dot-forward";

/// What was asked for by these words, the first of which is our own name.
pub fn run(words: &[std::ffi::OsString]) -> ExitCode {
    if let Some((program, words)) = submit::Program::of(words) {
        return program.run(words);
    }
    match mailbox::Program::of(words) {
        Some((program, words)) => program.run(words),
        None => Cli::parse_from(words).run(),
    }
}

impl Cli {
    fn run(self) -> ExitCode {
        match self.command {
            Command::Serve(part) => serve::run(part),
            Command::Supervise(file) => part::supervise(&file),
            Command::Local(part) => part::local(&part),
            Command::Launch(part) => part::launch(&part),
            Command::DeliverAsUser => part::deliver_as_user(),
            Command::MailboxAsUser { base, below } => part::mailbox_as_user(&base, &below),
            Command::Check(file) => check::run(&file),
            Command::Access(args) => access::run(&args),
            Command::Queue(command) => queue::run(&command),
            Command::Events(command) => events::run(&command),
            Command::Explain(args) => explain::run(&args),
            Command::Sites(args) => sites::run(&args),
            Command::Trace(args) => trace::run(&args),
            Command::Suppress(command) => suppress::run(&command),
            Command::ImportQmail(args) => import_qmail::run(&args),
            Command::Maildirsmtp(args) => maildirsmtp::run(&args),
            Command::Dkim(command) => dkim::run(&command),
            Command::Passwd(args) => passwd::run(&args),
            Command::Pop3(part) => pop3::run(&part),
            Command::Token(args) => token::run(&args),
            Command::Campaign(command) => campaign::run(&command),
            Command::Inject(bulk) => bulk::run(&bulk),
            Command::Demo(demo) => demo::run(&demo),
            Command::DemoSink(args) => demo::run_sink(&args),
        }
    }
}

/// One sentence on standard error.
fn complain(code: u8, what: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("ringpost: {what}");
    ExitCode::from(code)
}

/// Large numbers as people write them: `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
