//! Leaving a list by one click: tokens that name list and recipient, and the fields that offer them (RFC 2369, RFC 8058).
//!
//! A token needs no table: it carries the list's name and the recipient's address under an HMAC-SHA-256 of 80 bits, so that
//! nobody can make one up and unsubscribe others. Both are masked with a key stream that the tag begins (the SIV construction:
//! a pseudo-random function's tag as the initial value of its counter mode), so that an address does not stand in the logs of
//! every server that a URL passes. One list and recipient have one token for ever: mail that is sent again
//! is the same mail. It is base 32: 16 characters, and 8 for every 5 octets of list and address and one more
//! (`news`, `ann@example.net`: 48); it survives a change of case and may stand in a URL, a subject or a local part.
//!
//! Keys are derived from the queue's secret, apart from those of VERP. Trusts nothing in a token before its tag
//! was compared, in constant time. Bound: a token has at most [`TOKEN_MAX`] characters; of a text at most
//! 16 words are tried.

use crate::address::{Mailbox, MailboxRef};
use crate::base32;
use crate::coding::line::Line;
use crate::coding::url::{is_of_url, is_unreserved, percent_encoded};
use aws_lc_rs::{constant_time, hmac};
use smallvec::SmallVec;

/// Longest name of a list, in octets.
pub const LIST_MAX: usize = 64;

/// Longest address that can be unsubscribed, in octets (RFC 5321 §4.5.3.1: 64, `@`, 255).
pub const ADDRESS_MAX: usize = 320;

/// Longest URL before the token, in octets: the field's line must stay below 998.
pub const BASE_URL_MAX: usize = 250;

const TAG_LEN: usize = 10;
const PLAIN_MAX: usize = 1 + LIST_MAX + ADDRESS_MAX;

/// Longest token.
pub const TOKEN_MAX: usize = base32::letters(TAG_LEN + PLAIN_MAX);

/// Shortest token: for a list `a` and an address `a@b`.
const TOKEN_MIN: usize = base32::letters(TAG_LEN + 1 + 1 + 3);

/// Words of a text that are tried as tokens.
const WORDS_MAX: usize = 16;

/// What may be unsubscribed: the recipient of a list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Subscription<'a> {
    list: &'a str,
    address: MailboxRef<'a>,
}

/// Why a list and an address cannot be in a token.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SubscriptionError {
    #[error("a list's name has 1 to {LIST_MAX} octets and no control characters")]
    List,
    #[error("the address is longer than {ADDRESS_MAX} octets")]
    AddressTooLong,
}

impl<'a> Subscription<'a> {
    /// `list` is whatever the list or campaign is called where unsubscribed addresses are kept.
    pub fn new(list: &'a str, address: MailboxRef<'a>) -> Result<Subscription<'a>, SubscriptionError> {
        if list.is_empty() || list.len() > LIST_MAX || list.chars().any(char::is_control) {
            return Err(SubscriptionError::List);
        }
        if address.local_part.len() + 1 + address.domain.len() > ADDRESS_MAX {
            return Err(SubscriptionError::AddressTooLong);
        }
        Ok(Subscription { list, address })
    }

    /// One octet for the length of the list's name, the name, the address.
    fn plain(&self) -> SmallVec<[u8; 128]> {
        let mut plain = SmallVec::new();
        plain.push(u8::try_from(self.list.len()).expect("LIST_MAX is less"));
        plain.extend_from_slice(self.list.as_bytes());
        plain.extend_from_slice(self.address.local_part.as_bytes());
        plain.push(b'@');
        plain.extend_from_slice(self.address.domain.as_bytes());
        plain
    }
}

/// What a token says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unsubscribed {
    pub list: Box<str>,
    pub address: Mailbox,
}

impl Unsubscribed {
    fn of(plain: &[u8]) -> Option<Unsubscribed> {
        let (len, rest) = plain.split_first()?;
        let (list, address) = rest.split_at_checked(usize::from(*len))?;
        let address = Mailbox::parse(std::str::from_utf8(address).ok()?).ok()?;
        Some(Unsubscribed { list: std::str::from_utf8(list).ok()?.into(), address })
    }
}

/// Makes tokens and reads them.
#[derive(Debug)]
pub struct UnsubscribeKey {
    tag: hmac::Key,
    mask: hmac::Key,
}

impl UnsubscribeKey {
    /// From the secret that the queue keeps.
    pub fn new(secret: &[u8; 32]) -> UnsubscribeKey {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let derived =
            |purpose: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&secret, purpose).as_ref());
        UnsubscribeKey { tag: derived(b"unsubscribe tag 1"), mask: derived(b"unsubscribe mask 1") }
    }

    /// Appends the token. Cost: three HMACs for an address of usual length; no allocation beyond `out`'s growth.
    pub fn token(&self, subscription: &Subscription<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.token_of(subscription));
    }

    fn token_of(&self, subscription: &Subscription<'_>) -> SmallVec<[u8; 256]> {
        let mut plain = subscription.plain();
        let tag = self.tag(&plain);
        self.mask(&tag, &mut plain);
        let mut octets: SmallVec<[u8; 160]> = SmallVec::from_slice(&tag);
        octets.extend_from_slice(&plain);
        (0..base32::letters(octets.len())).map(|place| base32::letter(&octets, place)).collect()
    }

    /// Reads a token that this key made.
    pub fn open(&self, token: &str) -> Option<Unsubscribed> {
        if !(TOKEN_MIN..=TOKEN_MAX).contains(&token.len()) {
            return None;
        }
        let mut octets: SmallVec<[u8; 160]> = SmallVec::from_elem(0, token.len() * 5 / 8);
        base32::decode(token.as_bytes(), &mut octets)?;
        let (tag, plain) = octets.split_at_mut(TAG_LEN);
        let tag: &[u8; TAG_LEN] = (&*tag).try_into().ok()?;
        self.mask(tag, plain);
        constant_time::verify_slices_are_equal(&self.tag(plain), tag).ok()?;
        Unsubscribed::of(plain)
    }

    /// Finds a token in a text that may have more: a subject (`Re: unsubscribe …`), a local part (`leave+…`), a URL's path.
    pub fn find(&self, text: &str) -> Option<Unsubscribed> {
        let words = text.split(|char: char| !u8::try_from(char).is_ok_and(base32::is_letter));
        words.filter(|word| word.len() >= TOKEN_MIN).take(WORDS_MAX).find_map(|word| self.open(word))
    }

    fn tag(&self, plain: &[u8]) -> [u8; TAG_LEN] {
        let tag = hmac::sign(&self.tag, plain);
        std::array::from_fn(|at| tag.as_ref()[at])
    }

    /// Masks, and unmasks.
    fn mask(&self, tag: &[u8; TAG_LEN], text: &mut [u8]) {
        for (block, counter) in text.chunks_mut(32).zip(0u8..) {
            let mut input = [counter; TAG_LEN + 1];
            input[..TAG_LEN].copy_from_slice(tag);
            let stream = hmac::sign(&self.mask, &input);
            for (octet, mask) in block.iter_mut().zip(stream.as_ref()) {
                *octet ^= mask;
            }
        }
    }
}

/// Where tokens are taken: a URL that they are appended to, and perhaps an address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Links {
    base_url: Box<str>,
    /// `mailto:` and the address, ready for a token.
    mailto: Option<Box<str>>,
}

/// Why an operator's URL or address cannot be offered.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LinksError {
    #[error("the URL must begin with https:// (RFC 8058 §3.1)")]
    NotHttps,
    #[error("the URL has more than {BASE_URL_MAX} octets")]
    TooLong,
    #[error("the URL has an octet that must be percent-encoded, or a fragment")]
    UrlSyntax,
    #[error("the address for unsubscribing must be ASCII and shorter than 100 octets")]
    Address,
}

impl Links {
    /// `base_url` is what comes before the token: `https://example.org/unsubscribe/`, `https://example.org/u?t=`. Mail to `mailto`
    /// has the token in its subject.
    pub fn new(base_url: &str, mailto: Option<&Mailbox>) -> Result<Links, LinksError> {
        let host = base_url.strip_prefix("https://").ok_or(LinksError::NotHttps)?;
        if base_url.len() > BASE_URL_MAX {
            return Err(LinksError::TooLong);
        }
        if host.is_empty()
            || host.starts_with('/')
            || !host.bytes().all(|octet| is_of_url(octet) && octet != b'#')
        {
            return Err(LinksError::UrlSyntax);
        }
        Ok(Links { base_url: base_url.into(), mailto: mailto.map(mailto_url).transpose()? })
    }

    /// Appends the URL for one recipient: a value for a merge field.
    pub fn url(&self, key: &UnsubscribeKey, subscription: &Subscription<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(self.base_url.as_bytes());
        key.token(subscription, out);
    }

    /// Appends `List-Unsubscribe` and `List-Unsubscribe-Post`. Both must be signed (RFC 8058 §3.1).
    pub fn header_fields(&self, key: &UnsubscribeKey, subscription: &Subscription<'_>, out: &mut Vec<u8>) {
        let token = key.token_of(subscription);
        let mut line = Line::field(b"List-Unsubscribe", out);
        for part in [b"<", self.base_url.as_bytes(), &token, b">"] {
            line.put(part);
        }
        if let Some(mailto) = &self.mailto {
            line.put(b",");
            line.space();
            for part in [b"<", mailto.as_bytes(), &token, b">"] {
                line.put(part);
            }
        }
        line.end();
        out.extend_from_slice(b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n");
    }
}

/// RFC 6068 §2.
fn mailto_url(address: &Mailbox) -> Result<Box<str>, LinksError> {
    const ADDRESS_MAX: usize = 100;
    if address.as_ref().needs_smtputf8() || address.as_str().len() >= ADDRESS_MAX {
        return Err(LinksError::Address);
    }
    let may_stand = |octet| is_unreserved(octet) || b"+!$*@".contains(&octet);
    let address = percent_encoded(address.as_str(), may_stand).map(char::from);
    Ok("mailto:".chars().chain(address).chain("?subject=unsubscribe%20".chars()).collect())
}

/// For the fuzzer: what reads as a token is the token of what it says.
pub fn fuzz_unsubscribe(bytes: &[u8]) {
    let key = UnsubscribeKey::new(&[7; 32]);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = key.find(text);
    // No mutation guesses a tag: a token is made of the text too, and must read back.
    let Some((list, address)) = text.split_once('\n') else { return };
    let Ok(address) = Mailbox::parse(address) else { return };
    let Ok(subscription) = Subscription::new(list, address.as_ref()) else { return };
    let mut token = Vec::new();
    key.token(&subscription, &mut token);
    assert!(token.len() <= TOKEN_MAX);
    let token = String::from_utf8(token).expect("a token is ASCII");
    let found = key.find(&format!("Re: leave+{token} x")).expect("a token reads back");
    assert_eq!((&*found.list, &found.address), (list, &address));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LONGEST: &str = "llllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllll";

    fn key() -> UnsubscribeKey {
        UnsubscribeKey::new(&[1; 32])
    }

    fn token(list: &str, address: &str) -> String {
        let address = Mailbox::parse(address).unwrap();
        let mut out = Vec::new();
        key().token(&Subscription::new(list, address.as_ref()).unwrap(), &mut out);
        String::from_utf8(out).unwrap()
    }

    fn said(unsubscribed: Option<Unsubscribed>) -> Option<String> {
        unsubscribed.map(|said| format!("{} {}", said.list, said.address.as_str()))
    }

    #[test]
    fn a_token_is_short_and_does_not_show_the_address() {
        let token = token("news", "ann@example.net");
        assert_eq!(token.len(), 48);
        // Computed by another implementation of HMAC and base 32.
        assert_eq!(token, "jjqwuy4pc3odbs7yqbgkaagd3qilaef6geroxg5lvjqxwpwe");
        assert_eq!(said(key().open(&token)).as_deref(), Some("news ann@example.net"));
        assert_eq!(said(key().open(&token.to_uppercase())).as_deref(), Some("news ann@example.net"));
    }

    #[test]
    fn another_key_reads_nothing() {
        assert_eq!(UnsubscribeKey::new(&[2; 32]).open(&token("news", "ann@example.net")), None);
    }

    #[test]
    fn a_token_is_found_in_what_comes_back() {
        let token = token("news", "ann@example.net");
        for text in [
            format!("Re: unsubscribe {token}"),
            format!("leave+{token}"),
            format!("/unsubscribe/{token}?x=1"),
            format!("{} {token}", "abcdefghijklmnopqrstuvwxyz234567 ".repeat(15)),
        ] {
            assert_eq!(said(key().find(&text)).as_deref(), Some("news ann@example.net"), "{text}");
        }
        let late = format!("{} {token}", "abcdefghijklmnopqrstuvwxyz234567 ".repeat(16));
        assert_eq!(key().find(&late), None);
    }

    #[test]
    fn lists_and_addresses_are_bounded() {
        let address = MailboxRef::parse("ann@example.net").unwrap();
        assert!(Subscription::new(LONGEST, address).is_ok());
        for list in ["", "a\n", &format!("{LONGEST}l")] {
            assert_eq!(Subscription::new(list, address), Err(SubscriptionError::List));
        }
        let long = format!("{}@{}.example", "a".repeat(255), "b".repeat(60));
        let long = MailboxRef::parse(&long).unwrap();
        assert_eq!(Subscription::new("news", long), Err(SubscriptionError::AddressTooLong));
    }

    #[test]
    fn both_fields_are_written() {
        let (ann, leave) =
            (Mailbox::parse("ann@example.net").unwrap(), Mailbox::parse("leave/now@example.org").unwrap());
        let links = Links::new("https://example.org/u/", Some(&leave)).unwrap();
        let mut out = Vec::new();
        links.header_fields(&key(), &Subscription::new("news", ann.as_ref()).unwrap(), &mut out);
        let token = token("news", "ann@example.net");
        let want = format!(
            "List-Unsubscribe:\r\n <https://example.org/u/{token}>,\r\n \
             <mailto:leave%2Fnow@example.org?subject=unsubscribe%20{token}>\r\n\
             List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
        );
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }

    #[test]
    fn the_longest_field_has_no_line_too_long() {
        let domain = format!("{0}.{0}.{0}.example", "d".repeat(60));
        let ann = Mailbox::parse(&format!("{}@{domain}", "a".repeat(128))).unwrap();
        let leave = Mailbox::parse(&format!("{}@example.org", "/".repeat(87))).unwrap();
        let base = format!("https://example.org/{}", "p".repeat(BASE_URL_MAX - 20));
        let links = Links::new(&base, Some(&leave)).unwrap();
        let mut out = Vec::new();
        links.header_fields(&key(), &Subscription::new(LONGEST, ann.as_ref()).unwrap(), &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.split("\r\n").all(|line| line.len() <= 998), "{text}");
        assert!(text.contains(&token(LONGEST, ann.as_str())));
    }

    #[test]
    fn links_that_could_break_a_field_are_refused() {
        assert_eq!(Links::new("http://example.org/", None), Err(LinksError::NotHttps));
        for url in [
            "https://",
            "https:///a",
            "https://a b",
            "https://a>",
            "https://a\r\nb",
            "https://é",
            "https://a#",
        ] {
            assert_eq!(Links::new(url, None), Err(LinksError::UrlSyntax), "{url}");
        }
        let long = format!("https://{}", "a".repeat(BASE_URL_MAX));
        assert_eq!(Links::new(&long, None), Err(LinksError::TooLong));
        let address = Mailbox::parse("é@example.org").unwrap();
        assert_eq!(Links::new("https://a", Some(&address)), Err(LinksError::Address));
    }

    proptest! {
        #[test]
        fn opening_inverts_making(list in "[^\\pC]{1,16}", local in "[a-zA-Z0-9.+=_é-]{1,60}", domain in "[a-z0-9]{1,20}(\\.[a-z0-9]{1,20}){1,3}") {
            let address = format!("{local}@{domain}");
            let token = token(&list, &address);
            prop_assert_eq!(said(key().open(&token)), Some(format!("{list} {address}")));
        }

        #[test]
        fn a_changed_token_is_none(at in 0usize..48, letter in "[a-z2-7]") {
            let good = token("news", "ann@example.net");
            let mut changed = good.clone();
            changed.replace_range(at..at + 1, &letter);
            prop_assert_eq!(key().open(&changed).is_some(), changed == good);
        }

        #[test]
        fn fuzz_smoke(text in "([a-z2-7]{24,60}|news\n[a-z.@]{1,20}|\\PC){0,6}") {
            fuzz_unsubscribe(text.as_bytes());
        }
    }
}
