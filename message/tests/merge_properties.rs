//! What must hold of a rendered copy for any values, seen by another implementation of MIME.

use mail_parser::{Address, MessageParser, PartType};
use message::merge::{Bound, Template};
use proptest::prelude::*;

/// Every place that a value can be in; the columns are `name`, `email`, `text`, `id`.
const TEMPLATE: &str = "\
From: News <news@example.org>\r\n\
To: \"{{name}}\" <{{email}}>\r\n\
Reply-To: Reply {{name}} there <reply+{{id}}@example.org>\r\n\
Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe,_{{name}}:?= {{text}} end\r\n\
X-Plain: {{text}}\r\n\
Message-ID: <{{id}}@example.org>\r\n\
List-Unsubscribe: <https://example.org/u/{{text}}>\r\n\
MIME-Version: 1.0\r\n\
Content-Type: multipart/mixed; boundary=\"b\"\r\n\
\r\n\
--b\r\n\
Content-Type: text/plain; charset=iso-8859-1\r\n\
Content-Transfer-Encoding: quoted-printable\r\n\
\r\n\
Gr=FC=DFe, {{na=\r\n\
me}}: {{text}}\r\n\
--{{text}}\r\n\
end\r\n\
--b\r\n\
Content-Type: text/html; charset=utf-8\r\n\
\r\n\
<p>{{name}}</p> {{{text}}}\r\n\
--b\r\n\
Content-Type: text/plain; charset=utf-8\r\n\
Content-Transfer-Encoding: base64\r\n\
\r\n\
e3tuYW1lfX0sIHRoaXMgaXMgYSB0ZXh0IHRoYXQgaXMgbG9uZyBlbm91Z2ggdG8gYmUgY29kZWQg\r\n\
YmVmb3JlIGl0IGlzIHJlbmRlcmVkOiB7e3RleHR9fS4=\r\n\
--b\r\n\
Content-Type: application/octet-stream\r\n\
Content-Transfer-Encoding: base64\r\n\
\r\n\
e3t0ZXh0fX0=\r\n\
--b--\r\n";

/// The third part of `TEMPLATE`, decoded.
const BASE64_TEXT: (&str, &str) =
    ("", ", this is a text that is long enough to be coded before it is rendered: ");

fn bound() -> Bound {
    let template = Template::compile(TEMPLATE.as_bytes()).expect("a good template");
    template.bind(&["name", "email", "text", "id"]).expect("all fields have columns")
}

fn render(bound: &Bound, values: &[&str]) -> Vec<u8> {
    let mut copy = Vec::new();
    bound.render_header(values, &mut copy);
    bound.render_body(values, &mut copy);
    assert!(copy.len() <= bound.len_max(values));
    copy
}

/// A value as a body has it: line ends are CR LF.
fn lines(value: &str) -> String {
    value.replace("\r\n", "\n").replace(['\r', '\n'], "\r\n")
}

/// A value as a header has it: no control characters.
fn one_line(value: &str) -> String {
    value.chars().map(|char| if char.is_ascii_control() { ' ' } else { char }).collect()
}

/// White space that folding may change, and its amount, aside.
fn words(text: &str) -> Vec<&str> {
    text.split(' ').filter(|word| !word.is_empty()).collect()
}

fn html(value: &str) -> String {
    let escaped = value.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    escaped.replace('"', "&quot;").replace('\'', "&#39;")
}

/// Values of all kinds: text of any script, control characters, everything that means something somewhere.
fn value() -> impl Strategy<Value = String> {
    let hostile = prop::sample::select(vec![
        "\r\n",
        "\n",
        "\r",
        "\0",
        "--b",
        "--b--",
        "\r\n--b\r\n\r\n",
        "\r\nBcc: eve@example.org\r\n",
        "=?utf-8?Q?x?=",
        "=",
        "{{name}}",
        "{% x %}",
        "<",
        ">",
        "\"",
        "\\",
        ",",
        "@",
        " ",
        "  ",
        "\t",
        ".",
        "\r\n.\r\n",
        "é",
        "привет",
        "漢字",
        "😀",
        "a",
        "word ",
        "=20",
        "?=",
        "&amp;",
        "%",
        "\u{7f}",
        "\u{85}",
        "\u{200b}",
        "x@example.net",
    ]);
    let piece = prop_oneof![3 => hostile.prop_map(str::to_owned), 1 => any::<String>(), 1 => "[ -~]{0,60}", 1 => "\\PC{0,60}"];
    prop_oneof![
        8 => prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat()),
        1 => "[a-z]{900,1200}".prop_map(|word| word),
    ]
}

/// Text with references, and with what means something around them.
fn template_text() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{{a}}",
        "{{ b }}",
        "{{{c}}}",
        "{{a|default(\"x, \\\"y\")}}",
        "{{d or 'z'}}",
        "{{b|safe}}",
        "{{ \"{{\" }}",
        "=?utf-8?Q?=7B=7Ba}}?=",
        "=?utf-8?B?w6k=?=",
        "=?utf-8?Q?",
        "<",
        ">",
        ",",
        ":",
        ";",
        "\"",
        "\\",
        "(",
        ")",
        "@",
        ".",
        "[",
        "]",
        " ",
        "\t",
        "\r\n ",
        "\n\t",
        "word",
        "x.y",
        "a@b.example",
        "é",
        "漢",
        "=",
        "-",
        "--",
        "{",
        "}",
        "%",
        "https://",
    ]);
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// A message of any shape: fields of every kind, nested parts, every transfer encoding.
fn template() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "To",
        "From",
        "Subject",
        "X-A",
        "Message-ID",
        "References",
        "List-Help",
        "List-ID",
        "Date",
    ]);
    let fields = prop::collection::vec((name, template_text()), 0..4);
    let media = prop::sample::select(vec![
        "",
        "text/plain",
        "text/html; charset=utf-8",
        "text/plain; charset=iso-8859-1",
        "multipart/mixed; boundary=b",
        "message/rfc822",
        "text/plain\r\nContent-Disposition: attachment",
    ]);
    let coding = prop::sample::select(vec!["", "8bit", "quoted-printable", "base64", "x-none"]);
    let lines = prop::collection::vec(
        prop_oneof![3 => template_text(), 1 => Just("--b".to_owned()), 1 => Just("--b--".to_owned()), 1 => Just(String::new())],
        0..8,
    );
    (fields, media, coding, lines, any::<bool>()).prop_map(|(fields, media, coding, lines, in_parts)| {
        let mut text: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        if in_parts {
            text.push_str("Content-Type: multipart/mixed; boundary=\"b\"\r\n\r\n--b\r\n");
        }
        if !media.is_empty() {
            text.push_str(&format!("Content-Type: {media}\r\n"));
        }
        if !coding.is_empty() {
            text.push_str(&format!("Content-Transfer-Encoding: {coding}\r\n"));
        }
        format!("{text}\r\n{}", lines.join("\r\n"))
    })
}

fn one_mailbox(address: Option<&Address<'_>>) -> (String, String) {
    let all: Vec<_> = address.expect("the field is there").iter().collect();
    assert_eq!(all.len(), 1, "{all:?}");
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    (text(all[0].name()), text(all[0].address()))
}

fn text_of(part: &PartType<'_>) -> String {
    match part {
        PartType::Text(text) | PartType::Html(text) => text.to_string(),
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn another_implementation_finds_exactly_the_values(name in value(), text in value(), email in "[a-z.+]{0,10}[a-z]@[a-z]{1,10}\\.example", id in "[a-z0-9]{1,20}") {
        let copy = render(&bound(), &[&name, &email, &text, &id]);
        let message = MessageParser::new().with_mime_headers().with_address_headers().with_message_ids().header_text("Subject").header_text("X-Plain").parse(&copy).expect("a message");

        // The header: the same fields as in the template, each once.
        let names: Vec<&str> = message.headers().iter().map(|header| header.name()).collect();
        prop_assert_eq!(names, ["From", "To", "Reply-To", "Subject", "X-Plain", "Message-ID", "List-Unsubscribe", "MIME-Version", "Content-Type"]);
        let (to_name, to) = one_mailbox(message.to());
        let want = one_line(&name);
        prop_assert_eq!(words(&to_name), words(&want));
        prop_assert_eq!(to, email);
        let (reply_name, reply) = one_mailbox(message.reply_to());
        let want = format!("Reply {} there", one_line(&name));
        prop_assert_eq!(words(&reply_name), words(&want));
        prop_assert_eq!(reply, format!("reply+{id}@example.org"));
        let want = format!("Grüße, {}: {} end", one_line(&name), one_line(&text));
        prop_assert_eq!(message.subject().map(words), Some(words(&want)));
        let plain = message.header("X-Plain").and_then(|value| value.as_text()).unwrap_or_default();
        let want = one_line(&text);
        prop_assert_eq!(words(plain), words(&want));
        let want = format!("{id}@example.org");
        prop_assert_eq!(message.message_id(), Some(want.as_str()));

        // The parts: as many as in the template, and each says what it should.
        prop_assert_eq!(message.parts.len(), 5);
        let (name, text) = (lines(&name), lines(&text));
        prop_assert_eq!(text_of(&message.parts[1].body), format!("Grüße, {name}: {text}\r\n--{text}\r\nend"));
        prop_assert_eq!(text_of(&message.parts[2].body), format!("<p>{}</p> {text}", html(&name)));
        let (before, between) = BASE64_TEXT;
        prop_assert_eq!(text_of(&message.parts[3].body), format!("{before}{name}{between}{text}."));
        prop_assert_eq!(message.parts[4].contents(), b"{{text}}");
    }

    #[test]
    fn no_line_is_too_long_and_none_is_half(name in value(), email in value(), text in value(), id in value()) {
        let copy = render(&bound(), &[&name, &email, &text, &id]);
        prop_assert!(copy.ends_with(b"\r\n"));
        let text = String::from_utf8(copy).expect("UTF-8");
        let (header, body) = text.split_once("\r\n\r\n").expect("a header and a body");
        for line in header.split("\r\n") {
            prop_assert!(line.len() <= 998 && !line.contains(['\r', '\n', '\0']), "{}", line);
            prop_assert!(!line.trim().is_empty(), "a blank line within the header");
        }
        for line in body.split("\r\n") {
            prop_assert!(line.len() <= 76 && line.is_ascii() && !line.contains(['\r', '\n']), "{}", line);
        }
        let fields = header.split("\r\n").filter(|line| !line.starts_with(' ')).count();
        prop_assert_eq!(fields, 9);
        let boundaries = body.split("\r\n").filter(|line| line.starts_with("--")).count();
        prop_assert_eq!(boundaries, 5);
    }

    #[test]
    fn a_copy_rendered_twice_is_the_same_and_needs_no_more_memory(name in value(), text in value()) {
        let bound = bound();
        let values = [name.as_str(), "ann@example.net", text.as_str(), "1"];
        let mut copy = render(&bound, &values);
        let (first, capacity) = (copy.clone(), copy.capacity());
        copy.clear();
        bound.render_header(&values, &mut copy);
        bound.render_body(&values, &mut copy);
        prop_assert_eq!(&copy, &first);
        prop_assert_eq!(copy.capacity(), capacity);
    }

    #[test]
    fn what_is_escaped_comes_out_as_it_was(text in value()) {
        let escaped = message::merge::escaped(&text);
        let content = format!("Subject: x\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{escaped}{{{{id}}}}");
        let template = Template::compile(content.as_bytes()).expect("a good template");
        let copy = render(&template.bind(&["id"]).expect("it has a column"), &["."]);
        let message = MessageParser::new().parse(&copy).expect("a message");
        let text = lines(&text);
        // A message's last line is ended; in base64 that is no part of the text.
        let found = text_of(&message.parts[0].body);
        prop_assert_eq!(found.strip_suffix("\r\n").unwrap_or(&found), format!("{text}."));
    }

    #[test]
    fn any_template_is_refused_or_holds_against_any_value(content in template()) {
        message::merge::fuzz_merge(content.as_bytes());
    }
}
