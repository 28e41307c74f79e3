//! A process that delivers for one user, one message after the other: started by the launcher with that user's rights,
//! and gone when the launcher closes its socket, which is standard input.
//!
//! What a delivery leaves behind in the process is the folder it stands in. Trusts the launcher; the user may do what
//! they like with it, for it is theirs.

use super::errand::{Done, Errand};
use super::wire::{self, Packet};
use local::delivery::Delivery;
use local::failure::{Failure, Severity};
use local::maildir::quota::Quota;
use local::program::Limits;
use message::Domain;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// A delivery as the launcher asks for it. An empty memory limit, quota or host is none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub(super) delivery: Delivery<'a>,
    pub(super) limits: Limits,
    pub(super) quota: Option<Quota>,
    /// See [`crate::config::Local::no_at_host`]: the user may not be able to read the configuration.
    pub(super) no_at_host: &'a str,
}

impl Request<'_> {
    pub(super) fn send(&self, socket: &OwnedFd, message: &OwnedFd) -> io::Result<()> {
        use std::os::fd::AsFd as _;
        let Request { delivery, limits, quota, no_at_host } = self;
        let Delivery { user, home, local, dash, extension, host, sender, default_delivery } = *delivery;
        let secs = limits.time.as_secs().to_string();
        let memory = limits.memory.map(|octets| octets.to_string()).unwrap_or_default();
        let quota = quota.map(|quota| quota.to_string()).unwrap_or_default();
        let texts = [user, home, local, dash, extension, host, sender, &secs, &memory, &quota, no_at_host];
        let fields: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).chain([default_delivery]).collect();
        wire::send(socket, &fields, Some(message.as_fd()))
    }
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Answer {
    /// With qmail's words: `did 1+0+0`, and what programs said.
    Done(String),
    Failed(Failure),
}

impl Answer {
    pub(super) fn send(&self, socket: impl std::os::fd::AsFd) -> io::Result<()> {
        let (word, text) = match self {
            Answer::Done(text) => ("done", text),
            Answer::Failed(Failure { severity: Severity::Hard, words }) => ("hard", words),
            Answer::Failed(Failure { severity: Severity::Soft, words }) => ("soft", words),
        };
        wire::send(socket, &[word.as_bytes(), text.as_bytes()], None)
    }

    /// `None`: that is no answer.
    pub(crate) fn read(packet: &Packet) -> Option<Answer> {
        let [word, text] = packet.texts()?;
        match word {
            "done" => Some(Answer::Done(text.to_owned())),
            "hard" => Some(Answer::Failed(Failure::hard(text))),
            "soft" => Some(Answer::Failed(Failure::soft(text))),
            _ => None,
        }
    }
}

/// Until the launcher has gone.
pub(crate) fn run() -> io::Result<()> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let socket = io::stdin();
    let mut counter = 0;
    while let Some(packet) = wire::receive(&socket)? {
        let answer = match deliver(packet, counter) {
            Ok(Done { counts, said }) => Answer::Done(format!("{counts} {}", String::from_utf8_lossy(&said))),
            Err(failure) => Answer::Failed(failure),
        };
        answer.send(&socket)?;
        counter += 1;
    }
    Ok(())
}

fn deliver(packet: Packet, counter: u64) -> Result<Done, Failure> {
    let broken = || Failure::soft("Unable to read what is to be delivered. (#4.3.0)");
    let Packet { mut fields, descriptor } = packet;
    let default_delivery = fields.pop().ok_or_else(broken)?;
    let texts = Packet { fields, descriptor: None };
    let [user, home, local, dash, extension, host, sender, secs, memory, quota, no_at_host] =
        texts.texts().ok_or_else(broken)?;
    let number = |text: &str| text.parse::<u64>().ok();
    let limits =
        Limits { time: Duration::from_secs(number(secs).ok_or_else(broken)?), memory: number(memory) };
    let quota = Some(quota).filter(|quota| !quota.is_empty()).and_then(Quota::parse);
    let no_at_host = Domain::parse(no_at_host).ok();
    let default_delivery = default_delivery.as_slice();
    let delivery = Delivery { user, home, local, dash, extension, host, sender, default_delivery };
    let message = File::from(descriptor.ok_or_else(broken)?);
    Errand { delivery, message, limits, quota, no_at_host, counter }.run()
}
