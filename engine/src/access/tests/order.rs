//! Which rule is the first: against a walk over the rules, and against tcprules' own order.

use super::*;
use proptest::prelude::*;

// ---- tcprules' own order ----

/// As tcprules' description has it: the first key that some line has, in this order.
fn tcprules_line(lines: &[String], address: &str, name: Option<&str>, ident: Option<&str>) -> Option<usize> {
    let mut keys: Vec<String> = Vec::new();
    keys.extend(ident.map(|ident| format!("{ident}@{address}")));
    keys.extend(ident.zip(name).map(|(ident, name)| format!("{ident}@={name}")));
    keys.push(address.to_owned());
    keys.extend(name.map(|name| format!("={name}")));
    keys.extend(address.match_indices('.').rev().map(|(at, _)| address[..=at].to_owned()));
    let ends =
        name.into_iter().flat_map(|name| name.match_indices('.').map(|(at, _)| format!("={}", &name[at..])));
    keys.extend(ends);
    keys.extend(name.map(|_| "=".to_owned()));
    keys.push(String::new());
    keys.iter().find_map(|key| lines.iter().position(|line| line == key))
}

proptest! {
    #[test]
    fn a_file_of_rules_means_what_tcprules_means(
        lines in proptest::collection::vec(
            "(10\\.(0\\.(0\\.([0-2])?)?)?)?|=(a?\\.)?(b\\.)?c|=|u@10\\.0\\.0\\.1|u@=a\\.b\\.c", 0..12),
        host in 0_u8..4,
        name in prop_oneof![Just(None), Just(Some("a.b.c")), Just(Some("c")), Just(Some("x.c"))],
        ident in prop_oneof![Just(None), Just(Some("u"))],
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tcp.smtp");
        let text: String = lines.iter().map(|line| format!("{line}:allow\n")).collect();
        std::fs::write(&path, text).unwrap();
        let mut config = config("");
        config.access.rules_file = Some(path);
        config.access.read_files().unwrap();
        let (access, address) = (Access::new(&config), format!("10.0.0.{host}"));
        let found = Found {
            name: name.map_or(ReverseName::Missing, |name| ReverseName::Is(name.into())),
            ident: ident.map(Into::into),
            listed: Vec::new(),
        };
        let client = client(&address);
        let rule = access.rule_of(&access.facts(&client, 0, &found)).map(|(_, rule)| rule);
        let line = rule.and_then(|rule| rule.source.0.as_ref()).map(|(_, line)| *line as usize - 1);
        prop_assert_eq!(line, tcprules_line(&lines, &address, name, ident), "{:?}", lines);
    }
}

// ---- the table against a walk over the rules ----

fn any_rule() -> impl Strategy<Value = String> {
    let from = prop_oneof![
        Just(String::new()),
        (0_u8..4, 28_u8..=32).prop_map(|(host, len)| format!("from = \"10.0.0.{host}/{len}\"\n")),
        Just("from = [\"10.0.0.1\", \"::1\", \"10.0.0.2/31\"]\n".to_owned()),
    ];
    let name = prop_oneof![
        3 => Just(String::new()),
        1 => prop_oneof![Just(""), Just("*"), Just(".b"), Just("a.b"), Just(".a.b")].prop_map(|name| format!("name = \"{name}\"\n")),
    ];
    let user = prop_oneof![3 => Just(""), 1 => Just("user = \"*\"\n"), 1 => Just("user = \"ann\"\n")];
    (from, name, user).prop_map(|(from, name, user)| format!("[[access.rules]]\n{from}{name}{user}"))
}

/// As the words of the documentation have it.
fn naive(rule: &Rule, client: &Client, found: &Found) -> bool {
    let Origin::Net { address, .. } = client.origin else { return false };
    let name = match (&rule.name, found.name.as_deref()) {
        (None, _) => true,
        (Some(config::NameIs::Missing), _) => found.name == ReverseName::Missing,
        (Some(config::NameIs::Any), name) => name.is_some(),
        (Some(config::NameIs::Exactly(wanted)), name) => name == Some(&**wanted),
        (Some(config::NameIs::Below(wanted)), name) => name.is_some_and(|name| name.ends_with(&**wanted)),
    };
    let user = match &rule.user {
        None => true,
        Some(config::UserIs::Any) => client.login.is_some(),
        Some(config::UserIs::Exactly(wanted)) => client.login.as_deref() == Some(&**wanted),
    };
    (rule.from.is_empty() || rule.from.0.iter().any(|network| network.contains(address))) && name && user
}

proptest! {
    #[test]
    fn the_table_finds_what_a_walk_over_the_rules_finds(
        rules in proptest::collection::vec(any_rule(), 0..12),
        host in 0_u8..6,
        name in prop_oneof![
            Just(ReverseName::Unknown), Just(ReverseName::Missing), Just(ReverseName::Is("a.b".into())),
            Just(ReverseName::Is("x.a.b".into())), Just(ReverseName::Is("b".into())),
        ],
        user in prop_oneof![Just(None), Just(Some("ann")), Just(Some("bob"))],
    ) {
        let access = access(&rules.concat());
        let mut client = client(&format!("10.0.0.{host}"));
        client.login = user.map(Into::into);
        let found = Found { name, ..Found::default() };
        let facts = access.facts(&client, 0, &found);
        let expected = (0..access.table.len()).find(|place| {
            naive(access.table.rule(u32::try_from(*place).unwrap()).unwrap(), &client, &found)
        });
        prop_assert_eq!(access.table.find(&facts).map(|place| place as usize), expected);
        // Where no name is wanted, no name would change the rule.
        let unknown = access.facts(&client, 0, &EMPTY);
        if !access.table.wants(&unknown).name {
            prop_assert_eq!(access.table.find(&unknown), access.table.find(&facts));
        }
    }
}

static EMPTY: Found = Found { name: ReverseName::Unknown, ident: None, listed: Vec::new() };
