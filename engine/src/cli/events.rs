//! `ringpost events`: the event log's lines and how far its consumers are, whether the daemon runs or not.
//!
//! Reads files alone. Bounds: a batch of lines at a time.

use super::{ConfigFile, complain, grouped};
use crate::clock;
use crate::events::cursor::{self, Position};
use crate::events::folder::{self, Extent, Form};
use crate::events::reader::{AtEnd, Batch, BatchMax, Kinds, Reader};
use crate::steer::condition::{Pattern, secs};
use clap::{Args, Subcommand};
use message::UnixMillis;
use serde_json::{Value, json};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Lines that are read at a time.
const MOST: BatchMax = BatchMax { events: 1000, octets: 1 << 20 };

/// Between two looks for more.
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, Subcommand)]
pub(crate) enum EventsCommand {
    /// Print the events that are there, the oldest first.
    Cat(Selection),
    /// Print events as they come, until Ctrl-C; with --since, first those that are there.
    Tail(Selection),
    /// Say how far each consumer is behind.
    Consumers(Consumers),
}

#[derive(Args, Debug)]
pub(crate) struct Selection {
    #[command(flatten)]
    file: ConfigFile,
    /// FIELD=PATTERN or FIELD!=PATTERN, joined by `and`; fields as docs/events.md has them, * stands for anything. May
    /// be said several times: all must hold.
    #[arg(long = "where", value_name = "CONDITION")]
    conditions: Vec<String>,
    /// Not older than this: 90s, 30m, 2h, 7d.
    #[arg(long, value_name = "AGE")]
    since: Option<String>,
    /// The lines as they are in the log.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Consumers {
    #[command(flatten)]
    file: ConfigFile,
    /// One JSON object per line.
    #[arg(long)]
    json: bool,
}

/// Why nothing is shown.
#[derive(Debug, thiserror::Error)]
enum EventsError {
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    #[error("[events] is not in the configuration: there is no event log")]
    NoLog,
    #[error("{0}")]
    Usage(String),
    #[error("{path}: {source}", path = .path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Output(io::Error),
}

pub(super) fn run(command: &EventsCommand) -> ExitCode {
    let result = match command {
        EventsCommand::Cat(selection) => selection.print(AtEnd::GoOn),
        EventsCommand::Tail(selection) => selection.print(AtEnd::Wait),
        EventsCommand::Consumers(consumers) => consumers.print(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read has seen enough.
        Err(EventsError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error @ EventsError::Usage(_)) => complain(64, &error),
        Err(error @ (EventsError::Config(_) | EventsError::NoLog)) => complain(78, &error),
        Err(error) => complain(75, &error),
    }
}

fn folder_of(file: &ConfigFile) -> Result<PathBuf, EventsError> {
    let config = file.load()?;
    config.events.as_ref().ok_or(EventsError::NoLog)?;
    Ok(config.events_folder())
}

fn at(folder: &Path) -> impl Fn(io::Error) -> EventsError {
    let path = folder.to_owned();
    move |source| EventsError::Folder { path: path.clone(), source }
}

// ---- lines ----

impl Selection {
    fn print(&self, at_end: AtEnd) -> Result<(), EventsError> {
        let (filter, folder) =
            (Filter::new(&self.conditions, self.since.as_deref())?, folder_of(&self.file)?);
        let place = match (at_end, filter.since_ms) {
            (AtEnd::Wait, None) => end_of(&folder).map_err(at(&folder))?,
            (_, since_ms) => start_since(&folder, since_ms).map_err(at(&folder))?,
        };
        let mut reader = Reader::new(folder.clone(), place, at_end);
        let mut out = io::stdout().lock();
        loop {
            let mut batch = Batch::default();
            reader.read(&mut batch, Kinds::ALL, MOST).map_err(at(&folder))?;
            for line in batch.lines.split_inclusive(|octet| *octet == b'\n') {
                self.print_line(&filter, line, &mut out).map_err(EventsError::Output)?;
            }
            out.flush().map_err(EventsError::Output)?;
            if batch.is_empty() && at_end == AtEnd::GoOn {
                return Ok(());
            }
            if batch.is_empty() {
                std::thread::sleep(LOOK_EVERY);
            }
        }
    }

    fn print_line(&self, filter: &Filter, line: &[u8], out: &mut impl io::Write) -> io::Result<()> {
        let Ok(event) = serde_json::from_slice::<Value>(line) else { return Ok(()) };
        if !filter.holds(&event) {
            return Ok(());
        }
        if self.json { out.write_all(line) } else { writeln!(out, "{}", rendered(&event)) }
    }
}

/// Behind the last octet that is there.
fn end_of(folder: &Path) -> io::Result<Position> {
    let Some((number, form)) = folder::list(folder)?.pop() else { return Ok(Position::default()) };
    let extent = folder::extent(folder, number, form)?;
    Ok(Position { file: number, offset: extent.octets, events: extent.events })
}

/// The first file that was still written to at that time.
fn start_since(folder: &Path, since_ms: Option<u64>) -> io::Result<Position> {
    let since = since_ms.unwrap_or(0);
    for (number, form) in folder::list(folder)? {
        let written = std::fs::metadata(folder::path_of(folder, number, form))?.modified()?;
        let written = written.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis();
        if written >= u128::from(since) {
            return Ok(Position::start_of(number));
        }
    }
    end_of(folder)
}

/// Which lines are shown.
#[derive(Debug)]
struct Filter {
    terms: Vec<Term>,
    since_ms: Option<u64>,
}

#[derive(Debug)]
struct Term {
    field: String,
    is_not: bool,
    pattern: Pattern,
}

impl Filter {
    fn new(conditions: &[String], since: Option<&str>) -> Result<Filter, EventsError> {
        let terms = conditions.iter().flat_map(|text| text.split(" and ")).map(Term::parse);
        let since = since.map(|text| {
            let wrong = || EventsError::Usage("--since is a number and s, m, h or d: 90s, 2h".to_owned());
            secs(text).ok_or_else(wrong)
        });
        let since_ms =
            since.transpose()?.map(|secs| clock::wall().0.saturating_sub(secs.saturating_mul(1000)));
        Ok(Filter { terms: terms.collect::<Result<_, _>>()?, since_ms })
    }

    fn holds(&self, event: &Value) -> bool {
        let at = event["at"].as_u64().unwrap_or(0);
        self.since_ms.is_none_or(|since| at >= since) && self.terms.iter().all(|term| term.holds(event))
    }
}

impl Term {
    fn parse(text: &str) -> Result<Term, EventsError> {
        let wrong =
            || EventsError::Usage(format!("--where: {text:?} is not FIELD=PATTERN or FIELD!=PATTERN"));
        let (field, pattern) = text.trim().split_once('=').ok_or_else(wrong)?;
        let (field, is_not) = field.strip_suffix('!').map_or((field, false), |field| (field, true));
        let is_word = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'_';
        if field.is_empty() || !field.bytes().all(is_word) {
            return Err(wrong());
        }
        // As conditions of `queue` call it.
        let field = if field == "recipient" { "rcpt" } else { field };
        Ok(Term { field: field.to_owned(), is_not, pattern: Pattern::new(pattern.trim_matches('"')) })
    }

    fn holds(&self, event: &Value) -> bool {
        self.pattern.matches(&text_of(&event[&self.field])) != self.is_not
    }
}

/// What is not there is empty.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        value => value.to_string(),
    }
}

/// When, what and of what class, whom, where, why.
fn rendered(event: &Value) -> String {
    let text = |key: &str| text_of(&event[key]);
    let at = UnixMillis(event["at"].as_u64().unwrap_or(0)).rfc3339();
    let what = [text("kind"), text("class")].join(" ");
    let whom = [text("rcpt"), text("sender")].into_iter().find(|name| !name.is_empty()).unwrap_or_default();
    let reply = [text("host"), text("code"), text("enhanced"), text("reply"), text("detail")];
    let reply: Vec<String> = reply.into_iter().filter(|part| !part.is_empty()).collect();
    format!("{at}  {:22}  {whom}  {}", what.trim_end(), reply.join(" "))
}

// ---- consumers ----

impl Consumers {
    fn print(&self) -> Result<(), EventsError> {
        let config = self.file.load()?;
        let events = config.events.as_ref().ok_or(EventsError::NoLog)?;
        let folder = config.events_folder();
        let mut out = io::stdout().lock();
        for (name, place) in cursor::all(&folder).map_err(at(&folder))? {
            let what = match () {
                () if events.webhooks.contains_key(&name) => "webhook",
                () if events.files.contains_key(&name) => "file",
                () => "not configured",
            };
            let behind = behind(&folder, place).map_err(at(&folder))?;
            let oldest = first_behind(&folder, place).map_err(at(&folder))?;
            let line = if self.json {
                json!({"name": name, "what": what, "file": place.file, "offset": place.offset,
                    "lag_events": behind.events, "lag_octets": behind.octets, "oldest_at": oldest})
                .to_string()
            } else {
                said(&name, what, place, behind, oldest)
            };
            writeln!(out, "{line}").map_err(EventsError::Output)?;
        }
        Ok(())
    }
}

fn said(name: &str, what: &str, place: Position, behind: Extent, oldest: Option<u64>) -> String {
    let since = oldest.map_or_else(String::new, |at| format!(", the oldest of {}", UnixMillis(at).rfc3339()));
    let events = grouped(behind.events);
    format!("{name}  {what}  at {:08}:{}  {events} events behind{since}", place.file, place.offset)
}

/// Events and octets behind a place, counted from the files.
fn behind(folder: &Path, place: Position) -> io::Result<Extent> {
    let mut sum = Extent::default();
    for (number, form) in folder::list(folder)?.into_iter().filter(|(number, _)| *number >= place.file) {
        let extent = match folder::extent(folder, number, form) {
            // It was packed just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                folder::extent(folder, number, Form::Packed)?
            }
            extent => extent?,
        };
        sum.events += extent.events;
        sum.octets += extent.octets;
    }
    Ok(Extent {
        events: sum.events.saturating_sub(place.events),
        octets: sum.octets.saturating_sub(place.offset),
    })
}

/// When the first event behind a place was logged.
fn first_behind(folder: &Path, place: Position) -> io::Result<Option<u64>> {
    let mut batch = Batch::default();
    let one = BatchMax { events: 1, octets: usize::MAX };
    Reader::new(folder.to_owned(), place, AtEnd::GoOn).read(&mut batch, Kinds::ALL, one)?;
    Ok((!batch.is_empty()).then_some(batch.first_at_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(condition: &str, event: &Value) -> bool {
        Filter::new(&[condition.to_owned()], None).unwrap().holds(event)
    }

    #[test]
    fn conditions_are_about_any_field() {
        let event = json!({"kind": "failed", "rcpt": "ann@a.test", "code": 550, "at": 5});
        for right in
            ["kind=failed", "recipient=*@a.test and code=55*", "campaign!=spring", "class=", "kind = failed"]
        {
            assert!(holds(&right.replace(" = ", "="), &event), "{right}");
        }
        for wrong in ["kind=delivered", "rcpt!=ann@a.test", "code=550 and kind=deferred"] {
            assert!(!holds(wrong, &event), "{wrong}");
        }
        let error = Filter::new(&["kind".into()], None).unwrap_err().to_string();
        assert!(error.contains("FIELD=PATTERN"), "{error}");
        assert!(Filter::new(&[], Some("2x")).unwrap_err().to_string().contains("90s, 2h"));
        assert!(!Filter::new(&[], Some("1h")).unwrap().holds(&event));
    }

    #[test]
    fn line_says_when_what_whom_where_and_why() {
        let event = json!({"at": 951_782_400_007_u64, "kind": "failed", "class": "hard", "rcpt": "ann@a.test",
            "host": "mx.a.test", "code": 550, "enhanced": "5.1.1", "reply": "no such user"});
        let line =
            "2000-02-29T00:00:00.007Z  failed hard             ann@a.test  mx.a.test 550 5.1.1 no such user";
        assert_eq!(rendered(&event), line);
    }
}
