//! A hook for tests: syncs that have ended, and whose end nobody is told until the test lets go.

use super::world::{Due, State};

#[derive(Debug, Default)]
pub(super) struct SyncHold {
    holding: bool,
    held: Vec<u64>,
}

impl SyncHold {
    /// True if this operation must wait.
    pub(super) fn keeps(&mut self, operation: u64) -> bool {
        if self.holding {
            self.held.push(operation);
        }
        self.holding
    }
}

impl State {
    pub(super) fn hold_syncs(&mut self, hold: bool) {
        self.disk.hold.holding = hold;
        if hold {
            return;
        }
        for op in std::mem::take(&mut self.disk.hold.held) {
            self.after(1, Due::Disk { op });
        }
    }
}
