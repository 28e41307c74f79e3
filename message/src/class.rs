//! What kind of mail a message is besides its lane: where it may go out from, and whose turn it takes.
//!
//! Both are decided once, when the message comes, and stand in its record, so that no delivery and no start reads a
//! header for them. [`Traits`] is all that they are decided by.

use crate::header::fields;
use std::borrow::Cow;
use std::num::NonZeroU16;

/// Octets of a header in which the fields of [`Marks`] are looked for.
pub const HEADER_MAX: usize = 64 << 10;

/// A pool of sources, as records name it: a hash of its name, so that it outlives restarts and reloads. 0 is the default pool.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PoolTag(pub u16);

impl PoolTag {
    pub const DEFAULT: PoolTag = PoolTag(0);

    /// Two names may have one tag; who configures pools sees to it that they do not.
    pub fn of(name: &str) -> PoolTag {
        if name == "default" {
            return PoolTag::DEFAULT;
        }
        PoolTag(u16::try_from(hash(0, [name]) % 0xffff).unwrap_or(0) + 1)
    }
}

/// One of 256 streams of mail that take turns at a site: messages of one campaign are in one. By chance two campaigns
/// may share a stream, and then one turn.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Flow(pub u8);

/// A campaign of this queue, as records name it: from 1 on, given out by whoever keeps the table of campaigns, which says
/// what pool it goes out from.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CampaignNumber(pub NonZeroU16);

/// Pool and stream of a message, as its record has them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Class {
    /// The default one in mail of a campaign: the campaign knows its pool.
    pub pool: PoolTag,
    pub flow: Flow,
    pub campaign: Option<CampaignNumber>,
}

/// Who sends a message, and as part of what.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traits<'a> {
    /// The reverse-path without brackets; empty for `<>`.
    pub sender: &'a str,
    pub campaign: Option<&'a str>,
    pub tenant: Option<&'a str>,
}

impl Traits<'_> {
    /// The tenant's campaign; whoever names no tenant is told apart by the sender's domain. `seed` is nobody's who
    /// sends mail: he cannot choose a name that shares another's stream.
    pub fn flow(&self, seed: u64) -> Flow {
        let domain = || self.sender.rsplit_once('@').map_or(self.sender, |(_, domain)| domain);
        let who = self.tenant.unwrap_or_else(domain);
        Flow(hash(seed, [who, self.campaign.unwrap_or_default()]).to_le_bytes()[7])
    }
}

/// FNV-1a over the names in lower case, each with its end, then mixed so that every bit counts.
fn hash<const N: usize>(seed: u64, names: [&str; N]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ seed;
    for name in names {
        let octets = name.bytes().map(|octet| octet.to_ascii_lowercase()).chain([0xff]);
        hash = octets.fold(hash, |hash, octet| (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3));
    }
    (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// What a header says of a message's campaign and tenant.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Marks<'a> {
    /// The value of `X-Campaign-ID`, else of `X-Campaign`, else the first part of `Feedback-ID`.
    pub campaign: Option<Cow<'a, str>>,
    /// The value of the field that was asked for.
    pub tenant: Option<Cow<'a, str>>,
    /// What `List-Id` has between its angle brackets, else its value (RFC 2919 §3); else that of `X-List`.
    pub list: Option<Cow<'a, str>>,
}

impl<'a> Marks<'a> {
    /// One pass over the header, up to [`HEADER_MAX`]. Allocates only for values that are folded or no UTF-8.
    pub fn of(content: &'a [u8], tenant_field: &str) -> Marks<'a> {
        let (mut named, mut tenant, mut list, mut other) = ([None, None, None], None, None, None);
        for field in fields(&content[..content.len().min(HEADER_MAX)]) {
            let is = |name: &str| field.name.eq_ignore_ascii_case(name.as_bytes());
            if let Some(place) = CAMPAIGN_FIELDS.into_iter().position(is) {
                named[place].get_or_insert(field);
            }
            if is(tenant_field) {
                tenant.get_or_insert(field);
            }
            if is("list-id") {
                list.get_or_insert(field);
            }
            if is("x-list") {
                other.get_or_insert(field);
            }
        }
        let [id, campaign, feedback] = named.map(|field| field.map(value_of));
        let campaign = id.or(campaign).or(feedback.map(first_part));
        let is_said = |value: &Cow<'_, str>| !value.is_empty();
        let named = |field: Option<_>| field.map(|field| in_brackets(value_of(field))).filter(is_said);
        Marks {
            campaign: campaign.filter(is_said),
            tenant: tenant.map(value_of).filter(is_said),
            list: named(list).or_else(|| named(other)),
        }
    }
}

/// The first that is there names the campaign.
const CAMPAIGN_FIELDS: [&str; 3] = ["x-campaign-id", "x-campaign", "feedback-id"];

/// The field's value on one line, white space as one blank.
fn value_of(field: crate::header::Field<'_>) -> Cow<'_, str> {
    let value = field.whole[field.name.len() + 1..].trim_ascii();
    let is_plain = |octet: &u8| (32..127).contains(octet);
    match std::str::from_utf8(value) {
        Ok(text) if value.iter().all(is_plain) && !text.contains("  ") => Cow::Borrowed(text),
        _ => {
            let text = String::from_utf8_lossy(value);
            Cow::Owned(text.split_whitespace().collect::<Vec<_>>().join(" "))
        }
    }
}

/// What stands before the first colon.
fn first_part(value: Cow<'_, str>) -> Cow<'_, str> {
    let len = value.split(':').next().map_or(0, |part| part.trim_end().len());
    part_of(value, 0..len)
}

/// What stands between the last pair of angle brackets; all of it if there is none.
fn in_brackets(value: Cow<'_, str>) -> Cow<'_, str> {
    let from = value.rfind('<').map_or(0, |at| at + 1);
    let len = value[from..].find('>').unwrap_or(value.len() - from);
    part_of(value, from..from + len)
}

fn part_of(value: Cow<'_, str>, range: std::ops::Range<usize>) -> Cow<'_, str> {
    match value {
        Cow::Borrowed(text) => Cow::Borrowed(&text[range]),
        Cow::Owned(text) => Cow::Owned(text[range].to_owned()),
    }
}

/// For the fuzzer: any octets as a header.
pub fn fuzz_marks(bytes: &[u8]) {
    let _ = Marks::of(bytes, "X-Tenant");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn campaign(header: &str) -> Option<String> {
        Marks::of(header.as_bytes(), "X-Tenant").campaign.map(Cow::into_owned)
    }

    #[test]
    fn campaign_is_named_by_the_first_field_that_is_there() {
        let both = "Feedback-ID: s24:acme:news:esp\r\nX-Campaign: c\r\n\r\n";
        assert_eq!(campaign(both).as_deref(), Some("c"));
        assert_eq!(campaign("feedback-id: s24 :acme:news:esp\r\n\r\n").as_deref(), Some("s24"));
        assert_eq!(campaign("X-Campaign-ID: spring\r\n  24\r\n\r\n").as_deref(), Some("spring 24"));
        assert_eq!(campaign("X-Campaign: a\r\nX-Campaign: b\r\n\r\n").as_deref(), Some("a"));
        for none in ["Subject: x\r\n\r\n", "Subject: x\r\n\r\nX-Campaign: body\r\n", "X-Campaign:\r\n\r\n"] {
            assert_eq!(campaign(none), None, "{none:?}");
        }
    }

    #[test]
    fn tenant_stands_in_the_field_that_is_asked_for() {
        let header = b"x-tenant: acme \r\nX-Customer: \xc3\xa9\r\n\r\n";
        assert_eq!(Marks::of(header, "X-Tenant").tenant.as_deref(), Some("acme"));
        assert_eq!(Marks::of(header, "X-Customer").tenant.as_deref(), Some("é"));
    }

    #[test]
    fn list_is_named_by_its_id_else_by_the_other_field() {
        let list = |header: &str| Marks::of(header.as_bytes(), "X-Tenant").list.map(Cow::into_owned);
        assert_eq!(list("X-List: news\r\nList-Id: N <n.test>\r\n\r\n").as_deref(), Some("n.test"));
        assert_eq!(list("X-List: news\r\nList-Id:\r\n\r\n").as_deref(), Some("news"));
        assert_eq!(list("Subject: x\r\n\r\nX-List: body\r\n"), None);
    }

    #[test]
    fn nothing_behind_the_bound_is_looked_at() {
        let filler = "Subject: ".to_owned() + &"x".repeat(HEADER_MAX) + "\r\n";
        assert_eq!(campaign(&(filler + "X-Campaign: c\r\n\r\n")), None);
    }

    #[test]
    fn stream_is_the_tenants_campaign_or_else_the_domains() {
        let flow = |sender, campaign, tenant| Traits { sender, campaign, tenant }.flow(7);
        assert_eq!(flow("a@x.test", None, None), flow("b@X.test", None, None));
        assert_ne!(flow("a@x.test", None, None), flow("a@y.test", None, None));
        assert_ne!(flow("a@x.test", Some("c"), None), flow("a@x.test", None, None));
        assert_eq!(flow("a@x.test", Some("c"), Some("t")), flow("a@y.test", Some("c"), Some("T")));
        assert_ne!(flow("a@x.test", None, None), Traits { sender: "a@x.test", ..Traits::default() }.flow(8));
    }

    #[test]
    fn streams_are_spread_evenly() {
        let mut counts = [0u32; 256];
        for number in 0..25_600 {
            let sender = format!("news@customer-{number}.example");
            let flow = Traits { sender: &sender, ..Traits::default() }.flow(0);
            counts[usize::from(flow.0)] += 1;
        }
        assert!(counts.iter().all(|count| (50..200).contains(count)), "{counts:?}");
    }

    #[test]
    fn default_pool_alone_has_tag_zero() {
        assert_eq!(PoolTag::of("default"), PoolTag::DEFAULT);
        for number in 0..100_000 {
            assert_ne!(PoolTag::of(&format!("pool-{number}")), PoolTag::DEFAULT);
        }
    }

    #[test]
    fn tags_on_disk_mean_the_same_in_every_version() {
        // Computed once; another value here would send queued mail out from another pool.
        assert_eq!((PoolTag::of("news"), PoolTag::of("NEWS")), (PoolTag(3987), PoolTag(3987)));
    }

    proptest! {
        #[test]
        fn fuzz_smoke(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            fuzz_marks(&bytes);
        }

        #[test]
        fn any_value_is_read_as_its_words(words in proptest::collection::vec("[a-zé]{1,5}", 1..4), gap in "( |\r\n |\t)+") {
            let header = format!("X-Campaign:{gap}{}\r\n\r\n", words.join(&gap));
            prop_assert_eq!(campaign(&header), Some(words.join(" ")));
        }
    }
}
