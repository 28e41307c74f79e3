//! `ringpost demo`: the main job on this machine, checked by a witness.
//!
//! Three processes: this one injects a message over SMTP and keeps count; the engine is `ringpost serve` on a queue of
//! its own, so that its CPU and memory can be told apart; the sink is loadgen's, which shares no SMTP code with the
//! engine. At the end loadgen's audit compares what was sent with what arrived. Bound: it gives up when nothing has
//! arrived for [`STALL`].

use super::{complain, grouped};
use anyhow::{Context as _, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use loadgen::audit::{self, AuditConfig, AuditReport};
use loadgen::source::{self, Mode, SourceConfig};
use serde::Serialize;
use std::io::{BufRead as _, BufReader, IsTerminal as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::Duration;

/// Without a delivery for this long the demo ends; what is missing counts as lost.
const STALL: Duration = Duration::from_secs(60);

/// How often the sink says how far it is.
const STATS: Duration = Duration::from_millis(100);

/// `tmpfs`, where a sync costs nothing (statfs(2)).
const TMPFS_MAGIC: i64 = 0x0102_1994;

#[derive(Args, Debug)]
pub(crate) struct Demo {
    /// Recipients of the one message.
    #[arg(long, default_value_t = 100_000)]
    recipients: u64,
    /// Octets of the message, header included.
    #[arg(long, default_value_t = 4096)]
    size: usize,
    /// Domains that the recipients are spread over.
    #[arg(long, default_value_t = 100)]
    domains: u64,
    /// Core threads of the engine. Default: one per CPU.
    #[arg(long)]
    cores: Option<usize>,
    /// Connections to the sink.
    #[arg(long, default_value_t = 50)]
    connections: u32,
    /// Transactions in flight on a connection; 1 makes each delivery a flight of its own.
    #[arg(long, default_value_t = 8)]
    window: u16,
    /// Keep an event log, a line for each delivery.
    #[arg(long)]
    events: bool,
    /// Folder for the temporary queue. Default: one that is on disk.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// The summary as one JSON object on standard output.
    #[arg(long)]
    json: bool,
}

/// The summary.
#[derive(Debug, Serialize)]
struct Summary {
    recipients: u64,
    delivered: u64,
    lost: u64,
    duplicated: u64,
    altered: u64,
    wrong_sender: u64,
    deliveries_per_s: f64,
    cpu_us_per_delivery: f64,
    peak_rss_bytes: u64,
    injection_s: f64,
    latency_p50_ms: f64,
    latency_p90_ms: f64,
    latency_p99_ms: f64,
    latency_max_ms: f64,
    size: usize,
    domains: u64,
    cores: usize,
    connections: u32,
    window: u16,
    queue_on_tmpfs: bool,
}

pub(super) fn run(demo: &Demo) -> ExitCode {
    match demo.run() {
        Ok(summary) => {
            let failed = summary.lost + summary.altered + summary.wrong_sender > 0;
            demo.print(&summary);
            if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Err(error) => complain(75, &format_args!("{error:#}")),
    }
}

pub(super) fn run_sink(args: &loadgen::cli::SinkArgs) -> ExitCode {
    let outcome =
        args.config().map_err(anyhow::Error::from).and_then(|config| Ok(loadgen::sink::run(&config)?));
    match outcome {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => complain(75, &format_args!("the demo's sink: {error:#}")),
    }
}

impl Demo {
    fn run(&self) -> anyhow::Result<Summary> {
        if self.recipients == 0 || self.domains == 0 {
            bail!("--recipients and --domains must be at least 1");
        }
        let (folder, queue_on_tmpfs) = self.make_folder()?;
        let folder = folder.path();
        let (sent, received) = (folder.join("sent.tsv"), folder.join("received.tsv"));
        let mut sink =
            Program::start(Command::new(std::env::current_exe()?).args(sink_args(&received)), "the sink")?;
        let sink_address: SocketAddr = sink.announced()?;
        let config = self.write_config(folder, sink_address)?;
        let mut engine = Program::start(
            Command::new(std::env::current_exe()?).arg("serve").arg("--config").arg(config),
            "the engine",
        )?;
        let engine_address: SocketAddr = engine.announced()?;
        let cpu_before = engine.cpu_secs()?;
        let report = self.inject(engine_address, &sent)?;
        self.watch(&mut sink)?;
        let (cpu, peak_rss_bytes) = (engine.cpu_secs()? - cpu_before, engine.peak_rss()?);
        engine.stop()?;
        sink.stop()?;
        let audit = audit::run(&AuditConfig {
            sent: vec![sent],
            received: vec![received],
            verp: Some(self.verp()?),
        })?;
        Ok(self.summarize(&audit, cpu, peak_rss_bytes, report.elapsed_secs, queue_on_tmpfs))
    }

    fn verp(&self) -> anyhow::Result<audit::verp::VerpCheck> {
        Ok(audit::verp::VerpCheck::new(
            "newsletter+{}@demo.test",
            "+=".parse().map_err(|error| anyhow::anyhow!("{error}"))?,
        ))
    }

    fn summarize(
        &self,
        audit: &AuditReport,
        cpu: f64,
        peak_rss_bytes: u64,
        injection_s: f64,
        queue_on_tmpfs: bool,
    ) -> Summary {
        let delivered = audit.received - audit.duplicated;
        Summary {
            recipients: self.recipients,
            delivered,
            lost: audit.lost + self.recipients.saturating_sub(audit.expected),
            duplicated: audit.duplicated,
            altered: audit.altered,
            wrong_sender: audit.wrong_sender,
            deliveries_per_s: audit.deliveries_per_sec,
            cpu_us_per_delivery: cpu * 1e6 / (delivered.max(1) as f64),
            peak_rss_bytes,
            injection_s,
            latency_p50_ms: audit.latency.p50_us / 1e3,
            latency_p90_ms: audit.latency.p90_us / 1e3,
            latency_p99_ms: audit.latency.p99_us / 1e3,
            latency_max_ms: audit.latency.max_us / 1e3,
            size: self.size,
            domains: self.domains,
            cores: self.cpus().len(),
            connections: self.connections,
            window: self.window,
            queue_on_tmpfs,
        }
    }

    /// A temporary folder, on a disk if one can be found.
    fn make_folder(&self) -> anyhow::Result<(tempfile::TempDir, bool)> {
        let candidates = match &self.folder {
            Some(folder) => vec![folder.clone()],
            None => {
                vec!["/var/tmp".into(), std::env::current_dir().unwrap_or_default(), std::env::temp_dir()]
            }
        };
        let is_tmpfs = |path: &PathBuf| rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type == TMPFS_MAGIC);
        let is_usable = |path: &&PathBuf| tempfile::tempdir_in(path).is_ok();
        let on_disk = candidates.iter().filter(|path| !is_tmpfs(path)).find(is_usable);
        let folder = on_disk
            .or_else(|| candidates.iter().find(is_usable))
            .context("no folder for the queue can be written to")?;
        let made = tempfile::Builder::new().prefix("ringpost-demo-").tempdir_in(folder)?;
        Ok((made, is_tmpfs(folder)))
    }

    fn cpus(&self) -> Vec<usize> {
        let all = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        (0..self.cores.unwrap_or(all).clamp(1, all)).collect()
    }

    fn write_config(&self, folder: &Path, sink: SocketAddr) -> anyhow::Result<PathBuf> {
        let config = toml::toml! {
            host_name = "relay.demo.test"
            listen = ["127.0.0.1:0"]
            [storage]
            free_min = 0
            [retry]
            quadratic_secs = 1
            [delivery]
            connections_initial = 20
            backoff_secs = 1
        };
        let mut config = config;
        config.insert("queue".into(), folder.join("queue").display().to_string().into());
        config.insert(
            "cpus".into(),
            self.cpus().into_iter().map(|cpu| i64::try_from(cpu).unwrap_or(0)).collect::<Vec<_>>().into(),
        );
        let limit = i64::try_from(self.recipients.max(1000)).context("--recipients is too large")?;
        config.insert(
            "intake".into(),
            toml::Table::from_iter([("recipients_max".to_owned(), limit.into())]).into(),
        );
        if let Some(delivery) = config.get_mut("delivery").and_then(toml::Value::as_table_mut) {
            delivery.insert("connections_max".into(), i64::from(self.connections).into());
            delivery.insert("window_max".into(), i64::from(self.window).into());
        }
        config.insert(
            "routes".into(),
            toml::Table::from_iter([("*".to_owned(), sink.to_string().into())]).into(),
        );
        if self.events {
            config.insert("events".into(), toml::Table::new().into());
        }
        let path = folder.join("ringpost.toml");
        std::fs::write(&path, toml::to_string(&config)?)?;
        Ok(path)
    }

    fn inject(&self, engine: SocketAddr, sent: &Path) -> anyhow::Result<source::SourceReport> {
        let config = SourceConfig {
            messages: 1,
            recipients_per_message: self.recipients,
            size_bytes: self.size,
            sessions: 1,
            xverp: Some(String::new()),
            mode: Mode::Pipelined,
            reverse_path: "newsletter@demo.test".into(),
            domain_count: self.domains,
            audit: Some(sent.to_owned()),
            ..SourceConfig::to(engine)
        };
        let report = source::run(&config, |_| {}).context("injecting")?;
        if report.messages_accepted != 1 || report.recipients_accepted != self.recipients {
            bail!("the engine did not take the message: {:?}", report.refusals);
        }
        Ok(report)
    }

    /// Follows the sink until everybody is served.
    fn watch(&self, sink: &mut Program) -> anyhow::Result<()> {
        let bar = if std::io::stderr().is_terminal() {
            ProgressBar::new(self.recipients)
        } else {
            ProgressBar::hidden()
        };
        bar.set_style(ProgressStyle::with_template(
            "{bar:40} {human_pos}/{human_len} delivered, {per_sec}, {eta} left",
        )?);
        let (mut last, mut still) = (0, Duration::ZERO);
        while last < self.recipients {
            let stats: serde_json::Value =
                serde_json::from_str(&sink.line()?).context("the sink's counters")?;
            let accepted = stats["recipients"].as_u64().context("the sink's counters lack recipients")?;
            still = if accepted > last { Duration::ZERO } else { still + STATS };
            last = accepted;
            bar.set_position(accepted);
            if still >= STALL {
                eprintln!("ringpost: nothing was delivered for {} s", STALL.as_secs());
                break;
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn print(&self, summary: &Summary) {
        if self.json {
            println!("{}", serde_json::to_string(summary).unwrap_or_default());
            return;
        }
        let rounded = |number: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a rate, rounded for people"
            )]
            grouped(number.round() as u64)
        };
        println!("recipients            {:>12}", grouped(summary.recipients));
        println!("delivered             {:>12}", grouped(summary.delivered));
        println!("lost                  {:>12}", grouped(summary.lost));
        println!("duplicated            {:>12}", grouped(summary.duplicated));
        println!("altered, wrong sender {:>12}", format!("{}, {}", summary.altered, summary.wrong_sender));
        println!("deliveries per second {:>12}", rounded(summary.deliveries_per_s));
        println!(
            "CPU µs per delivery   {:>12.2}  (the engine's own, its kernel time included)",
            summary.cpu_us_per_delivery
        );
        println!("peak memory, MiB      {:>12.1}", summary.peak_rss_bytes as f64 / 1048576.0);
        println!("injection, s          {:>12.3}", summary.injection_s);
        println!(
            "latency since accepted, ms: p50 {:.1}  p90 {:.1}  p99 {:.1}  max {:.1}",
            summary.latency_p50_ms, summary.latency_p90_ms, summary.latency_p99_ms, summary.latency_max_ms
        );
        if summary.queue_on_tmpfs {
            println!("The queue was on tmpfs: nothing was really synced to a disk.");
        }
    }
}

fn sink_args(received: &Path) -> Vec<std::ffi::OsString> {
    let stats = STATS.as_millis().to_string();
    let words = ["demo-sink", "127.0.0.1:0", "--stats-interval", &stats, "--stop-on-stdin-eof", "--audit"];
    words.iter().map(Into::into).chain([received.into()]).collect()
}

/// A process of the demo's; ends with it.
struct Program {
    name: &'static str,
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Program {
    fn start(command: &mut Command, name: &'static str) -> anyhow::Result<Program> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .env("RUST_LOG", "warn")
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let lines = BufReader::new(child.stdout.take().context("it was piped")?);
        Ok(Program { name, child, lines })
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if self.lines.read_line(&mut line)? == 0 {
            bail!("{} ended early: {}", self.name, self.child.wait()?);
        }
        Ok(line)
    }

    /// The address in its line `listening ADDRESS …`.
    fn announced(&mut self) -> anyhow::Result<SocketAddr> {
        let line = self.line()?;
        let address = line.strip_prefix("listening ").and_then(|rest| rest.split_whitespace().next());
        address
            .and_then(|address| address.parse().ok())
            .with_context(|| format!("{} said {line:?}", self.name))
    }

    fn proc(&self, file: &str) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id()))?)
    }

    /// User and system time so far, kernel workers of its rings included.
    fn cpu_secs(&self) -> anyhow::Result<f64> {
        let stat = self.proc("stat")?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks =
            |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).context("/proc/PID/stat");
        Ok((ticks(11)? + ticks(12)?) / rustix::param::clock_ticks_per_second() as f64)
    }

    fn peak_rss(&self) -> anyhow::Result<u64> {
        let status = self.proc("status")?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .context("no VmHWM in /proc/PID/status")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024)
    }

    /// SIGTERM, the end of its input, and its own way out.
    fn stop(mut self) -> anyhow::Result<()> {
        drop(self.child.stdin.take());
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let status = self.child.wait()?;
        if !status.success() {
            bail!("{} ended with {status}", self.name);
        }
        Ok(())
    }
}

/// Whatever happens, nothing of the demo's is left running.
impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
