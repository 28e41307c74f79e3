use super::*;
use proptest::prelude::*;

fn read(format: Format, list: &str) -> Read {
    read_in_pieces(format, list.as_bytes(), 7)
}

fn csv(list: &str) -> Vec<(String, Vec<(String, String)>)> {
    shown(read(Format::Csv, list))
}

fn ndjson(list: &str) -> Vec<(String, Vec<(String, String)>)> {
    shown(read(Format::Ndjson, list))
}

fn shown((recipients, invalid, failed): Read) -> Vec<(String, Vec<(String, String)>)> {
    assert_eq!((invalid, failed), (Vec::new(), None));
    let values = |values: &Values| values.iter().map(|(name, value)| (name.into(), value.into())).collect();
    recipients.iter().map(|one| (one.mailbox.to_string(), values(&one.values))).collect()
}

fn row(address: &str, values: &[(&str, &str)]) -> (String, Vec<(String, String)>) {
    (address.into(), values.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
}

fn failure(format: Format, list: &[u8]) -> String {
    read_in_pieces(format, list, 3).2.expect("it fails").to_string()
}

#[test]
fn columns_are_fields_and_one_is_the_address() {
    let list = "first_name,Email,town\r\nAnn,ann@A.test,Oslo\r\nBob,bob@b.test,\r\n";
    let ann = row("ann@a.test", &[("first_name", "Ann"), ("town", "Oslo")]);
    assert_eq!(csv(list), [ann, row("bob@b.test", &[("first_name", "Bob")])]);
    assert_eq!(
        csv("address\nann@a.test\n \tbob@b.test \n"),
        [row("ann@a.test", &[]), row("bob@b.test", &[])]
    );
}

#[test]
fn beside_email_the_address_is_a_field() {
    let list = "name,address,Email\nAnn,\"12 Main St, Oslo\",ann@a.test\nBob,bob@c.test,bob@b.test\n";
    let ann = row("ann@a.test", &[("name", "Ann"), ("address", "12 Main St, Oslo")]);
    assert_eq!(csv(list), [ann, row("bob@b.test", &[("name", "Bob"), ("address", "bob@c.test")])]);
    let list = "{\"address\":\"12 Main St\",\"email\":\"ann@a.test\",\"n\":1}\n\
                {\"n\":2,\"email\":\"bob@b.test\",\"address\":3}\n\
                {\"email\":\"cy@c.test\",\"address\":null}\n\
                {\"address\":\"dee@d.test\",\"substitutions\":{\"address\":\"4 High St\"}}\n";
    let rows = [
        row("ann@a.test", &[("n", "1"), ("address", "12 Main St")]),
        row("bob@b.test", &[("n", "2"), ("address", "3")]),
        row("cy@c.test", &[]),
        row("dee@d.test", &[("address", "4 High St")]),
    ];
    assert_eq!(ndjson(list), rows);
}

#[test]
fn quotes_hold_commas_lines_and_quotes() {
    let list = "email,\"full name\"\n\"ann@a.test\",\"Ann \"\"A.\"\" O'Hara,\r\nof Oslo\"\nbob@b.test,\"\"\n";
    let name = ("full name", "Ann \"A.\" O'Hara,\r\nof Oslo");
    assert_eq!(csv(list), [row("ann@a.test", &[name]), row("bob@b.test", &[])]);
}

#[test]
fn what_programs_put_around_a_list_does_no_harm() {
    let list = "\u{feff}\"email\",n\r\n\r\nann@a.test,1\r\n\n\nbob@b.test,2";
    assert_eq!(csv(list), [row("ann@a.test", &[("n", "1")]), row("bob@b.test", &[("n", "2")])]);
    assert_eq!(csv("email\n"), []);
    assert!(failure(Format::Csv, b"\xef\xbb").contains("not UTF-8"));
    assert!(failure(Format::Csv, "\u{feca},a\n".as_bytes()).contains("no column email"));
}

#[test]
fn a_csv_error_names_record_line_and_remedy() {
    let fails = |list: &str| failure(Format::Csv, list.as_bytes());
    let two_lines = "email,n\nann@a.test,\"1\n2\"\n";
    assert_eq!(
        fails(&format!("{two_lines}bob@b.test,3,4\n")),
        "record 2 (line 4): 3 fields, and the header row has 2: quote fields that have commas in them"
    );
    assert!(
        fails(&format!("{two_lines}bob@b.test,5\" pipe\n")).starts_with("record 2 (line 4): a quote within")
    );
    assert!(fails("email,n\nann@a.test,\"1\"2\n").starts_with("record 1 (line 2): text behind"));
    assert!(fails("email,n\nann@a.test,\"1\n").starts_with("record 1 (line 2): the list ends within quotes"));
    assert!(fails("email\rann@a.test\r").starts_with("record 1 (line 1): a CR without LF"));
    assert!(fails("").contains("there is no header row"));
    assert!(fails("mail;name\n").contains("separated by commas?"));
    assert!(fails("email,a,a\n").contains("\"a\" twice"));
    assert!(fails("email,a,email\n").contains("\"email\" twice"));
    assert!(fails("email,,\n").contains("1 to 64 octets"));
    assert!(fails(&format!("email{}\n", ",x".repeat(70))).contains("more than 65 fields"));
    assert!(fails(&format!("email\n\"{}", "x".repeat(RECORD_MAX + 1))).contains("is a quote left open?"));
    assert!(fails(&format!("email,a\nann@a.test,{}\n", "x".repeat(20 << 10))).contains("\"a\": a value has"));
    assert!(
        failure(Format::Csv, b"email,n\nann@a.test,\xe4\n").starts_with("record 1 (line 2): it is not UTF-8")
    );
}

#[test]
fn a_line_of_json_is_a_recipient() {
    let list = "\r\n{\"email\":\"ann@a.test\",\"name\":\"Ann\",\"age\":42}\n\n\
                {\"substitutions\":{\"town\":\"Oslo\",\"age\":7},\"address\":\"bob@b.test\",\"age\":8}";
    let ann = row("ann@a.test", &[("name", "Ann"), ("age", "42")]);
    assert_eq!(ndjson(list), [ann, row("bob@b.test", &[("town", "Oslo"), ("age", "7")])]);
}

#[test]
fn a_json_error_names_record_line_and_remedy() {
    let fails = |list: &str| failure(Format::Ndjson, list.as_bytes());
    let good = "{\"email\":\"ann@a.test\"}\n\n";
    assert!(
        fails(&format!("{good}{{\"email\":1}}\n"))
            .starts_with("record 2 (line 3): invalid type: integer `1`")
    );
    assert!(fails(&format!("{good}{{\"name\":\"Bob\"}}\n")).contains("missing field `email`"));
    assert!(fails("[]\n").contains("a line is a JSON object such as"));
    assert!(fails("{\"email\":\"a@a.test\",\"x\":[]}\n").contains("cannot be merged"));
    assert!(fails("{\"address\":null}\n").contains("missing field `email`"));
    for name in ["email", "address"] {
        let twice = format!("{{\"{name}\":\"a@a.test\",\"x\":1,\"{name}\":\"b@a.test\"}}\n");
        assert!(fails(&twice).contains(&format!("duplicate field `{name}`")), "{twice}");
    }
    assert!(fails("{\"email\":\"a@a.test\",\"x\":1,\"x\":2}\n").contains("\"x\": it is there twice"));
    assert!(fails("{\"email\":\"a@a.test\"").contains("record 1 (line 1): EOF"));
    assert!(fails(&" ".repeat(RECORD_MAX + 1)).contains("does each record end in a LF?"));
    assert!(
        fails("{\"email\":\"a@a.test\",\"substitutions\":{},\"substitutions\":{}}").contains("duplicate")
    );
}

#[test]
fn an_address_that_is_none_is_noted_and_the_reading_goes_on() {
    let (recipients, invalid, failed) = read(Format::Csv, "email\nann@a.test\nbob\n\ncy@c.test\n");
    assert_eq!((recipients.len(), failed), (2, None));
    let said: Vec<String> = invalid.iter().map(ToString::to_string).collect();
    assert_eq!(said, ["record 2 (line 3): email: \"bob\" is no mail address: the address has no @"]);
    let (_, invalid, _) = read(Format::Ndjson, "{\"email\":\"\"}\n");
    assert!(invalid[0].to_string().starts_with("record 1 (line 1): email: \"\""));
}

#[test]
fn a_batch_ends_at_its_bounds() {
    let mut list = String::from("email,n\n");
    for number in 0..BATCH_MAX + 1 {
        list.push_str(&format!("a{number}@a.test,{number}\n"));
    }
    let (mut reader, mut batch) = (Reader::new(Format::Csv), Batch::default());
    let used = reader.feed(list.as_bytes(), &mut batch).unwrap();
    assert!(batch.is_full() && used < list.len() && batch.records() <= BATCH_MAX);
    assert_eq!(reader.columns().unwrap(), ["n".into()]);
    assert_eq!(reader.feed(&list.as_bytes()[used..], &mut batch).unwrap(), 0, "a full batch takes no more");
}

/// As Python's csv module writes a field.
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.into()
    }
}

proptest! {
    #[test]
    fn what_was_written_is_read(names in prop::collection::vec("[ -~é\r\n]{0,12}", 1..40), line_end in "\r?\n") {
        let mut list = format!("email,name{line_end}");
        for (number, name) in names.iter().enumerate() {
            list.push_str(&format!("a{number}@a.test,{}{line_end}", quoted(name)));
        }
        let (recipients, invalid, failed) = read(Format::Csv, &list);
        prop_assert_eq!((invalid, failed), (Vec::new(), None));
        let read: Vec<&str> = recipients.iter().map(|one| one.values.get("name").unwrap_or_default()).collect();
        prop_assert_eq!(read, names);
    }

    #[test]
    fn cuts_change_nothing(list in "(address,)?[eE]mail(,n)?\n(ann@a.test|bob|,|\"|\r|\n|é|\u{feff}){0,40}", cut in any::<u8>()) {
        fuzz_recipients(&[&[cut & !1], list.as_bytes()].concat());
        fuzz_recipients(&[&[cut | 1], list.as_bytes()].concat());
    }

    #[test]
    fn cuts_change_no_json(list in "(\\{\"(email|address)\":\"a@a.test\"(,\"address\":1)?(,\"x\":[0-9\\[])?\\}?|\n| ){0,30}", cut in any::<u8>()) {
        fuzz_recipients(&[&[cut | 1], list.as_bytes()].concat());
    }

    #[test]
    fn any_octets_end_somehow(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz_recipients(&bytes);
    }
}
