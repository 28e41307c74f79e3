//! The operator's rules on top of those in the program, and the proof that every test line meets its rule.

use super::file::{File, Section, Source, Tested, Wrong};
use super::rules::Chain;
use super::{Provider, ProviderKey, Providers};
use crate::config::{ConfigError, Limits};
use message::{EnhancedCode, Reply};

impl File {
    /// This file, the operator's, on top of the one in the program.
    pub(super) fn over(&self, shipped: File) -> Result<File, Wrong> {
        let mut rest = shipped.providers;
        let mut providers = Vec::new();
        for section in &self.providers {
            let at = rest.iter().position(|other| other.name == section.name);
            let merged = section.over(at.map(|at| rest.remove(at)));
            if merged.mx.is_empty() {
                let what =
                    format!("name: {:?} takes nothing from the program, so write its mx", section.name);
                return Err((section.name_span.clone(), what));
            }
            providers.push(merged);
        }
        providers.extend(rest);
        Ok(File { default: self.default.over(Some(shipped.default)), providers })
    }
}

impl Section {
    fn over(&self, base: Option<Section>) -> Section {
        let base = base.filter(|_| !self.replace);
        let mut rules: Vec<Tested> = self.rules.iter().map(Tested::without_tests).collect();
        let mut merged = Section {
            name: self.name.clone(),
            name_span: self.name_span.clone(),
            mx: self.mx.clone(),
            mx_is_own: !self.mx.is_empty(),
            replace: self.replace,
            limits: self.limits.clone(),
            rules: Vec::new(),
        };
        if let Some(base) = base {
            let is_own = |name: &str| self.rules.iter().any(|own| own.rule.name == name);
            rules.extend(base.rules.into_iter().filter(|other| !is_own(&other.rule.name)));
            merged.limits = self.limits.over(&base.limits);
            if self.mx.is_empty() {
                merged.mx = base.mx;
            }
        }
        Section { rules, ..merged }
    }

    fn chain(&self, source: &str) -> Result<Chain, ConfigError> {
        let rules = self.rules.iter().map(|tested| tested.rule.clone()).collect();
        if source == super::SHIPPED_NAME {
            return Ok(Chain::tested(rules));
        }
        Chain::new(rules).map_err(|error| ConfigError::Value {
            file: source.to_owned(),
            what: format!("the patterns of {:?} are too much together: {error}; simplify them", self.name),
        })
    }
}

impl Tested {
    fn without_tests(&self) -> Tested {
        Tested { rule: self.rule.clone(), tests: Vec::new() }
    }
}

/// Test lines are not looked at. `source` stands for the file in errors.
pub(super) fn build(file: &File, source: &str) -> Result<Providers, ConfigError> {
    let mut providers = Vec::with_capacity(file.providers.len());
    let mut hosts = Vec::new();
    for (index, section) in file.providers.iter().enumerate() {
        let key = ProviderKey(u16::try_from(index).ok());
        hosts.extend(section.mx.iter().map(|pattern| (section.mx_is_own, pattern.clone(), key)));
        let (name, limits) = (section.name.clone(), section.limits.clone());
        providers.push(Provider { name, limits, chain: section.chain(source)? });
    }
    hosts.sort_by_key(|(is_own, pattern, _)| std::cmp::Reverse((*is_own, pattern.as_str().len())));
    let hosts = hosts.into_iter().map(|(_, pattern, key)| (pattern, key)).collect();
    Ok(Providers { default: file.default.chain(source)?, providers, hosts, no_limits: Limits::default() })
}

/// Each reply in `file` meets its rule first, among all that are in force.
pub(super) fn check_tests(
    source: &Source<'_>,
    file: &File,
    providers: &Providers,
) -> Result<(), ConfigError> {
    let named = |name: &str| providers.providers.iter().find(|provider| provider.name == name);
    let chains = file.providers.iter().map(|section| (section, named(&section.name).map(|it| &it.chain)));
    for (section, chain) in chains.chain([(&file.default, Some(&providers.default))]) {
        let chain = chain.expect("every section of the file was built");
        for tested in &section.rules {
            check_rule(chain, tested).map_err(|(span, what)| source.wrong(span, what))?;
        }
    }
    Ok(())
}

fn check_rule(chain: &Chain, Tested { rule, tests }: &Tested) -> Result<(), Wrong> {
    for test in tests {
        let wrong = |what: String| Err((test.span(), format!("test of rule {:?}: {what}", rule.name)));
        let Some(reply) = parse_reply(test.as_ref()) else {
            return wrong("write a refusal as a server says it, as in \"421 4.7.0 Slow down\"".to_owned());
        };
        match chain.first(rule.stages.first().copied(), &reply) {
            Some(first) if first.name == rule.name => {}
            Some(first) => {
                return wrong(format!(
                    "rule {:?} takes it first; move that one down or narrow it",
                    first.name
                ));
            }
            None => return wrong("the rule does not match it; change its pattern or its codes".to_owned()),
        }
    }
    Ok(())
}

/// `421 4.7.0 Slow down` as smtp-out would have read it.
pub(super) fn parse_reply(line: &str) -> Option<Reply> {
    let (code, text) = line.split_at_checked(3)?;
    let code = code.parse().ok().filter(|code| (400..600).contains(code))?;
    let text = text.strip_prefix(' ')?.as_bytes();
    let (enhanced, text) =
        EnhancedCode::parse_prefix(text).map_or((None, text), |(code, text)| (Some(code), text));
    Some(Reply::new(code, enhanced, text))
}

/// The file in the program keeps what it promises.
#[cfg(test)]
pub(super) fn check_shipped() -> Result<(), ConfigError> {
    let source = Source { file: super::SHIPPED_NAME, text: super::SHIPPED };
    let file = source.read()?;
    check_tests(&source, &file, &build(&file, source.file)?)
}
