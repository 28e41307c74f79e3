//! The end of a simulation: what was promised against what arrived.

use super::ledger::Ledger;
use super::letter::{Intake, Letter, Recipient};
use std::fmt;

/// Counts are of recipients, not of messages.
#[derive(Debug, Default)]
pub struct Audit {
    pub submitted: u32,
    /// The core said 250 and owes them.
    pub accepted: u32,
    pub refused: u32,
    pub delivered: u32,
    /// Refused for good by a sink, and the sender was told, or the postmaster if there is none.
    pub failed: u32,
    /// Accepted, and neither.
    pub lost: Vec<String>,
    /// Deliveries of something that nobody submitted like that, and broken SMTP.
    pub corrupt: Vec<String>,
    /// Copies beyond the first.
    pub duplicates: u32,
    /// Of those, copies that no lost reply explains: 0 unless a core crashed.
    pub duplicates_unexplained: u32,
    pub bounces: u32,
    /// Bounced though no sink ever refused for good: right only if the letter grew too old in the queue.
    pub bounced_unfailed: u32,
}

impl Audit {
    pub(super) fn of(ledger: &Ledger) -> Audit {
        let mut audit =
            Audit { corrupt: ledger.corrupt.clone(), bounces: ledger.bounces, ..Audit::default() };
        for letter in &ledger.letters {
            for recipient in &letter.recipients {
                audit.add(letter, recipient);
            }
        }
        audit
    }

    fn add(&mut self, letter: &Letter, recipient: &Recipient) {
        let accepted = recipient.intake == Intake::Accepted;
        self.submitted += 1;
        self.accepted += u32::from(accepted);
        self.refused += u32::from(recipient.intake == Intake::Refused);
        self.bounced_unfailed += u32::from(recipient.bounced > 0 && recipient.failed == 0);
        let told = recipient.bounced > 0;
        if recipient.delivered > 0 {
            self.delivered += 1;
            self.count_copies(recipient);
        } else if (recipient.failed > 0 || recipient.bounced > 0) && told {
            self.failed += 1;
        } else if accepted {
            let why = if recipient.failed > 0 {
                "failed, and its sender was not told"
            } else {
                "gone without a trace"
            };
            self.lost
                .push(format!("letter {} to <{}>: {why}; {recipient:?}", letter.token, recipient.address));
        }
    }

    fn count_copies(&mut self, recipient: &Recipient) {
        let accepted = u32::from(recipient.intake == Intake::Accepted);
        let explained = (accepted + recipient.ambiguous + recipient.unheard).max(1);
        self.duplicates += recipient.delivered - 1;
        self.duplicates_unexplained += recipient.delivered.saturating_sub(explained);
    }

    /// Nothing lost, nothing corrupt.
    pub fn is_sound(&self) -> bool {
        self.lost.is_empty() && self.corrupt.is_empty()
    }

    #[track_caller]
    pub fn assert_sound(&self) {
        assert!(self.is_sound(), "{self}");
    }

    /// For runs without a crash: also nothing twice without a reason, and no bounce without one.
    #[track_caller]
    pub fn assert_exact(&self) {
        self.assert_sound();
        assert_eq!((self.duplicates_unexplained, self.bounced_unfailed), (0, 0), "{self}");
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "of {} submitted: {} accepted, {} refused", self.submitted, self.accepted, self.refused)?;
        writeln!(f, "{} delivered, {} failed, {} bounces", self.delivered, self.failed, self.bounces)?;
        writeln!(f, "{} duplicates, {} of them unexplained", self.duplicates, self.duplicates_unexplained)?;
        for sentence in &self.lost {
            writeln!(f, "LOST {sentence}")?;
        }
        for sentence in &self.corrupt {
            writeln!(f, "CORRUPT {sentence}")?;
        }
        Ok(())
    }
}
