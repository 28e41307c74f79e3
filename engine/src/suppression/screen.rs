//! One core's look into the list, for each recipient that it is about to serve.
//!
//! Cost where the list is empty: a load. Else a hash and a cache line for each file of the set, twice for mail of a list;
//! no lock, no allocation, and nothing is read from the disk.

use super::book::Book;
use super::entry::{Listed, Who};
use super::keys::Keys;
use super::rules::SuppressionRules;
use super::writer::Suppression;
use crate::keyset::{Found, Key, Reader};
use message::{MailboxRef, ReversePath};
use std::sync::Arc;

/// See the module.
#[derive(Debug)]
pub(crate) struct Screen {
    reader: Reader,
    keys: Arc<Keys>,
    suppression: Arc<Suppression>,
}

/// What a look at a recipient comes to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Screened {
    Free,
    Listed(Listed),
    /// The disk must be asked for that key.
    Unread(Key),
}

/// Refuses whoever is on the list for all lists, at RCPT.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusing<'a> {
    pub(crate) screen: &'a Screen,
    pub(crate) rules: &'a SuppressionRules,
}

impl Refusing<'_> {
    /// As far as that is known at once; whoever is let through is looked at before anything is sent to him.
    pub(crate) fn refuses(self, sender: &ReversePath, recipient: MailboxRef<'_>) -> bool {
        let is_listed = matches!(self.screen.look(|| None, recipient), Screened::Listed(_));
        is_listed && !self.rules.exempts_sender(sender)
    }
}

impl Screen {
    pub(super) fn new(suppression: &Arc<Suppression>) -> Screen {
        let Book { set, keys } = suppression.book();
        Screen { reader: set.reader(), keys: Arc::clone(keys), suppression: Arc::clone(suppression) }
    }

    /// Once a turn.
    pub(crate) fn refresh(&mut self) {
        self.reader.refresh();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.reader.is_empty()
    }

    /// Whether the recipient is on the list for all lists, or for that one. `list` is asked for only if need be.
    pub(crate) fn look<'l>(&self, list: impl FnOnce() -> Option<&'l str>, to: MailboxRef<'_>) -> Screened {
        if self.is_empty() {
            return Screened::Free;
        }
        match self.look_on("", to) {
            Screened::Free => list().map_or(Screened::Free, |list| self.look_on(list, to)),
            found => found,
        }
    }

    fn look_on(&self, list: &str, to: MailboxRef<'_>) -> Screened {
        let key = self.keys.key(list, to);
        match self.reader.look(key) {
            Found::No => Screened::Free,
            Found::Yes(value) => Screened::Listed(Listed::of(value)),
            Found::Unread => Screened::Unread(key),
        }
    }

    /// True if that very entry is there: one for all lists may go again, and one for a list is to stay.
    pub(crate) fn has(&self, who: &Who) -> bool {
        matches!(self.look_on(&who.list, who.address.as_ref()), Screened::Listed(_))
    }

    pub(crate) fn suppression(&self) -> &Arc<Suppression> {
        &self.suppression
    }
}
