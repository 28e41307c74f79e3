//! The client's end of the control socket.
//!
//! A socket that nobody listens on is a daemon that is not running. Trusts the daemon's lines as far as they are JSON;
//! a silent one is given up after [`SILENCE_MAX`].

use super::QueueError;
use crate::look::ask::Look;
use crate::look::trace::TraceLine;
use crate::look::view::View;
use crate::steer::order::Report;
use crate::steer::wire::{Answer, Request};
use crate::suppression::{Ask, Told};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// The daemon says how far it is twice a second.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(in crate::cli) struct Daemon {
    stream: BufReader<UnixStream>,
    bar: ProgressBar,
}

impl Daemon {
    /// `None`: it is not running.
    pub(in crate::cli) fn connect(path: &Path) -> Result<Option<Daemon>, QueueError> {
        let stream = match UnixStream::connect(path) {
            Ok(stream) => stream,
            Err(error) => {
                return match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
                    io::ErrorKind::PermissionDenied => {
                        Err(QueueError::Forbidden(format!("{}: {error}", path.display())))
                    }
                    _ => Err(QueueError::Daemon(format!("{}: {error}", path.display()))),
                };
            }
        };
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        let bar = if io::stderr().is_terminal() { ProgressBar::no_length() } else { ProgressBar::hidden() };
        bar.set_style(ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar()));
        Ok(Some(Daemon { stream: BufReader::new(stream), bar }))
    }

    /// Asks, and waits for the last line of the answer.
    pub(in crate::cli) fn ask(&mut self, request: &Request) -> Result<Report, QueueError> {
        let sent = self.say(request)?;
        loop {
            match self.answer(sent.as_ref().err())? {
                Answer::Progress { swept, recipients } => self.bar.set_message(format!(
                    "{} ranges looked at, {} recipients found",
                    super::grouped(swept),
                    super::grouped(recipients)
                )),
                Answer::Done(report) => {
                    self.bar.set_message("");
                    return Ok(report);
                }
                other => return Err(unwanted(other)),
            }
        }
    }

    /// Asks to see something, and waits for it.
    pub(in crate::cli) fn look(&mut self, look: &Look) -> Result<View, QueueError> {
        let sent = self.say(look)?;
        loop {
            match self.answer(sent.as_ref().err())? {
                Answer::Look(view) => return Ok(view),
                Answer::Progress { .. } => {}
                other => return Err(unwanted(other)),
            }
        }
    }

    /// Asks about the suppression list, and waits for the first line of the answer.
    pub(in crate::cli) fn ask_list(&mut self, ask: &Ask) -> Result<Told, QueueError> {
        let sent = self.say(ask)?;
        self.told(sent.as_ref().err())
    }

    /// The next line of an export.
    pub(in crate::cli) fn next_of_list(&mut self) -> Result<Told, QueueError> {
        self.told(None)
    }

    fn told(&mut self, unsent: Option<&io::Error>) -> Result<Told, QueueError> {
        match self.answer(unsent)? {
            Answer::Suppression(told) => Ok(told),
            other => Err(unwanted(other)),
        }
    }

    /// The next line of a dialogue, or how many were lost.
    pub(in crate::cli) fn next_traced(&mut self) -> Result<Result<TraceLine, u64>, QueueError> {
        loop {
            match self.answer(None)? {
                Answer::Trace(line) => return Ok(Ok(line)),
                Answer::Lost(count) => return Ok(Err(count)),
                Answer::Progress { .. } => {}
                other => return Err(unwanted(other)),
            }
        }
    }

    /// One line. That it could not be sent is no error yet: one who may not ask is told so whether or not the question
    /// arrives.
    fn say(&mut self, question: &impl Serialize) -> Result<io::Result<()>, QueueError> {
        let mut line = serde_json::to_vec(question).map_err(io::Error::other)?;
        line.push(b'\n');
        Ok(self.stream.get_mut().write_all(&line))
    }

    fn answer(&mut self, unsent: Option<&io::Error>) -> Result<Answer, QueueError> {
        let mut line = String::new();
        let len = self.stream.read_line(&mut line).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => QueueError::Daemon("the daemon does not answer".into()),
            _ => error.into(),
        })?;
        if len == 0 {
            let why = unsent.map_or_else(|| "it stopped".to_owned(), ToString::to_string);
            return Err(QueueError::Daemon(format!("the daemon did not answer: {why}")));
        }
        serde_json::from_str(&line)
            .map_err(|error| QueueError::Daemon(format!("the daemon's answer is not understood: {error}")))
    }
}

fn unwanted(answer: Answer) -> QueueError {
    match answer {
        Answer::Forbidden(why) => QueueError::Forbidden(why),
        Answer::Error(why) => QueueError::Daemon(why),
        other => QueueError::Daemon(format!("the daemon's answer is to another question: {other:?}")),
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
