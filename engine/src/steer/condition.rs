//! What `--where` says: `domain=*.example.com and age>2h and reason~"mailbox full"`.
//!
//! Terms FIELD OP VALUE joined by `and`; all must hold. Some are decided by a core from what it has in memory, the
//! others ([`Term::is_on_disk`]) by whoever reads the messages. A value with a blank in it stands in double quotes.
//! Pure. Trusts nothing: an error says where in the text, and what may stand there. Bounds: [`TEXT_MAX`] octets,
//! [`TERMS_MAX`] terms.

use message::MessageId;
use std::fmt;

/// Octets of one condition.
pub const TEXT_MAX: usize = 4096;

/// Terms of all conditions of one command.
pub const TERMS_MAX: usize = 64;

const FIELDS: &str = "domain, sender, recipient, campaign, age, attempts, state, reason, id";
const STATES: &str = "ready, deferred, held, in-flight";

/// Where a recipient stands.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum State {
    /// May go as soon as its site has a connection for it.
    Ready,
    /// Waits for its next attempt.
    Deferred,
    /// Waits for an operator.
    Held,
    /// In a transaction, being read, being returned, or at work on another core: orders do not touch it.
    InFlight,
}

impl State {
    pub const ALL: [State; 4] = [State::Ready, State::Deferred, State::Held, State::InFlight];

    pub fn name(self) -> &'static str {
        match self {
            State::Ready => "ready",
            State::Deferred => "deferred",
            State::Held => "held",
            State::InFlight => "in-flight",
        }
    }

    pub fn of_name(name: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// How a number is compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Compare {
    Below,
    AtMost,
    Equal,
    AtLeast,
    Above,
}

impl Compare {
    fn holds(self, left: u64, right: u64) -> bool {
        match self {
            Compare::Below => left < right,
            Compare::AtMost => left <= right,
            Compare::Equal => left == right,
            Compare::AtLeast => left >= right,
            Compare::Above => left > right,
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Compare::Below => "<",
            Compare::AtMost => "<=",
            Compare::Equal => "=",
            Compare::AtLeast => ">=",
            Compare::Above => ">",
        }
    }
}

/// Text fields that are compared with a pattern.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TextField {
    Domain,
    Sender,
    Recipient,
    Campaign,
}

impl TextField {
    fn name(self) -> &'static str {
        match self {
            TextField::Domain => "domain",
            TextField::Sender => "sender",
            TextField::Recipient => "recipient",
            TextField::Campaign => "campaign",
        }
    }
}

/// Text in which `*` stands for any octets, none included. Letters match in either case: what an operator types
/// and what a client sent differ in it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pattern(String);

impl Pattern {
    pub fn new(text: &str) -> Pattern {
        pattern(text)
    }

    /// No allocation; at worst pattern times text, both short.
    pub fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut at, mut place, mut star) = (0, 0, None);
        while place < text.len() {
            if pattern.get(at) == Some(&b'*') {
                star = Some((at, place));
                at += 1;
            } else if pattern.get(at).is_some_and(|octet| octet.eq_ignore_ascii_case(&text[place])) {
                (at, place) = (at + 1, place + 1);
            } else if let Some((star_at, from)) = star {
                // The last star takes one octet more.
                (at, place) = (star_at + 1, from + 1);
                star = Some((star_at, from + 1));
            } else {
                return false;
            }
        }
        pattern[at..].iter().all(|octet| *octet == b'*')
    }
}

/// One term.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Term {
    Text {
        field: TextField,
        is_not: bool,
        pattern: Pattern,
    },
    AgeSecs(Compare, u64),
    Attempts(Compare, u64),
    State(State),
    /// The last deferral's reply contains it, in either case.
    Reason(String),
    Id(MessageId),
}

/// What a core knows of recipients without reading anything.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub id: MessageId,
    pub domain: &'a str,
    pub age_secs: u64,
    pub attempts: u16,
    pub state: State,
    pub reason: &'a str,
}

impl Term {
    /// True if only the message itself can say: a core takes such a term for granted.
    pub fn is_on_disk(&self) -> bool {
        matches!(
            self,
            Term::Text { field: TextField::Sender | TextField::Recipient | TextField::Campaign, .. }
        )
    }

    pub fn holds(&self, facts: &Facts<'_>) -> bool {
        match self {
            Term::Text { field: TextField::Domain, .. } => self.holds_for(TextField::Domain, facts.domain),
            Term::Text { .. } => true,
            Term::AgeSecs(compare, secs) => compare.holds(facts.age_secs, *secs),
            Term::Attempts(compare, attempts) => compare.holds(u64::from(facts.attempts), *attempts),
            Term::State(state) => facts.state == *state,
            Term::Reason(part) => contains(facts.reason.as_bytes(), part.as_bytes()),
            Term::Id(id) => facts.id == *id,
        }
    }

    /// False only if the term is about this field and `text` is not what it asks for.
    pub fn holds_for(&self, asked: TextField, text: &str) -> bool {
        match self {
            Term::Text { field, is_not, pattern } if *field == asked => pattern.matches(text) != *is_not,
            _ => true,
        }
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Term::Text { field, is_not, pattern } => {
                let sign = if *is_not { "!=" } else { "=" };
                write!(f, "{}{sign}\"{}\"", field.name(), pattern.0)
            }
            Term::AgeSecs(compare, secs) => write!(f, "age{}{secs}s", compare.sign()),
            Term::Attempts(compare, attempts) => write!(f, "attempts{}{attempts}", compare.sign()),
            Term::State(state) => write!(f, "state={}", state.name()),
            Term::Reason(part) => write!(f, "reason~\"{part}\""),
            Term::Id(id) => write!(f, "id={id}"),
        }
    }
}

/// What is wrong with a condition, and where.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("--where, at {place}: {what}")]
pub struct ConditionError {
    /// `column 8 ("foo=bar")`, or the end.
    place: String,
    what: String,
}

/// Reads one condition.
pub fn parse(text: &str) -> Result<Vec<Term>, ConditionError> {
    let mut parser = Parser { text, at: 0 };
    if text.len() > TEXT_MAX {
        return Err(parser.wrong(0, format!("longer than {TEXT_MAX} octets")));
    }
    let mut terms = vec![parser.term()?];
    while parser.joined()? {
        terms.push(parser.term()?);
        if terms.len() > TERMS_MAX {
            return Err(parser.wrong(parser.at, format!("more than {TERMS_MAX} terms")));
        }
    }
    Ok(terms)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn wrong(&self, at: usize, what: String) -> ConditionError {
        let rest: String = self.text.get(at..).unwrap_or_default().chars().take(24).collect();
        let column = self.text.get(..at).unwrap_or_default().chars().count() + 1;
        let place =
            if rest.is_empty() { "its end".to_owned() } else { format!("column {column} ({rest:?})") };
        ConditionError { place, what }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_blanks(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// Takes octets as long as they fit.
    fn take_while(&mut self, fits: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let len = rest.find(|char| !fits(char)).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    /// `and` behind a term; false at the end.
    fn joined(&mut self) -> Result<bool, ConditionError> {
        self.skip_blanks();
        let at = self.at;
        match self.take_while(|char| !char.is_whitespace()) {
            "" => Ok(false),
            word if word.eq_ignore_ascii_case("and") => Ok(true),
            _ => {
                Err(self
                    .wrong(at, "only `and` may stand between terms; text with blanks needs quotes".into()))
            }
        }
    }

    fn term(&mut self) -> Result<Term, ConditionError> {
        self.skip_blanks();
        let at = self.at;
        let field = self.take_while(|char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_'));
        self.skip_blanks();
        let sign_at = self.at;
        let sign = self.sign();
        self.skip_blanks();
        let value_at = self.at;
        let value = self.value()?;
        let allowed = |signs: &str| self.wrong(sign_at, format!("{field} is compared with {signs}"));
        let text = |field| match sign {
            "=" | "!=" => Ok(Term::Text { field, is_not: sign == "!=", pattern: pattern(value) }),
            _ => Err(allowed("= or !=")),
        };
        match field {
            "domain" => text(TextField::Domain),
            "sender" => text(TextField::Sender),
            "recipient" => text(TextField::Recipient),
            "campaign" => text(TextField::Campaign),
            "age" => {
                let compare = compare_of(sign).filter(|sign| matches!(sign, Compare::Below | Compare::Above));
                let compare = compare.ok_or_else(|| allowed("< or >"))?;
                let wrong = || self.wrong(value_at, "an age is a number and s, m, h or d: 90s, 2h".into());
                Ok(Term::AgeSecs(compare, secs(value).ok_or_else(wrong)?))
            }
            "attempts" => {
                let compare = compare_of(sign).ok_or_else(|| allowed("<, <=, =, >= or >"))?;
                let wrong = |_| self.wrong(value_at, "attempts are a number".into());
                Ok(Term::Attempts(compare, value.parse().map_err(wrong)?))
            }
            "state" if sign == "=" => {
                let wrong = || self.wrong(value_at, format!("no such state; there are {STATES}"));
                Ok(Term::State(State::of_name(value).ok_or_else(wrong)?))
            }
            "reason" if sign == "~" => Ok(Term::Reason(value.to_owned())),
            "id" if sign == "=" => {
                let wrong = || self.wrong(value_at, "an id has 16 hexadecimal digits".into());
                Ok(Term::Id(MessageId::parse(value).ok_or_else(wrong)?))
            }
            "state" | "id" => Err(allowed("=")),
            "reason" => Err(allowed("~")),
            _ => Err(self.wrong(at, format!("no such field; there are {FIELDS}"))),
        }
    }

    /// The longest one that stands there: `sender=<>` has the sign `=`.
    fn sign(&mut self) -> &'static str {
        let signs = ["!=", "<=", ">=", "=", "<", ">", "~"];
        let sign = signs.into_iter().find(|sign| self.rest().starts_with(sign)).unwrap_or("");
        self.at += sign.len();
        sign
    }

    /// A word, or anything in double quotes.
    fn value(&mut self) -> Result<&'a str, ConditionError> {
        let at = self.at;
        if let Some(quoted) = self.rest().strip_prefix('"') {
            let Some(len) = quoted.find('"') else {
                return Err(self.wrong(at, "a quote without its end".into()));
            };
            self.at += len + 2;
            return Ok(&quoted[..len]);
        }
        match self.take_while(|char| !char.is_whitespace()) {
            "" => Err(self.wrong(at, "a value is missing: FIELD OP VALUE, as in domain=example.com".into())),
            word if word.contains('"') => Err(self.wrong(at, "a quote inside a word".into())),
            value => Ok(value),
        }
    }
}

/// `<>` is how people write the null reverse-path.
fn pattern(value: &str) -> Pattern {
    Pattern(if value == "<>" { String::new() } else { value.to_owned() })
}

fn compare_of(sign: &str) -> Option<Compare> {
    let all = [Compare::Below, Compare::AtMost, Compare::Equal, Compare::AtLeast, Compare::Above];
    all.into_iter().find(|compare| compare.sign() == sign)
}

/// A time as people write it: `90s`, `30m`, `2h`, `7d`.
pub(crate) fn secs(value: &str) -> Option<u64> {
    let units = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];
    let (_, unit) = units.into_iter().find(|(unit, _)| value.ends_with(*unit))?;
    value[..value.len() - 1].parse::<u64>().ok()?.checked_mul(unit)
}

/// For the fuzzer: any octets as a condition.
pub fn fuzz_condition(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(terms) = parse(text) else { return };
    for term in terms {
        assert_eq!(parse(&term.to_string()), Ok(vec![term]), "what is said of a term must be that term");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FACTS: Facts<'_> = Facts {
        id: MessageId(7),
        domain: "mail.example.com",
        age_secs: 7200,
        attempts: 3,
        state: State::Deferred,
        reason: "452 4.2.2 Mailbox full",
    };

    fn holds(text: &str) -> bool {
        parse(text).unwrap().iter().all(|term| term.holds(&FACTS))
    }

    fn error(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn all_terms_must_hold() {
        assert!(holds("domain=*.example.com and age>1h AND attempts>=3 and reason~\"mailbox FULL\""));
        assert!(holds("state = deferred and id=0000000000000007 and domain!=example.com and age<3h"));
        for text in ["domain=example.com and age>1h", "attempts<3", "age>2h", "state=held", "reason~quota"] {
            assert!(!holds(text), "{text}");
        }
    }

    #[test]
    fn core_leaves_what_only_the_message_knows_to_others() {
        assert!(holds("sender=nobody and recipient=nobody and campaign!=x"));
        let terms = parse("sender=a@* and domain=x and campaign=spring").unwrap();
        assert_eq!(terms.iter().map(Term::is_on_disk).collect::<Vec<_>>(), [true, false, true]);
        assert!(terms[0].holds_for(TextField::Sender, "A@list.test"));
        assert!(!terms[0].holds_for(TextField::Sender, "b@list.test"));
        assert!(terms[0].holds_for(TextField::Campaign, "another field"));
    }

    #[test]
    fn stars_stand_for_anything() {
        let matches = |pattern: &str, text: &str| Pattern(pattern.into()).matches(text);
        for (pattern, text) in [("*", ""), ("a*", "a"), ("*a*b", "xaxxb"), ("a**c", "abc"), ("", "")] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a", ""), ("a*", "ba"), ("*a*b", "xaxxbx"), ("", "a"), ("*x", "xy")] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
        assert!(parse("sender=<>").unwrap()[0].holds_for(TextField::Sender, ""));
    }

    #[test]
    fn errors_say_where_and_what_may_stand_there() {
        assert_eq!(
            error("domain=a and colour=red"),
            "--where, at column 14 (\"colour=red\"): no such field; there are domain, sender, recipient, campaign, age, attempts, state, reason, id"
        );
        assert_eq!(
            error("age>2x"),
            "--where, at column 5 (\"2x\"): an age is a number and s, m, h or d: 90s, 2h"
        );
        assert_eq!(
            error("attempts~3"),
            "--where, at column 9 (\"~3\"): attempts is compared with <, <=, =, >= or >"
        );
        assert_eq!(
            error("state=gone"),
            "--where, at column 7 (\"gone\"): no such state; there are ready, deferred, held, in-flight"
        );
        assert_eq!(
            error("domain=a or domain=b"),
            "--where, at column 10 (\"or domain=b\"): only `and` may stand between terms; text with blanks needs quotes"
        );
        assert!(error("domain=").starts_with("--where, at its end: a value is missing"));
        assert!(error("reason~\"x").contains("a quote without its end"));
        assert!(error("").contains("a value is missing"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(domain|age|state|id|reason|attempts|sender)?[ =<>!~]{0,3}[a-z0-9*\" é]{0,12}( and )?[ -~]{0,20}") {
            fuzz_condition(text.as_bytes());
        }

        #[test]
        fn pattern_with_a_star_in_it_matches_what_it_was_cut_from(text in "[a-c]{0,12}", from in 0usize..12, to in 0usize..12) {
            let (from, to) = (from.min(text.len()), to.min(text.len()).max(from.min(text.len())));
            let pattern = format!("{}*{}", &text[..from], &text[to..]);
            prop_assert!(Pattern(pattern).matches(&text));
        }
    }
}
