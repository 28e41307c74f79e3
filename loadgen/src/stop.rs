//! What ends a server: a signal, its caller, or the end of standard input.

use std::io::{self, Read};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Ends a server that runs in another thread.
#[derive(Clone, Debug)]
pub struct Stop(watch::Sender<bool>);

impl Stop {
    pub fn new() -> Stop {
        Stop(watch::Sender::new(false))
    }

    pub fn stop(&self) {
        self.0.send_replace(true);
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }

    /// The thread is left behind in its read if the server ends otherwise.
    pub fn follow_stdin(&self) {
        let stop = self.clone();
        std::thread::spawn(move || {
            let mut ignored = [0; 256];
            while io::stdin().lock().read(&mut ignored).is_ok_and(|len| len > 0) {}
            stop.stop();
        });
    }

    /// The first SIGTERM or SIGINT stops too, whatever else the program waits for.
    pub fn follow_signals(&self) {
        let stop = self.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            // Where no signal can be watched for, it ends the program as it always did.
            if runtime.is_ok_and(|runtime| runtime.block_on(stop.asked()).is_ok()) {
                stop.stop();
            }
        });
    }

    /// Ends with SIGTERM, SIGINT or a call of [`Stop::stop`].
    pub(crate) async fn asked(&self) -> io::Result<()> {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut stopped = self.subscribe();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
        Ok(())
    }
}

impl Default for Stop {
    fn default() -> Self {
        Stop::new()
    }
}
