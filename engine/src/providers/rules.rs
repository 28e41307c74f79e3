//! Rules, compiled: which of them a refusal meets first.
//!
//! All patterns of a chain are one set of automata, so a reply is read once, however many rules there are. Patterns
//! work on octets: `\d` and `\w` are ASCII, and case is ASCII's.

use super::{Action, Judgement};
use message::{EnhancedCode, Reply};
use regex::bytes::{RegexSet, RegexSetBuilder};
use smtp_out::Stage;
use std::sync::OnceLock;

/// One rule; its pattern is in its chain. Empty conditions hold for every reply.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) name: String,
    pub(super) pattern: String,
    pub(super) stages: Vec<Stage>,
    pub(super) codes: Vec<u16>,
    pub(super) enhanced: Vec<EnhancedRange>,
    /// None: the rule exists so that no later one holds.
    pub(super) action: Option<Action>,
    pub(super) defers: bool,
}

impl Rule {
    /// What holds besides the pattern.
    fn holds(&self, stage: Option<Stage>, reply: &Reply) -> bool {
        (self.stages.is_empty() || stage.is_some_and(|stage| self.stages.contains(&stage)))
            && (self.codes.is_empty() || self.codes.contains(&reply.code))
            && (self.enhanced.is_empty() || self.enhanced.iter().any(|range| range.holds(reply.enhanced)))
    }

    pub(super) fn judgement(&self) -> Option<Judgement<'_>> {
        let action = self.action?;
        Some(Judgement { action, defers: self.defers || action == Action::Defer, rule: &self.name })
    }
}

/// `5.7.1`, `5.7.*` or `5.7.606-649`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct EnhancedRange {
    class: u8,
    subject: u16,
    details: (u16, u16),
}

impl EnhancedRange {
    pub(crate) fn parse(text: &str) -> Option<EnhancedRange> {
        let (front, detail) = text.rsplit_once('.')?;
        let low = |end: &str| Some(EnhancedCode::parse_prefix(format!("{front}.{end}").as_bytes())?.0);
        let (first, last) = match detail.split_once('-') {
            Some((first, last)) => (low(first)?, low(last)?),
            None if detail == "*" => (low("0")?, low("999")?),
            None => (low(detail)?, low(detail)?),
        };
        let range = EnhancedRange { class: first.0, subject: first.1, details: (first.2, last.2) };
        (first.0 != 2 && first.2 <= last.2).then_some(range)
    }

    pub(crate) fn holds(self, code: Option<EnhancedCode>) -> bool {
        code.is_some_and(|EnhancedCode(class, subject, detail)| {
            (class, subject) == (self.class, self.subject)
                && (self.details.0..=self.details.1).contains(&detail)
        })
    }
}

/// Octets that the automata of one chain may take while they are built.
const PROGRAM_LEN_MAX: usize = 16 << 20;

/// Octets of states that each core may keep of one chain. Peers choose the texts, so they choose the states too. With
/// 512 KiB, long texts of nothing but our patterns' words cost 1 to 2 ms each, as the states did not fit; with this, 20 µs.
/// The chain for every site alone meets texts of strangers: only the providers' hosts speak to the others.
const STATES_LEN_MAX: usize = 4 << 20;

pub(super) fn builder<'a>(patterns: impl Iterator<Item = &'a str>) -> RegexSetBuilder {
    let mut builder = RegexSetBuilder::new(patterns);
    builder.case_insensitive(true).unicode(false);
    builder.size_limit(PROGRAM_LEN_MAX).dfa_size_limit(STATES_LEN_MAX);
    builder
}

fn build(rules: &[Rule]) -> Result<RegexSet, regex::Error> {
    builder(rules.iter().map(|rule| rule.pattern.as_str())).build()
}

/// Rules in the order of asking.
#[derive(Debug)]
pub(super) struct Chain {
    /// Built when it is first asked, or before: some milliseconds.
    set: OnceLock<RegexSet>,
    rules: Vec<Rule>,
}

impl Chain {
    pub(super) fn new(rules: Vec<Rule>) -> Result<Chain, regex::Error> {
        let set = build(&rules)?;
        Ok(Chain { set: OnceLock::from(set), rules })
    }

    /// Of rules that are known to be right.
    pub(super) fn tested(rules: Vec<Rule>) -> Chain {
        Chain { set: OnceLock::new(), rules }
    }

    pub(super) fn set(&self) -> &RegexSet {
        self.set.get_or_init(|| build(&self.rules).expect("a test has built the rules in the program"))
    }

    /// One pass over the text and a small allocation.
    pub(super) fn first(&self, stage: Option<Stage>, reply: &Reply) -> Option<&Rule> {
        let matches = self.set().matches(reply.text().as_bytes());
        let mut candidates = matches.iter().map(|index| &self.rules[index]);
        candidates.find(|rule| rule.holds(stage, reply))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enhanced_codes_may_be_ranges() {
        let code = |text: &str| EnhancedCode::parse_prefix(text.as_bytes()).map(|(code, _)| code);
        for (range, text, holds) in [
            ("5.7.606-649", "5.7.606", true),
            ("5.7.606-649", "5.7.649", true),
            ("5.7.606-649", "5.7.650", false),
            ("4.7.*", "4.7.28", true),
            ("4.7.*", "5.7.28", false),
            ("4.2.1", "4.2.1", true),
            ("4.2.1", "4.2.2", false),
        ] {
            assert_eq!(EnhancedRange::parse(range).unwrap().holds(code(text)), holds, "{range} {text}");
        }
        assert!(!EnhancedRange::parse("4.2.1").unwrap().holds(None));
        for text in ["", "5.7", "2.1.5", "5.7.9-1", "5.*.1", "5.7.1-", "a.b.c", "5.7.1.1"] {
            assert_eq!(EnhancedRange::parse(text), None, "{text}");
        }
    }
}
