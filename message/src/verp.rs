//! Variable envelope return paths: a reverse-path for each recipient, so that every bounce names its own.
//!
//! `list@example.org` with delimiters `+=` and recipient `ann@example.net` becomes
//! `list+ann=example.net@example.org` (the form of Postfix's XVERP; qmail's `list-@example.org-@[]` gives
//! `list-ann=example.net@example.org`). Where that local part would pass 64 octets (RFC 5321 §4.5.3.1.1; peers
//! answer 553 and block what follows) or would have to be quoted, a token stands for the recipient:
//! `list+=<32 characters>@example.org`, the message's id and the recipient's index under an HMAC-SHA-256, so that
//! nobody can make one up. A recipient whose own local part begins with `=` gets a token too, so that the two
//! forms cannot be taken for each other.

use crate::address::{Mailbox, MailboxRef, is_dot_atom_octet};
use crate::base32;
use crate::envelope::RecipientIndex;
use crate::id::MessageId;
use aws_lc_rs::hmac;

/// Longest local part that we make, in octets.
pub const LOCAL_PART_MAX: usize = 64;

/// Octets of a token: 12 of id and index, 8 of HMAC, in base 32.
const TOKEN_LEN: usize = 32;

/// Longest local part of a base reverse-path that leaves room for delimiter, `=` and token.
pub const BASE_LOCAL_PART_MAX: usize = LOCAL_PART_MAX - TOKEN_LEN - 2;

/// How the recipient is put into the reverse-path.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Verp {
    /// Between the base's local part and the recipient; `None` in qmail's form, whose base ends in one.
    before: Option<u8>,
    /// Between the recipient's local part and domain.
    after: u8,
}

impl Verp {
    /// qmail's `pre@host-@[]`: `pre` + `recip=domain`.
    pub const QMAIL: Verp = Verp { before: None, after: b'=' };

    /// XVERP without an argument.
    pub const DEFAULT: Verp = Verp { before: Some(b'+'), after: b'=' };

    /// `XVERP=+=`. Delimiters must be among `-+=` as Postfix's `verp_delimiter_filter` has it.
    pub fn with_delimiters(text: &str) -> Option<Verp> {
        match text.as_bytes() {
            &[before, after] if b"-+=".contains(&before) && b"-+=".contains(&after) => {
                Some(Verp { before: Some(before), after })
            }
            _ => None,
        }
    }

    /// Two octets for the queue: the first is 0 in qmail's form.
    pub fn to_bytes(self) -> [u8; 2] {
        [self.before.unwrap_or(0), self.after]
    }

    pub fn from_bytes(bytes: [u8; 2]) -> Verp {
        Verp { before: (bytes[0] != 0).then_some(bytes[0]), after: bytes[1] }
    }

    /// True if `base` leaves room for a token.
    pub fn fits(base: &Mailbox) -> bool {
        base.local_part().len() <= BASE_LOCAL_PART_MAX && base.local_part().bytes().all(is_dot_atom_octet)
    }

    /// Appends the recipient's own reverse-path, without brackets. No allocation beyond `out`'s growth.
    pub fn render(
        self,
        base: MailboxRef<'_>,
        recipient: MailboxRef<'_>,
        place: (MessageId, RecipientIndex),
        key: &VerpKey,
        out: &mut Vec<u8>,
    ) {
        out.extend_from_slice(base.local_part.as_bytes());
        out.extend(self.before);
        if self.names_plainly(base, recipient) {
            out.extend_from_slice(recipient.local_part.as_bytes());
            out.push(self.after);
            out.extend_from_slice(recipient.domain.as_bytes());
        } else {
            out.push(b'=');
            out.extend_from_slice(&key.token(place.0, place.1));
        }
        out.push(b'@');
        out.extend_from_slice(base.domain.as_bytes());
    }

    /// The plain form must fit, need no quotes, and not make a 7-bit sender an 8-bit one.
    fn names_plainly(self, base: MailboxRef<'_>, recipient: MailboxRef<'_>) -> bool {
        let len = base.local_part.len() + 2 + recipient.local_part.len() + recipient.domain.len();
        // Decoding divides at the last delimiter, which must not be the domain's own hyphen.
        let divides_wrongly = self.after == b'-' && recipient.domain.contains('-');
        len <= LOCAL_PART_MAX
            && !recipient.local_part.starts_with(['"', '='])
            && !recipient.domain.starts_with('[')
            && !divides_wrongly
            && !recipient.needs_smtputf8()
    }

    /// Reads back the local part that `render` made from a base with `base_local` as its local part.
    pub fn decode(self, base_local: &str, local_part: &str, key: &VerpKey) -> Option<VerpOrigin> {
        let mut rest = local_part.strip_prefix(base_local)?;
        if let Some(before) = self.before {
            rest = rest.strip_prefix(char::from(before))?;
        }
        if let Some(token) = rest.strip_prefix('=') {
            return key.open(token).map(|(id, index)| VerpOrigin::Place(id, index));
        }
        // The last delimiter divides: no domain that was named plainly has one.
        let (local, domain) = rest.rsplit_once(char::from(self.after))?;
        Mailbox::parse(&format!("{local}@{domain}")).ok().map(VerpOrigin::Recipient)
    }
}

/// Whom a bounce is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum VerpOrigin {
    Recipient(Mailbox),
    Place(MessageId, RecipientIndex),
}

/// Signs tokens. Made from a secret that the queue keeps.
#[derive(Debug)]
pub struct VerpKey(hmac::Key);

impl VerpKey {
    pub fn new(secret: &[u8; 32]) -> VerpKey {
        VerpKey(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    fn token(&self, id: MessageId, index: RecipientIndex) -> [u8; TOKEN_LEN] {
        let mut plain = [0; 20];
        plain[..8].copy_from_slice(&id.0.to_be_bytes());
        plain[8..12].copy_from_slice(&index.0.to_be_bytes());
        let tag = hmac::sign(&self.0, &plain[..12]);
        plain[12..].copy_from_slice(&tag.as_ref()[..8]);
        std::array::from_fn(|place| base32::letter(&plain, place))
    }

    /// Hosts may change the case of a local part; the token survives that.
    fn open(&self, token: &str) -> Option<(MessageId, RecipientIndex)> {
        let mut plain = [0; 20];
        base32::decode(token.as_bytes(), &mut plain)?;
        let id = MessageId(u64::from_be_bytes(plain[..8].try_into().ok()?));
        let index = RecipientIndex(u32::from_be_bytes(plain[8..12].try_into().ok()?));
        let same = self.token(id, index).eq_ignore_ascii_case(token.as_bytes());
        same.then_some((id, index))
    }
}

/// For the fuzzer: a local part that a bounce came to.
pub fn fuzz_verp_decode(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Verp::DEFAULT.decode("list", text, &VerpKey::new(&[7; 32]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn render(verp: Verp, base: &str, recipient: &str) -> String {
        let (base, recipient) = (Mailbox::parse(base).unwrap(), Mailbox::parse(recipient).unwrap());
        let mut out = Vec::new();
        let place = (MessageId(0x0102_0304_0506_0708), RecipientIndex(77));
        verp.render(base.as_ref(), recipient.as_ref(), place, &VerpKey::new(&[1; 32]), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn recipient_stands_in_the_reverse_path() {
        assert_eq!(
            render(Verp::DEFAULT, "list@example.org", "ann@example.net"),
            "list+ann=example.net@example.org"
        );
        assert_eq!(
            render(Verp::QMAIL, "list-@example.org", "ann@example.net"),
            "list-ann=example.net@example.org"
        );
    }

    #[test]
    fn local_part_never_passes_64_octets() {
        let long = format!("{}@{}.example", "a".repeat(40), "b".repeat(40));
        let sender = render(Verp::DEFAULT, "newsletter@example.org", &long);
        let local = sender.split('@').next().unwrap();
        assert!(local.len() <= 64 && local.starts_with("newsletter+="), "{local}");
        let key = VerpKey::new(&[1; 32]);
        let place = VerpOrigin::Place(MessageId(0x0102_0304_0506_0708), RecipientIndex(77));
        assert_eq!(Verp::DEFAULT.decode("newsletter", local, &key), Some(place.clone()));
        assert_eq!(
            Verp::DEFAULT.decode(
                "newsletter",
                &local.to_uppercase().replace("NEWSLETTER", "newsletter"),
                &key
            ),
            Some(place)
        );
        assert_eq!(Verp::DEFAULT.decode("newsletter", local, &VerpKey::new(&[2; 32])), None);
    }

    #[test]
    fn delimiter_in_the_domain_makes_a_token() {
        let verp = Verp::with_delimiters("+-").unwrap();
        assert!(render(verp, "l@example.org", "ann@a-b.example").starts_with("l+="));
        assert_eq!(render(verp, "l@example.org", "ann@ab.example"), "l+ann-ab.example@example.org");
    }

    #[test]
    fn quoted_and_utf8_recipients_become_tokens() {
        assert!(render(Verp::DEFAULT, "l@example.org", "\"a b\"@example.net").starts_with("l+="));
        assert!(render(Verp::DEFAULT, "l@example.org", "é@example.net").starts_with("l+="));
    }

    proptest! {
        #[test]
        fn decoding_inverts_rendering(local in "[a-zA-Z0-9.+=_-]{1,50}", domain in "[a-z0-9]{1,20}(\\.[a-z0-9]{1,20}){1,3}", id: u64, index: u32) {
            let base = Mailbox::parse("list@example.org").unwrap();
            let recipient = Mailbox::parse(&format!("{local}@{domain}")).unwrap();
            let key = VerpKey::new(&[9; 32]);
            let mut out = Vec::new();
            Verp::DEFAULT.render(base.as_ref(), recipient.as_ref(), (MessageId(id), RecipientIndex(index)), &key, &mut out);
            let sender = Mailbox::parse(std::str::from_utf8(&out).unwrap()).unwrap();
            prop_assert!(sender.local_part().len() <= LOCAL_PART_MAX);
            let back = Verp::DEFAULT.decode("list", sender.local_part(), &key).unwrap();
            let place = VerpOrigin::Place(MessageId(id), RecipientIndex(index));
            prop_assert!(back == VerpOrigin::Recipient(recipient) || back == place);
        }

        #[test]
        fn fuzz_smoke(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            fuzz_verp_decode(&bytes);
        }
    }
}
