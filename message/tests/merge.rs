//! Mail merge, told by what goes in and what comes out: every `tests/transcripts/merge/*.txt`.
//!
//! ```text
//! # A name in the subject is encoded only if it must be.
//! $ name=Ann email=ann@example.net
//! < Subject: News for {{name}}
//! <
//! < Hello
//! = name
//! > Subject: News for Ann
//! >
//! > Hello
//! ```
//!
//! `$` names the columns with one recipient's values; `^J` in one is a line end. `=` names the fields, a question mark behind those that have
//! defaults, and which halves of the message they are in. `!` is an error: of the template, of a missing field, or of a value, with
//! which it is rendered all the same.
//! `UPDATE_EXPECT=1 cargo test -p message --test merge` rewrites the `=`, `>` and `!` lines for review.

use message::merge::Template;
use transcripts::{input_of, shown, words};

mod transcripts;

#[test]
fn copies_are_rendered_as_the_transcripts_say() {
    let count = transcripts::check("merge", |case| transcripts::with_outcome(case, outcome));
    assert!(count >= 60, "only {count} cases were found");
}

fn outcome(command: &str, given: &[&str]) -> Vec<String> {
    let pairs: Vec<(String, String)> = words(command)
        .iter()
        .map(|word| word.split_once('=').expect("a column and its value"))
        .map(|(column, value)| {
            (column.to_owned(), value.replace("^J", "\n").replace("^M", "\r").replace("^@", "\0"))
        })
        .collect();
    let columns: Vec<&str> = pairs.iter().map(|(column, _)| column.as_str()).collect();
    let values: Vec<&str> = pairs.iter().map(|(_, value)| value.as_str()).collect();
    let template = match Template::compile(&input_of(given)) {
        Ok(template) => template,
        Err(error) => return vec![format!("! {error}")],
    };
    let mut lines = vec![fields(&template)];
    match template.bind(&columns) {
        Err(missing) => lines.push(format!("! {missing}")),
        Ok(bound) => {
            lines.extend(bound.check(&values).err().map(|error| format!("! {error}")));
            let mut copy = Vec::new();
            bound.render_header(&values, &mut copy);
            bound.render_body(&values, &mut copy);
            assert!(copy.len() <= bound.len_max(&values), "{} octets", copy.len());
            lines.extend(shown(&copy));
        }
    }
    lines
}

fn fields(template: &Template) -> String {
    let mut line = String::from("=");
    for field in template.fields() {
        line.push_str(&format!(" {}{}", field.name, if field.has_default { "?" } else { "" }));
    }
    match (template.has_header_fields(), template.has_body_fields()) {
        (true, true) => line.push_str(" in both"),
        (true, false) => line.push_str(" in the header"),
        (false, true) => line.push_str(" in the body"),
        (false, false) => line.push_str(" no fields"),
    }
    line
}
