//! Campaigns on one core: what of them may go out now, what waits until they are resumed, what ends with them.
//!
//! A range is looked at when it becomes ready ([`Core::past_gate`]) and whenever recipients of it are to begin
//! ([`Core::begin_of`]), so that an order about a million recipients is one atomic store: who has begun goes on, the
//! others stop here. What a pause stops is kept aside in memory without a mark, 24 bytes a range; on disk it is owed as
//! before, and a restart finds the campaign paused again. Messages that the books do not know yet wait here too
//! ([`Core::confirm`]): nobody is served before a crash could no longer make him be added twice.

use crate::campaigns::{Campaign, Outcome, Passage, Phase, View};
use crate::clock::Clock;
use crate::core::Core;
use crate::domains::SiteKey;
use crate::drive::share::is_borrowed;
use crate::steer::reason::PAUSED;
use bytes::Bytes;
use message::copies::Pattern;
use message::{CampaignNumber, Lane, MessageId, UnixMillis};
use queue::{MessageKey, Range};
use ring::Ring;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Ranges of resumed campaigns that go on in one turn.
const RESUMED_PER_TURN: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    view: View,
    paused: HashMap<CampaignNumber, Vec<Range>>,
    paused_recipients: u64,
    /// Of campaigns that were resumed, or cancelled, while these waited.
    resumed: VecDeque<Range>,
    unconfirmed: HashMap<MessageId, Vec<Range>>,
}

impl Gates {
    pub(crate) fn paused_recipients(&self) -> u64 {
        self.paused_recipients
    }

    /// Every range that waits here.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = &Range> {
        let kept = self.paused.values().chain(self.unconfirmed.values()).flatten();
        kept.chain(&self.resumed)
    }

    /// Ranges of messages that are not yet confirmed: nobody can order anything about them.
    pub(crate) fn unconfirmed(&self) -> impl Iterator<Item = &Range> {
        self.unconfirmed.values().flatten()
    }

    /// Takes everything that waits for a campaign, for a sweep that gives each range back.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = Range> + use<> {
        self.paused_recipients = 0;
        let paused = std::mem::take(&mut self.paused).into_values().flatten();
        paused.chain(std::mem::take(&mut self.resumed))
    }

    pub(crate) fn wants_turn(&self) -> bool {
        !self.resumed.is_empty()
    }

    /// A new message's ranges wait for [`Core::confirm`].
    pub(crate) fn keep_until_confirmed(&mut self, id: MessageId, range: Range) {
        self.unconfirmed.entry(id).or_default().push(range);
    }
}

impl<R: Ring, C: Clock> Core<R, C> {
    /// The campaign of a message, its own or borrowed. A look into two tables, of mail that has none into one.
    fn campaign_of(&mut self, message: MessageKey) -> Option<Arc<Campaign>> {
        let borrowed = self.shares.letter(message).and_then(|letter| letter.class.campaign);
        let number = borrowed.or_else(|| self.store.get(message)?.campaign())?;
        self.campaign(number).cloned()
    }

    pub(crate) fn campaign(&mut self, number: CampaignNumber) -> Option<&Arc<Campaign>> {
        self.gates.view.get(&self.crossing.campaigns, number)
    }

    /// What everybody in the campaign gets, for a message that brings nothing of its own.
    pub(crate) fn content_of_campaign(&mut self, number: Option<CampaignNumber>, content: Bytes) -> Bytes {
        let campaign = number.filter(|_| content.is_empty()).and_then(|number| self.campaign(number));
        campaign.map_or(content, |campaign| Bytes::clone(&campaign.shared.content))
    }

    /// What the campaign's copies are made from.
    pub(crate) fn pattern_of_campaign(&mut self, number: Option<CampaignNumber>) -> Option<Arc<Pattern>> {
        self.campaign(number?)?.shared.pattern.clone()
    }

    /// The list that the campaign's mail is from, where it is said.
    pub(crate) fn list_of_campaign(&mut self, number: Option<CampaignNumber>) -> Option<Box<str>> {
        self.campaign(number?)?.shared.list.clone()
    }

    /// The range, if its mail may go out; one of a paused campaign is kept here, one of a cancelled campaign has ended.
    pub(crate) fn past_gate(&mut self, range: Range) -> Option<Range> {
        let Some(campaign) = self.campaign_of(range.message) else { return Some(range) };
        match campaign.valve.phase() {
            Phase::Running => Some(range),
            Phase::Paused => {
                self.pause(&campaign, range);
                None
            }
            Phase::Cancelled => {
                self.cancel(range);
                None
            }
        }
    }

    /// How many of up to `most` recipients of the campaign's range at the front of that lane may begin. If none may, what
    /// is left of it has gone where it waits or ends, and the lane's next has its turn.
    pub(crate) fn begin_of(
        &mut self,
        key: SiteKey,
        lane: Lane,
        campaign: Option<CampaignNumber>,
        most: usize,
    ) -> Option<usize> {
        let Some(number) = campaign else { return Some(most) };
        let now = self.now;
        let Some(campaign) = self.campaign(number).cloned() else { return Some(most) };
        let passage = campaign.valve.pass(now, most);
        if let Passage::Now(count) = passage {
            return Some(count);
        }
        let range = self.sites.get_mut(key).lanes.get_mut(lane).take_open_front()?;
        match passage {
            Passage::Now(_) => {}
            Passage::Paused => self.pause(&campaign, range),
            Passage::Cancelled => self.cancel(range),
            Passage::Later(until) => {
                let wait = until.saturating_duration_since(now).as_millis();
                let due = self.wall.plus_millis(u64::try_from(wait).unwrap_or(u64::MAX).saturating_add(1));
                self.wait_for_turn(range, due);
            }
        }
        None
    }

    /// Without a mark: no attempt was made, and a restart may try at once. What is borrowed goes back to wait.
    fn wait_for_turn(&mut self, range: Range, due: UnixMillis) {
        if is_borrowed(range.message) { self.defer(range, due) } else { self.schedule.push(range, due) }
    }

    fn pause(&mut self, campaign: &Campaign, range: Range) {
        if is_borrowed(range.message) {
            // Its owner keeps it.
            return self.defer(range, self.wall);
        }
        self.gates.paused_recipients += u64::from(range.count);
        let range = Range { reason: PAUSED, ..range };
        self.gates.paused.entry(campaign.number).or_default().push(range);
    }

    fn cancel(&mut self, range: Range) {
        if is_borrowed(range.message) { self.defer(range, self.wall) } else { self.delete(range) }
    }

    /// A campaign was resumed or cancelled: what was kept for it goes on, some in each turn.
    pub(crate) fn on_campaign_order(&mut self, number: CampaignNumber) {
        let kept = self.gates.paused.remove(&number).unwrap_or_default();
        self.gates.paused_recipients -= kept.iter().map(|range| u64::from(range.count)).sum::<u64>();
        self.gates.resumed.extend(kept);
    }

    pub(crate) fn run_gates(&mut self) {
        for _ in 0..RESUMED_PER_TURN {
            let Some(range) = self.gates.resumed.pop_front() else { return };
            self.offer_range(Range { reason: 0, ..range });
        }
    }

    /// The books know the message's recipients, durably: they may be served.
    pub(crate) fn confirm(&mut self, id: MessageId) {
        for range in self.gates.unconfirmed.remove(&id).unwrap_or_default() {
            self.offer_range(range);
        }
    }

    /// `count` recipients of the message ended so, or had an attempt that did.
    pub(crate) fn tally(&mut self, number: Option<CampaignNumber>, outcome: Outcome, count: u32) {
        let index = self.index;
        if let Some(campaign) = number.and_then(|number| self.campaign(number)) {
            campaign.tally(index).add(outcome, u64::from(count));
        }
    }
}
