//! From an address to the key that stands for it on disk.
//!
//! BLAKE3 keyed with a key that is derived from the queue's secret, over list and address: whoever has the files and not the
//! secret can neither read nor try out addresses. Equal are addresses that differ in the case of their letters, in
//! quotes that are not needed, or in how their domain is written (U-labels or A-labels, RFC 5890). What stands behind a plus
//! sign counts, and so do dots: what they mean is each host's own business.

use crate::keyset::Key;
use hickory_resolver::proto::rr::Name;
use message::MailboxRef;
use smallvec::SmallVec;

/// Contexts of derived keys: they may never change.
const KEYS: &str = "ringpost suppression list, keys of addresses, version 1";
const OWNER: &str = "ringpost suppression list, mark of the secret, version 1";

/// List, local part and domain, each at most 255 octets, and what divides them.
type Form = SmallVec<[u8; 768]>;

/// See the module.
#[derive(Clone)]
pub struct Keys {
    secret: [u8; 32],
    owner: u64,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(hidden)")
    }
}

impl Keys {
    /// By the queue's secret.
    pub fn new(secret: &[u8; 32]) -> Keys {
        let owner = blake3::derive_key(OWNER, secret);
        let (owner, _) = owner.as_chunks::<8>();
        Keys { secret: blake3::derive_key(KEYS, secret), owner: u64::from_le_bytes(owner[0]) }
    }

    /// Stands for the secret in the files.
    pub fn owner(&self) -> u64 {
        self.owner
    }

    /// `list` as [`message::list_id`] gives it, empty for all lists. A fifth of a microsecond; allocates only for what is
    /// not ASCII.
    pub fn key(&self, list: &str, to: MailboxRef<'_>) -> Key {
        let mut form = Form::new();
        form.extend_from_slice(list.as_bytes());
        form.push(0);
        push_local_part(to.local_part, &mut form);
        form.push(b'@');
        push_domain(to.domain, &mut form);
        let hash = blake3::keyed_hash(&self.secret, &form);
        let (first, _) = hash.as_bytes().as_chunks::<16>();
        Key::from_bytes(first[0])
    }
}

fn push_lower(text: &str, form: &mut Form) {
    if text.is_ascii() {
        form.extend(text.bytes().map(|octet| octet.to_ascii_lowercase()));
    } else {
        form.extend_from_slice(text.to_lowercase().as_bytes());
    }
}

/// RFC 5321 §4.1.2: quotes around what needs none mean nothing.
fn push_local_part(local_part: &str, form: &mut Form) {
    let inner = local_part.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let is_plain = |text: &&str| !text.is_empty() && text.bytes().all(is_atom_octet);
    push_lower(inner.filter(is_plain).unwrap_or(local_part), form);
}

fn is_atom_octet(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || octet >= 128 || b".!#$%&'*+-/=?^_`{|}~".contains(&octet)
}

/// What has no A-label stays as it is, in lower case.
fn push_domain(domain: &str, form: &mut Form) {
    match Name::from_utf8(domain).ok().filter(|_| !domain.is_ascii()) {
        Some(name) => push_lower(name.to_ascii().trim_end_matches('.'), form),
        None => push_lower(domain, form),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(list: &str, address: &str) -> Key {
        Keys::new(&[7; 32]).key(list, MailboxRef::parse(address).unwrap())
    }

    #[test]
    fn equal_addresses_have_equal_keys() {
        for (one, other) in [
            ("Ann.Bee@Example.NET", "ann.bee@example.net"),
            ("\"ann\"@example.net", "ann@example.net"),
            ("\"a.b+c\"@example.net", "a.b+c@example.net"),
            ("ann@b\u{fc}cher.example", "ann@xn--bcher-kva.example"),
            ("ann@B\u{dc}CHER.example", "ann@XN--BCHER-KVA.example"),
            ("\u{c4}nn@example.net", "\u{e4}nn@example.net"),
        ] {
            assert_eq!(key("", one), key("", other), "{one} {other}");
        }
    }

    #[test]
    fn other_addresses_lists_and_secrets_have_other_keys() {
        let keys = [
            key("", "ann@example.net"),
            key("", "ann@example.org"),
            key("", "ann+x@example.net"),
            key("", "a.nn@example.net"),
            key("", "\"a nn\"@example.net"),
            key("news", "ann@example.net"),
            key("new", "sann@example.net"),
            Keys::new(&[8; 32]).key("", MailboxRef::parse("ann@example.net").unwrap()),
        ];
        for (place, one) in keys.iter().enumerate() {
            assert!(keys[place + 1..].iter().all(|other| other != one), "{place}");
        }
        assert_ne!(Keys::new(&[7; 32]).owner(), Keys::new(&[8; 32]).owner());
    }

    #[test]
    fn keys_on_disk_mean_the_same_in_every_version() {
        // Computed once, by another implementation; another value here would forget whoever is on a list.
        let found = key("news.example.net", "Ann@example.net");
        assert_eq!(format!("{:032x}", found.0), "a7ddec1371ccc1c1685e25dcb4fe4701");
    }

    #[test]
    fn secret_is_not_shown() {
        assert_eq!(format!("{:?}", Keys::new(&[7; 32])), "Keys(hidden)");
    }
}
