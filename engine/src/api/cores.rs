//! Injection into the cores' logs: what costs time with a message is done here, on the API's thread.
//!
//! Cores take turns; each answers when the commit that the message is in is durable. A message whose letter names
//! fields is stored once with the values of each recipient; copies are made as they are sent.

use super::rows::{self, Rows};
use super::{Injected, Injection, Injector, Letter, Promise, Recipient, Refused, Rejected, Terms};
use crate::clock;
use crate::crossing::{Crossing, Mail};
use crate::drive::inject::{Injected as OnItsWay, Outcome, Waiting};
use crate::drive::log::Incoming;
use crate::settings::Settings;
use bytes::Bytes;
use message::compose::{FixUp, Stamp, Unique, Zone, fix_up};
use message::header::{fields, priority};
use message::received::{Peer, Received};
use message::{BodyKind, ContentFacts, Envelope, Lane, MailAsked, MessageId, Recipients, Wish};
use parking_lot::RwLock;
use smtp_in::Stored;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::sync::oneshot;

/// See the module.
pub struct Cores {
    crossing: Arc<Crossing>,
    settings: RwLock<Arc<Settings>>,
    next: AtomicUsize,
    /// Makes Message-IDs that nobody can guess.
    chance: RandomState,
    serial: AtomicU64,
}

impl Cores {
    pub fn new(crossing: Arc<Crossing>, settings: Arc<Settings>) -> Cores {
        Cores {
            crossing,
            settings: RwLock::new(settings),
            next: AtomicUsize::new(0),
            chance: RandomState::new(),
            serial: AtomicU64::new(0),
        }
    }

    /// After a reload.
    pub fn configure(&self, settings: Arc<Settings>) {
        *self.settings.write() = settings;
    }

    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read())
    }

    /// A core's log failed: what it was writing may be found at the next start, so nothing is tried again before.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.crossing.counters.iter().any(|counters| counters.poisoned.get() != 0)
    }

    /// Hands a message to the next core. Answered when it is durable.
    pub(crate) fn take(
        &self,
        incoming: Incoming,
    ) -> impl Future<Output = Result<MessageId, Refused>> + use<> {
        self.take_with(incoming, 0)
    }

    /// `fields_len`: octets on top of its content that are ours.
    fn take_with(
        &self,
        incoming: Incoming,
        fields_len: u32,
    ) -> impl Future<Output = Result<MessageId, Refused>> + use<> {
        let (reply, answer) = oneshot::channel();
        let injected = OnItsWay { incoming, waiting: Waiting { reply, fields_len } };
        let core = self.next.fetch_add(1, Ordering::Relaxed) % self.crossing.cores();
        let sent = self.crossing.send(core, Mail::Inject(Box::new(injected)));
        async move {
            sent.map_err(|_| Refused::Full)?;
            let outcome: Outcome = answer.await.map_err(|_| Refused::Broken)?;
            outcome.map_err(|outcome| match outcome {
                Stored::Full => Refused::Full,
                Stored::Accepted(_) | Stored::Failed | Stored::Refused(_) => Refused::Broken,
            })
        }
    }

    /// The message as a core takes it, how many octets on top of its content are ours, and whom it is not for.
    fn incoming(&self, injection: Injection) -> Result<(Incoming, u32, Vec<Rejected>), Refused> {
        let Injection { letter, recipients } = injection;
        let settings = self.settings();
        let (content, fields_len) = self.content(&settings, &letter);
        let bound = letter.is_template.then(|| rows::compile(&content)).transpose()?;
        let mut rows = Rows::new(bound.as_ref(), &letter.shared)?;
        let lane = lane_of(&settings, &letter, recipients.len(), &content);
        let exempt = settings.suppression.exempts(&letter.sender, lane);
        let is_suppressed = |recipient: &Recipient| !exempt && self.is_suppressed(&letter, recipient);
        let rejected = rows.push_all(&recipients, is_suppressed);
        let list = rows.list;
        let facts = ContentFacts::of(&content);
        let envelope = envelope(&letter, lane, list, facts);
        let class = settings.class_of(&envelope, &content);
        Ok((Incoming::new(envelope, class, facts, content), fields_len, rejected))
    }

    /// As far as that is known at once; others are looked at before anything is sent to them.
    fn is_suppressed(&self, letter: &Letter, recipient: &Recipient) -> bool {
        let Some(suppression) = self.crossing.suppression.get() else { return false };
        let list = letter.terms.list.as_ref().map(|list| list.as_str()).unwrap_or_default();
        suppression.is_suppressed(list, recipient.mailbox.as_ref())
    }

    /// With what a submission lacks (RFC 6409 §8), and with the fields that its terms ask for on top.
    pub(crate) fn content(&self, settings: &Settings, letter: &Letter) -> (Bytes, u32) {
        let content = match self.mended(settings, &letter.content) {
            Some(mended) => Bytes::from(mended),
            None => Bytes::clone(&letter.content),
        };
        let on_top = on_top(settings, &letter.terms, &content);
        let fields_len = u32::try_from(on_top.len()).expect("three fields");
        if on_top.is_empty() {
            (content, 0)
        } else {
            (Bytes::from([&on_top, &content[..]].concat()), fields_len)
        }
    }

    fn mended(&self, settings: &Settings, content: &[u8]) -> Option<Vec<u8>> {
        let hosts = settings.hosts.as_ref()?;
        let now = Stamp { at: clock::wall(), zone: Zone::Universal };
        let serial = self.chance.hash_one(self.serial.fetch_add(1, Ordering::Relaxed));
        fix_up(content, &FixUp { hosts, now, unique: Unique { process: std::process::id(), serial } })
    }
}

impl Injector for Cores {
    fn inject(&self, injection: Injection) -> Promise<'_, Result<Injected, Refused>> {
        Box::pin(async move {
            self.gate()?;
            let (incoming, fields_len, rejected) = self.incoming(injection)?;
            if incoming.recipients == 0 {
                return Ok(Injected { message: None, rejected, duplicate: 0 });
            }
            let id = self.take_with(incoming, fields_len).await?;
            Ok(Injected { message: Some(id), rejected, duplicate: 0 })
        })
    }

    fn gate(&self) -> Result<(), Refused> {
        let is_poisoned = self.is_poisoned();
        let is_over = || self.crossing.backlog() > self.settings().config.intake.backlog_max;
        match is_poisoned {
            true => Err(Refused::Broken),
            false if is_over() => Err(Refused::Full),
            false => Ok(()),
        }
    }
}

fn envelope(letter: &Letter, lane: Lane, recipients: Recipients, facts: ContentFacts) -> Envelope {
    let Letter { sender, terms, .. } = letter;
    Envelope {
        reverse_path: sender.clone(),
        verp: terms.verp,
        body: if facts.has_eight_bit() { BodyKind::EightBitMime } else { BodyKind::SevenBit },
        smtputf8: false,
        requires_tls: false,
        lane,
        asked: MailAsked::default(),
        recipients,
    }
}

/// Trace field, campaign and list (RFC 2919), where the content does not say it itself.
fn on_top(settings: &Settings, terms: &Terms, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(address) = terms.trace {
        trace(address, &settings.config.host_name, &mut out);
    }
    let has = |name: &str| fields(content).any(|field| field.name.eq_ignore_ascii_case(name.as_bytes()));
    if let Some(campaign) = terms.campaign.as_ref().filter(|_| !has("X-Campaign-ID")) {
        out.extend_from_slice(format!("X-Campaign-ID: {}\r\n", campaign.as_str()).as_bytes());
    }
    if let Some(list) = terms.list.as_ref().filter(|_| !has("List-Id") && !has("X-List")) {
        let name = list.as_str();
        // An id of a list has a dot (RFC 2919 §2); what has none is told by the other field that `message::list_of` reads.
        let field = if name.contains('.') { format!("List-Id: <{name}>") } else { format!("X-List: {name}") };
        out.extend_from_slice(format!("{field}\r\n").as_bytes());
    }
    out
}

fn lane_of(settings: &Settings, letter: &Letter, count: usize, content: &[u8]) -> Lane {
    let (verp, bulk_recipients) = (letter.terms.verp.is_some(), settings.config.lanes.bulk_recipients);
    let recipients = u32::try_from(count).unwrap_or(u32::MAX);
    let wish = || Wish { priority: priority(content), verp, recipients, bulk_recipients };
    letter.terms.lane.unwrap_or_else(|| wish().lane())
}

/// The client calls itself nothing: its address stands for a name.
fn trace(address: IpAddr, by: &str, out: &mut Vec<u8>) {
    let helo = match address {
        IpAddr::V4(ip) => format!("[{ip}]"),
        IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
    };
    let from = Peer::Net { address, name: None, ident: None };
    Received { helo: &helo, from, tls: None, by, with: "HTTP", at: clock::wall() }.render(out);
}
