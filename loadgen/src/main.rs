//! The command line of the witness: `loadgen source`, `sink`, `audit`, `socks5`, `press`, `smuggle`.
//!
//! Reports to standard output, talk to standard error. Exit codes: 0 done, 1 a defect was found by the audit
//! or the smuggler (or an error ended the program), 75 the source could not send everything, 2 wrong usage.

#![forbid(unsafe_code)]

use std::io::{IsTerminal, Write, stderr, stdout};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use loadgen::cli::{
    AuditArgs, CrowdArgs, PressArgs, PressCommand, SinkArgs, SmuggleArgs, Socks5Args, SourceArgs,
};
use loadgen::press::CrowdConfig;
use loadgen::source::{SourceProgress, SourceReport};
use loadgen::stop::Stop;
use loadgen::{audit, press, sink, smuggle, socks5, source};
use serde::Serialize;

const TRY_AGAIN: u8 = 75; // EX_TEMPFAIL

#[derive(Parser)]
#[command(name = "loadgen", about = "An SMTP source, sink and audit: a witness for a mail engine", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Source(SourceArgs),
    Sink(SinkArgs),
    Audit(AuditArgs),
    Socks5(Socks5Args),
    Press(PressArgs),
    Smuggle(SmuggleArgs),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Source(args) => run_source(&args),
        Command::Sink(args) => run_sink(&args),
        Command::Audit(args) => run_audit(&args),
        Command::Socks5(args) => run_socks5(&args),
        Command::Press(args) => run_press(&args.command),
        Command::Smuggle(args) => run_smuggle(&args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("loadgen: {error}"); // its causes are in the sentence
        ExitCode::FAILURE
    })
}

fn run_source(args: &SourceArgs) -> anyhow::Result<ExitCode> {
    let bar = progress_bar(args.messages)?;
    let report = source::run(&args.config(), |progress| show(&bar, progress))?;
    bar.finish_and_clear();
    print(args.json, &report)?;
    Ok(exit_code(&report))
}

fn exit_code(report: &SourceReport) -> ExitCode {
    if report.messages_unsent > 0 { ExitCode::from(TRY_AGAIN) } else { ExitCode::SUCCESS }
}

fn progress_bar(messages: u64) -> anyhow::Result<ProgressBar> {
    if !stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} messages {per_sec} {msg} {eta}")?;
    Ok(ProgressBar::new(messages).with_style(style))
}

fn show(bar: &ProgressBar, progress: SourceProgress) {
    if !bar.is_hidden() {
        bar.set_position(progress.messages_done);
        bar.set_message(format!("{} recipients", progress.recipients_accepted));
    }
}

fn run_sink(args: &SinkArgs) -> anyhow::Result<ExitCode> {
    let report = sink::run(&args.config()?)?;
    print(true, &report)?;
    Ok(ExitCode::SUCCESS)
}

fn run_socks5(args: &Socks5Args) -> anyhow::Result<ExitCode> {
    let report = socks5::run_until(&args.config(), &Stop::new(), |_| {})?;
    print(true, &report)?;
    Ok(ExitCode::SUCCESS)
}

fn run_press(command: &PressCommand) -> anyhow::Result<ExitCode> {
    match command {
        PressCommand::Idle(args) => run_crowd(&args.config(), &args.crowd)?,
        PressCommand::Drip(args) => run_crowd(&args.config(), &args.crowd)?,
        PressCommand::Flood(args) => print(args.press.json, &press::flood(&args.config())?)?,
        PressCommand::Garbage(args) => {
            let report = press::garbage(&args.config())?;
            print(args.press.json, &report)?;
            return Ok(found(report.not_smtp > 0 || !report.still_serves));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `holding N` on standard output when all of them are there that will be.
fn run_crowd(config: &CrowdConfig, args: &CrowdArgs) -> anyhow::Result<()> {
    let stop = Stop::new();
    stop.follow_signals();
    if args.stop_on_stdin_eof {
        stop.follow_stdin();
    }
    let report = press::crowd(config, &stop, |open| println!("holding {open}"))?;
    print(args.press.json, &report)
}

fn run_smuggle(args: &SmuggleArgs) -> anyhow::Result<ExitCode> {
    let report = smuggle::run(&args.config())?;
    print(args.json, &report)?;
    Ok(found(report.split > 0))
}

fn found(defect: bool) -> ExitCode {
    if defect { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn run_audit(args: &AuditArgs) -> anyhow::Result<ExitCode> {
    let report = audit::run(&args.config())?;
    print(args.json, &report)?;
    Ok(found(!report.is_clean()))
}

/// One line of JSON, or one line per field.
fn print(json: bool, report: &impl Serialize) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(report)?)?;
        return Ok(());
    }
    if let serde_json::Value::Object(fields) = serde_json::to_value(report)? {
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
            writeln!(out, "{name}: {value}")?;
        }
    }
    Ok(())
}
