//! The control side of campaigns: creates them, takes recipients in, carries out orders, and keeps the books.
//!
//! Recipients of one campaign are taken in one batch after the other: who was added before is found in the books, the
//! others become one message without a content of its own, durable in a core's log; then the books know them, and only
//! then they are served and the client is answered. So a batch that is sent again adds nobody twice, whoever died
//! in between. Where the books cannot be written, nothing more is added until they know the last batch ([`Clerk::note`]).
//! Callers do not give up in the middle: a request is carried out to its end, whoever waits for it. Trusts nothing that a
//! client sent: templates and values are checked here, not at delivery.
//!
//! What waits for the disk does so on a thread that may. A campaign that nobody waits for is removed when it has rested for
//! `campaigns.keep`, or by order when it has rested for [`REST`]: until then its marks are durable, and no crash brings back
//! a recipient whose letter is gone. Bounds: `campaigns.campaigns_max` campaigns, `campaigns.memory_max` octets of letters.

use super::books::{Books, BooksError, Entry, Found, crc32c, format};
use super::{Campaign, Phase, Saved, Shared};
use crate::api::cores::Cores;
use crate::api::rows::{self, Rows};
use crate::api::{
    Added, CampaignId, Campaigns, Counts, Created, Injected, Injection, Injector, Letter, ListName,
    NewCampaign, Order, Promise, Recipient, Refused, Rejected, Terms, Values,
};
use crate::clock;
use crate::config::Rate;
use crate::crossing::{Crossing, Mail};
use crate::drive::log::Incoming;
use crate::keyset::Key;
use bytes::Bytes;
use message::copies::Pattern;
use message::merge::Bound;
use message::{
    BodyKind, CampaignNumber, Class, ContentFacts, Envelope, Lane, MailAsked, Mailbox, MessageId, Recipients,
    ReversePath, UnixMillis, Verp,
};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Counts are written this often while they change.
const SAVE_EVERY: Duration = Duration::from_secs(5);

/// A campaign lasts so long after its last change.
pub(crate) const REST: Duration = Duration::from_secs(60);

/// What takes recipients in for one campaign.
#[derive(Debug)]
struct Row {
    campaign: Arc<Campaign>,
    letter: Letter,
    entry: Mutex<Entry>,
    /// One changes the folder at a time; nobody waits for it but on a thread that may.
    saving: Mutex<()>,
    /// One order at a time.
    ordering: tokio::sync::Mutex<()>,
    /// One batch at a time: the last one, while the books do not know it.
    adding: tokio::sync::Mutex<Option<Unnoted>>,
    /// Its folder is gone, or another campaign's: whoever still holds the row adds nobody and writes nothing.
    is_removed: AtomicBool,
}

/// A message that is durable in its core, whose recipients the books do not know.
#[derive(Debug)]
struct Unnoted {
    message: MessageId,
    keys: Arc<[Key]>,
}

/// See the module.
pub struct Clerk {
    cores: Arc<Cores>,
    crossing: Arc<Crossing>,
    books: Arc<Books>,
    rows: RwLock<BTreeMap<Box<str>, Arc<Row>>>,
    /// One creation or removal at a time: numbers and names are given out once.
    creating: tokio::sync::Mutex<()>,
}

impl Clerk {
    /// With the campaigns that were found and that [`put_up`] has put into the table.
    pub fn new(cores: Arc<Cores>, crossing: Arc<Crossing>, books: Arc<Books>, found: Vec<Found>) -> Clerk {
        let table = crossing.campaigns.table();
        let row = |found: Found| {
            let campaign = Arc::clone(table.get(found.number)?);
            let letter = letter_of(&found.entry, &campaign)?;
            Some((campaign.id.clone(), Arc::new(Row::new(campaign, letter, found.entry))))
        };
        let rows = found.into_iter().filter_map(row).collect();
        Clerk { cores, crossing, books, rows: RwLock::new(rows), creating: tokio::sync::Mutex::default() }
    }

    fn row(&self, id: &CampaignId) -> Result<Arc<Row>, Refused> {
        self.rows.read().get(id.as_str()).cloned().ok_or(Refused::Unknown("campaign"))
    }

    /// On a thread that may wait for the disk.
    async fn with_books<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Books) -> Result<T, BooksError> + Send + 'static,
    ) -> Result<T, Refused> {
        let books = Arc::clone(&self.books);
        let done = tokio::task::spawn_blocking(move || work(&books)).await.map_err(|_| Refused::Broken)?;
        done.map_err(|error| broken(&error))
    }

    async fn make(&self, id: &CampaignId, new: NewCampaign) -> Result<Created, Refused> {
        let _one = self.creating.lock().await;
        let source_crc = crc32c(&new.letter.content);
        if let Ok(row) = self.row(id) {
            let entry = row.entry.lock();
            let wanted = entry_of(id, &new, (entry.content_len, entry.content_crc), source_crc);
            let same = Entry {
                created: entry.created,
                changed: entry.changed,
                phase: entry.phase,
                rate: entry.rate.clone(),
                counts: entry.counts,
                ..wanted
            };
            let refused =
                || Refused::Conflict("a campaign of this name has another letter or other terms".to_owned());
            return if *entry == same { Ok(Created::Before) } else { Err(refused()) };
        }
        let (content, _) = self.cores.content(&self.cores.settings(), &new.letter);
        let number = self.room_for(content.len())?;
        check_template(&new.letter, &content)?;
        let entry = entry_of(id, &new, (content.len() as u64, crc32c(&content)), source_crc);
        let written = (entry.clone(), Bytes::clone(&content));
        self.with_books(move |books| books.create(number, &written.0, &written.1)).await?;
        let campaign = self.campaign(number, &entry, content);
        let letter = Letter { content: Bytes::clone(&campaign.shared.content), ..new.letter };
        self.crossing.campaigns.insert(Arc::clone(&campaign));
        self.rows.write().insert(id.as_str().into(), Arc::new(Row::new(campaign, letter, entry)));
        Ok(Created::New)
    }

    /// The number of a new campaign whose letter is so long.
    fn room_for(&self, len: usize) -> Result<CampaignNumber, Refused> {
        let (settings, table) = (self.cores.settings(), self.crossing.campaigns.table());
        let crate::config::Campaigns { campaigns_max, memory_max, .. } = settings.config.campaigns;
        let advice = "remove those that are over (ringpost campaign remove), or raise it";
        if table.count() >= campaigns_max as usize {
            return Err(Refused::Conflict(format!(
                "there are campaigns.campaigns_max = {campaigns_max} campaigns: {advice}"
            )));
        }
        let held: usize = table.iter().map(|campaign| campaign.shared.content.len()).sum();
        if held + len > memory_max {
            return Err(Refused::Conflict(format!(
                "the campaigns' letters would have {} octets, and campaigns.memory_max is {memory_max}: {advice}",
                held + len
            )));
        }
        table.free_number().ok_or(Refused::Full)
    }

    fn campaign(&self, number: CampaignNumber, entry: &Entry, content: Bytes) -> Arc<Campaign> {
        Arc::new(campaign_of(number, entry, content, &self.cores.settings(), self.crossing.cores()))
    }

    async fn take_in(&self, id: &CampaignId, recipients: &[Recipient]) -> Result<Added, Refused> {
        let row = self.row(id)?;
        let mut unnoted = row.adding.lock().await;
        row.check_there()?;
        self.note(&row, &mut unnoted).await?;
        let number = row.campaign.number;
        if row.campaign.valve.phase() == Phase::Cancelled {
            return Err(Refused::Conflict("the campaign is cancelled".to_owned()));
        }
        let keys: Vec<_> = recipients
            .iter()
            .map(|recipient| self.books.key_of(number, recipient.mailbox.as_ref()))
            .collect();
        let look = move |books: &Books| Ok((books.known(number, &keys)?, keys, books.room(number)?));
        let (known, keys, room) = self.with_books(look).await?;
        let mut list = Rows::new(bound_of(&row.campaign), &row.letter.shared)?;
        let mut seen = HashSet::new();
        let (mut new_keys, mut rejected) = (Vec::new(), Vec::new());
        let (mut duplicate, mut suppressed) = (0, Vec::new());
        let exempt = self.cores.settings().suppression.exempts(&row.letter.sender, row.lane());
        for (place, (recipient, key)) in recipients.iter().zip(&keys).enumerate() {
            if known[place] || !seen.insert(*key) {
                duplicate += 1;
                continue;
            }
            if !exempt && self.is_suppressed(&row, recipient) {
                suppressed.push(Rejected::suppressed(place, recipient));
                continue;
            }
            match list.push(recipient) {
                Ok(()) => new_keys.push(*key),
                Err(what) => rejected.push(Rejected::new(place, recipient, what)),
            }
        }
        let added = Added { new: new_keys.len() as u64, duplicate, suppressed, rejected };
        if new_keys.is_empty() {
            return Ok(added);
        }
        if self.cores.is_poisoned() {
            return Err(Refused::Broken);
        }
        if added.new > room {
            return Err(Refused::Conflict(format!("the campaign has room for {room} more recipients")));
        }
        let message = self.store(&row, list.list).await?;
        *unnoted = Some(Unnoted { message, keys: new_keys.into() });
        self.note(&row, &mut unnoted).await?;
        Ok(added)
    }

    /// The books learn of the last batch, if they do not know it, and then it is served. Until they do, it waits: no client
    /// was told of it, and who sends it again finds it added.
    async fn note(&self, row: &Row, unnoted: &mut Option<Unnoted>) -> Result<(), Refused> {
        let Some(Unnoted { message, keys }) = unnoted.as_ref() else { return Ok(()) };
        let (number, message, keys) = (row.campaign.number, *message, Arc::clone(keys));
        let count = keys.len() as u64;
        self.with_books(move |books| books.note(number, message, &keys, clock::wall())).await?;
        *unnoted = None;
        row.campaign.add_recipients(count);
        self.tell(usize::from(message.partition()), || Mail::Confirm(message)).await;
        Ok(())
    }

    /// Who has left the list, or gets no mail at all. Who is on the list but cannot be looked up at once is found before
    /// sending.
    fn is_suppressed(&self, row: &Row, recipient: &Recipient) -> bool {
        let Some(suppression) = self.crossing.suppression.get() else { return false };
        let list = row.campaign.shared.list.as_deref().unwrap_or_default();
        suppression.is_suppressed(list, recipient.mailbox.as_ref())
    }

    /// Answered when the message is durable; nobody of it is served yet.
    async fn store(&self, row: &Row, recipients: Recipients) -> Result<MessageId, Refused> {
        let Row { campaign, letter, .. } = row;
        let facts = campaign.shared.facts;
        let envelope = Envelope {
            reverse_path: letter.sender.clone(),
            verp: letter.terms.verp,
            body: if facts.has_eight_bit() { BodyKind::EightBitMime } else { BodyKind::SevenBit },
            smtputf8: false,
            requires_tls: false,
            lane: row.lane(),
            asked: MailAsked::default(),
            recipients,
        };
        let class = self.cores.settings().class_of(&envelope, &letter.content);
        let class = Class { campaign: Some(campaign.number), ..class };
        self.cores.take(Incoming::new(envelope, class, facts, Bytes::new())).await
    }

    /// A letter to a core, sent again while its box is full.
    async fn tell(&self, core: usize, mail: impl Fn() -> Mail) {
        while self.crossing.send(core, mail()).is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn obey(&self, id: &CampaignId, order: Order) -> Result<crate::api::Campaign, Refused> {
        let row = self.row(id)?;
        if order == Order::Pause {
            // At once, whatever the disk and other orders do.
            row.campaign.valve.pause();
        }
        let _one = row.ordering.lock().await;
        row.check_there()?;
        let valve = &row.campaign.valve;
        let before = valve.phase();
        let phase = match order {
            _ if before == Phase::Cancelled && order != Order::Cancel => {
                return Err(Refused::Conflict("the campaign is cancelled".to_owned()));
            }
            Order::Pause => Phase::Paused,
            Order::Resume => Phase::Running,
            Order::Cancel => Phase::Cancelled,
            Order::Rate(_) => before,
        };
        if let Order::Rate(rate) = order {
            valve.set_interval(rate.map(interval_of));
        }
        let kept = Arc::clone(&row);
        let change = move |entry: &mut Entry| {
            entry.phase = phase;
            if let Order::Rate(rate) = order {
                entry.rate = rate.map(|rate| rate.to_string());
            }
        };
        self.with_books(move |books| kept.save(books, change)).await?;
        valve.set_phase(phase);
        if phase != before && phase != Phase::Paused {
            let sift = (phase == Phase::Cancelled).then(crate::steer::order::Order::sifting);
            for core in 0..self.crossing.cores() {
                self.tell(core, || Mail::CampaignOrder(row.campaign.number)).await;
                if let Some(sift) = &sift {
                    self.tell(core, || Mail::Order(Arc::clone(sift))).await;
                }
            }
        }
        Ok(row.shown())
    }

    /// Writes counts that have changed and what could not be written before, and removes what is over. For ever.
    pub async fn run(self: Arc<Clerk>) {
        loop {
            tokio::time::sleep(SAVE_EVERY).await;
            self.note_all().await;
            let clerk = Arc::clone(&self);
            let write = move || {
                clerk.save_all();
                clerk.books.close_unused(REST);
            };
            let _ = tokio::task::spawn_blocking(write).await;
            self.remove_old().await;
        }
    }

    /// Batches that wait for the books to be written.
    async fn note_all(&self) {
        let rows: Vec<Arc<Row>> = self.rows.read().values().cloned().collect();
        for row in rows {
            // Whoever has it notes its batch itself.
            if let Ok(mut unnoted) = row.adding.try_lock() {
                // What is wrong was said to the operator, and is tried again.
                let _ = self.note(&row, &mut unnoted).await;
            }
        }
    }

    /// Those that have rested for `campaigns.keep`.
    async fn remove_old(&self) {
        let keep = self.cores.settings().config.campaigns.keep.duration();
        let rested: Vec<Arc<Row>> =
            self.rows.read().values().filter(|row| row.has_rested(keep)).cloned().collect();
        for row in rested {
            match self.remove_row(&row, keep).await {
                Ok(()) => tracing::info!(campaign = &*row.campaign.id, "over for long: removed"),
                Err(error) => tracing::warn!(campaign = &*row.campaign.id, %error, "not removed"),
            }
        }
    }

    async fn remove_row(&self, row: &Arc<Row>, rest: Duration) -> Result<(), Refused> {
        let _one = self.creating.lock().await;
        let (_nobody_orders, unnoted) = (row.ordering.lock().await, row.adding.lock().await);
        row.check_there()?;
        if row.waiting() > 0 || unnoted.is_some() {
            let what = "recipients wait for it: cancel it first";
            return Err(Refused::Conflict(what.to_owned()));
        }
        if !row.has_rested(rest) {
            let what = "it has changed within the last minute: try again when that is over";
            return Err(Refused::Conflict(what.to_owned()));
        }
        let (id, gone) = (&row.campaign.id, Arc::clone(row));
        self.rows.write().remove(id);
        let removed = self.with_books(move |books| gone.remove(books)).await;
        // Where the folder is still there, so is its number.
        if removed.is_ok() {
            self.crossing.campaigns.remove(id);
        }
        removed
    }

    /// Before we end, so that the next start knows how many were delivered and how many failed.
    pub fn save_all(&self) {
        let rows: Vec<Arc<Row>> = self.rows.read().values().cloned().collect();
        for row in rows {
            let has_changed = row.entry.lock().counts != Saved::of(&row.campaign);
            if has_changed && let Err(error) = row.save(&self.books, |_| {}) {
                let _ = broken(&error);
            }
        }
    }
}

impl Row {
    fn new(campaign: Arc<Campaign>, letter: Letter, entry: Entry) -> Row {
        Row {
            campaign,
            letter,
            entry: Mutex::new(entry),
            saving: Mutex::default(),
            ordering: tokio::sync::Mutex::default(),
            adding: tokio::sync::Mutex::default(),
            is_removed: AtomicBool::new(false),
        }
    }

    /// For whoever looked the row up before it was removed.
    fn check_there(&self) -> Result<(), Refused> {
        if self.is_removed.load(Ordering::Acquire) { Err(Refused::Unknown("campaign")) } else { Ok(()) }
    }

    fn lane(&self) -> Lane {
        self.letter.terms.lane.unwrap_or(Lane::Bulk)
    }

    fn waiting(&self) -> u64 {
        let now = Saved::of(&self.campaign);
        now.recipients.saturating_sub(now.ended())
    }

    /// Nobody waits for it, and nothing has happened to it for so long.
    fn has_rested(&self, rest: Duration) -> bool {
        let entry = self.entry.lock();
        let is_still = self.waiting() == 0 && entry.counts == Saved::of(&self.campaign);
        is_still && clock::wall() >= UnixMillis(entry.changed).plus_secs(rest.as_secs())
    }

    /// Waits for the disk, and for whoever writes the entry now; nobody does afterwards.
    fn remove(&self, books: &Books) -> Result<(), BooksError> {
        let _one = self.saving.lock();
        self.is_removed.store(true, Ordering::Release);
        books.remove(self.campaign.number)
    }

    /// Waits for the disk. Durable when this returns, with the counts as of now.
    fn save(&self, books: &Books, change: impl FnOnce(&mut Entry)) -> Result<(), BooksError> {
        let _one = self.saving.lock();
        if self.is_removed.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut entry = self.entry.lock().clone();
        change(&mut entry);
        (entry.counts, entry.changed) = (Saved::of(&self.campaign), clock::wall().0);
        books.save(self.campaign.number, &entry)?;
        *self.entry.lock() = entry;
        Ok(())
    }

    fn shown(&self) -> crate::api::Campaign {
        let Row { campaign, letter, entry, .. } = self;
        let (entry, now) = (entry.lock(), Saved::of(campaign));
        let needed = bound_of(campaign).map(|bound| bound.template().fields()).unwrap_or_default();
        crate::api::Campaign {
            id: CampaignId::parse(&campaign.id).expect("it was one when it was created"),
            phase: campaign.valve.phase(),
            created: UnixMillis(entry.created),
            sender: letter.sender.as_str().to_owned(),
            list: letter.terms.list.clone(),
            rate: entry.rate.clone().and_then(|rate| Rate::try_from(rate).ok()),
            fields: needed
                .iter()
                .filter(|field| !field.has_default)
                .map(|field| field.name.clone())
                .collect(),
            counts: Counts {
                recipients: now.recipients,
                delivered: now.delivered,
                failed: now.failed,
                waiting: self.waiting(),
                suppressed: now.suppressed,
                cancelled: now.cancelled,
            },
        }
    }
}

/// A message that names its campaign makes it, if there is none of that name, and adds its recipients to it: who has had
/// the campaign's letter does not get it again, whatever is tried again.
impl Injector for Clerk {
    fn inject(&self, injection: Injection) -> Promise<'_, Result<Injected, Refused>> {
        let Some(id) = injection.letter.terms.campaign.clone() else { return self.cores.inject(injection) };
        Box::pin(async move {
            self.gate()?;
            let Injection { letter, recipients } = injection;
            self.make(&id, NewCampaign { letter, rate: None, is_paused: false }).await?;
            let Added { duplicate, suppressed, mut rejected, .. } = self.take_in(&id, &recipients).await?;
            rejected.extend(suppressed);
            let duplicate = u32::try_from(duplicate).unwrap_or(u32::MAX);
            Ok(Injected { message: None, rejected, duplicate })
        })
    }

    fn gate(&self) -> Result<(), Refused> {
        self.cores.gate()
    }
}

impl Campaigns for Clerk {
    fn create(&self, id: CampaignId, campaign: NewCampaign) -> Promise<'_, Result<Created, Refused>> {
        Box::pin(async move { self.make(&id, campaign).await })
    }

    fn add<'a>(
        &'a self,
        id: &'a CampaignId,
        recipients: &'a [Recipient],
    ) -> Promise<'a, Result<Added, Refused>> {
        Box::pin(self.take_in(id, recipients))
    }

    fn order<'a>(
        &'a self,
        id: &'a CampaignId,
        order: Order,
    ) -> Promise<'a, Result<crate::api::Campaign, Refused>> {
        Box::pin(self.obey(id, order))
    }

    fn remove<'a>(&'a self, id: &'a CampaignId) -> Promise<'a, Result<(), Refused>> {
        Box::pin(async move {
            let row = self.row(id)?;
            self.remove_row(&row, REST).await
        })
    }

    fn get(&self, id: &CampaignId) -> Promise<'_, Result<crate::api::Campaign, Refused>> {
        let shown = self.row(id).map(|row| row.shown());
        Box::pin(async move { shown })
    }

    fn list(
        &self,
        after: Option<&CampaignId>,
        count: usize,
    ) -> Promise<'_, Result<Vec<crate::api::Campaign>, Refused>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, |after| Excluded(after.as_str()));
        let shown = self
            .rows
            .read()
            .range::<str, _>((from, Unbounded))
            .take(count)
            .map(|(_, row)| row.shown())
            .collect();
        Box::pin(async move { Ok(shown) })
    }
}

/// A letter that cannot be filled in is refused before anybody is added.
fn check_template(letter: &Letter, content: &[u8]) -> Result<(), Refused> {
    if letter.is_template { rows::compile(content).map(drop) } else { Ok(()) }
}

/// The template of a letter that names fields.
fn bound_of(campaign: &Campaign) -> Option<&Bound> {
    campaign.shared.pattern.as_deref().and_then(Pattern::bound)
}

/// `None`: all copies are the same.
fn pattern_of(entry: &Entry, content: &[u8]) -> Option<Pattern> {
    if entry.is_template {
        return rows::compile(content).ok().map(Pattern::template);
    }
    entry.unsubscribe.then(|| Pattern::plain(content))
}

fn entry_of(
    id: &CampaignId,
    new: &NewCampaign,
    (content_len, content_crc): (u64, u32),
    source_crc: u32,
) -> Entry {
    let NewCampaign { letter, rate, is_paused } = new;
    let Terms { list, lane, verp, unsubscribe, .. } = &letter.terms;
    Entry {
        format: format(),
        id: id.as_str().to_owned(),
        created: clock::wall().0,
        changed: clock::wall().0,
        sender: letter.sender.as_str().to_owned(),
        verp: verp.map(Verp::to_bytes),
        lane: lane.map(|lane| lane.name().to_owned()),
        list: list.as_ref().map(|list| list.as_str().to_owned()),
        unsubscribe: *unsubscribe,
        is_template: letter.is_template,
        shared: letter.shared.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        phase: if *is_paused { Phase::Paused } else { Phase::Running },
        rate: rate.map(|rate| rate.to_string()),
        counts: Saved::default(),
        content_len,
        content_crc,
        source_crc,
    }
}

/// The row of the table that an entry stands for.
pub fn campaign_of(
    number: CampaignNumber,
    entry: &Entry,
    content: Bytes,
    settings: &crate::settings::Settings,
    cores: usize,
) -> Campaign {
    let traits = message::Traits { sender: &entry.sender, campaign: Some(&entry.id), tenant: None };
    let shared = Shared {
        facts: ContentFacts::of(&content),
        pool: settings.sources.select(&traits),
        list: entry.list.as_deref().map(Into::into),
        unsubscribe: entry.unsubscribe,
        pattern: pattern_of(entry, &content).map(Arc::new),
        content,
    };
    let campaign = Campaign::new(number, &entry.id, UnixMillis(entry.created), shared, cores);
    campaign.valve.set_phase(entry.phase);
    let rate = entry.rate.clone().and_then(|rate| Rate::try_from(rate).ok());
    campaign.valve.set_interval(rate.map(interval_of));
    campaign
}

/// The letter of an entry that was read; `None` if what stands there is none of ours.
fn letter_of(entry: &Entry, campaign: &Campaign) -> Option<Letter> {
    let sender = match &*entry.sender {
        "" => ReversePath::Null,
        sender => ReversePath::Mailbox(Mailbox::parse(sender).ok()?),
    };
    let mut shared = Values::new();
    entry.shared.iter().try_for_each(|(name, value)| shared.push(name, value)).ok()?;
    let terms = Terms {
        campaign: CampaignId::parse(&entry.id),
        list: entry.list.as_deref().and_then(ListName::parse),
        lane: entry.lane.as_deref().and_then(|name| Lane::ALL.into_iter().find(|lane| lane.name() == name)),
        verp: entry.verp.map(Verp::from_bytes),
        unsubscribe: entry.unsubscribe,
        trace: None,
    };
    let content = Bytes::clone(&campaign.shared.content);
    Some(Letter { sender, content, is_template: entry.is_template, shared, terms })
}

fn interval_of(rate: Rate) -> Duration {
    rate.window() / rate.count()
}

/// The disk's trouble is the operator's to see.
fn broken(error: &BooksError) -> Refused {
    tracing::error!(%error, "the books of campaigns");
    Refused::Broken
}

/// What a start finds stands in the table before the first core looks at its messages.
pub fn put_up(found: &[Found], crossing: &Crossing, settings: &crate::settings::Settings) {
    for Found { number, entry, content } in found {
        let content = Bytes::copy_from_slice(content);
        let campaign = campaign_of(*number, entry, content, settings, crossing.cores());
        crossing.campaigns.insert(Arc::new(campaign));
    }
}

/// All cores have said what of it they owe.
pub fn take_up(found: &[Found], crossing: &Crossing, books: &Books) -> Result<(), BooksError> {
    let table = crossing.campaigns.table();
    for Found { number, entry, .. } in found {
        let Some(campaign) = table.get(*number) else { continue };
        campaign.take_up(books.recipients(*number)?, &entry.counts);
        // Of a thousand campaigns few are added to.
        books.close_unused(Duration::ZERO);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A campaign without recipients, and what the start would have read of it.
    fn row(books: &Books, id: &str) -> Row {
        let id = CampaignId::parse(id).unwrap();
        let letter = Letter {
            sender: ReversePath::Null,
            content: Bytes::from_static(b"Subject: x\r\n\r\n"),
            is_template: false,
            shared: Values::new(),
            terms: Terms::default(),
        };
        let content = Bytes::clone(&letter.content);
        let new = NewCampaign { letter: letter.clone(), rate: None, is_paused: false };
        let entry = entry_of(&id, &new, (content.len() as u64, crc32c(&content)), 0);
        let number = CampaignNumber(std::num::NonZeroU16::MIN);
        books.create(number, &entry, &content).unwrap();
        let shared = Shared { content, ..Shared::default() };
        let campaign = Campaign::new(number, id.as_str(), UnixMillis(entry.created), shared, 1);
        Row::new(Arc::new(campaign), letter, entry)
    }

    #[test]
    fn an_order_that_could_not_be_written_is_not_carried_out_later() {
        let folder = tempfile::tempdir().unwrap();
        let books = Books::new(folder.path(), &[7; 32]);
        let spring = row(&books, "spring");
        // A folder stands where the new file would be written.
        let in_the_way = folder.path().join("campaigns/00001/campaign.new");
        std::fs::create_dir(&in_the_way).unwrap();
        assert!(spring.save(&books, |entry| entry.phase = Phase::Cancelled).is_err());
        std::fs::remove_dir(&in_the_way).unwrap();
        spring.save(&books, |_| {}).unwrap();
        assert_eq!(books.read().unwrap()[0].entry.phase, Phase::Running);
    }

    #[test]
    fn who_still_holds_a_removed_campaign_writes_nothing_over_the_next_of_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let books = Books::new(folder.path(), &[7; 32]);
        let spring = row(&books, "spring");
        spring.save(&books, |entry| entry.phase = Phase::Paused).unwrap();
        assert_eq!(books.read().unwrap()[0].entry.phase, Phase::Paused);
        spring.remove(&books).unwrap();
        assert!(spring.check_there().is_err());
        let _summer = row(&books, "summer");
        spring.save(&books, |entry| entry.phase = Phase::Cancelled).unwrap();
        let found = books.read().unwrap();
        assert_eq!((&*found[0].entry.id, found[0].entry.phase), ("summer", Phase::Running));
    }
}
