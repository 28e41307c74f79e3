//! Mail for a domain is tried now: its host is up (ETRN, RFC 1985), or the operator says so (`queue flush DOMAIN`).
//!
//! Both are orders to all cores (`drive/steer`): what is deferred for the domain goes to its site, which no longer
//! waits for its back-off to end. An order of a client's is one that nobody hears the report of. Bound:
//! [`CLIENTS_ORDERS_MAX`] orders wait on a core when a client's is taken, and never two that are equal; past it the client's
//! is left out, and the mail goes when it is due. (A client that fetches its mail, `drive/fetch`, is told to try later.)

use crate::clock::Clock;
use crate::core::Core;
use crate::crossing::Mail;
use crate::steer::condition::{Pattern, Term, TextField};
use crate::steer::order::{Action, Order, Page};
use crate::steer::wire::Checked;
use ring::Ring;
use std::sync::Arc;

/// A sweep of a long queue takes a while, and an operator waits behind these.
pub(super) const CLIENTS_ORDERS_MAX: usize = 64;

impl<R: Ring, C: Clock> Core<R, C> {
    /// ETRN.
    pub(crate) fn flush_for_client(&mut self, asked: &smtp_in::Flush) {
        self.flush_domain(&asked.domain);
        if asked.with_subdomains {
            self.flush_domain(&format!("*.{}", asked.domain));
        }
    }

    /// On all cores. `domain`: its name, or a pattern in which `*` stands for any octets.
    pub(crate) fn flush_domain(&mut self, domain: &str) {
        let term = Term::Text { field: TextField::Domain, is_not: false, pattern: Pattern::new(domain) };
        let (terms, page) = (vec![term], Page::default());
        let checked = Checked { action: Action::Flush, is_dry: false, terms, chosen: None, page };
        let (order, _) = Order::new(checked);
        for core in (0..self.crossing.cores()).filter(|core| *core != self.index) {
            // A full mailbox: the mail there goes when it is due.
            let _ = self.crossing.send(core, Mail::Flush(Arc::clone(&order)));
        }
        self.steering.take_flush(order);
    }

    /// Before a flush looks at what is deferred: what waits for its site goes as well.
    pub(crate) fn lift_back_offs_for(&mut self, order: &Order) {
        if order.terms.is_empty() {
            return self.sites.lift_back_offs();
        }
        for key in self.domains.keys() {
            let domain = self.domains.get(key);
            let is_meant = order.terms.iter().all(|term| term.holds_for(TextField::Domain, &domain.name));
            for way in domain.ways().filter(|_| is_meant) {
                self.ways.get(way).sites.iter().for_each(|(_, site)| self.sites.lift_back_off(*site));
            }
        }
    }
}
