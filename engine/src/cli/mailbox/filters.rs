//! What `forward`, `preline`, `condredirect`, `bouncesaying`, `except`, `qreceipt`, `qbiff` and `maildirmake` do.

use super::{read_message, trouble, variable, whichever};
use crate::cli::submit::{self, Onward};
use local::failure::reason;
use local::filters::{self as rules, ChildEnd, Exit, Gate, Resent};
use rustix::fs::{Mode, OFlags, SeekFrom};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::process::{Command, ExitStatus, Stdio};

/// Octets that qmail's programs write at a time. What a program leaves unread of less is its own affair.
const OUT_LEN: usize = 8192;

/// Terminals that are looked at.
const TERMINALS_MAX: usize = 4096;

pub(super) fn forward(words: &[String]) -> Exit {
    whichever(
        rules::forward(words, &variable).and_then(|resent| Ok(Exit::new(0, resend("forward", &resent)?))),
    )
}

/// Sends the message of standard input on. Returns what there is to say.
fn resend(program: &str, resent: &Resent) -> Result<String, Exit> {
    let content = read_message().map_err(|error| trouble(program, "unable to read message", &error))?;
    let Resent { sender, top, recipients } = resent;
    let onward = Onward { sender, recipients, no_at_host: None, top, content: &content };
    match submit::send(&onward) {
        Ok(sent) => Ok(sent.words(program)),
        Err(not_sent) => Err(Exit::new(not_sent.code, format!("{program}: fatal: {}", not_sent.words))),
    }
}

pub(super) fn condredirect(words: &[String]) -> Exit {
    whichever(rules::condredirect(words).and_then(|(address, program)| {
        if let Gate::Exit(exit) = rules::gate_of("condredirect", asked(program)) {
            return Ok(exit);
        }
        rustix::fs::seek(io::stdin(), SeekFrom::Start(0))
            .map_err(|error| trouble("condredirect", "unable to rewind", &error.into()))?;
        Ok(Exit::new(99, resend("condredirect", &rules::redirected(address, &variable)?)?))
    }))
}

pub(super) fn bouncesaying(words: &[String]) -> Exit {
    whichever(rules::bouncesaying(words).map(|(error, program)| {
        let gate = match program {
            [] => Gate::Act,
            program => rules::gate_of("bouncesaying", asked(program)),
        };
        match gate {
            Gate::Act => Exit::new(100, error),
            Gate::Exit(exit) => exit,
        }
    }))
}

pub(super) fn except(words: &[String]) -> Exit {
    whichever(rules::except(words).map(|program| rules::except_of(asked(program))))
}

/// Runs a program on the message.
fn asked(words: &[String]) -> ChildEnd {
    match Command::new(&words[0]).args(&words[1..]).status() {
        Ok(status) => end_of(status),
        Err(error) => ChildEnd::Code(rules::start_failed(&error)),
    }
}

fn end_of(status: ExitStatus) -> ChildEnd {
    status.code().map_or(ChildEnd::Crashed, ChildEnd::Code)
}

pub(super) fn preline(words: &[String]) -> Exit {
    whichever(rules::preline(words, &variable).and_then(|(top, program)| {
        let spawned = Command::new(&program[0]).args(&program[1..]).stdin(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|error| {
            let code = if rules::start_failed(&error) == 111 { 111 } else { 100 };
            Exit::new(code, format!("preline: fatal: unable to run {}: {}", program[0], reason(&error)))
        })?;
        if let Some(pipe) = child.stdin.take() {
            let mut pipe = BufWriter::with_capacity(OUT_LEN, pipe);
            let copied = pipe
                .write_all(top.as_bytes())
                .and_then(|()| io::copy(&mut io::stdin().lock(), &mut pipe).map(drop));
            copied.map_err(|error| trouble("preline", "unable to copy input", &error))?;
            let _ = pipe.flush();
        }
        let status = child.wait().map_err(|error| trouble("preline", "wait failed", &error))?;
        Ok(match end_of(status) {
            ChildEnd::Code(code) => Exit::silent(u8::try_from(code).unwrap_or(111)),
            ChildEnd::Crashed => Exit::new(111, "preline: fatal: child crashed"),
        })
    }))
}

pub(super) fn qreceipt(words: &[String]) -> Exit {
    whichever(read_message().map_err(|_| Exit::new(111, "qreceipt: fatal: read error")).and_then(|content| {
        let Some(receipt) = rules::receipt(words, &variable, &content)? else { return Ok(Exit::silent(0)) };
        let (recipients, content) = ([receipt.to], &receipt.content);
        let onward = Onward { sender: "", recipients: &recipients, no_at_host: None, top: "", content };
        submit::send(&onward).map_err(|not_sent| {
            let kind = if not_sent.code == 100 { "permanent" } else { "temporary" };
            Exit::new(not_sent.code, format!("qreceipt: fatal: {kind} queue error: {}", not_sent.words))
        })?;
        Ok(Exit::silent(0))
    }))
}

/// Nobody's mail waits for a terminal: whatever goes wrong is no failure.
pub(super) fn qbiff() -> Exit {
    let lines = read_message().ok().and_then(|content| rules::biff_lines(&variable, &content));
    for folder in lines.iter().flat_map(|_| ["/dev/pts", "/dev"]) {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        for entry in entries.take(TERMINALS_MAX).flatten() {
            let name = entry.file_name();
            let is_terminal = folder == "/dev/pts" || name.as_encoded_bytes().starts_with(b"tty");
            if is_terminal {
                let _ = bark(&entry.path(), lines.as_deref().unwrap_or_default());
            }
        }
    }
    Exit::silent(0)
}

/// Writes to a terminal that is our user's and where they said `biff y`.
fn bark(path: &std::path::Path, lines: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let about = rustix::fs::stat(path)?;
    let wants = Mode::from_raw_mode(about.st_mode).contains(Mode::XUSR);
    if about.st_uid == rustix::process::getuid().as_raw() && wants {
        let terminal = rustix::fs::open(path, flags, Mode::empty())?;
        if rustix::termios::isatty(&terminal) {
            rustix::io::write(&terminal, lines)?;
        }
    }
    Ok(())
}

pub(super) fn maildirmake(words: &[String]) -> Exit {
    whichever(rules::maildirmake(words).and_then(|folders| {
        for folder in &folders {
            let made = std::fs::DirBuilder::new().mode(0o700).create(folder);
            made.map_err(|error| rules::cannot_make(folder, &error))?;
        }
        Ok(Exit::silent(0))
    }))
}
