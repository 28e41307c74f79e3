//! How much a core gathers before it acts: full turns and full commits under load, none of it for a lone client.
//!
//! A turn costs a sleep and a wake-up, a commit a flush of the disk, whatever they carry. When events come faster
//! than [`TURN_LINGER`] apart, waiting that long for more of them costs each a little time and saves most of the
//! wake-ups; the same for messages and commits. The rates are measured over windows of [`WINDOW`], so a lone
//! submitter, whose next step waits for our answer, never waits for company. Pure: the caller passes `now`.

use std::time::{Duration, Instant};

/// How long a wait may gather events.
pub(crate) const TURN_LINGER: Duration = Duration::from_micros(500);

/// Events that a wait gathers at most.
const TURN_EVENTS_MAX: u32 = 64;

/// Messages that a commit gathers at most.
const COMMIT_MESSAGES_MAX: u32 = 256;

/// Rates are those of the last whole window.
const WINDOW: Duration = Duration::from_millis(4);

/// See the module.
#[derive(Debug)]
pub(crate) struct Rhythm {
    window_began: Instant,
    events: u32,
    messages: u32,
    events_per_turn: u32,
    messages_per_commit: u32,
    commit_linger: Duration,
    /// Since when a message has waited for its commit.
    waiting_since: Option<Instant>,
}

impl Rhythm {
    pub(crate) fn new(now: Instant, commit_linger: Duration) -> Rhythm {
        Rhythm {
            window_began: now,
            events: 0,
            messages: 0,
            events_per_turn: 1,
            messages_per_commit: 1,
            commit_linger,
            waiting_since: None,
        }
    }

    /// A turn begins with `events`. True if a new window made new wishes.
    pub(crate) fn handle_turn(&mut self, now: Instant, events: usize) -> bool {
        self.events = self.events.saturating_add(u32::try_from(events).unwrap_or(u32::MAX));
        let elapsed = now.saturating_duration_since(self.window_began);
        if elapsed < WINDOW {
            return false;
        }
        self.events_per_turn = fitting(self.events, TURN_LINGER, elapsed).clamp(1, TURN_EVENTS_MAX);
        self.messages_per_commit =
            fitting(self.messages, self.commit_linger, elapsed).clamp(1, COMMIT_MESSAGES_MAX);
        (self.window_began, self.events, self.messages) = (now, 0, 0);
        true
    }

    /// Events worth waiting for in the next turn. Never more than half of the connections could bring: peers that
    /// wait for our answers bring nothing while we wait for them.
    pub(crate) fn events_per_turn(&self, connections: usize) -> u32 {
        let half = u32::try_from(connections / 2).unwrap_or(u32::MAX);
        self.events_per_turn.min(half.max(1))
    }

    /// A message joined the next commit.
    pub(crate) fn handle_message(&mut self, now: Instant) {
        self.messages += 1;
        self.waiting_since.get_or_insert(now);
    }

    /// May the commit that `waiting` messages wait for begin?
    pub(crate) fn may_commit(&self, now: Instant, waiting: usize) -> bool {
        let Some(since) = self.waiting_since else { return true };
        waiting >= self.messages_per_commit as usize || since + self.commit_linger <= now
    }

    /// The commit began: what comes now waits for the next.
    pub(crate) fn handle_commit(&mut self) {
        self.waiting_since = None;
    }

    /// When a commit that gathers begins at the latest.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.waiting_since.map(|since| since + self.commit_linger)
    }
}

/// How many of `count` per `elapsed` fall into `span`, less the one that began it.
fn fitting(count: u32, span: Duration, elapsed: Duration) -> u32 {
    let fit = u128::from(count) * span.as_nanos() / elapsed.as_nanos().max(1);
    u32::try_from(fit).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn lone_submitter_never_waits_for_company() {
        let now = Instant::now();
        let mut rhythm = Rhythm::new(now, MS);
        rhythm.handle_message(now);
        assert!(rhythm.handle_turn(now + 4 * MS, 6));
        rhythm.handle_message(now + 4 * MS);
        assert!(rhythm.may_commit(now + 4 * MS, 1));
        assert_eq!(rhythm.events_per_turn(50), 1);
    }

    #[test]
    fn busy_core_gathers_until_its_share_is_there_or_the_time_is_over() {
        let now = Instant::now();
        let mut rhythm = Rhythm::new(now, MS);
        for _ in 0..40 {
            rhythm.handle_message(now);
        }
        rhythm.handle_commit();
        rhythm.handle_turn(now + 4 * MS, 400);
        assert_eq!((rhythm.events_per_turn(200), rhythm.events_per_turn(50)), (50, 25));
        let now = now + 5 * MS;
        rhythm.handle_message(now);
        assert!(!rhythm.may_commit(now, 9) && rhythm.may_commit(now, 10));
        assert!(rhythm.may_commit(now + MS, 1));
        assert_eq!(rhythm.poll_timeout(), Some(now + MS));
    }
}
