//! The message of standard input, as an alias or a `.forward` has it delivered: to programs, into files, and on.
//!
//! A program is the shell's, in this process's folder and with its variables, so what stops this program stops it too. It
//! gets the message with the lines of an mbox on top, or without. A file is an mbox; one whose name ends in a slash is a
//! Maildir; /dev/null is neither, and takes all there is. A message that goes on is in memory whole.

use super::{message_file, trouble, variable};
use crate::cli::submit::{self, Onward};
use crate::clock;
use local::delivery::TopLines;
use local::disk::StdDisk;
use local::failure::{Failure, reason};
use local::filters::Exit;
use local::maildir::{self, Namer};
use local::mbox;
use local::program::CodeClass;
use message::Domain;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Seek as _, Write as _};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

/// Where systems' tables send what nobody wants.
const NOWHERE: &str = "/dev/null";

/// See the module.
#[derive(Debug)]
pub(super) struct Letter {
    /// Who says what is wrong.
    program: &'static str,
    file: File,
    top: TopLines,
    /// Deliveries into Maildirs before this one.
    counter: u64,
}

impl Letter {
    /// As standard input and the variables have it.
    pub(super) fn of(program: &'static str) -> Result<Letter, Exit> {
        let file = message_file().map_err(|error| trouble(program, "unable to read message", &error))?;
        let line = |name| variable(name).unwrap_or_default();
        let (from_line, return_path) = (line("UFLINE"), line("RPLINE"));
        let top = TopLines { from_line, return_path, delivered_to: line("DTLINE") };
        Ok(Letter { program, file, top, counter: 0 })
    }

    fn trouble(&self, what: &str, error: &io::Error) -> Exit {
        trouble(self.program, what, error)
    }

    fn failed(&self, failure: &Failure) -> Exit {
        Exit::new(failure.exit_code(), format!("{}: fatal: {failure}", self.program))
    }

    fn rewind(&mut self) -> Result<(), Exit> {
        self.file.rewind().map_err(|error| trouble(self.program, "unable to rewind input", &error))
    }

    /// What the program says of a failure is why: we say nothing more.
    pub(super) fn run(&mut self, command: &str, has_top: bool) -> Result<(), Exit> {
        self.rewind()?;
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(command);
        let ended = if has_top {
            self.pour_into(&mut shell)?
        } else {
            let input =
                self.file.try_clone().map_err(|error| self.trouble("unable to read message", &error))?;
            shell.stdin(Stdio::from(input)).status()
        };
        let status = ended.map_err(|error| self.trouble("unable to run /bin/sh", &error))?;
        let crashed = || Exit::new(111, format!("{}: fatal: child crashed in {command}", self.program));
        match CodeClass::of(status.code().ok_or_else(crashed)?) {
            // A program that stops instructions has done its work, and there is nothing here that it could stop.
            CodeClass::Done | CodeClass::Stop => Ok(()),
            CodeClass::Hard => Err(Exit::silent(100)),
            CodeClass::Soft => Err(Exit::silent(111)),
        }
    }

    fn pour_into(&mut self, shell: &mut Command) -> Result<io::Result<ExitStatus>, Exit> {
        let mut child = match shell.stdin(Stdio::piped()).spawn() {
            Ok(child) => child,
            Err(error) => return Ok(Err(error)),
        };
        if let Some(mut pipe) = child.stdin.take() {
            let top = self.top.for_mbox();
            let copied = pipe.write_all(top.as_bytes()).and_then(|()| io::copy(&mut self.file, &mut pipe));
            match copied {
                // What a program leaves unread is its own affair.
                Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                    return Err(self.trouble("unable to copy input", &error));
                }
                _ => {}
            }
        }
        Ok(child.wait())
    }

    pub(super) fn deliver_to(&mut self, path: &str) -> Result<(), Exit> {
        if path == NOWHERE {
            return Ok(());
        }
        self.rewind()?;
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        let done =
            if path.ends_with('/') { self.deliver_to_maildir(path) } else { self.deliver_to_mbox(path) };
        done.map_err(|failure| self.failed(&failure))
    }

    fn deliver_to_mbox(&mut self, path: &str) -> Result<(), Failure> {
        let top = self.top.for_mbox();
        Ok(mbox::deliver(&mut StdDisk, Path::new(path), top.as_bytes(), &mut self.file)?)
    }

    fn deliver_to_maildir(&mut self, path: &str) -> Result<(), Failure> {
        let (now, host) = (Duration::from_millis(clock::wall().0), crate::config::system_host_name());
        let mut namer = Namer::new(now, std::process::id(), self.counter, &host);
        self.counter += 1;
        let top = self.top.for_maildir();
        maildir::deliver(&mut StdDisk, Path::new(path), &mut namer, top.as_bytes(), &mut self.file, None)?;
        Ok(())
    }

    /// Returns what there is to say.
    pub(super) fn send_on(&mut self, sender: &str, recipients: &[String]) -> Result<String, Exit> {
        self.rewind()?;
        let mut content = Vec::new();
        self.file
            .read_to_end(&mut content)
            .map_err(|error| self.trouble("unable to read message", &error))?;
        let top = &self.top.delivered_to;
        let onward = Onward { sender, recipients, no_at_host: None, top, content: &content };
        let sent = submit::send(&onward).map_err(|not_sent| {
            let words = format!("{}: fatal: unable to forward message: {}", self.program, not_sent.words);
            Exit::new(not_sent.code, words)
        })?;
        Ok(sent.words(self.program))
    }
}

/// What completes the addresses of this machine's users; without it they wait.
pub(super) fn no_at_host(program: &str) -> Result<Domain, Exit> {
    submit::no_at_host().map_err(|not_found| Exit::new(111, format!("{program}: fatal: {}", not_found.words)))
}

/// `program: fatal: unable to read file: the system's words`, for now.
pub(super) fn unreadable(program: &str, path: &str, error: &io::Error) -> Exit {
    Exit::new(111, format!("{program}: fatal: unable to read {path}: {}", reason(error)))
}
