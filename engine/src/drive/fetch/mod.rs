//! Mail that a client fetches over its own connection (ATRN, RFC 2645).
//!
//! 1. The client's core, the *home*, asks all cores for what waits for the domains. Each looks through its queue as for an
//!    operator's order (`drive/steer`) and puts what it finds aside.
//! 2. When all have answered the session hears whether there is any. If so it hands its connection over, which becomes
//!    one to a site of its own, on a way that no domain leads to and that no connection is opened for.
//! 3. What the home had is ready at that site. Each other core is a *lender*: whenever the site has run dry, it lends
//!    [`LENT_AT_A_TIME`] more chunks, as it does of a long list (`drive/share`).
//! 4. When nobody has more the session says QUIT. However it ends, what is left goes back to where its domain's mail
//!    goes, and where that is a held route it is held. What was in flight on a connection that broke does so too, with
//!    no attempt counted: nobody is to lose mail because a line was bad.
//!
//! What comes after the cores have looked waits for the next fetch. Bounds: a connection each, which counts among the site's
//! (one site for a login) and among all; an order each, of which few may wait (`drive/flush`); of another core's mail
//! [`LENT_AT_A_TIME`] messages from each core in memory.

mod home;
mod lender;

use crate::access::Seat;
use crate::clock::Clock;
use crate::core::Core;
use crate::crossing::Mail;
use crate::domains::SiteKey;
use crate::fetch::{FetchId, FetchMail};
use home::Fetch;
use lender::Aside;
use queue::Range;
use ring::{Ring, Socket};
use slab::Slab;
use smtp_in::Tunnel;

/// Messages, or parts of lists, that a core lends before it is asked again.
const LENT_AT_A_TIME: u32 = 8;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Fetches {
    /// Of this core's clients.
    at_home: Slab<Fetch>,
    generation: u32,
    /// For other cores' clients.
    aside: Vec<Aside>,
}

/// What is left of an incoming session when its connection is to go the other way.
#[derive(Debug)]
pub(crate) struct Handed {
    pub(crate) socket: Socket,
    pub(crate) tunnel: Option<Tunnel>,
    /// Octets that the session did not use.
    pub(crate) held: Vec<u8>,
    pub(crate) seat: Option<Seat>,
}

/// What an outgoing connection has to remember that a client made.
#[derive(Debug)]
pub(crate) struct Reversed {
    fetch: u32,
    /// It counts among its address's connections as before.
    _seat: Option<Seat>,
}

impl Reversed {
    pub(crate) fn fetch(&self) -> u32 {
        self.fetch
    }
}

impl Fetches {
    /// Every range that was put aside for another core.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = &Range> {
        self.aside.iter().flat_map(Aside::ranges)
    }

    /// True if the domain's mail may go over the connection of that fetch.
    pub(crate) fn is_for(&self, fetch: u32, domain: &str) -> bool {
        self.at_home.get(fetch as usize).is_some_and(|fetch| fetch.is_for(domain))
    }

    /// Sites over which the domain's mail goes now because somebody fetches it. A look at each fetch.
    pub(crate) fn sites_for(&self, domain: &str) -> impl Iterator<Item = SiteKey> {
        self.at_home.iter().filter(move |(_, fetch)| fetch.is_for(domain)).map(|(_, fetch)| fetch.site())
    }

    /// More is on its way to the connection.
    pub(crate) fn is_lent_to(&self, reversed: &Reversed) -> bool {
        self.at_home.get(reversed.fetch as usize).is_some_and(Fetch::is_lent_to)
    }

    fn home(&mut self, id: FetchId) -> Option<(u32, &mut Fetch)> {
        let fetch = self.at_home.get_mut(id.index as usize)?;
        fetch.is_it(id).then_some((id.index, fetch))
    }

    fn aside(&mut self, id: FetchId) -> Option<&mut Aside> {
        self.aside.iter_mut().find(|aside| aside.is_for(id))
    }
}

impl<R: Ring, C: Clock> Core<R, C> {
    fn tell_of_fetch(&mut self, core: usize, mail: FetchMail) {
        if core == self.index {
            self.on_fetch_mail(mail)
        } else {
            self.send_in_order(core, Mail::Fetch(Box::new(mail)))
        }
    }

    pub(crate) fn on_fetch_mail(&mut self, mail: FetchMail) {
        match mail {
            FetchMail::Ask(order) => self.look_for_fetch(order),
            FetchMail::Found { id, core, recipients } => self.on_found(id, core, recipients),
            FetchMail::More(id) => self.lend_more(id),
            FetchMail::Lent { id, chunk } => self.on_lent(id, chunk),
            FetchMail::Paused { id, core, has_more } => self.on_paused(id, core, has_more),
            FetchMail::Over(id) => self.put_back_aside(id),
        }
    }

    /// A sweep has found a range that is to be fetched.
    pub(crate) fn put_aside(&mut self, id: FetchId, range: Range) {
        if id.home == self.index {
            return self.make_ready_to_fetch(id, range);
        }
        match self.fetches.aside(id) {
            Some(aside) => aside.push(range),
            None => self.offer_range(range),
        }
    }
}
