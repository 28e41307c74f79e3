//! tcprules' syntax: `address:allow,NAME="value"` or `address:deny`, one rule a line.
//!
//! tcprules finds the most exact rule, whatever the order of the lines: the whole address, the whole name (`=host`), shorter and
//! shorter beginnings of the address (`192.168.`), shorter and shorter ends of the name (`=.example.net`), any name (`=`), and the
//! empty address, which is everybody; `user@` before the first two, for what the ident service says, comes before all of these.
//! [`parse`] gives rules in that order, so that the first match is the most exact one; of equals the first line wins.
//! Besides tcprules': `192.0.2.0/24:` and `[2001:db8::]/32:`. A variable that means nothing here is an error: it would be
//! an environment variable for a program that does not run.

use super::RULES_MAX;
use super::rule::{NameIs, Networks, Rule, RuleSource, Suffix, Words};
use crate::config::Network;
use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// How exact an address is: smaller comes first.
type Rank = (u8, Reverse<usize>);

/// What stands before the colon.
#[derive(Debug, Default)]
struct Who {
    rank: (u8, usize),
    ident: Option<String>,
    networks: Vec<Network>,
    name: Option<NameIs>,
}

/// All rules of a file, most exact first; `Err`: (line, what is wrong).
pub(super) fn parse(text: &str, file: &str) -> Result<Vec<Rule>, (usize, String)> {
    let file: Arc<str> = file.into();
    let mut rules: Vec<(Rank, Rule)> = Vec::new();
    for (line, number) in text.lines().zip(1_u32..) {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (rank, mut rule) = rule(line).map_err(|what| (number as usize, what))?;
        rule.source = RuleSource(Some((Arc::clone(&file), number)));
        rules.push((rank, rule));
        if rules.len() > RULES_MAX {
            return Err((number as usize, format!("more than {RULES_MAX} rules")));
        }
    }
    // Stable: the first line of equals stays first.
    rules.sort_by_key(|(rank, _)| *rank);
    Ok(rules.into_iter().map(|(_, rule)| rule).collect())
}

fn rule(line: &str) -> Result<(Rank, Rule), String> {
    let end = address_len(line).ok_or("a rule is address:allow or address:deny, with settings behind it")?;
    let Who { rank: (class, len), ident, networks, name } = who(&line[..end])?;
    let rule = Rule { from: Networks(networks), name, ident, ..Rule::default() };
    Ok(((class, Reverse(len)), act(rule, &line[end + 1..])?))
}

/// Octets before the colon that ends the address; one in brackets has colons of its own.
fn address_len(line: &str) -> Option<usize> {
    let start = match (line.find('['), line.find(':')?) {
        (Some(open), colon) if open < colon => open + line[open..].find(']')?,
        _ => 0,
    };
    line[start..].find(':').map(|at| start + at)
}

fn who(address: &str) -> Result<Who, String> {
    let (ident, rest) = match address.split_once('@') {
        Some((ident, rest)) => (Some(ident.to_owned()), rest),
        None => (None, address),
    };
    let mut who = match rest.strip_prefix('=') {
        Some(name) => by_name(name)?,
        None => by_address(rest)?,
    };
    if ident.is_some() {
        // tcprules looks for it with whole addresses and whole names alone.
        if !matches!(who.rank.0, 2 | 3) {
            return Err(format!("{address:?}: user@ goes before a whole address or a whole =host"));
        }
        who.rank.0 -= 2;
    }
    Ok(Who { ident, ..who })
}

fn by_name(name: &str) -> Result<Who, String> {
    let lower = name.to_lowercase();
    let (class, is) = match lower.as_str() {
        "" => (6, NameIs::Any),
        "*" => return Err("=* is no host name; = alone is any".to_owned()),
        _ => match NameIs::try_from(lower)? {
            name @ NameIs::Below(_) => (5, name),
            name => (3, name),
        },
    };
    Ok(Who { rank: (class, name.len()), name: Some(is), ..Who::default() })
}

fn by_address(text: &str) -> Result<Who, String> {
    if text.is_empty() {
        return Ok(Who { rank: (7, 0), ..Who::default() });
    }
    let networks =
        if text.starts_with('[') || text.contains('/') { vec![bracketed(text)?] } else { dotted(text)? };
    let [first, ..] = networks[..] else { return Err(format!("{text:?} is an empty range")) };
    let bits = if first.is_v6() { 128 } else { 32 };
    let class = if first.prefix_len() == bits { 2 } else { 4 };
    Ok(Who { rank: (class, usize::from(first.prefix_len())), networks, ..Who::default() })
}

/// `[2001:db8::]/32`, `[2001:db8::1]`, `192.0.2.0/24`.
fn bracketed(text: &str) -> Result<Network, String> {
    let plain: String = text.chars().filter(|char| !matches!(char, '[' | ']')).collect();
    Network::try_from(plain).map_err(|_| format!("{text:?} is no network"))
}

/// `192.168.0-15.`, `1.2.3.4`, `127.`: one number at most is a range.
fn dotted(text: &str) -> Result<Vec<Network>, String> {
    let wrong = || format!("{text:?} is no address, no beginning of one (192.168.) and no =host");
    let is_prefix = text.ends_with('.');
    let parts: Vec<&str> = text.strip_suffix('.').unwrap_or(text).split('.').collect();
    let count_is_right = if is_prefix { (1..=3).contains(&parts.len()) } else { parts.len() == 4 };
    let ranges: Vec<(u8, u8)> =
        parts.iter().map(|part| range(part)).collect::<Option<_>>().ok_or_else(wrong)?;
    let wide = ranges.iter().filter(|(first, last)| first != last).count();
    if !count_is_right || wide > 1 {
        return Err(wrong());
    }
    let mut addresses = vec![[0_u8; 4]];
    for (place, (first, last)) in ranges.iter().enumerate() {
        addresses = addresses
            .iter()
            .flat_map(|address| (*first..=*last).map(|number| with(*address, place, number)))
            .collect();
    }
    let bits = u8::try_from(parts.len() * 8).expect("four parts");
    Ok(addresses
        .into_iter()
        .filter_map(|octets| Network::new(IpAddr::V4(Ipv4Addr::from(octets)), bits))
        .collect())
}

fn with(mut address: [u8; 4], place: usize, number: u8) -> [u8; 4] {
    address[place] = number;
    address
}

fn range(part: &str) -> Option<(u8, u8)> {
    let number = |digits: &str| {
        let is_plain = !digits.is_empty() && digits.bytes().all(|octet| octet.is_ascii_digit());
        digits.parse().ok().filter(|_| is_plain)
    };
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    Some((number(first)?, number(last)?))
}

/// `allow,NAME="value",…` or `deny`. What goes around a value is the octet before it.
fn act(mut rule: Rule, instruction: &str) -> Result<Rule, String> {
    let (word, mut rest) = instruction.split_once(',').map_or((instruction, ""), |(word, rest)| (word, rest));
    match word {
        "allow" => {}
        "deny" => rule.deny = Some(words("Access denied")?),
        _ => return Err(format!("{word:?} is neither allow nor deny")),
    }
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or_else(|| format!("{rest:?} is no NAME=\"value\""))?;
        let mut chars = after.chars();
        let quote = chars.next().ok_or_else(|| format!("{name} has no value"))?;
        let (value, after) = chars
            .as_str()
            .split_once(quote)
            .ok_or_else(|| format!("{name}: the value does not end in {quote}"))?;
        set(&mut rule, name, value)?;
        rest = match after.strip_prefix(',') {
            Some(rest) => rest,
            None if after.is_empty() => "",
            None => return Err(format!("{after:?} follows the value of {name}: a comma is missing")),
        };
    }
    Ok(rule)
}

fn words(text: &str) -> Result<Words, String> {
    Words::try_from(text.to_owned())
}

fn set(rule: &mut Rule, name: &str, value: &str) -> Result<(), String> {
    match name {
        "RELAYCLIENT" => {
            rule.relay = Some(true);
            rule.relay_suffix =
                if value.is_empty() { None } else { Some(Suffix::try_from(value.to_owned())?) };
        }
        "DATABYTES" => {
            let octets = value.parse().map_err(|_| format!("DATABYTES={value:?} is no number"))?;
            // 0 is no limit there; the listener's is the limit here.
            rule.size_max = Some(octets).filter(|octets| *octets > 0);
        }
        "RBLSMTPD" => match value.strip_prefix('-') {
            _ if value.is_empty() => rule.block_lists = Some(false),
            Some(text) => rule.reject_recipients = Some(words(text)?),
            None => rule.defer_recipients = Some(words(value)?),
        },
        _ => return Err(format!("{name} means nothing here: there are RELAYCLIENT, DATABYTES and RBLSMTPD")),
    }
    Ok(())
}

/// Whatever is read are rules in an order that a second reading does not change, and as many as there are lines of them.
pub fn fuzz_tcprules(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(rules) = parse(text, "tcp.smtp") else { return };
    let lines = text.lines().filter(|line| !line.trim_end().is_empty() && !line.starts_with('#')).count();
    assert_eq!(rules.len(), lines);
    for rule in rules {
        assert!(rule.relay_suffix.is_none() || rule.relay == Some(true));
        assert!(rule.from.0.len() <= 256);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn order(text: &str) -> Vec<u32> {
        let rules = parse(text, "tcp.smtp").unwrap();
        rules.iter().map(|rule| rule.source.0.as_ref().unwrap().1).collect()
    }

    #[test]
    fn most_exact_comes_first_whatever_the_order_of_the_lines() {
        let text = "# a comment\n:allow\n=:allow\n=.net:allow\n=.example.net:allow\n10.:allow\n10.1.2.:allow\n\
                    =mx.example.net:allow\n10.1.2.3:allow\nann@=mx.example.net:allow\nann@10.1.2.3:allow\n";
        assert_eq!(order(text), [11, 10, 9, 8, 7, 6, 5, 4, 3, 2]);
        assert_eq!(order("10.1.2.3:deny\n10.1.2.3:allow"), [1, 2]);
    }

    #[test]
    fn settings_are_those_of_tcprules() {
        let text = "127.:allow,RELAYCLIENT=\"\"\n10.:allow,RELAYCLIENT=/@gw.test/,DATABYTES=\"5000\",RBLSMTPD=\"\"\n\
                    11.:deny\n12.:allow,RBLSMTPD=\"go away\"\n13.:allow,RBLSMTPD=\"-for good\"\n14.:allow,DATABYTES=\"0\"";
        let rules = parse(text, "tcp.smtp").unwrap();
        assert_eq!((rules[0].relay, &rules[0].relay_suffix), (Some(true), &None));
        assert_eq!(rules[1].relay_suffix.as_ref().unwrap().0.as_ref(), "@gw.test");
        assert_eq!((rules[1].size_max, rules[1].block_lists), (Some(5000), Some(false)));
        assert_eq!(rules[2].deny.as_ref().unwrap().0.as_ref(), "Access denied");
        assert_eq!(rules[3].defer_recipients.as_ref().unwrap().0.as_ref(), "go away");
        assert_eq!(rules[4].reject_recipients.as_ref().unwrap().0.as_ref(), "for good");
        assert_eq!(rules[5].size_max, None);
        assert_eq!(rules[3].source.to_string(), "tcp.smtp:4");
    }

    #[test]
    fn ranges_are_each_of_their_numbers() {
        let networks = |text: &str| -> Vec<String> {
            parse(text, "f").unwrap()[0].from.0.iter().map(|network| String::from(*network)).collect()
        };
        assert_eq!(networks("192.168.14-15.:allow"), ["192.168.14.0/24", "192.168.15.0/24"]);
        assert_eq!(networks("1.2.3.4-5:deny"), ["1.2.3.4/32", "1.2.3.5/32"]);
        assert_eq!(networks("127.:allow"), ["127.0.0.0/8"]);
        assert_eq!(networks("[2001:db8::]/32:allow"), ["2001:db8::/32"]);
        assert_eq!(networks("[2001:db8::1]:deny"), ["2001:db8::1/128"]);
        assert_eq!(networks("192.0.2.0/25:deny"), ["192.0.2.0/25"]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (line, said) in [
            ("10.", "a rule is address:allow or address:deny"),
            ("10.:permit", "\"permit\" is neither allow nor deny"),
            ("256.:allow", "is no address"),
            ("1.2.3.4.5:allow", "is no address"),
            ("1.2.3:allow", "is no address"),
            ("1-2.3-4.:allow", "is no address"),
            ("9-2.:allow", "is an empty range"),
            ("=a b:allow", "is no host name"),
            ("[::1:allow", "a rule is address:allow"),
            ("ann@10.:allow", "user@ goes before a whole address"),
            ("10.:allow,RELAYCLIENT=\"@x", "the value does not end in \""),
            ("10.:allow,RELAYCLIENT=\"x\"", "cannot follow an address"),
            ("10.:allow,DATABYTES=\"many\"", "is no number"),
            ("10.:allow,DATABYTES=\"1\"RBLSMTPD=\"\"", "a comma is missing"),
            ("10.:allow,QMAILQUEUE=\"/bin/x\"", "QMAILQUEUE means nothing here"),
            ("10.:allow,FOO", "is no NAME"),
            ("10.:allow,FOO=", "FOO has no value"),
        ] {
            let (number, what) = parse(&format!(":allow\n{line}"), "f").unwrap_err();
            assert_eq!(number, 2);
            assert!(what.contains(said), "{line}: {what}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_rules_or_refused(
            text in "([0-9]{1,3}[.-]|=|[a-z]{1,3}[.@]?|\\[::1\\]|/){0,5}:?(allow|deny)?(,(RELAYCLIENT|DATABYTES|RBLSMTPD)=\"[@.a-z0-9-]{0,5}\"){0,2}\n?"
        ) {
            fuzz_tcprules(text.as_bytes());
        }

        #[test]
        fn any_octets_are_rules_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            fuzz_tcprules(&bytes);
        }
    }
}
