//! DJB's checkpassword interface: a program reads `user NUL password NUL timestamp NUL` from descriptor 3 and ends with
//! 0 (right), 1 (wrong), 2 (we misused it) or 111 (not now). What it runs after a right password is `true`.
//!
//! The shell puts descriptor 3 in its place, because we could do so only in a copy of our own process: that copy costs
//! in proportion to the queue in memory and would share the rings' buffers, while a child without such a step is made
//! without one. The secret comes to the shell on its standard input and passes through no argument, environment or file.
//! Of ours the child has nothing else: no descriptors, no environment but `PATH`; output and errors go nowhere, because
//! they might tell what it was given.
//!
//! Bounds: [`INPUT_MAX`] octets, [`TIME_LIMIT`]; then it is killed with its process group.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::io::{self, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// The interface promises no more to the program.
const INPUT_MAX: usize = 512;

pub(super) const TIME_LIMIT: Duration = Duration::from_secs(10);

/// Descriptor 3 is what came as standard input; then the program takes the shell's place.
const PUT_INTO_PLACE: &str = "exec 3<&0 </dev/null; exec \"$@\"";

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the program said.
#[derive(Debug)]
pub(super) enum Said {
    Right,
    Wrong,
    /// Nothing that can be used, and why.
    Nothing(String),
}

/// `program`: its path and arguments. `user` and `password` have no NUL. Takes as long as the program.
pub(super) fn ask(program: &[String], user: &str, password: &[u8], limit: Duration) -> Said {
    let input = zeroize::Zeroizing::new([user.as_bytes(), b"\0", password, b"\0\0"].concat());
    if input.len() > INPUT_MAX {
        return Said::Wrong;
    }
    match run(program, &input, limit) {
        Ok(Some(status)) => said_by(status),
        Ok(None) => Said::Nothing(format!("said nothing for {} s and was killed", limit.as_secs())),
        Err(error) => Said::Nothing(format!("cannot be run: {error}")),
    }
}

fn said_by(status: ExitStatus) -> Said {
    match status.code() {
        Some(0) => Said::Right,
        Some(1) => Said::Wrong,
        Some(2) => Said::Nothing("ended with 2: it was called wrongly".to_owned()),
        Some(111) => Said::Nothing("ended with 111: it cannot say now".to_owned()),
        Some(126 | 127) => Said::Nothing("cannot be run: is it there, and executable for us?".to_owned()),
        Some(code) => Said::Nothing(format!("ended with {code}, which the interface does not have")),
        None => Said::Nothing(format!("was ended by signal {}", status.signal().unwrap_or(0))),
    }
}

/// `None`: it took too long.
fn run(program: &[String], input: &[u8], limit: Duration) -> io::Result<Option<ExitStatus>> {
    let mut child = Command::new("/bin/sh")
        .args(["-c", PUT_INTO_PLACE, "sh"])
        .args(program)
        .arg("true")
        .env_clear()
        .env("PATH", PATH)
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    // The pipe holds it all. A program that ends unread has its reasons, and says them by its exit code.
    if let Some(mut pipe) = child.stdin.take() {
        let _ = pipe.write_all(input);
    }
    let ended = wait(&child, limit);
    if !matches!(ended, Ok(true)) {
        let _ = kill_process_group(pid_of(&child), Signal::KILL);
        child.wait()?;
        return ended.map(|_| None);
    }
    child.wait().map(Some)
}

/// True if it ended in time.
fn wait(child: &Child, limit: Duration) -> io::Result<bool> {
    let process = pidfd_open(pid_of(child), PidfdFlags::empty())?;
    let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
    let mut watched = [PollFd::new(&process, PollFlags::IN)];
    loop {
        match poll(&mut watched, Some(&limit)) {
            // A signal is a reason to begin anew; none is sent to this thread again and again.
            Err(rustix::io::Errno::INTR) => {}
            ended => return Ok(ended? > 0),
        }
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_child(child)
}

#[cfg(test)]
mod tests;
