use super::*;
use crate::compose::Zone;
use crate::merge::Template;
use crate::time::UnixMillis;
use mail_parser::{MessageParser, MimeHeaders, PartType};
use proptest::prelude::*;

const STAMP: Stamp = Stamp { at: UnixMillis(1_795_391_457_123), zone: Zone::Universal };
const ID: &str = "20261122235057.1@example.org";
const NEWS: Person<'_> = Person { email: "news@example.org", name: Some("News") };

fn letter() -> Letter<'static> {
    Letter { from: Some(NEWS), subject: Some("Hello"), text_body: Some("text"), ..Letter::default() }
}

fn made(letter: &Letter<'_>) -> String {
    String::from_utf8(build(letter, STAMP, ID).unwrap()).unwrap()
}

fn refused(letter: &Letter<'_>) -> String {
    build(letter, STAMP, ID).unwrap_err().to_string()
}

#[test]
fn a_text_alone_is_one_part() {
    let want = "From: News <news@example.org>\r\nSubject: Hello\r\nDate: Sun, 22 Nov 2026 23:50:57 -0000\r\n\
                Message-ID: <20261122235057.1@example.org>\r\nMIME-Version: 1.0\r\n\
                Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\ntext\r\n";
    assert_eq!(made(&letter()), want);
}

#[test]
fn all_kinds_of_parts_nest() {
    let pixel = Attachment {
        content_type: "image/gif",
        data: Data::Base64("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"),
        file_name: Some("pixel.gif"),
        content_id: Some("my-image"),
    };
    let notes = Attachment {
        content_type: "text/plain",
        data: Data::Text("Grüße"),
        file_name: Some("Grüße \"x\".txt"),
        content_id: None,
    };
    let text = made(&Letter {
        html_body: Some("<p>html</p>"),
        amp_html_body: Some("<html amp4email>"),
        attachments: &[pixel, notes],
        ..letter()
    });
    let message = MessageParser::new().parse(text.as_bytes()).unwrap();
    let types: Vec<String> = message
        .parts
        .iter()
        .map(|part| part.content_type().unwrap())
        .map(|media| format!("{}/{}", media.ctype(), media.subtype().unwrap()))
        .collect();
    let want = [
        "multipart/mixed",
        "multipart/related",
        "multipart/alternative",
        "text/plain",
        "text/x-amp-html",
        "text/html",
        "image/gif",
        "text/plain",
    ];
    assert_eq!(types, want);
    assert_eq!(message.parts[6].content_id(), Some("my-image"));
    assert_eq!(&message.parts[6].contents()[..6], b"GIF89a");
    assert_eq!(message.parts[7].attachment_name(), Some("Grüße \"x\".txt"));
    assert_eq!(message.parts[7].contents(), "Grüße".as_bytes());
    assert!(text.contains("type=\"multipart/alternative\""), "{text}");
    assert!(text.is_ascii() && text.split("\r\n").all(|line| line.len() <= 998 && !line.contains('\n')));
}

#[test]
fn fields_are_encoded_and_addresses_are_printed() {
    let headers = [
        ("X-Tenant", "Grüße an alle"),
        ("To", "Zoë Ü <z@example.net>, \"B, c\" <b@example.net>, Gäste: d@example.net;"),
        ("Subject", "not this one"),
        ("Message-ID", "<mine@example.org>"),
    ];
    let text = made(&Letter { headers: &headers, ..letter() });
    assert!(text.contains("X-Tenant: =?UTF-8?Q?Gr=C3=BC=C3=9Fe_an_alle?=\r\n"), "{text}");
    assert!(text.contains("To: =?UTF-8?Q?Zo=C3=AB_=C3=9C?= <z@example.net>, \"B, c\" <b@example.net>,\r\n =?UTF-8?Q?G=C3=A4ste?=: d@example.net;\r\n"), "{text}");
    assert!(text.contains("Message-ID: <mine@example.org>\r\n"), "{text}");
    assert_eq!(text.matches("Message-ID").count(), 1);
    assert_eq!(text.matches("Subject").count(), 1);
}

#[test]
fn what_is_wrong_is_named() {
    let header = |name, value| refused(&Letter { headers: &[(name, value)], ..letter() });
    assert_eq!(
        header("X-A", "a\r\nBcc: b"),
        "headers.X-A: a line end or another control character cannot be in it"
    );
    assert_eq!(
        header("X A\n", "a"),
        "headers.X A\\n: a header field's name has 1 to 76 visible ASCII characters and no colon"
    );
    assert_eq!(
        header("Content-Type", "a"),
        "headers.Content-Type: this field is made from the rest, or not sent"
    );
    assert_eq!(header("bcc", "a@b"), "headers.bcc: this field is made from the rest, or not sent");
    assert_eq!(header("To", "ann"), "headers.To: the address has no @");
    assert_eq!(header("To", "<>"), "headers.To: an address is needed");
    assert_eq!(header("Cc", ""), "headers.Cc: an address is needed");
    assert!(header("To", "(a").starts_with("headers.To: octet 0: expected"));
    let twice = [("To", "a@b"), ("to", "c@d")];
    assert_eq!(
        refused(&Letter { headers: &twice, ..letter() }),
        "headers.to: this field may be there only once"
    );
    let from = |email, name| refused(&Letter { from: Some(Person { email, name }), ..letter() });
    assert_eq!(from("news", None), "from.email: the address has no @");
    assert_eq!(
        from("a@b", Some("a\nb")),
        "from.name: a line end or another control character cannot be in it"
    );
    assert_eq!(refused(&Letter { from: None, ..letter() }), "from: it is missing; a message has an author");
    assert_eq!(
        refused(&Letter { text_body: None, amp_html_body: Some("x"), ..letter() }),
        "text_body: text_body or html_body is needed"
    );
}

#[test]
fn what_cannot_be_attached_is_named() {
    let good =
        Attachment { content_type: "image/png", data: Data::Text(""), file_name: None, content_id: None };
    let attached = |attachment| refused(&Letter { attachments: &[good, attachment], ..letter() });
    assert_eq!(
        attached(Attachment { data: Data::Base64("*"), ..good }),
        "attachments[1].data: it is not base64"
    );
    for media in ["image", "image/", "a b/c", "image/png\r\nX: y"] {
        let error = attached(Attachment { content_type: media, ..good });
        assert!(error.starts_with("attachments[1].content_type: "), "{error}");
    }
    assert_eq!(
        attached(Attachment { content_type: "Message/rfc822", ..good }),
        "attachments[1].content_type: messages and multiparts cannot be attached"
    );
    assert_eq!(
        attached(Attachment { content_id: Some("a b"), ..good }),
        "attachments[1].content_id: a Content-ID has no spaces and no angles"
    );
    assert_eq!(
        attached(Attachment { file_name: Some(&"x".repeat(256)), ..good }),
        "attachments[1].file_name: it has more than 255 octets"
    );
}

#[test]
fn references_pass_through_to_the_template() {
    let headers = [("Cc", "\"{{name}}\" <{{email}}>"), ("X-Id", "{{id|default(\"ü\")}}")];
    let text = made(&Letter {
        from: Some(Person {
            email: "news+{{id}}@example.org",
            name: Some("News für {{name|default(\"a, b\")}}"),
        }),
        subject: Some("Grüße, {{name|default(\"ihr\")}}"),
        to_each: true,
        text_body: Some("Grüße, {{name|default(\"ihr\")}} {{email}} ç à é è ù"),
        html_body: Some("<p class=\"x\">{{name}}</p>"),
        headers: &headers,
        ..Letter::default()
    });
    let bound = Template::compile(text.as_bytes()).unwrap().bind(&["name", "email", "id"]).unwrap();
    let mut copy = Vec::new();
    let values = ["Zoë <b>", "zoe@example.net", "7"];
    bound.render_header(&values, &mut copy);
    bound.render_body(&values, &mut copy);
    let message = MessageParser::new().parse(&copy).unwrap();
    let first = |address: Option<&mail_parser::Address<'_>>| {
        let first = address.unwrap().first().unwrap();
        (first.name().map(str::to_owned), first.address().map(str::to_owned))
    };
    let want = |name: &str, address: &str| (Some(name.to_owned()), Some(address.to_owned()));
    assert_eq!(first(message.from()), want("News für Zoë <b>", "news+7@example.org"));
    assert_eq!(first(message.to()), want("Zoë <b>", "zoe@example.net"));
    assert_eq!(first(message.cc()), want("Zoë <b>", "zoe@example.net"));
    assert_eq!(message.subject(), Some("Grüße, Zoë <b>"));
    assert_eq!(message.body_text(0).as_deref(), Some("Grüße, Zoë <b> zoe@example.net ç à é è ù"));
    assert_eq!(message.body_html(0).as_deref(), Some("<p class=\"x\">Zoë &lt;b&gt;</p>"));
}

proptest! {
    #[test]
    fn another_implementation_reads_what_was_said(subject in "\\PC{0,120}", name in "\\PC{0,60}", text in "(\n|\\PC|[ -~]{0,20}){0,40}", html in "\\PC{0,300}", data: Vec<u8>) {
        use base64::Engine as _;
        let data64 = base64::engine::general_purpose::STANDARD.encode(&data);
        let attachment = Attachment { content_type: "application/octet-stream", data: Data::Base64(&data64), file_name: None, content_id: None };
        let made = made(&Letter {
            from: Some(Person { email: "a@example.org", name: Some(&name) }),
            subject: Some(&subject),
            text_body: Some(&text),
            html_body: Some(&html),
            attachments: &[attachment],
            ..Letter::default()
        });
        let words = |text: &str| text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        let message = MessageParser::new().parse(made.as_bytes()).unwrap();
        prop_assert_eq!(words(message.subject().unwrap_or_default()), words(&subject));
        let from = message.from().unwrap().first().unwrap();
        prop_assert_eq!(words(from.name().unwrap_or_default()), words(&name));
        prop_assert_eq!(from.address(), Some("a@example.org"));
        let said = |index: usize| match &message.parts[index].body {
            PartType::Text(text) | PartType::Html(text) => text.to_string(),
            other => panic!("{other:?}"),
        };
        prop_assert_eq!(said(2), text.replace('\n', "\r\n"));
        prop_assert_eq!(said(3), html);
        prop_assert_eq!(message.parts[4].contents(), data);
        prop_assert!(made.split("\r\n").all(|line| line.len() <= 76), "{}", made);
    }
}
