use super::*;
use crate::config::parse;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn config(tables: &str) -> Config {
    parse(&format!("host_name = \"h.test\"\nqueue = \"q\"\n{tables}"), "ringpost.toml").unwrap()
}

fn sources(tables: &str) -> Sources {
    Sources::new(&config(tables))
}

/// A default pool of sources with these weights, named a, b, c …
fn weighted(weights: &[u32]) -> Sources {
    let names = || (b'a'..).map(char::from).zip(weights);
    let tables: String = names().map(|(name, _)| format!("[sources.{name}]\n")).collect();
    let members: Vec<String> = names().map(|(name, weight)| format!("{name} = {weight}")).collect();
    sources(&format!("{tables}[pools.default]\nsources = {{ {} }}\n", members.join(", ")))
}

fn named(sources: &Sources, key: SourceKey) -> String {
    sources.source(key).unwrap().name.to_string()
}

/// What each source of the default pool gets of picks that carry these counts.
fn shares(
    sources: &Sources,
    credits: &mut Credits,
    counts: impl IntoIterator<Item = u32>,
    closed: &[&str],
) -> BTreeMap<String, u64> {
    let mut got = BTreeMap::new();
    let pool = sources.pool(PoolTag::DEFAULT);
    for count in counts {
        let is_open = |key| !closed.contains(&named(sources, key).as_str());
        let Some(key) = pool.pick(credits, is_open) else { continue };
        pool.note(credits, key, count);
        *got.entry(named(sources, key)).or_default() += u64::from(count);
    }
    got
}

fn by_name(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
    pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[test]
fn without_configuration_there_is_one_source_in_one_pool() {
    let sources = sources("[delivery]\nbind = \"192.0.2.7\"");
    let pool = sources.pool(PoolTag::DEFAULT);
    let key = pool.pick(&mut Credits::default(), |_| true).unwrap();
    let source = sources.source(key).unwrap();
    assert_eq!((&*source.name, &*source.ehlo, &source.egress), ("default", "h.test", &Egress::Direct));
    assert_eq!(source.bind_to("198.51.100.1".parse().unwrap()), Some("192.0.2.7".parse().unwrap()));
    assert_eq!(source.bind_to("2001:db8::1".parse().unwrap()), None);
    assert_eq!(sources.select(&Traits::default()), PoolTag::DEFAULT);
}

#[test]
fn weights_are_met_in_every_round_and_turns_are_spread() {
    let sources = weighted(&[3, 1]);
    let mut credits = Credits::default();
    for _ in 0..10 {
        assert_eq!(shares(&sources, &mut credits, [1; 4], &[]), by_name(&[("a", 3), ("b", 1)]));
    }
    let pool = sources.pool(PoolTag::DEFAULT);
    let mut turn = || {
        let key = pool.pick(&mut credits, |_| true).unwrap();
        pool.note(&mut credits, key, 1);
        named(&sources, key)
    };
    assert_eq!([turn(), turn(), turn(), turn()].concat(), "aaba");
}

#[test]
fn pick_without_a_note_changes_nothing() {
    let sources = weighted(&[1, 1]);
    let mut credits = Credits::default();
    let pool = sources.pool(PoolTag::DEFAULT);
    let first = pool.pick(&mut credits, |_| true);
    assert_eq!(pool.pick(&mut credits, |_| true), first);
    pool.note(&mut credits, first.unwrap(), 3000);
    assert_ne!(pool.pick(&mut credits, |_| true), first);
}

#[test]
fn closed_source_is_passed_over_and_catches_up_with_nothing() {
    let sources = weighted(&[1, 1, 1]);
    let mut credits = Credits::default();
    assert_eq!(shares(&sources, &mut credits, [1; 600], &["b"]), by_name(&[("a", 300), ("c", 300)]));
    let after = shares(&sources, &mut credits, [1; 300], &[]);
    assert_eq!(after, by_name(&[("a", 100), ("b", 100), ("c", 100)]));
    assert_eq!(shares(&sources, &mut credits, [1; 3], &["a", "b", "c"]), by_name(&[]));
}

#[test]
fn credits_of_another_shape_begin_anew() {
    let (before, after) = (weighted(&[1, 1, 1]), weighted(&[1, 3]));
    let mut credits = Credits::default();
    shares(&before, &mut credits, [1000], &[]);
    assert_eq!(shares(&after, &mut credits, [1; 4], &[]), by_name(&[("a", 1), ("b", 3)]));
}

const THREE_POOLS: &str = r#"
    [sources.a]
    [sources.b]
    [pools.news]
    sources = { a = 1 }
    overflow = "warm"
    [pools.warm]
    sources = { b = 1 }
    overflow = "default"
    [[select]]
    sender = "*@news.example.net"
    campaign = "spring*"
    pool = "news"
    [[select]]
    tenant = "ACME"
    pool = "warm"
    [[select]]
    sender = "*@News.example.net"
    pool = "default"
    [[select]]
    campaign = "*"
    pool = "news"
"#;

#[test]
fn first_entry_that_holds_names_the_pool() {
    let sources = sources(THREE_POOLS);
    let select = |sender, campaign, tenant| {
        let tag = sources.select(&Traits { sender, campaign, tenant });
        sources.pool(tag).name.to_string()
    };
    assert_eq!(select("x@news.example.net", Some("Spring 24"), Some("acme")), "news");
    assert_eq!(select("x@news.example.net", Some("autumn"), Some("acme")), "warm");
    assert_eq!(select("x@NEWS.example.net", Some("autumn"), None), "default");
    assert_eq!(select("x@example.net", Some("autumn"), None), "news");
    assert_eq!(select("", None, None), "default");
}

#[test]
fn mail_overflows_along_the_chain_and_the_chain_ends() {
    let sources = sources(THREE_POOLS);
    let news = PoolTag::of("news");
    let chain: Vec<&str> = sources.chain(news).map(|pool| &*pool.name).collect();
    assert_eq!(chain, ["news", "warm", "default"]);
    let pick = |closed: &[&str]| {
        let is_open = |key| !closed.contains(&named(&sources, key).as_str());
        let picked = sources.pick(news, &mut Credits::default(), is_open);
        picked.map(|(pool, key)| (pool.name.to_string(), named(&sources, key)))
    };
    let both = |pool: &str, source: &str| Some((pool.to_owned(), source.to_owned()));
    assert_eq!(pick(&[]), both("news", "a"));
    assert_eq!(pick(&["a"]), both("warm", "b"));
    assert_eq!(pick(&["a", "b"]), both("default", "default"));
    assert_eq!(pick(&["a", "b", "default"]), None);
}

#[test]
fn pool_that_was_removed_is_the_default_pool() {
    let sources = sources("");
    assert_eq!(&*sources.pool(PoolTag::of("news")).name, "default");
    assert_eq!(sources.chain(PoolTag::of("news")).count(), 1);
}

#[test]
fn source_keeps_its_key_over_reloads_and_a_removed_ones_rests() {
    let key = |sources: &Sources, name: &str| {
        sources.iter().find(|(_, source)| &*source.name == name).map(|(key, _)| key)
    };
    let tables = |names: &[&str]| {
        let pool = "[pools.default]\nsources = { default = 1 }\n";
        names.iter().map(|name| format!("[sources.{name}]\n")).collect::<String>() + pool
    };
    let first = sources(&tables(&["m", "z"]));
    let second = first.renew(&config(&tables(&["a", "z"])));
    assert_eq!(key(&first, "z"), key(&second, "z"));
    assert_eq!(key(&first, "default"), key(&second, "default"));
    assert_ne!(key(&first, "m"), key(&second, "a"));
    let mut last = second;
    for round in 0..1000 {
        let name = format!("r{round}");
        let next = last.renew(&config(&tables(&[&name, "z"])));
        assert_eq!(key(&next, "z"), key(&first, "z"));
        assert!(last.iter().all(|(used, _)| Some(used) != key(&next, &name)));
        last = next;
    }
}

#[test]
fn egress_is_what_is_configured() {
    let of = |keys: &str| {
        let sources = sources(&format!("[sources.default]\n{keys}"));
        sources.iter().next().unwrap().1.egress.clone()
    };
    let server = "10.0.0.1:1080".parse().unwrap();
    assert_eq!(of("socks5 = \"10.0.0.1:1080\""), Egress::Socks5 { server, login: None });
    assert_eq!(of("bind = \"192.0.2.1\"\nproxy = \"10.0.0.1:1080\""), Egress::Proxy { server });
}

fn warm_up(start: &str, daily: &str) -> WarmUp {
    let tables = format!("[sources.default]\nwarm_up = {{ start = {start}, daily = {daily} }}");
    sources(&tables).iter().next().unwrap().1.warm_up.clone().unwrap()
}

#[test]
fn warm_up_allows_more_each_day_and_ends() {
    let warm_up = warm_up("2026-12-01", "[50, 100, 500]");
    // 2026-12-01T00:00:00Z
    let day = |after: u64| Day::of(UnixMillis(1_796_083_200_000 + after * 86_400_000));
    assert_eq!((warm_up.limit_on(day(0)), warm_up.limit_on(day(2))), (Some(50), Some(500)));
    assert_eq!(warm_up.limit_on(day(3)), None);
    let eve = Day(day(0).0 - 1);
    assert_eq!(warm_up.limit_on(eve), Some(0));
    assert_eq!(Day::of(UnixMillis(1_796_083_200_000 - 1)), eve);
}

#[test]
fn days_are_counted_over_leap_years() {
    for (date, day) in
        [("1970-01-01", 0), ("2000-02-29", 11_016), ("2000-03-01", 11_017), ("2100-03-01", 47_541)]
    {
        let date: toml::value::Datetime = date.parse().unwrap();
        assert_eq!(Day::of_date(date.date.unwrap()), Day(day), "{date}");
    }
}

proptest! {
    /// Over a round of as many picks as the weights come to, each source has exactly its weight, however many
    /// recipients each pick carries.
    #[test]
    fn weights_are_exact_over_a_round(weights in proptest::collection::vec(1u32..20, 1..8), count in 1u32..3000) {
        let sources = weighted(&weights);
        let mut credits = Credits::default();
        let round = weights.iter().sum::<u32>() as usize;
        for _ in 0..3 {
            let got = shares(&sources, &mut credits, std::iter::repeat_n(count, round), &[]);
            let wanted: Vec<u64> = weights.iter().map(|weight| u64::from(weight * count)).collect();
            prop_assert_eq!(got.into_values().collect::<Vec<_>>(), wanted);
        }
    }

    /// With picks of any size nobody is further from its part than some picks of the greatest size.
    #[test]
    fn parts_are_near_their_weights_whatever_the_picks_carry(
        weights in proptest::collection::vec(1u32..20, 1..8),
        counts in proptest::collection::vec(1u32..3000, 1..200),
    ) {
        let sources = weighted(&weights);
        let got = shares(&sources, &mut Credits::default(), counts.iter().copied(), &[]);
        let (all, sum): (u64, u32) = (counts.iter().map(|count| u64::from(*count)).sum(), weights.iter().sum());
        for (name, weight) in ('a'..).zip(&weights) {
            let part = all * u64::from(*weight) / u64::from(sum);
            let have = got.get(&name.to_string()).copied().unwrap_or(0);
            prop_assert!(have.abs_diff(part) <= 3000 * weights.len() as u64, "{name}: {have} of {part}");
        }
    }
}
