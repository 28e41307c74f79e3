//! Threads for what takes long: they start with the first work and wait for more.
//!
//! Bounds: so many threads, so much work that waits for them; more is handed back.

use crossbeam::channel::{Sender, TrySendError, bounded};
use std::sync::OnceLock;

pub(super) type Work = Box<dyn FnOnce() + Send>;

/// How much lower than the cores' threads these stand: mail goes before logins.
const NICENESS: i32 = 5;

/// See the module.
pub(super) struct Pool {
    name: &'static str,
    threads: usize,
    waiting_max: usize,
    sender: OnceLock<Sender<Work>>,
}

impl Pool {
    pub(super) fn new(name: &'static str, threads: usize, waiting_max: usize) -> Pool {
        Pool { name, threads, waiting_max, sender: OnceLock::new() }
    }

    /// Gives the work back if too much waits already.
    pub(super) fn put(&self, work: Work) -> Result<(), Work> {
        self.sender.get_or_init(|| self.start()).try_send(work).map_err(|error| match error {
            TrySendError::Full(work) | TrySendError::Disconnected(work) => work,
        })
    }

    /// Threads end when the pool goes. Without any, the channel is closed and all work comes back.
    fn start(&self) -> Sender<Work> {
        let (sender, receiver) = bounded::<Work>(self.waiting_max);
        for _ in 0..self.threads {
            let receiver = receiver.clone();
            let run = move || {
                // Higher than we are asked for is no harm.
                let _ = rustix::process::nice(NICENESS);
                receiver.iter().for_each(|work| work());
            };
            if let Err(error) = std::thread::Builder::new().name(self.name.to_owned()).spawn(run) {
                tracing::error!(%error, threads = self.name, "a thread cannot be started");
            }
        }
        sender
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_past_the_bound_comes_back() {
        let pool = Pool::new("test", 1, 1);
        let (begun, hears) = bounded(1);
        let (go, waits) = bounded::<()>(0);
        let first = Box::new(move || {
            begun.send(()).unwrap();
            waits.recv().unwrap();
        });
        assert!(pool.put(first).is_ok());
        hears.recv().unwrap();
        let (done, ended) = bounded(1);
        assert!(pool.put(Box::new(move || done.send(7).unwrap())).is_ok(), "one waits");
        assert!(pool.put(Box::new(|| unreachable!("there is no room for it"))).is_err());
        go.send(()).unwrap();
        assert_eq!(ended.recv(), Ok(7));
    }
}
