use super::*;
use crate::config::parse;
use message::report::read;
use message::unsubscribe::Subscription;
use message::{EnhancedCode, Verp};
use proptest::prelude::*;

const KEYS: &str = "domains = [\"b.test\"]\nfeedback_addresses = [\"fbl@here.test\"]\n";

/// Too long to be named in a signed path.
const LONG: &str = "ann.with.a.rather.long.name@departments.example.net";

fn key() -> Arc<VerpKey> {
    Arc::new(VerpKey::new(&[3; 32]))
}

fn returns(keys: &str) -> Returns {
    let text = format!("queue = \"q\"\nhost_name = \"relay.test\"\n[bounces]\n{keys}");
    Returns::new(&parse(&text, "test").unwrap(), key())
}

fn path(recipient: &str) -> String {
    let (base, recipient) = (Mailbox::parse("list@b.test").unwrap(), Mailbox::parse(recipient).unwrap());
    let mut out = Vec::new();
    let place = (MessageId(7), RecipientIndex(9));
    Verp::DEFAULT.render_signed(base.as_ref(), recipient.as_ref(), place, &key(), &mut out);
    String::from_utf8(out).unwrap()
}

fn meaning(returns: &Returns, to: &str, content: &str) -> Meaning {
    let address = returns.address(MailboxRef::parse(to).unwrap()).expect("it is one of ours");
    returns.judge(&address, &read(content.as_bytes()))
}

fn event(returns: &Returns, to: &str, content: &str) -> ReturnEvent {
    match meaning(returns, to, content) {
        Meaning::Event(event) => *event,
        other => panic!("{other:?}"),
    }
}

/// A report of the recipients, each with its action and status, and the original's header.
fn report(recipients: &[(&str, &str, &str)], original: &str) -> String {
    let mut text =
        "Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/delivery-status\n\n"
            .to_owned();
    for (recipient, action, status) in recipients {
        text += &format!("Final-Recipient: rfc822; {recipient}\nAction: {action}\nStatus: {status}\n\n");
    }
    text + "--b\nContent-Type: text/rfc822-headers\n\n" + original + "\n--b--\n"
}

fn complaint(fields: &str, original: &str) -> String {
    format!(
        "Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/feedback-report\n\n\
         Feedback-Type: abuse\n{fields}\n--b\nContent-Type: message/rfc822\n\n{original}\n--b--\n"
    )
}

#[test]
fn addresses_of_ours_are_told_from_others() {
    let of = |returns: &Returns, address: &str| {
        let found = returns.address(MailboxRef::parse(address).unwrap());
        match found {
            None => "none",
            Some(ReturnAddress::Signed(..)) => "signed",
            Some(ReturnAddress::Unsigned(_)) => "unsigned",
            Some(ReturnAddress::Feedback) => "feedback",
            Some(ReturnAddress::Leaving) => "leaving",
        }
    };
    let strict = returns(KEYS);
    let forged = path("ann@x.test").replace("ann=", "bob=");
    for (address, found) in [
        (path("ann@x.test").as_str(), "signed"),
        (&path(LONG), "signed"),
        (&path("ann@x.test").to_uppercase(), "signed"),
        (&path("ann@x.test").replace("b.test", "c.test"), "none"),
        (&forged, "none"),
        ("list+ann=x.test@b.test", "none"),
        ("list@b.test", "none"),
        ("FBL@here.test", "feedback"),
        ("ann@here.test", "none"),
    ] {
        assert_eq!(of(&strict, address), found, "{address}");
    }
    let lax = returns(&format!("{KEYS}unsigned = \"check\"\n"));
    let paths = ["list+ann=x.test@b.test", "list@b.test", "fbl@here.test"];
    let is_path = |returns: &Returns| paths.map(|path| returns.is_path(MailboxRef::parse(path).unwrap()));
    assert_eq!((is_path(&lax), is_path(&strict)), ([true, false, false], [false; 3]));
    for (address, found) in [
        (path("ann@x.test").as_str(), "signed"),
        ("list+ann=x.test@b.test", "unsigned"),
        ("list-ann=x-y.test@b.test", "unsigned"),
        ("list-owner@b.test", "none"),
        ("list@b.test", "none"),
    ] {
        assert_eq!(of(&lax, address), found, "{address}");
    }
    assert!(!returns("").concerns("b.test") && strict.concerns("HERE.test") && strict.signs("B.test"));
}

#[test]
fn who_writes_a_token_of_ours_to_the_address_for_leaving_leaves() {
    let text =
        "queue = \"q\"\n[unsubscribe]\nbase_url = \"https://here.test\"\nmailto = \"leave@Here.test\"\n";
    let returns = Returns::new(&parse(text, "test").unwrap(), key());
    let is_for_leaving =
        |address| returns.address(MailboxRef::parse(address).unwrap()) == Some(ReturnAddress::Leaving);
    assert_eq!(["LEAVE@here.test", "ann@here.test"].map(is_for_leaving), [true, false]);
    let (key, mut token) = (UnsubscribeKey::new(&[3; 32]), Vec::new());
    let ann = Mailbox::parse("ann@x.test").unwrap();
    key.token(&Subscription::new("news", ann.as_ref()).unwrap(), &mut token);
    let token = String::from_utf8(token).unwrap();
    let left = Meaning::Left(Unsubscribed { list: "news".into(), address: ann });
    for subject in [format!("unsubscribe {token}"), format!("Re: unsubscribe\r\n {}", token.to_uppercase())] {
        let content = format!("From: eve@y.test\r\nsubject: {subject}\r\n\r\nbye\r\n");
        let meaning = leaving(content.as_bytes(), &key);
        assert!(
            meaning == left
                && returns.copies(MailboxRef::parse("leave@here.test").unwrap(), &left).is_empty()
        );
    }
    for content in [
        format!("Subject: unsubscribe {}a\r\n\r\n", &token[..token.len() - 1].replace(&token[..1], "a")),
        "Subject: unsubscribe\r\n\r\n".to_owned(),
        format!("From: x\r\n\r\nSubject: {token}\r\n"),
    ] {
        assert_eq!(leaving(content.as_bytes(), &key), Meaning::Unknown, "{content}");
    }
}

#[test]
fn failure_at_a_signed_path_is_an_event_about_its_recipient() {
    let content = report(&[("ann@x.test", "failed", "5.1.1")], "To: ann@x.test\nX-Campaign: spring\n");
    let event = event(&returns(KEYS), &path("ann@x.test"), &content);
    assert_eq!(event.what, Returned::Bounced(FailureClass::Hard));
    assert_eq!(event.recipient.unwrap().as_str(), "ann@x.test");
    assert_eq!((event.message, &*event.sender), (Some(MessageId(7)), "list@b.test"));
    assert_eq!((&*event.labels.campaign, event.detail), ("spring", "rfc3464"));
    assert_eq!(event.reply.and_then(|reply| reply.enhanced), Some(EnhancedCode(5, 1, 1)));
}

#[test]
fn recipient_is_the_paths_whatever_the_report_says() {
    let content = report(&[("victim@y.test", "failed", "5.1.1")], "To: victim@y.test\n");
    let found = event(&returns(KEYS), &path("ann@x.test"), &content);
    assert_eq!(found.recipient.unwrap().as_str(), "ann@x.test");
    // One that the path does not name is known if the report names it, and stays unknown if not.
    let found = event(&returns(KEYS), &path(LONG), &content);
    assert_eq!((found.recipient, found.index), (None, Some(RecipientIndex(9))));
    let content =
        report(&[("other@y.test", "failed", "5.1.1")], &format!("To: \"Ann\" <{}>\n", LONG.to_uppercase()));
    let found = event(&returns(KEYS), &path(LONG), &content);
    assert!(found.recipient.unwrap().as_str().eq_ignore_ascii_case(LONG));
}

#[test]
fn of_several_recipients_the_paths_own_counts() {
    let several = [("bob@x.test", "failed", "5.1.1"), ("ann@x.test", "delayed", "4.2.0")];
    assert_eq!(meaning(&returns(KEYS), &path("ann@x.test"), &report(&several, "")), Meaning::Progress);
    let found = event(&returns(KEYS), &path("bob@x.test"), &report(&several, ""));
    assert_eq!(found.what, Returned::Bounced(FailureClass::Hard));
    // Under another name: the failure.
    let found = event(&returns(KEYS), &path("cy@x.test"), &report(&several, ""));
    assert_eq!(found.recipient.unwrap().as_str(), "cy@x.test");
}

#[test]
fn what_is_no_bounce_is_no_event() {
    let returns = returns(KEYS);
    let of = |content: &str| meaning(&returns, &path("ann@x.test"), content);
    for action in ["delayed", "delivered", "relayed"] {
        assert_eq!(of(&report(&[("ann@x.test", action, "2.0.0")], "")), Meaning::Progress);
    }
    assert_eq!(of("Subject: Out of office\n\nAway.\n"), Meaning::Automatic);
    assert_eq!(of("Subject: Please confirm your message\n\nx\n"), Meaning::Automatic);
    assert_eq!(of("Subject: hello\n\nx\n"), Meaning::Unknown);
    assert_eq!(of("\0\r\n"), Meaning::Unknown);
    let not_spam = complaint("", "").replace("abuse", "not-spam");
    assert_eq!(of(&not_spam), Meaning::Automatic);
}

#[test]
fn unsigned_path_counts_only_with_what_we_passed_on() {
    let returns = returns(&format!("{KEYS}unsigned = \"check\"\n"));
    let ours = "Received: from app (app [192.0.2.1])\n\tby relay.test with ESMTP; today\n";
    let theirs = "Received: from app by other.test with ESMTP; today\n";
    let of = |recipient: &str, original: &str| {
        meaning(&returns, "list+ann=x.test@b.test", &report(&[(recipient, "failed", "5.1.1")], original))
    };
    let Meaning::Event(event) = of("Ann@x.test", ours) else { panic!("it is proven") };
    assert_eq!((event.recipient.unwrap().as_str(), event.message), ("Ann@x.test", None));
    assert_eq!(of("ann@x.test", theirs), Meaning::Unproven);
    assert_eq!(of("ann@x.test", ""), Meaning::Unproven);
    assert_eq!(of("bob@x.test", ours), Meaning::Unproven);
}

#[test]
fn complaint_is_proven_by_the_path_of_the_message() {
    let returns = returns(KEYS);
    let of = |to: &str, fields: &str, original: &str| meaning(&returns, to, &complaint(fields, original));
    let own = path("ann@x.test");
    let forged = own.replace("ann=", "bob=");
    for (fields, original) in [
        (format!("Original-Mail-From: <{own}>\n"), String::new()),
        (String::new(), format!("Return-Path: <{own}>\nTo: somebody@y.test\n")),
    ] {
        let Meaning::Event(event) = of("fbl@here.test", &fields, &original) else {
            panic!("{fields}{original}")
        };
        assert_eq!(event.what, Returned::Complained(FeedbackType::Abuse));
        assert_eq!(event.recipient.unwrap().as_str(), "ann@x.test");
    }
    assert!(matches!(of(&own, "", ""), Meaning::Event(_)), "the address itself is proof");
    assert_eq!(of("fbl@here.test", &format!("Original-Mail-From: <{forged}>\n"), ""), Meaning::Unproven);
    assert_eq!(of("fbl@here.test", "Original-Rcpt-To: ann@x.test\n", "To: ann@x.test\n"), Meaning::Unproven);
    assert_eq!(
        meaning(&returns, "fbl@here.test", &report(&[("a@b.test", "failed", "5.1.1")], "")),
        Meaning::Unknown
    );
}

#[test]
fn copies_go_to_the_lists_owner_or_to_everybodys() {
    let keys = "forward_to = \"all@here.test\"\nunknown_to = \"post@here.test\"\n[bounces.owners]\n\
                \"list@b.test\" = \"owner@here.test\"\n\"list-x@b.test\" = \"x@here.test\"\n";
    let returns = returns(&format!("{KEYS}{keys}"));
    let to = |address: &str, meaning: &Meaning| -> Vec<String> {
        let copies = returns.copies(MailboxRef::parse(address).unwrap(), meaning);
        copies.iter().map(ToString::to_string).collect()
    };
    assert_eq!(to(&path("ann@x.test"), &Meaning::Automatic), ["owner@here.test"]);
    assert_eq!(
        to(&path("ann@x.test").replace("list", "LIST"), &Meaning::Unknown),
        ["owner@here.test", "post@here.test"]
    );
    assert_eq!(to("list-x-ann=y.test@b.test", &Meaning::Progress), ["x@here.test"]);
    assert_eq!(to("news+ann=y.test@b.test", &Meaning::Progress), ["all@here.test"]);
    assert_eq!(to("fbl@here.test", &Meaning::Automatic), ["all@here.test"]);
    let sender = MailboxRef::parse("list@b.test").unwrap();
    assert_eq!(returns.owner(sender).unwrap().as_str(), "owner@here.test");
}

proptest! {
    /// Nobody without the key can say that a recipient is gone.
    #[test]
    fn no_letter_to_a_made_up_address_is_an_event(local in "[a-z2-7=+.-]{1,60}", victim in "[a-z]{1,8}") {
        let returns = returns(KEYS);
        let local = format!("list+={local}={victim}=x.test");
        if let Ok(address) = MailboxRef::parse(&format!("{local}@b.test")) {
            prop_assert_eq!(returns.address(address), None);
        }
    }

    #[test]
    fn any_content_at_any_address_has_a_meaning(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
        let returns = returns(&format!("{KEYS}unsigned = \"check\"\n"));
        for to in [path("ann@x.test").as_str(), "list+ann=x.test@b.test", "fbl@here.test"] {
            let address = returns.address(MailboxRef::parse(to).unwrap()).unwrap();
            let _ = returns.judge(&address, &read(&octets));
        }
    }
}
