//! What lists mean and how they are written again.

use super::*;
use crate::compose::token::unfold;
use proptest::prelude::*;

/// The list as it is printed behind `To:`, and whether it was altered.
fn printed(text: &str) -> (String, bool) {
    let unfolded = unfold(text.as_bytes());
    let list = AddressList::parse(&unfolded).unwrap_or_else(|error| panic!("{text}: {error}"));
    let field = String::from_utf8(list.print(b"To")).unwrap();
    (field.strip_prefix("To:").unwrap().trim().to_owned(), list.altered())
}

#[test]
fn legal_lists_stay_as_they_are() {
    for text in [
        "ann@example.net",
        "Ann Example <ann@example.net>, bob@example.org (Bob (the other))",
        "\"Ann B. Example\" <ann@example.net>",
        "friends: ann@example.net, Bob <bob@example.org>;, cy@example.com",
        "recipient list not shown: ;",
        "recipient list not shown:;",
        "g: (nobody); (really), a@b.c",
        "(first) a@b.c (last)",
        "\"a b\"@example.net",
        "John Q. Public <jqp@example.net>",
        "<ann@[192.0.2.1]>",
        "ann",
        "a@[x \\ ]",
        "<>",
        "mailer-daemon <>",
    ] {
        let (field, altered) = printed(text);
        assert_eq!(field.replace(": ;", ":;"), text.replace(": ;", ":;"));
        assert!(!altered, "{text}");
    }
}

#[test]
fn what_may_be_read_but_not_written_is_mended() {
    for (text, want) in [
        ("djb fred", "djb, fred"),
        ("a@b.c d@e.f (x) g", "a@b.c, d@e.f (x), g"),
        ("Ann <a@b.c> d@e.f", "Ann <a@b.c>, d@e.f"),
        ("<a@b.c> (x) Bob <d@e.f>", "<a@b.c> (x), Bob <d@e.f>"),
        ("<@one.example,@two.example:ann@example.net>", "<ann@example.net>"),
        ("Ann <@one.example : ann@example.net>", "Ann <ann@example.net>"),
        ("ann . b @ example . net", "ann.b@example.net"),
        ("ann(x)@(y)example.net", "ann@example.net (x) (y)"),
        ("Ann < ann@example.net >", "Ann <ann@example.net>"),
        ("\"a b\".c@example.net", "\"a b.c\"@example.net"),
        ("a\\ b@example.net", "\"a b\"@example.net"),
        ("ann@example.net <ann@example.net>", "\"ann@example.net\" <ann@example.net>"),
        ("Ann (c) ann@example.net <Ann@Example.NET>", "(c) \"Ann ann@example.net\" <Ann@Example.NET>"),
        ("[News] Ann (c) <ann@example.net>", "(c) \"[News] Ann\" <ann@example.net>"),
        ("a@b.c,, d@e.f,", "a@b.c, d@e.f"),
        ("a@b.c, (x), d@e.f", "a@b.c (x), d@e.f"),
        ("(x), d@e.f", "(x) d@e.f"),
        ("g: a@b.c d@e.f; h", "g: a@b.c, d@e.f;, h"),
        ("undisclosed-recipients:", "undisclosed-recipients: ;"),
        ("g: a@b.c", "g: a@b.c;"),
        ("a@[ 192.0.2.1 ]", "a@[192.0.2.1]"),
    ] {
        assert_eq!(printed(text), (want.to_owned(), true), "{text}");
    }
}

#[test]
fn errors_say_where_and_what() {
    for (text, at, expected) in [
        ("a@", 2, "a domain"),
        ("a@b@c", 3, "a comma or the end: the address has its @"),
        ("@b", 0, "a local part"),
        ("a, @b", 3, "a local part"),
        ("a@\"b\"", 2, "a domain"),
        ("Ann <a@b", 4, "a > that ends the address begun here"),
        ("Ann <a <b>", 7, "a > before the next <"),
        ("a@b>", 3, "a < before this >"),
        ("<a b@c>", 3, "an @ or the > that ends the address"),
        ("<@r a@b>", 1, "a local part, or a : that ends the route begun here"),
        ("<@r:>", 4, "an address behind the route"),
        ("a@b <c@d>", 1, "quotes around a name with this @, or a comma between two addresses"),
        ("a b@c d <b@c>", 3, "quotes around a name with this @, or a comma between two addresses"),
        ("a@b c@d <c@d>", 1, "quotes around a name with this @, or a comma between two addresses"),
        ("xa@b <a@b>", 2, "quotes around a name with this @, or a comma between two addresses"),
        ("a@b: c;", 1, "quotes around a name with this @, or a comma between two addresses"),
        (": a@b;", 0, "a name before this colon"),
        ("g: h: a;;", 4, "a comma or the ; that ends the group: groups do not nest"),
        ("a@b; c@d", 3, "a comma: this ; ends a group, and none is open"),
        ("a (b", 2, "a ) that ends the comment begun here"),
    ] {
        let error = AddressList::parse(text.as_bytes()).map(|list| list.elements.len()).unwrap_err();
        assert_eq!((error.at, error.expected), (at, expected), "{text}");
    }
}

#[test]
fn long_lists_are_folded_between_addresses() {
    let list = ["somebody.with.a.name@example.net"; 5].join(",");
    let list = AddressList::parse(list.as_bytes()).unwrap();
    let field = String::from_utf8(list.print(b"To")).unwrap();
    assert_eq!(
        field,
        "To: somebody.with.a.name@example.net, somebody.with.a.name@example.net,\r\n \
         somebody.with.a.name@example.net, somebody.with.a.name@example.net,\r\n \
         somebody.with.a.name@example.net\r\n"
    );
}

#[test]
fn long_names_are_folded_at_their_spaces() {
    let text = format!("{} <a@b.c>", "word ".repeat(40));
    let list = AddressList::parse(text.as_bytes()).unwrap();
    let field = String::from_utf8(list.print(b"Cc")).unwrap();
    assert!(field.lines().all(|line| line.len() <= 78), "{field}");
    assert_eq!(field.matches("word").count(), 40);
}

#[test]
fn envelopes_quote_as_little_as_they_can() {
    let mailbox = |text: &str| {
        let list = AddressList::parse(text.as_bytes()).unwrap();
        let entry = list.entries().next().unwrap();
        entry.address.as_ref().unwrap().mailbox().map(|mailbox| mailbox.to_string())
    };
    assert_eq!(mailbox("\"ann\"@Example.NET").unwrap(), "ann@example.net");
    assert_eq!(mailbox(r#""a\b\"c d"@example.net"#).unwrap(), r#""ab\"c d"@example.net"#);
    assert_eq!(mailbox("a..b@example.net").unwrap(), "a..b@example.net");
    assert_eq!(mailbox("ann"), Err(AddressError::NoAt));
    assert_eq!(mailbox("ann@b!c.d"), Err(AddressError::DomainSyntax));
}

#[test]
fn plain_arguments_are_one_address() {
    let shown = |text: &str| AddrSpec::plain(text).shown();
    assert_eq!(shown("ann@example.net"), "ann@example.net");
    assert_eq!(shown("a b, c@example.net"), "\"a b, c\"@example.net");
    assert_eq!(shown("@relay.example:ann@example.net"), "ann@example.net");
    assert_eq!(shown("ann"), "ann");
}

#[test]
fn many_addresses_take_linear_time() {
    let text = "a@b.c ".repeat(200_000);
    assert_eq!(AddressList::parse(text.as_bytes()).unwrap().entries().count(), 200_000);
}

/// Texts of the octets that lists are made of.
fn list_text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("ann"),
        Just("b"),
        Just(" "),
        Just(" "),
        Just("@"),
        Just("@"),
        Just("."),
        Just(","),
        Just(":"),
        Just(";"),
        Just("<"),
        Just(">"),
        Just("(c)"),
        Just("((d) e)"),
        Just("\"q p\""),
        Just("[192.0.2.1]"),
        Just("\\,"),
        Just("\r\n "),
        Just("é"),
        Just("@x.example:"),
        Just("name <a@b.c>"),
        Just("a@b.c"),
    ];
    proptest::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn what_is_printed_reads_the_same(text in list_text()) {
        fuzz_address_list(text.as_bytes());
    }

    #[test]
    fn fuzz_smoke(bytes: Vec<u8>) {
        fuzz_address_list(&bytes);
    }
}
