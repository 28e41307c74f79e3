//! `ringpost inject`, as qmail-inject: options `-a -A -h -H -f -n -N`, variables `QMAIL*`, exit codes 0, 100 and 111.

use super::client::{self, Letter};
use super::dsn::Dsn;
use super::error::SubmitError;
use super::place::{Place, Pointers};
use super::user::{User, variable};
use super::{compose, followup_lists, read_message};
use message::compose::{ArgumentSyntax, Letters, Options, RecipientsFrom};
use std::io::Write as _;
use std::process::ExitCode;

const USAGE: &str =
    "usage: inject [-aAhHnN] [-f SENDER] [--socket FILE] [--config FILE] [RECIPIENT...] < MESSAGE
  -a  recipients are the arguments       -A  the arguments, else the header's (this is what happens anyway)
  -h  recipients are the header's        -H  the arguments and the header's
  -f  the envelope's sender              -n  print the message instead of sending it";

/// What the words ask for.
#[derive(Debug, Default)]
struct Arguments {
    pointers: Pointers,
    options: Options,
    prints: bool,
}

pub(super) fn run(words: Vec<String>) -> ExitCode {
    match parse(words).and_then(inject) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => crate::cli::complain(error.qmail_exit(), &error),
    }
}

fn inject(arguments: Arguments) -> Result<(), SubmitError> {
    let Arguments { pointers, mut options, prints } = arguments;
    let place = Place::find(&pointers)?;
    options.letters = Letters::parse(&variable("QMAILINJECT").unwrap_or_default());
    options.followup_lists = followup_lists()?;
    let injected = compose(&place, &User::ours().identity(false), options, &read_message()?)?;
    if prints {
        let mut out = std::io::stdout().lock();
        return out.write_all(&injected.to_print()).and_then(|()| out.flush()).map_err(SubmitError::Output);
    }
    client::submit(&place.socket, Letter { injected: &injected, dsn: &Dsn::default() }).map(drop)
}

fn parse(words: Vec<String>) -> Result<Arguments, SubmitError> {
    let mut arguments = Arguments::default();
    arguments.options.argument_syntax = ArgumentSyntax::Plain;
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        if word == "--" {
            break;
        }
        if arguments.pointers.take(&word, &mut words)? {
            continue;
        }
        let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
            arguments.options.recipients.push(word);
            break;
        };
        arguments.take_letters(letters, &mut words)?;
    }
    // getopt(3) as qmail has it: behind the first recipient all are.
    arguments.options.recipients.extend(words);
    Ok(arguments)
}

impl Arguments {
    fn take_letters(
        &mut self,
        letters: &str,
        rest: &mut impl Iterator<Item = String>,
    ) -> Result<(), SubmitError> {
        for (at, letter) in letters.char_indices() {
            match letter {
                'a' => self.options.recipients_from = RecipientsFrom::Arguments,
                'A' => self.options.recipients_from = RecipientsFrom::ArgumentsElseHeader,
                'h' => self.options.recipients_from = RecipientsFrom::Header,
                'H' => self.options.recipients_from = RecipientsFrom::Both,
                'n' => self.prints = true,
                'N' => self.prints = false,
                'f' => {
                    let attached = &letters[at + 1..];
                    let sender = (!attached.is_empty()).then(|| attached.to_owned()).or_else(|| rest.next());
                    let missing = || SubmitError::Usage("-f needs a sender".to_owned());
                    self.options.sender = Some(sender.ok_or_else(missing)?);
                    return Ok(());
                }
                _ => return Err(SubmitError::Usage(format!("there is no option -{letter}\n{USAGE}"))),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Arguments {
        parse(words.iter().map(|word| (*word).to_owned()).collect()).unwrap()
    }

    #[test]
    fn options_are_read_as_qmail_inject_reads_them() {
        let arguments = parsed(&["-nHfann@here.test", "--socket=/s", "bob@there.test", "-a"]);
        assert!(arguments.prints);
        assert_eq!(arguments.options.recipients_from, RecipientsFrom::Both);
        assert_eq!(arguments.options.sender.as_deref(), Some("ann@here.test"));
        assert_eq!(arguments.options.recipients, ["bob@there.test", "-a"]);
        assert_eq!(arguments.pointers.socket.as_deref(), Some("/s".as_ref()));
        assert_eq!(parsed(&["-f", "", "--", "-x@y.test"]).options.sender.as_deref(), Some(""));
        assert_eq!(parsed(&["--", "-x@y.test"]).options.recipients, ["-x@y.test"]);
    }

    #[test]
    fn an_unknown_option_is_an_error_for_good() {
        let error = parse(vec!["-z".to_owned()]).unwrap_err();
        assert_eq!(error.qmail_exit(), 100);
        assert_eq!(parse(vec!["-f".to_owned()]).unwrap_err().qmail_exit(), 100);
    }
}
