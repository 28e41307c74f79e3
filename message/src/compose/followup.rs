//! Mail-Followup-To: where answers to all should go when a mailing list is among the readers, so that the writer, who is
//! on that list, does not get them twice (Q13).

use super::address_list::{AddrSpec, AddressList};
use std::collections::HashSet;

/// The addresses of To and Cc, if the user is on any list. Bound: the header.
pub(crate) struct Followup {
    /// The lists that the user is on, in lower case.
    lists: HashSet<String>,
    addresses: Vec<AddrSpec<'static>>,
    names_list: bool,
}

impl Followup {
    /// `lists` has one address in each line; empty ones say nothing.
    pub(crate) fn new(lists: &[String]) -> Followup {
        let lists = lists.iter().map(|list| list.trim().to_lowercase()).filter(|list| !list.is_empty());
        Followup { lists: lists.collect(), addresses: Vec::new(), names_list: false }
    }

    /// Takes the whole addresses of a To or Cc.
    pub(crate) fn take(&mut self, list: &AddressList<'_>) {
        if self.lists.is_empty() {
            return;
        }
        for address in list.entries().filter_map(|entry| entry.address.as_ref()) {
            self.names_list |= self.lists.contains(&address.shown().to_lowercase());
            self.addresses.push(address.clone().into_owned());
        }
    }

    /// The field with all of them, if one of them is a list.
    pub(crate) fn field(&self) -> Option<Vec<u8>> {
        let list = || AddressList::of(self.addresses.iter().cloned());
        self.names_list.then(|| list().print(b"Mail-Followup-To"))
    }
}
