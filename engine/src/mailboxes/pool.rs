//! Processes with their user's rights: started when they are needed, kept a while for that user's next message.
//!
//! Starting one is our own program anew with an empty environment and another uid, gid and no further groups; nothing of
//! ours is in its memory. Bounds: a number of busy ones, half of it for one user; [`IDLE_MAX`] idle ones, each for
//! [`IDLE_TIMEOUT`].

use super::errand::SUBMIT_VARIABLE;
use super::wire;
use crate::clock;
use crate::parts::Part;
use local::failure::Failure;
use parking_lot::{Condvar, Mutex};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const IDLE_MAX: usize = 64;

const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Most deliveries take milliseconds: a list's of one user's wait for those before them, and not for their next turn.
const PLACE_WAIT: Duration = Duration::from_secs(5);

/// Whose rights a process has. Never root's.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Rights {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// A process that delivers for one user, and nobody else's at the moment.
#[derive(Debug)]
pub(super) struct Worker {
    rights: Rights,
    child: Child,
    socket: Option<OwnedFd>,
    since: Instant,
}

impl Worker {
    pub(super) fn socket(&self) -> &OwnedFd {
        self.socket.as_ref().expect("it is closed in drop alone")
    }
}

impl Drop for Worker {
    /// It ends when its socket does; one that hangs is stopped.
    fn drop(&mut self) {
        drop(self.socket.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Pool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// One who was busy.
    has_left: Condvar,
    busy_max: usize,
    submit: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct State {
    busy: HashMap<Rights, usize>,
    busy_count: usize,
    idle: Vec<Worker>,
    /// Processes that are nobody's here any more, to be waited for.
    started: Vec<Child>,
}

impl Pool {
    pub(super) fn new(busy_max: usize, submit: Option<PathBuf>) -> Pool {
        Pool {
            inner: Arc::new(Inner { state: Mutex::default(), has_left: Condvar::new(), busy_max, submit }),
        }
    }

    /// One that is at work for nobody.
    pub(super) fn take(&self, rights: Rights) -> Result<Worker, Failure> {
        let Inner { state, busy_max, .. } = &*self.inner;
        {
            let mut state = state.lock();
            let has_no_place = |state: &mut State| {
                let own = state.busy.get(&rights).copied().unwrap_or(0);
                state.busy_count >= *busy_max || own >= busy_max.div_ceil(2)
            };
            self.inner.has_left.wait_while_for(&mut state, has_no_place, PLACE_WAIT);
            if has_no_place(&mut state) {
                return Err(Failure::soft("Too many deliveries are under way for this user. (#4.3.2)"));
            }
            *state.busy.entry(rights).or_default() += 1;
            state.busy_count += 1;
            while let Some(at) = state.idle.iter().rposition(|worker| worker.rights == rights) {
                let mut worker = state.idle.swap_remove(at);
                if matches!(worker.child.try_wait(), Ok(None)) {
                    return Ok(worker);
                }
            }
        }
        self.new_worker(rights).map_err(|error| {
            self.inner.leave(rights);
            tracing::error!(uid = rights.uid, %error, "no process can be started for a recipient");
            Failure::soft("Unable to start a process for this user. (#4.3.0)")
        })
    }

    fn new_worker(&self, rights: Rights) -> io::Result<Worker> {
        let (ours, theirs) = wire::pair()?;
        let child = self.command(Part::Deliver, rights, theirs.as_fd())?.spawn()?;
        Ok(Worker { rights, child, socket: Some(ours), since: clock::now() })
    }

    /// A process that its caller talks to by itself, over its own socket.
    pub(super) fn start(
        &self,
        part: Part,
        rights: Rights,
        socket: BorrowedFd<'_>,
        words: &[&OsStr],
    ) -> io::Result<()> {
        let child = self.command(part, rights, socket)?.args(words).spawn()?;
        self.inner.state.lock().started.push(child);
        Ok(())
    }

    /// SIGHUP is at its default there: we neither block nor ignore it, and exec forgets what we catch.
    fn command(&self, part: Part, rights: Rights, socket: BorrowedFd<'_>) -> io::Result<Command> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("ringpost").arg(part.word()).env_clear().current_dir("/");
        command.env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
        if let Some(submit) = &self.inner.submit {
            command.env(SUBMIT_VARIABLE, submit);
        }
        command.stdin(Stdio::from(socket.try_clone_to_owned()?));
        if rustix::process::geteuid().is_root() {
            // With a uid given, the groups of root go too.
            command.gid(rights.gid).uid(rights.uid);
        }
        Ok(command)
    }

    /// It did not do what it was asked for, and ends.
    pub(super) fn end(&self, worker: Worker) {
        self.inner.leave(worker.rights);
        drop(worker);
    }

    /// It did what it was asked for.
    pub(super) fn give_back(&self, mut worker: Worker) {
        worker.since = clock::now();
        let mut state = self.inner.state.lock();
        state.leave(worker.rights);
        state.idle.push(worker);
        let too_many = state.idle.len().saturating_sub(IDLE_MAX);
        let old: Vec<Worker> = state.idle.drain(..too_many).collect();
        drop(state);
        self.inner.has_left.notify_all();
        drop(old);
    }

    /// On a thread of its own: ends those that are idle, waits for those that have ended.
    pub(super) fn tidy_up_from_now_on(&self) -> io::Result<()> {
        let inner = Arc::clone(&self.inner);
        let run = move || {
            loop {
                std::thread::sleep(IDLE_TIMEOUT / 4);
                inner.tidy_up();
            }
        };
        std::thread::Builder::new().name("tidy-up".into()).spawn(run).map(drop)
    }
}

impl Inner {
    fn leave(&self, rights: Rights) {
        self.state.lock().leave(rights);
        self.has_left.notify_all();
    }

    fn tidy_up(&self) {
        let now = clock::now();
        let mut state = self.state.lock();
        let is_old = |worker: &mut Worker| now.saturating_duration_since(worker.since) > IDLE_TIMEOUT;
        let old: Vec<Worker> = state.idle.extract_if(.., is_old).collect();
        state.started.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        drop(state);
        drop(old);
    }
}

impl State {
    fn leave(&mut self, rights: Rights) {
        self.busy_count -= 1;
        if let Some(own) = self.busy.get_mut(&rights) {
            *own -= 1;
            if *own == 0 {
                self.busy.remove(&rights);
            }
        }
    }
}
