//! HTTP for programs: injection, campaigns, the suppression list, and the page where recipients unsubscribe.
//!
//! Everything between the socket and a few interfaces: [`Injector`], [`Campaigns`]. What goes through them has been read
//! and checked; what comes back says by its type what the client is told. It runs on a thread of its own, so that a
//! million records on their way in hold up no look-up of a domain.

mod body;
mod campaigns;
mod content;
pub mod cores;
pub mod desk;
mod gate;
mod inject;
mod leaving;
mod letter;
pub mod recipients;
mod reply;
mod request;
pub mod router;
pub(crate) mod rows;
pub mod serve;
mod suppressions;
mod terms;
pub(crate) mod thread;
pub mod unsubscribe;
pub mod values;

pub use crate::campaigns::Phase;
pub use letter::fuzz_inject_request;
pub use terms::{CampaignId, Letter, ListName, NotAName, Recipient, Terms};
pub use values::Values;

use crate::config::Rate;
use message::{Mailbox, MessageId, UnixMillis};
use std::pin::Pin;

/// What an interface answers in its own time. Dropped when the client goes: what was asked may be done all the same.
pub type Promise<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why something was not done. What the client is told follows from it alone.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refused {
    /// 429: the client comes again later.
    #[error("memory, disk or backlog is over its mark")]
    Full,
    /// 503: nothing is taken until a restart, or we are stopping.
    #[error("no mail is taken now")]
    Broken,
    /// 404
    #[error("there is no such {0}")]
    Unknown(&'static str),
    /// 409: what is there says otherwise.
    #[error("{0}")]
    Conflict(String),
    /// 422: `place` as a client would write it, such as `content.text_body` or `recipients[17].email`.
    #[error("{place}: {what}")]
    Unfit { place: String, what: String },
}

/// Messages that are no campaign's.
pub trait Injector: Send + Sync {
    /// Answered when the message is durable for all of `injected` recipients.
    fn inject(&self, injection: Injection) -> Promise<'_, Result<Injected, Refused>>;

    /// Whether an injection would be taken now: asked before a long body is read.
    fn gate(&self) -> Result<(), Refused>;
}

/// One message to some recipients.
#[derive(Debug)]
pub struct Injection {
    pub letter: Letter,
    pub recipients: Vec<Recipient>,
}

/// What became of one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Injected {
    /// `None`: there was nobody left to send to.
    pub message: Option<MessageId>,
    pub rejected: Vec<Rejected>,
    /// How many have the message already: its campaign named them before.
    pub duplicate: u32,
}

/// A recipient who is not written to, while the others are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rejected {
    /// Among those who were given.
    pub place: u32,
    pub mailbox: Mailbox,
    /// With the member of the recipient that it is about: `substitutions: …`, `email: …`.
    pub what: String,
}

/// List jobs that have a name. A recipient is in one of them once, however often he is added.
pub trait Campaigns: Send + Sync {
    /// The same campaign again is no error; another one under its name is [`Refused::Conflict`].
    fn create(&self, id: CampaignId, campaign: NewCampaign) -> Promise<'_, Result<Created, Refused>>;

    /// Answered when all of them are durable. One that is refused may have added some: who is offered again is a
    /// duplicate.
    fn add<'a>(
        &'a self,
        id: &'a CampaignId,
        recipients: &'a [Recipient],
    ) -> Promise<'a, Result<Added, Refused>>;

    /// Answered when the order is durable.
    fn order<'a>(&'a self, id: &'a CampaignId, order: Order) -> Promise<'a, Result<Campaign, Refused>>;

    /// Forgets it, and who was in it. [`Refused::Conflict`] while somebody waits for it, and for a minute after its last
    /// change.
    fn remove<'a>(&'a self, id: &'a CampaignId) -> Promise<'a, Result<(), Refused>>;

    fn get<'a>(&'a self, id: &'a CampaignId) -> Promise<'a, Result<Campaign, Refused>>;

    /// At most `count`, in the order of their names, behind `after`.
    fn list<'a>(
        &'a self,
        after: Option<&'a CampaignId>,
        count: usize,
    ) -> Promise<'a, Result<Vec<Campaign>, Refused>>;
}

/// A campaign as it is created.
#[derive(Clone, Debug)]
pub struct NewCampaign {
    pub letter: Letter,
    /// Recipients to begin in any window of that length.
    pub rate: Option<Rate>,
    /// Nothing goes out before it is resumed.
    pub is_paused: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Created {
    New,
    /// It was there already, the same in everything.
    Before,
}

/// What became of recipients: every one is one of these.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Added {
    pub new: u64,
    /// In the campaign before.
    pub duplicate: u64,
    /// Not written to, and not recipients of it.
    pub suppressed: Vec<Rejected>,
    /// What the letter wants of them is not there, or may not stand where it wants it.
    pub rejected: Vec<Rejected>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Order {
    Pause,
    Resume,
    /// For good: who was not served is not written to.
    Cancel,
    Rate(Option<Rate>),
}

/// A campaign as it stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Campaign {
    pub id: CampaignId,
    pub phase: Phase,
    pub created: UnixMillis,
    pub sender: String,
    pub list: Option<ListName>,
    pub rate: Option<Rate>,
    /// Fields that its letter names and has no default for: each recipient must bring them.
    pub fields: Vec<Box<str>>,
    pub counts: Counts,
}

/// Of a campaign's recipients.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// All that were ever added.
    pub recipients: u64,
    pub delivered: u64,
    pub failed: u64,
    /// Neither delivered nor failed nor taken out.
    pub waiting: u64,
    /// Not written to: a list said so between their injection and their turn. Whom a list names at injection is told in its
    /// answer, and is no recipient.
    pub suppressed: u64,
    /// Taken out by a cancel or by an operator.
    pub cancelled: u64,
}
