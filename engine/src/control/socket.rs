//! The control socket: an operator's requests in, orders and looks to the cores, answers out.
//!
//! Who connects is asked of the kernel: root, the daemon's own user and those of `control_uids` are heard, others get
//! one line that says so. Orders are carried out one at a time; who goes away has its order ended. What a client
//! sends is checked in `steer/wire`. Bounds: [`CLIENTS_MAX`] connections, one request of [`REQUEST_MAX`] octets each,
//! [`SILENCE_MAX`] for a client that does not read.

use super::look::Sight;
use super::suppress;
use crate::crossing::{Crossing, Mail};
use crate::look::ask::Look;
use crate::steer::order::{Order, Report};
use crate::steer::wire::{Answer, Checked, REQUEST_MAX, Request};
use crate::suppression::Ask;
use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, MutexGuard, Semaphore, mpsc};

/// Connections at a time.
const CLIENTS_MAX: usize = 8;

/// A client is told how far its order is this often.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// A client that takes nothing for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// After a failure to accept (no more files, say).
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// Who is heard, and whom orders go to.
pub(super) struct Gate {
    uids: Vec<u32>,
    crossing: Arc<Crossing>,
    sight: Sight,
    turn: Mutex<()>,
}

impl Gate {
    pub(super) fn new(uids: &[u32], crossing: Arc<Crossing>, sight: Sight) -> Gate {
        let own = [0, rustix::process::geteuid().as_raw()];
        let uids = own.into_iter().chain(uids.iter().copied()).collect();
        Gate { uids, crossing, sight, turn: Mutex::new(()) }
    }
}

/// Serves until the process ends.
pub(super) async fn serve(listener: StdListener, gate: Gate) {
    let listener = match UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "no orders are taken"),
    };
    let (gate, places) = (Rc::new(gate), Arc::new(Semaphore::new(CLIENTS_MAX)));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "taking a connection on the control socket");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tokio::task::spawn_local(refuse(stream, Answer::Error("too many connections; try again".into())));
            continue;
        };
        let gate = Rc::clone(&gate);
        tokio::task::spawn_local(async move {
            if let Err(error) = attend(stream, &gate).await {
                tracing::info!(%error, "an operator's connection ended");
            }
            drop(place);
        });
    }
}

async fn refuse(stream: UnixStream, answer: Answer) {
    let (_reader, mut writer) = stream.into_split();
    let _ = say(&mut writer, &answer).await;
}

async fn attend(stream: UnixStream, gate: &Gate) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    if !gate.uids.contains(&uid) {
        tracing::warn!(uid, "a user that may not give orders tried to");
        let why = format!("user {uid} may not give orders here; `control_uids` names who may");
        refuse(stream, Answer::Forbidden(why)).await;
        return Ok(());
    }
    let (reader, writer) = stream.into_split();
    let mut client = Client { reader: BufReader::new(reader), writer, is_gone: false };
    while let Some(line) = client.request().await? {
        if let Some(look) = Look::parse(&line) {
            gate.sight.attend(look, uid, &mut client.reader, &mut client.writer).await?;
            continue;
        }
        if let Some(ask) = Ask::parse(&line) {
            drop(line);
            suppress::attend(ask, uid, &gate.crossing, &mut client.writer).await?;
            continue;
        }
        let answer = match Request::parse(&line) {
            Ok(checked) => {
                drop(line);
                client.carry_out(checked, gate, uid).await?
            }
            Err(why) => Answer::Error(why),
        };
        say(&mut client.writer, &answer).await?;
    }
    Ok(())
}

pub(super) async fn say(writer: &mut OwnedWriteHalf, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer).map_err(io::Error::other)?;
    line.push(b'\n');
    tokio::time::timeout(SILENCE_MAX, writer.write_all(&line))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "it does not read"))?
}

struct Client {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    is_gone: bool,
}

impl Client {
    /// The next line; `None` at the end.
    async fn request(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let len = (&mut self.reader).take(REQUEST_MAX as u64).read_until(b'\n', &mut line).await?;
        if len == REQUEST_MAX && line.last() != Some(&b'\n') {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its request is too long"));
        }
        Ok((len > 0).then_some(line))
    }

    /// Waits its turn, gives the order to all cores and gathers what they say.
    async fn carry_out(&mut self, checked: Checked, gate: &Gate, uid: u32) -> io::Result<Answer> {
        let _turn = self.wait_for_turn(gate).await?;
        let (order, heard) = Order::new(checked);
        let cores = gate.crossing.cores();
        for core in 0..cores {
            send(&gate.crossing, core, Mail::Order(Arc::clone(&order))).await;
        }
        let _watched = Watched(&order);
        let mut report = self.gather(&order, heard, cores).await;
        if order.acts() {
            let terms: Vec<String> = order.terms.iter().map(ToString::to_string).collect();
            let (terms, Report { messages, recipients, .. }) = (terms.join(" and "), &report);
            let spans = order.chosen.as_ref().map_or(0, Vec::len);
            let is_cut_short = order.progress.is_cancelled();
            tracing::info!(
                uid,
                action = ?order.action,
                terms,
                spans,
                messages,
                recipients,
                is_cut_short,
                "an operator's order was carried out"
            );
        }
        report.cut_to(order.page);
        Ok(report.error.take().map_or_else(|| Answer::Done(report), Answer::Error))
    }

    /// Another client's order is under way: this one hears that it is not forgotten.
    async fn wait_for_turn<'a>(&mut self, gate: &'a Gate) -> io::Result<MutexGuard<'a, ()>> {
        loop {
            match tokio::time::timeout(PROGRESS_INTERVAL, gate.turn.lock()).await {
                Ok(turn) => return Ok(turn),
                Err(_) => say(&mut self.writer, &Answer::Progress { swept: 0, recipients: 0 }).await?,
            }
        }
    }

    /// What all cores say. When the daemon stops this task goes with it, and the client sees the end.
    async fn gather(
        &mut self,
        order: &Order,
        mut heard: mpsc::UnboundedReceiver<Report>,
        cores: usize,
    ) -> Report {
        let (mut all, mut count) = (Report::default(), 0);
        let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
        tick.tick().await;
        while count < cores {
            // What a client says while it waits would be its next request: it is still there.
            let listens = !self.is_gone && self.reader.buffer().is_empty();
            tokio::select! {
                Some(report) = heard.recv() => {
                    all.merge(report);
                    count += 1;
                }
                _ = tick.tick(), if !self.is_gone => {
                    let (swept, recipients) = order.progress.so_far();
                    if say(&mut self.writer, &Answer::Progress { swept, recipients }).await.is_err() {
                        self.leave(order);
                    }
                }
                more = self.reader.fill_buf(), if listens => {
                    if more.map_or(true, <[u8]>::is_empty) {
                        self.leave(order);
                    }
                }
            }
        }
        all
    }

    /// The client went away: its order ends, and the cores say so before the next one begins.
    fn leave(&mut self, order: &Order) {
        self.is_gone = true;
        order.progress.cancel();
    }
}

/// Ends the order whatever becomes of the task.
struct Watched<'a>(&'a Order);

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.0.progress.cancel();
    }
}

/// A full mailbox empties within a turn.
pub(super) async fn send(crossing: &Crossing, core: usize, mut mail: Mail) {
    while let Err(back) = crossing.send(core, mail) {
        mail = back;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
