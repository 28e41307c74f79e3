//! Sources and pools as the cores use them: which pool a message belongs to, and which source the next goes out from.
//!
//! A pool's sources share its mail by their weights, exactly over a round. What none of them lets go now is the
//! overflow pool's. Who says whether a source lets go (a warm-up's limit, a provider that blocks it) is the caller.
//! Pure. Bounds: those of `config::sources`; a site's [`Credits`] have a place for each source of each pool it uses.

use crate::config::{Config, Secret, Source as Configured, WarmUp as ConfiguredWarmUp};
use crate::steer::condition::Pattern;
use message::UnixMillis;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

pub use message::{PoolTag, Traits};

/// A source's number. It means the same source for the life of the process, over reloads ([`Sources::renew`]).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SourceKey(pub u8);

/// Where connections come from.
#[derive(Clone, Debug)]
pub struct Source {
    pub name: Arc<str>,
    pub bind: Option<Ipv4Addr>,
    pub bind6: Option<Ipv6Addr>,
    pub ehlo: String,
    pub egress: Egress,
    pub warm_up: Option<WarmUp>,
}

/// How a connection leaves.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Egress {
    Direct,
    /// Through a SOCKS5 server (RFC 1928).
    Socks5 {
        server: SocketAddr,
        login: Option<Login>,
    },
    /// Connect there and send a PROXY header of version 2 that names our address and the peer's.
    Proxy {
        server: SocketAddr,
    },
}

/// User and password, each of 1 to 255 octets (RFC 1929).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Login {
    pub user: String,
    pub password: Secret,
}

impl Source {
    /// The address to connect from to such a peer. `None`: the system's choice.
    pub fn bind_to(&self, peer: IpAddr) -> Option<IpAddr> {
        match peer {
            IpAddr::V4(_) => self.bind.map(IpAddr::V4),
            IpAddr::V6(_) => self.bind6.map(IpAddr::V6),
        }
    }

    fn new(name: &str, configured: &Configured, host_name: &str) -> Source {
        let login = |user: &String| {
            configured.socks5_password.clone().map(|password| Login { user: user.clone(), password })
        };
        let egress = match (configured.socks5, configured.proxy) {
            (Some(server), _) => {
                Egress::Socks5 { server, login: configured.socks5_user.as_ref().and_then(login) }
            }
            (None, Some(server)) => Egress::Proxy { server },
            (None, None) => Egress::Direct,
        };
        Source {
            name: name.into(),
            bind: configured.bind,
            bind6: configured.bind6,
            ehlo: configured.ehlo.clone().unwrap_or_else(|| host_name.to_owned()),
            egress,
            warm_up: configured.warm_up.as_ref().map(WarmUp::new),
        }
    }

    /// What is there without configuration.
    fn implicit(config: &Config) -> Source {
        let mut source = Source::new(crate::config::DEFAULT, &Configured::default(), &config.host_name);
        match config.delivery.bind {
            Some(IpAddr::V4(bind)) => source.bind = Some(bind),
            Some(IpAddr::V6(bind)) => source.bind6 = Some(bind),
            None => {}
        }
        source
    }
}

/// A day in UTC: days since 1970-01-01.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Day(pub u32);

impl Day {
    pub fn of(time: UnixMillis) -> Day {
        Day(u32::try_from(time.seconds() / 86_400).unwrap_or(u32::MAX))
    }

    /// A day before 1970 is the first of it.
    fn of_date(date: toml::value::Date) -> Day {
        let (year, month, day) = (i64::from(date.year), i64::from(date.month), i64::from(date.day));
        // Years that begin in March have their leap day last: 365 days and the leap days of the years before, and 153
        // days for each five months.
        let year = if month <= 2 { year - 1 } else { year };
        let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
        let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        Day(u32::try_from(365 * year + leap_days + day_of_year - 719_468).unwrap_or(0))
    }
}

/// How much a source may send while it is new.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WarmUp {
    start: Day,
    daily: Box<[u32]>,
}

impl WarmUp {
    fn new(configured: &ConfiguredWarmUp) -> WarmUp {
        let start = configured.start.date.map_or(Day(0), Day::of_date);
        WarmUp { start, daily: configured.daily.clone().into() }
    }

    /// Most messages to one provider on that day. `None`: no limit, it is warm.
    pub fn limit_on(&self, today: Day) -> Option<u32> {
        let Some(day) = today.0.checked_sub(self.start.0) else { return Some(0) };
        self.daily.get(day as usize).copied()
    }
}

/// Sources that share mail.
#[derive(Clone, Debug)]
pub struct Pool {
    pub name: Arc<str>,
    pub tag: PoolTag,
    /// The pool that takes what none of the sources lets go now.
    pub overflow: Option<PoolTag>,
    /// With their weights, 1 to 1000.
    members: Box<[(SourceKey, u32)]>,
}

/// How far ahead of its weight each source of a pool is, at one site: smooth weighted round robin. Allocates when a
/// pool is first used.
#[derive(Clone, Debug, Default)]
pub struct Credits {
    pools: Vec<PoolCredits>,
}

#[derive(Clone, Debug)]
struct PoolCredits {
    tag: PoolTag,
    /// As the pool had them; with others everything begins anew.
    members: Box<[(SourceKey, u32)]>,
    owed: Box<[i64]>,
    /// A bit for each source that was open at the last pick.
    open: u64,
}

impl Credits {
    fn of(&mut self, pool: &Pool) -> &mut PoolCredits {
        let place = self.pools.iter().position(|credits| credits.tag == pool.tag);
        let place = place.unwrap_or_else(|| {
            self.pools.push(PoolCredits::new(pool));
            self.pools.len() - 1
        });
        let credits = &mut self.pools[place];
        if credits.members != pool.members {
            *credits = PoolCredits::new(pool);
        }
        credits
    }
}

impl PoolCredits {
    fn new(pool: &Pool) -> PoolCredits {
        let owed = vec![0; pool.members.len()].into();
        PoolCredits { tag: pool.tag, members: pool.members.clone(), owed, open: 0 }
    }
}

impl Pool {
    /// The source whose turn it is, of those that are open. What goes out from it is told by [`Pool::note`]; until then
    /// the same one is picked. Looks at each source of the pool once; no allocation after the first.
    pub fn pick(&self, credits: &mut Credits, is_open: impl Fn(SourceKey) -> bool) -> Option<SourceKey> {
        let credits = credits.of(self);
        credits.open = 0;
        let mut best: Option<(i64, SourceKey)> = None;
        for (place, (key, weight)) in self.members.iter().enumerate() {
            if !is_open(*key) {
                continue;
            }
            credits.open |= 1 << place;
            let owed = credits.owed[place] + i64::from(*weight);
            if best.is_none_or(|(most, _)| owed > most) {
                best = Some((owed, *key));
            }
        }
        best.map(|(_, key)| key)
    }

    /// `count` recipients go out from the source that was picked last: each open source is owed its part of them, and
    /// this one has had them all. Those that were closed gain nothing, and have nothing to catch up with later.
    pub fn note(&self, credits: &mut Credits, picked: SourceKey, count: u32) {
        let credits = credits.of(self);
        let mut sum = 0;
        for (place, (_, weight)) in self.members.iter().enumerate() {
            if credits.open & 1 << place != 0 {
                credits.owed[place] += i64::from(*weight) * i64::from(count);
                sum += i64::from(*weight);
            }
        }
        if let Some(place) = self.members.iter().position(|(key, _)| *key == picked) {
            credits.owed[place] -= sum * i64::from(count);
        }
    }

    pub fn sources(&self) -> impl Iterator<Item = SourceKey> {
        self.members.iter().map(|(key, _)| *key)
    }
}

/// One entry of `[[select]]`.
#[derive(Clone, Debug)]
struct Select {
    sender: Option<Pattern>,
    campaign: Option<Pattern>,
    tenant: Option<Pattern>,
    pool: PoolTag,
}

impl Select {
    fn new(configured: &crate::config::Select) -> Select {
        let pattern = |text: &Option<String>| text.as_deref().map(Pattern::new);
        Select {
            sender: pattern(&configured.sender),
            campaign: pattern(&configured.campaign),
            tenant: pattern(&configured.tenant),
            pool: PoolTag::of(&configured.pool),
        }
    }

    fn holds_for(&self, traits: &Traits<'_>) -> bool {
        let holds = |pattern: &Option<Pattern>, value: Option<&str>| {
            pattern.as_ref().is_none_or(|pattern| value.is_some_and(|value| pattern.matches(value)))
        };
        holds(&self.sender, Some(traits.sender))
            && holds(&self.campaign, traits.campaign)
            && holds(&self.tenant, traits.tenant)
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Sources {
    /// At most [`crate::config::SOURCES_MAX`].
    sources: Vec<(SourceKey, Source)>,
    /// The default pool is the first.
    pools: Vec<Pool>,
    places: HashMap<PoolTag, usize>,
    select: Vec<Select>,
    /// The key that was given last: one that is free again is given late.
    last_key: u8,
}

impl Sources {
    pub fn new(config: &Config) -> Sources {
        let none = Sources {
            sources: Vec::new(),
            pools: Vec::new(),
            places: HashMap::new(),
            select: Vec::new(),
            last_key: u8::MAX,
        };
        none.renew(config)
    }

    /// After a reload: a source that was there under its name keeps its key, and no key of one that was removed just
    /// now is given to another.
    pub fn renew(&self, config: &Config) -> Sources {
        let mut sources = Vec::with_capacity(config.sources.len() + 1);
        let mut last_key = self.last_key;
        if !config.sources.contains_key(crate::config::DEFAULT) {
            sources.push((self.key_for(crate::config::DEFAULT, &mut last_key), Source::implicit(config)));
        }
        for (name, configured) in &config.sources {
            let source = Source::new(name, configured, &config.host_name);
            sources.push((self.key_for(name, &mut last_key), source));
        }
        let pools = pools_of(config, &sources);
        let places = pools.iter().enumerate().map(|(place, pool)| (pool.tag, place)).collect();
        let select = config.select.iter().map(Select::new).collect();
        Sources { sources, pools, places, select, last_key }
    }

    fn key_for(&self, name: &str, last_key: &mut u8) -> SourceKey {
        if let Some((key, _)) = self.sources.iter().find(|(_, source)| &*source.name == name) {
            return *key;
        }
        // At most 64 keys are in use and 64 more given anew: of 256 one is free.
        let is_used = |key: u8| self.sources.iter().any(|(used, _)| used.0 == key);
        loop {
            *last_key = last_key.wrapping_add(1);
            if !is_used(*last_key) {
                return SourceKey(*last_key);
            }
        }
    }

    /// Which pool a new message belongs to. Cost: the entries of `[[select]]` in turn.
    pub fn select(&self, traits: &Traits<'_>) -> PoolTag {
        let found = self.select.iter().find(|select| select.holds_for(traits));
        found.map_or(PoolTag::DEFAULT, |select| select.pool)
    }

    /// A pool that is configured no more is the default pool. One look-up.
    pub fn pool(&self, tag: PoolTag) -> &Pool {
        &self.pools[self.places.get(&tag).copied().unwrap_or(0)]
    }

    /// The pool, and those that its mail overflows to, in turn.
    pub fn chain(&self, tag: PoolTag) -> impl Iterator<Item = &Pool> {
        let next = |pool: &&Pool| pool.overflow.map(|tag| self.pool(tag));
        std::iter::successors(Some(self.pool(tag)), next).take(self.pools.len())
    }

    /// The source for a pool's next mail, and the pool that it is from: the first of the chain that has an open source.
    pub fn pick(
        &self,
        tag: PoolTag,
        credits: &mut Credits,
        is_open: impl Fn(SourceKey) -> bool,
    ) -> Option<(&Pool, SourceKey)> {
        self.chain(tag).find_map(|pool| Some((pool, pool.pick(credits, &is_open)?)))
    }

    /// `None`: it was removed by a reload.
    pub fn source(&self, key: SourceKey) -> Option<&Source> {
        self.sources.iter().find(|(known, _)| *known == key).map(|(_, source)| source)
    }

    pub fn iter(&self) -> impl Iterator<Item = (SourceKey, &Source)> {
        self.sources.iter().map(|(key, source)| (*key, source))
    }
}

fn pools_of(config: &Config, sources: &[(SourceKey, Source)]) -> Vec<Pool> {
    let key_of = |name: &str| sources.iter().find(|(_, source)| &*source.name == name).map(|(key, _)| *key);
    let member = |name: &str, weight| Some((key_of(name)?, weight));
    let mut pools = Vec::with_capacity(config.pools.len() + 1);
    if !config.pools.contains_key(crate::config::DEFAULT) {
        let members = member(crate::config::DEFAULT, 1).into_iter().collect();
        pools.push(Pool {
            name: crate::config::DEFAULT.into(),
            tag: PoolTag::DEFAULT,
            overflow: None,
            members,
        });
    }
    for (name, configured) in &config.pools {
        let members = configured.sources.iter().filter_map(|(name, weight)| member(name, *weight)).collect();
        let overflow = configured.overflow.as_deref().map(PoolTag::of);
        pools.push(Pool { name: name.as_str().into(), tag: PoolTag::of(name), overflow, members });
    }
    pools.sort_by_key(|pool| pool.tag);
    pools
}

#[cfg(test)]
mod tests;
