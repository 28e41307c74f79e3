//! Waiting for a condition, bounded: looks often, gives up loudly.

use std::io::Read;
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Enough for anything that takes a second on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Returns the first `Some`. Panics with `what` after `timeout`.
pub fn until_some<T>(what: &str, timeout: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {timeout:?} for {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Returns when it holds. Panics with `what` after `timeout`.
pub fn until(what: &str, timeout: Duration, mut holds: impl FnMut() -> bool) {
    until_some(what, timeout, || holds().then_some(()));
}

/// Runs a program to its end and returns what it said. Past `timeout` it is killed and the test fails.
pub fn finish(command: &mut Command, timeout: Duration) -> Output {
    finish_with(command, Stdio::null(), timeout)
}

/// As [`finish`]; the program reads `input`.
pub fn finish_with(command: &mut Command, input: Stdio, timeout: Duration) -> Output {
    let what = format!("{command:?}");
    let spawned = command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.unwrap_or_else(|error| panic!("{what}: {error}"));
    let (stdout, stderr) = (gather(child.stdout.take()), gather(child.stderr.take()));
    let Some(status) = ends_within(&mut child, timeout) else {
        let _ = child.kill();
        let _ = child.wait();
        panic!("{what} did not end within {timeout:?}; it said {}", said(stderr));
    };
    Output { status, stdout: join(stdout), stderr: join(stderr) }
}

/// As [`finish`], and it must succeed.
pub fn succeed(command: &mut Command, timeout: Duration) -> Output {
    let output = finish(command, timeout);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{stdout}\n{stderr}", output.status);
    output
}

/// The status, if the child ends in time.
pub fn ends_within(child: &mut Child, timeout: Duration) -> Option<std::process::ExitStatus> {
    let deadline = Instant::now() + timeout;
    loop {
        match child.try_wait().expect("a child can be waited for") {
            None if Instant::now() < deadline => std::thread::sleep(LOOK_AGAIN),
            ended => return ended,
        }
    }
}

type Gathered = JoinHandle<Vec<u8>>;

fn gather(pipe: Option<impl Read + Send + 'static>) -> Gathered {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

fn join(gathered: Gathered) -> Vec<u8> {
    gathered.join().expect("reading a pipe does not panic")
}

fn said(gathered: Gathered) -> String {
    String::from_utf8_lossy(&join(gathered)).into_owned()
}
