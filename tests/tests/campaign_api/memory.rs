//! Campaigns that are kept in memory, and a listener that serves them: what HTTP does before and behind them is the same.

use engine::access::{Counts as Seats, SessionLimits};
use engine::api::desk::{Desk, Interfaces, Rules};
use engine::api::router::router;
use engine::api::serve::{Encryption, Front, serve};
use engine::api::{
    Added, Campaign, CampaignId, Campaigns, Counts, Created, Injected, Injection, Injector, NewCampaign,
    Order, Phase, Promise, Recipient, Refused, Rejected,
};
use engine::config::Config;
use message::{MessageId, UnixMillis};
use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One campaign.
struct Kept {
    new: NewCampaign,
    shown: Campaign,
    mailboxes: HashSet<String>,
}

/// See the module. With `remembers` off, recipients are counted and forgotten.
#[derive(Default)]
pub(crate) struct Memory {
    kept: Mutex<BTreeMap<CampaignId, Kept>>,
    /// What `add` answers instead of adding, one after the other.
    refusals: Mutex<Vec<Refused>>,
    forgets: bool,
    /// Added in this order, with their values, if they are remembered.
    pub added: Mutex<Vec<Recipient>>,
    pub batches: Mutex<Vec<usize>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    pub(crate) fn forgetful() -> Memory {
        Memory { forgets: true, ..Memory::default() }
    }

    /// The next batches get this answer.
    pub(crate) fn refuse(&self, refused: &Refused, times: usize) {
        lock(&self.refusals).extend(std::iter::repeat_n(refused.clone(), times));
    }

    fn take(&self, id: &CampaignId, recipients: &[Recipient]) -> Result<Added, Refused> {
        if let Some(refused) = lock(&self.refusals).pop() {
            return Err(refused);
        }
        let mut kept = lock(&self.kept);
        let kept = kept.get_mut(id).ok_or(Refused::Unknown("campaign"))?;
        let mut added = Added::default();
        for recipient in recipients {
            let address = recipient.mailbox.to_string();
            if address.ends_with("@suppressed.test") {
                let what = "email: it is on the suppression list".to_owned();
                added.suppressed.push(Rejected { place: 0, mailbox: recipient.mailbox.clone(), what });
            } else if self.forgets || kept.mailboxes.insert(address) {
                added.new += 1;
            } else {
                added.duplicate += 1;
            }
        }
        kept.shown.counts.recipients += added.new;
        kept.shown.counts.waiting += added.new;
        lock(&self.batches).push(recipients.len());
        if !self.forgets {
            lock(&self.added).extend_from_slice(recipients);
        }
        Ok(added)
    }

    fn make(&self, id: CampaignId, new: NewCampaign) -> Result<Created, Refused> {
        let mut all = lock(&self.kept);
        if let Some(kept) = all.get(&id) {
            let is_same = kept.new.letter == new.letter && kept.new.rate == new.rate;
            return if is_same {
                Ok(Created::Before)
            } else {
                Err(Refused::Conflict("there is another one".into()))
            };
        }
        let fields = message::merge::Template::compile(&new.letter.content).map_or_else(
            |_| Vec::new(),
            |template| {
                template
                    .fields()
                    .iter()
                    .filter(|field| !field.has_default)
                    .map(|field| field.name.clone())
                    .collect()
            },
        );
        let shown = Campaign {
            id: id.clone(),
            phase: if new.is_paused { Phase::Paused } else { Phase::Running },
            created: UnixMillis(0),
            sender: new.letter.sender.as_str().to_owned(),
            list: new.letter.terms.list.clone(),
            rate: new.rate,
            fields,
            counts: Counts::default(),
        };
        all.insert(id, Kept { new, shown, mailboxes: HashSet::new() });
        Ok(Created::New)
    }

    fn obey(&self, id: &CampaignId, order: Order) -> Result<Campaign, Refused> {
        let mut all = lock(&self.kept);
        let shown = &mut all.get_mut(id).ok_or(Refused::Unknown("campaign"))?.shown;
        if shown.phase == Phase::Cancelled && order != Order::Cancel {
            return Err(Refused::Conflict("the campaign is cancelled".into()));
        }
        match order {
            Order::Pause => shown.phase = Phase::Paused,
            Order::Resume => shown.phase = Phase::Running,
            Order::Cancel => shown.phase = Phase::Cancelled,
            Order::Rate(rate) => shown.rate = rate,
        }
        Ok(shown.clone())
    }

    pub(crate) fn shown(&self, id: &CampaignId) -> Result<Campaign, Refused> {
        lock(&self.kept).get(id).map(|kept| kept.shown.clone()).ok_or(Refused::Unknown("campaign"))
    }
}

impl Campaigns for Memory {
    fn create(&self, id: CampaignId, campaign: NewCampaign) -> Promise<'_, Result<Created, Refused>> {
        let created = self.make(id, campaign);
        Box::pin(async { created })
    }

    fn add<'a>(
        &'a self,
        id: &'a CampaignId,
        recipients: &'a [Recipient],
    ) -> Promise<'a, Result<Added, Refused>> {
        let added = self.take(id, recipients);
        Box::pin(async { added })
    }

    fn order<'a>(&'a self, id: &'a CampaignId, order: Order) -> Promise<'a, Result<Campaign, Refused>> {
        let shown = self.obey(id, order);
        Box::pin(async { shown })
    }

    fn remove<'a>(&'a self, id: &'a CampaignId) -> Promise<'a, Result<(), Refused>> {
        let mut kept = lock(&self.kept);
        let removed = match kept.get(id) {
            None => Err(Refused::Unknown("campaign")),
            Some(kept) if kept.shown.counts.waiting > 0 => Err(Refused::Conflict("somebody waits".into())),
            Some(_) => {
                kept.remove(id);
                Ok(())
            }
        };
        Box::pin(async { removed })
    }

    fn get<'a>(&'a self, id: &'a CampaignId) -> Promise<'a, Result<Campaign, Refused>> {
        let shown = self.shown(id);
        Box::pin(async { shown })
    }

    fn list<'a>(
        &'a self,
        after: Option<&'a CampaignId>,
        count: usize,
    ) -> Promise<'a, Result<Vec<Campaign>, Refused>> {
        let all = lock(&self.kept);
        let behind = all.values().filter(|kept| after.is_none_or(|after| kept.shown.id > *after));
        let page = behind.take(count).map(|kept| kept.shown.clone()).collect();
        Box::pin(async { Ok(page) })
    }
}

/// Takes everything, keeps nothing.
pub(crate) struct Anything;

impl Injector for Anything {
    fn inject(&self, _: Injection) -> Promise<'_, Result<Injected, Refused>> {
        Box::pin(async { Ok(Injected { message: Some(MessageId(1)), rejected: Vec::new(), duplicate: 0 }) })
    }

    fn gate(&self) -> Result<(), Refused> {
        Ok(())
    }
}

/// A listener for them, for as long as the process lasts.
pub(crate) fn listen(memory: &Arc<Memory>, config: &str) -> SocketAddr {
    let config = format!("queue = \"/nonexistent\"\n{config}");
    let config: Config = engine::config::parse(&config, "test").expect("a configuration");
    let campaigns = Arc::clone(memory) as Arc<dyn Campaigns>;
    let interfaces =
        Interfaces { injector: Arc::new(Anything), campaigns: Some(campaigns), suppression: None };
    let desk = Arc::new(Desk::new(interfaces, Arc::new(Rules::without_tokens(&config)), None));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    listener.set_nonblocking(true).expect("a socket");
    let front = Front {
        router: router(desk),
        encryption: Encryption::default(),
        limits: SessionLimits::default(),
        counts: Arc::<Seats>::default(),
        idle: Duration::from_secs(30),
    };
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (_stop, stopping) = tokio::sync::watch::channel(false);
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            serve(listener, front, stopping).await;
        });
    });
    address
}
