//! Starts a program and waits for it, a bounded time.
//!
//! It gets a process group of its own, so that what it started is stopped with it. Memory is limited before it begins:
//! a shell sets the limit of itself and becomes the program's. What it leaves in the background and without our pipe
//! goes on, as with qmail.

use super::{End, OUTPUT_MAX, Ran};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind, PipeReader, Read as _, Seek as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How much a program may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub time: Duration,
    /// Octets of address space of each of its processes.
    pub memory: Option<u64>,
}

impl Default for Limits {
    /// An hour; a slow filter is not broken.
    fn default() -> Limits {
        Limits { time: Duration::from_secs(3600), memory: None }
    }
}

/// A program and its surroundings.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// For `/bin/sh -c`.
    pub command: &'a [u8],
    /// Where it starts.
    pub home: &'a Path,
    pub variables: &'a [(&'static str, String)],
    /// `PATH`. Of our own environment nothing else is handed on.
    pub path: Option<&'a OsStr>,
}

/// Runs it with the message from its beginning. An error is ours: it could not be started or waited for.
pub fn run(
    program: &Program<'_>,
    message: &File,
    limits: Limits,
    clock: &dyn Fn() -> Instant,
) -> io::Result<Ran> {
    let mut message = message.try_clone()?;
    message.rewind()?;
    let (mut output, writer) = io::pipe()?;
    rustix::io::ioctl_fionbio(&output, true)?;
    let deadline = clock() + limits.time;
    let mut command = command(program, limits);
    command.stdin(Stdio::from(message)).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn()?;
    // Its copies of our end of the pipe: else the pipe would never end.
    drop(command);
    let mut said = Vec::new();
    let waited = wait(&child, &mut output, &mut said, deadline, clock);
    if !matches!(waited, Ok(true)) {
        stop(&mut child);
    }
    let status = child.wait()?;
    let is_over = waited?;
    read_available(&mut output, &mut said)?;
    let end = match (is_over, status.code()) {
        (false, _) => End::OutOfTime,
        (true, Some(code)) => End::Code(code),
        (true, None) => End::Crashed,
    };
    Ok(Ran { end, output: said })
}

fn command(program: &Program<'_>, limits: Limits) -> Command {
    let mut command = Command::new("/bin/sh");
    command.arg("-c");
    match limits.memory {
        // Its own words reach the shell as $0 and $1, and are not part of this command.
        Some(octets) => command
            .arg("ulimit -v \"$0\" && exec /bin/sh -c \"$1\"")
            .arg(OsString::from((octets / 1024).to_string()))
            .arg(OsStr::from_bytes(program.command)),
        None => command.arg(OsStr::from_bytes(program.command)),
    };
    command.current_dir(program.home).process_group(0).env_clear();
    command.envs(program.variables.iter().map(|(name, value)| (name, value)));
    if let Some(path) = program.path {
        command.env("PATH", path);
    }
    command
}

/// True when the program has ended, false when its time has.
fn wait(
    child: &Child,
    output: &mut PipeReader,
    said: &mut Vec<u8>,
    deadline: Instant,
    clock: &dyn Fn() -> Instant,
) -> io::Result<bool> {
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let mut is_open = true;
    loop {
        let left = deadline.saturating_duration_since(clock());
        if left.is_zero() {
            return Ok(false);
        }
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut waits = vec![PollFd::new(&process, PollFlags::IN)];
        if is_open {
            waits.push(PollFd::new(&*output, PollFlags::IN));
        }
        match poll(&mut waits, Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let has_ended = !waits[0].revents().is_empty();
        if is_open {
            is_open = read_available(output, said)?;
        }
        if has_ended {
            return Ok(true);
        }
    }
}

/// Takes what the pipe holds now, a bounded part of it at a time. False: nobody can write to it any more.
fn read_available(output: &mut PipeReader, said: &mut Vec<u8>) -> io::Result<bool> {
    let mut piece = [0; 16 << 10];
    // As much as a pipe usually holds: a program that writes without end must not keep us from its deadline.
    for _ in 0..4 {
        match output.read(&mut piece) {
            Ok(0) => return Ok(false),
            Ok(len) => {
                let room = OUTPUT_MAX - said.len();
                said.extend_from_slice(&piece[..len.min(room)]);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// The program and all that it started and did not take out of its group. It was not waited for yet, so the number is
/// its.
fn stop(child: &mut Child) {
    if kill_process_group(Pid::from_child(child), Signal::KILL).is_err() {
        // It has not made its group yet.
        let _ = child.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::Next;
    use std::io::Write as _;

    fn limits(time: Duration) -> Limits {
        Limits { time, memory: None }
    }

    fn ran_with(command: &str, limits: Limits) -> Ran {
        let mut message = tempfile::tempfile().unwrap();
        message.write_all(b"Subject: hi\n\nbody\n").unwrap();
        let variables = [("SENDER", "ann@example.net; rm -rf /".to_owned())];
        let path = std::env::var_os("PATH");
        let program = Program {
            command: command.as_bytes(),
            home: Path::new("/tmp"),
            variables: &variables,
            path: path.as_deref(),
        };
        run(&program, &message, limits, &Instant::now).unwrap()
    }

    fn ran(command: &str) -> Ran {
        ran_with(command, limits(Duration::from_secs(60)))
    }

    fn said(command: &str) -> String {
        String::from_utf8(ran(command).output).unwrap()
    }

    #[test]
    fn a_program_finds_message_home_and_variables_and_nothing_of_ours() {
        assert_eq!(said("cat"), "Subject: hi\n\nbody\n");
        assert_eq!(said("pwd; echo \"$SENDER\" >&2"), "/tmp\nann@example.net; rm -rf /\n");
        assert_eq!(said("echo \"$HOME$CARGO_MANIFEST_DIR$RUST_BACKTRACE\""), "\n");
    }

    #[test]
    fn the_end_is_told() {
        assert_eq!(ran("exit 99").outcome(), Ok(Next::Stop));
        assert_eq!(ran("exit 100").end, End::Code(100));
        assert_eq!(ran("kill -9 $$").end, End::Crashed);
        assert_eq!(ran("no-such-program-at-all").end, End::Code(127));
    }

    #[test]
    fn output_is_kept_in_part_and_read_whole() {
        let ran = ran("dd if=/dev/zero bs=1000 count=300 2>/dev/null | tr '\\0' x; exit 3");
        assert_eq!((ran.output.len(), ran.end), (OUTPUT_MAX, End::Code(3)));
    }

    #[test]
    fn a_program_that_takes_too_long_is_stopped_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let number = folder.path().join("number");
        let command = format!("sleep 60 & echo $! > {}; sleep 60", number.display());
        let begun = Instant::now();
        assert_eq!(ran_with(&command, limits(Duration::from_secs(2))).end, End::OutOfTime);
        assert!(begun.elapsed() < Duration::from_secs(50));
        let number = std::fs::read_to_string(number).unwrap();
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", number.trim())).unwrap_or_default();
        // Gone, or dead and waiting for its new parent to notice.
        let is_dead = |state: String| state.is_empty() || state.contains(") Z ") || state.contains(") X ");
        let pause = || std::thread::sleep(Duration::from_millis(10));
        assert!((0..500).any(|_| is_dead(state()) || (pause(), false).1), "{}", state());
        // One that never stops talking is stopped, too.
        assert_eq!(ran_with("yes", limits(Duration::from_millis(300))).end, End::OutOfTime);
    }

    #[test]
    fn what_stays_in_the_background_holds_nothing_up() {
        let begun = Instant::now();
        assert_eq!(ran("sleep 60 & exit 0").end, End::Code(0));
        assert!(begun.elapsed() < Duration::from_secs(50));
    }

    #[test]
    fn memory_is_limited() {
        let hungry = "x=$(head -c 60000000 /dev/zero | tr '\\0' x); echo ${#x}";
        let limits = Limits { time: Duration::from_secs(60), memory: Some(40 << 20) };
        let outcome = ran_with(hungry, limits);
        assert!(outcome.end != End::Code(0) || !outcome.output.starts_with(b"60000000"), "{outcome:?}");
        assert_eq!(ran_with("echo \"$0\" fine; exit 7", limits).end, End::Code(7));
    }
}
