//! The envelope's sender: from `-f`, else from Return-Path, else from who the user is (qmail-inject(8)).

use super::address_list::{AddrSpec, AddressList};
use super::header::RawField;
use super::inject::{InjectError, Injector};
use super::options::ArgumentSyntax;
use super::quoting;
use super::token::unfold;
use crate::address::{AddressError, Mailbox};
use crate::path::ReversePath;
use crate::verp::Verp;

/// A sender, and whether each recipient gets one of its own.
pub(crate) type Sender = (ReversePath, Option<Verp>);

const NULL: Sender = (ReversePath::Null, None);

/// What a sender ends in that asks for one per recipient.
const VERP_END: &str = "-@[]";

/// What the errors call it.
const NAME: &str = "sender";

impl Injector<'_> {
    /// `return_path` is what the header's field said, if it counts.
    pub(crate) fn sender(&self, return_path: Option<Sender>) -> Result<Sender, InjectError> {
        let (path, verp) = match &self.options.sender {
            Some(text) => self.named_sender(text)?,
            None => return_path.map_or_else(|| self.own_sender(), Ok)?,
        };
        match &path {
            ReversePath::Mailbox(base) if verp.is_some() && !Verp::fits(base) => {
                Err(InjectError::Verp { sender: base.to_string() })
            }
            _ => Ok((path, verp)),
        }
    }

    fn named_sender(&self, text: &str) -> Result<Sender, InjectError> {
        let text = text.trim();
        if text.is_empty() || text == "<>" {
            return Ok(NULL);
        }
        if let Ok(ReversePath::DoubleBounce) = ReversePath::parse(text) {
            return Ok((ReversePath::DoubleBounce, None));
        }
        if let Some(base) = text.strip_suffix(VERP_END) {
            let base = self.sender_mailbox(AddrSpec::plain(base))?;
            return Ok((ReversePath::Mailbox(base), Some(Verp::QMAIL)));
        }
        match self.options.argument_syntax {
            ArgumentSyntax::Plain => {
                Ok((ReversePath::Mailbox(self.sender_mailbox(AddrSpec::plain(text))?), None))
            }
            ArgumentSyntax::List => self.listed_sender(NAME, text.as_bytes(), 0),
        }
    }

    /// The first address of a text in a header's syntax. A text without any is silent: the null sender.
    fn listed_sender(&self, field: &str, text: &[u8], value_at: usize) -> Result<Sender, InjectError> {
        let unfolded = unfold(text);
        let list = AddressList::parse(&unfolded)
            .map_err(|wrong| InjectError::syntax(field.as_bytes(), value_at, text, wrong))?;
        match list.entries().next().and_then(|entry| entry.address.clone()) {
            Some(address) => Ok((ReversePath::Mailbox(self.sender_mailbox(address)?), None)),
            None => Ok(NULL),
        }
    }

    /// What a Return-Path field says; silent if it is empty.
    pub(crate) fn return_path(&self, field: &RawField<'_>) -> Result<Option<Sender>, InjectError> {
        let text = unfold(field.value);
        let text = text.trim_ascii();
        if text.is_empty() {
            return Ok(None);
        }
        let inner = text.strip_prefix(b"<").and_then(|text| text.strip_suffix(b">")).unwrap_or(text);
        match std::str::from_utf8(inner) {
            Ok(inner) if inner.ends_with(VERP_END) => self.named_sender(inner).map(Some),
            _ => self.listed_sender("Return-Path", field.value, field.value_at).map(Some),
        }
    }

    /// The user's own address, with what the letters `m` and `r` add.
    fn own_sender(&self) -> Result<Sender, InjectError> {
        let identity = self.identity;
        let user = identity.sender_user.as_ref().unwrap_or(&identity.user);
        let host = identity.sender_host.as_ref().or(identity.host.as_ref());
        let base = self.sender_mailbox(address_of(user, host))?;
        let letters = self.options.letters;
        let mut added = String::new();
        if letters.verp_per_message {
            added = format!("-{}.{}", self.now.at.seconds(), self.unique.process);
        }
        if letters.verp_per_recipient {
            added.push('-');
        }
        if added.is_empty() {
            return Ok((ReversePath::Mailbox(base), None));
        }
        let local = match base.local_part().strip_suffix('"') {
            Some(open) => format!("{open}{added}\""),
            None => format!("{}{added}", base.local_part()),
        };
        let text = format!("{local}@{}", base.domain());
        let mailbox = Mailbox::parse(&text).map_err(|reason| sender_error(text, reason))?;
        Ok((ReversePath::Mailbox(mailbox), letters.verp_per_recipient.then_some(Verp::QMAIL)))
    }

    fn sender_mailbox(&self, mut address: AddrSpec<'_>) -> Result<Mailbox, InjectError> {
        address.complete(self.hosts);
        self.masquerade(&mut address);
        address.mailbox().map_err(|reason| sender_error(address.shown(), reason))
    }

    /// Puts another address in the place of a whole one; true if it did.
    pub(crate) fn masquerade(&self, address: &mut AddrSpec<'_>) -> bool {
        let map = &self.options.masquerade;
        if map.is_empty() {
            return false;
        }
        let home = self.hosts.complete(None);
        let home = std::str::from_utf8(&home).unwrap_or_default();
        let other = address.mailbox().ok().and_then(|mailbox| map.of(&mailbox, home));
        if let Some(other) = &other {
            *address = AddrSpec::from(other);
        }
        other.is_some()
    }

    /// A From field for the user: name and address in the style that was asked for.
    pub(crate) fn author_field(&self, field: &str) -> Result<Vec<u8>, InjectError> {
        let mut address = address_of(&self.identity.user, self.identity.host.as_ref());
        address.complete(self.hosts);
        self.masquerade(&mut address);
        // Checked, because what the environment says of the host went in as it is.
        let mailbox = address.mailbox().map_err(|reason| InjectError::Address {
            field: field.to_owned(),
            address: address.shown(),
            reason,
        })?;
        let address = mailbox.as_str().as_bytes();
        let text = match self.identity.name.as_deref().filter(|name| !name.trim().is_empty()) {
            None => address.to_vec(),
            Some(name) if self.options.letters.comment_style => {
                [address, b" ", &quoting::comment(name)].concat()
            }
            Some(name) => [&quoting::phrase(name)[..], b" <", address, b">"].concat(),
        };
        let list = AddressList::parse(&text).expect("the name is quoted and the address was checked");
        Ok(list.print(field.as_bytes()))
    }
}

fn address_of(user: &str, host: Option<&String>) -> AddrSpec<'static> {
    let host = host.map(|host| host.clone().into_bytes().into());
    AddrSpec { local: quoting::local_part(user).into(), host }
}

fn sender_error(address: String, reason: AddressError) -> InjectError {
    InjectError::Address { field: NAME.to_owned(), address, reason }
}
