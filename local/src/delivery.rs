//! A delivery to one address: what is done, in which order, and what becomes of it (qmail-local).
//!
//! First the checks: the home, the loop, the file of instructions. Then its lines in their order; the first that fails
//! ends it, so nothing behind it is done and nothing is forwarded. A program that exits 99 ends it well. Addresses are
//! kept until all else is done, and then sent to at once: what fails before them sends nothing twice.
//!
//! Pure: [`plan`] reads through [`Home`], [`Course`] says what to do next and hears how it went. Trusts the user's own
//! file alone; addresses of the envelope only come into lines and variables, where they can end nothing. Bounds: those
//! of the instructions.

mod explain;
mod quote;

pub use explain::explain;
pub use quote::quoted_address;

use crate::failure::Failure;
use crate::instructions::search::{self, Chosen, Distrust, Home};
use crate::instructions::{self, Line};
use crate::program::Next;
use message::UnixMillis;

/// What qmail-local is called with.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    pub user: &'a str,
    pub home: &'a str,
    pub local: &'a str,
    pub dash: &'a str,
    pub extension: &'a str,
    pub host: &'a str,
    pub sender: &'a str,
    /// Instructions for who has none.
    pub default_delivery: &'a [u8],
}

/// Lines that are put on top of a message. Each ends in LF and has no other.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TopLines {
    /// `From ann@example.net Thu Jan 01 00:00:00 1970`
    pub from_line: String,
    pub return_path: String,
    pub delivered_to: String,
}

impl TopLines {
    /// What stands before a message in a Maildir.
    pub fn for_maildir(&self) -> String {
        format!("{}{}", self.return_path, self.delivered_to)
    }

    pub fn for_mbox(&self) -> String {
        format!("{}{}{}", self.from_line, self.return_path, self.delivered_to)
    }
}

impl Delivery<'_> {
    pub fn recipient(&self) -> String {
        format!("{}@{}", self.local, self.host)
    }

    pub fn top_lines(&self, now: UnixMillis) -> TopLines {
        let one_line = |text: String| text.replace('\n', "_");
        let sender = match self.sender {
            "" => "MAILER-DAEMON".to_owned(),
            sender => sender.replace([' ', '\t', '\n'], "-"),
        };
        TopLines {
            from_line: format!("From {sender} {}\n", now.asctime()),
            return_path: format!("{}>\n", one_line(format!("Return-Path: <{}", quoted_address(self.sender)))),
            delivered_to: format!("{}\n", one_line(format!("Delivered-To: {}", self.recipient()))),
        }
    }
}

/// One thing to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    Mbox(Vec<u8>),
    Maildir(Vec<u8>),
    Program(Vec<u8>),
    Forward(Vec<u8>),
    /// Here it ends, whatever was done before.
    Refuse(Failure),
}

/// What there is to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Plan {
    /// The file of instructions, if there is one that says something.
    pub file: Option<String>,
    /// What `default` in its name stands for.
    pub default: Option<String>,
    /// Who hears of failures of what is forwarded.
    pub new_sender: String,
    pub steps: Vec<Step>,
}

/// The home's permissions, the instructions, and what they say.
pub fn plan(home: &dyn Home, distrust: Distrust, delivery: &Delivery<'_>) -> Result<Plan, Failure> {
    search::check_home(mode_of(home)?, distrust)?;
    plan_in(home, distrust, delivery)
}

fn mode_of(home: &dyn Home) -> Result<u32, Failure> {
    home.mode().map_err(|error| {
        let why = crate::failure::reason(&error);
        Failure::soft(format!("Unable to stat home directory: {why}. (#4.3.0)"))
    })
}

/// Without a look at the home itself.
fn plan_in(home: &dyn Home, distrust: Distrust, delivery: &Delivery<'_>) -> Result<Plan, Failure> {
    let Delivery { local, dash, extension, host, sender, default_delivery, .. } = *delivery;
    let chosen = search::find(home, distrust, dash, extension)?;
    if chosen.is_none() && !dash.is_empty() {
        return Err(Failure::hard("Sorry, no mailbox here by that name. (#5.1.1)"));
    }
    let new_sender = search::new_sender(home, (dash, extension), (local, host), sender)?;
    let default = chosen.as_ref().and_then(|chosen| chosen.candidate.default.clone());
    let said = chosen.filter(|chosen| !chosen.content.is_empty());
    let (file, content, is_forward_only) = match &said {
        Some(Chosen { candidate, content, is_forward_only }) => {
            (Some(candidate.name.clone()), &content[..], *is_forward_only)
        }
        None => (None, default_delivery, false),
    };
    let steps = steps_of(instructions::parse(content)?, is_forward_only);
    Ok(Plan { file, default, new_sender, steps })
}

fn steps_of(lines: Vec<Line>, mut is_forward_only: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    for line in lines {
        let step = match line {
            Line::Comment | Line::Unknown(_) => continue,
            Line::List => {
                is_forward_only = true;
                continue;
            }
            Line::Forward(address) => Step::Forward(address),
            Line::Program(_) if is_forward_only => {
                Step::Refuse(Failure::soft("Uh-oh: .qmail has prog delivery but has x bit set. (#4.7.0)"))
            }
            Line::Mbox(_) | Line::Maildir(_) if is_forward_only => {
                Step::Refuse(Failure::soft("Uh-oh: .qmail has file delivery but has x bit set. (#4.7.0)"))
            }
            Line::Program(program) => Step::Program(program),
            Line::Mbox(path) => Step::Mbox(path),
            Line::Maildir(path) => Step::Maildir(path),
        };
        let ends = matches!(step, Step::Refuse(_));
        steps.push(step);
        if ends {
            break;
        }
    }
    steps
}

/// A message that already has our line was here before.
pub fn looping() -> Failure {
    Failure::hard("This message is looping: it already has my Delivered-To line. (#5.4.6)")
}

/// What to do next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    Mbox(Vec<u8>),
    Maildir(Vec<u8>),
    Program(Vec<u8>),
    /// To all of these at once, with the plan's new sender and our Delivered-To on top.
    Forward(Vec<Vec<u8>>),
}

/// How many files, addresses and programs there were. Prints as qmail-local does: `did 1+0+2`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    pub files: usize,
    pub forwards: usize,
    pub programs: usize,
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "did {}+{}+{}", self.files, self.forwards, self.programs)
    }
}

/// A plan being carried out: ask [`Course::poll_action`], do it, tell [`Course::handle_outcome`].
#[derive(Clone, Debug)]
pub struct Course {
    steps: std::vec::IntoIter<Step>,
    forwards: Vec<Vec<u8>>,
    counts: Counts,
    failure: Option<Failure>,
}

impl Course {
    pub fn new(plan: Plan) -> Course {
        Course {
            steps: plan.steps.into_iter(),
            forwards: Vec::new(),
            counts: Counts::default(),
            failure: None,
        }
    }

    /// `None` when it is over.
    pub fn poll_action(&mut self) -> Option<Action> {
        if self.failure.is_some() {
            return None;
        }
        for step in self.steps.by_ref() {
            let action = match step {
                Step::Forward(address) => {
                    self.counts.forwards += 1;
                    self.forwards.push(address);
                    continue;
                }
                Step::Refuse(failure) => {
                    self.failure = Some(failure);
                    return None;
                }
                Step::Mbox(path) => Action::Mbox(path),
                Step::Maildir(path) => Action::Maildir(path),
                Step::Program(program) => Action::Program(program),
            };
            match action {
                Action::Program(_) => self.counts.programs += 1,
                _ => self.counts.files += 1,
            }
            return Some(action);
        }
        let forwards = std::mem::take(&mut self.forwards);
        (!forwards.is_empty()).then_some(Action::Forward(forwards))
    }

    /// How the last action went.
    pub fn handle_outcome(&mut self, outcome: Result<Next, Failure>) {
        match outcome {
            Ok(Next::GoOn) => {}
            Ok(Next::Stop) => self.steps = Vec::new().into_iter(),
            Err(failure) => self.failure = Some(failure),
        }
    }

    /// What became of it all, once there is no action left.
    pub fn finish(self) -> Result<Counts, Failure> {
        self.failure.map_or(Ok(self.counts), Err)
    }
}

#[cfg(test)]
pub(crate) mod tests;
