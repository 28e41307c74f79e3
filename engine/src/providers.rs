//! Provider rules: what the big mailbox providers allow, and what they mean by their refusals.
//!
//! Answers three questions: which provider is a site's, what limits does it publish, and what is to be done about
//! this refusal beyond what [`smtp_out::classify`] makes of it. The answers stand in `providers.toml`, which is part
//! of the program; a file of the operator's comes first. Every rule carries replies that it must match, and a file
//! whose replies do not is refused: a pattern that silently matches nothing is worse than none.
//!
//! Pure. Trusts no reply: patterns run in time linear in it, and it is cut to [`message::reply::TEXT_MAX`].
//! Bounds: [`PROVIDERS_MAX`] providers, [`RULES_MAX`] rules in each.

mod file;
mod merge;
mod rules;
#[cfg(test)]
mod tests;

use crate::config::{ConfigError, HostPattern, Limits};
use file::Source;
use message::Reply;
use rules::Chain;
pub(crate) use rules::EnhancedRange;
use smtp_out::Stage;
use std::time::Duration;

/// Providers of the program and of the operator together.
pub const PROVIDERS_MAX: usize = 1000;

/// Rules of one provider, or of the default section.
pub const RULES_MAX: usize = 200;

const SHIPPED: &str = include_str!("../providers.toml");
const SHIPPED_NAME: &str = "providers.toml (in the program)";

/// What to do about a refusal, and about whom.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// The site waits as it does when its hosts fail.
    BackOff,
    /// The site gets this part of its rate and of its connections for a time. 1 to 99.
    Slower { to_percent: u8, lasts: Duration },
    /// This host rests; the site's others go on.
    SkipMx { lasts: Duration },
    /// Nothing goes from this source to this provider for a time: what is due there waits.
    Suspend { lasts: Duration },
    /// This provider refuses this source: for a time others of its pool go instead. Without others it is `Suspend`.
    BlockSource { lasts: Duration },
    /// The recipient failed for good, whatever the code.
    Bounce,
    /// The recipient is tried again, whatever the code.
    Defer,
}

/// A refusal as the rules see it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Judgement<'a> {
    pub action: Action,
    /// The refusal is not the recipient's: it is tried again, even after a 5xx. Always with `Action::Defer`.
    pub defers: bool,
    /// Name of the rule, for the log and for `explain`.
    pub rule: &'a str,
}

/// A provider of one [`Providers`]; the default is none of them.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct ProviderKey(Option<u16>);

impl ProviderKey {
    /// No provider is known: only the default rules hold.
    pub const NONE: ProviderKey = ProviderKey(None);
}

/// See the module. Built once, at a start or a reload; shared by all cores.
#[derive(Debug)]
pub struct Providers {
    /// Rules for every site, asked after those of its provider.
    default: Chain,
    providers: Vec<Provider>,
    /// In the order of asking.
    hosts: Vec<(HostPattern, ProviderKey)>,
    no_limits: Limits,
}

#[derive(Debug)]
struct Provider {
    name: String,
    limits: Limits,
    chain: Chain,
}

impl Providers {
    /// Those in the program.
    pub fn shipped() -> Providers {
        Providers::load(None).expect("the file in the program is read by its tests")
    }

    /// Those in the program, and before them the operator's file, given by its name for errors and its text. An entry
    /// with the name of one in the program adds to it: its limits win, its rules come first or take the place of
    /// those with their name; with `replace = true` nothing of the other is left.
    pub fn load(operator: Option<(&str, &str)>) -> Result<Providers, ConfigError> {
        let shipped = || Source { file: SHIPPED_NAME, text: SHIPPED }.read_tested();
        let Some((file, text)) = operator else { return merge::build(&shipped()?, SHIPPED_NAME) };
        let source = Source { file, text };
        let own = source.read()?;
        let both = own.over(shipped()?).map_err(|(span, what)| source.wrong(span, what))?;
        let providers = merge::build(&both, file)?;
        merge::check_tests(&source, &own, &providers)?;
        Ok(providers)
    }

    /// Builds what has not been asked yet. A fifth of a second, for a thread that has the time.
    pub fn build(&self) {
        self.default.set();
        for provider in &self.providers {
            provider.chain.set();
        }
    }

    /// The provider of a site by the names of its MX hosts, most preferred first. The first host decides: nearly all
    /// mail goes there, and a fallback elsewhere does not make a site that one's.
    /// The operator's patterns are asked before those in the program, and of each the longest first.
    pub fn of_hosts<'a>(&self, mut names: impl Iterator<Item = &'a str>) -> ProviderKey {
        let Some(host) = names.next() else { return ProviderKey::NONE };
        let found = self.hosts.iter().find(|(pattern, _)| pattern.matches(host));
        found.map_or(ProviderKey::NONE, |(_, key)| *key)
    }

    /// What the provider allows one site; empty if none is known.
    pub fn limits(&self, key: ProviderKey) -> &Limits {
        self.provider(key).map_or(&self.no_limits, |provider| &provider.limits)
    }

    pub fn name(&self, key: ProviderKey) -> Option<&str> {
        self.provider(key).map(|provider| provider.name.as_str())
    }

    /// What to do about a refusal beyond [`smtp_out::classify`]: the provider's first rule that holds, else the first
    /// of the default section. None for a 2xx, and where no rule speaks. Without a stage, rules that ask for one do
    /// not hold. A microsecond or a few and an allocation or two, some twenty for the worst texts tried: ask about
    /// refusals only.
    pub fn judge(&self, key: ProviderKey, stage: Option<Stage>, reply: &Reply) -> Option<Judgement<'_>> {
        if reply.is_positive() {
            return None;
        }
        let own = self.provider(key).and_then(|provider| provider.chain.first(stage, reply));
        own.or_else(|| self.default.first(stage, reply))?.judgement()
    }

    fn provider(&self, key: ProviderKey) -> Option<&Provider> {
        self.providers.get(usize::from(key.0?))
    }
}

/// An operator's file of any octets is read or refused with a place in it.
pub fn fuzz_providers(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Err(error) = Providers::load(Some(("own.toml", &text))) {
        assert!(error.to_string().starts_with("own.toml:"), "{error}");
    }
}
