//! Message construction, told by what goes in and what comes out: every `tests/transcripts/compose/*.txt`.
//!
//! A file holds cases with an empty line between them, each with the rule that it is taken from:
//!
//! ```text
//! # A lone box name gets the default host.
//! $ USER=ann inject -a bob
//! < Subject: x
//! <
//! < hello
//! = from <ann@example.org> to bob@example.org
//! > Subject: x
//! ```
//!
//! `$` is a command: variables, `inject` (or `sendmail`, whose arguments are address lists; or `fix-up`), options of
//! qmail-inject, and ours: `-masquerade FROM TO`, `-list ADDRESS` (a line of QMAILMFTFILE), `-zone MINUTES`. `<` is the input,
//! its lines ended by LF; `<|` is a last line without its end. `=` is the envelope, `>` the content, whose lines end
//! in CR LF but for `>|`. `!` is an error, or `good` for what needs no fixing. `^M`, `^@` and `^J` stand for CR, NUL and LF.
//! `UPDATE_EXPECT=1 cargo test -p message --test compose` rewrites the `=`, `>` and `!` lines for review.

use message::compose::{
    ArgumentSyntax, FixUp, Hosts, Identity, Injected, Injector, Letters, Options, RecipientsFrom, Stamp,
    Unique, Zone, fix_up,
};
use message::{BodyKind, UnixMillis};
use std::collections::HashMap;
use std::path::Path;

const AT: UnixMillis = UnixMillis(1_795_391_457_123);
const UNIQUE: Unique = Unique { process: 4711, serial: 31 };

#[test]
fn messages_are_made_as_the_transcripts_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/transcripts/compose");
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let (mut count, mut wrong) = (0, Vec::new());
    for entry in std::fs::read_dir(&folder).expect("the transcripts are there") {
        let path = entry.expect("a folder's entry").path();
        let text = std::fs::read_to_string(&path).expect("a transcript is UTF-8");
        let cases: Vec<String> = text.trim_end().split("\n\n").map(run).collect();
        count += cases.len();
        let made = cases.join("\n\n") + "\n";
        if made == text {
            continue;
        }
        if update {
            std::fs::write(&path, &made).expect("the transcript can be written");
        } else {
            wrong.push(format!("{}:\n{}", path.display(), difference(&text, &made)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 60, "only {count} cases were found");
}

/// The lines around the first one that differs.
fn difference(want: &str, made: &str) -> String {
    let same = want.lines().zip(made.lines()).take_while(|(want, made)| want == made).count();
    let from = |text: &str| text.lines().skip(same.saturating_sub(3)).take(9).collect::<Vec<_>>().join("\n");
    format!("line {}: wanted\n{}\nmade\n{}\n", same + 1, from(want), from(made))
}

/// The case with what was made of it now.
fn run(case: &str) -> String {
    let given: Vec<&str> = case.lines().filter(|line| !line.starts_with(['=', '>', '!'])).collect();
    let command = given.iter().find_map(|line| line.strip_prefix("$ ")).expect("a case has a command");
    let input = input_of(&given);
    let mut lines: Vec<String> = given.iter().map(|line| (*line).to_owned()).collect();
    lines.extend(Command::parse(command).outcome(&input));
    lines.join("\n")
}

fn input_of(given: &[&str]) -> Vec<u8> {
    let mut input = Vec::new();
    for line in given.iter().filter_map(|line| line.strip_prefix('<')) {
        let (text, end) = match line.strip_prefix('|') {
            Some(open) => (open, ""),
            None => (line, "\n"),
        };
        let text = text.strip_prefix(' ').unwrap_or(text);
        input.extend_from_slice(text.replace("^M", "\r").replace("^@", "\0").as_bytes());
        input.extend_from_slice(end.as_bytes());
    }
    input
}

/// A `$` line.
struct Command {
    verb: String,
    hosts: Hosts,
    identity: Identity,
    options: Options,
    zone: Zone,
}

impl Command {
    fn parse(line: &str) -> Command {
        let mut words = words(line).into_iter().peekable();
        let mut variables = HashMap::new();
        while let Some((name, value)) = words.peek().and_then(|word| word.split_once('=')) {
            variables.insert(name.to_owned(), value.to_owned());
            words.next();
        }
        let look = |name: &'static str| variables.get(name).cloned();
        let verb = words.next().expect("a command has a verb");
        let mut command = Command {
            hosts: hosts().with_variables(look).expect("good names"),
            identity: Identity::from_variables("ann", look),
            options: Options {
                letters: Letters::parse(variables.get("QMAILINJECT").map_or("", |letters| letters)),
                argument_syntax: match verb.as_str() {
                    "sendmail" => ArgumentSyntax::List,
                    _ => ArgumentSyntax::Plain,
                },
                ..Options::default()
            },
            zone: Zone::Universal,
            verb,
        };
        while let Some(word) = words.next() {
            command.option(&word, || words.next().expect("the option has its argument"));
        }
        command
    }

    fn option(&mut self, word: &str, mut next: impl FnMut() -> String) {
        let options = &mut self.options;
        match word {
            "-A" => options.recipients_from = RecipientsFrom::ArgumentsElseHeader,
            "-a" => options.recipients_from = RecipientsFrom::Arguments,
            "-h" => options.recipients_from = RecipientsFrom::Header,
            "-H" => options.recipients_from = RecipientsFrom::Both,
            "-f" => options.sender = Some(next()),
            "-list" => options.followup_lists.push(next()),
            "-zone" => self.zone = Zone::Local(next().parse().expect("minutes")),
            "-masquerade" => options.masquerade.add(&next(), &next()).expect("a good entry"),
            _ => options.recipients.push(word.to_owned()),
        }
    }

    fn outcome(&self, input: &[u8]) -> Vec<String> {
        let now = Stamp { at: AT, zone: self.zone };
        if self.verb == "fix-up" {
            return match fix_up(input, &FixUp { hosts: &self.hosts, now, unique: UNIQUE }) {
                None => vec!["! good".to_owned()],
                Some(content) => shown(&content),
            };
        }
        let injector = Injector {
            options: &self.options,
            identity: &self.identity,
            hosts: &self.hosts,
            now,
            unique: UNIQUE,
        };
        match injector.inject(input) {
            Err(error) => vec![format!("! {error}")],
            Ok(injected) => {
                let mut lines = vec![envelope(&injected)];
                lines.extend(shown(&injected.content));
                lines
            }
        }
    }
}

fn hosts() -> Hosts {
    Hosts::of("mx.example.org")
        .and_then(|hosts| hosts.with_default_host("example.org"))
        .and_then(|hosts| hosts.with_default_domain("cs.example.edu"))
        .and_then(|hosts| hosts.with_plus_domain("example.edu"))
        .expect("good names")
}

/// Parted at spaces; single quotes hold words together.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut quoted, mut open) = (Vec::new(), false, false);
    for char in line.chars() {
        match char {
            '\'' => {
                quoted = !quoted;
                if !open {
                    words.push(String::new());
                }
                open = true;
            }
            ' ' if !quoted => open = false,
            other => {
                if !open {
                    words.push(String::new());
                }
                open = true;
                words.last_mut().expect("one is open").push(other);
            }
        }
    }
    words
}

fn envelope(injected: &Injected) -> String {
    let mut line = format!("= from {}", injected.sender);
    if injected.verp.is_some() {
        line.push_str(" VERP");
    }
    match injected.body {
        BodyKind::SevenBit => {}
        kind => line.push_str(&format!(" {kind:?}")),
    }
    if injected.smtputf8 {
        line.push_str(" SMTPUTF8");
    }
    for recipient in injected.recipients.iter() {
        line.push_str(&format!(" to {recipient}"));
    }
    line
}

fn shown(content: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(content);
    let mut lines = Vec::new();
    let mut rest = &text[..];
    while let Some((line, tail)) = rest.split_once("\r\n") {
        lines.push(format!("> {}", visible(line)).trim_end().to_owned());
        rest = tail;
    }
    if !rest.is_empty() {
        lines.push(format!(">| {}", visible(rest)));
    }
    lines
}

fn visible(line: &str) -> String {
    line.replace('\r', "^M").replace('\0', "^@").replace('\n', "^J")
}
