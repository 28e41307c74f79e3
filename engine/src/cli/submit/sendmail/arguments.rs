//! sendmail's options, as they have grown over forty years of programs that call it.
//!
//! Letters may stand together (`-ti`), values attached or apart (`-fann`, `-f ann`), options behind recipients; `--` ends
//! them. What asks for something that we do not do but would not be missed is accepted. What would have a
//! file read or written, or a daemon started, is refused: whoever asks for that must not believe that it happened.

use crate::cli::submit::dsn::Dsn;
use crate::cli::submit::error::SubmitError;
use crate::cli::submit::place::Pointers;
use std::path::PathBuf;

pub(super) const USAGE: &str = "usage: sendmail [OPTION...] [RECIPIENT...] < MESSAGE
  -t             recipients are the header's; arguments are left out of them
  -i, -oi        a line with a lone dot does not end the message
  -f, -r SENDER  the envelope's sender               -F NAME  the sender's full name
  -N WHEN        never, or some of failure, delay and success (RFC 3461)
  -R full|hdrs   what a report returns               -V ID    an envelope id for reports
  -bm            deliver (this is what happens anyway)
  -bs            speak SMTP on standard input and output
  -bp            show the queue (mailq)
  -bi            newaliases                          -oA FILE the table of aliases
  --socket FILE  the daemon's socket                 --config FILE  the configuration";

/// What is to be done.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Mode {
    #[default]
    Deliver,
    /// `-bs`.
    Speak,
    /// `-bp`.
    Queue,
    /// `-bi`.
    Aliases,
    /// `-q` alone: the daemon sends by itself.
    Nothing,
    Help,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    pub(super) pointers: Pointers,
    pub(super) mode: Mode,
    pub(super) recipients_in_header: bool,
    pub(super) dots_are_text: bool,
    /// `-eq`: the exit code says it all.
    pub(super) is_quiet: bool,
    pub(super) sender: Option<String>,
    pub(super) name: Option<String>,
    pub(super) dsn: Dsn,
    /// `-oA`: the table of aliases.
    pub(super) aliases: Option<PathBuf>,
    pub(super) recipients: Vec<String>,
}

/// How an option has its value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Value {
    None,
    /// Attached or the next word.
    Needed,
    /// Attached, if at all.
    Attached,
}

fn value_of(letter: char) -> Option<Value> {
    match letter {
        'c' | 'G' | 'i' | 'I' | 'm' | 'n' | 's' | 't' | 'T' | 'U' | 'v' => Some(Value::None),
        'A' | 'b' | 'B' | 'C' | 'e' | 'f' | 'F' | 'h' | 'L' | 'M' | 'N' | 'o' | 'O' | 'p' | 'r' | 'R'
        | 'V' | 'X' | 'x' => Some(Value::Needed),
        'd' | 'q' => Some(Value::Attached),
        _ => None,
    }
}

pub(super) fn parse(words: Vec<String>) -> Result<Arguments, SubmitError> {
    let mut arguments = Arguments::default();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        if word == "--" {
            break;
        }
        if word == "--help" {
            arguments.mode = Mode::Help;
        } else if word.starts_with("--") {
            if !arguments.pointers.take(&word, &mut words)? {
                return Err(SubmitError::Usage(format!("there is no option {word}\n{USAGE}")));
            }
        } else if let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            arguments.take_letters(letters, &mut words)?;
        } else {
            arguments.recipients.push(word);
        }
    }
    arguments.recipients.extend(words);
    if arguments.mode == Mode::Nothing && (arguments.recipients_in_header || !arguments.recipients.is_empty())
    {
        arguments.mode = Mode::Deliver;
    }
    Ok(arguments)
}

impl Arguments {
    fn take_letters(
        &mut self,
        letters: &str,
        rest: &mut impl Iterator<Item = String>,
    ) -> Result<(), SubmitError> {
        for (at, letter) in letters.char_indices() {
            let attached = &letters[at + letter.len_utf8()..];
            let missing = || SubmitError::Usage(format!("-{letter} needs a value\n{USAGE}"));
            let value = match value_of(letter) {
                Some(Value::None) => {
                    self.take_flag(letter);
                    continue;
                }
                Some(Value::Attached) => attached.to_owned(),
                Some(Value::Needed) if !attached.is_empty() => attached.to_owned(),
                Some(Value::Needed) => rest.next().ok_or_else(missing)?,
                None => return Err(SubmitError::Usage(format!("there is no option -{letter}\n{USAGE}"))),
            };
            return self.take_value(letter, value).map_err(SubmitError::Usage);
        }
        Ok(())
    }

    /// The others say how to show, count, copy or forward what we do our own way.
    fn take_flag(&mut self, letter: char) {
        match letter {
            't' => self.recipients_in_header = true,
            'i' => self.dots_are_text = true,
            'I' => self.mode = Mode::Aliases,
            _ => {}
        }
    }

    fn take_value(&mut self, letter: char, value: String) -> Result<(), String> {
        match letter {
            'f' | 'r' => self.sender = Some(value),
            'F' => self.name = Some(value),
            'b' => self.mode = mode_of(&value)?,
            'N' => self.dsn.set_notify(&value)?,
            'R' => self.dsn.set_ret(&value)?,
            'V' => self.dsn.set_envid(&value)?,
            'e' => self.is_quiet = value == "q",
            'o' => self.take_old_option(&value),
            'q' if value.is_empty() => self.mode = Mode::Nothing,
            'q' => {
                return Err(format!(
                    "-q{value}: the daemon is `ringpost serve`; see also `ringpost queue flush`"
                ));
            }
            'B' if !is_body_type(&value) => return Err(format!("-B {value:?}: write 7BIT or 8BITMIME")),
            'C' => return Err("-C: another configuration is named by --config".to_owned()),
            'M' => return Err("-M: one message is tried by `ringpost queue retry`".to_owned()),
            'X' => return Err("-X: nothing is logged here; see `ringpost trace`".to_owned()),
            // -A, -B, -d, -h, -L, -O, -p and -x say how sendmail itself is to work.
            _ => {}
        }
        Ok(())
    }

    /// `-oi`, `-oem`: options of before there were letters for them.
    fn take_old_option(&mut self, value: &str) {
        match value {
            "i" => self.dots_are_text = true,
            "eq" => self.is_quiet = true,
            _ => self.aliases = value.strip_prefix('A').map(PathBuf::from).or(self.aliases.take()),
        }
    }
}

fn mode_of(value: &str) -> Result<Mode, String> {
    match value {
        "m" => Ok(Mode::Deliver),
        "s" => Ok(Mode::Speak),
        "p" => Ok(Mode::Queue),
        "i" => Ok(Mode::Aliases),
        "d" | "D" => Err(format!("-b{value}: the daemon is `ringpost serve`")),
        "v" => Err("-bv: where a domain's mail goes is said by `ringpost explain`".to_owned()),
        _ => Err(format!("-b{value}: there is no such mode\n{USAGE}")),
    }
}

/// What the content holds decides what is announced; a caller that means something else is told.
fn is_body_type(value: &str) -> bool {
    ["7BIT", "8BITMIME", "8BIT"].iter().any(|kind| value.eq_ignore_ascii_case(kind))
}

/// For the fuzzer: words parted by NUL.
pub fn fuzz_arguments(bytes: &[u8]) {
    let words = String::from_utf8_lossy(bytes).split('\0').map(str::to_owned).collect::<Vec<_>>();
    let count = words.len();
    if let Ok(arguments) = parse(words) {
        assert!(arguments.recipients.len() <= count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Arguments, SubmitError> {
        parse(line.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect())
    }

    fn refusal(line: &str) -> String {
        let error = parsed(line).unwrap_err();
        assert_eq!(error.sysexit(), 64, "{line}");
        error.to_string()
    }

    #[test]
    fn known_callers_are_understood() {
        let cron = parsed("-FCronDaemon -i -B8BITMIME -oem root").unwrap();
        assert!(cron.dots_are_text && !cron.recipients_in_header);
        assert_eq!((cron.name.as_deref(), cron.recipients), (Some("CronDaemon"), vec!["root".to_owned()]));
        let php = parsed("-t -i -fwww@here.test").unwrap();
        assert!(php.dots_are_text && php.recipients_in_header);
        assert_eq!(php.sender.as_deref(), Some("www@here.test"));
        let mutt =
            parsed("-oem -oi -N failure,delay -R hdrs -f ann@here.test -- bob@there.test -odd").unwrap();
        assert_eq!(mutt.recipients, ["bob@there.test", "-odd"]);
        assert!(mutt.dots_are_text);
        let behind = parsed("bob@there.test -f ann@here.test -ti").unwrap();
        assert_eq!((behind.sender.as_deref(), behind.recipients.len()), (Some("ann@here.test"), 1));
        assert!(behind.recipients_in_header && behind.dots_are_text);
        assert!(
            parsed("-G -U -v -m -n -Am -d0.1 -h 3 -L tag -p esmtp -O Foo=bar -odb -eq a@b.test")
                .unwrap()
                .is_quiet
        );
    }

    #[test]
    fn modes_are_told_apart() {
        let mode = |line: &str| parsed(line).unwrap().mode;
        assert_eq!(mode("-bs"), Mode::Speak);
        assert_eq!(mode("-b p"), Mode::Queue);
        assert_eq!((mode("-bi"), mode("-I")), (Mode::Aliases, Mode::Aliases));
        assert_eq!((mode("-q"), mode("-q -t"), mode("-bm a")), (Mode::Nothing, Mode::Deliver, Mode::Deliver));
        assert_eq!(mode("--help"), Mode::Help);
    }

    #[test]
    fn what_would_be_missed_is_refused_with_the_way_to_do_it() {
        assert!(refusal("-bd").contains("ringpost serve"));
        assert!(refusal("-q30m").contains("ringpost serve"));
        assert!(refusal("-C /tmp/other.cf a@b.test").contains("--config"));
        assert!(refusal("-X/tmp/log a@b.test").contains("nothing is logged"));
        assert!(refusal("-bv a@b.test").contains("ringpost explain"));
        assert!(refusal("-B9BIT a@b.test").contains("8BITMIME"));
        assert!(refusal("-N sometimes a@b.test").contains("never"));
        assert!(refusal("-f").contains("needs a value"));
        assert!(refusal("-z").contains("no option -z"));
        assert!(refusal("--sock").contains("no option --sock"));
    }

    #[test]
    fn any_words_are_survived() {
        for bytes in [&b"-\0--\0-\xff\0-f"[..], b"-oi\0-\xc3\xa4", b"--socket=\0--config", b""] {
            fuzz_arguments(bytes);
        }
    }
}
