//! Who sent how much, and how fast: the witness of limits on connections and rates.
//!
//! For each pair of source address and address of the sink the times of connections, MAIL commands and accepted
//! transactions are kept, so that the peak of any window is exact. Times are those at which a buffer was read;
//! with several threads they are as far apart as the threads are busy, so a test of a limit uses one.
//! Bound: `TIMES_MAX` times and `PAIRS_MAX` pairs per thread. Past the first only counts go on and the report
//! says `is_complete: false`; pairs past the second are one, of the unspecified address.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::Serialize;

const TIMES_MAX: usize = 8 << 20; // 64 MiB
const PAIRS_MAX: usize = 65_536;
const NAMES_MAX: usize = 16; // per pair

/// A pair's place in the book of its thread.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Pair(usize);

/// One thread's book.
#[derive(Default)]
pub(crate) struct Peers {
    index: HashMap<(IpAddr, SocketAddr), usize>,
    pairs: Vec<Seen>,
    times: usize,
}

/// What was seen of one pair. Times in nanoseconds since the Unix epoch, in no order once threads are joined.
#[derive(Clone, Debug)]
struct Seen {
    source: IpAddr,
    sink: SocketAddr,
    opened: Vec<u64>,
    closed: Vec<u64>,
    mails: Vec<u64>,
    messages: Vec<u64>,
    counts: Counts,
    helo_names: BTreeSet<String>,
    is_complete: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    connections: u64,
    mails: u64,
    messages: u64,
    recipients: u64,
}

impl Peers {
    /// A connection is open. One look-up.
    pub(crate) fn open(&mut self, source: IpAddr, sink: SocketAddr, now_ns: u64) -> Pair {
        let (source, sink) = match self.index.len() < PAIRS_MAX || self.index.contains_key(&(source, sink)) {
            true => (source, sink),
            false => (Ipv4Addr::UNSPECIFIED.into(), SocketAddr::from(([0, 0, 0, 0], 0))),
        };
        let next = self.pairs.len();
        let at = *self.index.entry((source, sink)).or_insert(next);
        if at == next {
            self.pairs.push(Seen::new(source, sink));
        }
        self.pairs[at].counts.connections += 1;
        // Both ends are kept or neither, so that no connection stays open for ever.
        self.note(at, now_ns, |seen| &mut seen.opened);
        Pair(at)
    }

    pub(crate) fn close(&mut self, Pair(at): Pair, now_ns: u64) {
        let seen = &mut self.pairs[at];
        if seen.closed.len() < seen.opened.len() {
            seen.closed.push(now_ns);
        }
    }

    pub(crate) fn note_helo(&mut self, Pair(at): Pair, name: &[u8]) {
        let names = &mut self.pairs[at].helo_names;
        let Ok(name) = std::str::from_utf8(name) else { return };
        if names.len() < NAMES_MAX && !names.contains(name) {
            names.insert(name.to_owned());
        }
    }

    pub(crate) fn note_mail(&mut self, Pair(at): Pair, now_ns: u64) {
        self.pairs[at].counts.mails += 1;
        self.note(at, now_ns, |seen| &mut seen.mails);
    }

    pub(crate) fn note_message(&mut self, Pair(at): Pair, now_ns: u64, recipients: u64) {
        let counts = &mut self.pairs[at].counts;
        counts.messages += 1;
        counts.recipients += recipients;
        self.note(at, now_ns, |seen| &mut seen.messages);
    }

    fn note(&mut self, at: usize, now_ns: u64, times: impl FnOnce(&mut Seen) -> &mut Vec<u64>) {
        let seen = &mut self.pairs[at];
        if self.times < TIMES_MAX {
            self.times += 1;
            times(seen).push(now_ns);
        } else {
            seen.is_complete = false;
        }
    }

    /// All pairs of all threads, and the same by source alone.
    pub(crate) fn report(threads: Vec<Peers>, windows: &[u64]) -> (Vec<PeerReport>, Vec<PeerReport>) {
        let (mut pairs, mut sources) = (BTreeMap::new(), BTreeMap::new());
        for seen in threads.into_iter().flat_map(|peers| peers.pairs) {
            join(&mut sources, seen.source, &seen);
            join(&mut pairs, (seen.source, seen.sink), &seen);
        }
        let report = |seen: Seen, sink| PeerReport::new(seen, sink, windows);
        let sources = sources.into_values().map(|seen| report(seen, None)).collect();
        let pairs = pairs
            .into_values()
            .map(|seen| {
                let sink = seen.sink;
                report(seen, Some(sink))
            })
            .collect();
        (sources, pairs)
    }
}

fn join<K: Ord>(all: &mut BTreeMap<K, Seen>, key: K, seen: &Seen) {
    match all.get_mut(&key) {
        Some(known) => known.add(seen),
        None => drop(all.insert(key, seen.clone())),
    }
}

impl Seen {
    fn new(source: IpAddr, sink: SocketAddr) -> Seen {
        Seen {
            source,
            sink,
            opened: Vec::new(),
            closed: Vec::new(),
            mails: Vec::new(),
            messages: Vec::new(),
            counts: Counts::default(),
            helo_names: BTreeSet::new(),
            is_complete: true,
        }
    }

    fn add(&mut self, other: &Seen) {
        self.opened.extend_from_slice(&other.opened);
        self.closed.extend_from_slice(&other.closed);
        self.mails.extend_from_slice(&other.mails);
        self.messages.extend_from_slice(&other.messages);
        self.counts.connections += other.counts.connections;
        self.counts.mails += other.counts.mails;
        self.counts.messages += other.counts.messages;
        self.counts.recipients += other.counts.recipients;
        self.helo_names.extend(other.helo_names.iter().cloned());
        self.is_complete &= other.is_complete;
    }
}

/// What a sink saw of one source address, or of one at one of the sink's own.
#[derive(Clone, Debug, Serialize)]
pub struct PeerReport {
    pub source: IpAddr,
    /// The sink's address; none for the sum over all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sink: Option<SocketAddr>,
    pub connections: u64,
    /// Most connections open at a time.
    pub connections_open_peak: u64,
    /// MAIL commands, refused ones included.
    pub mails: u64,
    /// Transactions accepted.
    pub messages: u64,
    pub recipients: u64,
    /// Most new connections in any window of so many seconds.
    pub connections_peak: BTreeMap<u64, u64>,
    /// Most MAIL commands in any window of so many seconds.
    pub mails_peak: BTreeMap<u64, u64>,
    /// Most accepted transactions in any window of so many seconds.
    pub messages_peak: BTreeMap<u64, u64>,
    /// At most sixteen.
    pub helo_names: BTreeSet<String>,
    /// False when there was more than the sink remembers: then peaks are lower bounds.
    pub is_complete: bool,
    #[serde(skip)]
    times: Times,
}

#[derive(Clone, Debug)]
struct Times {
    opened: Vec<u64>,
    mails: Vec<u64>,
    messages: Vec<u64>,
}

impl PeerReport {
    fn new(seen: Seen, sink: Option<SocketAddr>, windows: &[u64]) -> PeerReport {
        let Seen {
            source, mut opened, closed, mut mails, mut messages, counts, helo_names, is_complete, ..
        } = seen;
        let connections_open_peak = open_peak(&opened, &closed);
        opened.sort_unstable();
        mails.sort_unstable();
        messages.sort_unstable();
        let peaks = |times: &[u64]| {
            windows.iter().map(|&secs| (secs, peak_in_window(times, Duration::from_secs(secs)))).collect()
        };
        PeerReport {
            source,
            sink,
            connections: counts.connections,
            connections_open_peak,
            mails: counts.mails,
            messages: counts.messages,
            recipients: counts.recipients,
            connections_peak: peaks(&opened),
            mails_peak: peaks(&mails),
            messages_peak: peaks(&messages),
            helo_names,
            is_complete,
            times: Times { opened, mails, messages },
        }
    }

    /// Most new connections in any window of this length.
    pub fn connections_peak_in(&self, window: Duration) -> u64 {
        peak_in_window(&self.times.opened, window)
    }

    /// Most MAIL commands in any window of this length.
    pub fn mails_peak_in(&self, window: Duration) -> u64 {
        peak_in_window(&self.times.mails, window)
    }

    /// Most accepted transactions in any window of this length.
    pub fn messages_peak_in(&self, window: Duration) -> u64 {
        peak_in_window(&self.times.messages, window)
    }
}

/// Most of the `times`, which are sorted, in any half-open window. One pass.
fn peak_in_window(times: &[u64], window: Duration) -> u64 {
    let window_ns = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
    let (mut first, mut peak) = (0, 0);
    for (last, time) in times.iter().enumerate() {
        while first < last && time - times[first] >= window_ns {
            first += 1;
        }
        peak = peak.max(last + 1 - first);
    }
    peak as u64
}

/// Where one ends at the same instant as another begins they were not open together.
fn open_peak(opened: &[u64], closed: &[u64]) -> u64 {
    let steps = opened.iter().map(|&time| (time, 1)).chain(closed.iter().map(|&time| (time, -1)));
    let mut steps: Vec<(u64, i64)> = steps.collect();
    steps.sort_unstable();
    let (mut open, mut peak) = (0i64, 0);
    for (_, step) in steps {
        open += step;
        peak = peak.max(open);
    }
    peak.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SINK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 25);
    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_window_is_half_open_and_slides() {
        let times = [0, 1, 9, 10, 11, 12, 30].map(|second| second * SECOND);
        let peak = |secs| peak_in_window(&times, Duration::from_secs(secs));
        assert_eq!([peak(1), peak(2), peak(3), peak(4), peak(12), peak(13), peak(60)], [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(peak_in_window(&[], Duration::from_secs(1)), 0);
        assert_eq!(peak_in_window(&[5, 5, 5], Duration::from_nanos(1)), 3);
    }

    #[test]
    fn threads_are_joined_before_peaks_are_taken() {
        let source: IpAddr = [127, 0, 0, 2].into();
        let threads = [0, 1].map(|thread| {
            let mut peers = Peers::default();
            let pair = peers.open(source, SINK, thread);
            peers.note_helo(pair, b"mta.test");
            peers.note_mail(pair, 5);
            peers.note_message(pair, 6 + thread * SECOND, 3);
            peers.close(pair, 10);
            let again = peers.open(source, SINK, 10);
            peers.close(again, 11);
            peers
        });
        let (sources, pairs) = Peers::report(threads.into(), &[1, 60]);
        let [seen] = &sources[..] else { panic!("one source") };
        assert_eq!((seen.connections, seen.connections_open_peak, seen.recipients), (4, 2, 6));
        assert_eq!(
            (seen.mails, seen.messages, seen.messages_peak[&1], seen.messages_peak[&60]),
            (2, 2, 1, 2)
        );
        assert_eq!((pairs.len(), pairs[0].sink, seen.is_complete), (1, Some(SINK), true));
        assert_eq!(seen.connections_peak_in(Duration::from_nanos(2)), 2);
    }
}
