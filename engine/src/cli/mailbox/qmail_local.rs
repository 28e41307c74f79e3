//! `ringpost qmail-local [-nN] USER HOME LOCAL DASH EXT HOST SENDER DEFAULTDELIVERY`: one message of standard input to
//! one address of this machine, as the user who calls it. With `-n` nothing is done, and what would be is said.
//!
//! Exit codes 0, 100 and 111. What programs say goes to standard output, why a delivery failed to standard error. A
//! message that comes by a pipe is kept in a temporary file: each delivery reads it from its beginning. Programs may
//! take [`PROGRAM_MAX`].

use crate::cli::submit::{self, MESSAGE_MAX, Onward};
use crate::clock;
use crate::config;
use local::delivery::{self, Action, Course, Delivery, Plan};
use local::disk::StdDisk;
use local::failure::{Failure, Severity, reason};
use local::filters::Exit;
use local::instructions::search::{Distrust, FolderHome, Home as _, check_home};
use local::lines::header_has;
use local::maildir::{self, Namer};
use local::mbox;
use local::program::environment::variables;
use local::program::{self, Limits, Next, Program};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

const USAGE: &str =
    "qmail-local: usage: qmail-local [ -nN ] user homedir local dash ext domain sender defaultdelivery";

/// As long as qmail gives a Maildir delivery: no program is meant to take a day.
const PROGRAM_MAX: Duration = Duration::from_secs(86_400);

pub(super) fn run(words: &[String]) -> Exit {
    let Some((explains, delivery)) = parse(words) else { return Exit::new(100, USAGE) };
    if let Err(error) = std::env::set_current_dir(delivery.home) {
        let words = format!("Unable to switch to {}: {}. (#4.3.0)", delivery.home, reason(&error));
        return Exit::new(111, words);
    }
    let done = if explains { explain(&delivery) } else { deliver(&delivery) };
    match done {
        Ok(()) => Exit::silent(0),
        Err(failure) => Exit::new(failure.exit_code(), failure.words),
    }
}

/// Whether to explain, and what.
fn parse(words: &[String]) -> Option<(bool, Delivery<'_>)> {
    let mut explains = false;
    let mut rest = words;
    while let [first, behind @ ..] = rest
        && let Some(letters) = first.strip_prefix('-').filter(|letters| !letters.is_empty())
    {
        rest = behind;
        if letters == "-" {
            break;
        }
        for letter in letters.chars() {
            match letter {
                'n' => explains = true,
                'N' => explains = false,
                _ => return None,
            }
        }
    }
    let [user, home, local, dash, extension, host, sender, default_delivery] = rest else { return None };
    let default_delivery = default_delivery.as_bytes();
    let delivery = Delivery { user, home, local, dash, extension, host, sender, default_delivery };
    home.starts_with('/').then_some((explains, delivery))
}

fn explain(delivery: &Delivery<'_>) -> Result<(), Failure> {
    let text = delivery::explain(&FolderHome(PathBuf::from(".")), Distrust::World, delivery)?;
    say(text.as_bytes());
    Ok(())
}

fn say(text: &[u8]) {
    // Who closed it does not want to hear.
    let _ = io::stdout().write_all(text).and_then(|()| io::stdout().flush());
}

fn deliver(delivery: &Delivery<'_>) -> Result<(), Failure> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let unreadable =
        |error: io::Error| Failure::soft(format!("Unable to read message: {}. (#4.3.0)", reason(&error)));
    let home = FolderHome(PathBuf::from("."));
    let mode = home.mode().map_err(|error| {
        Failure::soft(format!("Unable to stat home directory: {}. (#4.3.0)", reason(&error)))
    })?;
    check_home(mode, Distrust::World)?;
    let message = message_file().map_err(unreadable)?;
    let now = clock::wall();
    let delivered_to = delivery.top_lines(now).delivered_to;
    let is_looping =
        header_has(&mut BufReader::new(&message), delivered_to.as_bytes()).map_err(unreadable)?;
    if is_looping {
        return Err(delivery::looping());
    }
    let plan = delivery::plan(&home, Distrust::World, delivery)?;
    let local_host = config::system_host_name();
    let namer = Namer::new(Duration::from_millis(now.0), std::process::id(), 0, &local_host);
    let mut errand = Errand { delivery, plan: &plan, now, message, namer };
    let mut course = Course::new(plan.clone());
    while let Some(action) = course.poll_action() {
        let outcome = errand.carry_out(&action);
        course.handle_outcome(outcome);
    }
    let counts = course.finish()?;
    say(format!("{counts}\n").as_bytes());
    Ok(())
}

/// Standard input, if it is a file; else a copy of it.
fn message_file() -> io::Result<File> {
    let mut file = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    if file.metadata()?.is_file() {
        file.rewind()?;
        return Ok(file);
    }
    let mut copy = tempfile::tempfile()?;
    let len = io::copy(&mut file.take(MESSAGE_MAX + 1), &mut copy)?;
    if len > MESSAGE_MAX {
        return Err(io::Error::other(format!("it has more than {MESSAGE_MAX} octets")));
    }
    copy.rewind()?;
    Ok(copy)
}

/// A delivery on its way.
struct Errand<'a> {
    delivery: &'a Delivery<'a>,
    plan: &'a Plan,
    now: message::UnixMillis,
    message: File,
    namer: Namer,
}

impl Errand<'_> {
    fn carry_out(&mut self, action: &Action) -> Result<Next, Failure> {
        self.message.rewind().map_err(|_| Failure::soft("Unable to rewind message. (#4.3.0)"))?;
        let top = self.delivery.top_lines(self.now);
        let path = |name: &[u8]| PathBuf::from(OsStr::from_bytes(name));
        match action {
            Action::Mbox(name) => {
                let top = top.for_mbox();
                mbox::deliver(&mut StdDisk, &path(name), top.as_bytes(), &mut self.message)?;
                Ok(Next::GoOn)
            }
            Action::Maildir(name) => {
                let (top, namer) = (top.for_maildir(), &mut self.namer);
                maildir::deliver(&mut StdDisk, &path(name), namer, top.as_bytes(), &mut self.message, None)?;
                Ok(Next::GoOn)
            }
            Action::Program(command) => self.run_program(command),
            Action::Forward(addresses) => self.forward(addresses, &top.delivered_to),
        }
    }

    fn run_program(&self, command: &[u8]) -> Result<Next, Failure> {
        let variables = variables(self.delivery, self.plan, self.now);
        let path = std::env::var_os("PATH");
        let home = Path::new(self.delivery.home);
        let program = Program { command, home, variables: &variables, path: path.as_deref() };
        let limits = Limits { time: PROGRAM_MAX, memory: None };
        let ran = program::run(&program, &self.message, limits, &clock::now)
            .map_err(|error| Failure::soft(format!("Unable to run /bin/sh: {}. (#4.3.0)", reason(&error))))?;
        let outcome = ran.outcome();
        if outcome.is_ok() {
            say(&ran.output);
        }
        outcome
    }

    fn forward(&mut self, addresses: &[Vec<u8>], top: &str) -> Result<Next, Failure> {
        let mut content = Vec::new();
        self.message.read_to_end(&mut content).map_err(|error| {
            Failure::soft(format!("Unable to read message: {}. (#4.3.0)", reason(&error)))
        })?;
        let text = |address: &Vec<u8>| String::from_utf8(address.clone());
        let recipients: Result<Vec<String>, _> = addresses.iter().map(text).collect();
        let recipients = recipients.map_err(|_| {
            Failure::hard("Unable to forward message: an address is not text in UTF-8. (#5.1.3)")
        })?;
        let sender = &self.plan.new_sender;
        let sent = submit::send(&Onward { sender, recipients: &recipients, top, content: &content });
        sent.map(|_| Next::GoOn).map_err(|not_sent| {
            let severity = if not_sent.code == 100 { Severity::Hard } else { Severity::Soft };
            Failure { severity, words: format!("Unable to forward message: {}.", not_sent.words) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_qmails() {
        let words = |text: &str| text.split('|').map(str::to_owned).collect::<Vec<_>>();
        let eight = words("-n|ann|/home/ann|ann-x|-|x|example.org|bob@example.net|./Mailbox");
        let (explains, delivery) = parse(&eight).unwrap();
        assert!(explains && delivery.recipient() == "ann-x@example.org" && delivery.dash == "-");
        let empty = words("--|ann|/home/ann|ann|||example.org||./Mailbox");
        assert!(!parse(&empty).unwrap().0);
        for wrong in ["", "ann|/home/ann", "-x|a|/|a|||h|s|d", "a|home|a|||h|s|d", "a|/|a|||h|s|d|more"] {
            assert!(parse(&words(wrong)).is_none(), "{wrong}");
        }
    }
}
