//! `ringpost inject --list FILE --message FILE --campaign ID`: a whole list into a campaign, in one go.
//!
//! The file goes as it is to the daemon, which reads it in batches and takes each recipient once: a run that was
//! interrupted is started again with the same words and adds only who is missing. Memory: one piece of the file.

use super::api::{Api, ApiArgs, ApiError, Body};
use super::campaign;
use super::grouped;
use clap::Args;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::Method;
use hyper::body::{Bytes, Frame};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Octets of the list that are handed on at a time.
const PIECE_LEN: usize = 64 << 10;

/// The most that `intake.message_size_max` may be.
const MESSAGE_MAX: u64 = 512 << 20;

/// Add a list of recipients to a campaign; makes the campaign if there is none of that name.
#[derive(Args, Debug)]
pub(crate) struct Bulk {
    /// Who gets it: CSV with a header row (a column `email`, the others are fields of the letter) or, if its name ends in
    /// .ndjson or .jsonl, a JSON object a line; `-` is standard input
    #[arg(long, value_name = "FILE")]
    list: PathBuf,
    /// What they get: a whole message; `{{field}}` stands for the recipient's value
    #[arg(long, value_name = "FILE")]
    message: PathBuf,
    /// The campaign's name: nobody is in it twice
    #[arg(long, value_name = "ID")]
    campaign: String,
    /// Whom bounces go to. Default: the author (From)
    #[arg(long, value_name = "ADDRESS")]
    sender: Option<String>,
    /// Give each recipient a reverse-path of its own
    #[arg(long)]
    verp: bool,
    /// Whose list it is, for suppression and unsubscribing
    #[arg(long, value_name = "NAME")]
    list_name: Option<String>,
    /// Give each copy fields by which its recipient leaves the list (RFC 8058); needs [unsubscribe]
    #[arg(long)]
    unsubscribe: bool,
    /// Braces are braces: the message names no fields
    #[arg(long)]
    plain: bool,
    /// At most so many recipients in any time: 100/s, 5000/h
    #[arg(long, value_name = "RATE")]
    rate: Option<String>,
    /// Take the list in, and send nothing before `ringpost campaign resume`
    #[arg(long)]
    paused: bool,
    #[command(flatten)]
    api: ApiArgs,
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(bulk: &Bulk) -> ExitCode {
    match inject(bulk) {
        Ok(code) => code,
        Err(ApiError::Refused { what, answer, status }) => {
            let durable = answer.get("durable").and_then(Value::as_u64);
            let what = match durable {
                Some(durable) => format!(
                    "{what} ({} records are in the campaign; the same command goes on)",
                    grouped(durable)
                ),
                None => what,
            };
            ApiError::Refused { what, answer, status }.exit()
        }
        Err(error) => error.exit(),
    }
}

fn inject(bulk: &Bulk) -> Result<ExitCode, ApiError> {
    let api = bulk.api.open()?;
    create(bulk, &api)?;
    let (body, bar) = list_body(&bulk.list)?;
    let path = format!("/api/campaigns/{}/recipients", bulk.campaign);
    let answer = api.send(Method::POST, &path, Some((content_type(&bulk.list), body)));
    bar.finish_and_clear();
    let answer = answer?;
    let has_invalid = answer.get("invalid").and_then(Value::as_u64).is_some_and(|count| count > 0);
    say(&answer, bulk.json);
    if !bulk.json {
        campaign::print(&api.ask(Method::GET, &format!("/api/campaigns/{}", bulk.campaign), None)?, false);
    }
    Ok(if has_invalid { ExitCode::from(65) } else { ExitCode::SUCCESS })
}

fn create(bulk: &Bulk, api: &Api) -> Result<(), ApiError> {
    let content = read_message(&bulk.message)?;
    let sender = bulk.sender.clone().or_else(|| author(&content)).unwrap_or_default();
    let mut body = json!({ "envelope_sender": sender, "content": content, "verp": bulk.verp,
        "unsubscribe": bulk.unsubscribe, "paused": bulk.paused });
    if bulk.plain {
        body["template_dialect"] = json!("Static");
    }
    for (key, value) in [("list", &bulk.list_name), ("rate", &bulk.rate)] {
        if let Some(value) = value {
            body[key] = json!(value);
        }
    }
    api.ask(Method::PUT, &format!("/api/campaigns/{}", bulk.campaign), Some(&body)).map(drop)
}

/// The address of the first From field, by our own reader of headers.
fn author(content: &str) -> Option<String> {
    let from =
        message::header::fields(content.as_bytes()).find(|field| field.name.eq_ignore_ascii_case(b"from"))?;
    let value = std::str::from_utf8(from.whole).ok()?.split_once(':')?.1;
    let address =
        value.rsplit_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or(value, |(inner, _)| inner);
    message::Mailbox::parse(address.trim()).ok().map(|mailbox| mailbox.to_string())
}

fn read_message(path: &Path) -> Result<String, ApiError> {
    let file_error = |source| ApiError::File { path: path.to_owned(), source };
    let mut text = String::new();
    File::open(path).map_err(file_error)?.take(MESSAGE_MAX).read_to_string(&mut text).map_err(file_error)?;
    // As it goes out.
    Ok(text.replace("\r\n", "\n").replace('\n', "\r\n"))
}

fn content_type(list: &Path) -> &'static str {
    let is_json = list.extension().is_some_and(|end| end == "ndjson" || end == "jsonl");
    if is_json { "application/x-ndjson" } else { "text/csv" }
}

/// The file, piece by piece, and how far it has gone.
fn list_body(list: &Path) -> Result<(Body, ProgressBar), ApiError> {
    let file_error = |source| ApiError::File { path: list.to_owned(), source };
    let (mut file, len): (Box<dyn io::Read + Send + Sync>, u64) = match list.to_str() {
        Some("-") => (Box::new(io::stdin()), 0),
        _ => {
            let file = File::open(list).map_err(file_error)?;
            let len = file.metadata().map_err(file_error)?.len();
            (Box::new(file), len)
        }
    };
    let bar = progress(len);
    let shown = bar.clone();
    let pieces = std::iter::from_fn(move || {
        let mut piece = vec![0; PIECE_LEN];
        match file.read(&mut piece) {
            Ok(0) => None,
            Ok(got) => {
                piece.truncate(got);
                shown.inc(got as u64);
                Some(Ok(Frame::data(Bytes::from(piece))))
            }
            Err(error) => Some(Err(error)),
        }
    });
    Ok((StreamBody::new(futures_util::stream::iter(pieces)).boxed(), bar))
}

fn progress(len: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    let bar = if len > 0 { ProgressBar::new(len) } else { ProgressBar::new_spinner() };
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn say(answer: &Value, json: bool) {
    if json {
        return println!("{answer}");
    }
    let count = |key: &str| answer.get(key).and_then(Value::as_u64).unwrap_or(0);
    for (key, what) in [
        ("added", "added"),
        ("duplicate", "in the campaign before"),
        ("suppressed", "suppressed"),
        ("invalid", "not taken"),
    ] {
        if key == "added" || count(key) > 0 {
            println!("{:>14} {what}", grouped(count(key)));
        }
    }
    for error in answer.get("errors").and_then(Value::as_array).into_iter().flatten() {
        eprintln!("ringpost: {}", error.as_str().map_or_else(|| error.to_string(), str::to_owned));
    }
}
