//! Consumers of the event log: each reads from a place of its own, and its place moves when what it read has arrived.
//!
//! A consumer that is slow or dead costs the cores nothing: it reads files, on threads that may wait for a disk, and keeps
//! a few batches in memory, whatever waits for it. Events come at least once: what had arrived when the process died before
//! its cursor was saved comes again, under the same `id`.
//! Bounds: [`BATCH_OCTETS_MAX`] and a line for a batch; `max_in_flight` and two batches a consumer; one look at the log
//! every [`LOOK_EVERY`], one save of the cursor for each batch.

mod file;
mod metrics;
mod webhook;

use crate::config::{Config, EventFile, Webhook};
use crate::events::EventLog;
use crate::events::cursor::{self, Position};
use crate::events::log::Standing;
use crate::events::reader::{AtEnd, Batch, BatchMax, Kinds, Reader};
use file::FileEnd;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
pub(super) use metrics::Metrics;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use webhook::WebhookEnd;

/// Octets of a batch.
const BATCH_OCTETS_MAX: usize = 1 << 20;

/// Between two looks whether something was logged.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The log is read this often although nothing seems to have been logged: a file may have come to its end.
const READ_EVERY: Duration = Duration::from_secs(1);

/// What could not be read or saved is tried again after this long.
const AGAIN: Duration = Duration::from_secs(10);

/// First and longest wait after a try that failed.
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(300);

/// What a consumer is, by the configuration. Another one makes it start anew, from its cursor.
#[derive(Clone, Debug, PartialEq)]
enum Spec {
    Webhook(Webhook),
    File(EventFile),
}

impl Spec {
    fn kinds(&self) -> Kinds {
        match self {
            Spec::Webhook(webhook) => Kinds::of_names(&webhook.kinds),
            Spec::File(file) => Kinds::of_names(&file.kinds),
        }
    }

    fn batch_max(&self) -> BatchMax {
        let events = if let Spec::Webhook(webhook) = self { webhook.batch_max } else { usize::MAX };
        BatchMax { events, octets: BATCH_OCTETS_MAX }
    }

    /// How long the first event of a batch waits for others.
    fn batch_wait(&self) -> Duration {
        match self {
            Spec::Webhook(webhook) => Duration::from_millis(webhook.batch_wait_ms),
            Spec::File(_) => Duration::ZERO,
        }
    }

    fn max_in_flight(&self) -> usize {
        if let Spec::Webhook(webhook) = self { webhook.max_in_flight } else { 1 }
    }
}

/// Where batches end up.
enum End {
    Webhook(Box<WebhookEnd>),
    File(FileEnd),
}

/// What became of one try.
enum Outcome {
    Taken,
    /// It may do better later; when, if it said so.
    Later {
        why: String,
        wait: Option<Duration>,
    },
    /// It will not, unless somebody mends something: tried again all the same.
    Refused {
        why: String,
    },
}

/// See the module.
pub(super) struct Consumers {
    log: Arc<EventLog>,
    running: RefCell<BTreeMap<String, Running>>,
}

struct Running {
    spec: Spec,
    standing: Arc<Standing>,
    task: JoinHandle<()>,
}

impl Consumers {
    pub(super) fn new(log: &Arc<EventLog>) -> Consumers {
        Consumers { log: Arc::clone(log), running: RefCell::default() }
    }

    /// Those that the configuration names run from here on, and no others. A cursor that nobody uses stays.
    pub(super) fn configure(&self, config: &Config) {
        let Some(events) = &config.events else { return };
        let webhooks = events.webhooks.iter().map(|(name, webhook)| (name, Spec::Webhook(webhook.clone())));
        let files = events.files.iter().map(|(name, file)| (name, Spec::File(file.clone())));
        let wanted: BTreeMap<String, Spec> =
            webhooks.chain(files).map(|(name, spec)| (name.clone(), spec)).collect();
        let mut running = self.running.borrow_mut();
        running.retain(|name, consumer| {
            let stays = wanted.get(name) == Some(&consumer.spec);
            if !stays {
                consumer.task.abort();
            }
            stays
        });
        for (name, spec) in wanted {
            running.entry(name.clone()).or_insert_with(|| self.start(&name, spec, config));
        }
        self.log.set_consumers(running.values().map(|consumer| Arc::clone(&consumer.standing)).collect());
    }

    fn start(&self, name: &str, spec: Spec, config: &Config) -> Running {
        let standing = Arc::new(Standing::new(name, self.place_of(name)));
        let end = match &spec {
            Spec::Webhook(webhook) => End::Webhook(Box::new(WebhookEnd::new(name, webhook, config))),
            Spec::File(file) => End::File(FileEnd::new(file)),
        };
        let consumer = Rc::new(Consumer {
            log: Arc::clone(&self.log),
            spec: spec.clone(),
            end,
            standing: Arc::clone(&standing),
        });
        let task = tokio::task::spawn_local(async move { consumer.run().await });
        Running { spec, standing, task }
    }

    /// A new one begins with the file that is written to; one whose cursor cannot be read with all that is there.
    fn place_of(&self, name: &str) -> Position {
        match cursor::load(self.log.folder(), name) {
            Ok(Some(place)) => place,
            Ok(None) => {
                let place = Position::start_of(self.log.current());
                if let Err(error) = cursor::save(self.log.folder(), name, place) {
                    tracing::error!(consumer = name, %error, "the cursor is not saved");
                }
                place
            }
            Err(error) => {
                tracing::error!(consumer = name, %error, "the cursor cannot be read: all events that are there come again");
                Position::start_of(0)
            }
        }
    }
}

struct Consumer {
    log: Arc<EventLog>,
    spec: Spec,
    end: End,
    standing: Arc<Standing>,
}

impl Consumer {
    async fn run(&self) {
        let (sender, batches) = mpsc::channel(1);
        futures_util::future::join(self.keep_reading(sender), self.keep_sending(batches)).await;
    }

    // ---- reading ----

    async fn keep_reading(&self, batches: mpsc::Sender<Batch>) {
        let place = self.standing.place();
        let mut reader = Reader::new(self.log.folder().to_owned(), place, AtEnd::Wait);
        loop {
            let (back, batch) = self.gather(reader).await;
            reader = back;
            self.standing.damaged.store(reader.damaged, Ordering::Relaxed);
            if batch.to != batch.from && batches.send(batch).await.is_err() {
                return;
            }
        }
    }

    /// Reads until a batch is full, or its first event has waited long enough.
    async fn gather(&self, mut reader: Reader) -> (Reader, Batch) {
        let (most, mut batch, mut begun) = (self.spec.batch_max(), Batch::at(reader.place()), None);
        let since = crate::clock::now();
        loop {
            let written = self.log.written();
            reader = self.read_on(reader, &mut batch, most).await;
            if !batch.is_empty() && begun.is_none() {
                begun = Some(crate::clock::now());
            }
            let is_due = |now: Instant| begun.is_some_and(|begun| now >= begun + self.spec.batch_wait());
            let until = crate::clock::now() + READ_EVERY;
            loop {
                let now = crate::clock::now();
                if most.is_reached(&batch) || is_due(now) {
                    return (reader, batch);
                }
                if self.log.written() != written || now >= until {
                    break;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            // What nobody wants moves the cursor too, now and then.
            if batch.is_empty() && batch.to != batch.from && crate::clock::now() >= since + READ_EVERY {
                return (reader, batch);
            }
        }
    }

    async fn read_on(&self, mut reader: Reader, batch: &mut Batch, most: BatchMax) -> Reader {
        let (wanted, mut taken) = (self.spec.kinds(), std::mem::take(batch));
        let reading = move || {
            let result = reader.read(&mut taken, wanted, most);
            (reader, taken, result)
        };
        match tokio::task::spawn_blocking(reading).await {
            Ok((reader, taken, result)) => {
                *batch = taken;
                if let Err(error) = result {
                    tracing::error!(consumer = self.standing.name, %error, "the event log cannot be read; tried again");
                    tokio::time::sleep(AGAIN).await;
                }
                reader
            }
            // A panic ends the process.
            Err(_) => std::future::pending().await,
        }
    }

    // ---- sending ----

    async fn keep_sending(&self, mut batches: mpsc::Receiver<Batch>) {
        let (mut under_way, mut ages) = (FuturesOrdered::new(), VecDeque::new());
        let most = self.spec.max_in_flight();
        loop {
            tokio::select! {
                batch = batches.recv(), if under_way.len() < most => {
                    let Some(batch) = batch else { return };
                    ages.push_back(batch.first_at_ms);
                    under_way.push_back(self.deliver(batch));
                }
                Some(batch) = under_way.next(), if !under_way.is_empty() => {
                    self.arrived(&batch).await;
                    ages.pop_front();
                }
            }
            self.standing.oldest_at_ms.store(ages.front().copied().unwrap_or(0), Ordering::Relaxed);
        }
    }

    /// Tries until it has arrived. Batches behind it may arrive first, and wait for it then.
    async fn deliver(&self, batch: Batch) -> Batch {
        let mut failures = 0;
        while !batch.is_empty() {
            self.standing.attempts.fetch_add(1, Ordering::Relaxed);
            let outcome = match &self.end {
                End::Webhook(webhook) => webhook.post(&batch).await,
                End::File(file) => file.append(&batch).await,
            };
            let is_refused = matches!(outcome, Outcome::Refused { .. });
            self.standing.is_refusing.store(is_refused, Ordering::Relaxed);
            let wait = match outcome {
                Outcome::Taken => break,
                Outcome::Later { why, wait } => {
                    let wait = wait.unwrap_or_else(|| back_off(failures, &self.standing.name));
                    tracing::warn!(
                        consumer = self.standing.name,
                        why,
                        wait_ms = wait.as_millis(),
                        "events wait: not taken"
                    );
                    wait
                }
                Outcome::Refused { why } => {
                    tracing::error!(
                        consumer = self.standing.name,
                        why,
                        "events are REFUSED, and wait until somebody mends it"
                    );
                    back_off(failures, &self.standing.name)
                }
            };
            self.standing.failures.fetch_add(1, Ordering::Relaxed);
            failures += 1;
            tokio::time::sleep(wait).await;
        }
        batch
    }

    /// Everything up to its end has arrived: the place moves, durably.
    async fn arrived(&self, batch: &Batch) {
        self.standing.events.fetch_add(batch.events as u64, Ordering::Relaxed);
        self.standing.set_place(batch.to);
        let (log, name, place) = (Arc::clone(&self.log), self.standing.name.clone(), batch.to);
        let saving = move || cursor::save(log.folder(), &name, place);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(saving).await {
            // Not tried again for its own sake: the next batch's place says more.
            tracing::error!(consumer = self.standing.name, %error, "the cursor is not saved: a restart would send events again");
        }
    }
}

/// Twice as long after each failure, and less by up to half: consumers that failed together come back one by one.
fn back_off(failures: u32, name: &str) -> Duration {
    let whole = WAIT_MIN.saturating_mul(1 << failures.min(16)).min(WAIT_MAX);
    let mut hasher = DefaultHasher::new();
    (failures, name, crate::clock::wall().0).hash(&mut hasher);
    let permille = u32::try_from(hasher.finish() % 500).unwrap_or(0);
    whole - whole / 1000 * permille
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_five_minutes_and_are_spread() {
        for (failures, whole) in [(0, 1), (1, 2), (5, 32), (9, 300), (u32::MAX, 300)] {
            let (wait, whole) = (back_off(failures, "a"), Duration::from_secs(whole));
            assert!(wait > whole / 2 - Duration::from_millis(1) && wait <= whole, "{failures}: {wait:?}");
        }
    }
}
