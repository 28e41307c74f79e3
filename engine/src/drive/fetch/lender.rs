//! The cores that have mail for another core's client.

use super::LENT_AT_A_TIME;
use crate::clock::Clock;
use crate::core::Core;
use crate::fetch::{FetchId, FetchMail};
use crate::steer::order::Order;
use queue::Range;
use queue::fanout::OpenRange;
use ring::Ring;
use std::collections::VecDeque;
use std::sync::Arc;

/// What is put aside for one client of another core's.
#[derive(Debug)]
pub(super) struct Aside {
    id: FetchId,
    ranges: VecDeque<Range>,
    /// Chunks that the home still wants.
    wanted: u32,
    /// The message that is lent next is being read.
    is_reading: bool,
}

impl Aside {
    pub(super) fn is_for(&self, id: FetchId) -> bool {
        self.id == id
    }

    pub(super) fn push(&mut self, range: Range) {
        self.ranges.push_back(range);
    }

    pub(super) fn ranges(&self) -> impl Iterator<Item = &Range> {
        self.ranges.iter()
    }
}

impl<R: Ring, C: Clock> Core<R, C> {
    /// The home, too, looks in this way.
    pub(super) fn look_for_fetch(&mut self, order: Arc<Order>) {
        let Some(id) = order.fetch.as_ref().map(|wanted| wanted.id) else { return };
        if !self.steering.take_clients_order(order) {
            return self.tell_found(id, None);
        }
        if id.home != self.index {
            self.fetches.aside.push(Aside { id, ranges: VecDeque::new(), wanted: 0, is_reading: false });
        }
    }

    /// The sweep is over.
    pub(crate) fn tell_found(&mut self, id: FetchId, recipients: Option<u64>) {
        let core = self.index;
        if recipients.is_none_or(|recipients| recipients == 0) {
            self.put_back_aside(id);
        }
        self.tell_of_fetch(id.home, FetchMail::Found { id, core, recipients });
    }

    pub(super) fn lend_more(&mut self, id: FetchId) {
        if let Some(aside) = self.fetches.aside(id) {
            aside.wanted = LENT_AT_A_TIME;
        }
        self.lend_aside(id);
    }

    /// Lends until enough was lent, or the next message must be read.
    fn lend_aside(&mut self, id: FetchId) {
        while let Some(aside) = self.fetches.aside(id).filter(|aside| !aside.is_reading) {
            let next = if aside.wanted > 0 { aside.ranges.pop_front() } else { None };
            let Some(range) = next else { return self.pause_lending(id) };
            match self.open_now(range) {
                Some(open) => self.lend_to_home(id, open),
                None => {
                    if let Some(aside) = self.fetches.aside(id) {
                        aside.is_reading = true;
                    }
                    self.load_to_lend(id, range);
                }
            }
        }
    }

    fn pause_lending(&mut self, id: FetchId) {
        let Some(aside) = self.fetches.aside(id) else { return };
        let (core, has_more) = (self.index, !aside.ranges.is_empty());
        if !has_more {
            self.fetches.aside.retain(|aside| !aside.is_for(id));
        }
        self.tell_of_fetch(id.home, FetchMail::Paused { id, core, has_more });
    }

    /// As much of a list as other chunks have; the rest comes next.
    fn lend_to_home(&mut self, id: FetchId, mut open: OpenRange) {
        let Some(part) = open.split(self.settings.config.delivery.share_len) else {
            // No name of it can be read.
            return self.offer_range(open.range());
        };
        if let Some(aside) = self.fetches.aside(id) {
            aside.wanted = aside.wanted.saturating_sub(1);
            if !open.is_done() {
                aside.ranges.push_front(open.range());
            }
        }
        let chunk = self.chunk_of(part);
        self.tell_of_fetch(id.home, FetchMail::Lent { id, chunk });
    }

    /// What was to be lent has been read.
    pub(crate) fn lend_read(&mut self, id: FetchId, open: OpenRange) {
        match self.fetches.aside(id) {
            Some(_) => self.lend_to_home(id, open),
            None => self.offer_range(open.range()),
        }
    }

    /// Nothing is being read for it any more.
    pub(crate) fn go_on_lending(&mut self, id: FetchId) {
        if let Some(aside) = self.fetches.aside(id) {
            aside.is_reading = false;
        }
        self.lend_aside(id);
    }

    /// What is still aside waits as it did before.
    pub(super) fn put_back_aside(&mut self, id: FetchId) {
        let Some(at) = self.fetches.aside.iter().position(|aside| aside.is_for(id)) else { return };
        let aside = self.fetches.aside.swap_remove(at);
        aside.ranges.into_iter().for_each(|range| self.offer_range(range));
    }
}
