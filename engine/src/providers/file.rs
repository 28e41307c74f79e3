//! The file of provider rules as it is written, and everything in it checked but its test lines.
//!
//! An error names file, line and key and says what to do. The operator's word is trusted in what it says, not in how
//! it says it.

use super::rules::{EnhancedRange, Rule, builder};
use super::{Action, PROVIDERS_MAX, RULES_MAX};
use crate::config::{ConfigError, HostPattern, Limits, Span, read_toml, wrong_at};
use serde::Deserialize;
use smtp_out::Stage;
use std::ops::Range;
use toml::Spanned;

/// A file's name and text, for errors that say where.
pub(super) struct Source<'a> {
    pub(super) file: &'a str,
    pub(super) text: &'a str,
}

impl Source<'_> {
    pub(super) fn wrong(&self, span: Range<usize>, what: String) -> ConfigError {
        wrong_at(self.text, self.file, span, what)
    }

    /// Everything but the test lines is checked.
    pub(super) fn read(&self) -> Result<File, ConfigError> {
        let text: FileText = read_toml(self.text, self.file)?;
        text.check_patterns().map_err(|(span, what)| self.wrong(span, what))?;
        text.checked().map_err(|(span, what)| self.wrong(span, what))
    }

    /// Of the file in the program, whose patterns a test has checked: building them takes a fifth of a second.
    pub(super) fn read_tested(&self) -> Result<File, ConfigError> {
        let text: FileText = read_toml(self.text, self.file)?;
        text.checked().map_err(|(span, what)| self.wrong(span, what))
    }
}

/// Where in the file, and what is wrong there.
pub(super) type Wrong = (Range<usize>, String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    #[serde(default)]
    default: DefaultText,
    #[serde(default)]
    provider: Vec<ProviderText>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DefaultText {
    replace: bool,
    rule: Vec<RuleText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProviderText {
    name: Spanned<String>,
    #[serde(default)]
    mx: Vec<HostPattern>,
    #[serde(default)]
    replace: bool,
    #[serde(default)]
    limits: Option<Spanned<Limits>>,
    #[serde(default)]
    rule: Vec<RuleText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    name: Spanned<String>,
    pattern: Option<Spanned<String>>,
    #[serde(default)]
    stages: Vec<StageText>,
    #[serde(default)]
    codes: Vec<Spanned<u16>>,
    #[serde(default)]
    enhanced: Vec<Spanned<String>>,
    action: Spanned<ActionText>,
    to_percent: Option<Spanned<u8>>,
    #[serde(rename = "for")]
    lasts: Option<Span>,
    #[serde(default)]
    defer: bool,
    #[serde(default)]
    test: Vec<Spanned<String>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StageText {
    Connect,
    Mail,
    Rcpt,
    Data,
    End,
}

#[derive(Clone, Copy, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
enum ActionText {
    BackOff,
    Slower,
    SkipMx,
    Suspend,
    BlockSource,
    Bounce,
    Defer,
    Ignore,
}

/// A file whose single values are right.
pub(super) struct File {
    pub(super) default: Section,
    pub(super) providers: Vec<Section>,
}

/// A provider or, without name and hosts, what holds for all.
pub(super) struct Section {
    pub(super) name: String,
    pub(super) name_span: Range<usize>,
    pub(super) mx: Vec<HostPattern>,
    /// The operator's patterns are asked first.
    pub(super) mx_is_own: bool,
    pub(super) replace: bool,
    pub(super) limits: Limits,
    pub(super) rules: Vec<Tested>,
}

pub(super) struct Tested {
    pub(super) rule: Rule,
    pub(super) tests: Vec<Spanned<String>>,
}

impl FileText {
    fn check_patterns(&self) -> Result<(), Wrong> {
        let rules = self.provider.iter().flat_map(|provider| &provider.rule);
        let mut patterns = self.default.rule.iter().chain(rules).filter_map(|rule| rule.pattern.as_ref());
        patterns.try_for_each(check_pattern)
    }

    fn checked(self) -> Result<File, Wrong> {
        let default = Section {
            name: "default".to_owned(),
            name_span: 0..0,
            mx: Vec::new(),
            mx_is_own: false,
            replace: self.default.replace,
            limits: Limits::default(),
            rules: checked_rules(self.default.rule)?,
        };
        if let Some(extra) = self.provider.get(PROVIDERS_MAX) {
            return Err((extra.name.span(), format!("name: there are more than {PROVIDERS_MAX} providers")));
        }
        let providers = self.provider.into_iter().map(ProviderText::checked);
        let providers = providers.collect::<Result<Vec<Section>, Wrong>>()?;
        no_name_twice(providers.iter().map(|section| (section.name.as_str(), &section.name_span)))?;
        Ok(File { default, providers })
    }
}

impl ProviderText {
    fn checked(self) -> Result<Section, Wrong> {
        let limits_span = self.limits.as_ref().map_or(0..0, Spanned::span);
        let limits = self.limits.map(Spanned::into_inner).unwrap_or_default();
        limits.check().map_err(|what| (limits_span, format!("limits: {what}")))?;
        let name_span = self.name.span();
        let (name, replace) = (self.name.into_inner(), self.replace);
        let rules = checked_rules(self.rule)?;
        Ok(Section { name, name_span, mx: self.mx, mx_is_own: false, replace, limits, rules })
    }
}

fn checked_rules(rules: Vec<RuleText>) -> Result<Vec<Tested>, Wrong> {
    if let Some(extra) = rules.get(RULES_MAX) {
        return Err((extra.name.span(), format!("name: there are more than {RULES_MAX} rules here")));
    }
    no_name_twice(rules.iter().map(|rule| (rule.name.as_ref().as_str(), rule.name.span())))?;
    rules.into_iter().map(RuleText::checked).collect()
}

fn no_name_twice<'a>(
    names: impl Iterator<Item = (&'a str, impl std::borrow::Borrow<Range<usize>>)>,
) -> Result<(), Wrong> {
    let mut seen = std::collections::BTreeSet::new();
    for (name, span) in names {
        if name.is_empty() || !seen.insert(name) {
            return Err((span.borrow().clone(), format!("name: {name:?} is empty or here twice")));
        }
    }
    Ok(())
}

impl RuleText {
    fn checked(self) -> Result<Tested, Wrong> {
        let (name_span, name) = (self.name.span(), self.name.as_ref());
        let wrong = |what: &str| (name_span.clone(), format!("rule {name:?}: {what}"));
        if self.pattern.is_none() && self.codes.is_empty() && self.enhanced.is_empty() {
            return Err(wrong("write a pattern, codes or enhanced, else it holds for everything"));
        }
        if self.test.is_empty() {
            return Err(wrong(
                "write at least one reply that it must match, as in test = [\"421 Slow down\"]",
            ));
        }
        let rule = Rule {
            name: name.clone(),
            pattern: self.pattern.as_ref().map(|pattern| pattern.as_ref().clone()).unwrap_or_default(),
            stages: self.stages.iter().map(|stage| stage.stage()).collect(),
            codes: self.codes.iter().map(checked_code).collect::<Result<_, Wrong>>()?,
            enhanced: self.enhanced.iter().map(checked_enhanced).collect::<Result<_, Wrong>>()?,
            action: self.checked_action()?,
            defers: self.defer,
        };
        Ok(Tested { rule, tests: self.test })
    }

    fn checked_action(&self) -> Result<Option<Action>, Wrong> {
        let action = *self.action.as_ref();
        let wrong = |what: &str| Err((self.action.span(), format!("action: {what}")));
        if self.to_percent.is_some() != (action == ActionText::Slower) {
            return wrong("to_percent = 1 to 99 goes with \"slower\", and it needs it");
        }
        let to_percent = self.to_percent.as_ref().map_or(99, |percent| *percent.as_ref());
        if !(1..=99).contains(&to_percent) {
            return wrong("to_percent must be 1 to 99");
        }
        if self.defer && action == ActionText::Bounce {
            return wrong("\"bounce\" and defer = true cannot both be");
        }
        match (action.timed(to_percent), self.lasts) {
            (Ok(timed), Some(lasts)) => Ok(Some(timed(lasts.duration()))),
            (Ok(_), None) => wrong("write how long, as in for = \"30min\""),
            (Err(untimed), None) => Ok(untimed),
            (Err(_), Some(_)) => wrong("this one has no time: remove for"),
        }
    }
}

impl ActionText {
    /// An action that waits for its time, or one that has none.
    fn timed(self, to_percent: u8) -> Result<impl Fn(std::time::Duration) -> Action, Option<Action>> {
        match self {
            ActionText::Slower | ActionText::SkipMx | ActionText::Suspend | ActionText::BlockSource => {}
            ActionText::BackOff => return Err(Some(Action::BackOff)),
            ActionText::Bounce => return Err(Some(Action::Bounce)),
            ActionText::Defer => return Err(Some(Action::Defer)),
            ActionText::Ignore => return Err(None),
        }
        Ok(move |lasts| match self {
            ActionText::Slower => Action::Slower { to_percent, lasts },
            ActionText::SkipMx => Action::SkipMx { lasts },
            ActionText::BlockSource => Action::BlockSource { lasts },
            _ => Action::Suspend { lasts },
        })
    }
}

impl StageText {
    fn stage(self) -> Stage {
        match self {
            StageText::Connect => Stage::Connect,
            StageText::Mail => Stage::Mail,
            StageText::Rcpt => Stage::Rcpt,
            StageText::Data => Stage::Data,
            StageText::End => Stage::End,
        }
    }
}

fn check_pattern(pattern: &Spanned<String>) -> Result<(), Wrong> {
    match builder(std::iter::once(pattern.as_ref().as_str())).build() {
        Ok(set) if !set.is_match(b"") => Ok(()),
        Ok(_) => Err((pattern.span(), "pattern: it matches the empty text, so every reply".to_owned())),
        Err(error) => Err((pattern.span(), format!("pattern: {}", last_line(&error.to_string())))),
    }
}

/// The expression library draws the place on several lines; the last one says what is wrong.
fn last_line(error: &str) -> &str {
    error.lines().last().unwrap_or(error).trim().trim_start_matches("error: ")
}

fn checked_code(code: &Spanned<u16>) -> Result<u16, Wrong> {
    match (400..600).contains(code.as_ref()) {
        true => Ok(*code.as_ref()),
        false => Err((code.span(), format!("codes: {} is no refusal; write 400 to 599", code.as_ref()))),
    }
}

fn checked_enhanced(text: &Spanned<String>) -> Result<EnhancedRange, Wrong> {
    EnhancedRange::parse(text.as_ref()).ok_or_else(|| {
        let what = format!("enhanced: {:?} is none; write 5.7.1, 4.7.* or 5.7.606-649", text.as_ref());
        (text.span(), what)
    })
}
