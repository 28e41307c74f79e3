//! What those who look on get: counters, and one line per verdict in the delivery log.
//!
//! The delivery log is an interface: JSON lines with the fields `at msg rcpt domain host lane attempt code
//! enhanced verdict reply delay_ms`. Bodies and credentials never get here. Bound: a line is under 2 KiB, a buffer of lines
//! under [`LINES_MAX`]; if the file cannot keep up, lines are dropped and counted, mail is not held up.

use message::{Lane, Reply, UnixMillis, Verdict};
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of lines that wait for the file.
pub const LINES_MAX: usize = 4 << 20;

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident),+ $(,)?) => {
        /// One core's counters. Only its core writes; anybody reads.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[doc = $doc])+ pub $name: Counter),+ }

        impl Counters {
            /// Name, explanation and value of each.
            pub fn each(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($name), concat!($($doc),+), self.$name.get())),+]
            }
        }
    };
}

counters! {
    /// Messages accepted and durable
    accepted_messages,
    /// Recipients of accepted messages
    accepted_recipients,
    /// Octets of accepted content
    accepted_octets,
    /// Recipients delivered
    delivered,
    /// Attempts that were deferred
    deferred,
    /// Recipients that failed for good
    failed,
    /// Bounces written
    bounces,
    /// Warnings of a delay written
    warnings,
    /// Reports of success written
    success_reports,
    /// Recipients who are on the suppression list, and got nothing
    suppressed,
    /// Recipients that a hard bounce put on the suppression list
    bounces_learnt,
    /// Looks at the suppression list that had to wait for the disk
    suppression_reads,
    /// Recipients deleted by an operator
    deleted,
    /// Connections taken
    connections_in,
    /// Clients that logged in
    logins,
    /// Wrong passwords
    logins_wrong,
    /// Replies that refused something to a client
    rejections,
    /// Connections made
    connections_out,
    /// Connections that failed before a session began
    connect_failures,
    /// TLS handshakes with hosts that came to an end
    tls_handshakes,
    /// Those that took up an earlier session
    tls_resumed,
    /// Connections whose protection failed, whether or not their policy was enforced
    tls_failures,
    /// Connections in plain text
    plain_connections,
    /// Transactions whose outcome was lost with the connection: each may have been delivered twice
    ambiguous,
    /// Messages in the queue
    queued_messages,
    /// Recipients owed
    queued_recipients,
    /// Recipients that wait for another attempt
    deferred_recipients,
    /// Recipients held back by an operator
    held_recipients,
    /// Incoming sessions open
    sessions_in,
    /// Outgoing connections open
    sessions_out,
    /// Commits of the message log
    commits,
    /// Syncs of the journal
    journal_syncs,
    /// Fan-out chunks taken over from another core
    chunks_borrowed,
    /// Log lines dropped because the file could not keep up
    log_lines_dropped,
    /// 1 after a failed write: nothing more is accepted until a restart
    poisoned,
    /// Places where a record could not be read
    damaged,
    /// Damaged places that were copied to the quarantine
    set_aside,
    /// Records copied forward out of mostly empty segments
    copied,
    /// Octets of the message log's files
    log_octets,
    /// Octets of the records in them that somebody is owed
    log_live_octets,
}

/// One number.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        // One writer: a load and a store, no locked instruction.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How far a recipient's attempt came: everything is empty where no host was asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Via<'a> {
    pub host: &'a str,
    /// The name of the source that it went out from.
    pub source: &'a str,
    /// The version of TLS; empty in plain text.
    pub tls: &'a str,
    /// What a sender who asked for it is told of a success; nothing where the host itself tells it (RFC 3461).
    pub success: Option<message::dsn::Action>,
    /// The host's refusal says that there is no such recipient.
    pub is_hard: bool,
}

/// One verdict, for the delivery log.
#[derive(Debug)]
pub struct Line<'a> {
    pub at: UnixMillis,
    pub msg: message::MessageId,
    pub index: u32,
    pub local_part: &'a str,
    pub domain: &'a str,
    pub via: Via<'a>,
    pub attempt: u16,
    pub verdict: &'a Verdict,
    /// Nothing was sent: the recipient is on the suppression list.
    pub is_suppressed: bool,
    pub lane: Lane,
    pub arrived: UnixMillis,
}

impl Line<'_> {
    /// Appends the line. No allocation beyond the buffer's growth.
    pub fn render(&self, out: &mut Vec<u8>) {
        let reply: &Reply = self.verdict.reply();
        let _ = write!(
            out,
            "{{\"at\":{},\"msg\":\"{}\",\"index\":{},\"rcpt\":\"",
            self.at.0, self.msg, self.index
        );
        escape(self.local_part, out);
        out.push(b'@');
        escape(self.domain, out);
        out.extend_from_slice(b"\",\"domain\":\"");
        escape(self.domain, out);
        out.extend_from_slice(b"\",\"host\":\"");
        escape(self.via.host, out);
        out.extend_from_slice(b"\",\"source\":\"");
        escape(self.via.source, out);
        out.extend_from_slice(b"\",\"tls\":\"");
        escape(self.via.tls, out);
        out.extend_from_slice(b"\",\"lane\":\"");
        out.extend_from_slice(self.lane.name().as_bytes());
        let _ = write!(out, "\",\"attempt\":{},\"code\":{}", self.attempt, reply.code);
        if let Some(enhanced) = reply.enhanced {
            let _ = write!(out, ",\"enhanced\":\"{enhanced}\"");
        }
        let verdict = if self.is_suppressed { "suppressed" } else { self.verdict.name() };
        let _ = write!(out, ",\"verdict\":\"{verdict}\",\"reply\":\"");
        escape(reply.text(), out);
        let _ = writeln!(out, "\",\"delay_ms\":{}}}", self.at.since(self.arrived));
    }
}

/// JSON string escapes (RFC 8259 §7).
fn escape(text: &str, out: &mut Vec<u8>) {
    for octet in text.bytes() {
        match octet {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', octet]),
            0..32 => drop(write!(out, "\\u{octet:04x}")),
            _ => out.push(octet),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_json_whatever_the_peer_said() {
        let verdict = Verdict::Failed(Reply::ours(550, (5, 1, 1), "no \"such\" \\ user"));
        let mut out = Vec::new();
        let line = Line {
            at: UnixMillis(2500),
            msg: message::MessageId(255),
            index: 3,
            local_part: "\"a b\"",
            domain: "x.test",
            via: Via { host: "mx.x.test", source: "a", tls: "TLS 1.3", ..Via::default() },
            attempt: 2,
            verdict: &verdict,
            is_suppressed: false,
            lane: Lane::Bulk,
            arrived: UnixMillis(500),
        };
        line.render(&mut out);
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["rcpt"], "\"a b\"@x.test");
        assert_eq!(value["lane"], "bulk");
        assert_eq!(value["reply"], "no \"such\" \\ user");
        assert_eq!((&value["delay_ms"], &value["enhanced"]), (&2000.into(), &"5.1.1".into()));
    }
}
