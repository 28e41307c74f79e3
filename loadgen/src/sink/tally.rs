//! What a sink counts, per thread, and how it is added up and printed.

use std::collections::BTreeMap;

use serde::Serialize;

const CODES: usize = 600;

/// One thread's counters: plain numbers, copied out ten times a second.
#[derive(Clone)]
pub(crate) struct Tally {
    pub(crate) connections: u64,
    pub(crate) connections_open: u64,
    pub(crate) transactions: u64,
    pub(crate) recipients: u64,
    pub(crate) bytes: u64,
    pub(crate) dropped: u64,
    codes: [u64; CODES],
}

impl Tally {
    pub(crate) fn new() -> Tally {
        let codes = [0; CODES];
        Tally {
            connections: 0,
            connections_open: 0,
            transactions: 0,
            recipients: 0,
            bytes: 0,
            dropped: 0,
            codes,
        }
    }

    pub(crate) fn count_reply(&mut self, code: u16) {
        self.codes[usize::from(code) % CODES] += 1;
    }

    pub(crate) fn add(&mut self, other: &Tally) {
        self.connections += other.connections;
        self.connections_open += other.connections_open;
        self.transactions += other.transactions;
        self.recipients += other.recipients;
        self.bytes += other.bytes;
        self.dropped += other.dropped;
        self.codes.iter_mut().zip(other.codes).for_each(|(sum, count)| *sum += count);
    }

    pub(crate) fn snapshot(&self) -> SinkCounters {
        SinkCounters {
            transactions: self.transactions,
            recipients: self.recipients,
            bytes: self.bytes,
            connections: self.connections,
            connections_open: self.connections_open,
            connections_dropped: self.dropped,
            replies: (0u16..).zip(self.codes).filter(|(_, count)| *count > 0).collect(),
        }
    }
}

/// What a sink has seen so far.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct SinkCounters {
    /// Transactions accepted.
    pub transactions: u64,
    /// Recipients of accepted transactions: deliveries.
    pub recipients: u64,
    /// Content bytes of accepted transactions.
    pub bytes: u64,
    pub connections: u64,
    pub connections_open: u64,
    /// Connections ended by a fault.
    pub connections_dropped: u64,
    pub replies: BTreeMap<u16, u64>,
}
