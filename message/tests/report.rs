//! What comes back, told by what is made of it: every `tests/transcripts/report/*.txt`.
//!
//! A file begins with what it is (`#`) and what it comes to (`=`); behind the first empty line it is the message. Each is
//! read with every kind of line end that is met, and cut short at any place: it must come to the same, and to something.
//! `UPDATE_EXPECT=1 cargo test -p message --test report` rewrites the `=` lines for review.

use message::report::{Complaint, Fate, Kind, Report, fuzz_report, read};
use std::path::{Path, PathBuf};

/// Name, head and message of each file.
fn samples() -> Vec<(PathBuf, String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/transcripts/report");
    let mut samples = Vec::new();
    for entry in std::fs::read_dir(&folder).expect("the transcripts are there") {
        let path = entry.expect("a folder's entry").path();
        let text = std::fs::read_to_string(&path).expect("a transcript is UTF-8");
        let (head, message) = text.split_once("\n\n").expect("an empty line is behind the head");
        samples.push((path, head.to_owned(), message.to_owned()));
    }
    samples
}

/// The `=` lines.
fn shown(report: &Report) -> String {
    let mut lines = match &report.kind {
        Kind::Delivery(form, fates) => {
            let fates = fates.iter().map(fate);
            std::iter::once(format!("= delivery {}", form.name())).chain(fates).collect()
        }
        Kind::Complaint(said) => vec![complaint(said)],
        other => vec![format!("= {}", other.name())],
    };
    let ids: Vec<_> = report.original.values("message-id").collect();
    if !report.original.is_empty() {
        let line = format!("= original {} {}", ids.join(" "), report.original.labels("").campaign);
        lines.push(line.trim_end().to_owned());
    }
    lines.join("\n")
}

fn fate(fate: &Fate) -> String {
    let Fate { outcome, recipient, original, reply, class } = fate;
    let original = original.as_ref().map_or(String::new(), |original| format!(" for {original}"));
    let recipient = recipient.as_deref().unwrap_or("?");
    let code = reply.code;
    let status = reply.enhanced.map_or("-".to_owned(), |status| status.to_string());
    let text = reply.text();
    let line =
        format!("= {} {recipient}{original} {code} {status} {} | {text}", outcome.name(), class.name());
    line.trim_end().to_owned()
}

fn complaint(Complaint { kind, reverse_path, recipients }: &Complaint) -> String {
    let counts = if kind.is_complaint() { "complaint" } else { "feedback" };
    let path = reverse_path.as_deref().unwrap_or("?");
    format!("= {counts} {} <{path}> {}", kind.name(), recipients.join(" ")).trim_end().to_owned()
}

#[test]
fn messages_come_to_what_the_transcripts_say() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let (samples, mut wrong) = (samples(), Vec::new());
    for (path, head, message) in &samples {
        let made = shown(&read(message.replace('\n', "\r\n").as_bytes()));
        let notes: Vec<&str> = head.lines().filter(|line| !line.starts_with('=')).collect();
        let made = format!("{}\n{made}", notes.join("\n"));
        if made == *head {
            continue;
        }
        if update {
            std::fs::write(path, format!("{made}\n\n{message}")).expect("the transcript can be written");
        } else {
            wrong.push(format!("{}:\nwanted\n{head}\nmade\n{made}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(samples.len() >= 60, "only {} samples were found", samples.len());
}

#[test]
fn line_ends_make_no_difference() {
    for (path, _, message) in samples() {
        let plain = read(message.as_bytes());
        for end in ["\r\n", "\r\r\n", "\r"] {
            assert_eq!(read(message.replace('\n', end).as_bytes()), plain, "{end:?} in {}", path.display());
        }
    }
}

#[test]
fn message_may_end_anywhere() {
    for (_, _, message) in samples() {
        (0..message.len()).step_by(7).for_each(|len| fuzz_report(&message.as_bytes()[..len]));
    }
}
