use super::*;
use crate::config::load;

fn read(table: &str) -> Result<Routes, String> {
    toml::from_str(table).map_err(|error| error.message().to_owned())
}

fn routes(table: &str) -> Routes {
    read(table).unwrap()
}

fn relay(address: &str, port: u16) -> To {
    To::Relay(RelayHost::Address(address.parse().unwrap()), port)
}

fn named(name: &str, port: u16) -> To {
    To::Relay(RelayHost::Name(name.to_owned()), port)
}

#[test]
fn longest_match_wins() {
    let routes = routes(
        "\"a.test\" = \"127.0.0.1:1\"\n\".a.test\" = { relay = \"127.0.0.1:2\" }\n\"*\" = \"127.0.0.1\"\n\
         \".x.a.test\" = \"\"\n\".b.test\" = {}",
    );
    let to = |domain| routes.route(domain).to;
    assert_eq!(to("a.test"), relay("127.0.0.1", 1));
    assert_eq!(to("b.a.test"), relay("127.0.0.1", 2));
    assert_eq!((to("b.x.a.test"), to("x.b.test")), (To::Mx, To::Mx));
    assert_eq!(to("other.test"), relay("127.0.0.1", 25));
    assert!(Arc::ptr_eq(&routes.route("a.test").terms, &routes.route("other.test").terms));
}

#[test]
fn qmails_empty_key_is_the_rest() {
    let routes = routes("\"\" = \"Smart.Test:26\"\n\"a.test\" = \"\"");
    assert_eq!(routes.route("b.test").to, named("smart.test", 26));
    assert_eq!(routes.route("a.test").to, To::Mx);
    assert!(read("\"\" = \"a\"\n\"*\" = \"b\"").unwrap_err().contains("twice"));
    assert!(read("\"a.test\" = \"a\"\n\"A.test\" = \"b\"").unwrap_err().contains("twice"));
}

#[test]
fn ipv6_relays_need_brackets_only_with_a_port() {
    assert_eq!(parse_relay("[::1]:2525", 25), Some(relay("::1", 2525)));
    assert_eq!(parse_relay("::1", 25), Some(relay("::1", 25)));
    assert_eq!(parse_relay("[::1]", 25), Some(relay("::1", 25)));
}

#[test]
fn ports_follow_the_protocol_unless_they_are_named() {
    let port = |table: &str| match routes(&format!("\"*\" = {table}")).route("a.test").to {
        To::Relay(_, port) => port,
        To::Mx | To::Local => 0,
    };
    assert_eq!(port("{ relay = \"h.test\" }"), 25);
    assert_eq!(port("{ relay = \"h.test\", implicit_tls = true }"), 465);
    assert_eq!(port("{ relay = \"h.test\", protocol = \"lmtp\" }"), 24);
    assert_eq!(port("{ relay = \"h.test:587\", implicit_tls = true }"), 587);
}

#[test]
fn terms_are_taken_from_the_table() {
    let routes = routes(
        "\"a.test\" = { relay = \"h.test\", user = \"u\", password = \"pw\", allow_plain_login = true }\n\
         \"b.test\" = { relay = \"h.test\", protocol = \"lmtp\", tls = \"never\" }\n\
         \"c.test\" = { hold = true }\n\
         \"d.test\" = { relay = \"h.test\", implicit_tls = true, tls = \"verify\" }",
    );
    let of = |domain| routes.route(domain).terms;
    let login = of("a.test").login.clone().unwrap();
    assert!(login.user == "u" && login.allow_plain_text);
    assert!(matches!(&login.secret, Secret::Password(text) if text == "pw"));
    assert_eq!((of("b.test").protocol, of("b.test").tls), (Protocol::Lmtp, Some(TlsMode::Never)));
    assert!(of("c.test").is_held && routes.route("c.test").to == To::Mx);
    assert_eq!((of("d.test").is_tls_implicit, of("d.test").tls), (true, Some(TlsMode::Verify)));
    assert_eq!(*of("e.test"), Terms::default());
}

#[test]
fn tags_are_equal_where_the_terms_are_and_only_there() {
    let tag = |keys: &str| {
        let table = format!("\"*\" = {{ relay = \"h.test\", {keys} }}");
        routes(&table).route("a.test").terms.tag.to_string()
    };
    let all = [
        "hold = true",
        "implicit_tls = true",
        "protocol = \"lmtp\"",
        "tls = \"may\"",
        "tls = \"encrypt\"",
        "user = \"u\", password = \"p\"",
        "user = \"u\", password = \"q\"",
        "user = \"v\", password = \"p\"",
        "user = \"u\", password = \"p\", allow_plain_login = true",
    ];
    let tags: Vec<String> = all.iter().map(|keys| tag(keys)).collect();
    assert_eq!(tags, all.iter().map(|keys| tag(keys)).collect::<Vec<_>>());
    let distinct: std::collections::BTreeSet<&String> = tags.iter().collect();
    assert_eq!(distinct.len(), all.len());
    assert!(tags.iter().all(|tag| !tag.is_empty()) && tag("hold = false").is_empty());
}

#[test]
fn nonsense_is_named() {
    for (table, said) in [
        ("\"a.test\" = \"a b\"", "routes.\"a.test\": \"a b\" is no relay; write host"),
        ("\"a.test\" = \"host:0\"", "\"host:0\" is no relay"),
        ("\"a b\" = \"\"", "routes.\"a b\": that is no domain"),
        ("\"*\" = 3", "a relay or a table"),
        ("\"*\" = { relay = \"h\", usr = \"u\" }", "unknown field `usr`"),
        ("\"*\" = { relay = \"h\", user = \"u\" }", "one of password, password_file and token_file"),
        ("\"*\" = { relay = \"h\", password = \"u\" }", "user goes with"),
        (
            "\"*\" = { relay = \"h\", user = \"u\", password = \"p\", token_file = \"t\" }",
            "user goes with one",
        ),
        ("\"*\" = { user = \"u\", password = \"p\" }", "write relay"),
        ("\"*\" = { protocol = \"lmtp\" }", "write relay"),
        ("\"*\" = { implicit_tls = true }", "write relay"),
        ("\"*\" = { relay = \"h\", allow_plain_login = true }", "goes with user"),
        ("\"*\" = { relay = \"h\", tls = \"fingerprint\" }", "tls.domains"),
        ("\"*\" = { relay = \"h\", tls = \"never\", implicit_tls = true }", "remove it or tls"),
        ("\"*\" = { relay = \"h\", user = \"u\", password = \"a\\u0000b\" }", "control characters"),
        ("\"*\" = { relay = \"h\", user = \"u\", password = \"(hidden)\" }", "write the password"),
    ] {
        let error = read(table).unwrap_err();
        assert!(error.contains(said), "{table}: {error}");
    }
}

#[test]
fn secrets_are_read_from_their_files_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let (file, secret) = (folder.path().join("ringpost.toml"), folder.path().join("secret"));
    let text = format!(
        "host_name = \"h.test\"\nqueue = \"q\"\n[routes]\n\
         \"a.test\" = {{ relay = \"r.test\", user = \"u\", password_file = {secret:?} }}\n\
         \"b.test\" = {{ relay = \"r.test\", user = \"u\", token_file = {secret:?} }}\n\
         \"c.test\" = {{ relay = \"r.test\", user = \"u\", password = \"hunter2\" }}\n\
         \"d.test\" = \"r.test:26\"\n"
    );
    std::fs::write(&file, text).unwrap();
    let error = load(&file).unwrap_err().to_string();
    assert!(error.contains("/secret: routes.\"a.test\".password_file: No such file"), "{error}");
    std::fs::write(&secret, "hunter2\r\n").unwrap();
    let config = load(&file).unwrap();
    let login = |domain| config.routes.route(domain).terms.login.clone().unwrap();
    assert!(matches!(&login("a.test").secret, Secret::Password(text) if text == "hunter2"));
    assert!(matches!(&login("b.test").secret, Secret::Token(text) if text == "hunter2"));
    assert_eq!(
        config.routes.route("a.test"),
        Route { to: named("r.test", 25), ..config.routes.route("c.test") }
    );
    let shown = toml::to_string(&config).unwrap();
    assert!(!shown.contains("hunter2") && !format!("{config:?}").contains("hunter2"));
    assert!(
        shown.contains("/secret") && shown.contains("(hidden)") && shown.contains("r.test:26"),
        "{shown}"
    );
    std::fs::write(&secret, "two\nlines\n").unwrap();
    assert!(load(&file).unwrap_err().to_string().contains("one line of text"));
}

#[test]
fn any_text_is_a_relay_or_is_none() {
    for text in
        ["", ":", "[", "[]", "[::1", "h:", "h:99999", "[h]:1", "::1]:4", "a.test:0", "\u{e9}:1", "]:1"]
    {
        fuzz_relay(text.as_bytes());
    }
    fuzz_relay(b"\xff\xfe:25");
}
