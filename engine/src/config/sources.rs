//! `[sources]`, `[pools]` and `[[select]]`: from which of our addresses mail goes out.
//!
//! A source and a pool named `default` are always there. Unless they are configured, that source is `delivery.bind` under our
//! host name, and that pool is that source. Bounds: [`SOURCES_MAX`], [`POOLS_MAX`], [`SELECT_MAX`], [`WEIGHT_MAX`],
//! [`WARM_UP_DAYS_MAX`].

use super::{Config, ConfigError};
use message::PoolTag;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::value::Datetime;

/// Sources, the one named `default` among them.
pub const SOURCES_MAX: usize = 64;
pub const POOLS_MAX: usize = 256;
/// Entries of `[[select]]`: each message is held against them in turn.
pub const SELECT_MAX: usize = 256;
pub const WEIGHT_MAX: u32 = 1000;
const WARM_UP_DAYS_MAX: usize = 366;

/// The source and the pool that are always there.
pub const DEFAULT: &str = "default";

/// `[sources.NAME]`: where connections come from.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Addresses of ours. Without one of a family the system chooses.
    pub bind: Option<Ipv4Addr>,
    pub bind6: Option<Ipv6Addr>,
    /// Our name in EHLO. Default: `host_name`.
    pub ehlo: Option<String>,
    /// Go out through this SOCKS5 server (RFC 1928), and log in there (RFC 1929).
    pub socks5: Option<SocketAddr>,
    pub socks5_user: Option<String>,
    pub socks5_password_file: Option<PathBuf>,
    /// What stands in that file, without its line end.
    #[serde(skip)]
    pub socks5_password: Option<Secret>,
    /// Connect there, and say from where and whereto by the PROXY protocol, version 2.
    pub proxy: Option<SocketAddr>,
    pub warm_up: Option<WarmUp>,
}

/// `warm_up`: a new address gains its reputation slowly.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WarmUp {
    /// The first day (UTC). Nothing goes before it.
    pub start: Datetime,
    /// Most messages to one provider on each day from `start` on. After the last one there is no limit.
    pub daily: Vec<u32>,
}

/// `[pools.NAME]`: sources that share mail.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// The pool that takes what none of the sources lets go now.
    pub overflow: Option<String>,
    /// What part each has: its weight over the sum of all.
    pub sources: BTreeMap<String, u32>,
}

/// `[[select]]`: the first entry all of whose conditions hold names a message's pool. `*` stands for any octets, and letters match
/// in either case.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Select {
    pub sender: Option<String>,
    pub campaign: Option<String>,
    pub tenant: Option<String>,
    pub pool: String,
}

/// Never printed.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(pub Arc<[u8]>);

impl Secret {
    /// What stands in a file, without its line end.
    pub(super) fn read(path: &Path) -> Result<Secret, ConfigError> {
        let file = path.display().to_string();
        let text = std::fs::read(path).map_err(|source| ConfigError::Read { file, source })?;
        let secret = text.strip_suffix(b"\n").unwrap_or(&text);
        Ok(Secret(secret.strip_suffix(b"\r").unwrap_or(secret).into()))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Source {
    fn check(&self) -> Result<(), &'static str> {
        let octets_max =
            |text: &Option<String>| text.as_ref().is_none_or(|text| (1..256).contains(&text.len()));
        let has_ehlo = |ehlo: &String| message::Domain::parse(ehlo).is_ok();
        let rules = [
            (self.ehlo.as_ref().is_none_or(has_ehlo), "ehlo is no host name"),
            (self.socks5.is_none() || self.proxy.is_none(), "socks5 and proxy exclude each other"),
            (
                self.socks5_user.is_some() == self.socks5_password_file.is_some(),
                "socks5_user and socks5_password_file go together",
            ),
            (
                self.socks5_user.is_none() || self.socks5.is_some(),
                "socks5_user is for a SOCKS5 server: write its address into socks5",
            ),
            (octets_max(&self.socks5_user), "socks5_user must have 1 to 255 octets (RFC 1929)"),
            (
                self.proxy.is_none() || self.bind.is_some() || self.bind6.is_some(),
                "proxy needs bind or bind6: it is told which address to connect from",
            ),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(what))?;
        self.warm_up.as_ref().map_or(Ok(()), WarmUp::check)
    }

    fn read_password(&mut self) -> Result<(), ConfigError> {
        let Some(path) = &self.socks5_password_file else { return Ok(()) };
        let password = Secret::read(path)?;
        if !(1..256).contains(&password.0.len()) {
            let what = "a SOCKS5 password has 1 to 255 octets (RFC 1929)".to_owned();
            return Err(ConfigError::Value { file: path.display().to_string(), what });
        }
        self.socks5_password = Some(password);
        Ok(())
    }
}

impl WarmUp {
    fn check(&self) -> Result<(), &'static str> {
        if self.start.date.is_none() || self.start.time.is_some() {
            return Err("warm_up.start must be a day, such as 2026-12-01");
        }
        if !(1..=WARM_UP_DAYS_MAX).contains(&self.daily.len()) {
            return Err("warm_up.daily must have a number for each of 1 to 366 days");
        }
        Ok(())
    }
}

/// Passwords, from the files that hold them.
pub(super) fn read_passwords(config: &mut Config) -> Result<(), ConfigError> {
    config.sources.values_mut().try_for_each(Source::read_password)
}

/// What must hold, and what is said if it does not.
pub(super) fn check(config: &Config) -> Result<(), String> {
    check_sources(config)?;
    check_pools(config)?;
    check_overflow(&config.pools)?;
    check_select(config)
}

fn check_sources(config: &Config) -> Result<(), String> {
    let sources = &config.sources;
    if sources.len() + usize::from(!sources.contains_key(DEFAULT)) > SOURCES_MAX {
        return Err(format!("sources: more than {SOURCES_MAX}, the one named default among them"));
    }
    if sources.contains_key(DEFAULT) && config.delivery.bind.is_some() {
        return Err("delivery.bind is the default source's address: write it into sources.default".into());
    }
    if !sources.keys().all(|name| name == DEFAULT) && config.pools.is_empty() {
        return Err("sources are configured and no pool has them: add [pools.default]".into());
    }
    for (name, source) in sources {
        check_name("sources", name)?;
        source.check().map_err(|what| format!("sources.{name}: {what}"))?;
    }
    Ok(())
}

/// Names stand in logs and metrics.
pub(super) fn check_name(table: &str, name: &str) -> Result<(), String> {
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet);
    if (1..65).contains(&name.len()) && name.bytes().all(is_plain) {
        return Ok(());
    }
    Err(format!("{table}.{name:?}: a name has 1 to 64 letters, digits, - _ or ."))
}

fn check_pools(config: &Config) -> Result<(), String> {
    if config.pools.len() + usize::from(!config.pools.contains_key(DEFAULT)) > POOLS_MAX {
        return Err(format!("pools: more than {POOLS_MAX}, the one named default among them"));
    }
    let mut tags: HashMap<PoolTag, &str> = HashMap::new();
    for (name, pool) in &config.pools {
        check_name("pools", name)?;
        if let Some(other) = tags.insert(PoolTag::of(name), name) {
            return Err(format!(
                "pools.{name} and pools.{other} cannot be told apart on disk, where two octets name a pool: rename one"
            ));
        }
        check_members(config, name, pool)?;
    }
    Ok(())
}

fn check_members(config: &Config, name: &str, pool: &Pool) -> Result<(), String> {
    if pool.sources.is_empty() {
        return Err(format!("pools.{name}.sources is empty: nothing would go out"));
    }
    for (source, weight) in &pool.sources {
        if source != DEFAULT && !config.sources.contains_key(source) {
            return Err(format!("pools.{name}.sources: there is no [sources.{source}]"));
        }
        if !(1..=WEIGHT_MAX).contains(weight) {
            return Err(format!("pools.{name}.sources.{source}: a weight is 1 to {WEIGHT_MAX}"));
        }
    }
    match &pool.overflow {
        Some(other) if other != DEFAULT && !config.pools.contains_key(other) => {
            Err(format!("pools.{name}.overflow: there is no [pools.{other}]"))
        }
        Some(_) | None => Ok(()),
    }
}

/// Overflow ends somewhere.
fn check_overflow(pools: &BTreeMap<String, Pool>) -> Result<(), String> {
    for start in pools.keys() {
        let (mut name, mut seen) = (start, BTreeSet::new());
        while let Some(next) = pools.get(name).and_then(|pool| pool.overflow.as_ref()) {
            if !seen.insert(name) {
                return Err(format!(
                    "pools.{name}.overflow leads back to pools.{name}: it must end somewhere"
                ));
            }
            name = next;
        }
    }
    Ok(())
}

fn check_select(config: &Config) -> Result<(), String> {
    if config.select.len() > SELECT_MAX {
        return Err(format!("select: more than {SELECT_MAX} entries"));
    }
    for (number, select) in (1..).zip(&config.select) {
        let Select { sender, campaign, tenant, pool } = select;
        if pool != DEFAULT && !config.pools.contains_key(pool) {
            return Err(format!("[[select]] number {number}: there is no [pools.{pool}]"));
        }
        if [sender, campaign, tenant].into_iter().all(Option::is_none) {
            return Err(format!(
                "[[select]] number {number} has no condition: what no other entry chooses goes to pools.default"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{load, parse};

    fn parsed(tables: &str) -> Result<Config, String> {
        let text = format!("host_name = \"h.test\"\nqueue = \"q\"\n{tables}");
        parse(&text, "ringpost.toml").map_err(|error| error.to_string())
    }

    const WHOLE: &str = r#"
        [sources.a]
        bind = "192.0.2.1"
        bind6 = "2001:db8::1"
        ehlo = "a.example.net"
        warm_up = { start = 2026-12-01, daily = [50, 100] }
        [sources.b]
        bind = "192.0.2.2"
        proxy = "10.0.0.2:2525"
        [sources.c]
        socks5 = "[2001:db8::9]:1080"
        socks5_user = "u"
        socks5_password_file = "/nowhere"
        [pools.news]
        sources = { a = 3, b = 1 }
        overflow = "warm"
        [pools.warm]
        sources = { c = 1, default = 2 }
        [[select]]
        sender = "*@news.example.net"
        campaign = "spring*"
        pool = "news"
        [[select]]
        tenant = "acme"
        pool = "default"
    "#;

    #[test]
    fn what_check_prints_can_be_read_again() {
        let config = parsed(WHOLE).unwrap();
        let shown = toml::to_string(&config).unwrap();
        let again = parse(&shown, "shown").unwrap();
        assert_eq!(toml::to_string(&again).unwrap(), shown);
        assert_eq!((again.sources.len(), again.pools.len(), again.select.len()), (3, 2, 2));
        assert_eq!(again.pools["news"].sources["a"], 3);
        let bare = toml::to_string(&parsed("").unwrap()).unwrap();
        assert!(parse(&bare, "shown").is_ok(), "{bare}");
    }

    #[test]
    fn wrong_sources_and_pools_are_named() {
        let one = "[sources.a]\n[pools.news]\nsources = { a = 1 }\n";
        for (tables, said) in [
            ("[sources.a]\nbind = \"::1\"", "ringpost.toml:4: bind: invalid IPv4 address syntax"),
            ("[sources.a]\nbnd = \"::1\"", "ringpost.toml:4: unknown key \"bnd\"; did you mean \"bind\"?"),
            ("[sources.a]", "no pool has them: add [pools.default]"),
            (
                "[sources.\"a b\"]\n[pools.p]\nsources = { default = 1 }",
                "sources.\"a b\": a name has 1 to 64",
            ),
            ("[sources.default]\nehlo = \"a b\"", "sources.default: ehlo is no host name"),
            ("[sources.default]\n[delivery]\nbind = \"192.0.2.1\"", "write it into sources.default"),
            ("[sources.default]\nproxy = \"10.0.0.1:1\"", "proxy needs bind or bind6"),
            (
                "[sources.default]\nbind = \"192.0.2.1\"\nproxy = \"10.0.0.1:1\"\nsocks5 = \"10.0.0.1:1\"",
                "exclude each other",
            ),
            ("[sources.default]\nsocks5_user = \"u\"", "socks5_password_file go together"),
            (
                "[sources.default]\nwarm_up = { start = 2026-12-01T10:00:00, daily = [1] }",
                "warm_up.start must be a day",
            ),
            ("[sources.default]\nwarm_up = { start = 2026-12-01, daily = [] }", "each of 1 to 366 days"),
            ("[sources.default]\nwarm_up = { start = 2026-13-01, daily = [] }", "ringpost.toml:4"),
            ("[pools.p]\nsources = { a = 1 }", "ringpost.toml: pools.p.sources: there is no [sources.a]"),
            ("[pools.p]\nsources = {}", "pools.p.sources is empty"),
            ("[pools.p]\nsources = { default = 0 }", "pools.p.sources.default: a weight is 1 to 1000"),
            (&format!("{one}overflow = \"x\""), "pools.news.overflow: there is no [pools.x]"),
            (&format!("{one}overflow = \"news\""), "pools.news.overflow leads back to pools.news"),
            (&format!("{one}[[select]]\npool = \"news\""), "[[select]] number 1 has no condition"),
            (
                &format!("{one}[[select]]\nsender = \"*\"\npool = \"new\""),
                "[[select]] number 1: there is no [pools.new]",
            ),
            (&format!("{one}[[select]]\nsendr = \"*\""), "did you mean \"sender\"?"),
            (
                &format!("{one}[pools.NEWS]\nsources = {{ a = 1 }}"),
                "pools.news and pools.NEWS cannot be told apart on disk",
            ),
        ] {
            let error = parsed(tables).unwrap_err();
            assert!(error.contains(said), "{tables}: {error}");
        }
    }

    #[test]
    fn overflow_in_a_ring_is_refused() {
        let pool = |name: &str, next: &str| {
            format!("[pools.{name}]\nsources = {{ default = 1 }}\noverflow = \"{next}\"\n")
        };
        let ring = [pool("a", "b"), pool("b", "c"), pool("c", "b")].concat();
        assert!(parsed(&ring).unwrap_err().contains("overflow leads back to pools.b"));
        assert!(parsed(&[pool("a", "b"), pool("b", "default")].concat()).is_ok());
    }

    #[test]
    fn numbers_are_bounded() {
        let sources: String = (0..SOURCES_MAX).map(|number| format!("[sources.s{number}]\n")).collect();
        assert!(parsed(&sources).unwrap_err().contains("more than 64"));
        let pool = |number| format!("[pools.p{number}]\nsources = {{ default = 1 }}\n");
        assert!(parsed(&(0..POOLS_MAX).map(pool).collect::<String>()).unwrap_err().contains("more than 256"));
        let select = "[[select]]\ntenant = \"t\"\npool = \"default\"\n";
        assert!(parsed(&select.repeat(SELECT_MAX)).is_ok());
        assert!(parsed(&select.repeat(SELECT_MAX + 1)).unwrap_err().contains("more than 256"));
    }

    #[test]
    fn password_is_read_from_its_file_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let (file, password) = (folder.path().join("ringpost.toml"), folder.path().join("password"));
        let text = format!(
            "host_name = \"h.test\"\nqueue = \"q\"\n[sources.default]\nsocks5 = \"127.0.0.1:1080\"\n\
             socks5_user = \"u\"\nsocks5_password_file = {password:?}\n"
        );
        std::fs::write(&file, text).unwrap();
        assert!(load(&file).unwrap_err().to_string().contains("/password: "));
        std::fs::write(&password, "hidden\r\n").unwrap();
        let config = load(&file).unwrap();
        assert_eq!(config.sources["default"].socks5_password, Some(Secret(b"hidden"[..].into())));
        assert!(
            !toml::to_string(&config).unwrap().contains("hidden")
                && !format!("{config:?}").contains("hidden")
        );
        std::fs::write(&password, "\n").unwrap();
        assert!(load(&file).unwrap_err().to_string().contains("1 to 255 octets"));
    }
}
