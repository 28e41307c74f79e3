//! The messages that are owed to somebody: the queue's state in memory, a fold over log and journal.
//!
//! Knows of each message how many recipients are neither delivered nor failed; which ones they are is known by the
//! ranges that wait in a site's queue, in the schedule or in a session. Bound: 64 bytes a message here.

use crate::fanout::Handling;
use crate::log::record::{HEAD_LEN, Head, Layout, Location};
use message::{CampaignNumber, Class, ContentFacts, Flow, Lane, MessageId, PoolTag, UnixMillis};
use slab::Slab;
use std::num::NonZeroU16;

/// A message's number in its core's [`Store`]; used again after the message ended.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MessageKey(pub u32);

/// What is known of a queued message without reading it.
#[derive(Clone, Copy, Debug)]
pub struct Queued {
    pub id: MessageId,
    /// Where its record lies now.
    pub location: Location,
    /// Milliseconds since 1970 in 48 bits, and the pool or the campaign above them.
    arrived_and_pool: u64,
    pub meta_len: u32,
    pub content_len: u32,
    pub facts: ContentFacts,
    /// [`SMTPUTF8`], [`VERP`], [`REQUIRETLS`], [`ASKED`], [`CAMPAIGN`], [`TABLE`] and, from [`LANE_SHIFT`] on, the lane.
    flags: u8,
    flow: Flow,
    /// Recipients neither delivered nor failed.
    pub owed: u32,
}

const _: () = assert!(size_of::<Queued>() <= 40);

const ARRIVED_BITS: u32 = 48;
const SMTPUTF8: u8 = 1;
const VERP: u8 = 2;
const REQUIRETLS: u8 = 4;
const LANE_SHIFT: u32 = 3;
const ASKED: u8 = 32;
const CAMPAIGN: u8 = 64;
const TABLE: u8 = 128;

impl Queued {
    fn new(head: &Head, owed: u32) -> Queued {
        let flags = (u8::from(head.smtputf8) * SMTPUTF8)
            | (u8::from(head.layout.verp) * VERP)
            | (u8::from(head.requires_tls) * REQUIRETLS)
            | (u8::from(head.layout.asked) * ASKED)
            | (u8::from(head.class.campaign.is_some()) * CAMPAIGN)
            | (u8::from(head.layout.table) * TABLE)
            | (head.lane.to_bits() << LANE_SHIFT);
        let arrived = head.arrived.0.min((1 << ARRIVED_BITS) - 1);
        let Class { pool, campaign, .. } = head.class;
        let pool_or_campaign = campaign.map_or(pool.0, |campaign| campaign.0.get());
        Queued {
            id: head.id,
            location: head.bound.location,
            arrived_and_pool: arrived | u64::from(pool_or_campaign) << ARRIVED_BITS,
            meta_len: head.meta_len,
            content_len: head.content_len,
            facts: head.facts,
            flags,
            flow: head.class.flow,
            owed,
        }
    }

    pub fn arrived(&self) -> UnixMillis {
        UnixMillis(self.arrived_and_pool & ((1 << ARRIVED_BITS) - 1))
    }

    fn pool_or_campaign(&self) -> u16 {
        u16::try_from(self.arrived_and_pool >> ARRIVED_BITS).expect("16 bits are left")
    }

    /// Of a message of a campaign the default one: the campaign knows its pool.
    pub fn pool(&self) -> PoolTag {
        if self.flags & CAMPAIGN != 0 { PoolTag::DEFAULT } else { PoolTag(self.pool_or_campaign()) }
    }

    pub fn campaign(&self) -> Option<CampaignNumber> {
        let number = NonZeroU16::new(self.pool_or_campaign()).filter(|_| self.flags & CAMPAIGN != 0);
        number.map(CampaignNumber)
    }

    pub fn flow(&self) -> Flow {
        self.flow
    }

    pub fn lane(&self) -> Lane {
        Lane::from_bits(self.flags >> LANE_SHIFT)
    }

    /// How its meta part is read.
    pub fn layout(&self) -> Layout {
        Layout {
            verp: self.flags & VERP != 0,
            asked: self.flags & ASKED != 0,
            table: self.flags & TABLE != 0,
        }
    }

    /// What its deliveries need to know of it besides its content.
    pub fn handling(&self) -> Handling {
        Handling {
            smtputf8: self.flags & SMTPUTF8 != 0,
            requires_tls: self.flags & REQUIRETLS != 0,
            lane: self.lane(),
            class: Class { pool: self.pool(), flow: self.flow, campaign: self.campaign() },
        }
    }

    pub fn meta_offset(&self) -> u64 {
        self.location.offset() + HEAD_LEN as u64
    }

    pub fn content_offset(&self) -> u64 {
        self.meta_offset() + u64::from(self.meta_len)
    }

    /// Bytes of its record, without the padding.
    pub fn record_len(&self) -> u64 {
        HEAD_LEN as u64 + u64::from(self.meta_len) + u64::from(self.content_len)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Store {
    messages: Slab<Queued>,
    owed: u64,
}

impl Store {
    /// Takes up a durable message of which `owed` recipients are left.
    pub fn admit(&mut self, head: &Head, owed: u32) -> MessageKey {
        self.owed += u64::from(owed);
        let key = self.messages.insert(Queued::new(head, owed));
        MessageKey(
            u32::try_from(key)
                .expect("a partition has fewer than 2^32 messages: its places are 64 bytes apart"),
        )
    }

    pub fn get(&self, key: MessageKey) -> Option<&Queued> {
        self.messages.get(key.0 as usize)
    }

    /// The message's record was copied to `location`. Returns where it was; `None` if the message has ended meanwhile.
    pub fn relocate(&mut self, key: MessageKey, id: MessageId, location: Location) -> Option<Location> {
        let message = self.messages.get_mut(key.0 as usize).filter(|message| message.id == id)?;
        Some(std::mem::replace(&mut message.location, location))
    }

    /// Up to `count` places of the table from `from` on: what is in them, and where to go on; `None` behind the last.
    /// For walks that are spread over many turns.
    pub fn slice(
        &self,
        from: usize,
        count: usize,
    ) -> (impl Iterator<Item = (MessageKey, &Queued)>, Option<usize>) {
        let end = from.saturating_add(count).min(self.messages.capacity());
        let found = (from..end)
            .filter_map(|key| Some((MessageKey(u32::try_from(key).ok()?), self.messages.get(key)?)));
        (found, (end < self.messages.capacity()).then_some(end))
    }

    /// `count` more recipients are delivered or failed. Returns the message if they were the last.
    pub fn settle(&mut self, key: MessageKey, count: u32) -> Option<Queued> {
        let message = self.messages.get_mut(key.0 as usize)?;
        message.owed = message.owed.checked_sub(count).expect("a recipient is settled once");
        self.owed -= u64::from(count);
        if message.owed > 0 {
            return None;
        }
        Some(self.messages.remove(key.0 as usize))
    }

    pub fn messages(&self) -> usize {
        self.messages.len()
    }

    /// Recipients owed.
    pub fn owed(&self) -> u64 {
        self.owed
    }

    pub fn iter(&self) -> impl Iterator<Item = (MessageKey, &Queued)> {
        self.messages.iter().map(|(key, queued)| (MessageKey(u32::try_from(key).unwrap_or(u32::MAX)), queued))
    }
}
