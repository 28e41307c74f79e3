//! Address lists: what To, Cc and From hold (RFC 5322 §3.4, with the obsolete forms of §4.4).
//!
//! More is read than may be written: addresses with nothing but a space between them, source routes, spaces and
//! comments within an address, display names that should have been quoted, a group whose `;` is missing. A list says
//! whether it was [`AddressList::altered`]; one that was not needs no new printing.
//!
//! Trusts nothing in the text. Bound: memory and time are linear in it; groups do not nest.

mod parser;
mod printer;

use super::hosts::Hosts;
use super::quoting;
use super::token::{Kind, SyntaxError, Token};
use crate::address::{AddressError, Mailbox};
use std::borrow::Cow;

/// The addresses of one field.
#[derive(Clone, Debug, Default)]
pub struct AddressList<'a> {
    pub elements: Vec<Element<'a>>,
    /// Comments of a list that has no addresses.
    comments: Vec<Token<'a>>,
    altered: bool,
}

#[derive(Clone, Debug)]
pub enum Element<'a> {
    Mailbox(Entry<'a>),
    Group(Group<'a>),
}

/// `name: a@b, c@d;`
#[derive(Clone, Debug)]
pub struct Group<'a> {
    name: Phrase<'a>,
    pub members: Vec<Entry<'a>>,
    /// Comments of a group without members.
    inner: Vec<Token<'a>>,
    after: Vec<Token<'a>>,
}

/// One address with what stands around it.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    before: Phrase<'a>,
    /// Silent for `<>`.
    pub address: Option<AddrSpec<'a>>,
    in_angles: bool,
    after: Vec<Token<'a>>,
}

/// Words and comments in front of `<` or `:`.
#[derive(Clone, Debug, Default)]
struct Phrase<'a> {
    tokens: Vec<Token<'a>>,
    /// The words as one quoted string or encoded, if they could not stand as they were.
    quoted: Option<Vec<u8>>,
}

/// `local@host` or a lone box name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AddrSpec<'a> {
    /// With its quotes, if it needs them.
    pub local: Cow<'a, [u8]>,
    pub host: Option<Cow<'a, [u8]>>,
}

impl<'a> AddressList<'a> {
    /// Reads a text without line ends (see [`super::token::unfold`]).
    pub fn parse(text: &'a [u8]) -> Result<AddressList<'a>, SyntaxError> {
        parser::parse(text)
    }

    /// A list of addresses without names.
    pub fn of(addresses: impl IntoIterator<Item = AddrSpec<'a>>) -> AddressList<'a> {
        let entry = |address| Entry {
            before: Phrase::default(),
            address: Some(address),
            in_angles: false,
            after: Vec::new(),
        };
        let elements = addresses.into_iter().map(|address| Element::Mailbox(entry(address))).collect();
        AddressList { elements, ..AddressList::default() }
    }

    /// True if printing gives something else than was read, white space between elements aside.
    pub fn altered(&self) -> bool {
        self.altered
    }

    /// True if there is no address and no group: no field may be like that.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// All addresses, those in groups included, in order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry<'a>> {
        self.elements.iter().flat_map(|element| match element {
            Element::Mailbox(entry) => std::slice::from_ref(entry),
            Element::Group(group) => &group.members[..],
        })
    }

    /// Lets `change` have each address; it says whether it changed it.
    pub fn rewrite(&mut self, mut change: impl FnMut(&mut AddrSpec<'a>) -> bool) {
        let entries = self.elements.iter_mut().flat_map(|element| match element {
            Element::Mailbox(entry) => std::slice::from_mut(entry),
            Element::Group(group) => &mut group.members[..],
        });
        for address in entries.filter_map(|entry| entry.address.as_mut()) {
            self.altered |= change(address);
        }
    }

    /// Encodes display names that are beyond ASCII (RFC 2047 §5 (3)).
    pub fn encode_names(&mut self) {
        for element in &mut self.elements {
            match element {
                Element::Mailbox(entry) => entry.before.encode(),
                Element::Group(group) => {
                    group.name.encode();
                    group.members.iter_mut().for_each(|member| member.before.encode());
                }
            }
        }
    }

    /// The field `name` with this list, folded at 78 columns where it can be, CR LF at its end.
    pub fn print(&self, name: &[u8]) -> Vec<u8> {
        printer::print(self, name)
    }
}

impl Phrase<'_> {
    fn encode(&mut self) {
        let is_ascii = |text: &[u8]| text.is_ascii();
        let words = self.tokens.iter().filter(|token| token.kind != Kind::Comment);
        if words.clone().all(|token| is_ascii(token.text)) && self.quoted.as_deref().is_none_or(is_ascii) {
            return;
        }
        let said = match &self.quoted {
            Some(quoted) => quoting::unquoted(quoted),
            None => quoting::meanings(words),
        };
        self.quoted = Some(quoting::phrase(&String::from_utf8_lossy(&said)));
        self.tokens.retain(|token| token.kind == Kind::Comment);
    }
}

impl AddrSpec<'_> {
    /// `text` as a program gives it: the last `@` divides, and no octet before it means anything. The host is
    /// taken as it is; [`AddrSpec::mailbox`] judges it.
    pub fn plain(text: &str) -> AddrSpec<'static> {
        let text = match text.strip_prefix('@').and_then(|route| route.split_once(':')) {
            Some((_, behind_route)) => behind_route,
            None => text,
        };
        let (local, host) = match text.rsplit_once('@') {
            Some((local, host)) => (local, Some(Cow::Owned(host.as_bytes().to_vec()))),
            None => (text, None),
        };
        AddrSpec { local: Cow::Owned(quoting::local_part(local)), host }
    }

    /// Completes the host; true if that changed it.
    pub fn complete(&mut self, hosts: &Hosts) -> bool {
        let whole = hosts.complete(self.host.as_deref());
        if self.host.as_deref() == Some(&*whole) {
            return false;
        }
        self.host = Some(Cow::Owned(whole.into_owned()));
        true
    }

    /// The address as an envelope has it, its local part quoted only if it must be (RFC 5321 §4.1.2).
    pub fn mailbox(&self) -> Result<Mailbox, AddressError> {
        let local = std::str::from_utf8(&self.local).map_err(|_| AddressError::NotUtf8)?;
        let host = self.host.as_deref().ok_or(AddressError::NoAt)?;
        let host = std::str::from_utf8(host).map_err(|_| AddressError::NotUtf8)?;
        match local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(inner) => Mailbox::parse(&format!("{}@{host}", least_quoted(inner))),
            None => Mailbox::parse(&format!("{local}@{host}")),
        }
    }

    /// The same in memory of its own.
    pub fn into_owned(self) -> AddrSpec<'static> {
        let own = |text: Cow<'_, [u8]>| Cow::Owned(text.into_owned());
        AddrSpec { local: own(self.local), host: self.host.map(own) }
    }

    /// For a message to people: at most 256 octets of it.
    pub fn shown(&self) -> String {
        const SHOWN_MAX: usize = 256;
        let mut text = String::from_utf8_lossy(&self.local).into_owned();
        if let Some(host) = &self.host {
            text.push('@');
            text.push_str(&String::from_utf8_lossy(host));
        }
        text.truncate(text.floor_char_boundary(SHOWN_MAX));
        text
    }
}

impl From<&Mailbox> for AddrSpec<'static> {
    fn from(mailbox: &Mailbox) -> AddrSpec<'static> {
        AddrSpec {
            local: Cow::Owned(mailbox.local_part().into()),
            host: Some(Cow::Owned(mailbox.domain().into())),
        }
    }
}

/// A quoted string's inner text with no backslash and no quotes that it can do without.
fn least_quoted(inner: &str) -> String {
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(char) = chars.next() {
        text.push(if char == '\\' { chars.next().unwrap_or(char) } else { char });
    }
    if quoting::is_dot_atom(text.as_bytes()) {
        return text;
    }
    String::from_utf8(quoting::quoted(text.as_bytes())).expect("backslashes and quotes keep UTF-8 whole")
}

/// For the fuzzer: what was read and printed reads and prints the same, and holds the same addresses.
pub fn fuzz_address_list(bytes: &[u8]) {
    let text = super::token::unfold(bytes);
    let Ok(list) = AddressList::parse(&text) else { return };
    if list.is_empty() {
        return;
    }
    let printed = list.print(b"To");
    let unfolded = super::token::unfold(&printed[b"To:".len()..]);
    let again = AddressList::parse(&unfolded).expect("what is printed can be read");
    assert_eq!(printed, again.print(b"To"), "printing is stable");
    assert!(!again.altered(), "what is printed needs no change: {:?}", String::from_utf8_lossy(&printed));
    let addresses = |list: &AddressList<'_>| -> Vec<Option<AddrSpec<'static>>> {
        let own = |text: &Cow<'_, [u8]>| Cow::Owned(text.to_vec());
        let spec =
            |spec: &AddrSpec<'_>| AddrSpec { local: own(&spec.local), host: spec.host.as_ref().map(own) };
        list.entries().map(|entry| entry.address.as_ref().map(spec)).collect()
    };
    assert_eq!(addresses(&list), addresses(&again));
}

#[cfg(test)]
mod tests;
