//! Campaigns: list jobs that have a name, can be paused, slowed down and cancelled, and take each recipient once.
//!
//! [`Campaigns`] is the table that all cores read; [`Campaign`] is one of its rows: what everybody gets, whether it may go
//! out now ([`valve`]), and what became of its recipients ([`tally`]). The control side alone writes: [`books`] keeps
//! everything on disk that must outlive us, [`desk`] takes recipients in.
//!
//! What a message's record says of its campaign is a number. A number is given out again only when no message is left that
//! has it. Bound: `campaigns.campaigns_max` rows.

pub mod books;
pub mod clerk;
mod tally;
mod valve;

pub use tally::{Outcome, Saved, Tally};
pub use valve::{Passage, Phase, Valve};

use books::Books;
use bytes::Bytes;
use message::copies::Pattern;
use message::{CampaignNumber, ContentFacts, PoolTag, UnixMillis};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// What everybody in a campaign gets.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    /// For messages that bring no content of their own. Lines end in CRLF.
    pub content: Bytes,
    pub facts: ContentFacts,
    pub pool: PoolTag,
    /// Whose list it is, for the suppression list and for unsubscribing.
    pub list: Option<Box<str>>,
    /// Each copy gets List-Unsubscribe fields of its own (RFC 8058).
    pub unsubscribe: bool,
    /// Each recipient gets a copy of its own, made from this; a template's fields are the columns of every message's table.
    pub pattern: Option<Arc<Pattern>>,
}

/// One campaign. Cores read it and count in it; all else is the control side's.
#[derive(Debug)]
pub struct Campaign {
    pub number: CampaignNumber,
    pub id: Box<str>,
    pub created: UnixMillis,
    pub shared: Shared,
    pub valve: Valve,
    recipients: AtomicU64,
    /// What became of them before this start.
    before: [AtomicU64; Outcome::COUNT],
    /// Of them, those that the start found owed.
    found: AtomicU64,
    tallies: Box<[Tally]>,
}

impl Campaign {
    /// `cores` of them will count in it.
    pub fn new(
        number: CampaignNumber,
        id: &str,
        created: UnixMillis,
        shared: Shared,
        cores: usize,
    ) -> Campaign {
        let tallies = (0..cores).map(|_| Tally::default()).collect();
        Campaign {
            number,
            id: id.into(),
            created,
            shared,
            valve: Valve::default(),
            recipients: AtomicU64::default(),
            before: Default::default(),
            found: AtomicU64::default(),
            tallies,
        }
    }

    /// Whether a message that came then can be this campaign's, or one's that had its number before: between the two lies
    /// a rest of [`clerk::REST`]. Half of it is the clock's to jump back.
    pub fn may_own(&self, arrived: UnixMillis) -> bool {
        arrived.plus_secs(clerk::REST.as_secs() / 2) >= self.created
    }

    /// Recipients that were ever added.
    pub fn recipients(&self) -> u64 {
        self.recipients.load(Ordering::Relaxed)
    }

    pub fn add_recipients(&self, count: u64) {
        self.recipients.fetch_add(count, Ordering::Relaxed);
    }

    /// A start found so many of them owed.
    pub fn find(&self, count: u32) {
        self.found.fetch_add(u64::from(count), Ordering::Relaxed);
    }

    /// All cores have looked. Who is neither owed nor was counted when the counts were last written ended since, and
    /// counts as delivered.
    pub fn take_up(&self, recipients: u64, saved: &Saved) {
        self.recipients.store(recipients, Ordering::Relaxed);
        let ended = recipients.saturating_sub(self.found.load(Ordering::Relaxed));
        let others = saved.ended() - saved.delivered;
        let set = |outcome: Outcome, count| self.before[outcome as usize].store(count, Ordering::Relaxed);
        set(Outcome::Delivered, ended.saturating_sub(others));
        set(Outcome::Failed, saved.failed);
        set(Outcome::Suppressed, saved.suppressed);
        set(Outcome::Cancelled, saved.cancelled);
    }

    /// One core's counts: only that core writes there.
    pub fn tally(&self, core: usize) -> &Tally {
        &self.tallies[core]
    }

    /// Over all cores.
    pub fn count(&self, outcome: Outcome) -> u64 {
        let now: u64 = self.tallies.iter().map(|tally| tally.get(outcome)).sum();
        self.before[outcome as usize].load(Ordering::Relaxed) + now
    }
}

/// All campaigns, as of one moment.
#[derive(Clone, Debug, Default)]
pub struct Table {
    by_id: BTreeMap<Box<str>, Arc<Campaign>>,
    /// By number, less one.
    by_number: Vec<Option<Arc<Campaign>>>,
}

impl Table {
    pub fn get(&self, number: CampaignNumber) -> Option<&Arc<Campaign>> {
        self.by_number.get(usize::from(number.0.get()) - 1)?.as_ref()
    }

    pub fn named(&self, id: &str) -> Option<&Arc<Campaign>> {
        self.by_id.get(id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Campaign>> {
        self.by_id.values()
    }

    /// At most `count`, by their names, behind `after`.
    pub fn page(&self, after: Option<&str>, count: usize) -> Vec<Arc<Campaign>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.by_id
            .range::<str, _>((from, Unbounded))
            .take(count)
            .map(|(_, campaign)| Arc::clone(campaign))
            .collect()
    }

    pub fn count(&self) -> usize {
        self.by_id.len()
    }

    /// The lowest that nobody has.
    pub fn free_number(&self) -> Option<CampaignNumber> {
        let free = self.by_number.iter().position(Option::is_none).unwrap_or(self.by_number.len());
        u16::try_from(free + 1).ok().and_then(NonZeroU16::new).map(CampaignNumber)
    }

    fn insert(&mut self, campaign: Arc<Campaign>) {
        let place = usize::from(campaign.number.0.get()) - 1;
        if self.by_number.len() <= place {
            self.by_number.resize(place + 1, None);
        }
        self.by_number[place] = Some(Arc::clone(&campaign));
        self.by_id.insert(campaign.id.clone(), campaign);
    }

    fn remove(&mut self, id: &str) {
        if let Some(campaign) = self.by_id.remove(id) {
            self.by_number[usize::from(campaign.number.0.get()) - 1] = None;
        }
    }
}

/// The table in force. Replaced whole, so that cores read a copy of their own and take the lock only when it has changed.
#[derive(Debug, Default)]
pub struct Campaigns {
    table: RwLock<Arc<Table>>,
    changes: AtomicU64,
    /// Not there in a simulation.
    pub books: OnceLock<Arc<Books>>,
}

impl Campaigns {
    pub fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read())
    }

    /// Known to every core that hears of one of its messages afterwards.
    pub fn insert(&self, campaign: Arc<Campaign>) {
        self.change(|table| table.insert(campaign));
    }

    /// Nothing of it may be owed any more.
    pub fn remove(&self, id: &str) {
        self.change(|table| table.remove(id));
    }

    fn change(&self, change: impl FnOnce(&mut Table)) {
        let mut table = self.table.write();
        change(Arc::make_mut(&mut table));
        self.changes.fetch_add(1, Ordering::Release);
    }
}

/// A core's own copy of the table.
#[derive(Debug, Default)]
pub struct View {
    table: Arc<Table>,
    changes: u64,
}

impl View {
    /// One atomic load, unless the table has changed.
    pub fn get(&mut self, campaigns: &Campaigns, number: CampaignNumber) -> Option<&Arc<Campaign>> {
        let changes = campaigns.changes.load(Ordering::Acquire);
        if changes != self.changes {
            (self.table, self.changes) = (campaigns.table(), changes);
        }
        self.table.get(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn campaign(number: u16, id: &str) -> Arc<Campaign> {
        let number = CampaignNumber(NonZeroU16::new(number).unwrap());
        Arc::new(Campaign::new(number, id, UnixMillis(100_000), Shared::default(), 1))
    }

    #[test]
    fn a_number_that_is_given_out_again_brings_nobody_the_wrong_letter() {
        let campaign = campaign(1, "b");
        let own = [90_000, 70_000, 69_999, 40_000].map(|arrived| campaign.may_own(UnixMillis(arrived)));
        assert_eq!(own, [true, true, false, false]);
    }

    #[test]
    fn numbers_are_given_out_again_when_their_campaign_is_gone() {
        let campaigns = Campaigns::default();
        for (number, id) in [(1, "b"), (2, "a"), (3, "c")] {
            assert_eq!(campaigns.table().free_number().unwrap().0.get(), number);
            campaigns.insert(campaign(number, id));
        }
        campaigns.remove("a");
        let table = campaigns.table();
        assert_eq!(table.free_number().unwrap().0.get(), 2);
        let names = |after| -> Vec<String> {
            table.page(after, 9).iter().map(|campaign| campaign.id.to_string()).collect()
        };
        assert_eq!((names(None), names(Some("b"))), (vec!["b".into(), "c".into()], vec!["c".to_owned()]));
    }

    #[test]
    fn a_core_sees_a_change_at_its_next_look() {
        let (campaigns, mut view) = (Campaigns::default(), View::default());
        let number = CampaignNumber(NonZeroU16::MIN);
        assert!(view.get(&campaigns, number).is_none());
        campaigns.insert(campaign(1, "x"));
        assert_eq!(&*view.get(&campaigns, number).unwrap().id, "x");
        campaigns.remove("x");
        assert!(view.get(&campaigns, number).is_none());
    }
}
