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
use transcripts::{input_of, shown, words};

mod transcripts;

const AT: UnixMillis = UnixMillis(1_795_391_457_123);
const UNIQUE: Unique = Unique { process: 4711, serial: 31 };

#[test]
fn messages_are_made_as_the_transcripts_say() {
    assert!(transcripts::check("compose", run) >= 60);
}

/// The case with what was made of it now.
fn run(case: &str) -> String {
    transcripts::with_outcome(case, |command, given| Command::parse(command).outcome(&input_of(given)))
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
