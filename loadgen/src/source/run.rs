//! The sessions of a run: each takes the next message, sends it, and settles what became of it.
//!
//! In a closed loop a session takes a message as soon as its last has an end; in an open loop message `n` is
//! due at `n / rate` whatever became of the others. A message whose connection was lost before its content was
//! out is sent again on another one; one whose content was out never is: its fate is unknown, and a second
//! copy would be ours. Bounds: one window of messages per session, `LOSSES_MAX`, `CONNECT_ATTEMPTS_MAX`.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::books::Books;
use super::dialog::{Draft, Script};
use super::wire::Wire;
use super::{Connection, Pace, SourceConfig};
use crate::content::Content;
use crate::ring::Watch;

const LOSSES_MAX: u32 = 5;
const CONNECT_ATTEMPTS_MAX: u32 = 50;
const CONNECT_PAUSE: Duration = Duration::from_millis(20);

pub(crate) struct Run {
    pub(crate) config: SourceConfig,
    pub(crate) content: Content,
    pub(crate) script: Script,
    pub(crate) books: RefCell<Books>,
    pub(crate) watch: Watch,
    pub(crate) start: Instant,
    pub(crate) next: Cell<u64>,
    /// Why a session gave up, if one did.
    pub(crate) gave_up: RefCell<Option<io::Error>>,
}

impl Run {
    /// The next message, and when it is due.
    fn take(&self) -> Option<(u64, Option<Instant>)> {
        let number = self.next.get();
        if number >= self.config.messages {
            return None;
        }
        self.next.set(number + 1);
        Some((number, self.due(number)))
    }

    #[allow(clippy::cast_precision_loss, reason = "message numbers are far below 2^52")]
    fn due(&self, number: u64) -> Option<Instant> {
        match self.config.pace {
            Pace::Closed => None,
            Pace::PerSecond(rate) => Some(self.start + Duration::from_secs_f64(number as f64 / rate)),
        }
    }

    /// In an open loop, only what is due already may share a flight.
    fn is_next_due(&self) -> bool {
        self.due(self.next.get()).is_none_or(|due| due <= Instant::now())
    }

    async fn fill(&self, drafts: &mut Vec<Draft>, mut pending: usize, window: usize) -> usize {
        while pending < window && (pending == 0 || self.is_next_due()) {
            let Some((number, due)) = self.take() else { break };
            if drafts.len() == pending {
                drafts.push(Draft::new());
            }
            drafts[pending].begin(number, due, self.config.recipients_per_message, &self.content);
            pending += 1;
            if let Some(due) = due {
                tokio::time::sleep_until(due.into()).await;
            }
        }
        pending
    }

    /// Settles what has an end; gives the number of drafts, moved to the front, that want another connection.
    fn settle(&self, drafts: &mut [Draft], is_lost: bool) -> usize {
        let mut books = self.books.borrow_mut();
        let mut again = 0;
        for index in 0..drafts.len() {
            let draft = &mut drafts[index];
            draft.losses += u32::from(is_lost);
            if is_lost && draft.dot.is_none() && draft.end.is_none() && draft.losses < LOSSES_MAX {
                draft.begin_again();
                drafts.swap(again, index);
                again += 1;
            } else {
                books.settle(draft);
            }
        }
        books.counts.connections_lost += u64::from(is_lost);
        again
    }

    /// A connection that has been greeted. After too many failures in a row, the last of them.
    async fn connect(&self) -> io::Result<Wire> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.connect_once().await {
                Ok(wire) => return Ok(wire),
                Err(error) if attempt == CONNECT_ATTEMPTS_MAX => return Err(error),
                Err(_) => tokio::time::sleep(CONNECT_PAUSE).await,
            }
        }
    }

    async fn connect_once(&self) -> io::Result<Wire> {
        let mut wire = Wire::connect(&self.config.target, &self.watch, self.config.reply_timeout).await?;
        self.books.borrow_mut().counts.connections += 1;
        match self.script.hello(&mut wire).await? {
            Ok(secured) => {
                if let Some(secured) = secured {
                    self.books.borrow_mut().note_secured(secured);
                }
                Ok(wire)
            }
            Err((stage, code)) => {
                self.books.borrow_mut().refuse(stage, code, 1);
                wire.quit().await;
                Err(io::Error::other(format!("refused at {} with {code}", stage.name())))
            }
        }
    }
}

/// One session: connections one after the other until no message is left.
pub(crate) async fn session(run: Rc<Run>) {
    if let Err(error) = send_all(&run).await {
        run.gave_up.borrow_mut().get_or_insert(error);
    }
}

async fn send_all(run: &Run) -> io::Result<()> {
    let (mut drafts, mut pending, mut kept) = (Vec::new(), 0, None);
    while pending > 0 || run.next.get() < run.config.messages {
        let mut wire = match kept.take() {
            Some(wire) => wire,
            None => run.connect().await?,
        };
        let window = run.script.window(&run.config, &wire);
        pending = run.fill(&mut drafts, pending, window).await;
        if pending == 0 {
            wire.quit().await; // another session took the last message meanwhile
            break;
        }
        let sent = run.script.send(&mut wire, &mut drafts[..pending]).await;
        pending = run.settle(&mut drafts[..pending], sent.is_err());
        match (sent, run.config.connection) {
            (Ok(()), Connection::Kept) => kept = Some(wire),
            (Ok(()), Connection::PerMessage) => wire.quit().await,
            (Err(_), _) => {}
        }
    }
    if let Some(wire) = kept {
        wire.quit().await;
    }
    Ok(())
}
