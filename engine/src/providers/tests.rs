//! The rules in the program keep what they promise, and an operator's file is read as documented.

use super::*;
use proptest::prelude::*;

fn load(text: &str) -> Result<Providers, String> {
    Providers::load(Some(("own.toml", text))).map_err(|error| error.to_string())
}

fn key(providers: &Providers, host: &str) -> ProviderKey {
    providers.of_hosts(std::iter::once(host))
}

fn reply(line: &str) -> Reply {
    merge::parse_reply(line).unwrap()
}

/// Name of the rule.
fn judged(providers: &Providers, host: &str, line: &str) -> Option<String> {
    let judgement = providers.judge(key(providers, host), None, &reply(line))?;
    Some(judgement.rule.to_owned())
}

const SECS: fn(u64) -> Duration = Duration::from_secs;

const OWN: &str = "[[provider]]\nname = \"own\"\nmx = [\"*.own.test\"]\n";

/// A provider with one rule, whose keys are these; its first line is line 5.
fn rule(keys: &str) -> String {
    format!("{OWN}[[provider.rule]]\n{keys}")
}

const SLOW: &str =
    "name = \"slow\"\npattern = 'go slow'\naction = \"suspend\"\nfor = \"2h\"\ntest = [\"421 Go slow\"]\n";

#[test]
fn every_reply_in_the_program_meets_its_rule() {
    merge::check_shipped().unwrap();
}

#[test]
fn the_program_knows_the_big_providers() {
    let providers = Providers::shipped();
    for (host, name) in [
        ("gmail-smtp-in.l.google.com", "google"),
        ("alt1.aspmx.l.google.com", "google"),
        ("outlook-com.olc.protection.outlook.com", "outlook"),
        ("example-net.mail.protection.outlook.com", "microsoft365"),
        ("example-net.a-v1.mx.microsoft", "microsoft365"),
        ("mta5.am0.yahoodns.net", "yahoo"),
        ("mx01.mail.icloud.com", "apple"),
        ("mx00.gmx.net", "united-internet"),
        ("mx01.t-online.de", "t-online"),
        ("smtp-in.orange.fr", "orange"),
        ("MXS.MAIL.RU.", "mailru"),
        ("mx.yandex.net", "yandex"),
        ("mx3.qq.com", "qq"),
        ("163mx01.mxmail.netease.com", "netease"),
        ("eu-smtp-inbound-1.mimecast.com", "mimecast"),
        ("mx0a-00000000.pphosted.com", "proofpoint"),
    ] {
        assert_eq!(providers.name(key(&providers, host)), Some(name), "{host}");
    }
    for host in ["mx.example.net", "google.com.example.net", "notgoogle.com", ""] {
        assert_eq!(key(&providers, host), ProviderKey::NONE, "{host}");
    }
    assert_eq!(providers.of_hosts(std::iter::empty()), ProviderKey::NONE);
}

#[test]
fn the_first_host_decides() {
    let providers = Providers::shipped();
    let of = |hosts: &[&str]| providers.name(providers.of_hosts(hosts.iter().copied()));
    assert_eq!(of(&["mx.example.net", "aspmx.l.google.com"]), None);
    assert_eq!(of(&["aspmx.l.google.com", "mx.example.net"]), Some("google"));
}

#[test]
fn limits_of_a_provider_are_its_own() {
    let providers = Providers::shipped();
    let limits = |host| providers.limits(key(&providers, host));
    assert_eq!(limits("mta5.am0.yahoodns.net").messages_per_connection, Some(20));
    assert_eq!(limits("smtp-in.orange.fr").connections_max, Some(2));
    assert_eq!(*limits("mx.example.net"), Limits::default());
}

#[test]
fn a_providers_rules_come_before_those_for_all() {
    let providers = Providers::shipped();
    let judgement = |host, line| providers.judge(key(&providers, host), None, &reply(line));
    let line = "450 4.2.1 The user you are trying to contact is receiving mail too quickly.";
    let (google, other) = ("aspmx.l.google.com", "mx.example.net");
    assert_eq!(judgement(google, line).unwrap().action, Action::Defer);
    assert_eq!(judgement(other, line).unwrap().rule, "mailbox-too-fast");
    let slower = judgement(google, "450 4.7.1 Sending rate limit exceeded").unwrap();
    assert_eq!((slower.rule, slower.defers), ("rate-limited", false));
    assert_eq!(slower.action, Action::Slower { to_percent: 50, lasts: SECS(900) });
    let listed = "554 5.7.1 Client host [192.0.2.1] blocked using zen.spamhaus.org";
    let block = judgement(google, listed).unwrap();
    assert_eq!((block.rule, block.defers), ("spamhaus", true));
    assert_eq!(block.action, Action::BlockSource { lasts: SECS(6 * 3600) });
}

#[test]
fn what_is_the_recipients_matter_alone_holds_nobody_back() {
    let providers = Providers::shipped();
    let judge = |line| providers.judge(ProviderKey::NONE, None, &reply(line)).map(|it| it.action);
    assert_eq!(judge("450 4.2.0 Greylisted, try again in 300 seconds"), Some(Action::Defer));
    assert_eq!(judge("452 4.2.2 mailbox full"), Some(Action::Defer));
    assert_eq!(judge("552 5.2.2 mailbox full"), None);
    assert_eq!(judge("550 5.1.1 User unknown; rejected by our server, see blocklist policy"), None);
    assert_eq!(judge("550 5.7.1 URL in message is listed by dbl.spamhaus.org"), None);
    assert_eq!(judge("451 4.3.0 later"), None);
    assert_eq!(judge("550 5.7.1 Message rejected as spam"), None);
    let accepted = Reply::new(250, None, b"rate limited but taken");
    assert_eq!(providers.judge(ProviderKey::NONE, None, &accepted), None);
}

#[test]
fn nothing_is_read_into_replies_about_the_message_or_about_nothing() {
    let providers = Providers::shipped();
    for line in [
        "550 5.7.1 Message rejected as spam by Content Filtering",
        "550 5.7.26 Unauthenticated email from example.net is not accepted due to domain's DMARC policy.",
        "554 5.7.1 <ann@example.net>: Relay access denied",
        "450 4.1.1 <ann@example.net>: Recipient address rejected: unverified address",
        "450 4.1.8 <bob@example.org>: Sender address rejected: Domain not found",
        "450 4.7.1 <mail>: Helo command rejected: Host not found",
        "450 mailbox is under maintenance",
        "451 4.3.0 Temporary lookup failure",
        "451 4.7.1 Please try again later",
        "452 4.5.3 Too many recipients",
        "454 4.7.0 TLS not available due to local problem",
        "550 5.2.1 mailbox of a citizen. It is disabled",
        "552 5.3.4 Message size exceeds fixed limit",
    ] {
        assert_eq!(judged(&providers, "mx.example.net", line), None, "{line}");
    }
}

#[test]
fn rules_with_a_stage_need_it() {
    let text = rule(&SLOW.replace("action", "stages = [\"rcpt\", \"end\"]\naction"));
    let providers = load(&text).unwrap();
    let own = key(&providers, "mx.own.test");
    let judge = |stage| providers.judge(own, stage, &reply("421 go slow")).map(|it| it.rule);
    assert_eq!(judge(Some(Stage::End)), Some("slow"));
    assert_eq!(judge(Some(Stage::Mail)), None);
    assert_eq!(judge(None), None);
}

#[test]
fn codes_and_enhanced_codes_narrow_a_rule() {
    let keys = "name = \"n\"\ncodes = [451]\nenhanced = [\"4.7.600-699\"]\naction = \"back_off\"\n\
                test = [\"451 4.7.650 x\"]";
    let providers = load(&rule(keys)).unwrap();
    let judged = |line| judged(&providers, "mx.own.test", line);
    assert_eq!(judged("451 4.7.699 y").as_deref(), Some("n"));
    assert_eq!(judged("450 4.7.650 y"), None);
    assert_eq!(judged("451 4.7.500 y"), None);
    assert_eq!(judged("451 y"), None);
}

#[test]
fn an_operators_file_adds_providers_and_rules_for_all() {
    let everywhere = SLOW.replace("go slow", "not today").replace("Go slow", "not today");
    let text = format!("{}[[default.rule]]\n{everywhere}", rule(SLOW));
    let providers = load(&text).unwrap();
    assert_eq!(judged(&providers, "mx.own.test", "450 please GO SLOW").as_deref(), Some("slow"));
    assert_eq!(judged(&providers, "mx.other.test", "450 please go slow"), None);
    assert_eq!(judged(&providers, "mx.other.test", "550 Not today").as_deref(), Some("slow"));
    assert_eq!(providers.name(key(&providers, "mx.own.test")), Some("own"));
    assert_eq!(providers.name(key(&providers, "mx1.gmx.net")), Some("united-internet"));
}

#[test]
fn an_operators_entry_changes_the_one_in_the_program() {
    let text = "[[provider]]\nname = \"yahoo\"\nlimits = { connections_max = 3 }\n\
                [[provider.rule]]\nname = \"complaints-or-volume\"\npattern = 'TSS04'\naction = \"back_off\"\n\
                test = [\"421 4.7.0 [TSS04] later\"]\n\
                [[provider.rule]]\nname = \"user-too-fast\"\npattern = 'too quickly'\naction = \"ignore\"\n\
                test = [\"450 too quickly\"]\n";
    let providers = load(text).unwrap();
    let yahoo = key(&providers, "mta7.am0.yahoodns.net");
    let limits = providers.limits(yahoo);
    assert_eq!((limits.connections_max, limits.messages_per_connection), (Some(3), Some(20)));
    let action = |line| providers.judge(yahoo, None, &reply(line)).map(|it| it.action);
    assert_eq!(
        action("421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred"),
        Some(Action::BackOff)
    );
    assert_eq!(action("450 User is receiving mail too quickly"), None, "not even the default's");
    assert_eq!(action("421 Max message per connection reached"), Some(Action::Defer), "the others stay");
}

#[test]
fn replace_leaves_nothing_of_the_program() {
    let text = "[default]\nreplace = true\n[[provider]]\nname = \"yahoo\"\nmx = [\"*.yahoodns.net\"]\nreplace = true\n";
    let providers = load(text).unwrap();
    let yahoo = key(&providers, "mta7.am0.yahoodns.net");
    assert_eq!(*providers.limits(yahoo), Limits::default());
    assert_eq!(providers.judge(yahoo, None, &reply("421 4.7.0 [TSS04] Rate limit exceeded")), None);
    let without_mx = load("[[provider]]\nname = \"yahoo\"\nreplace = true\n").err().unwrap();
    assert!(without_mx.starts_with("own.toml:2: name: \"yahoo\""), "{without_mx}");
}

#[test]
fn the_operators_patterns_come_first_and_then_the_longest() {
    let text = "[[provider]]\nname = \"wide\"\nmx = [\"*.com\"]\n[[provider]]\nname = \"narrow\"\nmx = [\"*.mx.com\"]\n";
    let providers = load(text).unwrap();
    let of = |host| providers.name(key(&providers, host));
    assert_eq!(of("aspmx.l.google.com"), Some("wide"));
    assert_eq!(of("a.mx.com"), Some("narrow"));
    assert_eq!(of("mx.web.de"), Some("united-internet"));
}

#[test]
fn wrong_files_are_refused_with_line_and_key() {
    let slow = |from: &str, to: &str| rule(&SLOW.replace(from, to));
    #[rustfmt::skip]
    let cases = [
        ("x = 1".to_owned(), "own.toml:1: unknown key \"x\""),
        (slow("\"suspend\"", "\"explode\""), "own.toml:7: action: unknown variant `explode`, expected one of `back_off`"),
        (slow("2h", "2 hours"), "own.toml:8: for: \"2 hours\" is no time; write 90s"),
        (slow("for = \"2h\"\n", ""), "own.toml:7: action: write how long, as in for = \"30min\""),
        (slow("suspend", "bounce"), "own.toml:7: action: this one has no time: remove for"),
        (slow("suspend", "slower"), "own.toml:7: action: to_percent = 1 to 99 goes with \"slower\""),
        (slow("\"suspend\"", "\"slower\"\nto_percent = 100"), "own.toml:7: action: to_percent must be 1 to 99"),
        (slow("go slow", "go (slow"), "own.toml:6: pattern: unclosed group"),
        (slow("go slow", "x*"), "own.toml:6: pattern: it matches the empty text"),
        (slow("pattern = 'go slow'\n", ""), "own.toml:5: rule \"slow\": write a pattern, codes or enhanced"),
        (slow("[\"421 Go slow\"]", "[]"), "own.toml:5: rule \"slow\": write at least one reply"),
        (slow("421 Go slow", "421 Go fast"), "own.toml:9: test of rule \"slow\": the rule does not match it"),
        (slow("421 Go slow", "250 Go slow"), "own.toml:9: test of rule \"slow\": write a refusal"),
        (slow("421 Go slow", "Go slow"), "own.toml:9: test of rule \"slow\": write a refusal"),
        (slow("pattern", "codes = [250]\npattern"), "own.toml:6: codes: 250 is no refusal"),
        (slow("pattern", "enhanced = [\"5.7\"]\npattern"), "own.toml:6: enhanced: \"5.7\" is none; write 5.7.1"),
        (slow("pattern", "stages = [\"helo\"]\npattern"), "own.toml:6: stages: unknown variant `helo`"),
        (slow("pattern", "patern"), "own.toml:6: unknown key \"patern\"; did you mean \"pattern\"?"),
        (format!("{}[[provider.rule]]\n{}", rule(SLOW), SLOW), "own.toml:11: name: \"slow\" is empty or here twice"),
        (format!("{}[[provider.rule]]\n{}", rule(SLOW), SLOW.replace("\"slow\"", "\"other\"")),
            "own.toml:15: test of rule \"other\": rule \"slow\" takes it first"),
        (format!("{OWN}{OWN}"), "own.toml:5: name: \"own\" is empty or here twice"),
        (OWN.replace("*.own.test", "a b"), "own.toml:3: mx: \"a b\" is no pattern of host names"),
        (OWN.replace("mx = [\"*.own.test\"]\n", ""), "own.toml:2: name: \"own\" takes nothing from the program, so write its mx"),
        (format!("{OWN}limits = {{ connections_max = 0 }}"), "own.toml:4: limits: connections_max must be at least 1"),
        (format!("{OWN}limits = {{ message_rate = [\"5/m\"] }}"), "own.toml:4: limits: \"5/m\" is no rate; write 100/s"),
    ];
    for (text, said) in cases {
        let error = load(&text).err().unwrap_or_else(|| panic!("was taken:\n{text}"));
        assert!(error.starts_with(said), "{error}\ninstead of\n{said}\nfor\n{text}");
    }
}

proptest! {
    #[test]
    fn any_reply_is_judged(
        code in 0u16..1000,
        enhanced in proptest::option::of((2u8..6, 0u16..1000, 0u16..1000)),
        text in proptest::collection::vec(any::<u8>(), 0..600),
        host in "[a-z.]{0,20}",
    ) {
        let providers = BUILT.with(std::rc::Rc::clone);
        let enhanced = enhanced.map(|(class, subject, detail)| message::EnhancedCode(class, subject, detail));
        let key = key(&providers, &format!("{host}.google.com"));
        let judgement = providers.judge(key, Some(Stage::Rcpt), &Reply::new(code, enhanced, &text));
        prop_assert!(judgement.is_none() || !(200..400).contains(&code));
    }

    /// What a rule is made of may be anywhere in a text of any length.
    #[test]
    fn a_rules_words_are_found_anywhere(before in "[ -~]{0,200}", after in "[ -~]{0,200}") {
        let providers = BUILT.with(std::rc::Rc::clone);
        let line = Reply::new(421, None, format!("{before} [TSS04] {after}").as_bytes());
        let yahoo = key(&providers, "mta5.am0.yahoodns.net");
        prop_assert!(providers.judge(yahoo, None, &line).is_some());
    }

    #[test]
    fn any_octets_are_a_file_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        fuzz_providers(&bytes);
    }

}

proptest! {
    // Each one builds everything anew.
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Nearer to a file than octets are.
    #[test]
    fn any_rule_is_taken_or_refused(pattern in "[a-z(|)*+?.\\[\\]{}0-9^$-]{0,12}", test in "[ -~&&[^\"\\\\']]{0,20}") {
        let keys = format!("name = \"n\"\npattern = '{pattern}'\naction = \"back_off\"\ntest = [\"421 {test}\"]");
        fuzz_providers(rule(&keys).as_bytes());
    }
}

thread_local! {
    /// Building takes a while.
    static BUILT: std::rc::Rc<Providers> = std::rc::Rc::new(Providers::shipped());
}
