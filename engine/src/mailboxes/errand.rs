//! One delivery, done as the user whose mail it is, in the process that calls: what qmail-local does.
//!
//! The order of things is [`local::delivery`]'s; here are the files, programs and the socket by which mail goes on. The
//! process stands in the user's home afterwards. Bounds: the caller's [`Limits`]; a message that is forwarded is held in
//! memory whole.

use crate::cli::submit::{self, Onward};
use crate::clock;
use crate::config::DELIVERY_BESIDES;
use local::delivery::{self, Action, Counts, Course, Delivery, Plan};
use local::disk::StdDisk;
use local::failure::{Failure, reason};
use local::instructions::search::{Distrust, FolderHome, Home as _, check_home};
use local::lines::header_has;
use local::maildir::quota::Quota;
use local::maildir::{self, Namer};
use local::mbox;
use local::program::environment::variables;
use local::program::{self, Limits, Next, Program};
use message::{Domain, UnixMillis};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Names the daemon's socket to the programs that mail is sent on with.
pub(crate) const SUBMIT_VARIABLE: &str = "RINGPOST_SUBMIT";

/// Names the host of addresses that have none to those programs.
pub(crate) const NO_AT_HOST_VARIABLE: &str = "RINGPOST_NO_AT_HOST";

/// For what is left to do when a program was stopped.
const ENDING: Duration = Duration::from_secs(60);

/// What goes where, and how much it may take.
#[derive(Debug)]
pub(crate) struct Errand<'a> {
    pub(crate) delivery: Delivery<'a>,
    /// Lines end in LF. Nobody else moves its place.
    pub(crate) message: File,
    pub(crate) limits: Limits,
    pub(crate) quota: Option<Quota>,
    /// Of addresses that have none. `None`: what the environment names, or the configuration.
    pub(crate) no_at_host: Option<Domain>,
    /// Deliveries that this process did before.
    pub(crate) counter: u64,
}

/// What it did, and what programs said meanwhile.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) counts: Counts,
    pub(crate) said: Vec<u8>,
}

/// A [`Failure`] that says why a step could not be done now.
fn unable(what: &str, error: &io::Error) -> Failure {
    Failure::soft(format!("Unable to {what}: {}. (#4.3.0)", reason(error)))
}

impl Errand<'_> {
    pub(crate) fn run(self) -> Result<Done, Failure> {
        let Errand { delivery, .. } = &self;
        std::env::set_current_dir(delivery.home)
            .map_err(|error| unable(&format!("switch to {}", delivery.home), &error))?;
        let home = FolderHome(PathBuf::from("."));
        let mode = home.mode().map_err(|error| unable("stat home directory", &error))?;
        check_home(mode, Distrust::World)?;
        let now = clock::wall();
        let delivered_to = delivery.top_lines(now).delivered_to;
        let is_looping = header_has(&mut BufReader::new(&self.message), delivered_to.as_bytes())
            .map_err(|error| unable("read message", &error))?;
        if is_looping {
            return Err(delivery::looping());
        }
        let plan = delivery::plan(&home, Distrust::World, delivery)?;
        let local_host = crate::config::system_host_name();
        let namer = Namer::new(Duration::from_millis(now.0), std::process::id(), self.counter, &local_host);
        let mut course = Course::new(plan.clone());
        let until = clock::now() + self.limits.time + DELIVERY_BESIDES - ENDING;
        let mut under_way = UnderWay { errand: self, plan: &plan, now, until, namer, said: Vec::new() };
        while let Some(action) = course.poll_action() {
            let outcome = under_way.carry_out(&action);
            course.handle_outcome(outcome);
        }
        Ok(Done { counts: course.finish()?, said: under_way.said })
    }
}

/// What a `maildirsize` says that somebody made for this Maildir.
fn own_quota(maildir: &Path) -> Option<Quota> {
    let file = File::open(maildir.join("maildirsize")).ok()?;
    let mut octets = Vec::new();
    file.take(maildir::quota::FILE_MAX).read_to_end(&mut octets).ok()?;
    let first = octets.split(|octet| *octet == b'\n').next()?;
    Quota::parse(std::str::from_utf8(first).ok()?)
}

/// A delivery on its way.
struct UnderWay<'a> {
    errand: Errand<'a>,
    plan: &'a Plan,
    now: UnixMillis,
    /// No program runs on.
    until: Instant,
    namer: Namer,
    said: Vec<u8>,
}

impl UnderWay<'_> {
    fn carry_out(&mut self, action: &Action) -> Result<Next, Failure> {
        let errand = &mut self.errand;
        errand.message.rewind().map_err(|_| Failure::soft("Unable to rewind message. (#4.3.0)"))?;
        let top = errand.delivery.top_lines(self.now);
        let path = |name: &[u8]| PathBuf::from(OsStr::from_bytes(name));
        match action {
            Action::Mbox(name) => {
                let top = top.for_mbox();
                mbox::deliver(&mut StdDisk, &path(name), top.as_bytes(), &mut errand.message)?;
                Ok(Next::GoOn)
            }
            Action::Maildir(name) => {
                let (top, maildir) = (top.for_maildir(), path(name));
                let quota = own_quota(&maildir).or(errand.quota);
                let message = &mut errand.message;
                maildir::deliver(&mut StdDisk, &maildir, &mut self.namer, top.as_bytes(), message, quota)?;
                Ok(Next::GoOn)
            }
            Action::Program(command) => self.run_program(command),
            Action::Forward(addresses) => self.forward(addresses, &top.delivered_to),
        }
    }

    fn run_program(&mut self, command: &[u8]) -> Result<Next, Failure> {
        let Errand { delivery, message, limits, no_at_host, .. } = &self.errand;
        // Whoever waits for the whole of it gives up after all: a program of its that went on would run again besides.
        let left = self.until.saturating_duration_since(clock::now());
        if left.is_zero() {
            return Err(Failure::soft("The programs before this one took too long. (#4.3.0)"));
        }
        let limits = Limits { time: limits.time.min(left), ..*limits };
        let of_ours = |name: &'static str| std::env::var(name).ok().map(|value| (name, value));
        let no_at_host = no_at_host.as_ref().map(|host| (NO_AT_HOST_VARIABLE, host.to_string()));
        let mut variables = variables(delivery, self.plan, self.now);
        variables.extend(of_ours(SUBMIT_VARIABLE));
        variables.extend(no_at_host.or_else(|| of_ours(NO_AT_HOST_VARIABLE)));
        let path = std::env::var_os("PATH");
        let home = Path::new(delivery.home);
        let program = Program { command, home, variables: &variables, path: path.as_deref() };
        let ran = program::run(&program, message, limits, &clock::now)
            .map_err(|error| unable("run /bin/sh", &error))?;
        let outcome = ran.outcome();
        if outcome.is_ok() {
            self.said.extend(ran.output);
        }
        outcome
    }

    fn forward(&mut self, addresses: &[Vec<u8>], top: &str) -> Result<Next, Failure> {
        let mut content = Vec::new();
        self.errand.message.read_to_end(&mut content).map_err(|error| unable("read message", &error))?;
        // What is no text in UTF-8 is known by what stands in its place, and left out.
        let text = |address: &Vec<u8>| String::from_utf8_lossy(address).into_owned();
        let recipients: Vec<String> = addresses.iter().map(text).collect();
        let no_at_host = self.errand.no_at_host.as_ref();
        let sender = &self.plan.new_sender;
        let onward = Onward { sender, recipients: &recipients, no_at_host, top, content: &content };
        let sent = submit::send(&onward).map_err(|not_sent| {
            let words = format!("Unable to forward message: {}.", not_sent.words);
            if not_sent.code == 100 { Failure::hard(words) } else { Failure::soft(words) }
        })?;
        for line in sent.left_out {
            self.said.extend_from_slice(line.as_bytes());
            self.said.push(b'\n');
        }
        Ok(Next::GoOn)
    }
}
