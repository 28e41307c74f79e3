//! Connections as fast as they can be had, from many addresses: how many are taken, how many get a 421, how many nothing.
//!
//! So many workers each open a connection, read the first reply and reset the connection, which leaves nothing behind
//! (no TIME_WAIT); with `keep` those that were greeted stay open. Bounds: those of `press`.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::task::LocalSet;

use super::reasons::{Reasons, reason_of};
use super::{PressError, block_on, check, source_of};
use crate::client::{Caller, Introduction, Line, Reply};
use crate::latency::{Percentiles, histogram};

#[derive(Clone, Debug)]
pub struct FloodConfig {
    pub introduction: Introduction,
    /// They take turns.
    pub sources: Vec<IpAddr>,
    pub lasting: Duration,
    /// Connections being opened at a time.
    pub workers: usize,
    /// Those that were greeted stay open, up to so many; 0 ends each at once.
    pub keep_max: usize,
}

/// What one second came to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Second {
    /// Greeted with 220.
    pub accepted: u64,
    /// Turned away with a reply, 421 most likely.
    pub turned_away: u64,
    /// Refused, reset, closed or left without a word.
    pub failed: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct FloodReport {
    #[serde(flatten)]
    pub total: Second,
    pub elapsed_secs: f64,
    pub connections_per_sec: f64,
    /// What those that were not greeted were told.
    pub said: Reasons,
    /// From the connect to the 220.
    pub greeting: Percentiles,
    /// From the connect to the reply that turned it away.
    pub turning_away: Percentiles,
    pub seconds: Vec<Second>,
}

/// Blocks for as long as it lasts.
pub fn run(config: &FloodConfig) -> Result<FloodReport, PressError> {
    check(&config.sources, config.workers.saturating_add(config.keep_max), config.lasting)?;
    let flood = Rc::new(Flood {
        caller: Caller::new(&config.introduction)?.resetting(),
        config: config.clone(),
        start: Instant::now(),
        books: RefCell::new(Books::new()),
        kept: RefCell::new(Vec::new()),
    });
    let elapsed = block_on(LocalSet::new().run_until(open_all(flood.clone())))?;
    let books = flood.books.replace(Books::new());
    Ok(books.report(elapsed))
}

struct Flood {
    caller: Caller,
    config: FloodConfig,
    start: Instant,
    books: RefCell<Books>,
    kept: RefCell<Vec<Line>>,
}

struct Books {
    seconds: Vec<Second>,
    said: Reasons,
    greeting: Histogram<u64>,
    turning_away: Histogram<u64>,
}

async fn open_all(flood: Rc<Flood>) -> Duration {
    let workers: Vec<_> = (0..flood.config.workers)
        .map(|worker| tokio::task::spawn_local(work(flood.clone(), worker)))
        .collect();
    for worker in workers {
        let _ = worker.await; // it ends by itself, when the time is over
    }
    flood.start.elapsed()
}

/// Worker `worker` opens connections `worker`, `worker + workers`, …: each source has its turn.
async fn work(flood: Rc<Flood>, worker: usize) {
    let mut number = worker;
    while flood.start.elapsed() < flood.config.lasting {
        let (began, source) = (Instant::now(), source_of(&flood.config.sources, number));
        match greeted(&flood.caller, source).await {
            Ok((line, reply)) => {
                flood.books.borrow_mut().note(flood.start, began, &reply);
                flood.part(line, reply.code == 220);
            }
            Err(error) => flood.books.borrow_mut().fail(flood.start, reason_of(&error)),
        }
        number += flood.config.workers;
    }
}

async fn greeted(caller: &Caller, source: Option<IpAddr>) -> std::io::Result<(Line, Reply)> {
    let mut line = caller.connect(source).await?;
    let reply = line.reply().await?;
    Ok((line, reply))
}

impl Flood {
    fn part(&self, line: Line, is_greeted: bool) {
        let mut kept = self.kept.borrow_mut();
        if is_greeted && kept.len() < self.config.keep_max {
            kept.push(line);
        }
    }
}

impl Books {
    fn new() -> Books {
        let (greeting, turning_away) = (histogram(), histogram());
        Books { seconds: Vec::new(), said: Reasons::default(), greeting, turning_away }
    }

    fn second(&mut self, start: Instant) -> &mut Second {
        let index = usize::try_from(start.elapsed().as_secs()).unwrap_or(usize::MAX);
        if self.seconds.len() <= index {
            self.seconds.resize(index + 1, Second::default()); // bound: HOLD_MAX and a reply's time-out
        }
        &mut self.seconds[index]
    }

    fn note(&mut self, start: Instant, began: Instant, reply: &Reply) {
        let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if reply.code == 220 {
            self.second(start).accepted += 1;
            self.greeting.saturating_record(took);
        } else {
            self.second(start).turned_away += 1;
            self.turning_away.saturating_record(took);
            self.said.add(reply.text.clone());
        }
    }

    fn fail(&mut self, start: Instant, why: String) {
        self.second(start).failed += 1;
        self.said.add(why);
    }

    #[allow(clippy::cast_precision_loss, reason = "a rate for people; its low digits mean nothing")]
    fn report(self, elapsed: Duration) -> FloodReport {
        let mut total = Second::default();
        for second in &self.seconds {
            total.accepted += second.accepted;
            total.turned_away += second.turned_away;
            total.failed += second.failed;
        }
        let connections = total.accepted + total.turned_away + total.failed;
        FloodReport {
            total,
            elapsed_secs: elapsed.as_secs_f64(),
            connections_per_sec: connections as f64 / elapsed.as_secs_f64(),
            said: self.said,
            greeting: Percentiles::of(&self.greeting),
            turning_away: Percentiles::of(&self.turning_away),
            seconds: self.seconds,
        }
    }
}
