//! What became of a campaign's recipients, counted by each core for itself.
//!
//! Bound: five numbers a core and campaign.

use super::Campaign;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};

/// How it ended for a recipient, or an attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    Delivered,
    /// An attempt that was put off; the recipient goes on waiting.
    Deferred,
    Failed,
    /// Not sent to, because the suppression list names it.
    Suppressed,
    /// Taken out by a cancel or by an operator.
    Cancelled,
}

impl Outcome {
    pub const COUNT: usize = 5;
}

/// One core's counts of one campaign. Only that core writes.
#[derive(Debug, Default)]
#[repr(align(64))] // A line of its own: two cores count side by side.
pub struct Tally([AtomicU64; Outcome::COUNT]);

impl Tally {
    pub fn add(&self, outcome: Outcome, count: u64) {
        let counter = &self.0[outcome as usize];
        // One writer: a load and a store, no locked instruction.
        counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }

    pub fn get(&self, outcome: Outcome) -> u64 {
        self.0[outcome as usize].load(Ordering::Relaxed)
    }
}

/// What became of recipients until the file was written.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    pub recipients: u64,
    pub delivered: u64,
    pub failed: u64,
    pub suppressed: u64,
    pub cancelled: u64,
}

impl Saved {
    /// As of now.
    pub fn of(campaign: &Campaign) -> Saved {
        Saved {
            recipients: campaign.recipients(),
            delivered: campaign.count(Outcome::Delivered),
            failed: campaign.count(Outcome::Failed),
            suppressed: campaign.count(Outcome::Suppressed),
            cancelled: campaign.count(Outcome::Cancelled),
        }
    }

    /// Recipients that no longer wait.
    pub fn ended(&self) -> u64 {
        self.delivered + self.failed + self.suppressed + self.cancelled
    }
}
