//! Whom a message is for: arguments and header fields, each address once.

use super::address_list::{AddrSpec, AddressList, Entry};
use super::inject::{InjectError, Injector};
use super::options::{ArgumentSyntax, RecipientsFrom};
use crate::address::{AddressError, Mailbox};
use crate::envelope::Recipients;
use std::collections::HashSet;

/// What the errors call an argument.
const NAME: &str = "recipient argument";

/// Recipients as they are found. Bound: the input and the arguments, twice over while duplicates are told.
#[derive(Default)]
pub(crate) struct Collected {
    pub list: Recipients,
    seen: HashSet<Mailbox>,
}

impl Collected {
    fn add(&mut self, field: &str, address: &AddrSpec<'_>) -> Result<(), InjectError> {
        let mailbox = address.mailbox().map_err(|reason| InjectError::Address {
            field: field.to_owned(),
            address: address.shown(),
            reason,
        })?;
        if !self.seen.contains(&mailbox) {
            self.list.push(mailbox.as_ref());
            self.seen.insert(mailbox);
        }
        Ok(())
    }

    /// Takes the addresses of a list that is already completed. `<>` is nobody.
    pub(crate) fn add_list(&mut self, field: &[u8], list: &AddressList<'_>) -> Result<(), InjectError> {
        let field = String::from_utf8_lossy(field);
        list.entries().try_for_each(|entry| self.add_entry(&field, entry))
    }

    fn add_entry(&mut self, field: &str, entry: &Entry<'_>) -> Result<(), InjectError> {
        match &entry.address {
            Some(address) => self.add(field, address),
            None => Err(InjectError::Address {
                field: field.to_owned(),
                address: "<>".to_owned(),
                reason: AddressError::Empty,
            }),
        }
    }
}

impl Injector<'_> {
    /// True if the header's recipients are to be served.
    pub(crate) fn serves_header(&self) -> bool {
        match self.options.recipients_from {
            RecipientsFrom::ArgumentsElseHeader => self.options.recipients.is_empty(),
            RecipientsFrom::Arguments => false,
            RecipientsFrom::Header | RecipientsFrom::Both => true,
        }
    }

    /// The recipients that the arguments name, if they count.
    pub(crate) fn argument_recipients(&self) -> Result<Collected, InjectError> {
        let mut collected = Collected::default();
        if self.options.recipients_from == RecipientsFrom::Header {
            return Ok(collected);
        }
        for argument in &self.options.recipients {
            self.add_argument(argument, &mut collected)?;
        }
        Ok(collected)
    }

    fn add_argument(&self, argument: &str, collected: &mut Collected) -> Result<(), InjectError> {
        match self.options.argument_syntax {
            ArgumentSyntax::Plain => {
                let mut address = AddrSpec::plain(argument);
                address.complete(self.hosts);
                collected.add(NAME, &address)
            }
            ArgumentSyntax::List => {
                let mut list = AddressList::parse(argument.as_bytes()).map_err(|wrong| {
                    InjectError::Field { field: NAME.to_owned(), at: wrong.at, expected: wrong.expected }
                })?;
                list.rewrite(|address| address.complete(self.hosts));
                collected.add_list(NAME.as_bytes(), &list)
            }
        }
    }
}
