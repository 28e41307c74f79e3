//! What a run has done so far: counts, latencies, and the record of every message for the audit.
//!
//! A record is written when its message has an end, so a run that is killed leaves the records of what it had
//! finished, up to one buffer. Bounds: histograms of fixed size; refusals by stage and code only.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::time::Instant;

use hdrhistogram::Histogram;

use super::dialog::{Draft, Secured, Stage};
use super::interval::IntervalLog;
use crate::latency::histogram;
use crate::records::{Fate, Sent, SentHeader};
use crate::ring::now_ns;

#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
    pub(crate) recipients_accepted: u64,
    pub(crate) recipients_refused: u64,
    pub(crate) bytes: u64,
    pub(crate) connections: u64,
    pub(crate) connections_lost: u64,
    pub(crate) tls_full: u64,
    pub(crate) tls_resumed: u64,
}

impl Counts {
    pub(crate) fn settled(&self) -> u64 {
        self.accepted + self.refused + self.unknown
    }
}

pub(crate) struct Books {
    pub(crate) counts: Counts,
    pub(crate) refusals: BTreeMap<(Stage, u16), u64>,
    pub(crate) tls_versions: BTreeMap<&'static str, u64>,
    pub(crate) commit: Histogram<u64>,
    pub(crate) since_due: Histogram<u64>,
    interval: Option<(IntervalLog, Histogram<u64>)>,
    audit: Option<BufWriter<File>>,
    run: String,
    line: Vec<u8>,
    error: Option<io::Error>,
}

impl Books {
    pub(crate) fn new(
        header: SentHeader,
        audit: Option<File>,
        interval: Option<IntervalLog>,
    ) -> io::Result<Books> {
        let mut audit = audit.map(BufWriter::new);
        if let Some(file) = &mut audit {
            header.write(file)?;
        }
        Ok(Books {
            counts: Counts::default(),
            refusals: BTreeMap::new(),
            tls_versions: BTreeMap::new(),
            commit: histogram(),
            since_due: histogram(),
            interval: interval.map(|log| (log, histogram())),
            audit,
            run: header.run,
            line: Vec::new(),
            error: None,
        })
    }

    pub(crate) fn refuse(&mut self, stage: Stage, code: u16, count: u64) {
        *self.refusals.entry((stage, code)).or_default() += count;
    }

    pub(crate) fn note_secured(&mut self, secured: Secured) {
        *self.tls_versions.entry(secured.version).or_default() += 1;
        match secured.is_resumed {
            true => self.counts.tls_resumed += 1,
            false => self.counts.tls_full += 1,
        }
    }

    /// `draft` has come to its end.
    pub(crate) fn settle(&mut self, draft: &Draft) {
        let fate = fate(draft);
        for &(stage, code, count) in &draft.refusals {
            self.refuse(stage, code, count);
        }
        match fate {
            Fate::Accepted => self.settle_accepted(draft),
            Fate::Refused => self.counts.refused += 1,
            Fate::Unknown => self.counts.unknown += 1,
        }
        self.counts.recipients_refused += draft.refused_count;
        self.record(draft, fate);
    }

    fn settle_accepted(&mut self, draft: &Draft) {
        self.counts.accepted += 1;
        self.counts.recipients_accepted += draft.accepted_count();
        self.counts.bytes += draft.content.len() as u64;
        let (Some(dot), Some((_, end))) = (draft.dot, draft.end) else { return };
        let commit_ns = nanos(dot, end);
        self.commit.saturating_record(commit_ns);
        if let Some((_, second)) = &mut self.interval {
            second.saturating_record(commit_ns);
        }
        if let Some(due) = draft.due {
            self.since_due.saturating_record(nanos(due, end));
        }
    }

    fn record(&mut self, draft: &Draft, fate: Fate) {
        let Some(file) = &mut self.audit else { return };
        let sent = Sent {
            fate,
            time_ns: draft.end.map_or_else(now_ns, |(_, end)| now_ns() - nanos(end, Instant::now())),
            number: draft.number,
            size_bytes: draft.content.len() as u64,
            digest: draft.digest,
            first_recipient: draft.first_recipient,
            recipient_count: draft.recipient_count,
        };
        self.line.clear();
        sent.write(&mut self.line, &self.run, &draft.refused);
        if let Err(error) = file.write_all(&self.line) {
            (self.audit, self.error) = (None, Some(error));
        }
    }

    /// The second that ended `since_start` after the start goes to the interval log.
    pub(crate) fn end_second(&mut self, second: u64) {
        if let Some((log, histogram)) = &mut self.interval {
            log.write(second, histogram.clone());
            histogram.reset();
        }
    }

    /// Everything on disk, or the reason why not.
    pub(crate) fn close(&mut self, second: u64) -> io::Result<()> {
        self.end_second(second);
        if let Some((log, _)) = self.interval.take() {
            log.close()?;
        }
        if let Some(mut file) = self.audit.take() {
            file.flush()?;
        }
        self.error.take().map_or(Ok(()), Err)
    }
}

fn fate(draft: &Draft) -> Fate {
    match (draft.is_accepted(), draft.dot, draft.end) {
        (true, ..) => Fate::Accepted,
        (false, Some(_), None) => Fate::Unknown,
        (false, ..) => Fate::Refused,
    }
}

fn nanos(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_nanos()).unwrap_or(u64::MAX)
}
