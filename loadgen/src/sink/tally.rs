//! What a sink counts, per thread, and how it is added up and printed.

use std::collections::BTreeMap;

use serde::Serialize;

const CODES: usize = 600;

/// What became of the handshakes of one thread.
#[derive(Clone, Copy, Default)]
pub(crate) struct TlsTally {
    pub(crate) full: u64,
    pub(crate) resumed: u64,
    pub(crate) failed: u64,
    pub(crate) v1_2: u64,
    pub(crate) v1_3: u64,
    pub(crate) client_certificates: u64,
    pub(crate) injected: u64,
}

impl TlsTally {
    fn add(&mut self, other: &TlsTally) {
        self.full += other.full;
        self.resumed += other.resumed;
        self.failed += other.failed;
        self.v1_2 += other.v1_2;
        self.v1_3 += other.v1_3;
        self.client_certificates += other.client_certificates;
        self.injected += other.injected;
    }

    fn versions(&self) -> BTreeMap<&'static str, u64> {
        let counts = [("TLSv1.2", self.v1_2), ("TLSv1.3", self.v1_3)];
        counts.into_iter().filter(|(_, count)| *count > 0).collect()
    }
}

/// One thread's counters: plain numbers, copied out ten times a second.
#[derive(Clone)]
pub(crate) struct Tally {
    pub(crate) connections: u64,
    pub(crate) connections_open: u64,
    pub(crate) transactions: u64,
    pub(crate) recipients: u64,
    pub(crate) bytes: u64,
    pub(crate) dropped: u64,
    pub(crate) tls: TlsTally,
    pub(crate) auth_accepted: u64,
    pub(crate) auth_refused: u64,
    pub(crate) requiretls: u64,
    pub(crate) proxy_refused: u64,
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
            tls: TlsTally::default(),
            auth_accepted: 0,
            auth_refused: 0,
            requiretls: 0,
            proxy_refused: 0,
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
        self.tls.add(&other.tls);
        self.auth_accepted += other.auth_accepted;
        self.auth_refused += other.auth_refused;
        self.requiretls += other.requiretls;
        self.proxy_refused += other.proxy_refused;
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
            tls_handshakes: self.tls.full + self.tls.resumed,
            tls_resumed: self.tls.resumed,
            tls_failed: self.tls.failed,
            tls_versions: self.tls.versions(),
            tls_client_certificates: self.tls.client_certificates,
            starttls_injected: self.tls.injected,
            requiretls: self.requiretls,
            auth_accepted: self.auth_accepted,
            auth_refused: self.auth_refused,
            proxy_refused: self.proxy_refused,
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
    /// Complete ones, full and resumed.
    pub tls_handshakes: u64,
    pub tls_resumed: u64,
    /// Begun and not completed, those broken by a fault included.
    pub tls_failed: u64,
    /// Complete handshakes by version.
    pub tls_versions: BTreeMap<&'static str, u64>,
    /// Handshakes in which the client showed a certificate.
    pub tls_client_certificates: u64,
    /// STARTTLS commands with octets behind them in the clear, which RFC 3207 §4.2 forbids.
    pub starttls_injected: u64,
    /// MAIL commands accepted with REQUIRETLS.
    pub requiretls: u64,
    pub auth_accepted: u64,
    pub auth_refused: u64,
    /// Connections without a PROXY header where one was expected.
    pub proxy_refused: u64,
    pub replies: BTreeMap<u16, u64>,
}
