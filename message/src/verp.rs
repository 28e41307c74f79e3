//! Variable envelope return paths: a reverse-path for each recipient, so that every bounce names its own.
//!
//! `list@example.org` with delimiters `+=` and recipient `ann@example.net` becomes
//! `list+ann=example.net@example.org` (the form of Postfix's XVERP; qmail's `list-@example.org-@[]` gives
//! `list-ann=example.net@example.org`). Where that local part would pass 64 octets (RFC 5321 §4.5.3.1.1; peers
//! answer 553 and block what follows) or would have to be quoted, a token stands for the recipient:
//! `list+=<32 characters>@example.org`, the message's id and the recipient's index under an HMAC-SHA-256, so that
//! nobody can make one up. A recipient whose own local part begins with `=` gets a token too, so that the two
//! forms cannot be taken for each other.
//!
//! Where we read ourselves what comes back, the plain form would let anybody say that a recipient is gone. There the
//! recipient is signed: `list+=<23 characters>=ann=example.net@example.org`, the message's id and an HMAC over it, the
//! base and the recipient, or the token if that is too long. A token does not name its recipient, who is known by a
//! keyed tag: [`Signed::is_about`] tells whether an address that a report names is the one.

use crate::address::{Mailbox, MailboxRef, is_dot_atom_octet};
use crate::base32;
use crate::envelope::RecipientIndex;
use crate::id::MessageId;
use aws_lc_rs::hmac;
use smallvec::SmallVec;

/// Longest local part that we make, in octets.
pub const LOCAL_PART_MAX: usize = 64;

/// Characters of a token: 12 octets of id and index, 4 of an HMAC over them and the recipient, 4 of one over all that.
const TOKEN_LEN: usize = 32;

/// Characters of a signature: 8 octets of id, 6 of an HMAC over id, base and recipient.
const SIGNATURE_LEN: usize = 23;

/// What an HMAC is for, as its first octet: one cannot stand for another.
const OVER_PLACE: u8 = 1;
const OVER_RECIPIENT: u8 = 2;
const OVER_NAME: u8 = 3;

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
            out.extend_from_slice(&key.token(place, recipient));
        }
        out.push(b'@');
        out.extend_from_slice(base.domain.as_bytes());
    }

    /// As [`Verp::render`], in a form that nobody else can make.
    pub fn render_signed(
        self,
        base: MailboxRef<'_>,
        recipient: MailboxRef<'_>,
        place: (MessageId, RecipientIndex),
        key: &VerpKey,
        out: &mut Vec<u8>,
    ) {
        let start = out.len();
        out.extend_from_slice(base.local_part.as_bytes());
        out.extend(self.before);
        let named = 3 + SIGNATURE_LEN + recipient.local_part.len() + recipient.domain.len();
        let is_short = out.len() - start + named <= LOCAL_PART_MAX;
        if is_short && names_plainly(recipient) {
            let signature = key.signature(place.0, &out[start..], recipient);
            out.push(b'=');
            out.extend_from_slice(&signature);
            for part in ["=", recipient.local_part, "=", recipient.domain] {
                out.extend_from_slice(part.as_bytes());
            }
        } else {
            out.push(b'=');
            out.extend_from_slice(&key.token(place, recipient));
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
            && !recipient.local_part.starts_with('=')
            && !divides_wrongly
            && names_plainly(recipient)
    }

    /// Reads back the local part that `render` made from a base with `base_local` as its local part.
    pub fn decode(self, base_local: &str, local_part: &str, key: &VerpKey) -> Option<VerpOrigin> {
        let mut rest = local_part.strip_prefix(base_local)?;
        if let Some(before) = self.before {
            rest = rest.strip_prefix(char::from(before))?;
        }
        if let Some(token) = rest.strip_prefix('=') {
            return key.open(token).map(|(id, index, _)| VerpOrigin::Place(id, index));
        }
        // The last delimiter divides: no domain that was named plainly has one.
        let (local, domain) = rest.rsplit_once(char::from(self.after))?;
        Mailbox::parse(&format!("{local}@{domain}")).ok().map(VerpOrigin::Recipient)
    }
}

/// Without quotes, and in ASCII.
fn names_plainly(recipient: MailboxRef<'_>) -> bool {
    !recipient.local_part.starts_with('"')
        && !recipient.domain.starts_with('[')
        && !recipient.needs_smtputf8()
}

/// A local part that we signed, read back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Signed<'a> {
    /// What stands before the signature: the base's local part, with the delimiter.
    pub base: &'a str,
    pub message: MessageId,
    pub whom: Whom,
}

/// The recipient that a signed return path is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Whom {
    Recipient(Mailbox),
    /// By its place in its message; `tag` knows its address.
    Index {
        index: RecipientIndex,
        tag: [u8; 4],
    },
}

impl<'a> Signed<'a> {
    /// Reads what [`Verp::render_signed`] made, or a token of [`Verp::render`], whatever the base. `None`: it is not ours.
    /// Hosts may change the case of a local part, which both survive. Cost: an HMAC for each place where a signature of
    /// the right length stands, of which a local part has ten at most.
    pub fn read(local_part: &'a str, key: &VerpKey) -> Option<Signed<'a>> {
        if !local_part.is_ascii() {
            return None;
        }
        local_part.match_indices('=').find_map(|(at, _)| {
            let (base, coded) = (&local_part[..at], &local_part[at + 1..]);
            Signed::named(base, coded, key).or_else(|| {
                let (message, index, tag) = key.open(coded)?;
                Some(Signed { base, message, whom: Whom::Index { index, tag } })
            })
        })
    }

    fn named(base: &'a str, coded: &str, key: &VerpKey) -> Option<Signed<'a>> {
        let (signature, name) = coded.split_at_checked(SIGNATURE_LEN)?;
        let mut plain = [0; 14];
        base32::decode(signature.as_bytes(), &mut plain)?;
        let (local, domain) = name.strip_prefix('=')?.rsplit_once('=')?;
        let recipient = Mailbox::parse(&format!("{local}@{domain}")).ok()?;
        let message = MessageId(u64::from_be_bytes(*plain.first_chunk()?));
        let same = key.signature(message, base.as_bytes(), recipient.as_ref());
        let is_ours = same.eq_ignore_ascii_case(signature.as_bytes());
        is_ours.then_some(Signed { base, message, whom: Whom::Recipient(recipient) })
    }

    /// True if it is that recipient's return path.
    pub fn is_about(&self, recipient: MailboxRef<'_>, key: &VerpKey) -> bool {
        match &self.whom {
            Whom::Recipient(known) => known.as_str().eq_ignore_ascii_case(&recipient.to_string()),
            Whom::Index { index, tag } => key.recipient_tag(self.message, *index, recipient) == *tag,
        }
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

    fn token(&self, (id, index): (MessageId, RecipientIndex), recipient: MailboxRef<'_>) -> [u8; TOKEN_LEN] {
        let mut plain = [0; 20];
        plain[..8].copy_from_slice(&id.0.to_be_bytes());
        plain[8..12].copy_from_slice(&index.0.to_be_bytes());
        plain[12..16].copy_from_slice(&self.recipient_tag(id, index, recipient));
        let tag: [u8; 4] = self.tag(OVER_PLACE, &[&plain[..16]]);
        plain[16..].copy_from_slice(&tag);
        std::array::from_fn(|place| base32::letter(&plain, place))
    }

    /// Id, index and the recipient's tag.
    fn open(&self, token: &str) -> Option<(MessageId, RecipientIndex, [u8; 4])> {
        let mut plain = [0; 20];
        base32::decode(token.as_bytes(), &mut plain)?;
        let id = MessageId(u64::from_be_bytes(*plain.first_chunk()?));
        let index = RecipientIndex(u32::from_be_bytes(plain[8..12].try_into().ok()?));
        let same: [u8; 4] = self.tag(OVER_PLACE, &[&plain[..16]]);
        (same == plain[16..]).then_some((id, index, *plain[12..].first_chunk()?))
    }

    /// Domain and local part in lower case: a report may write them in another.
    fn recipient_tag(&self, id: MessageId, index: RecipientIndex, recipient: MailboxRef<'_>) -> [u8; 4] {
        let MailboxRef { local_part, domain } = recipient;
        let place = [&id.0.to_be_bytes()[..], &index.0.to_be_bytes()];
        self.tag(OVER_RECIPIENT, &[place[0], place[1], local_part.as_bytes(), b"@", domain.as_bytes()])
    }

    fn signature(&self, id: MessageId, base: &[u8], recipient: MailboxRef<'_>) -> [u8; SIGNATURE_LEN] {
        let mut plain = [0; 14];
        plain[..8].copy_from_slice(&id.0.to_be_bytes());
        let MailboxRef { local_part, domain } = recipient;
        // No base and no domain has a zero octet: what is signed can be divided in one way only.
        let parts = [&id.0.to_be_bytes()[..], base, b"\0", local_part.as_bytes(), b"@", domain.as_bytes()];
        let tag: [u8; 6] = self.tag(OVER_NAME, &parts);
        plain[8..].copy_from_slice(&tag);
        std::array::from_fn(|place| base32::letter(&plain, place))
    }

    /// The first octets of an HMAC over the parts, one behind the other, letters in lower case.
    fn tag<const LEN: usize>(&self, over: u8, parts: &[&[u8]]) -> [u8; LEN] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&[over]);
        for part in parts {
            let mut lower: SmallVec<[u8; 64]> = SmallVec::from_slice(part);
            lower.make_ascii_lowercase();
            context.update(&lower);
        }
        *context.sign().as_ref().first_chunk().expect("an HMAC-SHA-256 has 32 octets")
    }
}

/// For the fuzzer: a local part that a bounce came to.
pub fn fuzz_verp_decode(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let key = VerpKey::new(&[7; 32]);
        let _ = Verp::DEFAULT.decode("list", text, &key);
        assert_eq!(Signed::read(text, &key), None, "nobody but us can sign");
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

    fn render_signed(verp: Verp, base: &str, recipient: &str) -> String {
        let (base, recipient) = (Mailbox::parse(base).unwrap(), Mailbox::parse(recipient).unwrap());
        let mut out = Vec::new();
        let place = (MessageId(0x0102_0304_0506_0708), RecipientIndex(77));
        verp.render_signed(base.as_ref(), recipient.as_ref(), place, &VerpKey::new(&[1; 32]), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn signed_path_names_its_recipient_and_survives_another_case() {
        let path = render_signed(Verp::DEFAULT, "list@example.org", "Ann@example.net");
        let (local, host) = path.split_once('@').unwrap();
        assert!(local.starts_with("list+=") && local.ends_with("=Ann=example.net"), "{local}");
        assert_eq!((host, local.len()), ("example.org", 45));
        let key = VerpKey::new(&[1; 32]);
        for local in [local.to_owned(), local.to_uppercase(), local.to_lowercase()] {
            let signed = Signed::read(&local, &key).unwrap();
            assert_eq!(signed.message, MessageId(0x0102_0304_0506_0708));
            assert!(signed.base.eq_ignore_ascii_case("list+"));
            assert!(signed.is_about(MailboxRef::parse("ANN@EXAMPLE.NET").unwrap(), &key));
            assert!(!signed.is_about(MailboxRef::parse("bob@example.net").unwrap(), &key));
        }
        assert_eq!(Signed::read(local, &VerpKey::new(&[2; 32])), None);
    }

    #[test]
    fn nothing_of_a_signed_path_can_be_exchanged() {
        let path = render_signed(Verp::QMAIL, "list-@example.org", "ann@example.net");
        let local = path.split_once('@').unwrap().0;
        let key = VerpKey::new(&[1; 32]);
        assert!(Signed::read(local, &key).is_some());
        for at in 0..local.len() {
            let mut octets = local.as_bytes().to_vec();
            octets[at] = if octets[at] == b'x' { b'y' } else { b'x' };
            let other = String::from_utf8(octets).unwrap();
            assert_eq!(Signed::read(&other, &key), None, "{other}");
        }
        assert_eq!(Signed::read(&format!("x{local}"), &key), None);
        assert_eq!(Signed::read("list+ann=example.net", &key), None);
    }

    #[test]
    fn token_knows_its_recipient_without_naming_it() {
        let recipient = "ann.with.a.rather.long.name@departments.of.a.large.company.example";
        let path = render_signed(Verp::DEFAULT, "list@example.org", recipient);
        assert_eq!(path, render(Verp::DEFAULT, "list@example.org", recipient), "one token for both");
        let key = VerpKey::new(&[1; 32]);
        let signed = Signed::read(path.split_once('@').unwrap().0, &key).unwrap();
        assert!(matches!(signed.whom, Whom::Index { index: RecipientIndex(77), .. }));
        assert!(signed.is_about(MailboxRef::parse(&recipient.to_uppercase()).unwrap(), &key));
        assert!(!signed.is_about(MailboxRef::parse("bob@example.net").unwrap(), &key));
    }

    proptest! {
        #[test]
        fn reading_inverts_signing(
            base in "[a-z0-9.+=_-]{1,30}",
            local in "[a-zA-Z0-9.+=_-]{1,50}",
            domain in "[a-z0-9-]{1,20}(\\.[a-z0-9-]{1,20}){1,3}",
            id: u64,
            index: u32,
        ) {
            let base = Mailbox::parse(&format!("{base}@example.org")).unwrap();
            let recipient = Mailbox::parse(&format!("{local}@{domain}")).unwrap();
            let (key, mut out) = (VerpKey::new(&[9; 32]), Vec::new());
            let place = (MessageId(id), RecipientIndex(index));
            Verp::DEFAULT.render_signed(base.as_ref(), recipient.as_ref(), place, &key, &mut out);
            let sender = Mailbox::parse(std::str::from_utf8(&out).unwrap()).unwrap();
            prop_assert!(sender.local_part().len() <= LOCAL_PART_MAX);
            let signed = Signed::read(sender.local_part(), &key).unwrap();
            prop_assert_eq!(signed.message, MessageId(id));
            prop_assert_eq!(signed.base, format!("{}+", base.local_part()));
            prop_assert!(signed.is_about(recipient.as_ref(), &key));
        }

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
