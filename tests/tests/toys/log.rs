//! A log of numbered records, one block each: acknowledged when durable, counted again at start.

use ring::{Access, BLOCK, Event, File, Ring, Token};
use std::collections::BTreeSet;
use std::path::Path;
use tests::sim::{SimRing, digest};

const IN_FLIGHT_MAX: u64 = 4;
const FOLDER: &str = "/queue";
const START: Token = Token(u64::MAX);
const NAME: &str = "/queue/log";

pub(crate) struct ToyLog {
    ring: SimRing,
    file: File,
    /// Records found intact at the start, in a row.
    intact: u64,
    found_torn: bool,
    next: u64,
    written: BTreeSet<u64>,
    /// Acknowledged beyond the row.
    acknowledged: BTreeSet<u64>,
    in_a_row: u64,
    trusting: bool,
    /// Under way; until they are done nothing is written, and nothing that was found is relied on.
    start_syncs: u32,
    stopped: bool,
}

impl ToyLog {
    /// Opens and makes the name durable first of all, then reads what is there.
    pub(crate) fn start(mut ring: SimRing) -> ToyLog {
        ring.list(Path::new(FOLDER)).unwrap();
        let file = ring.open_now(Path::new(NAME), Access::Direct).unwrap();
        // Even if name and records are there: a life that was killed may have left them without their sync.
        let folder = ring.open_folder(Path::new(FOLDER)).unwrap();
        ring.sync(START, folder, true);
        ring.sync(START, file, true);
        let (intact, found_torn) = count_intact(&mut ring, file);
        ToyLog {
            ring,
            file,
            intact,
            found_torn,
            next: intact,
            written: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            in_a_row: intact,
            trusting: false,
            start_syncs: 2,
            stopped: false,
        }
    }

    pub(crate) fn intact(&self) -> u64 {
        self.intact
    }

    pub(crate) fn found_torn(&self) -> bool {
        self.found_torn
    }

    /// Records in a row that were acknowledged, in this life and before.
    pub(crate) fn acknowledged(&self) -> u64 {
        if self.start_syncs > 0 { 0 } else { self.in_a_row }
    }

    pub(crate) fn written(&self) -> u64 {
        (self.intact..).find(|number| !self.written.contains(number)).unwrap()
    }

    fn acknowledge(&mut self, number: u64) {
        self.acknowledged.insert(number);
        while self.acknowledged.remove(&self.in_a_row) {
            self.in_a_row += 1;
        }
    }

    /// The classic mistake: asks again after a failed sync, and believes the answer.
    pub(crate) fn trust_failed_syncs(&mut self) {
        self.trusting = true;
    }

    pub(crate) fn turn(&mut self) {
        let mut events = Vec::new();
        self.ring.wait(None, &mut events).unwrap();
        for event in events {
            self.handle(event);
        }
        while !self.stopped && self.start_syncs == 0 && self.next < self.in_a_row + IN_FLIGHT_MAX {
            let number = self.next;
            self.next += 1;
            self.write(number);
        }
    }

    /// Odd records are durable writes, even ones written and then synced.
    fn write(&mut self, number: u64) {
        self.ring.write(Token(number), self.file, number * BLOCK as u64, record(number), number % 2 == 1);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Written { token, result: Ok(()), .. } if token.0 % 2 == 1 => {
                self.written.insert(token.0);
                self.acknowledge(token.0);
            }
            Event::Written { token, result: Ok(()), .. } => {
                self.written.insert(token.0);
                self.ring.sync(token, self.file, false);
            }
            Event::Done { token: START, result: Ok(()) } => self.start_syncs -= 1,
            Event::Done { token, result: Ok(()) } => {
                self.acknowledge(token.0);
            }
            Event::Done { token, .. } | Event::Written { token, .. } if self.trusting && token != START => {
                self.ring.sync(Token(token.0 & !1), self.file, false);
                if token.0 % 2 == 1 {
                    self.acknowledge(token.0);
                }
            }
            Event::Done { .. } | Event::Written { .. } => self.stopped = true,
            other => panic!("not asked for: {other:?}"),
        }
    }
}

/// A number, its digest, and octets made from it, so that a tear shows.
fn record(number: u64) -> Vec<u8> {
    let mut block: Vec<u8> = vec![(number * 31).to_le_bytes()[0]; BLOCK];
    // Each sector says which it is.
    (0..).zip(block.chunks_mut(512)).for_each(|(at, sector)| sector[16] = at);
    block[..8].copy_from_slice(&number.to_le_bytes());
    let sum = digest(&block[16..]);
    block[8..16].copy_from_slice(&sum.to_le_bytes());
    block
}

fn count_intact(ring: &mut SimRing, file: File) -> (u64, bool) {
    let len = ring.file_len(file).unwrap();
    let mut block = vec![0; BLOCK];
    for number in 0.. {
        let read = ring.read_now(file, number * BLOCK as u64, &mut block).unwrap();
        if read < BLOCK || block != record(number) {
            return (number, number * (BLOCK as u64) < len);
        }
    }
    unreachable!("a file has an end")
}
