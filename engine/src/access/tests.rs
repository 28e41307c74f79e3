mod order;

use super::*;
use crate::config::{Rate, parse};
use message::{Mailbox, MailboxRef};
use smtp_in::Gate;
use smtp_in::door::{Certificate, Door as _, Entry};
use std::time::{Duration, Instant};

fn config(tables: &str) -> Config {
    let text = format!("host_name = \"mx.test\"\nqueue = \"q\"\n{tables}");
    parse(&text, "ringpost.toml").unwrap()
}

fn access(tables: &str) -> Access {
    Access::new(&config(tables))
}

fn client(address: &str) -> Client {
    Client {
        origin: Origin::Net { address: address.parse().unwrap(), port: 40_000 },
        rights: Rights::default(),
        login: None,
        certificate: None,
        is_encrypted: false,
    }
}

fn login(address: &str, user: &str) -> Client {
    Client { login: Some(user.into()), ..client(address) }
}

fn local(uid: u32) -> Client {
    Client { origin: Origin::Local { uid }, ..client("127.0.0.1") }
}

fn named(name: &str) -> Found {
    Found { name: ReverseName::Is(name.into()), ..Found::default() }
}

fn rights(access: &Access, client: &Client, found: &Found) -> Rights {
    match access.rights(client, 0, found) {
        Admission::Welcome(rights, _) => rights,
        Admission::Turned(refusal) => panic!("{refusal:?}"),
    }
}

fn welcome(access: &Access, client: Client) -> Client {
    Client { rights: rights(access, &client, &Found::default()), ..client }
}

fn shared(rates: &Rates, now: Instant) -> Shared<'_> {
    let is_local = |address: IpAddr| address == IpAddr::from([192, 0, 2, 25]);
    Shared { rates, now, gate: Gate::Open, listener: 0, is_local, returns: None, suppressed: None }
}

fn sender() -> ReversePath {
    ReversePath::Mailbox(Mailbox::parse("ann@example.net").unwrap())
}

/// What RCPT gets.
fn recipient(access: &Access, client: &Client, address: &str) -> String {
    let rates = Rates::default();
    let mut door = AccessDoor::new(access, shared(&rates, Instant::now()));
    match door.recipient(client, &sender(), MailboxRef::parse(address).unwrap()) {
        Ok(Entry::AsGiven) => "as given".to_owned(),
        Ok(Entry::As(mailbox)) => mailbox.as_str().to_owned(),
        Err(refusal) => format!("{} {}", refusal.code, refusal.text),
    }
}

#[test]
fn unconfigured_it_relays_for_loopback_and_its_own_processes_alone() {
    let access = access("");
    for (client, may) in [
        (client("127.0.0.1"), true),
        (client("::1"), true),
        (local(1000), true),
        (client("192.0.2.1"), false),
    ] {
        let rights = rights(&access, &client, &Found::default());
        assert_eq!((rights.may_relay, rights.may_flush, rights.may_xclient), (may, may, false), "{client:?}");
        assert_eq!((rights.rule, rights.refusal), (0, None));
        assert!(
            access.needs(&client, 0, Some("127.0.0.1:25".parse().unwrap())).is_none(),
            "nothing leaves the core"
        );
        let client = welcome(&access, client);
        let said = if may { "as given" } else { "550 Relaying denied" };
        assert_eq!(recipient(&access, &client, "bob@example.org"), said);
    }
}

#[test]
fn who_has_logged_in_may_relay_unless_a_rule_says_no() {
    let access = access(
        "[[access.rules]]\nuser = \"eve\"\nrelay = false\n[[access.rules]]\nuser = \"*\"\nsize_max = 1000",
    );
    assert!(!rights(&access, &login("192.0.2.1", "eve"), &Found::default()).may_relay);
    let ann = rights(&access, &login("192.0.2.1", "ann"), &Found::default());
    assert_eq!((ann.may_relay, ann.size_max), (true, Some(1000)));
    assert!(!rights(&access, &client("192.0.2.1"), &Found::default()).may_relay);
}

#[test]
fn a_login_fetches_the_mail_of_its_own_domains() {
    let access = access(
        "[[access.rules]]\nuser = \"ann\"\natrn = [\"example.net\", \".example.net\"]\n\
         [[access.rules]]\nuser = \"*\"",
    );
    let may_fetch = |client: &Client, asked: &[&str]| {
        let asked: Vec<Box<str>> = asked.iter().map(|domain| (*domain).into()).collect();
        access.may_fetch(client, 0, &asked)
    };
    let [ann, eve] = ["ann", "eve"].map(|user| welcome(&access, login("192.0.2.1", user)));
    assert_eq!(may_fetch(&ann, &[]).unwrap(), ["example.net", ".example.net"]);
    assert_eq!(may_fetch(&ann, &["a.example.net"]).unwrap(), ["a.example.net"]);
    assert_eq!(may_fetch(&ann, &["example.net", "example.org"]), None, "one of them is not hers");
    assert_eq!(may_fetch(&eve, &[]), None);
    assert_eq!(may_fetch(&welcome(&access, client("192.0.2.1")), &[]), None, "nobody knows who that is");
}

#[test]
fn the_first_rule_that_matches_wins() {
    let access = access(
        "[[access.rules]]\nfrom = \"192.0.2.7\"\nrelay = true\n\
         [[access.rules]]\nfrom = [\"192.0.2.0/24\", \"2001:db8::/32\"]\ndeny = \"Go away\"\n\
         [[access.rules]]\nname = \"\"\ndefer = \"No name\"\n\
         [[access.rules]]\nname = \".example.net\"\netrn = true\nxclient = true\n\
         [[access.rules]]\nuid = 33\nrelay = false\n\
         [[access.rules]]\ncertificate = \"verified\"\nrelay = true",
    );
    assert!(rights(&access, &client("192.0.2.7"), &Found::default()).may_relay);
    for address in ["192.0.2.8", "2001:db8::8"] {
        let Admission::Turned(refusal) = access.rights(&client(address), 0, &Found::default()) else {
            panic!()
        };
        assert_eq!((refusal.code, refusal.enhanced, &*refusal.text), (554, (7, 1), "Go away"));
    }
    let missing = Found { name: ReverseName::Missing, ..Found::default() };
    let Admission::Turned(refusal) = access.rights(&client("198.51.100.1"), 0, &missing) else { panic!() };
    assert_eq!((refusal.code, &*refusal.text), (421, "No name"));
    let known = rights(&access, &client("198.51.100.1"), &named("a.example.net"));
    assert_eq!((known.may_flush, known.may_xclient, known.may_relay), (true, true, false));
    assert_eq!(known.name.as_deref(), Some("a.example.net"));
    assert!(!rights(&access, &client("198.51.100.1"), &named("example.net")).may_flush, "not below itself");
    assert!(!rights(&access, &local(33), &Found::default()).may_relay);
    let shown = |is_verified| Client {
        certificate: Some(Certificate { sha256: [7; 32], is_verified }),
        ..client("198.51.100.1")
    };
    assert!(rights(&access, &shown(true), &Found::default()).may_relay);
    assert!(!rights(&access, &shown(false), &Found::default()).may_relay);
}

#[test]
fn names_that_nobody_knows_now_match_no_rule() {
    let access = access(
        "[[access.rules]]\nname = \"\"\ndeny = \"No name\"\n[[access.rules]]\nname = \"*\"\nrelay = true",
    );
    assert!(!rights(&access, &client("192.0.2.1"), &Found::default()).may_relay);
}

#[test]
fn a_look_up_is_wanted_only_if_it_could_change_the_rule() {
    let access = access(
        "[[access.rules]]\nfrom = \"192.0.2.1\"\nrelay = true\n\
         [[access.rules]]\nfrom = \"192.0.2.0/24\"\nname = \".example.net\"\nident = \"ann\"\nrelay = true",
    );
    let ours: SocketAddr = "198.51.100.25:25".parse().unwrap();
    let local = Some(ours);
    assert!(access.needs(&client("192.0.2.1"), 0, local).is_none());
    assert!(access.needs(&client("203.0.113.1"), 0, local).is_none());
    let look_up = access.needs(&client("192.0.2.2"), 0, local).unwrap();
    let ports = IdentPorts { ours, theirs: "192.0.2.2:40000".parse().unwrap() };
    assert_eq!((look_up.wants_name, look_up.ident), (true, Some(ports)));
    assert_eq!(access.needs(&client("192.0.2.2"), 0, None).unwrap().ident, None, "there is a host between");
}

const LISTS: &str = r#"
    [intake]
    relay_from = ["10.0.0.0/8"]
    [listeners.mx]
    addresses = ["0.0.0.0:25"]
    block_lists = ["zen", "welcome", "senders", "helos"]
    lists_reject_at = 2
    lists_tag_at = 1
    ident = true
    reverse_names = true
    [access.lists.zen]
    zone = "zen.test"
    weight = 2
    [access.lists.welcome]
    zone = "welcome.test"
    kind = "allow"
    [access.lists.senders]
    zone = "dbl.test"
    on = "sender-domain"
    [access.lists.helos]
    zone = "helo.test"
    on = "helo"
    [access.lists.unused]
    zone = "unused.test"
    [[access.rules]]
    from = "192.0.2.1"
    block_lists = false
"#;

fn names(look_up: &LookUp) -> Vec<&str> {
    look_up.lists.iter().map(|question| question.name.as_str()).collect()
}

fn listed(look_up: LookUp, which: &[&str]) -> Found {
    let is_in = |question: &ListQuestion| which.contains(&&*question.list.name);
    let listed = look_up.lists.into_iter().filter(is_in);
    Found {
        listed: listed.map(|question| Listed { list: question.list, text: None }).collect(),
        ..Found::default()
    }
}

#[test]
fn lists_of_the_listener_are_asked_and_their_weights_decide() {
    let access = access(LISTS);
    let client = client("192.0.2.2");
    let look_up = access.needs(&client, 0, None).unwrap();
    assert!(look_up.wants_name);
    assert_eq!(names(&look_up), ["2.2.0.192.welcome.test", "2.2.0.192.zen.test"]);
    let rejected = rights(&access, &client, &listed(look_up.clone(), &["zen"])).refusal.unwrap();
    assert_eq!((rejected.code, &*rejected.text), (554, "192.0.2.2 is listed at zen.test"));
    let both = access.rights(&client, 0, &listed(look_up.clone(), &["zen", "welcome"]));
    let Admission::Welcome(rights, Some(field)) = both else { panic!("{both:?}") };
    assert_eq!(rights.refusal, None);
    assert_eq!(&*field, "X-Ringpost-Lists: welcome (-1),\r\n\tzen (+2);\r\n\tsum 1\r\n");
    let Admission::Welcome(rights, None) = access.rights(&client, 0, &listed(look_up, &["welcome"])) else {
        panic!()
    };
    assert_eq!(rights.refusal, None);
}

#[test]
fn lists_are_not_asked_about_those_who_may_relay_or_are_exempt() {
    let access = access(LISTS);
    for exempt in [client("10.1.2.3"), client("192.0.2.1"), login("192.0.2.9", "ann"), client("127.0.0.1")] {
        let asked = access.needs(&exempt, 0, None).map_or(0, |look_up| look_up.lists.len());
        assert_eq!(asked, 0, "{exempt:?}");
    }
    assert!(access.needs(&local(0), 0, None).is_none());
    // Nor held against what was found before they logged in.
    let found = listed(access.needs(&client("192.0.2.2"), 0, None).unwrap(), &["zen"]);
    assert_eq!(rights(&access, &login("192.0.2.2", "ann"), &found).refusal, None);
}

#[test]
fn senders_and_helo_names_are_asked_about_when_they_are_known() {
    let access = access(LISTS);
    let client = client("192.0.2.2");
    let look_up = access.needs_of_message(&client, 0, "mail.example.org", &sender()).unwrap();
    assert_eq!(names(&look_up), ["mail.example.org.helo.test", "example.net.dbl.test"]);
    let found = listed(look_up, &["senders", "helos"]);
    assert!(matches!(access.judge_message(0, &found), Judgement::Refuse(refusal) if refusal.code == 554));
    assert_eq!(access.judge_message(0, &Found::default()), Judgement::Nothing);
    let look_up = access.needs_of_message(&client, 0, "[192.0.2.2]", &ReversePath::Null);
    assert!(look_up.is_none());
}

#[test]
fn words_that_are_kept_back_wait_for_the_recipient() {
    let mut config = config(
        "[access]\nrelay_to = [\"example.net\"]\n[[access.rules]]\nfrom = \"192.0.2.1\"\nreject_recipients = \"No\"",
    );
    let rejected = rights(&Access::new(&config), &client("192.0.2.1"), &Found::default()).refusal.unwrap();
    assert_eq!((rejected.code, &*rejected.text), (554, "No"));
    config.access.rules[0].reject_recipients = None;
    assert_eq!(rights(&Access::new(&config), &client("192.0.2.1"), &Found::default()).refusal, None);
}

#[test]
fn recipients_are_held_against_the_lists_in_their_last_form() {
    let access = access(
        "[access]\nrelay_to = [\"example.net\", \".example.org\", \"mx.test\", \"hack.test\"]\n\
         bad_recipients = [\"Old@example.net\", \"@closed.example.org\"]\n\
         percent_hack = [\"hack.test\"]\nlocal_addresses_become = \"mx.test\"",
    );
    let client = welcome(&access, client("198.51.100.1"));
    for (address, said) in [
        ("bob@Example.NET", "as given"),
        ("bob@a.example.org", "as given"),
        ("bob@example.org", "550 Relaying denied"),
        ("old@EXAMPLE.net", "550 Mail to this recipient is not taken here"),
        ("x@closed.example.org", "550 Mail to this recipient is not taken here"),
        ("bob%example.net@hack.test", "bob@example.net"),
        ("bob%a.example.org%hack.test@hack.test", "bob@a.example.org"),
        ("bob%evil.test@hack.test", "550 Relaying denied"),
        ("old%example.net@hack.test", "550 Mail to this recipient is not taken here"),
        ("bob@hack.test", "as given"),
        ("bob%evil.test@example.net", "as given"),
        ("postmaster@[192.0.2.25]", "postmaster@mx.test"),
        ("postmaster@[IPv6:::ffff:192.0.2.25]", "postmaster@mx.test"),
        ("postmaster@[192.0.2.26]", "550 Relaying denied"),
    ] {
        assert_eq!(recipient(&access, &client, address), said, "{address}");
    }
}

#[test]
fn bang_paths_of_our_hosts_are_turned_where_that_is_asked_for() {
    let lists = "[local]\nlocals = [\"mx.test\", \"here.test\"]\nvirtual_domains = [\".uucp:alias-uucp\", \"virtual.test:v\"]";
    let on = access(&format!("[access]\nbang_paths = true\npercent_hack = [\"here.test\"]\n{lists}"));
    let stranger = welcome(&on, client("198.51.100.1"));
    for (address, said) in [
        ("a!b!user@MX.test", "b!user@a.uucp"),
        ("here.test!mx.test!user@mx.test", "user@mx.test"),
        ("a!user%mx.test@here.test", "user@a.uucp"),
        ("far.test!user@mx.test", "550 Relaying denied"),
        ("a!user@virtual.test", "as given"),
        ("a!user@far.uucp", "as given"),
        ("user@mx.test", "as given"),
        ("!user@mx.test", "as given"),
    ] {
        assert_eq!(recipient(&on, &stranger, address), said, "{address}");
    }
    assert_eq!(recipient(&access(lists), &stranger, "a!user@mx.test"), "as given");
}

#[test]
fn relay_clients_get_their_suffix_and_others_do_not() {
    let access = access(
        "[access]\nrelay_to = [\"example.net\"]\n[[access.rules]]\nfrom = \"192.0.2.1\"\nrelay_suffix = \"@gw.test\"",
    );
    let relay = welcome(&access, client("192.0.2.1"));
    assert_eq!(recipient(&access, &relay, "bob@any.test"), "\"bob@any.test\"@gw.test");
    let long = format!("{}@any.test", "b".repeat(250));
    assert_eq!(recipient(&access, &relay, &long), "553 The address is too long with our suffix");
    let other = welcome(&access, client("192.0.2.2"));
    assert_eq!(recipient(&access, &other, "bob@example.net"), "as given");
}

#[test]
fn a_reload_that_changes_rules_does_not_confuse_sessions() {
    let suffix = "[[access.rules]]\nfrom = \"192.0.2.1\"\nrelay_suffix = \"@gw.test\"\n";
    let before = access(suffix);
    let client = welcome(&before, client("192.0.2.1"));
    let after = access(&format!(
        "[[access.rules]]\nfrom = \"203.0.113.1\"\nrelay_suffix = \"@wrong.test\"\n{suffix}"
    ));
    assert_ne!(before.table.edition(), after.table.edition());
    assert_eq!(recipient(&after, &client, "bob@any.test"), "\"bob@any.test\"@gw.test");
    assert_eq!(access(suffix).table.edition(), before.table.edition());
}

#[test]
fn bad_senders_are_refused_whoever_brings_them() {
    let access = access("[access]\nbad_senders = [\"@bad.test\", \"eve@example.net\"]");
    let rates = Rates::default();
    let mut door = AccessDoor::new(&access, shared(&rates, Instant::now()));
    let client = welcome(&access, client("127.0.0.1"));
    for (address, code) in
        [("x@BAD.test", Some(553)), ("Eve@example.net", Some(553)), ("ann@example.net", None)]
    {
        let from = ReversePath::Mailbox(Mailbox::parse(address).unwrap());
        assert_eq!(door.sender(&client, &from, None).err().map(|refusal| refusal.code), code, "{address}");
    }
    assert!(door.sender(&client, &ReversePath::Null, None).is_ok());
}

#[test]
fn rates_are_the_clients_the_logins_and_the_senders() {
    let access = access(
        "[access.per_address]\nmessage_rate = \"2/min\"\n[access.per_login]\nrecipient_rate = \"1/min\"\n\
         [access.per_sender]\nmessage_rate = \"3/min\"\n[[access.rules]]\nfrom = \"192.0.2.9\"\nmessage_rate = \"1/min\"",
    );
    let (rates, start) = (Rates::default(), Instant::now());
    let mail = |client: &Client, now| {
        let answer = AccessDoor::new(&access, shared(&rates, now)).sender(client, &sender(), None);
        answer
            .err()
            .map_or_else(|| "taken".to_owned(), |refusal| format!("{} {}", refusal.code, refusal.text))
    };
    let [one, two, nine] =
        ["192.0.2.1", "192.0.2.2", "192.0.2.9"].map(|address| welcome(&access, client(address)));
    assert_eq!([mail(&one, start), mail(&one, start)], ["taken", "taken"]);
    assert_eq!(mail(&one, start), "450 Too many messages from you; try again in 31 s");
    assert_eq!(mail(&two, start), "taken");
    assert_eq!(mail(&two, start), "450 Too many messages from this sender; try again in 21 s");
    let later = start + Duration::from_secs(21);
    assert_eq!(mail(&nine, later), "taken", "its own token was not spent by the sender's refusal");
    assert_eq!(mail(&nine, later), "450 Too many messages from you; try again in 61 s");
    let ann = welcome(&access, login("192.0.2.1", "ann"));
    let mut door = AccessDoor::new(&access, shared(&rates, start));
    let bob = MailboxRef::parse("bob@example.org").unwrap();
    assert!(door.recipient(&ann, &sender(), bob).is_ok());
    assert_eq!(door.recipient(&ann, &sender(), bob).unwrap_err().enhanced, (7, 1));
}

#[test]
fn seats_are_limited_by_listener_and_by_rule() {
    let access = access(
        "[listeners.a]\naddresses = [\"0.0.0.0:25\"]\nsessions_per_address = 2\n[access]\nsessions_max = 4\n\
         [[access.rules]]\nfrom = \"192.0.2.9\"\nsessions_max = 1",
    );
    let counts = Arc::new(Counts::default());
    let seat = |address: &str, listener| access.seat(&counts, &client(address), listener);
    let _two = [seat("192.0.2.1", 0).unwrap(), seat("192.0.2.1", 0).unwrap()];
    let refusal = seat("192.0.2.1", 0).unwrap_err();
    assert_eq!((refusal.code, refusal.enhanced), (421, (7, 0)));
    let _one = seat("192.0.2.9", 0).unwrap();
    assert!(seat("192.0.2.9", 0).is_err());
    let _local = access.seat(&counts, &local(0), SOCKET).unwrap();
    assert_eq!(seat("203.0.113.1", 0).unwrap_err().enhanced, (3, 2));
    assert_eq!(counts.total(), 4);
}

#[test]
fn rules_of_a_file_are_about_clients_by_the_network() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tcp.smtp");
    std::fs::write(&path, ":deny\n").unwrap();
    let mut config = config("");
    config.access.rules_file = Some(path);
    config.access.read_files().unwrap();
    let access = Access::new(&config);
    assert!(matches!(access.rights(&client("127.0.0.1"), 0, &Found::default()), Admission::Turned(_)));
    assert!(rights(&access, &local(1000), &Found::default()).may_relay);
}

#[test]
fn files_are_read_and_their_mistakes_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let write = |name: &str, octets: &[u8]| std::fs::write(at(name), octets).unwrap();
    write("tcp.smtp", b"192.0.2.:allow,RELAYCLIENT=\"\"\n192.0.2.66:deny\n:allow\n");
    write("hosts.cdb", &config::write_cdb(&[b"cdb.test", b".below.test"]));
    write("senders", b"# bad\n\n@bad.test\n");
    let keys = |names: [&str; 3]| {
        let [rules, hosts, senders] = names.map(|name| at(name).display().to_string());
        format!(
            "[access]\nrules_file = {rules:?}\nrelay_to_file = {hosts:?}\nbad_senders_file = {senders:?}\n"
        )
    };
    let mut config = config(&keys(["tcp.smtp", "hosts.cdb", "senders"]));
    config.access.read_files().unwrap();
    let access = Access::new(&config);
    assert!(rights(&access, &client("192.0.2.1"), &Found::default()).may_relay);
    assert!(matches!(access.rights(&client("192.0.2.66"), 0, &Found::default()), Admission::Turned(_)));
    let other = welcome(&access, client("198.51.100.1"));
    assert_eq!(recipient(&access, &other, "x@CDB.test"), "as given");
    assert_eq!(recipient(&access, &other, "x@a.below.test"), "as given");
    assert_eq!(recipient(&access, &other, "x@below.test"), "550 Relaying denied");
    assert!(access.bad_senders.contains("x", "bad.test"));
    let ask = Ask {
        origin: other.origin.clone(),
        name: None,
        user: None,
        listener: None,
        recipient: Some("x@y.test".into()),
    };
    let text = access.explain(&ask, Instant::now(), |_| false).unwrap();
    let rule = format!("Rule: {}:3: anybody, with nothing set\n", at("tcp.smtp").display());
    assert!(text.starts_with(&rule), "{text}");
    assert!(text.ends_with("RCPT TO:<x@y.test>: 550 5.7.1 Relaying denied\n"), "{text}");
    write("wrong", b"fine.test\nnot fine\n");
    write("latin", b"a.test\n\xe9.test\n");
    for (names, said) in [
        (["wrong", "hosts.cdb", "senders"], "wrong:1: a rule is address:allow"),
        (["tcp.smtp", "wrong", "senders"], "wrong:2: \"not fine\" is no domain"),
        (["tcp.smtp", "latin", "senders"], "latin:2: this is not UTF-8"),
        (["tcp.smtp", "hosts.cdb", "wrong"], "wrong:1: \"fine.test\" is no address"),
        (["tcp.smtp", "missing.cdb", "senders"], "missing.cdb: "),
    ] {
        let text = format!("host_name = \"mx.test\"\nqueue = \"q\"\n{}", keys(names));
        let error = parse(&text, "f").unwrap().access.read_files().unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    std::fs::rename(at("wrong"), at("wrong.cdb")).unwrap();
    let text =
        format!("host_name = \"mx.test\"\nqueue = \"q\"\n{}", keys(["tcp.smtp", "wrong.cdb", "senders"]));
    let error = parse(&text, "f").unwrap().access.read_files().unwrap_err().to_string();
    assert!(error.contains("wrong.cdb: this is no constant database"), "{error}");
}

#[test]
fn explanations_say_which_rule_and_what_it_depends_on() {
    let access = access(
        "[[access.rules]]\nname = \".example.net\"\nrelay = true\n[[access.rules]]\nfrom = \"192.0.2.0/24\"\ndeny = \"No\"",
    );
    let mut ask =
        Ask { origin: client("192.0.2.1").origin, name: None, user: None, listener: None, recipient: None };
    let text = access.explain(&ask, Instant::now(), |_| false).unwrap();
    assert!(
        text.contains("Rule: [[access.rules]] number 2: from = [\"192.0.2.0/24\"], deny = \"No\""),
        "{text}"
    );
    assert!(text.contains("An earlier rule depends on the client's name"), "{text}");
    assert!(text.contains("Turned away: 554 5.7.1 No"), "{text}");
    ask.name = Some("A.example.net".into());
    let text = access.explain(&ask, Instant::now(), |_| false).unwrap();
    assert!(text.contains("May send to any domain: yes"), "{text}");
    ask.listener = Some("none".into());
    assert_eq!(access.explain(&ask, Instant::now(), |_| false), Err("there is no [listeners.none]".into()));
}

#[test]
fn wrong_access_is_named_with_what_to_write() {
    for (tables, said) in [
        (
            "[access]\nrelay_too = []",
            "ringpost.toml:4: unknown key \"relay_too\"; did you mean \"relay_to\"?",
        ),
        ("[access]\nrelay_to = [\"a b\"]", "access.relay_to: \"a b\" is no domain, .domain or *"),
        ("[access]\nbad_senders = [\"a\"]", "access.bad_senders: \"a\" is no address, @domain or @.domain"),
        ("[access]\nbang_paths = true", "access.bang_paths: there are no local.locals"),
        ("[access]\npercent_hack = [\"\"]", "access.percent_hack: \"\" is no domain"),
        ("[access]\nlocal_addresses_become = \"[192.0.2.1]\"", "local_addresses_become is no host name"),
        ("[access]\nsessions_max = 0", "access.sessions_max must be at least 1"),
        ("[access]\nquestions_max = 0", "access.questions_max must be 1 to 10000"),
        ("[access.per_network]\nmessage_rate = \"1/s\"", "access.per_network has no rates"),
        ("[access.per_login]\nsessions_max = 1", "access.per_login and per_sender have no sessions_max"),
        (
            "[access.per_login]\nmessage_rate = \"1/month\"",
            "ringpost.toml:4: message_rate: \"1/month\" is no rate",
        ),
        ("[access.lists.zen]\nzone = \"a b\"", "access.lists.zen.zone is no domain"),
        ("[access.lists.zen]\nzone = \"z.test\"\nweight = 0", "access.lists.zen.weight must be 1 to 1000"),
        ("[access.lists.zen]\nzone = \"z.test\"\nanswers = [\"::1\"]", "answers are IPv4 addresses"),
        (
            "[access.lists.zen]\nzone = \"z.test\"\non = \"body\"",
            "ringpost.toml:5: on: unknown variant `body`",
        ),
        ("[[access.rules]]\nfrom = \"10/8\"", "ringpost.toml:4: from: \"10/8\" is no network"),
        ("[[access.rules]]\nfrom = 10", "a network such as \"192.0.2.0/24\", or a list of them"),
        ("[[access.rules]]\nfrom = []", "from = [] matches nobody"),
        ("[[access.rules]]\nname = \"a b\"", "\"a b\" is no host name"),
        ("[[access.rules]]\ncertificate = \"sha256:12\"", "64 hexadecimal digits"),
        ("[[access.rules]]\nrelay_suffix = \"x\"", "\"x\" cannot follow an address; write @host or .domain"),
        ("[[access.rules]]\ndeny = \"\"", "cannot be said"),
        ("[[access.rules]]\ndeny = \"a\"\ndefer = \"b\"", "[[access.rules]] number 1: only one of deny"),
        ("[[access.rules]]\nrelay = false\nrelay_suffix = \"@a.test\"", "relay is false"),
        ("[[access.rules]]\nuid = 1\nfrom = \"::1\"", "a process of this machine (uid) has no address"),
        ("[[access.rules]]\nsessions_max = 0", "deny turns everybody away"),
        ("[[access.rules]]\nuser = \"a\"\natrn = [\"*\"]", "atrn: \"*\" is no domain and no .domain"),
        ("[[access.rules]]\natrn = [\"a.test\"]", "atrn is one customer's mail: write user"),
        ("[[access.rules]]\nuser = \"*\"\natrn = [\"a.test\"]", "atrn is one customer's mail: write user"),
        ("[[access.rules]]\nlistener = \"x\"", "number 1: there is no [listeners.x]"),
    ] {
        let text = format!("host_name = \"h.test\"\nqueue = \"q\"\n{tables}");
        let error = parse(&text, "ringpost.toml").unwrap_err().to_string();
        assert!(error.contains(said), "{tables}: {error}");
    }
}

#[test]
fn what_check_prints_of_rules_can_be_read_again() {
    let text = "host_name = \"h.test\"\nqueue = \"q\"\n[[access.rules]]\nfrom = \"10.0.0.0/8\"\nname = \".Example.net\"\n\
                certificate = \"sha256:AA:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:0b\"\n\
                user = \"*\"\nident = \"ann\"\nlistener = \"default\"\nrelay_suffix = \"@a.test\"\nfix_up = true\nmessage_rate = \"1/s\"\n\
                [[access.rules]]\nuid = 7\ndefer_recipients = \"Later\"\n[access.lists.z]\nzone = \"z.test\"\nanswers = [\"127.0.0.2\"]";
    let shown = toml::to_string(&parse(text, "f").unwrap()).unwrap();
    let again = parse(&shown, "shown").unwrap();
    assert_eq!(toml::to_string(&again).unwrap(), shown);
    assert_eq!(again.access.rules[0].message_rate, Some(Rate::try_from("1/s".to_owned()).unwrap()));
    assert!(again.access.rules[0].fix_up && again.access.lists["z"].means_listed([127, 0, 0, 2].into()));
}

#[test]
fn answers_of_lists_that_mean_an_error_mean_nothing() {
    let list = |answers: &str| {
        config(&format!("[access.lists.z]\nzone = \"z.test\"\n{answers}")).access.lists["z"].clone()
    };
    let usual = list("");
    assert!(usual.means_listed([127, 0, 0, 2].into()) && usual.means_listed([127, 1, 0, 1].into()));
    assert!(!usual.means_listed([127, 255, 255, 254].into()) && !usual.means_listed([192, 0, 2, 1].into()));
    let some = list("answers = [\"127.0.0.2\", \"127.0.1.0/24\"]");
    assert!(some.means_listed([127, 0, 1, 9].into()) && !some.means_listed([127, 0, 0, 3].into()));
}
