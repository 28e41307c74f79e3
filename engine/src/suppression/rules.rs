//! What `[suppression]` says of mail: which goes whoever is on the list, and which refusals put somebody on it.

use crate::config::{self, AtRcpt};
use crate::providers::EnhancedRange;
use crate::steer::condition::Pattern;
use message::{Lane, Reply, ReversePath};
use regex::bytes::{RegexSet, RegexSetBuilder};

/// Subject of RFC 3463's codes that speak of policy, not of the recipient.
const POLICY: u16 = 7;

/// See the module. Made of a configuration that was checked.
#[derive(Clone, Debug)]
pub struct SuppressionRules {
    refuses_at_rcpt: bool,
    exempt_senders: Vec<Pattern>,
    exempt_lanes: Vec<Lane>,
    bounce_lanes: Vec<Lane>,
    codes: Vec<EnhancedRange>,
    texts: RegexSet,
}

impl SuppressionRules {
    pub fn new(config: &config::Suppression) -> SuppressionRules {
        SuppressionRules {
            refuses_at_rcpt: config.at_rcpt == AtRcpt::Refuse,
            exempt_senders: config.exempt_senders.iter().map(|text| Pattern::new(text)).collect(),
            exempt_lanes: config.exempt_lanes.clone(),
            bounce_lanes: config.bounce_lanes.clone(),
            codes: config.bounce_codes.iter().filter_map(|code| EnhancedRange::parse(code)).collect(),
            texts: builder(&config.bounce_patterns).build().unwrap_or_else(|_| RegexSet::empty()),
        }
    }

    /// Who is on the list is refused at once.
    pub fn refuses_at_rcpt(&self) -> bool {
        self.refuses_at_rcpt
    }

    /// Mail from there goes whoever is on the list. Our own reports come from nobody.
    pub fn exempts_sender(&self, sender: &ReversePath) -> bool {
        let is_meant = |pattern: &Pattern| pattern.matches(sender.as_str());
        *sender == ReversePath::Null || self.exempt_senders.iter().any(is_meant)
    }

    pub fn exempts(&self, sender: &ReversePath, lane: Lane) -> bool {
        self.exempt_lanes.contains(&lane) || self.exempts_sender(sender)
    }

    /// Refusals of that lane's mail are looked at.
    pub fn learns_from(&self, lane: Lane) -> bool {
        self.bounce_lanes.contains(&lane)
    }

    /// A refusal that says that there is no such recipient, for good.
    pub fn is_hard(&self, reply: &Reply) -> bool {
        if !reply.is_permanent() || reply.enhanced.is_some_and(|code| code.1 == POLICY) {
            return false;
        }
        self.codes.iter().any(|range| range.holds(reply.enhanced))
            || self.texts.is_match(reply.text().as_bytes())
    }
}

/// Of texts in either case, on octets.
pub(crate) fn builder(patterns: &[String]) -> RegexSetBuilder {
    let mut builder = RegexSetBuilder::new(patterns);
    builder.case_insensitive(true).unicode(false).size_limit(1 << 20);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> SuppressionRules {
        SuppressionRules::new(&toml::from_str(text).unwrap())
    }

    #[test]
    fn refusals_that_speak_of_the_recipient_count_and_policy_does_not() {
        let usual = rules("");
        let own = rules("bounce_codes = [\"5.1.*\"]\nbounce_patterns = [\"user (unknown|disabled)\"]");
        for (code, enhanced, text, by_default, by_own) in [
            (550, Some((5, 1, 1)), "no such user", true, true),
            (550, Some((5, 1, 10)), "recipient not found", true, true),
            (551, Some((5, 1, 6)), "moved", true, true),
            (550, Some((5, 1, 2)), "bad host", false, true),
            (550, Some((5, 7, 1)), "User Unknown", false, false),
            (550, Some((5, 2, 2)), "mailbox full", false, false),
            (550, None, "User unknown", false, true),
            (554, Some((5, 0, 0)), "USER DISABLED", false, true),
            (450, Some((4, 1, 1)), "user unknown", false, false),
        ] {
            let mut reply = Reply::new(code, None, text.as_bytes());
            reply.enhanced =
                enhanced.map(|(class, subject, detail)| message::EnhancedCode(class, subject, detail));
            assert_eq!((usual.is_hard(&reply), own.is_hard(&reply)), (by_default, by_own), "{reply}");
        }
    }

    #[test]
    fn senders_and_lanes_may_be_exempt() {
        let rules = rules("exempt_senders = [\"*@alerts.test\"]\nexempt_lanes = [\"urgent\"]");
        let sender = |text: &str| ReversePath::Mailbox(message::Mailbox::parse(text).unwrap());
        assert!(rules.exempts(&sender("reset@Alerts.Test"), Lane::Bulk));
        assert!(rules.exempts(&sender("news@a.test"), Lane::Urgent));
        assert!(rules.exempts(&ReversePath::Null, Lane::Normal));
        assert!(!rules.exempts(&sender("news@a.test"), Lane::Normal));
    }

    #[test]
    fn refusals_of_bulk_mail_are_learnt_from() {
        assert!(rules("").learns_from(Lane::Bulk) && !rules("").learns_from(Lane::Normal));
        assert!(!rules("bounce_lanes = []").learns_from(Lane::Bulk));
    }
}
