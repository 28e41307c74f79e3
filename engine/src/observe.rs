//! What those who look on get: counters, and the bound on lines of the delivery log (`events/event.rs` has the lines).
//!
//! A buffer of the delivery log's lines is under [`LINES_MAX`]; if the file cannot keep up, lines are dropped and counted,
//! mail is not held up.

use message::Scope;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

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
    /// Bounces of mail from the null reverse-path written
    double_bounces,
    /// Recipients whose failure nobody was told: of double bounces, and of mail to where those go
    triple_bounces,
    /// Recipients that bounced after they were delivered, by mail to their return paths
    returns_bounced,
    /// Complaints that came back
    returns_complaints,
    /// Word of delays and successes that came back
    returns_progress,
    /// Automatic answers and challenges that came back
    returns_automatic,
    /// Mail to return paths that nobody could read
    returns_unknown,
    /// Recipients who left a list by mail
    returns_unsubscribed,
    /// Reports without proof, ignored
    returns_unproven,
    /// Warnings of a delay written
    warnings,
    /// Reports of success written
    success_reports,
    /// Messages that were signed, each for all recipients, and copies for one
    signed,
    /// Messages that have keys and could not be signed
    unsigned,
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
    /// Connections of clients that were reversed, for them to fetch their mail (ATRN)
    connections_reversed,
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
    /// Events put into the event log
    events_logged,
    /// Octets of them
    event_octets,
    /// Events dropped because the event log could not be written
    events_dropped,
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

/// Lines a second of one kind, on each core.
const LINES_PER_SECOND: u32 = 50;

/// Bounds the operator's lines about what strangers cause: those past it are counted, and the count is told with the next
/// line, so that whoever floods us does not fill the disk.
#[derive(Debug, Default)]
pub(crate) struct LineBudget {
    since: Option<Instant>,
    lines: u32,
    unsaid: u64,
}

impl LineBudget {
    /// How many were left out since the last line, if this one may be said.
    pub(crate) fn may_say(&mut self, now: Instant) -> Option<u64> {
        let is_over = self.since.is_none_or(|since| now >= since + Duration::from_secs(1));
        if is_over {
            (self.since, self.lines) = (Some(now), 0);
        }
        self.lines += 1;
        if self.lines > LINES_PER_SECOND {
            self.unsaid += 1;
            return None;
        }
        Some(std::mem::take(&mut self.unsaid))
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
    /// How far the host's answer reaches.
    pub scope: Option<Scope>,
    /// The host's refusal says that there is no such recipient.
    pub is_hard: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flood_of_lines_is_a_few_and_a_count() {
        let (mut budget, now) = (LineBudget::default(), Instant::now());
        let said = (0..1000).filter(|_| budget.may_say(now).is_some()).count();
        assert_eq!(said, 50);
        assert_eq!(budget.may_say(now + Duration::from_secs(1)), Some(950));
        assert_eq!(budget.may_say(now + Duration::from_secs(1)), Some(0));
    }
}
